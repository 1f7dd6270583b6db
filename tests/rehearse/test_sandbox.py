"""Kernels that try what Kaggle forbids, in every sandbox layer that this machine has."""

from __future__ import annotations

import json
import os
import pwd
import socket
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from kagflow import process
from kagflow.errors import LocalError
from kagflow.fingerprint import Fingerprint, load_snapshot
from kagflow.rehearse import sandbox
from kagflow.rehearse.interpreter import find_interpreter
from kagflow.rehearse.sandbox import LAYERS, SandboxResult, SandboxSpec, probe_layers
from kagflow.rehearse.view import build_view, differences

IMAGE = load_snapshot()


@pytest.fixture(scope="session")
def working_layers() -> list[str]:
    return list(probe_layers())


@pytest.fixture(params=LAYERS)
def run(request, tmp_path, working_layers):
    if request.param not in working_layers:
        pytest.skip(f"{request.param} does not work on this machine")
    working = tmp_path / "out"
    (tmp_path / "competition").mkdir()
    (tmp_path / "competition" / "train.csv").write_text("ImageId\n")
    (tmp_path / "pack").mkdir()
    working.mkdir()

    def go(source: str, *, on_line=None, log_file=None, **changes) -> SandboxResult:
        script = tmp_path / "kernel.py"
        script.write_text(textwrap.dedent(source))
        values = {
            "script": script,
            "competition_slug": "shapes",
            "competition_input": tmp_path / "competition",
            "datasets": {"me/the-pack": tmp_path / "pack"},
            "working": working,
            "fingerprint": Fingerprint("none", "3.12", "2.35", "", True, {}),
            "time_limit_s": 60,
            "memory_bytes": 4 << 30,
            "layer": request.param,
        }
        spec = SandboxSpec(**{**values, **changes})
        return sandbox.run(spec, on_line=on_line, log_file=log_file)

    return go


def text(result: SandboxResult) -> str:
    return "".join(record["data"] for record in result.log)


def test_network_is_cut_but_loopback_works(run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()  # it can be reached from out here
        result = run(f"""
            import socket
            for call in (
                lambda: socket.create_connection(("127.0.0.1", {port}), 2),
                lambda: socket.create_connection(("192.0.2.1", 80), 2),
                lambda: socket.getaddrinfo("example.org", 80),
            ):
                try:
                    call()
                except OSError as error:
                    print("refused:", type(error).__name__)
                else:
                    print("REACHED")
            own = socket.create_server(("127.0.0.1", 0))
            socket.create_connection(own.getsockname(), 2)
            print("loopback")
        """)
    assert text(result).count("refused:") == 3
    assert "TimeoutError" not in text(result)
    assert "REACHED" not in text(result)
    assert "loopback" in text(result)
    assert result.returncode == 0


def test_a_kernel_that_needs_the_network_fails(run) -> None:
    result = run("import urllib.request; urllib.request.urlopen('http://192.0.2.1/')")
    assert result.returncode == 1
    assert "unreachable" in text(result)
    assert result.seconds < 20


def test_home_is_hidden(run, tmp_path) -> None:
    canary = tmp_path / "home" / ".kaggle" / "kaggle.json"
    canary.parent.mkdir(parents=True)
    canary.write_text("secret")
    real = Path(pwd.getpwuid(os.getuid()).pw_dir)
    result = run(f"""
        import json, os
        print(json.dumps({{
            "home": os.environ["HOME"],
            "canary": os.path.exists({str(canary)!r}),
            "real": os.listdir({str(real)!r}) if os.path.isdir({str(real)!r}) else [],
            "files": [f for folder in ("/root", "/home") for f in os.listdir(folder)
                      if os.path.isfile(os.path.join(folder, f))],
        }}))
    """)
    told = json.loads(text(result))
    prefixes = {part for path in find_interpreter().prefixes for part in path.parts}
    assert told["home"] == "/root"
    assert not told["canary"]
    assert set(told["real"]) <= prefixes
    assert not told["files"]


@pytest.mark.parametrize(
    "path",
    [
        "/kaggle/input/new",
        "/kaggle/input/competitions/shapes/new",
        "/kaggle/input/competitions/shapes/train.csv",
        "/kaggle/input/datasets/me/the-pack/new",
        "/usr/new",
    ],
)
def test_inputs_are_read_only(run, tmp_path, path) -> None:
    result = run(f"""
        import subprocess
        for folder in ("/kaggle/input", "/kaggle/input/competitions/shapes"):
            subprocess.run(["mount", "-o", "remount,bind,rw", folder], capture_output=True)
        open({path!r}, "w")
    """)
    assert result.returncode == 1
    assert "Read-only file system" in text(result)
    assert (tmp_path / "competition" / "train.csv").read_text() == "ImageId\n"


def test_only_distributions_of_the_image_are_there(run) -> None:
    result = run(
        """
        import importlib, sys
        import numpy, torch
        assert (torch.ones(2) + torch.from_numpy(numpy.ones(2, "float32"))).sum() == 4
        for name in ("segmentation_models_pytorch", "hypothesis", "kagflow", "uv"):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                print("absent", error.name)
        import segmentation_models_pytorch
        """,
        fingerprint=IMAGE,
    )
    absent = [line.split()[1] for line in text(result).splitlines() if line.startswith("absent")]
    assert absent == ["segmentation_models_pytorch", "hypothesis", "kagflow", "uv"]
    assert "ModuleNotFoundError: No module named 'segmentation_models_pytorch'" in text(result)
    assert result.returncode == 1


def test_an_image_without_numpy_shows_none(run) -> None:
    assert "No module named 'numpy'" in text(run("import numpy"))


def test_metadata_is_shown_with_a_distribution(run) -> None:
    only = Fingerprint("one", "3.12", "2.35", "", True, {"packaging": "1"})
    result = run(
        """
        from importlib import metadata
        print(sorted({one.name for one in metadata.distributions()}))
        """,
        fingerprint=only,
    )
    assert text(result).strip() == "['packaging']"


def test_environment_is_cleared(run, monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    source = "import os, json; print(json.dumps(dict(os.environ))); print(os.getcwd(), os.getuid())"
    saved, place = text(run(source)).splitlines()
    env = json.loads(saved)
    # The shell of bwrap's own making.
    env.pop("PWD", None)
    assert place == "/kaggle/working 0"
    assert set(env) == {
        *("PATH", "HOME", "LANG", "TERM", "PYTHONUNBUFFERED", "OMP_NUM_THREADS"),
        *("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE", "KAGFLOW_REHEARSAL", "KAGFLOW_PARITY"),
        *("PIP_CONFIG_FILE", "PIP_DISABLE_PIP_VERSION_CHECK", "HF_HUB_OFFLINE"),
    }
    assert env["KAGGLE_KERNEL_RUN_TYPE"] == "Batch"
    rerun = json.loads(text(run(source, rerun=True)).splitlines()[0])
    assert rerun["KAGGLE_IS_COMPETITION_RERUN"] == "1"


def test_time_limit_leaves_no_orphan(run, tmp_path) -> None:
    result = run(
        """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            while True:
                with open("beat", "a") as file:
                    file.write("x")
                time.sleep(0.02)
        time.sleep(60)
        """,
        time_limit_s=1.0,
    )
    assert result.timed_out
    assert not result.out_of_memory
    assert result.returncode != 0
    assert 1 <= result.seconds < 5
    beats = (tmp_path / "out" / "beat").stat().st_size
    time.sleep(0.3)
    assert beats > 0
    assert (tmp_path / "out" / "beat").stat().st_size == beats


_PARENT = """
import sys
from pathlib import Path
from kagflow.fingerprint import Fingerprint
from kagflow.rehearse.sandbox import SandboxSpec, run
folder = Path(sys.argv[1])
run(SandboxSpec(
    script=folder / "beat.py", competition_slug="none", competition_input=folder / "nothing",
    datasets={}, working=folder / "out",
    fingerprint=Fingerprint("none", "3.12", "2.35", "", True, {}),
    time_limit_s=60, memory_bytes=4 << 30, layer=sys.argv[2],
))
"""
_BEAT = """
import subprocess, sys, time
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"])  # what a kernel starts must go too
while True:
    open("/kaggle/working/beat" + str(len(sys.argv)), "a").write(".")
    time.sleep(0.02)
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_a_kernel_dies_with_whoever_started_it(tmp_path, working_layers, layer) -> None:
    if layer not in working_layers:
        pytest.skip(f"{layer} does not work on this machine")
    for name in ("nothing", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "beat.py").write_text(_BEAT)
    parent = process.spawn([sys.executable, "-c", _PARENT, tmp_path, layer], cwd=Path.cwd())
    beats = [tmp_path / "out" / f"beat{count}" for count in (1, 2)]
    _until(lambda: all(beat.exists() for beat in beats))
    parent.kill()
    parent.wait()

    def still() -> bool:
        before = [beat.stat().st_size for beat in beats]
        time.sleep(0.3)
        return before == [beat.stat().st_size for beat in beats]

    _until(still)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_memory_limit_counts_children(run) -> None:
    source = """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "import time; x = b'1' * (300 << 20); time.sleep(2)"])
    """
    result = run(source, memory_bytes=200 << 20)
    assert result.out_of_memory
    assert not result.timed_out
    assert result.returncode != 0
    free = run(source)
    assert free.returncode == 0
    assert not free.out_of_memory
    assert 300 << 20 <= free.peak_bytes < 500 << 20


@pytest.mark.parametrize(
    ("layout", "found"),
    [
        ("nested", ["competitions/shapes/train.csv", "datasets/me/the-pack/weights"]),
        ("flat", ["shapes/train.csv", "the-pack/weights"]),
    ],
)
def test_layouts(run, tmp_path, layout, found) -> None:
    (tmp_path / "pack" / "weights").write_text("w")
    source = """
        from pathlib import Path
        root = Path("/kaggle/input")
        print(sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()))
    """
    assert text(run(source, layout=layout)).strip() == str(found)


def test_outputs_and_log(run, tmp_path) -> None:
    lines = []
    result = run(
        """
        import sys, pathlib
        print("to out")
        print("to err", file=sys.stderr)
        for folder in ("/kaggle/temp", "/tmp", "/dev/shm"):
            pathlib.Path(folder, "scratch").write_text("x")
        pathlib.Path("submission.csv").write_text("done")
        sys.exit(5)
        """,
        on_line=lines.append,
        log_file=tmp_path / "log.json",
    )
    assert (tmp_path / "out" / "submission.csv").read_text() == "done"
    assert result.returncode == 5
    written = json.loads((tmp_path / "log.json").read_text())
    assert written == result.log == lines
    said = {(record["stream_name"], record["data"]) for record in written}
    assert said == {("stdout", "to out\n"), ("stderr", "to err\n")}
    assert all(0 <= record["time"] <= result.seconds + 1 for record in written)


def test_pip_installs_from_the_pack(run, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "pack" / "gift-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("gift.py", "WORD = 'unwrapped'\n")
        info = "gift-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gift\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\ngift = gift:WORD\n")
        wheel.writestr(f"{info}/RECORD", "")
    result = run(
        """
        import glob, subprocess, sys
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps",
                        *glob.glob("/kaggle/input/**/*.whl", recursive=True)], check=True)
        import gift
        print(gift.WORD)
        """,
        fingerprint=IMAGE,
    )
    assert "unwrapped" in text(result)
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("layer", "bare"),
    [
        ("bwrap", ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]),
        ("unshare", ["unshare", "--user", "--map-root-user", "--net", "--mount", "true"]),
    ],
)
def test_a_layer_whose_tool_works_is_found(working_layers, layer, bare) -> None:
    try:
        process.run(bare)
    except LocalError as error:
        pytest.skip(str(error))
    assert layer in working_layers


def test_no_layer_is_an_error_with_advice(monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "_works", lambda layer, interpreter: False)
    with pytest.raises(LocalError) as caught:
        sandbox.strongest_layer()
    assert "apt install bubblewrap" in caught.value.hint


def test_a_layer_that_leaves_the_network_open_is_not_taken(monkeypatch) -> None:
    ended = SimpleNamespace(returncode=3)
    monkeypatch.setattr(sandbox, "_start", lambda *args, **kwargs: ended)
    assert probe_layers() == []


def install(site: Path, name: str, files: dict[str, str], *, requires=(), editable=False) -> None:
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
    }
    if editable:
        files[f"{info}/direct_url.json"] = json.dumps({"url": "", "dir_info": {"editable": True}})
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, "../../bin/tool"])
    for path, content in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(content)


def image(*names: str, **versions: str) -> Fingerprint:
    return Fingerprint("x", "3.12", "2.35", "", False, {**dict.fromkeys(names, "1.0"), **versions})


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path / "site")])
    return tmp_path / "site"


def shown(fingerprint: Fingerprint) -> set[str]:
    return {where for where, _ in build_view(fingerprint).binds if "dist-info" not in where}


def test_a_shared_folder_is_shown_one_level_deeper(site) -> None:
    install(site, "google-a", {"google/a/__init__.py": "", "google/a/deep/x.py": ""})
    install(site, "google-b", {"google/b/__init__.py": "", "google/__pycache__/x.pyc": ""})
    assert shown(image("google-a")) == {"google/a"}
    assert shown(image("google-a", "google-b")) == {"google"}


def test_an_editable_install_does_not_leak(site) -> None:
    install(site, "mine", {"__editable__.mine.pth": "/home/me/mine"}, editable=True)
    install(site, "plain", {"plain.py": "", "plain.pth": "import plain"})
    view = build_view(image("mine", "plain"))
    assert shown(image("mine", "plain")) == {"plain.py", "plain.pth"}
    assert view.left_out == ("mine: an editable install",)


def test_companions_follow_requirements_and_extras(site) -> None:
    install(
        site, "torch", {"torch.py": ""}, requires=["toolkit[blas]", "absent", "win; extra=='w'"]
    )
    install(site, "toolkit", {}, requires=["blas-13; extra == 'blas'", "fft-13; extra == 'fft'"])
    for name in ("blas-13", "fft-13", "win", "stranger"):
        install(site, name, {f"{name}.py": ""})
    view = build_view(image("torch"))
    assert view.companions == ("blas-13", "toolkit")
    assert shown(image("torch")) == {"torch.py", "blas-13.py"}


def test_differences_name_both_versions(site) -> None:
    install(site, "one", {}, requires=["two"])
    install(site, "two", {}, requires=["three"])
    install(site, "three", {})
    install(site, "unrelated", {})
    found = differences(image("one", two="2.0+cu1", unrelated="9"), ["one", "gone"])
    assert found == [
        "gone: not installed here",
        "three: 1.0 here, needed by other versions, not in the image",
        "two: 1.0 here, 2.0+cu1 in the image",
    ]
