import pytest
import torch

from kagflow.errors import UsageError
from kagflow.infer.forward import forward


def test_folds_are_averaged_as_probabilities(plugins):
    two = [plugins.Bright(1, gain=4.0), plugins.Bright(1, gain=40.0)]
    image = torch.full((1, 1, 32, 32), 0.6)
    got = forward(two, image, "mask", ["none"])
    wanted = torch.tensor([0.4, 4.0]).sigmoid().mean()
    torch.testing.assert_close(got, torch.full((1, 1, 32, 32), float(wanted)))
    assert got.dtype == torch.float32


def test_views_are_flipped_back(plugins):
    image = torch.rand(2, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    model = plugins.Bright(2)
    plain = forward([model], image, "mask", ["none"])
    for view in ("hflip", "vflip", "hvflip"):
        # An elementwise model is equivariant: every view gives the plain answer.
        torch.testing.assert_close(forward([model], image, "mask", [view]), plain)


def test_hflip_mean_is_symmetric_even_where_the_model_is_not(plugins):
    model = plugins.Ramp(1)
    image = torch.rand(1, 1, 32, 32)
    got = forward([model], image, "mask", ["none", "hflip"])
    column = (torch.arange(32.0) * 0.25).sigmoid()
    torch.testing.assert_close(got[0, 0, 0], (column + column.flip(0)) / 2)
    torch.testing.assert_close(got, got.flip(3))


def test_flipping_the_input_flips_the_answer_for_odd_sizes_too(plugins):
    model = plugins.Ramp(1)
    image = torch.rand(1, 1, 20, 45)
    straight = forward([model], image, "mask", ["none", "hflip"])
    flipped = forward([model], image.flip(3), "mask", ["none", "hflip"])
    torch.testing.assert_close(flipped.flip(3), straight)


def test_labels_are_not_flipped(plugins):
    image = torch.rand(3, 1, 32, 32)
    one = forward([plugins.MeanLabel(4)], image, "label", ["none"])
    both = forward([plugins.MeanLabel(4)], image, "label", ["none", "hflip", "vflip"])
    assert one.shape == (3, 4)
    torch.testing.assert_close(one, both)


def test_small_maps_are_brought_to_the_input_size(plugins):
    image = torch.zeros(1, 1, 40, 40)
    image[..., :20] = 1
    got = forward([plugins.HalfMap(1)], image, "mask", ["none"])
    assert got.shape == (1, 1, 40, 40)
    assert got[..., :18].min() > 0.9
    assert got[..., 22:].max() < 0.1


def test_nothing_to_run_is_said(plugins):
    with pytest.raises(UsageError, match="nothing to run"):
        forward([], torch.zeros(1, 1, 32, 32), "mask", ["none"])


def test_mixed_precision_stays_near(plugins):
    conv = torch.nn.Conv2d(1, 2, 3, padding=1).eval()
    image = torch.rand(1, 1, 32, 32)
    full = forward([conv], image, "mask", ["none"], precision="fp32")
    half = forward([conv], image, "mask", ["none"], precision="bf16")
    assert half.dtype == torch.float32
    assert 0 < float((full - half).abs().max()) < 0.01
