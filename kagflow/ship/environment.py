"""What the image's Python is to a resolver: values of its markers, a platform's name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import Requirement

from kagflow.fingerprint import Fingerprint
from kagflow.tags import glibc_minor

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


def uv_platform(fingerprint: Fingerprint) -> str:
    """Return the newest platform that uv knows by name and the image's glibc covers."""
    minor = glibc_minor(fingerprint)
    newest = next((one for one in _UV_GLIBC if one <= minor), _UV_GLIBC[-1])
    return f"x86_64-manylinux_2_{newest}"
