"""A weighted sum of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kagflow.errors import UsageError
from kagflow.learn.losses import LOSSES, Loss, Tensors
from kagflow.resolve import build

_KEYS = ("target", "weight", "kwargs")


class WeightedSum(nn.Module):
    """Add losses: `terms` is a list of `{target, weight: 1.0, kwargs: {}}`.

    A term may be any loss, the user's own too; the parameters of those that have some are the
    sum's. Raises UsageError that names the term which is no loss.
    """

    def __init__(self, *, terms: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        if not terms:
            raise UsageError("sum: no terms", hint="terms: [{target: bce}, {target: dice}]")
        parts = [_part(number, term) for number, term in enumerate(terms, 1)]
        self.weights = [weight for weight, _ in parts]
        self.losses: list[Loss] = [loss for _, loss in parts]
        self.learned = nn.ModuleList(loss for loss in self.losses if isinstance(loss, nn.Module))

    def forward(self, outputs: Tensors, target: Tensors) -> Tensor:
        """Return the sum, a scalar."""
        terms = zip(self.weights, self.losses, strict=True)
        return torch.stack([weight * loss(outputs, target) for weight, loss in terms]).sum()


def _part(number: int, term: Any) -> tuple[float, Loss]:
    strange = sorted(set(term) - set(_KEYS)) if isinstance(term, Mapping) else [term]
    if strange or "target" not in term:
        what = f"takes no {strange[0]!r}" if strange else "has no target"
        raise UsageError(
            f"sum: term {number} {what}", hint="a term is {target: bce, weight: 1.0, kwargs: {}}"
        )
    weight = term.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise UsageError(f"sum: term {number}: weight is {weight!r}", hint="a weight is a number")
    try:
        return float(weight), build(term, LOSSES)
    except UsageError as error:
        raise UsageError(f"sum: term {number}: {error}", hint=error.hint) from None
