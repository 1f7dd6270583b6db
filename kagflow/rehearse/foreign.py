"""Find wheels of a pack that the image's Python would refuse, whatever this machine's takes."""

from __future__ import annotations

from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from kagflow.fingerprint import Fingerprint


def unsupported(env: Path, fingerprint: Fingerprint) -> str:
    """Return a sentence on the first wheel that does not fit the image, "" where all do."""
    wheels = sorted(env.glob("*.whl"))
    known = _tags(fingerprint) if wheels else frozenset()
    where = f"Python {fingerprint.python} of the image {fingerprint.name}"
    for wheel in wheels:
        try:
            tags = parse_wheel_filename(wheel.name)[3]
        except InvalidWheelFilename:
            return f"{wheel.name} is not a wheel's name: pip refuses it; pack again"
        if not tags & known:
            return f"{wheel.name} is not a supported wheel for {where}; pack again"
    return ""


def _tags(fingerprint: Fingerprint) -> frozenset[Tag]:
    """Return the tags of the image: Linux on x86_64, up to its glibc."""
    version = _numbers(fingerprint.python)
    major, minor = _numbers(fingerprint.glibc)
    platforms = [f"manylinux_{major}_{older}_x86_64" for older in range(minor, 4, -1)]
    platforms += [f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")]
    platforms.append("linux_x86_64")
    own = cpython_tags(version, platforms=platforms)
    shared = compatible_tags(version, f"cp{version[0]}{version[1]}", platforms)
    return frozenset([*own, *shared])


def _numbers(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
