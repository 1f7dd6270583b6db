"""The loop beside a bare one on a GPU: the figures come out, and both arms train alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_both_arms_run_and_train_alike(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    import train_gpu

    for case in train_gpu.cases(steps=8):
        assert "images/s" in train_gpu.measure(case, 2)
