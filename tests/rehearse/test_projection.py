"""What packs took here and there, and what that says of another pack."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kagflow.rehearse.projection import project
from kagflow.rehearse.receipt import Receipt
from kagflow.rehearse.settle import settle
from kagflow.rehearse.verdict import TIMEOUT
from kagflow.task.costs import LINE, Costs, Pair, Turn, from_log

HERE, THERE = "2 threads of a desk", "2 x Tesla T4"


def costs(machine=HERE, *, images=24, setup=10.0, lanes=1, gated=0, passed=0, **seconds) -> Costs:
    """Members by name, their seconds an image; a name that starts with gate is one."""
    members = tuple(
        Turn(name, f"key-{name}", value, name.startswith("gate")) for name, value in seconds.items()
    )
    made = Costs(
        machine=machine, lanes=lanes, members=members, gated=gated, passed=passed, decode=0.02,
        finish=0.01, rest=0.0, parity=0.0, parity_images=0, images=images, total=0.0,
    )  # fmt: skip
    return replace(made, total=setup + images * made.each)


def pair(there: Costs, here: Costs, at="2026-01-01") -> Pair:
    return Pair("NvidiaTeslaT4", at, "kernel", f"me/k/v{at}", there, here)


def receipt(here: Costs, *, limit=60.0, images=1000, layer="bwrap") -> Receipt:
    return Receipt(
        pack="abc", competition="tiny", made="", verdict="yellow", layer=layer,
        network_blocked=True, home_hidden=True, input_read_only=True, runs=(),
        projected_images=images, limit_minutes=limit, costs=here.to_dict(),
    )  # fmt: skip


def test_without_a_measurement_there_is_a_range_at_this_machines_pace():
    found = project(costs(unet=0.6), [], 1000)
    assert not found.calibrated
    # 10 s and 1000 times .6 s; decoding alone takes .02.
    assert found.minutes == pytest.approx((10 + 600) / 60)
    assert found.least == pytest.approx((10 + 20) / 60)


def test_a_member_that_was_never_there_is_scaled_by_those_that_were():
    seen = pair(costs(THERE, setup=30, unet=0.06, fpn=0.12), costs(unet=0.6, fpn=1.2))
    found = project(costs(other=0.9), [seen], 1000)
    assert found.calibrated
    assert found.minutes == pytest.approx((30 + 90) / 60)
    assert found.minutes < found.p95 < 1.5 * found.minutes
    assert "0.10 s there for 1 s here" in found.said
    # One that was there counts as it was, whatever it took here.
    known = project(costs(unet=5.0), [seen], 1000)
    assert known.minutes == pytest.approx((30 + 60) / 60)


def test_host_and_forward_have_ratios_of_their_own():
    there = replace(costs(THERE, unet=0.006), decode=0.04)
    found = project(costs(other=0.6), [pair(there, costs(unet=0.6))], 1000)
    # The forward would take .006 s, but decoding takes twice as long there as here: .04 s.
    assert found.minutes == pytest.approx((there.setup + 40) / 60, rel=0.01)


def test_a_ratio_is_believed_of_its_own_machine_and_of_the_last_that_came():
    elsewhere = costs("another desk", unet=0.3)
    seen = pair(costs(THERE, unet=0.06), elsewhere)
    assert not project(costs(other=0.6), [seen], 1000).calibrated
    # What was measured there itself needs no ratio.
    assert project(costs(unet=0.6), [seen], 1000).calibrated
    substituted = pair(costs("1 x P100", unet=0.2), costs(unet=0.6), at="2026-02-01")
    both = project(
        costs(unet=0.6), [pair(costs(THERE, unet=0.06), costs(unet=0.6)), substituted], 9
    )
    assert both.minutes == pytest.approx((10 + 9 * 0.2) / 60)


def test_lanes_share_and_gates_count():
    here = costs(gate=0.1, unet=1.0, gated=20, passed=5)
    assert here.each == pytest.approx(0.1 + 0.25)
    seen = pair(costs(THERE, lanes=2, gate=0.02, unet=0.2, gated=20, passed=20), here)
    found = project(here, [seen], 1000)
    # The share is this pack's own: it is the same images here and there.
    assert found.minutes == pytest.approx((seen.there.setup + 1000 * 0.07 / 2) / 60, rel=0.02)
    # Of 20 images 5 passed: it may well be a third.
    assert found.p95 > 1.25 * found.minutes


def test_green_needs_a_measurement_a_strong_sandbox_and_room():
    seen = [pair(costs(THERE, unet=0.06), costs(unet=0.6))]
    first = settle(receipt(costs(unet=0.6)), [], "NvidiaTeslaT4")
    assert (first.verdict, first.calibrated, first.projected_p95) == ("yellow", False, None)
    assert "not calibrated" in first.warnings[-1]
    green = settle(first, seen, "NvidiaTeslaT4")
    assert (green.verdict, green.calibrated, green.warnings) == ("green", True, ())
    assert settle(receipt(costs(unet=0.6), layer="audit"), seen, "x").verdict == "yellow"
    # 1.17 minutes, P95 1.5: 80 % of 1.7 lie between, 80 % of 1.3 below both.
    near = settle(receipt(costs(unet=0.6), limit=1.7), seen, "x")
    assert near.verdict == "yellow"
    assert "come near the limit" in near.warnings[-1]
    red = settle(receipt(costs(unet=0.6), limit=1.3), seen, "x")
    assert (red.verdict, red.failure) == ("red", TIMEOUT)
    assert "kagflow ensemble --minutes" in red.sentence


def test_a_model_twice_as_slow_turns_green_into_red():
    seen = [pair(costs(THERE, unet=0.06), costs(unet=0.6))]
    assert settle(receipt(costs(other=0.6), limit=2.2), seen, "x").verdict == "green"
    slower = settle(receipt(costs(other=1.2), limit=2.2), seen, "x")
    assert (slower.verdict, slower.failure) == ("red", TIMEOUT)


def test_costs_are_found_in_a_log_and_nothing_else_is_taken_for_them():
    told = costs(unet=0.6).to_dict()
    lines = ["hello", f"{LINE}not json", f"  12.1 s {LINE}{json.dumps(told)}", "done"]
    assert from_log(lines) == told
    assert from_log(lines[:2]) is None
    assert from_log([f'{LINE}{{"machine": "x"}}', f"{LINE}[]"]) is None
