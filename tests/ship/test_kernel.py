"""The kernel script as Kaggle runs it: a bare Python, two mount layouts, save and rerun."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shutil
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pip
import pytest

from kagflow import durable, process
from kagflow.errors import DataError, UsageError
from kagflow.ship import kernel, notebook, parts, wheelfile
from kagflow.ship.kernel import Kernel, KernelSpec, render_kernel
from kagflow.task import submission
from kagflow.task.spec import TaskSpec

HERE = ".".join(map(str, sys.version_info[:2]))
SPEC = KernelSpec(
    owner="me",
    slug="rolls-abc",
    title="Rolls abc",
    competition_slug="rolls-2019",
    datasets=("me/rolls-env/3", "me/rolls-weights/7"),
    accelerator="NvidiaTeslaT4",
    timeout_s=3600,
)
TASK = TaskSpec(slug="rolls-2019", kind="segmentation", classes=("1", "2"), height=4, width=4)
SAMPLE = "ImageId,EncodedPixels,ClassId\n" + "".join(
    f"{name}.jpg,1 1,{label}\n" for name in "ab" for label in "12"
)
EMPTY = SAMPLE.replace(",1 1,", ",,")
# Stands in for kagflow.infer.kernel; "weights.bin" holds what it is told to do.
MAIN = b"""
import os
def main(pack, competition_input, working, *, rerun, boot):
    target = working / "submission.csv"
    text = (competition_input / "sample_submission.csv").read_text()
    what = (pack / "weights.bin").read_text()
    if what == "good":
        target.write_text(text.replace(",1 1,", ",2 2,"))
    if what == "order":
        lines = text.splitlines(keepends=True)
        target.write_text("".join([lines[0], *reversed(lines[1:])]))
    if what == "half":
        target.write_text(text[:-20])
        raise RuntimeError("the fifth image")
    if what == "exit":
        raise SystemExit(3)
    if what in ("hang", "swell", "crash"):
        # The first half is done when it happens.
        target.write_text(text.replace(",1 1,1", ",2 2,1").replace(",1 1,2", ",,2"))
    if what == "hang":
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        while True:
            pass
    if what == "swell":
        kept = [bytearray(b"x" * 2**20) for _ in range(10**6)]
    if what == "crash":
        os.kill(os.getpid(), 11)
    if what == "environment":
        print("OFFLINE", os.environ["HF_HUB_OFFLINE"], rerun)
        target.write_text(text)
"""


# Stands in for torch on a machine with GPUs.
TORCH = b"""
import os
class cuda:
    is_available = staticmethod(lambda: os.environ["GPUS"] != "none")
    device_count = staticmethod(lambda: len(os.environ["GPUS"]))
class zeros:
    def __init__(self, count, device):
        self.good = os.environ["GPUS"][int(device[5:])] == "g"
    def __add__(self, other):
        if not self.good:
            raise RuntimeError("no kernel image is available")
        return self
    def item(self):
        return 1.0
"""


@dataclass(frozen=True)
class Room:
    """A fake /kaggle with one pack as two datasets, its kernel and a bare Python."""

    root: Path
    python: Path
    env: Path
    weights: Path

    @property
    def submission(self) -> Path:
        return self.root / "working" / "submission.csv"

    def run(self, *, rerun: bool = False, **extra: str) -> tuple[int, str]:
        environment = {
            "PATH": os.environ["PATH"],
            "KAGGLE_INPUT_ROOT": str(self.root / "input"),
            "KAGGLE_WORKING_ROOT": str(self.root / "working"),
            "GPUS": "gg",
            **({"KAGGLE_IS_COMPETITION_RERUN": "1"} if rerun else {}),
            **extra,
        }
        script = self.root / "kernel" / "kernel.py"
        done = process.run([self.python, script], env=environment, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    process.run([sys.executable, "-m", "venv", "--without-pip", folder])
    return folder / "bin" / "python"


@pytest.fixture
def room(tmp_path: Path, bare: Path) -> Room:
    return furnish(tmp_path, bare)


def furnish(
    root: Path,
    bare: Path,
    *,
    layout: str = "nested",
    what: str = "good",
    limits: dict[str, float] | None = None,
    **facts: object,
) -> Room:
    """Lay out competition, pack and kernel; `facts` change the manifest."""
    nested = layout == "nested"
    inputs = root / "input"
    competition = inputs / ("competitions/rolls-2019" if nested else "rolls-2019")
    (competition / "test_images").mkdir(parents=True)
    (competition / "sample_submission.csv").write_text(SAMPLE)
    env, weights = (
        inputs / (f"datasets/me/rolls-{part}" if nested else f"rolls-{part}")
        for part in parts.PARTS
    )
    env.mkdir(parents=True)
    weights.mkdir(parents=True)
    (weights / "weights.bin").write_text(what)
    (weights / "other.bin").write_text("of another member")
    durable.write_json(weights / "config.json", {"task": TASK.to_dict(), "limits": limits or {}})
    info = "kagflow_runtime-1.dist-info"
    files = {
        "torch.py": TORCH,
        "kagflow/__init__.py": b"",
        "kagflow/infer/__init__.py": b"",
        "kagflow/infer/kernel.py": MAIN,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: kagflow_runtime\nVersion: 1\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    wheelfile.write_wheel(env, name="kagflow_runtime", version="1", tag="py3-none-any", files=files)
    room = Room(root, bare, env, weights)
    seal(room, **facts)
    render(room)
    return room


def seal(room: Room, **facts: object) -> None:
    """Write the manifests of what lies in both datasets now; `facts` change the first one."""
    told = {"python": HERE, "image": "tiny", "approximate": True, "relied_on": {"numpy": "2.0.2"}}
    for part, folder, more in (("env", room.env, told | facts), ("weights", room.weights, {})):
        files = {
            file.name: {"sha256": durable.sha256_file(file), "bytes": file.stat().st_size}
            for file in folder.iterdir()
            if file.name != "manifest.json"
        }
        durable.write_json(folder / "manifest.json", parts.seal(part, files, **more))


def render(room: Room, spec: KernelSpec = SPEC, target: Path | None = None) -> Kernel:
    """Write the kernel of the pack that both datasets are, as it lies in the workspace."""
    pack = room.root / "pack"
    shutil.rmtree(pack, ignore_errors=True)
    hashes = {}
    for folder in (room.env, room.weights):
        manifest = json.loads((folder / "manifest.json").read_text())
        hashes[manifest["part"]] = manifest["hash"]
        shutil.copytree(folder, pack / manifest["part"])
    durable.write_json(pack / "manifest.json", parts.seal_pack(hashes))
    return render_kernel(pack, target or room.root / "kernel", spec)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("layout", ["nested", "flat"])
@pytest.mark.parametrize("rerun", [False, True])
def test_it_predicts_in_both_layouts(tmp_path: Path, bare: Path, layout: str, rerun: bool) -> None:
    room = furnish(tmp_path, bare, layout=layout)
    code, log = room.run(rerun=rerun)
    assert (code, room.submission.read_text()) == (0, SAMPLE.replace(",1 1,", ",2 2,")), log
    assert "pip is of no use here" in log
    assert "numpy" in log
    assert "missing" in log


def test_with_pip_the_wheels_are_installed(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    process.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"])
    site = tmp_path / "venv" / "lib" / f"python{HERE}" / "site-packages"
    (site / "pip").symlink_to(Path(pip.__file__).parent)
    # A user's settings must not reach the install.
    room = furnish(tmp_path / "kaggle", python)
    code, log = room.run(PIP_CONFIG_FILE="/nonexistent", PIP_TARGET=str(tmp_path / "elsewhere"))
    assert code == 0, log
    assert "installed 1 wheels" in log
    assert (site / "kagflow" / "infer" / "kernel.py").is_file()


def test_pip_refusing_a_wheel_is_fatal_on_save_only(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    process.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"])
    site = tmp_path / "venv" / "lib" / f"python{HERE}" / "site-packages"
    (site / "pip").symlink_to(Path(pip.__file__).parent)
    room = furnish(tmp_path / "kaggle", python)
    wheel = next(room.env.glob("*.whl"))
    wheel.rename(wheel.with_name("kagflow_runtime-1-cp38-cp38-manylinux_2_17_x86_64.whl"))
    seal(room)
    render(room)
    code, log = room.run()
    assert code == 1
    assert "not a supported wheel" in log.strip().splitlines()[-1]
    assert room.run(rerun=True)[0] == 0
    assert ",2 2," in room.submission.read_text()


def test_a_flipped_byte_fails_the_save(room: Room) -> None:
    room.submission.parent.mkdir()
    room.submission.write_text("an older one")
    flip(room.weights / "weights.bin")
    code, log = room.run()
    assert code == 1
    assert "FAILED: weights.bin is not the file that was packed" in log.splitlines()[-1]
    assert not room.submission.exists()


def test_a_rerun_goes_on_with_what_is_whole(room: Room) -> None:
    # Of several members, the one whose weights these are fails its parity and is left out.
    flip(room.weights / "other.bin")
    code, log = room.run(rerun=True)
    assert (code, room.submission.read_text()) == (0, SAMPLE.replace(",1 1,", ",2 2,")), log
    assert "going on although other.bin is not the file that was packed" in log
    (room.weights / "other.bin").unlink()
    code, log = room.run(rerun=True)
    assert ",2 2," in room.submission.read_text()
    assert "going on although other.bin is missing" in log
    flip(room.weights / "weights.bin")
    code, log = room.run(rerun=True)
    assert (code, room.submission.read_text()) == (0, EMPTY), log


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "no submission.csv"),
        ("order", "4 rows of submission.csv are not the 4"),
        ("half", "RuntimeError: the fifth image"),
        ("exit", "SystemExit: 3"),
    ],
)
def test_a_bad_prediction_is_fatal_on_save_and_empty_in_a_rerun(
    tmp_path: Path, bare: Path, what: str, said: str
) -> None:
    room = furnish(tmp_path, bare, what=what)
    code, log = room.run()
    assert code == 1
    assert said in log.splitlines()[-1]
    assert not room.submission.exists()
    code, log = room.run(rerun=True)
    assert (code, room.submission.read_text()) == (0, EMPTY), log


BAD_ENDS = {
    "hang": ({"inference_minutes": 0.05}, "no time: 95% of 0.05 minutes are over"),
    "swell": ({"memory_gb": 0.2}, "out of memory: more than 0.2 GiB"),
    "crash": ({}, "the prediction ended with status -11"),
}


@pytest.mark.parametrize("what", BAD_ENDS)
def test_a_prediction_that_hangs_swells_or_crashes_is_ended(
    tmp_path: Path, bare: Path, what: str
) -> None:
    limits, said = BAD_ENDS[what]
    room = furnish(tmp_path, bare, what=what, limits=limits)
    code, log = room.run()
    assert code == 1
    assert said in log.splitlines()[-1]
    assert not room.submission.exists()
    code, log = room.run(rerun=True)
    assert code == 0, log
    assert said in log
    assert room.submission.read_text() == SAMPLE.replace(",1 1,1", ",2 2,1").replace(
        ",1 1,2", ",,2"
    )


def test_what_a_hung_prediction_started_is_ended_too(tmp_path: Path, bare: Path) -> None:
    limits, _ = BAD_ENDS["hang"]
    room = furnish(tmp_path, bare, what="hang", limits=limits)
    room.run(rerun=True)
    mark = str(tmp_path).encode()
    sleeping = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes():
                sleeping.append((folder / "cmdline").read_bytes())
    assert sleeping == []


def test_the_clock_starts_with_the_container(room: Room) -> None:
    script = runpy.run_path(str(room.root / "kernel" / "kernel.py"), run_name="looked at")
    assert 0 <= script["START"] - script["BOOT"] <= script["LONGEST_BOOT_S"]
    with pytest.MonkeyPatch.context() as patch:
        # Process 1 began 42 s ago, as it does in a container.
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        ticks = int((now - 42) * os.sysconf("SC_CLK_TCK"))
        fields = " ".join(["S", *["0"] * 18, str(ticks), "0"])
        patch.setattr(Path, "read_text", lambda _path: f"1 (a) odd) name) {fields}")
        assert script["START"] - script["boot"]() == pytest.approx(42, abs=2)
        patch.setattr(Path, "read_text", lambda _path: "no stat")
        assert script["boot"]() == script["START"]


@pytest.mark.parametrize("part", parts.PARTS)
def test_a_stale_dataset_is_named(room: Room, part: str) -> None:
    folder = room.env if part == "env" else room.weights
    (folder / "newer.bin").write_text("newer")
    seal(room)
    code, log = room.run()
    assert code == 1
    last = log.splitlines()[-1]
    assert re.search(rf"FAILED: {part} [0-9a-f]{{16}} of pack \w+ is not under", last)
    assert "stale dataset version" in last
    assert re.search(rf"there is {part} [0-9a-f]{{16}} in {folder}$", last)
    assert room.run(rerun=True)[0] == 0


@pytest.mark.parametrize("part", parts.PARTS)
def test_a_dataset_that_is_not_attached_is_named(room: Room, part: str) -> None:
    shutil.rmtree(room.env if part == "env" else room.weights)
    code, log = room.run()
    assert code == 1
    assert re.search(rf"FAILED: {part} [0-9a-f]{{16}} of pack", log.splitlines()[-1])


def test_a_newer_version_beside_the_right_one_does_not_matter(room: Room) -> None:
    shutil.copytree(room.weights, room.root / "input/datasets/me/rolls-a-copy")
    manifest = room.root / "input/datasets/me/rolls-a-copy/manifest.json"
    told = json.loads(manifest.read_text())
    durable.write_json(manifest, parts.seal("weights", told["files"], more=1))
    assert room.run()[0] == 0


def test_a_missing_file_is_named(room: Room) -> None:
    (room.weights / "config.json").unlink()
    assert "config.json is missing from the pack" in room.run()[1]


def test_another_python_is_fatal_on_a_save_on_kaggle(tmp_path: Path, bare: Path) -> None:
    room = furnish(tmp_path, bare, python="3.9", approximate=False)
    code, log = room.run()
    assert code == 1
    full = ".".join(map(str, sys.version_info[:3]))
    assert f"FAILED: python: {full} here, 3.9 in the image" in log.splitlines()[-1]
    code, log = room.run(KAGFLOW_REHEARSAL="1")
    assert code == 0, log
    assert f"unproved: python: {full} here, 3.9 in the image" in log
    code, log = room.run(rerun=True)
    assert (code, room.submission.read_text()) == (0, SAMPLE.replace(",1 1,", ",2 2,")), log
    assert "going on although python" in log


@pytest.mark.parametrize(
    ("wanted", "fails"),
    [
        ({"numpy": "2.0.2"}, "numpy: missing here, 2.0.2 in the image"),
        ({"timm": "1", "torch": "2.10.0+cu128"}, "torch: missing here, 2.10.0+cu128"),
        ({"timm": "1.0.26"}, ""),
        ({"kagflow-runtime": "1"}, ""),
    ],
)
def test_what_decides_must_be_as_in_the_image(
    tmp_path: Path, bare: Path, wanted: dict[str, str], fails: str
) -> None:
    room = furnish(tmp_path, bare, approximate=False, relied_on=wanted)
    code, log = room.run()
    assert code == bool(fails), log
    for name, version in wanted.items():
        assert re.search(rf"{name} +{re.escape(version)} +", log)
    if not fails:
        return
    assert f"FAILED: {fails}" in log.splitlines()[-1]
    assert room.run(KAGFLOW_REHEARSAL="1")[0] == 0
    code, log = room.run(rerun=True)
    assert code == 0
    assert ",2 2," in room.submission.read_text()
    assert f"going on although {fails}" in log


def test_a_list_that_is_approximate_only_warns(tmp_path: Path, bare: Path) -> None:
    room = furnish(tmp_path, bare, python="3.9", relied_on={"torch": "2.10.0"})
    code, log = room.run()
    assert code == 0, log
    assert "warning: torch: missing here, 2.10.0 in the image, by a list that is" in log
    assert "warning: python: " in log


def test_another_cuda_of_the_same_release_is_no_difference(tmp_path: Path, bare: Path) -> None:
    room = furnish(tmp_path, bare, approximate=False, relied_on={"torch": "1.0+cu128"})
    wheel = next(room.env.glob("*.whl"))
    info = "torch-1.0+cpu.dist-info"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 1.0+cpu\n"
        )
    seal(room, approximate=False, relied_on={"torch": "1.0+cu128"})
    render(room)
    code, log = room.run()
    assert code == 0, log
    assert re.search(r"torch +1.0\+cu128 +1.0\+cpu +differs", log)


def test_another_image_is_a_warning(tmp_path: Path, bare: Path) -> None:
    room = furnish(tmp_path, bare, digest="sha256:aa")
    assert "warning" not in room.run(KAGGLE_DOCKER_IMAGE="gcr.io/k@sha256:aa")[1].replace(
        "warning: numpy", ""
    )
    code, log = room.run(KAGGLE_DOCKER_IMAGE="gcr.io/k@sha256:bb")
    assert code == 0
    assert "warning: the image is gcr.io/k@sha256:bb, the pack was made for sha256:aa" in log


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ("none", "gpu: none here, NvidiaTeslaT4 asked for"),
        ("gb", "gpu: number 1 does not compute: no kernel image is available"),
    ],
)
def test_a_gpu_that_does_not_compute_is_fatal_on_a_save_on_kaggle(
    room: Room, gpus: str, said: str
) -> None:
    code, log = room.run(GPUS=gpus)
    assert code == 1
    assert f"FAILED: {said}" in log.splitlines()[-1]
    code, log = room.run(GPUS=gpus, KAGFLOW_REHEARSAL="1")
    assert code == 0, log
    assert f"unproved: {said}" in log
    code, log = room.run(GPUS=gpus, rerun=True)
    assert code == 0
    assert f"going on although {said}" in log
    assert ",2 2," in room.submission.read_text()


@pytest.mark.parametrize("accelerator", ["None", "", "TpuV5E8"])
def test_without_a_gpu_none_is_looked_for(room: Room, accelerator: str) -> None:
    render(room, replace(SPEC, accelerator=accelerator))
    assert room.run(GPUS="none")[0] == 0


def test_a_notebook_is_the_same_code_in_one_cell(room: Room, tmp_path: Path) -> None:
    made = render(room, replace(SPEC, notebook=True), tmp_path / "notebook")
    assert made.script.name == "kernel.ipynb"
    assert made.metadata["kernel_type"] == "notebook"
    assert made.metadata["code_file"] == "kernel.ipynb"
    assert made.script.stat().st_size < 1 << 20
    read = nbformat.read(made.script, as_version=4)
    nbformat.validate(read)
    title, code = read.cells
    assert (title.cell_type, title.source) == ("markdown", "# Rolls abc")
    script = (room.root / "kernel" / "kernel.py").read_text()
    assert code.source == script.rstrip()
    again = render(room, replace(SPEC, notebook=True), tmp_path / "again")
    assert again.script.read_bytes() == made.script.read_bytes()


def test_a_notebooks_cell_ends_without_an_exit_when_all_is_well(room: Room) -> None:
    # IPython calls every exit a failure.
    script = room.root / "kernel" / "kernel.py"
    script.write_text(f"{script.read_text()}\nprint('the next cell')\n")
    assert "the next cell" in room.run()[1]
    assert "the next cell" in room.run(rerun=True)[1]
    assert "the next cell" not in room.run(GPUS="none")[1]


def test_a_notebook_is_found_again_however_it_is_laid_out() -> None:
    text = notebook.wrap("Rolls", "print(1)\n")
    pushed = notebook.append(text, "# [kagflow a/1]")
    cells = json.loads(pushed)["cells"]
    assert [cell["source"] for cell in cells] == ["# Rolls", "print(1)\n# [kagflow a/1]"]
    listed = json.loads(pushed)
    listed["cells"][1]["source"] = ["print(1)\n", "# [kagflow a/1]\n"]
    assert notebook.same(pushed, json.dumps(listed))
    assert not notebook.same(pushed, notebook.append(text, "# [kagflow a/2]"))
    assert not notebook.same(pushed, "print(1)\n# [kagflow a/1]")
    assert notebook.append("print(1)\n\n", "# x") == "print(1)\n# x\n"
    assert notebook.same("print(1)\n", "print(1)")


def test_without_the_competition_there_is_nothing_to_save(room: Room) -> None:
    (room.root / "input/competitions/rolls-2019/sample_submission.csv").unlink()
    for rerun in (False, True):
        code, log = room.run(rerun=rerun)
        assert code == 1
        assert "is rolls-2019 attached" in log


def test_the_competitions_own_folder_is_taken_among_several(room: Room) -> None:
    other = room.root / "input" / "a-copy"
    (other / "test_images").mkdir(parents=True)
    (other / "sample_submission.csv").write_text(SAMPLE.replace("a.jpg", "z.jpg"))
    assert room.run()[0] == 0
    assert "z.jpg" not in room.submission.read_text()


def test_the_run_is_told_to_stay_offline(tmp_path: Path, bare: Path) -> None:
    log = furnish(tmp_path, bare, what="environment").run(rerun=True)[1]
    assert "OFFLINE 1 True" in log


SAMPLES = {
    "separate": SAMPLE,
    "placeholder": "ImageId,EncodedPixels,ClassId\na.jpg,1 409600,0\nb.jpg,1 409600,0\n",
    "joined": "ImageId_ClassId,EncodedPixels\na.jpg_1,1 1\na.jpg_2,\nb.jpg_1,\nb.jpg_2,\n",
    "crlf": SAMPLE.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", SAMPLES)
def test_the_empty_submission_is_the_one_that_task_writes(
    tmp_path: Path, bare: Path, form: str
) -> None:
    room = furnish(tmp_path, bare, what="exit")
    sample = room.root / "input/competitions/rolls-2019/sample_submission.csv"
    sample.write_bytes(SAMPLES[form].encode())
    assert room.run(rerun=True)[0] == 0
    submission.write_empty(tmp_path / "expected.csv", TASK, sample)
    assert room.submission.read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_the_empty_submission_of_a_classification(tmp_path: Path, bare: Path) -> None:
    room = furnish(tmp_path, bare, what="exit")
    task = replace(TASK, kind="classification", value_column="Labels")
    durable.write_json(room.weights / "config.json", {"task": task.to_dict()})
    seal(room)
    render(room)
    sample = room.root / "input/competitions/rolls-2019/sample_submission.csv"
    sample.write_text("ImageId,Labels\na.jpg,1 2\nb.jpg,\n")
    assert room.run(rerun=True)[0] == 0
    assert room.submission.read_text() == "ImageId,Labels\na.jpg,\nb.jpg,\n"


def test_thousands_of_images_do_not_slow_the_search(room: Room) -> None:
    images = room.root / "input/competitions/rolls-2019/test_images"
    for number in range(5000):
        (images / f"{number}.jpg").touch()
    start = time.monotonic()
    assert room.run()[0] == 0
    assert time.monotonic() - start < 10


def test_metadata_leaves_nothing_to_the_servers_defaults(room: Room) -> None:
    told = json.loads((room.root / "kernel" / "kernel-metadata.json").read_text())
    assert told["enable_internet"] is False
    assert told["is_private"] is True
    assert told["machine_shape"] == "NvidiaTeslaT4"
    assert (told["enable_gpu"], told["enable_tpu"]) == (True, False)
    assert told["id"] == "me/rolls-abc"
    assert told["dataset_sources"] == ["me/rolls-env/3", "me/rolls-weights/7"]
    assert told["competition_sources"] == ["rolls-2019"]
    assert told["kernel_type"] == "script"
    assert kernel.kernel_metadata(replace(SPEC, accelerator=""))["enable_gpu"] is False


def test_the_same_kernel_is_the_same_bytes(room: Room, tmp_path: Path) -> None:
    again = render(room, target=tmp_path / "again")
    assert again.script.read_bytes() == (room.root / "kernel" / "kernel.py").read_bytes()
    assert again.script.stat().st_size < 1 << 20
    assert again.timeout_s == 3600


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Another title"},
        {"title": "abc", "slug": "abc"},
        {"datasets": ("me/rolls-env",)},
        {"timeout_s": 0},
    ],
)
def test_what_kaggle_would_bend_is_refused(room: Room, tmp_path: Path, change: dict) -> None:
    with pytest.raises(UsageError):
        render(room, replace(SPEC, **change), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_damaged_pack_gets_no_kernel(room: Room, tmp_path: Path) -> None:
    flip(room.weights / "weights.bin")
    with pytest.raises(DataError, match="not the file that was packed"):
        render(room, target=tmp_path / "no")
