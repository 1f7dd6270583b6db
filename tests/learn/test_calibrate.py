from __future__ import annotations

import numpy as np
import pytest

from kagflow.learn import calibrate
from kagflow.learn.calibrate import Reliability, area_under_curve, expected_error


def world(images=4000, heat=1.0, seed=0):
    """Draw true probabilities, what came of them, and the same too sure (or too shy) by `heat`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, images)
    present = rng.random(images) < calibrate.sigmoid(logits)
    return calibrate.sigmoid(logits * heat), present, np.arange(images) % 10


def test_a_calibrated_gate_is_left_as_it_is():
    probs, present, parts = world()
    known = Reliability(probs, present, parts)
    assert known.curve()(np.array([0.1, 0.5, 0.9])) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)


@pytest.mark.parametrize("heat", [0.4, 2.5])
def test_a_temperature_is_found(heat):
    probs, present, parts = world(heat=heat)
    known = Reliability(probs, present, parts)
    assert known.curve().kind.startswith("temperature")
    assert float(known.curve().kind.split()[1]) == pytest.approx(heat, rel=0.1)
    assert expected_error(probs, present) > 0.04
    assert expected_error(known.outside(), present) < 0.02


def test_isotonic_mends_what_a_temperature_cannot():
    probs, present, parts = world(images=6000)
    bent = np.where(probs < 0.5, probs * 0.2, 0.8 + 0.2 * probs)
    known = Reliability(bent, present, parts)
    assert known.curve().kind == "isotonic"
    assert expected_error(known.outside(), present) < expected_error(bent, present) / 2


def test_an_image_has_no_say_in_its_own_calibration():
    probs, present, parts = world(images=600, heat=2)
    before = Reliability(probs, present, parts).outside()
    flipped = np.where(parts == 3, ~present, present)
    after = Reliability(probs, flipped, parts).outside()
    assert np.array_equal(before[parts == 3], after[parts == 3])
    assert not np.array_equal(before[parts != 3], after[parts != 3])


def test_curves_rise_and_are_inverted():
    probs, present, parts = world(heat=3)
    for curve in (
        calibrate._as_it_is(None),
        calibrate._temperature(Reliability(probs, present, parts).counts.sum(axis=0)),
        calibrate._isotonic(Reliability(probs, present, parts).counts.sum(axis=0)),
    ):
        assert (np.diff(curve.values) >= 0).all()
        for level in (0.2, 0.57, 0.9):
            raw = curve.raw(level)
            assert curve(np.array([raw]))[0] >= level - 1e-6
            assert curve(np.array([raw - 0.02]))[0] < level
    assert calibrate.Curve("low", np.full(len(calibrate.CENTRES), 0.3)).raw(0.5) == 1.0


def test_a_class_that_is_never_or_always_there_is_left_alone():
    probs, _, parts = world(images=50)
    for value in (True, False):
        known = Reliability(probs, np.full(50, value), parts)
        assert known.curve().kind == "as it is"
        assert area_under_curve(probs, np.full(50, value)) is None


def test_figures_are_the_textbook_ones():
    probs = np.array([0.1, 0.4, 0.4, 0.9])
    present = np.array([False, True, False, True])
    # Of four pairs three are in order and one is a tie.
    assert area_under_curve(probs, present) == pytest.approx(3.5 / 4)
    assert expected_error(probs, present) == pytest.approx((0.1 + 0.6 + 0.4 + 0.1) / 4)
    assert expected_error(np.full(300, 0.25), np.arange(300) % 4 == 0) < 0.03
    assert calibrate.log_loss(np.array([0.25, 1.0]), np.array([True, False])) == pytest.approx(
        [np.log(4), -np.log(1e-4)]
    )
