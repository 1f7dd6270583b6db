"""Count cases: a seeded share by default, all of them, resumable, under `-m gauntlet`."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
HEAD = """# Gauntlet

Full counts of the faults that `make gauntlet` plays; a default test run plays a seeded share of
each. A line is added when a count is complete.

| date | machine | what | played | failed |
|---|---|---|---|---|
"""


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {' '.join(names[0].split()[:2]) if names else 'a CPU'}"


class Tally:
    """Play numbered cases and remember which were played, across interrupted runs."""

    def __init__(self, capsys) -> None:
        self.capsys = capsys

    def share(self, name: str, play, numbers) -> None:
        """Play a share of the cases and print how many there were."""
        failed = [(number, fault) for number in numbers if (fault := play(number))]
        with self.capsys.disabled():
            print(f" [{name}: {len(numbers)} played] ", end="")
        assert not failed, failed

    def full(self, name: str, play, total: int, *, note: str = "") -> None:
        """Play cases 0 to total - 1, going on where an earlier run was cut short."""
        state = BENCH / ".gauntlet" / f"{name.replace(' ', '-')}.json"
        state.parent.mkdir(exist_ok=True)
        done = json.loads(state.read_text()) if state.is_file() else {"next": 0, "failed": []}
        for number in range(done["next"], total):
            fault = play(number)
            done["failed"] += [[number, str(fault)]] if fault else []
            done["next"] = number + 1
            state.write_text(json.dumps(done))
        state.unlink()
        page = BENCH / "GAUNTLET.md"
        text = page.read_text() if page.is_file() else HEAD
        today = datetime.datetime.now(datetime.UTC).date()
        said = f"{name}{f' ({note})' if note else ''}"
        row = f"| {today} | {machine()} | {said} | {total} | {len(done['failed'])} |\n"
        page.write_text(text + row)
        assert not done["failed"], done["failed"]


@pytest.fixture
def tally(capsys) -> Tally:
    return Tally(capsys)
