"""Tell apart what the image's Python would refuse of a pack, and what this machine's alone does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from kagflow import standins
from kagflow.fingerprint import Fingerprint
from kagflow.rehearse import verdict
from kagflow.rehearse.verdict import Failure
from kagflow.tags import target_tags


def refused(env: Path, fingerprint: Fingerprint) -> Failure | None:
    """Return a failure for the first wheel that does not fit the image, None where all do."""
    wheels = sorted(env.glob("*.whl"))
    known = frozenset(target_tags(fingerprint)) if wheels else frozenset()
    where = f"Python {fingerprint.python} of the image {fingerprint.name}"
    for wheel in wheels:
        try:
            tags = parse_wheel_filename(wheel.name)[3]
        except InvalidWheelFilename:
            said = f"{wheel.name} is not a wheel's name: pip refuses it; pack again"
            return Failure(verdict.THREW, said)
        if not tags & known:
            said = f"{wheel.name} is not a supported wheel for {where}; pack again"
            return Failure(verdict.THREW, said)
    return None


def attributed(failure: Failure | None, env: Path, fingerprint: Fingerprint) -> Failure | None:
    """Return the failure, its sentence another where an import failed for a lack of this machine.

    The pack brings what the image can import; a run that ends here proves nothing of it.
    """
    module = verdict.missing(failure.sentence) if failure else ""
    why = standins.lack(module, env, fingerprint) if module else ""
    return replace(failure, sentence=why) if failure and why else failure
