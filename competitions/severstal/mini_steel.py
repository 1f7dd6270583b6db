"""Draw clean rolled steel: what a line camera sees of one roll, frame by frame.

A roll fixes what stays (exposure, strip edge, lamps, streaks, finish); a frame varies the rest.
Imports numpy and cv2 only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 256, 1600

Array = NDArray[Any]


@dataclass(frozen=True)
class Roll:
    """Hold what every frame of one roll shares; lengths in pixels, tones as log reflectance."""

    seed: int
    exposure: float  # mean grey of the strip, 0..255
    left: int  # first column of steel
    right: int  # one past the last column of steel
    slant: float  # columns that the edge drifts over one frame
    lamp: tuple[float, float, float]  # centre, width, strength of the lamps along x
    fall: float  # light gained from top to bottom
    streaks: float
    ripple: float
    pitch: float  # rows between two ripples
    slope: float  # how far ripples wander, in rows
    grain: float
    sparkle: float
    water: float
    dirt: float
    lip: float  # width of the dim band along the edge


@dataclass
class Canvas:
    """Carry one scene while it is drawn: `tone` and `relief` are (H, W) float32.

    `tone` is log reflectance; `relief` is height in pixels, whose slope becomes light and shade.
    """

    roll: Roll
    tone: Array
    relief: Array
    outlines: list[Array] = field(default_factory=list)


def smooth(rng: np.random.Generator, dx: float, dy: float, *, height: int = HEIGHT) -> Array:
    """Return noise (height, W) float32 of about unit variance, features about dx by dy pixels."""
    rows, columns = max(2, round(height / dy) + 2), max(2, round(WIDTH / dx) + 2)
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    grid = (grid - grid.mean()) * (1.2 / (grid.std() + 1e-6))
    if min(dx, dy) >= 32 and height == HEIGHT:
        # Slow fields keep their look when only their quarter is drawn with care, and cost half.
        grid = cv2.resize(grid, (WIDTH // 4, height // 4), interpolation=cv2.INTER_CUBIC)
        return cv2.resize(grid, (WIDTH, height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(grid, (WIDTH, height), interpolation=cv2.INTER_CUBIC)


def make_roll(rng: np.random.Generator, *, bordered: bool, worn: float) -> Roll:
    """Draw one roll's look; `worn` in 0..1 moves finish and light, so that sets of rolls differ."""
    left, right = 0, WIDTH
    if bordered:
        width = int(np.clip(rng.lognormal(5.6, 0.8), 24, 1180))
        left, right = (width, WIDTH) if rng.random() < 0.5 else (0, WIDTH - width)
    return Roll(
        seed=int(rng.integers(2**31)),
        exposure=float(np.clip(rng.lognormal(4.62 - 0.12 * worn, 0.40), 55, 185)),
        left=left,
        right=right,
        slant=float(rng.normal(0, 2.0)),
        lamp=(
            float(rng.uniform(0, WIDTH)),
            float(rng.uniform(260, 800)),
            float(rng.uniform(0, 0.75)),
        ),
        fall=float(rng.normal(0.15, 0.35)),
        streaks=float(rng.uniform(0.012, 0.06) * (1 + 0.4 * worn)),
        ripple=float(rng.choice([0.008, 0.018, 0.04, 0.07])),
        pitch=float(rng.uniform(4.0, 8.5)),
        slope=float(rng.uniform(1.0, 14.0)),
        grain=float(rng.uniform(0.075, 0.15) * (1 + 0.15 * worn)),
        sparkle=float(rng.uniform(0.0, 1.0)),
        water=float(rng.uniform(0.0, 1.0)),
        dirt=float(rng.uniform(0.0, 1.0)),
        lip=float(rng.uniform(5, 26)),
    )


def render_scene(roll: Roll, rng: np.random.Generator) -> Canvas:
    """Return a clean scene of this roll, still without edge, light and sensor noise."""
    own = np.random.default_rng(roll.seed)
    tone = _streaks(roll, own, rng) + _finish(roll, rng)
    canvas = Canvas(roll, tone, np.zeros((HEIGHT, WIDTH), np.float32))
    _water(canvas, own, rng)
    _sparkle(canvas, own, rng)
    _dirt(canvas, rng)
    return canvas


def expose(
    canvas: Canvas,
    light: np.random.Generator,
    noise: np.random.Generator,
    *,
    shift: tuple[int, int] = (0, 0),
) -> Array:
    """Photograph a scene moved by `shift` (dx, dy): (H, W) uint8 grey."""
    roll = canvas.roll
    image = np.exp(np.clip(canvas.tone + _shading(canvas.relief), -1.6, 1.5))
    image *= roll.exposure * _light(roll, light) * _strip(roll)
    if shift != (0, 0):
        move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        image = cv2.warpAffine(image, move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
    image += noise.standard_normal((HEIGHT, WIDTH), dtype=np.float32) * (0.6 + 0.018 * image) + 4.0
    # A knee: highlights bend before they burn out, as in the over-lit frames of the original.
    image = np.where(image > 205, 205 + (image - 205) * 0.7, image)
    return np.clip(image, 0, 255).astype(np.uint8)


def _streaks(roll: Roll, own: np.random.Generator, rng: np.random.Generator) -> Array:
    """Return vertical rolling marks: a profile kept by the roll, and short ones of this frame."""
    profile = 0.5 * smooth(own, 3, 2, height=2)[:1] + 0.8 * smooth(own, 26, 2, height=2)[:1]
    profile = profile + 0.9 * smooth(own, 120, 2, height=2)[:1]
    short = smooth(rng, 3.4, 60)
    smear = np.minimum(short + 0.9, 0) * np.clip(smooth(rng, 120, 75), 0, 2)
    return roll.streaks * (0.8 * profile + 0.35 * smooth(rng, 7, 120) + 1.3 * smear)


def _finish(roll: Roll, rng: np.random.Generator) -> Array:
    """Return the fine finish: wavy horizontal ripples, a vertical weave, and grain."""
    lines = smooth(rng, 38, roll.pitch / 2, height=HEIGHT + 64)
    drift = smooth(rng, 420, 150) * roll.slope
    columns, rows = np.meshgrid(
        np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32) + 32
    )
    ripples = cv2.remap(lines, columns, rows + np.clip(drift, -30, 30), cv2.INTER_LINEAR)
    envelope = np.clip(0.7 + 0.6 * smooth(rng, 330, 120), 0.1, 2)
    white = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    weave = cv2.GaussianBlur(white, (0, 0), sigmaX=0.55, sigmaY=2.6) * 2.1
    grain = cv2.GaussianBlur(white, (0, 0), 0.75) * 2.2
    rough = np.clip(0.9 + 0.25 * smooth(rng, 90, 90), 0.3, 2)
    cloud = 0.012 * smooth(rng, 34, 26) + 0.02 * smooth(rng, 90, 60) + 0.06 * smooth(rng, 300, 120)
    return (
        roll.ripple * envelope * ripples + roll.grain * rough * (0.75 * grain + 0.6 * weave) + cloud
    )


def _water(canvas: Canvas, own: np.random.Generator, rng: np.random.Generator) -> None:
    """Lay dried water: tongues that hang along the rolling direction, and a wide pale shore."""
    roll = canvas.roll
    if roll.water > 0.4:
        place = smooth(own, 330, 400, height=2)[:1]
        hang = np.linspace(-0.8, 0.8, HEIGHT, dtype=np.float32)[:, None] * own.choice([-1, 1])
        tongue = smooth(rng, float(own.uniform(8, 20)), 170) + 0.22 * smooth(rng, 4, 16)
        wet = tongue + place + hang > 2.4 - 0.5 * roll.water
        _stain(canvas, wet, tone=float(own.choice([-0.22, 0.2, 0.3])), rng=rng)
    if roll.water > 0.8:
        shore = (
            1.6 * smooth(own, 420, 400, height=2)[:1]
            + smooth(rng, 170, 260)
            + 0.1 * smooth(rng, 14, 18)
        )
        _stain(canvas, shore > 1.0, tone=float(own.uniform(0.08, 0.26)), rng=rng)


def _stain(canvas: Canvas, where: Array, *, tone: float, rng: np.random.Generator) -> None:
    """Shift the tone of a region with a crisp shore, and roughen its inside."""
    soft = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 0.9)
    curl = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32), (0, 0), 1.6)
    canvas.tone += soft * (tone + 0.22 * curl)


def _sparkle(canvas: Canvas, own: np.random.Generator, rng: np.random.Generator) -> None:
    """Scatter short bright glints in vertical bands and patches, most near the strip's edge."""
    roll = canvas.roll
    columns = np.arange(WIDTH, dtype=np.float32)[None]
    edge = np.minimum(np.abs(columns - roll.left), np.abs(columns - roll.right))
    band = np.exp(-(((edge - own.uniform(20, 110)) / own.uniform(10, 34)) ** 2))
    if roll.left == 0 and roll.right == WIDTH:
        band = np.exp(-(((columns - own.uniform(0, WIDTH)) / own.uniform(20, 70)) ** 2))
    patch = np.clip(smooth(rng, 70, 60) - 1.5, 0, 1) * np.clip(smooth(rng, 300, 300), 0, 1)
    chance = roll.sparkle * (0.9 * band * np.clip(0.5 + smooth(rng, 30, 40), 0, 2) + patch)
    count = 16000
    y, x = rng.integers(0, HEIGHT, count), rng.integers(0, WIDTH, count)
    keep = rng.random(count) < chance[y, x]
    glint = np.zeros((HEIGHT, WIDTH), np.float32)
    glint[y[keep], x[keep]] = rng.gamma(1.6, 0.6, int(keep.sum())).astype(np.float32)
    canvas.tone += cv2.GaussianBlur(glint, (0, 0), sigmaX=0.75, sigmaY=0.4) * 1.7
    canvas.tone -= np.roll(cv2.GaussianBlur(glint, (0, 0), sigmaX=1.0, sigmaY=0.6), 1, 0) * 1.5


def _dirt(canvas: Canvas, rng: np.random.Generator) -> None:
    """Drop dust, oil spots and pale flecks, and now and then a smudge of dark flecks."""
    for _ in range(int(rng.poisson(12))):
        x, y = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        axes = (int(rng.integers(0, 3)), int(rng.integers(0, 4)))
        spot = np.zeros((33, 33), np.float32)
        cv2.ellipse(spot, (16, 16), axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        _add(
            canvas.tone,
            cv2.GaussianBlur(spot, (0, 0), 0.8),
            x,
            y,
            float(rng.choice([-0.8, -0.5, 0.5])),
        )
    fine = smooth(rng, 2.6, 3.4) + 0.9 * smooth(rng, 7, 12)
    canvas.tone -= (
        0.42
        * np.clip(fine - 1.3, 0, 1.5)
        * np.clip(smooth(rng, 90, 80) - 1.6 + 0.7 * canvas.roll.dirt, 0, 1.2)
    )


def _add(target: Array, stamp: Array, x: int, y: int, weight: float) -> None:
    """Add `weight * stamp`, centred at (x, y), to `target`; what falls outside is cut off."""
    half_y, half_x = stamp.shape[0] // 2, stamp.shape[1] // 2
    top, left = y - half_y, x - half_x
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(target.shape[0], top + stamp.shape[0]), min(target.shape[1], left + stamp.shape[1])
    if y0 < y1 and x0 < x1:
        target[y0:y1, x0:x1] += weight * stamp[y0 - top : y1 - top, x0 - left : x1 - left]


def _shading(relief: Array) -> Array:
    """Return the log light (H, W) of a lamp at the upper left: the slope, so its mean is zero."""
    slope = cv2.Sobel(relief, cv2.CV_32F, 1, 0, scale=0.125) * 0.75
    slope += cv2.Sobel(relief, cv2.CV_32F, 0, 1, scale=0.125)
    return 1.1 * np.tanh(slope * 0.9)


def _light(roll: Roll, rng: np.random.Generator) -> Array:
    """Return the lamps' light (H, W) around 1: a bump along x, a fall along y, slow clouds."""
    centre, width, strength = roll.lamp
    columns = np.arange(WIDTH, dtype=np.float32)[None]
    rows = np.linspace(-0.5, 0.5, HEIGHT, dtype=np.float32)[:, None]
    centre += float(rng.normal(0, 25))
    bump = strength * np.exp(-(((columns - centre) / width) ** 2))
    vignette = 1 - 0.25 * ((columns - WIDTH / 2) / (WIDTH / 2)) ** 2
    fall = np.exp((roll.fall + float(rng.normal(0, 0.05))) * rows)
    clouds = 1 + 0.07 * smooth(rng, 500, 170)
    return (0.75 + bump) * vignette * fall * clouds * float(np.exp(rng.normal(0, 0.06)))


def _strip(roll: Roll) -> Array:
    """Return (H, W) 0..1: black beside the strip, a dim lip along its edge, 1 on it."""
    columns = np.arange(WIDTH, dtype=np.float32)[None]
    drift = np.linspace(-0.5, 0.5, HEIGHT, dtype=np.float32)[:, None] * roll.slant
    strip = np.ones((HEIGHT, WIDTH), np.float32)
    for edge, sign in ((roll.left, 1), (roll.right, -1)):
        if 0 < edge < WIDTH:
            inside = sign * (columns - edge - drift)
            step = 1 / (1 + np.exp(-np.clip(inside / 1.3, -30, 30)))
            lip = 1 - 0.55 * (np.clip(inside, 0, None) < roll.lip) * np.exp(
                -np.clip(inside, 0, None) / 60
            )
            lip = cv2.blur(lip.astype(np.float32), (3, 1))
            strip *= step * lip
    return strip
