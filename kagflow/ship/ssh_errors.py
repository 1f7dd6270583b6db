"""What ssh, rsync and the host say when something fails, as errors with the way to mend them."""

from __future__ import annotations

import re
import shlex

from kagflow.errors import (
    AuthError,
    DataError,
    KagflowError,
    LocalError,
    NetworkError,
    RefusedError,
    UsageError,
)

# ssh's own exit status, whatever failed; else it hands the remote command's on.
SSH_FAILED = 255
NO_PYTHON, NOT_FOUND, NOT_EXECUTABLE = 97, 127, 126
# rsync's exit statuses for a stream that broke.
RSYNC_BROKEN = frozenset({10, 12, 20, 30, 35, SSH_FAILED})


def ssh_error(host: str, text: str) -> KagflowError:
    """Return the error that ssh's last words mean."""
    line = last_line(text)
    by_hand = f"ssh {shlex.quote(host)}"
    if "IDENTIFICATION HAS CHANGED" in text or ("Host key for" in text and "changed" in text):
        return RefusedError(
            f"{host} shows another key than the one that is known: it was reinstalled, or "
            "something stands between",
            hint=f"ask its owner; where the new key is right, ssh-keygen -R HOST and {by_hand}",
        )
    if "Host key verification failed" in text or "host key is known" in text:
        return AuthError(
            f"the key of {host} is not known here",
            hint=f"{by_hand} once, by hand, and compare the fingerprint that it shows",
        )
    if re.search(r"Permission denied|Too many authentication failures|No .*authentication", text):
        return AuthError(
            f"{host} refuses this login: {line}",
            hint=f"{by_hand} must work without a question: ssh-copy-id, or ssh-add for a key "
            "with a passphrase",
        )
    if re.search(r"Bad configuration|configuration file|Bad owner or permissions", text):
        return UsageError(f"ssh cannot read its settings: {line}", hint="mend that file")
    if "Could not resolve hostname" in text:
        return NetworkError(
            f"no machine '{host}': {line}", hint=f"check the name; {by_hand} shows the same"
        )
    return NetworkError(
        f"{host} does not answer: {line or 'ssh said nothing'}",
        hint=f"{by_hand} -v says where it stops; the same command goes on later",
    )


def rsync_error(host: str, code: int, text: str) -> KagflowError:
    """Return the error that rsync's exit status and last words mean."""
    if re.search(r"No space left|Disk quota exceeded", text):
        return LocalError(
            f"the disk is full, here or on {host}: {last_line(text)}",
            hint="free some space; KAGFLOW_SSH_HOME names another folder on the host",
        )
    if re.search(r"rsync.*(not found|No such file)", text) and code in (NOT_FOUND, 12):
        return no_rsync(host)
    if code == SSH_FAILED:
        return ssh_error(host, text)
    if code in RSYNC_BROKEN:
        return NetworkError(
            f"the transfer with {host} broke off: {last_line(text)}",
            hint="the same command goes on with what has arrived",
        )
    return DataError(f"rsync with {host} failed ({code}): {last_line(text)}", hint="read its words")


def no_rsync(host: str) -> LocalError:
    """Return the error of a host without rsync."""
    return LocalError(
        f"rsync is missing on {host}", hint="install it there: apt install rsync, dnf install rsync"
    )


def no_python(host: str, text: str, named: str) -> LocalError:
    """Return the error of a host where no Python would do; `named` is the one asked for."""
    seen = re.findall(r"(\S+) has Python (\S+)", text)
    if named:
        old = f": it is Python {seen[0][1]}" if seen else " there"
        return LocalError(
            f"KAGFLOW_SSH_PYTHON={named}: {host} has no such Python >= 3.11{old}",
            hint="name another one by its whole path on the host",
        )
    found = f": {', '.join(f'{name} is {version}' for name, version in seen)}" if seen else ""
    return LocalError(
        f"{host} has no Python >= 3.11 on its PATH{found}",
        hint="install one there, or name it: KAGFLOW_SSH_PYTHON=/path/on/the/host/python3",
    )


def refusal(host: str, kind: str, text: str) -> KagflowError:
    """Return the error of a request that the host would not do."""
    if kind == "python":
        return LocalError(f"on {host}: {text}", hint="name another with KAGFLOW_SSH_PYTHON")
    if kind == "name":
        return DataError(f"on {host}: {text}", hint="rename the file")
    return LocalError(
        f"on {host}: {text}", hint="mend that there, or KAGFLOW_SSH_HOME=/another/folder"
    )


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
