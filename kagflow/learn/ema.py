"""The moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """Average weights and buffers with decay min(decay, (1 + t) / (10 + t)).

    The warm-up is timm's ModelEmaV3: a short run is not held at its random start. torch's own
    update walks through both models' modules at every step, which costs a small one more than the
    arithmetic; here the tensors are listed once. Counters are taken as they are.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay
        self._of: tuple[nn.Module, ...] = ()
        self._floats: list[tuple[Tensor, Tensor]] = []
        self._others: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights of `model` in."""
        if model not in self._of:
            self._list(model)
        seen = float(self.n_averaged)
        decay = min(self._decay, (1 + seen) / (10 + seen)) if seen else 0.0
        if self._floats:
            averaged, current = (list(each) for each in zip(*self._floats, strict=True))
            if seen:
                torch._foreach_lerp_(averaged, current, 1 - decay)
            else:
                torch._foreach_copy_(averaged, current)
        for mine, its in self._others:
            mine.copy_(its)
        self.n_averaged += 1

    def _list(self, model: nn.Module) -> None:
        mine = [*self.module.parameters(), *self.module.buffers()]
        its = [*model.parameters(), *model.buffers()]
        pairs = [(one.detach(), other.detach()) for one, other in zip(mine, its, strict=True)]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]
        # In a tuple, or the model would become a part of its own average.
        self._of = (model,)


def build_ema(model: nn.Module, decay: float) -> MovingAverage | None:
    """Return the moving average of a model's weights; None for decay 0."""
    return MovingAverage(model, decay) if decay else None
