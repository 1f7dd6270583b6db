"""Keep live secrets out of log records, messages and tracebacks.

The factory that makes logging's records holds them: whichever logger or handler a library uses, its
records come from there, and nothing else of this process has to remember a secret.
"""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

SHORTEST = 8  # characters; a shorter word would be hidden where it is no secret


def hide(secret: str, username: str | None = None) -> None:
    """Keep `secret`, and the forms in which it travels, out of everything from now on."""
    if len(secret) < SHORTEST:
        return
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _Records):
        factory = _Records(factory)
        logging.setLogRecordFactory(factory)
    shown = f"***{secret[-4:]}"
    basic = base64.b64encode(f"{username or ''}:{secret}".encode()).decode()
    coded = base64.b64encode(secret.encode()).decode()
    factory.forms |= {secret: shown, quote(secret, safe=""): shown, basic: shown, coded: shown}


def redact(text: str) -> str:
    """Return `text` with every hidden secret cut down to its last four characters."""
    factory = logging.getLogRecordFactory()
    return factory.clean(text) if isinstance(factory, _Records) else text


class _Records:
    """Make log records as the factory before it did, and clean them."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make
        self.forms: dict[str, str] = {}

    def clean(self, text: str) -> str:
        # The longest first: one form may hold another.
        for form in sorted(self.forms, key=len, reverse=True):
            text = text.replace(form, self.forms[form])
        return text

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        try:
            said = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # logging would print such a record with its raw arguments.
            said = f"{record.msg} {record.args}"
            record.msg, record.args = self.clean(said), ()
        if self.clean(said) != said:
            record.msg, record.args = self.clean(said), ()
        if record.exc_info:
            trace = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if self.clean(trace) != trace:
                record.exc_info, record.exc_text = None, self.clean(trace)
        if record.stack_info:
            record.stack_info = self.clean(record.stack_info)
        return record
