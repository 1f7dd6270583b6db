"""Every fault of a recipe, without data: names, arguments, and parts that do not build."""

from __future__ import annotations

import importlib
import sys

import pytest

from kagflow.config import Recipe
from kagflow.learn.check import metric_faults, recipe_faults, target_faults
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("squares", "segmentation", ("1", "2"))
PLUGIN = """
import albumentations
from torch import nn

def net(*, classes, width=8):
    return nn.Conv2d(1, classes, 3, padding=1)

def weighted(*, classes, encoder_weights=None):
    return nn.Conv2d(1, classes, 3)

def forgets(*, classes):
    nn.Conv2d(1, classes, 3)

def deaf(width=8):
    return nn.Conv2d(1, width, 3)

def unused():
    return albumentations.Compose([albumentations.RandomBrightnessContrast(foo=1)])

def no_compose():
    return lambda image, mask: image

def half(image):
    return image

def make_half():
    return half

class Loss(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = 1 / scale

    def forward(self, outputs):
        return outputs

class Drawer:
    centred = 0.5

def references(images, keep=3): ...

def one_score(both, predicted, true):
    return (2 * both / (predicted + true + 1)).mean()

def draw(out, *, seed): ...
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(PLUGIN)
    (tmp_path / "wrong.py").write_text("import os\nfrom theirs import nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    for name in ("theirs", "wrong"):
        sys.modules.pop(name, None)


def faults(**changes):
    whole = {"model": {"target": "theirs:net"}} | changes
    recipe = Recipe.model_validate(whole).model_dump(mode="json")
    return [(one.key, one.what, one.mend) for one in recipe_faults(recipe, SPEC)]


def target(named, /, **kwargs):
    return {"target": named, "kwargs": kwargs}


def test_a_sound_recipe_has_none(theirs):
    assert faults() == []
    assert faults(model=target("smp", arch="FPN", encoder="resnet18")) == []


@pytest.mark.parametrize(
    ("key", "spec", "where", "what", "mend"),
    [
        ("model", target("smp", arch="Unett"), "model.kwargs.arch", "no architecture", "Unet"),
        ("model", target("smp", encoder="resnt34"), "model.kwargs.encoder", "resnt34", "resnet34"),
        ("model", target("smp", encoder="tu-resnt18"), "model.kwargs.encoder", "resnt18", "tu-res"),
        ("model", target("smp", decodr=1), "model.kwargs.decodr", "takes no 'decodr'", "decoder"),
        ("model", target("smp", encoder="tu-resnet18", decoder_chanels=1),
         "model.kwargs.decoder_chanels", "takes no", "decoder_channels"),
        ("model", target("smp", decoder_channels=[1]), "model", "smp Unet with encoder", "takes"),
        ("model", target("smpp"), "model.target", "unknown name 'smpp'", "smp"),
        ("model", target("theirs:nett"), "model.target", "has no 'nett'", "'net'"),
        ("model", target("theirs:net", widht=3), "model.kwargs.widht", "takes no", "'width'"),
        ("model", target("theirs:net", classes=3), "model.kwargs.classes", "itself", "leave"),
        ("model", target("theirs:deaf"), "model.target", "no 'classes', which kagflow", "add"),
        ("model", target("theirs:forgets"), "model", "returned a NoneType", "torch.nn.Module"),
        ("input", target("gray"), "input.target", "unknown name 'gray'", "grey"),
        ("input", target("theirs:make_half"), "input", "takes no (image, metadata)", "called with"),
        ("loss", target("bce", positiv=2), "loss.kwargs.positiv", "takes no", "'positive'"),
        ("loss", target("bce", smoothing=3), "loss", "smoothing is 3", "from 0 to 1"),
        ("loss", target("theirs:Loss"), "loss", "takes no (outputs, target)", "called with"),
        ("sampler", target("hard"), "sampler.kwargs", "needs 'run'", "{run: ...}"),
        ("sampler", target("balanced", end=7), "sampler", "end is 7", "from 0 to 1"),
        ("sampler", target("theirs:Drawer"), "sampler", "without draw()", "Sampler"),
        ("augment", target("theirs:unused"), "augment", "'foo' are not valid", "arguments"),
        ("augment", target("theirs:no_compose"), "augment", "returned a function", "Compose"),
        ("optimiser", target("sgd", momentun=0.9), "optimiser.kwargs.momentun", "no", "momentum"),
        ("optimiser", target("sgd", momentum=-1), "optimiser", "raised ValueError", "mend"),
        ("schedule", target("cosine", warmupp=1), "schedule.kwargs.warmupp", "no", "'warmup'"),
        ("assets", {"a b": target("theirs:references")}, "assets.a b", "file's name", "letters"),
        ("assets", {"a": target("theirs:references", kep=1)}, "assets.a.kwargs.kep", "no", "keep"),
        ("weights", "lost.safetensors", "weights", "no file", "path"),
        ("weights", "imagenet", "weights", "takes no encoder_weights", "weights: none"),
    ],
)  # fmt: skip
def test_one_fault_is_one_line_with_its_key_and_mend(theirs, key, spec, where, what, mend):
    (found,) = faults(**{key: spec})
    assert found[0] == where
    assert what in found[1]
    assert mend in found[2]


def test_imagenet_is_no_fault_where_the_model_takes_it_and_no_hub_is_asked(theirs):
    assert faults(model=target("theirs:weighted"), weights="imagenet") == []


def test_all_faults_are_told_at_once(theirs):
    found = faults(
        model=target("smp", arch="Unett", encoder="resnt34"),
        loss=target("sum", terms=[target("bce", positiv=2), target("dise"), target("dice")]),
        sampler=target("balanced", strt=1),
        optimiser=target("adamw", bets=1),
        assets={"r": target("theirs:references", kep=1)},
    )
    assert [key for key, _, _ in found] == [
        "model.kwargs.arch", "model.kwargs.encoder",
        "loss.kwargs.terms.0.kwargs.positiv", "loss.kwargs.terms.1.target",
        "sampler.kwargs.strt", "optimiser.kwargs.bets", "assets.r.kwargs.kep",
    ]  # fmt: skip


def test_an_error_inside_their_file_comes_with_their_lines(theirs):
    recipe = Recipe.model_validate(
        {"model": target("wrong:Net"), "loss": target("theirs:Loss", scale=0)}
    )
    first, second = recipe_faults(recipe.model_dump(mode="json"), SPEC)
    assert first.key == "model.target"
    assert "cannot import name 'nothing'" in first.what
    assert first.trace[0].strip() == f'File "{theirs}/wrong.py", line 2, in <module>'
    assert second.what == "'theirs:Loss' raised ZeroDivisionError: division by zero"
    assert "self.scale = 1 / scale" in second.trace[1]
    assert not any("kagflow/" in line for line in second.trace)


def test_what_is_predicted_fits_competition_and_model(theirs):
    gate = {"model": target("timm", name="resnet18"), "loss": target("bce")}
    assert faults(**gate, predicts="label") == []
    assert [key for key, _, _ in faults(**gate)] == ["predicts"]
    assert "label_head" in faults(model=target("smp"), predicts="label")[0][2]
    spec = TaskSpec("squares", "classification", ("1", "2"))
    recipe = Recipe.model_validate({"model": target("theirs:net")}).model_dump(mode="json")
    assert [one.key for one in recipe_faults(recipe, spec)] == ["predicts"]


def test_a_metric_is_tried_on_nothing(theirs):
    assert metric_faults(SPEC) == []
    wrong = TaskSpec("squares", "segmentation", ("1", "2"), metric="theirs:one_score")
    assert "returned shape ()" in metric_faults(wrong)[0].what
    lost = TaskSpec("squares", "segmentation", ("1", "2"), metric="dise")
    assert metric_faults(lost)[0].mend.startswith("did you mean 'dice'?")


def test_a_competitions_own_target(theirs):
    (fault,) = target_faults("mini.generate", "theirs:draw", ("out", "seed", "progress"))
    assert (fault.key, "'progress', which kagflow gives" in fault.what) == ("mini.generate", True)
