"""Which image packs are made for: probed by a kernel of its own, compared, and chosen."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement

from kagflow import fingerprint
from kagflow.errors import DataError, RemoteError
from kagflow.fingerprint import Fingerprint, Headers, normalise
from kagflow.ship.doctor_live import Live
from kagflow.ship.doctor_probe import facts, follow, probe_push

Kind = Literal["cpu", "gpu", "tpu"]
# Beside the steps of a first contact, in the same notes: a killed probe goes on.
STEPS: Mapping[Kind, int] = {"cpu": 11, "gpu": 12, "tpu": 13}
SHAPES: Mapping[Kind, str] = {"cpu": "None", "gpu": "NvidiaTeslaT4", "tpu": "TpuV5E8"}
PRICES: Mapping[Kind, str] = {
    "cpu": "about two minutes of a CPU session, no accelerator hours",
    "gpu": "about two minutes of a GPU session: 0.03 GPU hours",
    "tpu": "about two minutes of a TPU session: 0.03 TPU hours",
}
TIMEOUT_S = 600
FACTS = ("python", "glibc", "cuda", "digest")


@dataclass(frozen=True)
class Moved:
    """Say what differs from one image to another: facts and distributions, as (before, after)."""

    facts: dict[str, tuple[str, str]]
    distributions: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Touched:
    """Name a pack that relies on what moved."""

    competition: str
    pack: str
    moved: tuple[str, ...]


def kind_of(accelerator: str) -> Kind:
    """Return which image runs with an accelerator as the API names it: "" and "None" have none."""
    if accelerator.lower() in ("", "none"):
        return "cpu"
    return "tpu" if accelerator.lower().startswith("tpu") else "gpu"


def known(folder: Path) -> list[Fingerprint]:
    """Return what was probed, the newest first; raises DataError for a damaged file."""
    found = [fingerprint.read(file) for file in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda image: image.probed, reverse=True)


def chosen(folder: Path, accelerator: str) -> Fingerprint:
    """Return the image to pack for: the newest probed one of that kind, else the shipped one."""
    kind = kind_of(accelerator)
    fitting = (image for image in known(folder) if image.accelerator == kind)
    return next(fitting, None) or fingerprint.load_snapshot()


def probe(live: Live, folder: Path) -> Fingerprint:
    """Run a kernel that tells its image, keep the answer in `folder` and return it.

    `live.machine_shape` says on which machine. Raises RemoteError where the kernel failed or told
    less than all.
    """
    kind = kind_of(live.machine_shape)
    step = STEPS[kind]
    live.notes.begin(step)
    push = probe_push(live, step, "image", {}, shape=live.machine_shape, timeout_s=TIMEOUT_S)
    status, log = follow(live, step, push)
    told = facts(log)
    live.notes.put(step, ended=datetime.now(UTC).date().isoformat())
    if not status.complete:
        reason = status.message or "no reason given"
        raise RemoteError(f"the probe ended as {status.name}: {reason}", hint=_again())
    image = read_answer(told, kind)
    fingerprint.write(image, folder)
    return image


def read_answer(told: Mapping[str, Any], kind: Kind) -> Fingerprint:
    """Return the fingerprint that a probe told.

    Raises RemoteError where a part is missing: a log may be cut.
    """
    found = told.get("distributions") or {}
    if "end" not in told or told.get("count") != len(found) or not found:
        text = told.get("failed") or f"{len(found)} of {told.get('count', '?')} distributions"
        raise RemoteError(f"the probe's log is not whole: {text}", hint=_again())
    image = Fingerprint(
        name="",
        python=str(told["python"]),
        glibc=str(told["glibc"]),
        cuda=str(told.get("cuda", "")),
        approximate=False,
        distributions={normalise(name): str(one["version"]) for name, one in found.items()},
        headers={normalise(name): _headers(one) for name, one in found.items()},
        digest=str(told.get("digest", "")),
        accelerator=kind,
        arches=tuple(told.get("arches") or ()),
        probed=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    # Named by its content: probing the same image again makes no other packs.
    return Fingerprint(**{**vars(image), "name": f"probed-{kind}-{image.content()}"})


def diff(before: Fingerprint, after: Fingerprint) -> Moved:
    """Return what moved between two images; "" stands for what is not there."""
    names = sorted(set(before.distributions) | set(after.distributions))
    pairs = {
        name: (before.distributions.get(name, ""), after.distributions.get(name, ""))
        for name in names
    }
    told = {name: (str(getattr(before, name)), str(getattr(after, name))) for name in FACTS}
    return Moved(
        {name: pair for name, pair in told.items() if pair[0] != pair[1]},
        {name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )


def touched(packs: Path, moved: Moved, image: Fingerprint) -> list[Touched]:
    """List the packs below `packs/<competition>/` that rely on what moved, directly or not.

    What the image's distributions need of each other is known of a probed `image` only.
    """
    found = []
    for file in sorted(packs.glob("*/*/env/manifest.json")):
        try:
            manifest = json.loads(file.read_text())
            relied = set(manifest["relied_on"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no manifest: {error!r}", hint="pack again") from None
        names = _needed(relied, image) & set(moved.distributions)
        loud = [name for name in ("python", "glibc", "cuda") if name in moved.facts]
        if names or loud:
            home = file.parent.parent
            found.append(Touched(home.parent.name, home.name, (*loud, *sorted(names))))
    return found


def _needed(names: Collection[str], image: Fingerprint) -> set[str]:
    found, waiting = set(names), list(names)
    while waiting:
        for name in _requires(waiting.pop(), image):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _requires(name: str, image: Fingerprint) -> Iterator[str]:
    for text in image.headers.get(name, Headers()).requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if "extra" not in str(requirement.marker):
            yield normalise(requirement.name)


def _headers(value: Mapping[str, Any]) -> Headers:
    return Headers(
        requires=tuple(map(str, value.get("requires") or ())),
        extras=tuple(map(str, value.get("extras") or ())),
        requires_python=str(value.get("requires_python") or ""),
        tops=tuple(map(str, value.get("tops") or ())),
    )


def _again() -> str:
    return "kagflow target probe runs it again; its log is on the page of kernel kagflow-probe"
