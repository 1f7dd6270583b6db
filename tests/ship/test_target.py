"""What a probe's log says of an image, which one is chosen, and whom a change touches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kagflow import fingerprint
from kagflow.errors import DataError, RemoteError, UsageError
from kagflow.fingerprint import DEFAULT, Fingerprint, Headers
from kagflow.ship import target

TOLD = {
    "python": "3.12.13",
    "glibc": "2.35",
    "cuda": "12.8",
    "digest": "sha256:37c6",
    "arches": ["sm_75", "sm_120"],
    "count": 2,
    "distributions": {
        "Torch": {"version": "2.10.0+cu128", "requires": ["numpy>=1"], "tops": ["torch"]},
        "NumPy": {"version": "2.0.2", "extras": ["x"], "requires_python": ">=3.9"},
    },
    "end": 3,
}


def test_an_answer_becomes_a_fingerprint_named_by_its_content(tmp_path: Path) -> None:
    image = target.read_answer(TOLD, "gpu")
    assert (image.python, image.digest, image.accelerator) == ("3.12.13", "sha256:37c6", "gpu")
    assert image.distributions == {"torch": "2.10.0+cu128", "numpy": "2.0.2"}
    assert image.headers["torch"] == Headers(requires=("numpy>=1",), tops=("torch",))
    assert not image.approximate
    assert target.read_answer(TOLD, "gpu").name == image.name
    other = target.read_answer({**TOLD, "digest": "sha256:0000"}, "gpu")
    assert other.name != image.name
    fingerprint.write(image, tmp_path)
    assert fingerprint.load(image.name, tmp_path) == image
    assert fingerprint.load(DEFAULT, tmp_path).approximate
    with pytest.raises(UsageError) as told:
        fingerprint.load("v999", tmp_path)
    assert image.name in told.value.hint


@pytest.mark.parametrize("fault", ["end", "count", "distributions"])
def test_a_cut_log_is_no_answer(fault: str) -> None:
    told = {key: value for key, value in TOLD.items() if key != fault}
    with pytest.raises(RemoteError, match="not whole") as caught:
        target.read_answer(told, "cpu")
    assert "target probe" in caught.value.hint
    with pytest.raises(RemoteError, match="1 of 2"):
        first = dict([next(iter(TOLD["distributions"].items()))])
        target.read_answer({**TOLD, "distributions": first}, "cpu")


def test_the_newest_of_a_kind_is_chosen_and_else_the_shipped_one(tmp_path: Path) -> None:
    assert target.chosen(tmp_path / "none", "NvidiaTeslaT4").name == DEFAULT
    image = target.read_answer(TOLD, "gpu")
    for name, day in (("old", "2026-01-02"), ("new", "2026-11-02"), ("mid", "2026-05-02")):
        fingerprint.write(replace(image, name=name, probed=day), tmp_path)
    fingerprint.write(replace(image, name="c", accelerator="cpu", probed="2027"), tmp_path)
    assert target.chosen(tmp_path, "NvidiaTeslaT4").name == "new"
    assert target.chosen(tmp_path, "").name == "c"
    assert target.chosen(tmp_path, "TpuV5E8").name == DEFAULT
    assert [one.name for one in target.known(tmp_path)] == ["c", "new", "mid", "old"]
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match=r"bad\.json is no fingerprint"):
        target.chosen(tmp_path, "")


def pack(root: Path, name: str, *relied_on: str) -> None:
    file = root / "rolls" / name / "env" / "manifest.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"relied_on": dict.fromkeys(relied_on, "1")}))


def image(headers: dict[str, Headers] | None = None, **held: str) -> Fingerprint:
    return Fingerprint("x", "3.12", "2.35", "12.8", headers is None, held, headers=headers or {})


def test_a_change_touches_packs_that_rely_on_it_also_through_others(tmp_path: Path) -> None:
    before = image(torch="1", timm="1", hub="1", pandas="1")
    after = image({"timm": Headers(requires=("hub>=1", "pandas; extra == 'x'"))},
                  torch="1", timm="1", hub="2", pandas="2", polars="1")  # fmt: skip
    moved = target.diff(before, after)
    assert moved.distributions == {"hub": ("1", "2"), "pandas": ("1", "2"), "polars": ("", "1")}
    assert moved.facts == {}
    pack(tmp_path, "a", "timm")
    pack(tmp_path, "b", "torch")
    pack(tmp_path, "c", "pandas", "torch")
    found = {one.pack: one.moved for one in target.touched(tmp_path, moved, after)}
    assert found == {"a": ("hub",), "c": ("pandas",)}
    other = replace(after, python="3.13")
    moved = target.diff(before, other)
    assert moved.facts == {"python": ("3.12", "3.13")}
    assert {one.pack for one in target.touched(tmp_path, moved, other)} == {"a", "b", "c"}
    (tmp_path / "rolls" / "a" / "env" / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="no manifest"):
        target.touched(tmp_path, moved, other)
