"""Time kagflow against named baselines, alternating, and write bench/RESULTS.md.

It ends with an error, and writes nothing, where a baseline took twice its own median or the arms
did not do the same work.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import data_path
import ensemble_search
import fetch
import oof_size
import packing
import postprocess
import rle
import train_step

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PAIRS = 11
FETCHES = 9
# `python bench/oof_size.py` writes all 12,568.
OOF_IMAGES = 600
IMAGES = int(os.environ.get("KAGFLOW_BENCH_IMAGES", "12568"))
GIGABYTES = float(os.environ.get("KAGFLOW_BENCH_GB", "1"))


@dataclass(frozen=True)
class Row:
    """One comparison: the median ratio of ours to the baseline, and its spread."""

    name: str
    baseline: str
    ours_s: float
    baseline_s: float
    ratios: tuple[float, ...]
    loud: bool


def seconds(argv: Sequence[str]) -> float:
    """Return the wall time of a command that must succeed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KAG")}
    start = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def compare(name: str, baseline: str, ours: Sequence[str], theirs: Sequence[str]) -> Row:
    """Time two commands in alternating pairs."""
    seconds(ours)
    seconds(theirs)
    return row(name, baseline, [(seconds(ours), seconds(theirs)) for _ in range(PAIRS)])


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


def training() -> tuple[list[Row], list[str]]:
    """Compare the loop and the data path with what people write; return rows and remarks."""
    rows, said = [], []
    for case in train_step.CASES:
        found = train_step.pairs(case, PAIRS)
        more = statistics.median(1000 * (a.cpu - b.cpu) / case.steps for a, b in found)
        rows.append(
            row(
                f"{case.steps} steps of training: {case.name}",
                "a bare torch loop, same parts",
                [(a.wall, b.wall) for a, b in found],
            )
        )
        said.append(f"{case.name}: {more:+.2f} ms of the processor a step beside the bare loop.")
    for crop, what in (((256, 512), "crops of 256x512"), (None, "full frames")):
        name = f"{data_path.FRAMES} training samples on one core: {what} of 256x1600 JPEG"
        rows.append(row(name, "the usual notebook Dataset", data_path.pairs(crop, PAIRS)))
    each, megabytes, share = train_step.checkpoint_share()
    said.append(
        f"A checkpoint of FPN on EfficientNet-b5, {megabytes:.0f} MB, takes {each:.2f} s: "
        f"{share:.2%} of the ten minutes between two."
    )
    said.append(f"Out-of-fold maps: {oof_size.measure(OOF_IMAGES)}.")
    return rows, said


def searches() -> list[Row]:
    """Compare the post-processing search and run lengths with what notebooks do."""
    maps = f"{postprocess.IMAGES} images of 4 x 256x1600"
    sampled = f"the notebook's double loop, timed on one image of {postprocess.SAMPLED}"
    rows = [
        row(f"search of areas in all, {maps}", sampled, postprocess.pairs("total")),
        row(f"search by component, {maps}", sampled, postprocess.pairs("component")),
    ]
    for kind in ("dense", "salt"):
        name = f"search by component, 2 x 2 cells, a {kind} map"
        rows.append(row(name, "the notebook's double loop", postprocess.noisy_pairs(kind)))
    for kind in ("encode", "decode"):
        what = f"{kind} {rle.MASKS} masks of 256x1600, 3 of 4 empty"
        rows.append(row(what, "the notebook's function", rle.pairs(kind, "notebook")))
        rows.append(row(what, "pycocotools, its own bytes", rle.pairs(kind, "pycocotools")))
    return rows


def packings() -> tuple[list[Row], str]:
    """Compare a whole pack, cold and warm, with pip's resolution of the same; needs a network."""
    if not packing.reachable():
        return [], "No network: packing was not timed."
    cold, warm, sizes = packing.measure()
    name = f"a pack of {len(packing.REQUIREMENTS)} requirements with its proofs"
    baseline = "pip's resolution alone (dry run, nothing downloaded)"
    rows = [row(f"{name}, {kind}", baseline, pairs) for kind, pairs in
            (("cold", cold), ("warm", warm))]  # fmt: skip
    # The index's pace is not this machine's: it says nothing of who else ran here.
    return [replace(one, loud=False) for one in rows], sizes


def page(rows: Sequence[Row], said: Sequence[str] = ()) -> str:
    """Return RESULTS.md."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    lines = [
        "# Measured",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {os.cpu_count()} cores of {cpu}, Python "
        f"{platform.python_version()}. Alternating pairs, {PAIRS} of each ({FETCHES} of a fetch, "
        f"{postprocess.REPEATS} of a search), medians; below 1 is faster than the baseline. "
        "`make bench` writes this page.",
        "",
        "| what | baseline | ours, s | baseline, s | ratio | least to most |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.name} | {one.baseline} | {one.ours_s:.3f} | {one.baseline_s:.3f} | "
        f"{ratio(statistics.median(one.ratios))} | "
        f"{ratio(one.ratios[0])} to {ratio(one.ratios[-1])} |"
        for one in rows
    ]
    return "\n".join([*lines, "", *said]) + "\n"


def ratio(value: float) -> str:
    """Write a ratio to the baseline; one far below 1 as a fraction."""
    return f"{value:.2f}" if value >= 0.095 else f"1/{1 / value:.0f}"


def main() -> None:
    """Run every comparison."""
    kaggle = [str(BIN / "kaggle"), "--help"]
    rows = [
        compare("`kagflow --help`", "`kaggle --help`", [str(BIN / "kagflow"), "--help"], kaggle),
        compare(
            "a bad recipe key, refused",
            "`kaggle --help`",
            [sys.executable, str(HERE / "bad_key.py")],
            kaggle,
        ),
        row(
            f"fetch {GIGABYTES:g} GB: download, verify, unpack",
            "`kaggle competitions download`, unzip",
            fetch.pairs(FETCHES, GIGABYTES),
        ),
    ]
    more, said = training()
    more += searches()
    said.append(ensemble_search.told(IMAGES))
    packed, sizes = packings()
    more += packed
    said.append(sizes)
    written = page([*rows, *more], said)
    print(written)
    loud = [one.name for one in [*rows, *more] if one.loud]
    if loud:
        # Something else ran: no ratio of this day is to be believed.
        sys.exit(f"not kept: a baseline took twice its median in {'; '.join(loud)}")
    (HERE / "RESULTS.md").write_text(written)


if __name__ == "__main__":
    main()
