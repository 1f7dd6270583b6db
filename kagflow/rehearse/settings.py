"""How this embedded Kaggle behaves: one JSON file in its store, read anew for every answer.

The defaults are the reading of Kaggle that kagflow was built on. Each key can contradict one
assumption, so that a client that probes, or trusts too much, can be tested against the contrary.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError

FILE = "settings.json"
CHOICES: Mapping[str, tuple[object, ...]] = {
    "mount_layout": ("nested", "flat", "random"),
    "rerun": (None, "hidden", "none"),
    "error_shape": ("nested", "flat", "html"),
    "timeout_status": ("CANCEL_ACKNOWLEDGED", "ERROR"),
}


@dataclass(frozen=True)
class Settings:
    """Hold what may be otherwise than assumed; seconds are wall clock."""

    # -- where a kernel finds its inputs, and in what
    mount_layout: str = "nested"  # nested, flat, or random: drawn for every run from the seed
    mount_seed: int = 0
    image: str = "kaggle-image-v170-approx"  # the fingerprint that runs see
    image_digest: str = ""  # what a run is told to be its image
    archives_unpacked: bool = True  # else an uploaded zip arrives as it was sent
    wheels_whole: bool = True  # else a wheel is unpacked like any archive
    version_pin_honoured: bool = True  # else owner/slug/N mounts the newest version
    internet_really_off: bool = True  # else a kernel's connections seem to succeed
    accelerator_substituted: str | None = None  # the GPU that a run gets whatever was asked for

    # -- what runs cost and when they end
    rerun: str | None = None  # overrides every competition's own: hidden or none
    rerun_billed: bool = False
    quota_lag_s: float = 0.0  # until a finished run shows in the quota
    gpu_hours: float = 30.0
    tpu_hours: float = 20.0
    quota_weekday: int = 5  # the week renews at this day's 00:00 UTC; Monday is 0
    gpu_slots: int = 2
    tpu_slots: int = 2
    cpu_slots: int = 5
    session_timeout_honoured: bool = True  # else only Kaggle's own limit ends a run
    timeout_status: str = "CANCEL_ACKNOWLEDGED"
    kernel_queue_s: float = 0.0  # a run waits so long at least

    # -- when things show
    dataset_ready_s: float = 0.2  # spread over the states before READY
    submission_listed_s: float = 0.0
    private_before_deadline: bool = True  # else private scores show after the deadline only
    late_submissions: bool = True  # scored after the deadline, both parts at once; else refused
    status_version_honoured: bool = True  # else a status is always the newest version's
    slug_from_title: bool = True  # else a new kernel keeps the slug that the push names

    # -- the account and the wire
    rules_accepted: bool = True
    phone_verified: bool = True  # else GPU, TPU and internet are refused
    error_shape: str = "nested"
    link_s: float = 3600.0  # a signed link's life
    hash_sent: bool = False  # x-goog-hash on downloads
    clock_skew_s: float = 0.0  # how far the Date header is ahead


def read(store_dir: Path) -> Settings:
    """Return a store's settings, the defaults where nothing is set.

    Raises DataError for a damaged file, an unknown key or a value that can't be.
    """
    path = store_dir / FILE
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable: {error}", hint=f"rm {path}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: not a JSON object", hint=f"rm {path}")
    return _checked(values, path)


def change(store_dir: Path, **values: Any) -> Settings:
    """Set some keys and keep the others; raises DataError as `read` does, changing nothing."""
    path = store_dir / FILE
    made = _checked({**asdict(read(store_dir)), **values}, path)
    default = asdict(Settings())
    durable.write_json(
        path, {key: value for key, value in asdict(made).items() if value != default[key]}
    )
    return made


def _checked(values: Mapping[str, Any], path: Path) -> Settings:
    default = asdict(Settings())
    for key, value in values.items():
        if key not in default:
            near = difflib.get_close_matches(key, default, 1)
            raise DataError(f"{path}: unknown key '{key}'", hint=f"did you mean {near or '...'}?")
        if not _fits(key, value, default[key]):
            allowed = CHOICES.get(key) or type(default[key]).__name__
            raise DataError(f"{path}: {key} = {value!r}", hint=f"allowed: {allowed}")
    return Settings(**values)


def _fits(key: str, value: object, default: object) -> bool:
    if key in CHOICES:
        return value in CHOICES[key]
    if default is None:
        return value is None or isinstance(value, str)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


KEYS = tuple(field.name for field in fields(Settings))
