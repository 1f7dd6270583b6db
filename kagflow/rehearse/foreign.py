"""Find wheels of a pack that the image's Python would refuse, whatever this machine's takes."""

from __future__ import annotations

from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from kagflow.fingerprint import Fingerprint
from kagflow.tags import target_tags


def unsupported(env: Path, fingerprint: Fingerprint) -> str:
    """Return a sentence on the first wheel that does not fit the image, "" where all do."""
    wheels = sorted(env.glob("*.whl"))
    known = frozenset(target_tags(fingerprint)) if wheels else frozenset()
    where = f"Python {fingerprint.python} of the image {fingerprint.name}"
    for wheel in wheels:
        try:
            tags = parse_wheel_filename(wheel.name)[3]
        except InvalidWheelFilename:
            return f"{wheel.name} is not a wheel's name: pip refuses it; pack again"
        if not tags & known:
            return f"{wheel.name} is not a supported wheel for {where}; pack again"
    return ""
