"""TensorBoard's files say what metrics.jsonl says, after a resume too."""

from __future__ import annotations

import sys

import pytest

from kagflow.errors import UsageError
from kagflow.learn.events import Events, scalars

LINE = {"epoch": 0, "step": 10, "loss": 0.5, "val_score": 0.9, "val_dice": [0.25, None]}


def read(folder):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = loader.EventAccumulator(str(folder))
    found.Reload()
    return {
        name: [(event.step, pytest.approx(event.value)) for event in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def test_figures_by_name_and_class():
    assert scalars(LINE, ("rust", "dent")) == {
        "epoch": 0.0, "loss": 0.5, "val_score": 0.9, "val_dice/rust": 0.25,
    }  # fmt: skip


def test_an_epoch_that_a_resume_tells_again_counts_once(tmp_path):
    pytest.importorskip("tensorboard")
    for losses in ((0.5, 0.4), (0.3, 0.2)):
        events = Events(tmp_path, ("rust", "dent"))
        # The second run goes on from step 10: it tells of step 20 again, then of 30.
        first = 10 if losses[0] == 0.5 else 20
        for at, loss in enumerate(losses):
            events(LINE | {"step": first + 10 * at, "loss": loss})
        events.close()
    seen = read(tmp_path / "tensorboard")
    assert seen["loss"] == [(10, 0.5), (20, 0.3), (30, 0.2)]
    assert seen["val_dice/rust"] == [(10, 0.25), (20, 0.25), (30, 0.25)]


def test_without_the_package_the_error_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="needs the package tensorboard") as caught:
        Events(tmp_path, ())
    assert "pip install 'kagflow[tensorboard]'" in caught.value.hint
