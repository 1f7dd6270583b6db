"""Faults that a submission dies of, one at a time, in a whole pack under the kernel as it is sent.

Each is caught by the rehearsal under Kaggle's own name for it; those of a run also where only the
rerun has them, and there the kernel itself ends well, in time, with a valid file.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kagflow import durable
from kagflow.fingerprint import Fingerprint
from kagflow.rehearse import rehearsal
from kagflow.rehearse.receipt import Receipt
from kagflow.rehearse.rehearsal import Limits, RehearsalSpec, rehearse
from kagflow.rehearse.sandbox import probe_layers
from kagflow.ship import parts, wheelfile
from kagflow.ship.kernel import KernelSpec, render_kernel
from kagflow.task.check import check_submission
from kagflow.task.costs import Costs, Pair, Turn
from kagflow.task.spec import TaskSpec

THREW, TIMEOUT = "Notebook Threw Exception", "Notebook Timeout"
COMPUTE, SCORING = "Notebook Exceeded Allowed Compute", "Submission Scoring Error"
NO_CSV = "Submission CSV Not Found"
TASK = TaskSpec("tiles", "segmentation", ("1", "2"), 40, 60)
HERE = ".".join(map(str, sys.version_info[:2]))
IMAGE = Fingerprint("tiny", "3.12", "2.35", "", True, dict.fromkeys(
    ("numpy", "pip", "huggingface-hub"), "1.0"
))  # fmt: skip
# Stands in for the models: what {fault} does happens at an image, {after} to the finished table.
MAIN = """
import csv, json, os, sys, time
from pathlib import Path
def main(pack, competition_input, working, *, rerun, boot):
    rows = list(csv.reader((competition_input / "sample_submission.csv").open()))
    ids = list(dict.fromkeys(row[0] for row in rows[1:]))
    active = not (pack / "rerun-only").exists() or rerun
    target, text = working / "submission.csv", ["1 2 9 3"]
    report = dict(images=len(ids), predicted=0, nonempty=1, seconds=1.0, device="cpu", error="",
                  faults={{}})
    def write():
        with target.open("w", newline="") as file:
            csv.writer(file, lineterminator="\\n").writerows(rows)
    try:
        for number, name in enumerate(ids):
            blob = (competition_input / "test_images" / name).read_bytes()
            if not blob.endswith(b"\\xff\\xd9") or (rerun and number == 1):
                report["faults"][name] = "cut short"
            if active:
                pass
                {fault}
            for row in rows[1:]:
                row[2] = text[0] if row[0] == name else row[2] if row[2] != "1 1" else ""
            report["predicted"] = number + 1
    except Exception as error:
        report["error"] = f"{{type(error).__name__}}: {{error}}"
        if not rerun:
            raise
    finally:
        if rerun or not report["error"]:
            write()
    if active:
        pass
        {after}
    (working / "kagflow-report.json").write_text(json.dumps(report))
"""


@pytest.fixture(scope="session", autouse=True)
def _layer() -> None:
    if not probe_layers():
        pytest.skip("no sandbox layer works on this machine")


@dataclass
class Bench:
    """A competition, a pack as two halves and what is to be rehearsed."""

    root: Path
    limits: Limits
    changes: dict[str, object]

    @property
    def env(self) -> Path:
        return self.root / "pack" / "env"

    @property
    def weights(self) -> Path:
        return self.root / "pack" / "weights"

    def code(self, fault: str = "", after: str = "", *, rerun_only: bool = False) -> None:
        def lines(text: str, deep: int) -> str:
            return textwrap.indent(textwrap.dedent(text), " " * deep).strip()

        source = MAIN.format(fault=lines(fault, 16), after=lines(after, 8))
        wheel(self.env, "kagflow_runtime", {
            "kagflow/__init__.py": "", "kagflow/infer/__init__.py": "",
            "kagflow/infer/kernel.py": source,
        })  # fmt: skip
        (self.weights / "unet.bin").write_bytes(bytes(1000))
        if rerun_only:
            (self.weights / "rerun-only").touch()

    def seal(self) -> None:
        """Write all manifests and the kernel of what lies there now."""
        told = {"python": HERE, "image": "tiny", "approximate": True, "relied_on": {}}
        limits = {"inference_minutes": self.limits.inference_minutes,
                  "memory_gb": self.limits.memory_gb}  # fmt: skip
        config = {"task": TASK.to_dict(), "limits": limits}
        durable.write_json(self.weights / "config.json", config)
        hashes = {}
        for part, folder, more in (("env", self.env, told), ("weights", self.weights, {})):
            files = {
                file.name: {"sha256": durable.sha256_file(file), "bytes": file.stat().st_size}
                for file in folder.iterdir()
                if file.name != "manifest.json"
            }
            sealed = parts.seal(part, files, **more)
            hashes[part] = sealed["hash"]
            durable.write_json(folder / "manifest.json", sealed)
        durable.write_json(self.root / "pack" / "manifest.json", parts.seal_pack(hashes))
        spec = KernelSpec("me", "tiles-kernel", "tiles kernel", "tiles", (), "None", 3600)
        render_kernel(self.root / "pack", self.root / "kernel", spec)

    def rehearse(self) -> Receipt:
        spec = RehearsalSpec(
            pack=self.root / "pack",
            kernel=self.root / "kernel" / "kernel.py",
            data=self.root / "data",
            task=TASK,
            rerun_kind="hidden",
            limits=self.limits,
            fingerprint=IMAGE,
            images=12,
        )
        return rehearse(replace(spec, **self.changes), self.root / "receipt.json")


def wheel(folder: Path, name: str, files: dict[str, str], tag: str = "py3-none-any") -> None:
    info = f"{name}-1.dist-info"
    content = {path: text.encode() for path, text in files.items()}
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n".encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    wheelfile.write_wheel(folder, name=name, version="1", tag=tag, files=content)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    images = tmp_path / "data" / "test_images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for at in range(6):
        cv2.imwrite(str(images / f"img{at}.jpg"), rng.integers(0, 255, (40, 60), np.uint8))
        rows += [f"img{at}.jpg,{label},1 1" for label in TASK.classes]
    (tmp_path / "data" / "sample_submission.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "data" / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n")
    for part in parts.PARTS:
        (tmp_path / "pack" / part).mkdir(parents=True)
    return Bench(tmp_path, Limits(60, 8, hidden_images=1000), {})


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)


# -- in the pack: (what is done before it is sealed, what after, name, words)


def without_a_wheel(bench: Bench) -> None:
    wheel(bench.env, "helper", {"helper.py": ""})


def drop_the_wheel(bench: Bench) -> None:
    next(bench.env.glob("helper*.whl")).unlink()


def of_another_python(bench: Bench) -> None:
    wheel(bench.env, "helper", {"helper.py": ""}, tag="cp311-cp311-manylinux_2_17_x86_64")


def needing_another(bench: Bench) -> None:
    wheel(bench.env, "helper", {"helper.py": "import antlr_runtime"})
    bench.code("import helper")


def stale(bench: Bench) -> None:
    """Mount an older version of the weights: whole, but not what the kernel was made for."""
    (bench.weights / "unet.bin").write_bytes(b"of last week")
    manifest = json.loads((bench.weights / "manifest.json").read_text())
    file = bench.weights / "unet.bin"
    manifest["files"]["unet.bin"] = {
        "sha256": durable.sha256_file(file), "bytes": file.stat().st_size
    }  # fmt: skip
    manifest.pop("hash")
    durable.write_json(bench.weights / "manifest.json", parts.sealed(manifest, "hash"))


def flipped(bench: Bench) -> None:
    flip(bench.weights / "unet.bin")


def nothing(bench: Bench) -> None:
    pass


PACKED: dict[str, tuple[Callable[[Bench], None], Callable[[Bench], None], str]] = {
    "a missing wheel": (without_a_wheel, drop_the_wheel, "helper-1-py3-none-any.whl is missing"),
    "a cp311 wheel": (of_another_python, nothing, "is not a supported wheel for Python 3.12"),
    "a wheel that needs another": (needing_another, nothing, "'antlr_runtime' is neither in the"),
    "a stale dataset version": (nothing, stale, "a stale dataset version?"),
    "a flipped byte in a weight": (nothing, flipped, "unet.bin is not the file that was packed"),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_fault_in_the_pack_is_named_on_the_save(bench: Bench, name: str, capsys) -> None:
    before, after, words = PACKED[name]
    bench.code()
    before(bench)
    bench.seal()
    after(bench)
    receipt = bench.rehearse()
    said(capsys, name, receipt)
    assert (receipt.verdict, receipt.failure) == ("red", THREW)
    assert words in receipt.sentence
    # This machine's Python may well be 3.11.
    if name != "a cp311 wheel":
        assert [run.mode for run in receipt.runs] == ["save"]


# -- in a run: (at an image, to the table, name, words)

# The save run of a limited rehearsal has four images.
FIFTH = "an exception on the fifth image"
HUB = "from huggingface_hub import hf_hub_download; hf_hub_download('timm/a', 'model.safetensors')"
RUN: dict[str, tuple[str, str, str, str]] = {
    "pretrained=True": (HUB, "", THREW, "build the model with pretrained=False"),
    "a hard-coded old mount path": (
        "open('/kaggle/input/tiles-weights/' + ('absent' if rerun else 'unet.bin'))",
        "",
        THREW,
        "mounts are not always there",
    ),
    "a write to the input": (
        "(competition_input / 'cache.npy').write_bytes(b'x')", "", THREW, "use /kaggle/working",
    ),
    "a network call": (
        "import urllib.request; urllib.request.urlopen('http://192.0.2.1')", "", THREW,
        "reached for the network",
    ),
    FIFTH: (
        "if number == 4: raise RuntimeError('the fifth image')", "", THREW, "the fifth image",
    ),
    "columns in another order": (
        "", "rows[:] = [row[::-1] for row in rows]; write()", SCORING, "has columns EncodedPixels",
    ),
    "a duplicated id": ("", "rows.insert(1, rows[1]); write()", SCORING, "rows of submission.csv"),
    "an overlapping run length": (
        "text[0] = '1 5 3 4'", "", SCORING, "overlap",
    ),
    "memory over the limit": (
        "x = globals().setdefault('kept', [])\nwhile True: x.append(b'1' * (8 << 20)); "
        "time.sleep(0.03)", "", COMPUTE, "out of memory: more than 0.4 GiB",
    ),
    "an infinite loop": ("while True: pass", "", TIMEOUT, "minutes are over"),
}  # fmt: skip
# It takes the whole of its limit.
SLOW = "an infinite loop"
ALL = [(name, only) for name in RUN for only in (False, True)]
# A seeded share by default, the rest under -m slow.
SHARE = random.Random(3).sample([case for case in ALL if case[0] != SLOW], 7)
CASES = [
    pytest.param(
        name, only, marks=() if (name, only) in SHARE else pytest.mark.slow,
        id=f"{name}-{'rerun' if only else 'save'}",
    )
    for name, only in ALL
]  # fmt: skip


@pytest.mark.parametrize(("name", "rerun_only"), CASES)
def test_a_fault_of_a_run_is_named_and_a_rerun_ends_well_for_all_that(
    bench: Bench, name: str, rerun_only: bool, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, after, failure, words = RUN[name]
    if name == "memory over the limit":
        bench.limits = replace(bench.limits, memory_gb=0.4)
    if name == SLOW:
        bench.limits = replace(bench.limits, inference_minutes=1.0)
    bench.code(fault, after, rerun_only=rerun_only)
    bench.seal()
    ended: list[tuple[int, list[str]]] = []
    judge = rehearsal.verdict.judge

    def look(result, working, task, trial):
        file = working / "submission.csv"
        faults = check_submission(file, task, trial.sample(task), trial.sizes)
        ended.append((result.returncode, [str(one) for one in faults]))
        return judge(result, working, task, trial)

    monkeypatch.setattr(rehearsal.verdict, "judge", look)
    receipt = bench.rehearse()
    said(capsys, name, receipt)
    assert (receipt.verdict, receipt.failure) == ("red", failure)
    assert words in receipt.sentence
    again = rerun_only or name == FIFTH
    assert receipt.runs[-1].mode == ("rerun" if again else "save")
    if again:
        assert ended[-1] == (0, [])
        assert receipt.runs[-1].seconds < 60 * bench.limits.inference_minutes


def test_an_exception_on_image_500_is_open_until_all_are_run(bench: Bench, capsys) -> None:
    bench.limits = replace(bench.limits, hidden_images=505)
    bench.code("if number == 499: raise RuntimeError('image 500')")
    bench.seal()
    receipt = bench.rehearse()
    assert (receipt.verdict, receipt.not_run) == ("yellow", 505 - 12)
    bench.changes = {"full": True}
    receipt = bench.rehearse()
    said(capsys, "an exception on image 500, --full", receipt)
    assert (receipt.verdict, receipt.failure) == ("red", THREW)
    assert "image 500" in receipt.sentence
    assert (receipt.runs[-1].mode, receipt.runs[-1].returncode) == ("rerun", 0)


@pytest.mark.parametrize(("pace", "verdict"), [(0.02, "green"), (0.04, "red")])
def test_a_model_twice_as_slow_is_red(bench: Bench, pace: float, verdict: str, capsys) -> None:
    took = Costs(
        machine="here", lanes=1, members=(Turn("unet", "a", 0.02),), gated=0, passed=0,
        decode=0.0, finish=0.0, rest=0.0, parity=0.0, parity_images=0, images=16, total=3.0,
    )  # fmt: skip
    bench.changes = {"accelerator": "NvidiaTeslaT4", "pairs": (
        Pair("NvidiaTeslaT4", "2026-01-01", "kernel", "me/k/v1", took, took),
    )}  # fmt: skip
    bench.limits = replace(bench.limits, hidden_images=100_000)
    mine = replace(took, members=(Turn("other", "b", pace),)).to_dict()
    bench.code(after=f"report['costs'] = json.loads('''{json.dumps(mine)}''')")
    bench.seal()
    receipt = bench.rehearse()
    said(capsys, "a model twice as slow", receipt)
    assert receipt.verdict == verdict
    assert receipt.failure == (TIMEOUT if verdict == "red" else "")


def said(capsys, name: str, receipt: Receipt) -> None:
    """Print what the screen says, for docs/explanation/rehearsal.md (pytest -s)."""
    with capsys.disabled():
        if "-s" in sys.argv and receipt.runs:
            mode = receipt.runs[-1].mode
            print(f"\n| {name} | {mode} | {receipt.failure}: {receipt.sentence} |")
            print("\n".join(receipt.log_tail))


def test_the_pack_without_a_fault_passes(bench: Bench) -> None:
    bench.code()
    bench.seal()
    receipt = bench.rehearse()
    assert (receipt.verdict, receipt.failure, receipt.sentence) == ("yellow", "", "")
    assert [run.returncode for run in receipt.runs] == [0, 0]
    shutil.rmtree(bench.root / "pack")
