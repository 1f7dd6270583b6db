"""The file of what was measured on Kaggle's machines."""

from __future__ import annotations

import pytest

from kagflow.errors import DataError
from kagflow.ship import costs
from kagflow.task.costs import Costs, Pair, Turn

TOOK = Costs(
    machine="2 x Tesla T4", lanes=2, members=(Turn("unet", "k", 0.1),), gated=9, passed=4,
    decode=0.01, finish=0.02, rest=0.0, parity=1.0, parity_images=8, images=16, total=40.0,
)  # fmt: skip


def test_a_measurement_comes_back_and_a_later_one_of_the_same_version_replaces_it(tmp_path):
    assert costs.read(tmp_path / "none") == []
    first = Pair("NvidiaTeslaT4", "2026-01-01", "kernel", "me/k/v1", TOOK, TOOK)
    cpu = Pair("None", "2026-01-02", "kernel", "me/k/v2", TOOK, TOOK)
    for one in (first, cpu, first):
        costs.note(tmp_path / "client", one)
    assert costs.read(tmp_path / "client") == [cpu, first]
    assert costs.read(tmp_path / "client", "NvidiaTeslaT4") == [first]


@pytest.mark.parametrize("text", ["{", "{}", '{"measured": [{"there": {}}]}', '{"measured": [1]}'])
def test_a_damaged_file_says_so(tmp_path, text):
    (tmp_path / costs.FILE).write_text(text)
    with pytest.raises(DataError, match=r"costs.json can't be read"):
        costs.read(tmp_path)
