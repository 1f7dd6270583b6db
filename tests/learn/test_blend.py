from __future__ import annotations

import numpy as np
import pytest
import torch

from kagflow.infer.engine import Settings, load_member, predict, predict_probs
from kagflow.infer.export import save_weights
from kagflow.infer.members import Member
from kagflow.infer.models import build_model
from kagflow.infer.postprocess import ClassRule
from kagflow.learn.blend import Blend
from kagflow.learn.oof import OofReader, OofWriter
from kagflow.task.spec import TaskSpec


def test_counts_are_in_lowest_terms_so_that_equal_blends_are_one():
    assert Blend((2, 4, 0)) == Blend((1, 2, 0)) == Blend.of([1, 0, 1], 3)
    assert Blend((1, 2, 0)) != Blend((1, 2, 0), logits=True)
    blend = Blend((1, 3, 0))
    assert (blend.members, blend.weights) == ((0, 1), (0.25, 0.75, 0))
    assert blend.without(1) == Blend((1, 0, 0))


def test_means_are_weighted_and_leave_out_what_does_not_count():
    rng = np.random.default_rng(0)
    maps = [rng.uniform(0.05, 0.95, (2, 3)).astype(np.float32) for _ in range(2)]
    assert Blend((1, 3, 0)).mean([*maps, None]) == pytest.approx(maps[0] / 4 + maps[1] * 3 / 4)
    odds = np.log(maps[0] / (1 - maps[0])) / 4 + np.log(maps[1] / (1 - maps[1])) * 3 / 4
    wanted = 1 / (1 + np.exp(-odds))
    assert Blend((1, 3, 0), logits=True).mean([*maps, None]) == pytest.approx(wanted, abs=1e-4)
    one = Blend((0, 5))
    assert np.array_equal(one.mean([None, maps[1]]), maps[1])


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_the_kernel_averages_what_was_blended(plugins, tmp_path, mean):
    """Two random networks of unequal working size, kept in stores and blended, or run together."""
    model = {"target": "tiny_models:TinyNet", "kwargs": {}}
    grey = {"target": "grey", "kwargs": {}}
    rng, spec = np.random.default_rng(0), TaskSpec("s", "segmentation", ("1", "2"))
    files = [(f"{n}.png", rng.integers(0, 256, (32, 48), np.uint8)) for n in range(3)]
    members, stores = [], []
    for number, (size, weight) in enumerate(((None, 0.25), ((48, 64), 0.75))):
        torch.manual_seed(number)
        path = tmp_path / f"{number}.safetensors"
        save_weights(build_model(model, classes=2), path)
        tta = ("none", "hflip")
        one = Member(str(number), "mask", model, grey, size, (path,), weight, tta, mean=mean)
        with OofWriter(tmp_path / f"oof{number}", "mask", 2) as store:
            for found in predict_probs(one, load_member(one, 2, "cpu"), files):
                store.add(found.image_id, found.probs, *found.size)
        members.append(one)
        stores.append(OofReader(tmp_path / f"oof{number}"))
    blend = Blend((1, 3), logits=mean == "logits")
    rules = [ClassRule()] * 2
    for one in predict(members, rules, spec, files, settings=Settings(keep_probs=True)):
        wanted = blend.mean([store.mask(one.image_id) for store in stores])
        assert np.ptp(wanted) > 0.05
        # The store keeps steps of 1/255.
        np.testing.assert_allclose(one.masks, wanted, atol=0.004)
