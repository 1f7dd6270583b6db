"""Another back end runs a member where it pays; whatever fails, torch is there."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from kagflow.infer import backend as backends
from kagflow.infer import kernel, parity
from kagflow.infer.backend import Backend, Exported
from kagflow.infer.engine import Settings, predict
from kagflow.infer.forward import forward
from kagflow.infer.postprocess import ClassRule
from kagflow.task.spec import TaskSpec

SAMPLE = np.random.default_rng(0).integers(0, 255, (64, 96)).astype(np.uint8)


class Clock:
    """A clock that the modules move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Takes(nn.Module):
    """A module that takes so many seconds on a clock."""

    def __init__(self, module, clock, seconds):
        super().__init__()
        self.module, self.clock, self.seconds = module, clock, seconds

    def forward(self, batch):
        self.clock.now += self.seconds
        return self.module(batch)


class Session:
    """Stands for ONNX Runtime: the module's own logits, so many seconds later, changed or not."""

    def __init__(self, module, clock, seconds=0.0, shift=0.0, fails_after=10**9, most=8):
        self.module, self.clock, self.seconds = module, clock, seconds
        self.shift, self.left, self.most = shift, fails_after, most

    def run(self, _, given):
        self.left -= 1
        if self.left < 0 or len(given["batch"]) > self.most:
            raise RuntimeError("out of luck")
        self.clock.now += self.seconds
        return [self.module.module(torch.from_numpy(given["batch"])).numpy() + self.shift]


@pytest.fixture
def world(member, monkeypatch):
    """Return a function that chooses between torch, one second a forward, and a session."""
    from kagflow.infer.members import load_member

    one = member("Bright", tta=("none", "hflip"))
    (plain,) = load_member(one, 2, "cpu")

    def choose(*, images=1000, setup=30.0, forced=False, error=None, **session):
        clock, said = Clock(), []
        module = Takes(plain, clock, 1.0)

        def made(*_):
            clock.now += setup
            if error:
                raise error
            return Session(module, clock, **session)

        monkeypatch.setattr(backends, "session_of", made)
        backend = Backend(SAMPLE, images, forced=forced, say=said.append, clock=clock)
        chosen = backend.choose(one, [module])
        return chosen[0], module, said[-1]

    return choose


def test_a_faster_one_is_chosen_where_its_setting_up_pays(world):
    chosen, _, said = world(seconds=0.5)
    assert isinstance(chosen, Exported)
    assert "onnxruntime, 2.00 times as fast" in said
    assert "1000 ms" in said


def test_it_is_not_even_set_up_for_few_images(world):
    # 40 images in 2 views of 1 s each: a fifth saved is 16 s, less than setting up.
    chosen, module, said = world(images=40, seconds=0.01)
    assert chosen is module
    assert "set-up do not pay" in said
    chosen, _, _ = world(images=60, seconds=0.01)
    assert isinstance(chosen, Exported)


def test_a_slower_one_is_dropped_unless_it_is_asked_for_by_name(world):
    chosen, module, said = world(seconds=0.99)
    assert chosen is module
    assert "torch" in said
    chosen, _, _ = world(seconds=0.99, forced=True)
    assert isinstance(chosen, Exported)


@pytest.mark.parametrize("fault", ["wheel", "values", "nan", "a batch"])
def test_torch_runs_what_fails_or_says_other_things(world, fault):
    if fault == "wheel":
        chosen, module, said = world(error=ImportError("No module named 'onnxruntime'"))
    elif fault == "a batch":
        chosen, module, said = world(most=1)
    else:
        chosen, module, said = world(shift=1.0 if fault == "values" else float("nan"))
    assert chosen is module
    assert "torch, since onnxruntime failed" in said


def test_a_session_that_fails_later_gives_way_to_torch(world):
    # One call to compare, and three to time.
    chosen, module, _ = world(seconds=0.5, fails_after=4)
    batch = torch.rand(2, 1, 64, 96)
    with torch.inference_mode():
        assert torch.equal(chosen(batch), module(batch))
        assert torch.equal(chosen(batch[..., :32]), module(batch[..., :32]))


def test_setting_up_costs_what_it_took_the_last_time(world, monkeypatch):
    clock = Clock()
    backend = Backend(SAMPLE, 100, clock=clock, setups=[3600.0])
    chosen, module, _ = world(images=60, seconds=0.01)
    assert isinstance(chosen, Exported)
    from kagflow.infer.members import Member

    one = Member("one", "mask", {}, {"target": "grey", "kwargs": {}}, None, ())
    monkeypatch.setattr(backends, "session_of", lambda *_: pytest.fail("set up"))
    assert backend.choose(one, [Takes(module, clock, 1.0)])[0] is not chosen


def test_real_sessions_say_what_torch_says(tmp_path):
    pytest.importorskip("onnxruntime")
    from kagflow.infer.export import save_weights
    from kagflow.infer.members import Member, load_member
    from kagflow.infer.models import build_model

    spec = {"target": "smp", "kwargs": {"arch": "FPN", "encoder": "tu-mobilenetv3_small_050"}}
    spec["kwargs"]["label_head"] = True
    torch.manual_seed(0)
    save_weights(build_model(spec, classes=2), tmp_path / "one.safetensors")
    grey = {"target": "grey", "kwargs": {}}
    one = Member("one", "mask", spec, grey, None, (tmp_path / "one.safetensors",))
    modules, said = load_member(one, 2, "cpu"), []
    (chosen,) = Backend(SAMPLE, 1, forced=True, say=said.append).choose(one, modules)
    assert isinstance(chosen, Exported), said
    assert not any(each.training for each in modules[0].modules())
    for count, width in ((1, 96), (3, 96), (2, 64)):
        batch = torch.rand(count, 1, 64, width)
        mine = forward([chosen], batch, "mask", ("none", "hflip"))
        theirs = forward(modules, batch, "mask", ("none", "hflip"))
        assert mine.shape == theirs.shape
        assert float((mine - theirs).abs().max()) < 1e-4
    files = [(str(at), SAMPLE) for at in range(3)]
    task = TaskSpec("tiny", "segmentation", ("a", "b"), height=64, width=96)
    rules = [ClassRule(threshold=0.4)] * 2
    settings = Settings(backend=Backend(SAMPLE, 1, forced=True), keep_probs=True)
    with_it = list(predict([one], rules, task, files, settings=settings))
    without = list(predict([one], rules, task, files, settings=Settings(keep_probs=True)))
    for mine, theirs in zip(with_it, without, strict=True):
        assert np.abs(mine.masks - theirs.masks).max() < 1e-4


@pytest.mark.parametrize("wanted", ["onnxruntime", "auto", "torch"])
def test_a_kernel_says_what_ran_its_members(wanted, pack, member, competition, tmp_path):
    pytest.importorskip("onnxruntime")
    folder, _ = competition
    packed = pack(member("Bright"), backend=wanted)
    parity.store(packed / parity.FILE, [SAMPLE[:20, :40]], {})
    (tmp_path / "out").mkdir()
    kernel.main(packed, folder, tmp_path / "out", rerun=False)
    report = json.loads((tmp_path / "out" / kernel.REPORT).read_text())
    assert report["nonempty"] == 12
    said = {"onnxruntime": "Bright: onnxruntime", "auto": "Bright: torch, as 20 s of set-up"}
    if wanted == "torch":
        assert report["backend"] == []
    else:
        (told,) = report["backend"]
        assert told.startswith(said[wanted])
