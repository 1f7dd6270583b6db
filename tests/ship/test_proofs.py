"""What is proved of a bundle before it is a pack, and that each fault stops it by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kagflow.errors import DataError
from kagflow.fingerprint import Fingerprint, Headers
from kagflow.ship import imports, proofs, wheelfile
from kagflow.ship.proofs import Bundle, prove
from kagflow.ship.shelf import WheelSource
from kagflow.ship.wheels import Closure

PROBED = {"numpy": Headers(tops=("numpy",)), "torch": Headers(requires=("einops<0.9",))}
HELD = {"torch": "2.10.0+cu128", "numpy": "2.0.2", "einops": "0.8.2"}


def image(*, probed: bool = True, **more: str) -> Fingerprint:
    held = {**HELD, **more}
    headers = PROBED if probed else {}
    return Fingerprint("tiny-image", "3.12", "2.35", "12.8", not probed, held, headers=headers)


def wheel(
    folder: Path, name: str, version: str, code: dict[str, str], *requires: str, **more: Any
) -> Path:
    tag = more.get("tag", "py3-none-any")
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    files = {
        **{path: text.encode() for path, text in code.items()},
        f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    return wheelfile.write_wheel(folder, name=name, version=version, tag=tag, files=files)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    kernel = {
        "kagflow/__init__.py": "",
        "kagflow/infer/__init__.py": "",
        "kagflow/infer/kernel.py": "import json, numpy\nBY = {'smp': 'kagflow.infer.more:make'}\n",
        "kagflow/infer/more.py": "def make():\n    import nets.parts\n",
        "rolls/__init__.py": "",
        "rolls/models.py": "from nets import parts\n",
    }
    nets = {"nets/__init__.py": "from .parts import Net\n", "nets/parts.py": "class Net: pass\n"}
    return Bundle(
        wheels=(
            wheel(tmp_path, "kagflow_runtime", "0.1", kernel, "nets[fast]==1.5", "numpy>=2"),
            wheel(tmp_path, "nets", "1.5", nets, "quick>=3; extra == 'fast'", "no; extra == 'x'"),
            wheel(tmp_path, "quick", "3.1", {"quick.py": ""}, "einops"),
        ),
        asked=("kagflow_runtime==0.1",),
        own="rolls",
        config={"members": [{"model": {"target": "rolls.models:Net"}}]},
        fingerprint=image(),
        ghosts=tmp_path / "images",
    )


def changed(bundle: Bundle, folder: Path, index: int, made: Path) -> Bundle:
    folder.mkdir(exist_ok=True)
    wheels = list(bundle.wheels)
    wheels[index] = made
    return replace(bundle, wheels=tuple(wheels))


def test_a_whole_bundle_is_proved_four_times_and_recorded(bundle: Bundle, tmp_path: Path) -> None:
    found = prove(bundle)
    assert [(one.name, one.held) for one in found] == [
        ("tags", True), ("closure", True), ("install", True), ("imports", True),
        ("rehearsal", None)]  # fmt: skip
    assert found[1].text == "5 requirements met"
    assert found[2].text.startswith("uv installs 3 wheels offline")
    source = WheelSource("nets", "1.5", bundle.wheels[1], "downloaded", "ab", "me")
    closure = Closure((source,), {}, offline="KAGFLOW_OFFLINE is set")
    file = proofs.write(tmp_path / "packs" / "abc", "abc", found, closure)
    told = json.loads(file.read_text())
    assert file.name == "abc.proofs.json"
    assert told["resolver"].endswith("KAGFLOW_OFFLINE is set")
    assert told["wheels"][bundle.wheels[1].name]["from"] == "downloaded"
    assert len(told["proofs"]) == 5


def test_a_missing_wheel_is_named(bundle: Bundle) -> None:
    with pytest.raises(DataError, match=r"nets needs quick>=3.*there is none"):
        prove(replace(bundle, wheels=bundle.wheels[:2]))


def test_a_wheel_of_another_python_is_named(bundle: Bundle, tmp_path: Path) -> None:
    tag = "cp311-cp311-manylinux_2_17_x86_64"
    other = wheel(tmp_path / "x", "quick", "3.1", {"quick.py": ""}, tag=tag)
    with pytest.raises(DataError, match=r"quick-3\.1-cp311.* does not install on Python 3\.12"):
        prove(changed(bundle, tmp_path / "x", 2, other))


def test_a_need_that_nothing_meets_is_named(bundle: Bundle, tmp_path: Path) -> None:
    other = wheel(tmp_path / "x", "quick", "3.1", {"quick.py": ""}, "absent>=2")
    with pytest.raises(DataError, match="quick needs absent>=2, there is none"):
        prove(changed(bundle, tmp_path / "x", 2, other))
    other = wheel(tmp_path / "x", "quick", "3.1", {"quick.py": ""}, "numpy>=2.1")
    with pytest.raises(DataError, match=r"quick needs numpy>=2\.1, there is 2\.0\.2"):
        prove(changed(bundle, tmp_path / "x", 2, other))


def test_a_wheel_that_nobody_asks_for_does_not_travel(bundle: Bundle, tmp_path: Path) -> None:
    more = wheel(tmp_path, "stray", "1", {"stray.py": ""})
    with pytest.raises(DataError, match="not what installing them takes: stray 1"):
        prove(replace(bundle, wheels=(*bundle.wheels, more)))


def test_what_gives_way_is_told_with_whom_it_breaks(bundle: Bundle, tmp_path: Path) -> None:
    other = wheel(tmp_path / "x", "quick", "3.1", {"quick.py": ""}, "einops>=1")
    asked = changed(bundle, tmp_path / "x", 2, other)
    with pytest.raises(DataError, match=r"quick needs einops>=1, there is 0\.8\.2"):
        prove(asked)
    newer = wheel(tmp_path, "einops", "1.0", {"einops.py": ""})
    both = replace(asked, wheels=(*asked.wheels, newer), replaced={"einops": "0.8.2"})
    closure = prove(both)[1]
    assert closure.open == ("the image's torch needs einops<0.9, the pack brings 1.0",)


@pytest.mark.parametrize(
    ("code", "lost"),
    [
        ("import absent\n", "absent"),
        ("import nets.gone\n", "nets.gone"),
        ("import imp\n", "imp"),
        ("def late():\n    from absent import x\n", "absent"),
        ("class A:\n    import absent\n", "absent"),
        ("if True:\n    pass\nelse:\n    import absent.x\n", "absent.x"),
        ("try:\n    import absent\nexcept ImportError:\n    absent = None\n", None),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import absent\n", None),
        ("if __name__ == '__main__':\n    import absent\n", None),
        ("try:\n    pass\nfinally:\n    import absent\n", "absent"),
        ("from . import models as absent\nfrom .absent import x\n", None),
    ],
)
def test_an_import_that_leads_nowhere_is_named(
    bundle: Bundle, tmp_path: Path, code: str, lost: str | None
) -> None:
    rolls = wheel(tmp_path / "x", "rolls", "1", {"rolls/__init__.py": "", "rolls/models.py": code})
    wheels = [rolls, *bundle.wheels[1:]]
    found = imports.follow(wheels, ["rolls.models"], ["rolls"], image())
    assert [(one.module, one.who) for one in found.lost] == (
        [(lost, "rolls.models")] if lost else [])  # fmt: skip


def test_a_lost_import_stops_the_pack_with_its_distribution(bundle: Bundle, tmp_path: Path) -> None:
    files = {"nets/__init__.py": "import pytest\n", "nets/parts.py": ""}
    asked = ["quick>=3; extra == 'fast'"]
    other = wheel(tmp_path / "x", "nets", "1.5", files, *asked)
    with pytest.raises(DataError, match=r"nets imports pytest \(pytest\)") as told:
        prove(changed(bundle, tmp_path / "x", 1, other))
    assert "requires" in told.value.hint


def test_an_approximate_image_leaves_open_what_nobody_knows(bundle: Bundle, tmp_path: Path) -> None:
    files = {"nets/__init__.py": "import cv2, never_heard_of\n", "nets/parts.py": ""}
    other = wheel(tmp_path / "x", "nets", "1.5", files, "quick>=3; extra == 'fast'")
    asked = changed(bundle, tmp_path / "x", 1, other)
    held = image(probed=False, **{"opencv-python-headless": "4.13.0"})
    found = prove(replace(asked, fingerprint=held))[3]
    assert found.open == ("nets imports never_heard_of: not known here",)
