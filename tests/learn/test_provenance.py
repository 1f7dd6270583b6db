"""What a run was made from."""

from __future__ import annotations

import pytest

from kagflow.learn.provenance import code_files, collect, digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a package of models that import each other, beside one that nothing names."""
    folder = tmp_path / "steelworks"
    (folder / "nets").mkdir(parents=True)
    for name in ("__init__", "nets/__init__", "unused", "nets/deep", "shared", "stages"):
        (folder / f"{name}.py").write_text("X = 1\n")
    (folder / "nets" / "wide.py").write_text("from ..shared import X\nfrom . import deep\n")
    (folder / "shared.py").write_text("import torch\nfrom steelworks import stages\nX = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_plug_in_counts_with_all_that_it_imports_from_its_package(package, recipe):
    loss = {"target": "sum", "kwargs": {"terms": [{"target": "steelworks.nets.wide:Loss"}]}}
    found = code_files(recipe(loss=loss))
    own = {name for name in found if not name.startswith("kagflow/")}
    assert own == {
        "steelworks/__init__.py", "steelworks/nets/__init__.py", "steelworks/nets/wide.py",
        "steelworks/nets/deep.py", "steelworks/shared.py", "steelworks/stages.py",
        "plugins/tiny_models.py",
    }  # fmt: skip
    assert {"kagflow/learn/loop.py", "kagflow/infer/engine.py", "kagflow/task/rle.py"} <= set(found)
    (package / "stages.py").write_text("X = 3\n")
    after = code_files(recipe(loss=loss))
    assert {name for name in found if found[name] != after[name]} == {"steelworks/stages.py"}
    assert digest(found) != digest(after)


def test_installed_packages_do_not_count_file_by_file(recipe):
    optimiser = recipe()["optimiser"] | {"target": "torch.optim:Adam"}
    assert code_files(recipe(optimiser=optimiser)) == code_files(recipe())


def test_what_is_collected(recipe):
    found = collect(recipe(), data="abc", device="cpu")
    assert found["data"] == "abc"
    assert (found["seed"], found["device"]) == (0, "cpu")
    assert {"numpy", "torch", "timm"} <= set(found["packages"])
    assert found["git"] is None or len(found["git"]) == 40
