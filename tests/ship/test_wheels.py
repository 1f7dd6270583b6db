"""Which wheels travel, and whether what is rebuilt installs and imports."""

from __future__ import annotations

import importlib.metadata
import sys
import zipfile
from pathlib import Path

import pytest

from kagflow import durable, process
from kagflow.errors import DataError, LocalError
from kagflow.fingerprint import Fingerprint, load_snapshot
from kagflow.ship import wheelfile, wheels
from kagflow.ship.environment import target_environment
from kagflow.ship.shelf import Shelf
from kagflow.ship.wheels import keep_wheels, missing_wheels
from kagflow.tags import platforms, target_tags

VERSION = importlib.metadata.version("segmentation-models-pytorch")


def image(**distributions: str) -> Fingerprint:
    named = {name.replace("_", "-"): version for name, version in distributions.items()}
    return Fingerprint("tiny-image", "3.12", "2.35", "12.8", approximate=True, distributions=named)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    for name in ("cache", "work"):
        (tmp_path / name).mkdir()
    return Shelf(tmp_path / "cache", tmp_path / "work", offline="a test")


def put(folder: Path, name: str, version: str, *requires: str, tag: str = "py3-none-any") -> Path:
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    files = {
        f"{name}.py": f"VALUE = '{version}'\n".encode(),
        f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    return wheelfile.write_wheel(folder, name=name, version=version, tag=tag, files=files)


def names(closure) -> list[str]:
    return [wheel.name for wheel in closure.wheels]


def test_closure_takes_what_five_distributions_lack(shelf: Shelf) -> None:
    held = image(
        torch="2.10.0+cu128", numpy="2.0.2", pandas="2.3.3", timm="1.0.26", pillow="11.3.0"
    )
    put(
        shelf.cache,
        "outer",
        "1.2",
        "numpy>=2",
        "torch==2.10.0",
        "inner[fast]>=1",
        "gone; extra=='x'",
    )
    put(shelf.cache, "inner", "1.0", "quick>=3; extra == 'fast'", "slow; extra == 'slow'")
    put(shelf.cache, "inner", "1.5", "quick>=3; extra == 'fast'", "slow; extra == 'slow'")
    put(
        shelf.cache,
        "quick",
        "3.1",
        "tomli; python_version < '3.12'",
        "pillow; sys_platform=='linux'",
    )
    closure = missing_wheels({"me": ["outer"]}, held, shelf)
    assert [(w.name, w.version, w.origin, w.why) for w in closure.wheels] == [
        ("inner", "1.5", "cache", "outer"),
        ("outer", "1.2", "cache", "me"),
        ("quick", "3.1", "cache", "inner"),
    ]
    assert closure.relied_on == {"numpy": "2.0.2", "pillow": "11.3.0", "torch": "2.10.0+cu128"}


def test_markers_are_those_of_the_image_not_of_this_machine(shelf: Shelf) -> None:
    put(shelf.cache, "outer", "1", "numpy; python_version >= '3.12'", "no; sys_platform == 'win32'")
    closure = missing_wheels({"me": ["outer"]}, image(numpy="2.0.2"), shelf)
    assert closure.relied_on == {"numpy": "2.0.2"}
    assert target_environment(image())["python_full_version"] == "3.12.0"


def test_a_conflict_with_the_image_is_refused_by_name(shelf: Shelf) -> None:
    put(shelf.cache, "outer", "1", "numpy>=2.3")
    with pytest.raises(
        DataError, match=r"outer needs numpy>=2\.3, but tiny-image holds numpy 2\.0"
    ):
        missing_wheels({"me": ["outer"]}, image(numpy="2.0.2"), shelf)


def test_two_requirements_that_exclude_each_other_are_refused(shelf: Shelf) -> None:
    put(shelf.cache, "one", "1", "both<2")
    put(shelf.cache, "both", "2.0")
    with pytest.raises(DataError, match=r"one needs both<2, but both 2\.0 was taken for me"):
        missing_wheels({"me": ["both", "one"]}, image(), shelf)


def test_a_wheel_that_the_image_cannot_install_is_not_taken(shelf: Shelf) -> None:
    put(shelf.cache, "fast", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    with pytest.raises(LocalError, match="no wheel of fast for tiny-image"):
        missing_wheels({"me": ["fast"]}, image(), shelf)
    put(shelf.cache, "fast", "1.0", tag="cp312-cp312-manylinux_2_36_x86_64")
    with pytest.raises(LocalError, match="no wheel of fast for tiny-image"):
        missing_wheels({"me": ["fast"]}, image(), shelf)
    put(shelf.cache, "fast", "1.0")
    exact = put(shelf.cache, "fast", "1.0", tag="cp312-cp312-manylinux_2_17_x86_64")
    assert missing_wheels({"me": ["fast"]}, image(), shelf).wheels[0].file == exact


def test_what_is_compiled_here_and_not_cached_is_an_error(shelf: Shelf) -> None:
    with pytest.raises(
        LocalError, match=r"no wheel of numpy==.* not installed here as pure"
    ) as told:
        missing_wheels({"me": ["numpy"]}, image(), shelf)
    assert "pip download" in told.value.hint


def test_a_damaged_cached_wheel_is_refused(shelf: Shelf) -> None:
    wheel = put(shelf.cache, "outer", "1")
    wheel.write_bytes(wheel.read_bytes().replace(b"VALUE", b"VALVE"))
    with pytest.raises(DataError, match=r"no whole wheel|not what RECORD says"):
        missing_wheels({"me": ["outer"]}, image(), shelf)


@pytest.mark.parametrize("text", ["a b c", "x @ https://example.org/x.whl"])
def test_requirements_that_cannot_be_packed(shelf: Shelf, text: str) -> None:
    with pytest.raises(DataError, match=r"requirement|address"):
        missing_wheels({"me": [text]}, image(), shelf)


def test_extras_of_an_image_distribution_are_followed(shelf: Shelf) -> None:
    held = dict.fromkeys(load_snapshot().distributions, "1")
    held["requests"] = importlib.metadata.version("requests")
    del held["pysocks"]
    put(shelf.cache, "PySocks", "1.7.1")
    closure = missing_wheels({"me": ["requests[socks]"]}, image(**held), shelf)
    assert names(closure) == ["pysocks"]
    with pytest.raises(DataError, match="not known here"):
        missing_wheels({"me": ["xgboost[x]"]}, image(**held), shelf)


def test_the_snapshot_lacks_only_the_model_code(shelf: Shelf) -> None:
    model = "segmentation-models-pytorch"
    closure = missing_wheels({"me": [model]}, load_snapshot(), shelf)
    assert names(closure) == [model]
    assert closure.wheels[0].origin == "rebuilt"
    assert closure.relied_on["timm"] == "1.0.26"


def test_a_rebuilt_wheel_is_the_same_bytes_and_installs(shelf: Shelf, tmp_path: Path) -> None:
    dist = importlib.metadata.distribution("segmentation-models-pytorch")
    first = wheelfile.rebuild(dist, shelf.work)
    second = wheelfile.rebuild(dist, shelf.cache)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {wheelfile.EPOCH}
        assert not [name for name in archive.namelist() if name.endswith((".pyc", "INSTALLER"))]
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    process.run([*pip, "--no-compile", "--target", str(site), str(first)])
    code = (
        "import importlib.metadata as m, importlib.util as u;"
        "print(u.find_spec('segmentation_models_pytorch').origin,"
        " m.version('segmentation-models-pytorch'))"
    )
    told = process.run([sys.executable, "-c", code], env={"PYTHONPATH": str(site)}).stdout.split()
    assert Path(told[0]).is_relative_to(site)
    assert told[1] == dist.version


def test_a_rebuilt_wheel_imports_alone(shelf: Shelf) -> None:
    wheel = wheelfile.rebuild(importlib.metadata.distribution("tqdm"), shelf.work)
    code = "import tqdm, sys; print(tqdm.__file__); tqdm.tqdm"
    told = process.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(wheel)!r});{code}"]
    )
    assert told.stdout.startswith(str(wheel))


def test_a_changed_installed_file_is_not_rebuilt(shelf: Shelf, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(put(shelf.cache, "outer", "1")) as archive:
        archive.extractall(site)
    (site / "outer.py").write_text("VALUE = 'mine'\n")
    dist = importlib.metadata.PathDistribution(site / "outer-1.dist-info")
    with pytest.raises(DataError, match=r"outer\.py was changed after installation"):
        wheelfile.rebuild(dist, shelf.work)


def test_an_editable_installation_is_not_rebuilt(shelf: Shelf, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(put(shelf.cache, "outer", "1")) as archive:
        archive.extractall(site)
    durable.write_json(site / "outer-1.dist-info/direct_url.json", {"dir_info": {"editable": True}})
    dist = importlib.metadata.PathDistribution(site / "outer-1.dist-info")
    with pytest.raises(LocalError, match="editable"):
        wheelfile.rebuild(dist, shelf.work)


def test_platforms_are_spelt_out_down_to_the_oldest() -> None:
    tags = {str(tag) for tag in target_tags(image())}
    assert {"cp312-cp312-manylinux_2_35_x86_64", "cp312-cp312-manylinux2014_x86_64"} <= tags
    assert {"py3-none-any", "cp38-abi3-manylinux_2_17_x86_64"} <= tags
    assert platforms(image())[0] == "manylinux_2_35_x86_64"
    assert not [tag for tag in tags if tag.startswith(("cp313", "cp311-cp311"))]


def test_installing_keeps_a_real_wheel_of_what_was_only_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(requirement, fingerprint, shelf: Shelf) -> Path:
        asked.append(str(requirement))
        return put(shelf.cache, "segmentation_models_pytorch", VERSION)

    monkeypatch.setenv("KAGFLOW_CACHE", str(tmp_path))
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(wheels, "download", download)
    keep_wheels(load_snapshot())
    assert asked == [f"segmentation-models-pytorch=={VERSION}"]
    keep_wheels(load_snapshot())
    assert len(asked) == 1
