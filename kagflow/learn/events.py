"""Write a training's figures for TensorBoard too; metrics.jsonl stays what counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kagflow.errors import UsageError

FOLDER = "tensorboard"


class Events:
    """Listen to epochs; `tensorboard --logdir runs` then shows every run under its path."""

    def __init__(self, run_dir: Path, classes: Sequence[str]) -> None:
        self._folder, self._classes = run_dir / FOLDER, classes
        self._open = find_writer()
        self._writer: Any = None

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Write one epoch's line of metrics.jsonl, its step being the optimiser's."""
        step = line["step"]
        if self._writer is None:
            # A resumed run may tell of an epoch again: what was written of it before is dropped.
            self._writer = self._open(str(self._folder), purge_step=step)
        for name, value in scalars(line, self._classes).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()


def scalars(line: Mapping[str, Any], classes: Sequence[str]) -> dict[str, float]:
    """Return a line's figures by name, those of a class as name/class."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, list | tuple):
            each = zip(classes, value, strict=True)
            found |= {f"{name}/{one}": float(part) for one, part in each if part is not None}
        elif name != "step" and isinstance(value, int | float):
            found[name] = float(value)
    return found


def find_writer() -> Any:
    """Return torch's writer; raises UsageError where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "tensorboard=true needs the package tensorboard",
            hint="pip install 'kagflow[tensorboard]', or leave the word out: metrics.jsonl "
            "holds the same figures",
        ) from None
    return SummaryWriter
