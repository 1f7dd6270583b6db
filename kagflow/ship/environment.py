"""What the image's Python is to a resolver: values of its markers, tags of its wheels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags

from kagflow.fingerprint import Fingerprint

# What `uv --python-platform` knows of glibc, newest first.
_UV_GLIBC = (*range(40, 30, -1), 28, 17)


def target_environment(fingerprint: Fingerprint) -> dict[str, str]:
    """Return the values that environment markers take inside the image (PEP 508)."""
    python = fingerprint.python
    full = python if python.count(".") > 1 else f"{python}.0"
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


def applies(
    requirement: Requirement, environment: Mapping[str, str], extras: Iterable[str] = ()
) -> bool:
    """Tell whether a requirement counts in an environment, with some of the extras asked for."""
    marker = requirement.marker
    if marker is None:
        return True
    try:
        return any(
            marker.evaluate({**environment, "extra": extra}) for extra in sorted(extras) or [""]
        )
    except UndefinedEnvironmentName:
        return False


def platforms(fingerprint: Fingerprint) -> list[str]:
    """List every platform tag that the image's glibc takes, best first.

    pip expands none of them: a bare `manylinux_2_35_x86_64` would hide all older wheels.
    """
    minor = _glibc_minor(fingerprint)
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


def uv_platform(fingerprint: Fingerprint) -> str:
    """Return the newest platform that uv knows by name and the image's glibc covers."""
    minor = _glibc_minor(fingerprint)
    newest = next((one for one in _UV_GLIBC if one <= minor), _UV_GLIBC[-1])
    return f"x86_64-manylinux_2_{newest}"


def _glibc_minor(fingerprint: Fingerprint) -> int:
    return int(fingerprint.glibc.split(".")[1])
