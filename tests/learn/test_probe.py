"""The glance at held-out images: a score that follows training, Dice by class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kagflow.learn import probe
from kagflow.learn.dataset import to_channels
from kagflow.learn.job import Job, read_fold
from kagflow.learn.probe import Probe
from kagflow.progress import QUIET


class Constant(nn.Module):
    """Predict the first class everywhere and the second nowhere."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        ones = torch.ones_like(batch)
        return torch.cat([9 * ones, -9 * ones], dim=1)


def test_dice_by_class_counts_all_pixels_that_were_seen(squares, spec, recipe, run_dir):
    job = Job(run_dir, recipe(), spec, squares, 0, "cpu")
    data = read_fold(job, QUIET)
    seen = Probe.choose(data, job.member, spec, "cpu")
    told = seen.look(Constant())
    cache, rows = data.cache, seen.rows
    true = sum(int(to_channels(cache.mask(row), 2)[0].sum()) for row in rows)
    assert told["val_dice"] == [pytest.approx(2 * true / (true + len(rows) * 64 * 64)), 0.0]
    assert 0 < told["val_score"] < 1


def test_dice_of_what_is_neither_true_nor_predicted_is_unknown():
    assert probe._pooled([0, 3], [0, 4], [0, 5]) == [None, pytest.approx(6 / 9)]
