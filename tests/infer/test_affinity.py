"""The affinity head: its formula, its seams in smp and timm, its way to the kernel."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from kagflow.errors import UsageError
from kagflow.infer.affinity import Affinity
from kagflow.infer.export import export_fp16, load_weights, save_weights
from kagflow.infer.models import build_model, outputs


def affinities(features, centres, sigma):
    """Compute d as the paper writes it: (N, D) and (K, M, D) -> (N, K)."""
    found = np.zeros((len(features), len(centres)))
    for n, feature in enumerate(features):
        unit = feature / np.linalg.norm(feature)
        for k, own in enumerate(centres):
            found[n, k] = max(math.exp(-((unit - w) ** 2).sum() / sigma) for w in own)
    return found


@pytest.mark.parametrize("shape", [(5, 6), (2, 6, 3, 4)])
def test_probabilities_are_the_papers_affinities(shape):
    torch.manual_seed(0)
    head = Affinity(6, 3, centres=2, sigma=0.7).double()
    with torch.no_grad():
        head.points.mul_(1.3).add_(0.1)
    features = torch.randn(shape, dtype=torch.double)
    found = torch.sigmoid(head(features)).detach()
    flat = features.movedim(1, -1).reshape(-1, 6).numpy()
    expected = affinities(flat, head.points.detach().reshape(3, 2, 6).numpy(), 0.7)
    assert np.allclose(found.movedim(1, -1).reshape(-1, 3).numpy(), expected, atol=1e-12)


def test_the_ball_of_a_class_ends_where_p_is_a_half():
    head = Affinity(2, 1, sigma=1.0)
    with torch.no_grad():
        head.points.copy_(torch.tensor([[1.0, 0.0]]))
    # |f - w|^2 = 2 - 2 cos, so p = .5 at cos = 1 - ln 2 / 2.
    edge = math.acos(1 - math.log(2) / 2)
    for angle, inside in ((edge - 0.01, True), (edge + 0.01, False)):
        logit = head(5 * torch.tensor([[math.cos(angle), math.sin(angle)]]))
        assert (logit.item() > 0) == inside


def test_every_class_starts_at_the_same_low_probability():
    torch.manual_seed(0)
    head = Affinity(64, 4)
    gram = head.points @ head.points.T
    assert torch.allclose(gram, torch.eye(4), atol=1e-5)
    # Right angles give exp(-2); random features in 64 dimensions are nearly at right angles.
    found = torch.sigmoid(head(torch.randn(500, 64))).mean().item()
    assert found == pytest.approx(math.exp(-2), rel=0.1)


def test_logits_and_gradients_are_finite_everywhere():
    head = Affinity(8, 3, sigma=0.1)
    for kind in (torch.float16, torch.bfloat16, torch.float32):
        on, far, none = head.points.detach(), -head.points.detach() * 6e4, torch.zeros(1, 8)
        features = torch.cat([on, far, none]).to(kind).requires_grad_()
        logits = head(features)
        assert logits.dtype == torch.float32
        slopes = torch.autograd.grad(logits.sum(), [features, head.points])
        assert all(slope.isfinite().all() for slope in slopes)
        assert logits.isfinite().all()


def test_gradients_are_those_of_the_logits():
    torch.manual_seed(0)
    head = Affinity(4, 2, centres=2).double()
    features = torch.randn(3, 4, 2, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(head, (features,))


def test_autocast_does_not_narrow_it():
    head, features = Affinity(8, 3), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(features)
    assert torch.equal(inside, head(features))


SMP = {"arch": "Unet", "encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}


def test_an_smp_model_returns_logits_and_centres():
    kwargs = {**SMP, "label_head": True, "affinity": {"features": 8, "centres": 2}}
    model = build_model({"target": "smp", "kwargs": kwargs}, classes=3).eval()
    with torch.no_grad():
        found = model(torch.rand(2, 1, 40, 50))
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    assert shapes == {
        "mask": (2, 3, 40, 50),
        "label": (2, 3),
        "mask_centres": (6, 8),
        "label_centres": (6, 8),
    }


def test_a_timm_classifier_returns_logits_and_centres():
    kwargs = {"name": "resnet18", "affinity": True}
    model = build_model({"target": "timm", "kwargs": kwargs}, classes=3).eval()
    found = model(torch.rand(2, 1, 32, 32))
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    assert shapes == {"label": (2, 3), "label_centres": (3, 32)}
    # The optimiser takes what lies in the classifier for head, the rest for encoder.
    assert model.get_classifier()[1].points is found["label_centres"]


def test_a_copy_keeps_its_own_centres():
    model = build_model({"target": "smp", "kwargs": {**SMP, "affinity": True}}, classes=2)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.segmentation_head[0][1].points.zero_()
    assert not twin(torch.rand(1, 1, 32, 32))["mask_centres"].any()
    assert model(torch.rand(1, 1, 32, 32))["mask_centres"].any()


def test_the_centres_travel_with_the_weights(tmp_path):
    spec = {"target": "smp", "kwargs": {**SMP, "affinity": True}}
    torch.manual_seed(0)
    trained, blank = (build_model(spec, classes=2).eval() for _ in range(2))
    save_weights(trained, tmp_path / "a.safetensors")
    export_fp16(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    load_weights(blank, tmp_path / "b.safetensors")
    batch = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        expected, found = (outputs(m(batch), "mask").sigmoid() for m in (trained, blank))
    assert torch.allclose(expected, found, atol=5e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"centers": 2}, "centers"), ({"sigma": 0}, "sigma"), ({"features": 0}, "features")],
)
def test_faults_are_named(options, said):
    with pytest.raises(UsageError, match=said):
        build_model({"target": "smp", "kwargs": {**SMP, "affinity": options}}, classes=2)
