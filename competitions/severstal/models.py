"""Models of this competition that no library has. Travels to Kaggle: torch and, inside, timm."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PeakGate(nn.Module):
    """Say which classes a frame shows from its few most suspicious spots.

    A scratch fills one part in a hundred of a frame, so a mean over the frame drowns it: every
    cell of 16x16 pixels gets logits of its own, and a class's logit is the mean of its `peaks`
    highest. (N, 1, H, W) -> logits (N, classes).
    """

    def __init__(
        self,
        *,
        classes: int,
        encoder: str = "tf_efficientnet_lite0",
        width: int = 64,
        peaks: int = 8,
    ) -> None:
        super().__init__()
        import timm

        self.encoder = timm.create_model(
            encoder,
            pretrained=False,
            features_only=True,
            out_indices=(2, 3),
            in_chans=1,
            bn_momentum=0.1,
        )
        channels = sum(self.encoder.feature_info.channels())
        self.head = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, classes, 1),
        )
        self.peaks = peaks
        # Most frames show none of a class: start from that prior.
        nn.init.constant_(self.head[3].bias, -2.0)

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        fine, coarse = self.encoder(batch)
        pooled = nn.functional.adaptive_max_pool2d(fine, coarse.shape[-2:])
        cells = self.head(torch.cat([pooled, coarse], dim=1)).flatten(2)
        return cells.topk(min(self.peaks, cells.shape[-1]), dim=-1).values.mean(-1)
