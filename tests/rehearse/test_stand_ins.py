"""A pack's compiled wheel that this machine's Python can't install, rehearsed all the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from kagflow import durable, standins
from kagflow.fingerprint import Fingerprint
from kagflow.rehearse.receipt import Receipt
from kagflow.rehearse.rehearsal import Limits, RehearsalSpec, rehearse
from kagflow.rehearse.sandbox import probe_layers
from kagflow.ship import parts, wheelfile
from kagflow.ship.kernel import KernelSpec, render_kernel
from kagflow.task.spec import TaskSpec

OTHER = f"{sys.version_info[0]}.{sys.version_info[1] + 1}"
IMAGE = Fingerprint("tiny", OTHER, "2.35", "", True, {"numpy": "1.0", "pip": "1.0"})
HERE = "cp{0}{1}-cp{0}{1}-manylinux_2_17_x86_64".format(*sys.version_info[:2])
THERE = "cp{0}-cp{0}-manylinux_2_17_x86_64".format(OTHER.replace(".", ""))
STEEL = f"steel-1-{THERE}.whl"
TASK = TaskSpec("tiles", "segmentation", ("1", "2"), 20, 30)
MAIN = """
import csv, json
def main(pack, competition_input, working, *, rerun, boot):
    {work}
    rows = list(csv.reader((competition_input / "sample_submission.csv").open()))
    rows[1:] = [[*row[:-1], ""] for row in rows[1:]]
    with (working / "submission.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\\n").writerows(rows)
    images = {{row[0]: 0 for row in rows[1:]}}
    for name in images:
        if not (competition_input / "test_images" / name).read_bytes().endswith(b"\\xff\\xd9"):
            images[name] = "cut short"
    (working / "kagflow-report.json").write_text(json.dumps(dict(
        images=len(images), predicted=len(images), nonempty=1, seconds=1.0, device="cpu", error="",
        faults={{name: what for name, what in images.items() if what}})))
"""


@pytest.fixture(scope="session", autouse=True)
def _layer() -> None:
    if not probe_layers():
        pytest.skip("no sandbox layer works on this machine")


def wheel(folder: Path, name: str, files: dict[str, str], tag: str) -> Path:
    info = f"{name}-1.dist-info"
    content = {path: text.encode() for path, text in files.items()}
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n".encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    return wheelfile.write_wheel(folder, name=name, version="1", tag=tag, files=content)


def furnish(folder: Path, work: str) -> RehearsalSpec:
    """Write data and a pack with a wheel for the image's Python alone; `work` is its kernel's."""
    images, pack = folder / "data" / "test_images", folder / "pack"
    images.mkdir(parents=True)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for at in range(4):
        cv2.imwrite(str(images / f"{at}.jpg"), np.full((20, 30), 60 * at, np.uint8))
        rows += [f"{at}.jpg,{label},1 1" for label in TASK.classes]
    (folder / "data" / "sample_submission.csv").write_text("\n".join(rows) + "\n")
    (folder / "data" / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n")
    wheel(pack / "env", "steel", {"steel.py": "MADE_FOR = 'there'\n"}, THERE)
    runtime = {"kagflow/__init__.py": "", "kagflow/infer/__init__.py": "",
               "kagflow/infer/kernel.py": MAIN.format(work=work)}  # fmt: skip
    wheel(pack / "env", "kagflow_runtime", runtime, "py3-none-any")
    (pack / "weights").mkdir()
    config = {"task": TASK.to_dict(), "limits": {"inference_minutes": 60, "memory_gb": 8}}
    durable.write_json(pack / "weights" / "config.json", config)
    told = {"python": OTHER, "image": "tiny", "approximate": True, "relied_on": {}}
    hashes = {}
    for part, more in (("env", told), ("weights", {})):
        files = {
            file.name: {"sha256": durable.sha256_file(file), "bytes": file.stat().st_size}
            for file in (pack / part).iterdir()
        }
        sealed = parts.seal(part, files, **more)
        hashes[part] = sealed["hash"]
        durable.write_json(pack / part / "manifest.json", sealed)
    durable.write_json(pack / "manifest.json", parts.seal_pack(hashes))
    spec = KernelSpec("me", "tiles-kernel", "tiles kernel", "tiles", (), "None", 3600)
    kernel = render_kernel(pack, folder / "kernel", spec)
    limits = Limits(60, 8, hidden_images=100)
    return RehearsalSpec(
        pack, kernel.script, folder / "data", TASK, "hidden", limits, IMAGE, images=4
    )


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-ins of the pack's wheel would lie: none are there yet."""
    monkeypatch.setenv("KAGFLOW_CACHE", str(tmp_path / "cache"))
    return standins.folder(STEEL)


def told(receipt: Receipt) -> list[str]:
    return [one for one in receipt.unproved if one.startswith("stand-in:")]


def test_a_wheel_of_the_images_python_is_rehearsed_as_the_one_for_this(
    tmp_path: Path, stand_in: Path
) -> None:
    spec = furnish(tmp_path, "import steel; assert steel.MADE_FOR == 'here'")
    wheel(stand_in, "steel", {"steel.py": "MADE_FOR = 'here'\n"}, HERE)
    packed = {file: file.read_bytes() for file in (spec.pack / "env").iterdir()}
    receipt = rehearse(spec, tmp_path / "receipt.json")
    assert (receipt.verdict, receipt.sentence) == ("yellow", "")
    assert [run.mode for run in receipt.runs] == ["save", "rerun"]
    (said,) = told(receipt)
    assert f"steel-1-{HERE}.whl for {STEEL}" in said
    assert {file: file.read_bytes() for file in (spec.pack / "env").iterdir()} == packed
    assert json.loads((tmp_path / "receipt.json").read_text())["unproved"] == list(receipt.unproved)


def test_without_a_stand_in_the_failure_is_this_machines_and_not_the_packs(
    tmp_path: Path, stand_in: Path
) -> None:
    stand_in.mkdir(parents=True)
    (stand_in / standins.REASON).write_text("the cable is out")
    receipt = rehearse(furnish(tmp_path, "import steel.beam"), tmp_path / "receipt.json")
    assert receipt.verdict == "red"
    assert "is in the pack, and this machine lacks it" in receipt.sentence
    assert f"{STEEL} is for Python {OTHER}" in receipt.sentence
    assert "the cable is out" in receipt.sentence
    assert "requires:" not in receipt.sentence
    (said,) = told(receipt)
    assert f"none for {STEEL}" in said
    assert "the cable is out" in said


def test_what_is_not_imported_needs_no_stand_in(tmp_path: Path, stand_in: Path) -> None:
    assert not stand_in.exists()
    receipt = rehearse(furnish(tmp_path, "pass"), tmp_path / "receipt.json")
    assert receipt.verdict == "yellow"
    (said,) = told(receipt)
    assert f"none for {STEEL}" in said
    assert "none was looked for" in said
