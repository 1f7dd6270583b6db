"""Comparisons as rows, kept section by section in results.json, shown in RESULTS.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
KEPT, PAGE = HERE / "results.json", HERE / "RESULTS.md"
HEAD = """# Measured

`make bench` writes this page, section by section; `make bench ONLY="fetch loop"` takes some anew.
Pairs of ours and the baseline alternate in one run; medians, and below 1 is faster than the
baseline. A section in which a baseline once took twice its median is not kept: something else ran.
"""


@dataclass(frozen=True)
class Row:
    """One comparison: the median ratio of ours to the baseline, and its spread."""

    name: str
    baseline: str
    ours_s: float
    baseline_s: float
    ratios: tuple[float, ...]
    loud: bool = False


@dataclass(frozen=True)
class Section:
    """What one section measured, and on which day and machine."""

    rows: tuple[Row, ...]
    said: tuple[str, ...]
    where: str

    @property
    def loud(self) -> list[str]:
        """Name the rows that no one should believe."""
        return [one.name for one in self.rows if one.loud]


def seconds(argv: Sequence[str]) -> float:
    """Return the wall time of a command that must succeed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KAG")}
    start = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def compare(
    name: str, baseline: str, ours: Sequence[str], theirs: Sequence[str], pairs: int
) -> Row:
    """Time two commands in alternating pairs."""
    seconds(ours)
    seconds(theirs)
    return row(name, baseline, [(seconds(ours), seconds(theirs)) for _ in range(pairs)])


def row(name: str, baseline: str, pairs: Sequence[tuple[float, float]]) -> Row:
    """Return the comparison of (ours, theirs) in seconds."""
    return Row(
        name,
        baseline,
        statistics.median(one for one, _ in pairs),
        statistics.median(two for _, two in pairs),
        tuple(sorted(one / two for one, two in pairs)),
        max(two for _, two in pairs) > 2 * statistics.median(two for _, two in pairs),
    )


def where() -> str:
    """Say when and on what this is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    today = datetime.datetime.now(datetime.UTC).date()
    cpu = names[0] if names else platform.processor()
    return f"{today}, {os.cpu_count()} cores of {cpu}, Python {platform.python_version()}"


def keep(name: str, section: Section, order: Sequence[str]) -> None:
    """Put a section in the place of its earlier self and write the page."""
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    kept[name] = asdict(section)
    kept = {one: kept[one] for one in order if one in kept}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))


def page(kept: dict[str, dict[str, object]]) -> str:
    """Return RESULTS.md."""
    return "\n".join([HEAD, *(part(name, value) for name, value in kept.items())])


def part(name: str, value: dict[str, object]) -> str:
    """Return a section of the page."""
    lines = [f"## {name.capitalize()}", "", f"{value['where']}.", ""]
    rows = [Row(**one) for one in value["rows"]]  # type: ignore[attr-defined]
    if rows:
        lines += [
            "| what | baseline | ours, s | baseline, s | ratio | least to most | pairs |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {one.name} | {one.baseline} | {one.ours_s:.3f} | {one.baseline_s:.3f} | "
                f"{ratio(statistics.median(one.ratios))} | {ratio(one.ratios[0])} to "
                f"{ratio(one.ratios[-1])} | {len(one.ratios)} |"
                for one in rows
            ),
            "",
        ]
    for text in value["said"]:  # type: ignore[attr-defined]
        lines += [str(text), ""]
    return "\n".join(lines)


def ratio(value: float) -> str:
    """Write a ratio to the baseline; one far below 1 as a fraction."""
    return f"{value:.2f}" if value >= 0.095 else f"1/{1 / value:.0f}"
