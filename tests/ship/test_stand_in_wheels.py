"""What stands in on this machine for a wheel that only the image's Python installs."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from kagflow import standins
from kagflow.fingerprint import Fingerprint
from kagflow.ship import stand_ins, wheelfile
from kagflow.ship.shelf import Shelf
from kagflow.ship.sources import Sources

OTHER = (sys.version_info[0], sys.version_info[1] + 1)
THERE = "cp{0}{1}-cp{0}{1}-manylinux_2_17_x86_64".format(*OTHER)
HERE = "cp{0}{1}-cp{0}{1}-manylinux_2_17_x86_64".format(*sys.version_info[:2])
IMAGE = Fingerprint("tiny", "{}.{}".format(*OTHER), "2.35", "", True, {"numpy": "1.0"})


def put(folder: Path, name: str, version: str, tag: str, *requires: str) -> Path:
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    files = {
        f"{name}.py": b"",
        f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
    }
    return wheelfile.write_wheel(folder, name=name, version=version, tag=tag, files=files)


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KAGFLOW_CACHE", str(tmp_path / "cache"))
    for name in ("env", "links", "work"):
        (tmp_path / name).mkdir()
    put(tmp_path / "env", "steel", "2.0", THERE, "numpy", "girder==1.0")
    put(tmp_path / "env", "girder", "1.0", "py3-none-any")
    return tmp_path / "env"


def shelf(folder: Path, offline: str = "") -> Shelf:
    sources = Sources(indexes=(), find_links=(str(folder / "links"),))
    return Shelf(folder / "cache" / "wheels", folder / "work", offline=offline, sources=sources)


def stands(wheel: str) -> list[str]:
    return [file.name for file in standins.found(wheel)]


def test_the_same_version_for_this_python_is_found_once(env: Path, tmp_path: Path) -> None:
    put(tmp_path / "links", "steel", "2.0", HERE, "numpy", "girder==1.0")
    put(tmp_path / "links", "steel", "3.0", HERE)
    wheel = f"steel-2.0-{THERE}.whl"
    assert standins.foreign(env, IMAGE) == [wheel]
    (said,) = stand_ins.provide(env, IMAGE, shelf(tmp_path))
    assert said == f"{wheel}: rehearsed here as steel-2.0-{HERE}.whl"
    assert stands(wheel) == [f"steel-2.0-{HERE}.whl"]
    assert {file.name for file in env.iterdir()} == {wheel, "girder-1.0-py3-none-any.whl"}
    assert stand_ins.provide(env, IMAGE, shelf(tmp_path, "no network")) == []


def test_what_only_this_python_needs_besides_comes_too(env: Path, tmp_path: Path) -> None:
    mark = "python_version == '{}.{}'".format(*sys.version_info[:2])
    put(tmp_path / "links", "steel", "2.0", HERE, "numpy", f"rivet; {mark}")
    put(tmp_path / "links", "rivet", "1.0", "py3-none-any")
    stand_ins.provide(env, IMAGE, shelf(tmp_path))
    assert stands(f"steel-2.0-{THERE}.whl") == [
        "rivet-1.0-py3-none-any.whl",
        f"steel-2.0-{HERE}.whl",
    ]


def test_what_came_alone_before_an_interrupt_is_no_stand_in(env: Path, tmp_path: Path) -> None:
    wheel = f"steel-2.0-{THERE}.whl"
    standins.folder(wheel).mkdir(parents=True)
    put(standins.folder(wheel), "rivet", "1.0", "py3-none-any")
    assert stands(wheel) == []


@pytest.mark.parametrize(
    ("offline", "why"), [("the cable is out", "the cable is out"), ("", "steel")]
)
def test_where_there_is_none_the_reason_is_kept(
    env: Path, tmp_path: Path, offline: str, why: str
) -> None:
    put(tmp_path / "links", "steel", "3.0", HERE)
    wheel = f"steel-2.0-{THERE}.whl"
    (said,) = stand_ins.provide(env, IMAGE, shelf(tmp_path, offline))
    assert said.startswith(f"{wheel}: nothing stands in for it here: ")
    assert why in standins.reason(wheel)
    assert stands(wheel) == []
    put(tmp_path / "links", "steel", "2.0", HERE)
    stand_ins.provide(env, IMAGE, shelf(tmp_path))
    assert stands(wheel) == [f"steel-2.0-{HERE}.whl"]
    assert not (standins.folder(wheel) / standins.REASON).exists()


def test_what_is_installed_here_stands_in_without_a_network(
    env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    built = put(tmp_path / "links", "steel", "2.0", HERE)
    with zipfile.ZipFile(built) as archive:
        archive.extractall(site)
    built.unlink()
    monkeypatch.syspath_prepend(site)
    (said,) = stand_ins.provide(env, IMAGE, shelf(tmp_path, "the cable is out"))
    assert said.endswith(f"rehearsed here as steel-2.0-{HERE}.whl")
    # A changed file is not what was installed.
    wheel = f"steel-2.0-{THERE}.whl"
    (standins.folder(wheel) / f"steel-2.0-{HERE}.whl").unlink()
    (site / "steel.py").write_text("changed = True\n")
    (said,) = stand_ins.provide(env, IMAGE, shelf(tmp_path, "the cable is out"))
    assert "changed after installation" in said


def test_a_lack_of_this_machine_is_told_from_one_of_the_pack(env: Path, tmp_path: Path) -> None:
    stand_ins.provide(env, IMAGE, shelf(tmp_path, "the cable is out"))
    told = standins.lack("steel.beam", env, IMAGE)
    assert "'steel.beam' is in the pack, and this machine lacks it" in told
    assert "the cable is out" in told
    assert standins.lack("girder", env, IMAGE) == ""
    assert standins.lack("copper", env, IMAGE) == ""


def test_a_wheel_that_the_image_refuses_too_is_not_this_machines_matter(env: Path) -> None:
    put(env, "odd", "1.0", "cp27-cp27m-win32")
    assert standins.foreign(env, IMAGE) == [f"steel-2.0-{THERE}.whl"]
