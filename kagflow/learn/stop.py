"""What ends training between two steps: SIGTERM, SIGINT, or a budget that is spent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class BudgetSpent(Exception):  # noqa: N818 - it is no error
    """Training stopped in time, with its state saved."""


class Stop:
    """Catch the first signal while entered; the second acts as if nothing were caught.

    Outside the main thread no handler can be set. `spent` tells of a budget; `agree` makes of one
    process's flag that of all.
    """

    def __init__(
        self,
        spent: Callable[[], bool] = lambda: False,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        self.asked = False
        self._spent, self._agree = spent, agree
        self._signalled = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def look(self) -> None:
        """Set `asked`; between two looks it does not change."""
        self.asked = self._agree(self._signalled or self._spent())
        # Another process may have had the signal.
        self._signalled = self._agree(self._signalled) if self.asked else self._signalled

    def leave(self, step: int) -> None:
        """Raise KeyboardInterrupt after a signal and BudgetSpent where the budget is spent."""
        if self.asked and self._signalled:
            raise KeyboardInterrupt(f"stopped at step {step}; rerun to go on")
        if self.asked:
            raise BudgetSpent(f"stopped at step {step}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signalled = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
