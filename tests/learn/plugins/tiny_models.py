"""Models of a few hundred weights, found by recipes as the user's own would be."""

from __future__ import annotations

import torch
from torch import nn


class TinyNet(nn.Module):
    """Two convolutions; dropout and batch norm make a resume that forgets a generator show."""

    def __init__(self, classes: int, predicts: str = "mask", dropout: float = 0.1) -> None:
        super().__init__()
        self.predicts = predicts
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Conv2d(8, classes, 3, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        logits = self.head(self.encoder(batch))
        return logits if self.predicts == "mask" else {"label": logits.amax(dim=(2, 3))}


class Unbiased(TinyNet):
    """Has no bias before batch norm: its gradient is rounding alone, which Adam makes steps of."""

    def __init__(self, classes: int, dropout: float = 0.0) -> None:
        super().__init__(classes, dropout=dropout)
        self.encoder[0] = nn.Conv2d(1, 8, 3, padding=1, bias=False)


class Broken(TinyNet):
    """Gives no numbers from one forward pass in training to another."""

    def __init__(self, classes: int, after: int = 0, until: int = 1 << 30) -> None:
        super().__init__(classes)
        self.after, self.until, self.seen = after, until, 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        out = super().forward(batch)
        self.seen += self.training
        return out * float("nan") if self.training and self.after < self.seen <= self.until else out


class Wide(TinyNet):
    """Holds half a million more weights, all of them used."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.more = nn.Parameter(torch.zeros(500_000))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return super().forward(batch) + self.more.sum()


class Growing(TinyNet):
    """Needs more memory than there is from the third step on."""

    steps = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        if self.steps > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(batch)


class OneFails(TinyNet):
    """Fails in the second of several processes."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if self.training and torch.distributed.get_rank() == 1:
            raise ZeroDivisionError("the second alone")
        return super().forward(batch)
