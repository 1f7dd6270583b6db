"""Going on with a run: from the same recipe, data and code only, unless one insists."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from kagflow.errors import RefusedError
from kagflow.learn import checkpoint
from kagflow.learn.begin import begin, differences, resolve, resolved
from kagflow.learn.job import Job


class Notes:
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture
def own(tmp_path, plugins, monkeypatch):
    """Return the file of a model that only this test uses."""
    file = tmp_path / "begin_models.py"
    shutil.copy(plugins / "tiny_models.py", file)
    monkeypatch.syspath_prepend(str(tmp_path))
    return file


@pytest.fixture
def job(own, squares, spec, recipe, run_dir):
    model = {"target": "begin_models:TinyNet", "kwargs": {}}

    def make(*, force=False, **changes):
        return Job(run_dir, recipe(model=model, **changes), spec, squares, 0, force=force)

    return make


def test_differences_name_keys_and_both_values():
    before = {"recipe": {"lr": 1, "size": [2, 3], "same": 0}, "fold": 0}
    assert differences(before, before | {"recipe": before["recipe"] | {"size": (2, 3)}}) == []
    now = {"recipe": {"lr": 2, "size": [2, 3], "same": 0, "new": True}, "fold": 0}
    assert differences(before, now) == [
        "recipe.lr: 1 there, 2 now", "recipe.new: None there, True now",
    ]  # fmt: skip


def test_changed_code_is_refused_by_file_and_forced_on_record(job, own, run_dir):
    notes = Notes()
    assert begin(job(), "cpu", notes) is False
    assert begin(job(), "cpu", notes) is False
    own.write_text(own.read_text() + "\n# changed\n")
    with pytest.raises(RefusedError, match=r"code: [\w-]+/begin_models\.py") as caught:
        begin(job(), "cpu", notes)
    assert "--force-resume" in caught.value.hint
    assert "kagflow" not in caught.value.message.partition("code:")[2]
    assert notes.said == []
    begin(job(force=True), "cpu", notes)
    assert "begin_models.py" in notes.said[0]
    (forced,) = json.loads((run_dir / "provenance.json").read_text())["forced"]
    assert "begin_models.py" in forced["changes"][0]
    assert len(forced["code"]) == 64
    begin(job(), "cpu", notes)
    assert len(notes.said) == 1


def test_another_recipe_can_be_forced_and_is_on_record(job, run_dir):
    begin(job(), "cpu", Notes())
    with pytest.raises(RefusedError, match=r"recipe\.epochs: 3 there, 5 now"):
        begin(job(epochs=5), "cpu", Notes())
    begin(job(epochs=5, force=True), "cpu", Notes())
    (forced,) = json.loads((run_dir / "provenance.json").read_text())["forced"]
    assert forced["changes"] == ["recipe.epochs: 3 there, 5 now"]
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["recipe"]["epochs"] == 5


def test_a_finished_run_stays_and_says_that_its_code_has_changed(job, own, run_dir):
    begin(job(), "cpu", Notes())
    (run_dir / "run.json").write_text("{}")
    own.write_text(own.read_text() + "\n# changed\n")
    notes = Notes()
    assert begin(job(), "cpu", notes) is True
    assert "its code has changed" in notes.said[0]
    with pytest.raises(RefusedError) as caught:
        begin(job(epochs=9, force=True), "cpu", notes)
    assert "--force-resume" not in caught.value.hint


def test_checkpoints_whose_origin_is_lost_are_refused(job, run_dir):
    begin(job(), "cpu", Notes())
    checkpoint.save(run_dir, {}, step=3, epoch=1)
    (run_dir / "config.yaml").unlink()
    with pytest.raises(RefusedError, match=r"checkpoints but no config\.yaml"):
        begin(job(epochs=9), "cpu", Notes())
    notes = Notes()
    assert begin(job(epochs=9, force=True), "cpu", notes) is False
    assert "no config.yaml" in notes.said[0]
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["recipe"]["epochs"] == 9


def test_what_the_run_found_itself_is_no_difference(job, run_dir):
    begin(job(), "cpu", Notes())
    assert resolved(run_dir) == {}
    resolve(run_dir, {"batch": 2, "accumulate": 2})
    assert begin(job(), "cpu", Notes()) is False
    begin(job(epochs=5, force=True), "cpu", Notes())
    assert resolved(run_dir) == {"batch": 2, "accumulate": 2}
