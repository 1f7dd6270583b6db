"""What a run was made from."""

from __future__ import annotations

import shutil

from kagflow.learn.provenance import code_hash, collect


def test_the_recipes_own_code_counts(tmp_path, recipe, plugins, monkeypatch):
    ours = tmp_path / "own_models.py"
    shutil.copy(plugins / "tiny_models.py", ours)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = recipe(model={"target": "own_models:TinyNet", "kwargs": {}})
    before = code_hash(made)
    assert code_hash(made) == before
    ours.write_text(ours.read_text() + "\n# changed\n")
    assert code_hash(made) != before


def test_what_is_collected(recipe):
    found = collect(recipe(), data="abc", device="cpu")
    assert found["data"] == "abc"
    assert (found["seed"], found["device"]) == (0, "cpu")
    assert {"numpy", "torch", "timm"} <= set(found["packages"])
    assert found["git"] is None or len(found["git"]) == 40
