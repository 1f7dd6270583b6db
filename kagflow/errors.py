"""The only exceptions meant for people.

KagflowError
├── UsageError    2    wrong word, key, value or order of commands
├── AuthError     3    no credential, or one that is refused
├── RemoteError   4    the remote side says no: rules, 404, quota, a failed kernel
├── NetworkError  5    no answer; the same command may succeed later
├── DataError     6    a file that is not what it should be
├── LocalError    7    this machine lacks something: disk, memory, a sandbox
└── RefusedError  8    possible, but unsafe
"""

from __future__ import annotations

from typing import ClassVar


class KagflowError(Exception):
    """Say what went wrong and where; `hint` names the way to mend it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(KagflowError):
    """Report a wrong word, key, value or order of commands."""

    exit_code = 2


class AuthError(KagflowError):
    """Report a missing or refused credential."""

    exit_code = 3


class RemoteError(KagflowError):
    """Report a refusal or failure on the remote side."""

    exit_code = 4


class NetworkError(KagflowError):
    """Report that no usable answer came; the same command may succeed later."""

    exit_code = 5


class DataError(KagflowError):
    """Report a file that is not what it should be."""

    exit_code = 6


class LocalError(KagflowError):
    """Report something that this machine lacks."""

    exit_code = 7


class RefusedError(KagflowError):
    """Report a step that is possible but unsafe."""

    exit_code = 8
