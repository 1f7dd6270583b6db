"""Draw the four defect classes, and outline them as a hurried annotator would.

Every defect is relief or a zero-mean line: it darkens as much as it brightens, so that no grey
level tells it from streaks, water, glints or the border. Imports numpy and cv2 only.
"""

from __future__ import annotations

import cv2
import numpy as np

from severstal.mini_steel import HEIGHT, WIDTH, Array, Canvas, smooth

# Pixels that the annotator leaves around the defect (low, high), and how coarse the polygon is.
MARGIN = {1: (5, 11), 2: (5, 10), 3: (6, 16), 4: (1, 8)}
COARSE = {1: 3.0, 2: 3.0, 3: 4.0, 4: 5.0}


def draw_defect(canvas: Canvas, kind: int, rng: np.random.Generator) -> Array:
    """Draw one image's defects of class `kind` 1..4; return their extent (H, W) uint8 0/1."""
    if kind == 1:
        return _pits(canvas, rng)
    if kind == 2:
        return _edge_strip(canvas, rng)
    if kind == 4:
        return _flake(canvas, rng)
    style = rng.random()
    if style < 0.55:
        return _vertical_scratches(canvas, rng)
    return _horizontal_scratch(canvas, rng) if style < 0.78 else _scrape(canvas, rng)


def annotate(extent: Array, kind: int, rng: np.random.Generator) -> Array:
    """Return the mask (H, W) uint8 0/1 that a person would have drawn around `extent`."""
    margin = int(rng.integers(*MARGIN[kind]))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    grown = cv2.dilate(np.pad(extent, 32), kernel)
    contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for contour in contours:
        polygon = cv2.approxPolyDP(contour, COARSE[kind], closed=True).reshape(-1, 2)
        moved = polygon - 32 + rng.normal(0, 1.6, polygon.shape)
        cv2.fillPoly(mask, [np.round(moved).astype(np.int32)], 1)
    return mask


def _span(canvas: Canvas) -> tuple[int, int]:
    """Return the columns (first, last) of steel that are wide enough to draw on."""
    return canvas.roll.left + 12, canvas.roll.right - 12


def _pits(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Sink clusters of small pits, each a dark lip beside a bright one."""
    extent = np.zeros((HEIGHT, WIDTH), np.uint8)
    low, high = _span(canvas)
    home = float(rng.uniform(low, high))
    for _ in range(int(rng.integers(2, 7))):
        x = float(np.clip(rng.normal(home, 150), low, high))
        y = float(rng.uniform(10, HEIGHT - 10))
        wide, tall = float(rng.uniform(4, 10)), float(rng.uniform(9, 30))
        for _ in range(int(rng.integers(12, 34))):
            centre = (round(rng.normal(x, wide * 0.55)), round(rng.normal(y, tall * 0.55)))
            axes = (int(rng.integers(0, 3)), int(rng.integers(1, 4)))
            cv2.ellipse(extent, centre, axes, float(rng.uniform(-40, 40)), 0, 360, 1, -1)
    _on_steel(canvas, extent)
    pressed = cv2.GaussianBlur(extent.astype(np.float32), (0, 0), 0.8)
    depth = np.clip(1 + 0.7 * smooth(rng, 4, 4), -0.3, 2.5) * float(rng.uniform(2.0, 3.6))
    canvas.relief -= pressed * depth
    return cv2.morphologyEx(extent, cv2.MORPH_CLOSE, np.ones((15, 13), np.uint8))


def _edge_strip(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Tear a thin vertical strip near the strip's edge: a lifted sliver between two cracks."""
    roll = canvas.roll
    inward = 1 if roll.left > 0 else -1
    edge = roll.left if roll.left > 0 else roll.right
    offset = float(rng.uniform(30, 190))
    x = float(np.clip(edge + inward * offset, 20, WIDTH - 20))
    tall = int(rng.integers(110, HEIGHT + 60))
    top = int(rng.integers(-40, max(-39, HEIGHT - tall + 40)))
    rows = np.arange(HEIGHT, dtype=np.float32)
    inside = ((rows >= top) & (rows < top + tall)).astype(np.float32)[:, None]
    centre = x + _wander(rng, 3.0, 40)[:, None]
    half = np.clip(rng.uniform(4, 9) + _wander(rng, 1.6, 34), 2.0, 12)[:, None]
    columns = np.arange(WIDTH, dtype=np.float32)[None]
    sliver = np.clip(half - np.abs(columns - centre), 0, 3) * inside
    rough = 1 + 0.35 * smooth(rng, 3, 16) + 0.25 * smooth(rng, 3, 4)
    canvas.relief += sliver * rough * float(rng.uniform(0.35, 0.75))
    canvas.tone += np.clip(sliver, 0, 1) * smooth(rng, 2.2, 26) * float(rng.uniform(0.14, 0.24))
    crack = np.exp(-(((np.abs(columns - centre) - half) / 1.2) ** 2)) * inside
    canvas.tone += _zero_mean(crack, 7) * np.sign(columns - centre) * float(rng.uniform(0.35, 0.6))
    return (sliver > 0).astype(np.uint8)


def _vertical_scratches(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Scratch one to four vertical lines, most of them over the whole height."""
    extent = np.zeros((HEIGHT, WIDTH), np.uint8)
    low, high = _span(canvas)
    columns = np.arange(WIDTH, dtype=np.float32)[None]
    rows = np.arange(HEIGHT, dtype=np.float32)
    for _ in range(int(rng.integers(1, 5))):
        x = float(rng.uniform(low, high))
        whole = rng.random() < 0.6
        tall = HEIGHT + 80 if whole else int(rng.integers(70, 230))
        top = -40 if whole else int(rng.integers(-30, HEIGHT - tall // 2))
        fade = np.clip((rows - top) / 12, 0, 1) * np.clip((top + tall - rows) / 12, 0, 1)
        centre = (x + (rows - 128) * float(rng.normal(0, 0.015)) + _wander(rng, 1.0, 50))[:, None]
        half = float(rng.uniform(3.0, 8.5))
        core = np.exp(-((np.abs(columns - centre) / half) ** 4)) * fade[:, None]
        tear = 0.55 * smooth(rng, 4.0, float(rng.uniform(1.5, 3.0))) + smooth(rng, 2.0, 60)
        strength = float(rng.uniform(0.14, 0.3))
        canvas.tone += core * tear * strength
        line = _zero_mean(np.exp(-(((columns - centre) / 1.5) ** 2)) * fade[:, None], 9)
        canvas.tone += (
            line * float(rng.uniform(0.3, 0.75)) * np.clip(1 + 0.8 * smooth(rng, 200, 18), 0, 2)
        )
        extent |= (core > 0.4).astype(np.uint8)
    return extent


def _horizontal_scratch(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Drag broken twin lines along x, with torn teeth between them."""
    low, high = _span(canvas)
    length = float(rng.uniform(0.35, 1.0)) * min(high - low, 1100)
    start = float(rng.uniform(low, high - length))
    y, gap = float(rng.uniform(30, HEIGHT - 30)), float(rng.uniform(5, 11))
    columns = np.arange(WIDTH, dtype=np.float32)[None]
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    middle = y + (columns - start) * float(rng.normal(0, 0.012))
    fade = np.clip((columns - start) / 20, 0, 1) * np.clip((start + length - columns) / 20, 0, 1)
    broken = fade * (smooth(rng, 45, 400, height=2)[:1] > -0.75)
    twin = np.exp(-(((rows - middle - gap) / 1.5) ** 2)) + np.exp(
        -(((rows - middle + gap) / 1.5) ** 2)
    )
    canvas.tone += (
        _zero_mean(twin * broken, 9) * np.clip(1 + 0.5 * smooth(rng, 12, 4), 0.1, 2) * 0.75
    )
    body = np.exp(-((np.abs(rows - middle) / (gap + 3)) ** 4)) * broken
    tear = 0.7 * smooth(rng, 3.2, 9) + 0.7 * smooth(rng, 30, 2)
    canvas.tone += body * tear * float(rng.uniform(0.14, 0.28))
    return (body > 0.4).astype(np.uint8)


def _scrape(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Rub one or two patches to slanted flecks, white and black."""
    extent = np.zeros((HEIGHT, WIDTH), np.uint8)
    low, high = _span(canvas)
    for _ in range(int(rng.integers(1, 4))):
        size = (float(rng.uniform(28, 120)), float(rng.uniform(22, 62)))
        blob = _blob(rng, (float(rng.uniform(low, high)), float(rng.uniform(20, 236))), size)
        soft = cv2.GaussianBlur(blob.astype(np.float32), (0, 0), 4)
        flecks = smooth(rng, float(rng.uniform(5, 9)), 1.8) + 0.5 * smooth(rng, 2, 2)
        flecks = flecks * np.clip(0.8 + 0.7 * smooth(rng, 26, 16), 0, 2)
        canvas.tone += soft * flecks * float(rng.uniform(0.22, 0.4))
        extent |= blob
    return _on_steel(canvas, extent)


def _flake(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Lift one to three large scabs with crumpled tops, a lit shore and a shaded one."""
    extent = np.zeros((HEIGHT, WIDTH), np.uint8)
    low, high = _span(canvas)
    for _ in range(int(rng.integers(1, 4))):
        band = rng.random() < 0.35
        size = (float(rng.uniform(60, 180)), float(rng.uniform(35, 115)))
        if band:
            size = (float(rng.uniform(130, 330)), float(rng.uniform(14, 34)))
        extent |= _blob(rng, (float(rng.uniform(low, high)), float(rng.uniform(0, 256))), size)
    extent = _on_steel(canvas, extent)
    # Frames cut a scab without giving it a shore there.
    distance = cv2.distanceTransform(np.pad(extent, 8, "edge"), cv2.DIST_L2, 3)[8:-8, 8:-8]
    table = np.minimum(distance, 5.0) * 0.75
    crumple = 6.0 * smooth(rng, 44, 34) + 2.0 * smooth(rng, 16, 12) + 0.7 * smooth(rng, 6, 5)
    crumple = crumple + 0.35 * smooth(rng, 2.5, 2.5)
    canvas.relief += cv2.GaussianBlur(table, (0, 0), 0.8)
    canvas.relief += crumple * np.clip(distance / 5, 0, 1) * float(rng.uniform(0.3, 0.75))
    # A scab hides the rolled finish below it.
    inside = np.clip(distance / 3, 0, 1)
    canvas.tone *= 1 - 0.4 * inside
    canvas.tone += inside * (0.12 * smooth(rng, 50, 40) + 0.10 * smooth(rng, 9, 7))
    return extent


def _blob(
    rng: np.random.Generator, centre: tuple[float, float], size: tuple[float, float]
) -> Array:
    """Return a lumpy filled shape (H, W) uint8 0/1 of about `size` half axes, turned at random."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = 1 + rng.normal(0, 0.025, angle.shape)
    for order in (1, 2, 3, 4, 5, 7, 9):
        radius += rng.normal(0, 0.30 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    turn = float(rng.normal(0, 0.7))
    x, y = (
        np.clip(radius, 0.25, 2) * np.cos(angle) * size[0],
        np.clip(radius, 0.25, 2) * np.sin(angle) * size[1],
    )
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(shape, [np.round(points + centre).astype(np.int32)], 1)
    return shape


def _on_steel(canvas: Canvas, extent: Array) -> Array:
    """Return the extent without what would lie beside the strip."""
    extent[:, : canvas.roll.left] = 0
    extent[:, canvas.roll.right :] = 0
    return extent


def _wander(rng: np.random.Generator, size: float, step: float) -> Array:
    """Return a slow random walk (H,) of about `size` pixels."""
    return smooth(rng, 400, step)[:, 0] * size


def _zero_mean(line: Array, reach: int) -> Array:
    """Take from a drawn line its own blur, so that its flanks darken what its core brightens."""
    return line - cv2.blur(line, (2 * reach + 1, 2 * reach + 1))
