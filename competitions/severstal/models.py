"""Models of this competition that no library has. Travels to Kaggle: torch, kagflow.infer, timm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kagflow.infer.models import build_model, pad_to


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
            encoder, pretrained=False, features_only=True, out_indices=(2, 3), in_chans=1
        )
        channels = sum(self.encoder.feature_info.channels())
        *_, last = self.encoder.feature_info.module_name()
        if last.startswith("blocks."):
            # timm keeps, and runs, what comes behind the last feature that is asked for.
            self.encoder.blocks = self.encoder.blocks[: 1 + int(last.split(".")[1])]
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


class ShallowDeep(nn.Module):
    """Fuse a shallow branch at full and half size into the decoder of a deep network.

    The deep network (any arch and encoder of smp) knows what a place is, but its features are
    strided down at once: a scratch two pixels wide is a fraction of a cell. The shallow branch
    sees fine texture and little else. (N, 1, H, W) -> mask logits (N, classes, H, W).
    """

    def __init__(
        self, *, classes: int, encoder_weights: str | None = None, width: int = 24, **kwargs
    ) -> None:
        super().__init__()
        spec = {"target": "smp", "kwargs": {"arch": "FPN"} | kwargs}
        deep = build_model(spec, classes=classes, encoder_weights=encoder_weights)
        self.encoder, self.decoder, self.stride = deep.encoder, deep.decoder, deep.stride
        self.shallow = nn.Sequential(
            convolution(deep.encoder.out_channels[0], width // 2, 3),
            convolution(width // 2, width, 3, stride=2),
            convolution(width, width, 3),
        )
        self.squeeze = convolution(deep.segmentation_head[0].in_channels, 2 * width, 1)
        self.fuse = convolution(3 * width, 2 * width, 3)
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, batch: Tensor) -> Tensor:
        """Return mask logits of the input's own size."""
        padded = pad_to(batch, self.stride)
        texture = self.shallow(padded)
        meaning = self.squeeze(self.decoder(self.encoder(padded)))
        meaning = stretch(meaning, texture.shape[-2:])
        logits = self.head(self.fuse(torch.cat([texture, meaning], dim=1)))
        return stretch(logits, padded.shape[-2:])[..., : batch.shape[-2], : batch.shape[-1]]


class Siamese(nn.Module):
    """Segment what differs from a defect-free frame of the same look.

    `severstal.siamese:Paired` puts image a and reference b into one input. One encoder sees both;
    at every scale the decoder of smp gets a mixture of a and |a - b|. The reference is another
    frame, not the same place, so the difference alone would be full of innocent texture.
    (N, 2, H, W) -> mask logits (N, classes, H, W).
    """

    def __init__(self, *, classes: int, encoder_weights: str | None = None, **kwargs) -> None:
        super().__init__()
        spec = {"target": "smp", "kwargs": {"arch": "FPN"} | kwargs}
        whole = build_model(spec, classes=classes, encoder_weights=encoder_weights)
        self.encoder, self.decoder, self.stride = whole.encoder, whole.decoder, whole.stride
        self.head = whole.segmentation_head
        widths = whole.encoder.out_channels
        read = features_read(whole)
        self.mixers = nn.ModuleDict(
            {str(level): nn.Conv2d(2 * widths[level], widths[level], 1) for level in read}
        )

    def forward(self, batch: Tensor) -> Tensor:
        """Return mask logits of the input's own size."""
        padded = pad_to(batch, self.stride)
        features = self.encoder(torch.cat(padded.chunk(2, dim=1)))
        mixed = []
        for level, both in enumerate(features):
            ours, reference = both.chunk(2)
            if str(level) in self.mixers:
                pair = torch.cat([ours, (ours - reference).abs()], dim=1)
                ours = self.mixers[str(level)](pair)
            mixed.append(ours)
        logits = self.head(self.decoder(mixed))
        return logits[..., : batch.shape[-2], : batch.shape[-1]]


def features_read(whole: nn.Module) -> list[int]:
    """Return which of its encoder's features the decoder of an smp model reads."""
    side = max(64, whole.stride)
    with torch.no_grad():
        features = whole.encoder.eval()(torch.zeros(1, whole.encoder.out_channels[0], side, side))
    features = [feature.requires_grad_() for feature in features]
    out = whole.decoder.eval()(features).sum()
    slopes = torch.autograd.grad(out, features, allow_unused=True)
    whole.train()
    return [level for level, slope in enumerate(slopes) if slope is not None]


def convolution(before: int, after: int, side: int, *, stride: int = 1) -> nn.Sequential:
    """Return a convolution with batch norm and ReLU, padded to keep the size."""
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, side // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


def stretch(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) bilinearly to `size` = (H, W)."""
    return F.interpolate(features, size, mode="bilinear", align_corners=False)
