"""Say what a rehearsal means: green, yellow or red, and how many minutes on the accelerator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kagflow.rehearse.projection import GOOD, Projection, project
from kagflow.rehearse.receipt import Receipt, Verdict
from kagflow.rehearse.verdict import TIMEOUT
from kagflow.task.costs import Costs, Pair

# Layers that cut off the network and the file system, not only Python's way to them.
STRONG = ("docker", "bwrap", "unshare")
_UNCALIBRATED = "minutes are not calibrated"


def settle(receipt: Receipt, pairs: Iterable[Pair] = (), accelerator: str = "") -> Receipt:
    """Return the receipt with the minutes that what was measured on the accelerator allows to say.

    Green: all held in a strong sandbox, and 95 of 100 runs stay below 80 % of the limit. Red: a
    run failed, or half of them would not. Yellow: everything between, and where nothing was
    measured there. A receipt can be settled again when more is known.
    """
    if receipt.verdict == "red":
        return receipt
    found = _projection(receipt, pairs)
    note = _note(replace(receipt, accelerator=accelerator), found)
    others = [text for text in receipt.warnings if text != receipt.time_note]
    receipt = replace(
        receipt,
        accelerator=accelerator,
        time_note=note,
        warnings=(*others, note) if note else tuple(others),
    )
    if found is not None:
        receipt = replace(
            receipt,
            projected_minutes=round(found.minutes, 2),
            projected_p95=None if found.p95 is None else round(found.p95, 2),
            projected_least=None if found.calibrated else round(found.least, 2),
            calibrated=found.calibrated,
        )
    verdict = _verdict(receipt)
    if verdict != "red":
        return replace(receipt, verdict=verdict)
    return replace(receipt, verdict="red", failure=TIMEOUT, sentence=_too_slow(receipt))


def _projection(receipt: Receipt, pairs: Iterable[Pair]) -> Projection | None:
    if receipt.costs is None or not receipt.projected_images:
        return None
    return project(Costs.from_dict(receipt.costs), pairs, receipt.projected_images)


def _verdict(receipt: Receipt) -> Verdict:
    p50, p95 = receipt.projected_minutes, receipt.projected_p95
    if p50 is None or p95 is None:
        return "yellow"
    most = GOOD * (receipt.limit_minutes or float("inf"))
    if p50 > most:
        return "red"
    return "green" if p95 <= most and receipt.layer in STRONG else "yellow"


def _note(receipt: Receipt, found: Projection | None) -> str:
    where = receipt.where
    limit = receipt.limit_minutes or float("inf")
    if found is None or found.p95 is None:
        said = f"{_UNCALIBRATED}: they were measured on this machine, not on {where}"
        if found is not None and found.minutes > GOOD * limit:
            said += f", whose pace would take {found.minutes:.0f} of {limit:g} minutes"
        return f"{said}; the first saved run there tells"
    if found.p95 > GOOD * limit:
        return f"{found.p95:.1f} minutes (P95) come near the limit of {limit:g}; {found.said}"
    return ""


def _too_slow(receipt: Receipt) -> str:
    limit = receipt.limit_minutes or 0.0
    return (
        f"{receipt.projected_minutes:.1f} minutes (P95 {receipt.projected_p95:.1f}) are projected "
        f"for {receipt.projected_images} images on {receipt.where}, and 80% of the limit are "
        f"{GOOD * limit:.1f}: the rerun would give up views and members; "
        f"kagflow ensemble --minutes {GOOD * limit:.0f} chooses what fits"
    )
