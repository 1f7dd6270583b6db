"""Time kagflow against named baselines, alternating, and write bench/RESULTS.md.

    python bench/run.py              every section
    python bench/run.py fetch loop   these alone

A section is kept as soon as it is done, so an interrupted run loses one. It ends with an error, and
keeps nothing of a section, where a baseline took twice its own median or the arms did not do the
same work.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import data_path
import ensemble_search
import fetch
import first_batch
import inference
import oof_size
import packing
import postprocess
import projection
import rle
import train_step
from rows import Row, Section, compare, keep, part, row, where

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PAIRS = 11
FETCHES = 9
# `python bench/oof_size.py` writes all 12,568.
OOF_IMAGES = 600
IMAGES = int(os.environ.get("KAGFLOW_BENCH_IMAGES", "12568"))
GIGABYTES = float(os.environ.get("KAGFLOW_BENCH_GB", "1"))
Measured = tuple[list[Row], list[str]]


def start() -> Measured:
    """Compare what a command takes to begin."""
    kaggle, ours = [str(BIN / "kaggle"), "--help"], [str(BIN / "kagflow"), "--help"]
    bad = [sys.executable, str(HERE / "bad_key.py")]
    return [
        compare("`kagflow --help`", "`kaggle --help`", ours, kaggle, PAIRS),
        compare("a bad recipe key, refused", "`kaggle --help`", bad, kaggle, PAIRS),
    ], []


def fetching() -> Measured:
    """Compare a fetch with the official client's download and unzip."""
    name = f"fetch {GIGABYTES:g} GB: download, verify, unpack"
    pairs = fetch.pairs(FETCHES, GIGABYTES)
    return [row(name, "`kaggle competitions download`, unzip", pairs)], []


def loop() -> Measured:
    """Compare the training loop with a bare one."""
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
    each, megabytes, share = train_step.checkpoint_share()
    said.append(
        f"A checkpoint of FPN on EfficientNet-b5, {megabytes:.0f} MB, takes {each:.2f} s: "
        f"{share:.2%} of the ten minutes between two."
    )
    return rows, said


def data() -> Measured:
    """Compare the data path with the usual notebook Dataset."""
    rows = []
    for crop, what in (((256, 512), "crops of 256x512"), (None, "full frames")):
        name = f"{data_path.FRAMES} training samples on one core: {what} of 256x1600 JPEG"
        for finish, end in ((False, "bytes for the device"), (True, "floats on the same core")):
            pairs = data_path.pairs(crop, PAIRS, finish=finish)
            rows.append(row(f"{name}, {end}", "the usual notebook Dataset", pairs))
    return rows, [f"Out-of-fold maps: {oof_size.measure(OOF_IMAGES)}."]


def searches() -> Measured:
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
    return rows, []


def packings() -> Measured:
    """Compare a whole pack, cold and warm, with pip's resolution of the same; needs a network."""
    if not packing.reachable():
        return [], ["No network: packing was not timed."]
    cold, warm, sizes = packing.measure()
    name = f"a pack of {len(packing.REQUIREMENTS)} requirements with its proofs"
    baseline = "pip's resolution alone (dry run, nothing downloaded)"
    rows = [row(f"{name}, {kind}", baseline, pairs) for kind, pairs in
            (("cold", cold), ("warm", warm))]  # fmt: skip
    # The index's pace is not this machine's: it says nothing of who else ran here.
    return [replace(one, loud=False) for one in rows], [sizes]


def inferences() -> Measured:
    """Compare inference with a kernel of 2019 and with the bare forward; return remarks, too."""
    runs, beside = inference.measure(), inference.host()
    what = f"predict {inference.FRAMES} frames of 256x1600, FPN and Unet, two views"
    then = f"a kernel of {inference.YEAR}"
    told = {
        "ours": what,
        "ours gated": f"{what}, a gate in front",
        "onnx gated": f"{what}, a gate in front, by ONNX Runtime",
        inference.YEAR: then,
        f"{inference.YEAR} gated": f"{then}, the same gate",
        "bare": "the bare forward of the same models",
    }
    rows = [
        row(told[mine], told[theirs], inference.pairs(runs, mine, theirs))
        for mine, theirs in inference.AGAINST
    ]
    host = list(zip(beside["ours"], beside[inference.YEAR], strict=True))
    rows += [
        row("the host's processor, for a frame of 256x1600", then, host),
        row("a new process to its first batch", "smp as scripts import it", first_batch.pairs()),
    ]
    setup = statistics.median(one.setup for one in runs["onnx gated"])
    return rows, [f"Setting up ONNX Runtime for the three models: {setup:.1f} s, not counted."]


def projections() -> Measured:
    """Say how near the projected minutes of recipes come that the other machine never saw."""
    lines, worst = projection.measure()
    return [], [*lines, f"The worst is {worst:.1%} off; the goal is {projection.GOAL:.0%}."]


def ensembles() -> Measured:
    """Say what an ensemble search takes at full size."""
    return [], [ensemble_search.told(IMAGES)]


SECTIONS: dict[str, Callable[[], Measured]] = {
    "start": start,
    "fetch": fetching,
    "loop": loop,
    "data": data,
    "search": searches,
    "inference": inferences,
    "packing": packings,
    "projection": projections,
    "ensemble": ensembles,
}


def main() -> None:
    """Run the sections that are named, or all."""
    wanted = sys.argv[1:] or list(SECTIONS)
    if strange := set(wanted) - set(SECTIONS):
        sys.exit(f"no section {', '.join(sorted(strange))}; there are {', '.join(SECTIONS)}")
    loud = []
    for name in wanted:
        rows, said = SECTIONS[name]()
        section = Section(tuple(rows), tuple(said), where())
        print(part(name, asdict(section)), flush=True)
        if section.loud:
            loud += section.loud
        else:
            keep(name, section, list(SECTIONS))
    if loud:
        # Something else ran: no ratio of this hour is to be believed.
        sys.exit(f"not kept: a baseline took twice its median in {'; '.join(loud)}")


if __name__ == "__main__":
    main()
