"""Which wheels the Python of an image installs."""

from __future__ import annotations

from packaging.tags import Tag, compatible_tags, cpython_tags

from kagflow.fingerprint import Fingerprint


def platforms(fingerprint: Fingerprint) -> list[str]:
    """List every platform tag that the image's glibc takes, best first.

    pip expands none of them: a bare `manylinux_2_35_x86_64` would hide all older wheels.
    """
    minor = glibc_minor(fingerprint)
    modern = [f"manylinux_2_{number}_x86_64" for number in range(minor, 4, -1)]
    legacy = [f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")]
    return [*modern, *legacy, "linux_x86_64"]


def target_tags(fingerprint: Fingerprint) -> list[Tag]:
    """List the wheel tags that the image's Python installs, best first."""
    major, minor = (int(part) for part in fingerprint.python.split(".")[:2])
    version, interpreter, known = (major, minor), f"cp{major}{minor}", platforms(fingerprint)
    return [
        *cpython_tags(version, abis=[interpreter], platforms=known),
        *compatible_tags(version, interpreter, platforms=known),
    ]


def glibc_minor(fingerprint: Fingerprint) -> int:
    """Return the second number of the image's glibc: 35 of 2.35."""
    return int(fingerprint.glibc.split(".")[1])
