"""A contact sheet: samples before and after augmentation, mask contours in class colours."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from kagflow.learn.cache import Pixels
from kagflow.learn.dataset import to_channels
from kagflow.learn.look_samples import Views

# Colours of Okabe and Ito (2008), which people of any colour vision tell apart.
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
WIDTH = 1880
GAP, LINE, TEXT = 14, 20, 15
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
# Further channels of an input that are shown, where they differ from the first.
CHANNELS = 2

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Panel:
    """One picture of a sample: grey (h, w) uint8, its mask if any, what it is."""

    name: str
    image: Pixels
    mask: Pixels | None


def draw_sheet(views: Sequence[Views], classes: Sequence[str], title: str) -> bytes:
    """Return the PNG of a sheet; samples keep their order, row by row."""
    panels = [panels_of(view) for view in views]
    tall = max(one.image.shape[0] for group in panels for one in group)
    wide = max(one.image.shape[1] for group in panels for one in group)
    count = max(map(len, panels))
    # Wide frames stand above each other, others side by side.
    across = 1 if wide > 1.5 * tall else count
    columns = _columns(len(views), (tall * (count // across), wide * across))
    cell = (WIDTH - GAP) // columns - GAP
    scale = (cell - GAP * (across - 1)) / (wide * across)
    box = (max(1, round(tall * scale)), max(1, round(wide * scale)))
    height = LINE + (count // across) * (box[0] + LINE) + GAP
    rows = -(-len(views) // columns)
    top = 3 * LINE + GAP
    sheet = Image.new("RGB", (WIDTH, top + rows * height), PAPER)
    pen = _Pen(ImageDraw.Draw(sheet))
    _legend(pen, classes if any(view.mask is not None for view in views) else (), title)
    for at, (view, group) in enumerate(zip(views, panels, strict=True)):
        x, y = GAP + (at % columns) * (cell + GAP), top + (at // columns) * height
        pen.write((x, y), _caption(at + 1, view, classes), INK, cell)
        for number, panel in enumerate(group):
            column, line = (number, 0) if across > 1 else (0, number)
            left, upper = x + column * (box[1] + GAP), y + LINE + line * (box[0] + LINE)
            sheet.paste(_picture(panel, box, len(classes)), (left, upper))
            pen.write((left, upper + box[0] + 1), panel.name, FAINT, box[1])
    file = io.BytesIO()
    sheet.save(file, "PNG", compress_level=3)
    return file.getvalue()


def panels_of(view: Views) -> list[Panel]:
    """Return what is shown of a sample: before, after, and what else the input gives a model."""
    first, *others = view.given
    more = [one for one in others if not np.array_equal(one, first)][:CHANNELS]
    return [
        Panel("before augmentation", view.before, view.mask),
        Panel("after augmentation", view.after, view.changed),
        *(Panel("another channel of the input", _stretched(one), None) for one in more),
    ]


def colour(index: int) -> Colour:
    """Return the colour of a class by its number."""
    if index < len(COLOURS):
        return COLOURS[index]
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618 % 1, 0.8, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def outlined(image: Pixels, mask: Pixels | None, size: tuple[int, int], classes: int) -> Pixels:
    """Return RGB (h, w, 3) of `size` with each class's contours; grey (h, w) in."""
    wide = (size[1], size[0])
    how = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    grey = cv2.resize(image, wide, interpolation=how)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    if mask is None:
        return np.asarray(picture, np.uint8)
    for index, plane in enumerate(to_channels(mask, classes)):
        # A defect of two pixels must not vanish in a small picture, nor lie under its outline.
        big = cv2.resize(plane * 255, wide, interpolation=cv2.INTER_AREA)
        round_it = cv2.dilate(np.uint8(big > 0), np.ones((7, 7), np.uint8))
        lines, _ = cv2.findContours(round_it, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, colour(index), 2, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def _picture(panel: Panel, box: tuple[int, int], classes: int) -> Any:
    height, width = panel.image.shape
    scale = min(box[0] / height, box[1] / width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return Image.fromarray(outlined(panel.image, panel.mask, size, classes))


def _columns(count: int, shape: tuple[int, int]) -> int:
    """Return how many samples a row holds so that the sheet is about as tall as wide."""
    return min(
        range(1, min(count, 8) + 1),
        key=lambda n: abs(-(-count // n) * WIDTH / n * shape[0] / shape[1] - 0.8 * WIDTH),
    )


def _caption(number: int, view: Views, classes: Sequence[str]) -> str:
    shows = ", ".join(classes[at] for at in view.label) or "none"
    return f"{number}  {view.image_id}  classes: {shows}{', centred' if view.centred else ''}"


def _legend(pen: _Pen, classes: Sequence[str], title: str) -> None:
    pen.write((GAP, GAP // 2), title, INK, WIDTH - 2 * GAP)
    x, y = GAP, GAP // 2 + LINE + 4
    if not classes:
        pen.write((x, y), "the recipe sees no masks", FAINT, WIDTH)
    for index, name in enumerate(classes):
        text = f"class {name}"
        if x + 30 + pen.width(text) > WIDTH:
            break
        pen.draw.rectangle((x, y + 2, x + 22, y + TEXT + 1), fill=colour(index))
        pen.write((x + 30, y), text, INK, WIDTH)
        x += 30 + pen.width(text) + 2 * GAP


def _stretched(channel: npt.NDArray[np.float32]) -> Pixels:
    low, high = float(channel.min()), float(channel.max())
    return np.asarray(255 * (channel - low) / max(high - low, 1e-9), np.uint8)


class _Pen:
    """Write one line of text at a time, cut to the room that it has."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self._font = ImageFont.load_default(TEXT)

    def width(self, text: str) -> int:
        return int(self.draw.textlength(text, font=self._font))

    def write(self, place: tuple[int, int], text: str, ink: Colour, room: int) -> None:
        short = text
        while self.width(short) > room and len(short) > 4:
            short = short[:-4] + "..."
        self.draw.text(place, short, fill=ink, font=self._font)
