"""What each step of a first contact does, and how what comes back is read."""

from __future__ import annotations

import json
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kagflow import fingerprint
from kagflow.errors import NetworkError, RemoteError
from kagflow.ship import doctor
from kagflow.ship.doctor_costs import gpu_kernel, submission
from kagflow.ship.doctor_live import Live, Step
from kagflow.ship.doctor_probe import NAME, TITLE, facts, follow, probe_push
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_types import DEAD
from kagflow.ship.waits import poll

# Places that answer everywhere but behind a cut network.
OUTSIDE = (("www.kaggle.com", 443), ("1.1.1.1", 443), ("pypi.org", 443))
ZIP, WHEEL, INNER = "probe.zip", "kagflow_probe-1-py3-none-any.whl", "inner.txt"


# -- 1: reads


def read_only(live: Live) -> str:
    """Ask who we are, what we may, and what is left; nothing is changed."""
    remote = live.remote
    greeting = doctor.greet(remote.transport)
    if greeting is None:
        raise NetworkError(f"no answer from {remote.source}", hint="check the connection")
    shape = greeting.shape
    live.tell(
        "error_shape", value=shape, found=f"a refusal came {shape}", believed=shape == "nested"
    )
    parts = [f"account {remote.account()}", *_competition(live)]
    view = remote.quota()
    if view.gpu:
        parts.append(f"{view.gpu.left / 3600:.1f} of {view.gpu.total / 3600:.1f} GPU hours left")
    if view.refresh:
        at = view.refresh
        sharp = (at.hour, at.minute) == (0, 0)
        text = f"the next week begins {at:%A %H:%M} UTC"
        live.tell(
            "quota_week", value=at.weekday(), found=text, believed=sharp and at.weekday() == 5
        )
    return "; ".join(parts)


def _competition(live: Live) -> list[str]:
    if live.task is None:
        return ["no competition named"]
    info = live.remote.competition(live.task.slug)
    if not info.entered:
        return [f"{info.slug}: rules NOT accepted"]
    limits = live.remote.limits(info.slug)
    return [f"{info.slug}: rules accepted, {limits.left} submissions left today"]


# -- 2: a dataset


def dataset(live: Live) -> str:
    """Upload a tiny private dataset and a second version of it; time how long each takes."""
    seconds = [_version(live, number) for number in (1, 2)]
    slowest = max(seconds)
    text = f"versions bound after {seconds[0]:.1f} and {seconds[1]:.1f} s"
    live.tell("dataset_ready_s", value=slowest, found=text, believed=slowest <= live.pace.ready_s)
    return text


def _version(live: Live, number: int) -> float:
    """Return the seconds from the upload's end until the version bound."""
    remote, nonce = live.remote, live.notes.of(2)["nonce"]
    ref = f"{remote.account()}/{NAME}"
    with tempfile.TemporaryDirectory(prefix="kagflow-probe-") as made:
        _write_probe(Path(made), nonce, number)
        push = DatasetPush(ref, TITLE, Path(made), f"kagflow probe {nonce}-{number}")
        version = live.notes.once(
            2, f"version{number}",
            lambda: remote.dataset_create_or_version(push, progress=live.progress),
        )  # fmt: skip
    sent = live.notes.once(2, f"sent{number}", time.time)

    def bound() -> bool:
        status, info = remote.dataset_status(ref), remote.dataset(ref)
        if status in DEAD:
            raise RemoteError(f"Kaggle could not process dataset {ref}: {status}")
        return status == "READY" and info is not None and info.current >= version

    poll(remote, bound, bool, limit_s=3600, what=f"dataset {ref}, version {version}")
    return float(live.notes.once(2, f"seconds{number}", lambda: max(0.0, time.time() - sent)))


def _write_probe(folder: Path, nonce: str, number: int) -> None:
    note = {"probe": "kagflow", "nonce": nonce, "number": number}
    (folder / "probe.txt").write_text(json.dumps(note).ljust(256) + "\n")
    for name in (ZIP, WHEEL):
        with zipfile.ZipFile(folder / name, "w") as archive:
            # A fixed time: the same try must upload the same bytes.
            archive.writestr(zipfile.ZipInfo(INNER), f"{nonce} {number}\n")


# -- 3: a kernel without accelerator


def cpu_kernel(live: Live) -> str:
    """Run an offline kernel that tells mounts, image and network."""
    known = live.notes.of(2)
    sources = (f"{live.remote.account()}/{NAME}/{known['version1']}",) if known.get("ended") else ()
    image = fingerprint.load_snapshot()
    targets = [*OUTSIDE, *_own_server(live)]
    push = probe_push(
        live, 3, "cpu", {"distributions": sorted(image.distributions), "targets": targets},
        datasets=sources,
    )  # fmt: skip
    status, log = follow(live, 3, push)
    told = facts(log)
    if not status.complete or "end" not in told:
        raise RemoteError(f"the probe ended as {status.name}: {status.message or 'no reason'}")
    _tell_mounts(live, told, pinned=bool(sources))
    _tell_network(live, told)
    _tell_image(live, told, image)
    return "; ".join(answer.found for answer in live.found)


def _own_server(live: Live) -> list[tuple[str, int]]:
    # On this machine the server itself is what a kernel with a network would reach.
    parts = urlsplit(live.remote.source)
    local = live.remote.profile == "local"
    return [(parts.hostname, parts.port)] if local and parts.hostname and parts.port else []


def _tell_mounts(live: Live, told: dict[str, Any], *, pinned: bool) -> None:
    probe = told.get("probe")
    if not pinned:
        return
    if probe is None:
        raise RemoteError("the probe's dataset was not mounted", hint="run step 2, then step 3")
    nested = f"datasets/{live.remote.account()}/{NAME}"
    layout = "nested" if probe["folder"] == nested else "flat"
    live.tell(
        "mount_layout",
        value=layout,
        found=f"the dataset is at {probe['folder']}",
        believed=layout == "nested",
    )
    first = probe["number"] == 1
    live.tell(
        "version_pin_honoured",
        value=first,
        found=f"asked for version 1, got {probe['number']}",
        believed=first,
    )
    names = set(probe["names"])
    unpacked, whole = ZIP not in names, WHEEL in names
    live.tell(
        "archives_unpacked",
        value=unpacked,
        found=f"a .zip arrives {_shape(not unpacked)}",
        believed=unpacked,
    )
    live.tell("wheels_whole", value=whole, found=f"a .whl arrives {_shape(whole)}", believed=whole)


def _shape(whole: object) -> str:
    return "as it was sent" if whole else "unpacked"


def _tell_network(live: Live, told: dict[str, Any]) -> None:
    reached = told.get("network")
    if reached is None:
        return
    text = f"the network is open to {', '.join(reached)}" if reached else "no network answers"
    live.tell("internet_off", value=not reached, found=text, believed=not reached)


def _tell_image(live: Live, told: dict[str, Any], image: fingerprint.Fingerprint) -> None:
    here, python = told.get("distributions") or {}, str(told.get("python"))
    differ = sorted(
        name
        for name, version in image.distributions.items()
        if here.get(name, "").partition("+")[0] != version.partition("+")[0]
    )
    same = python.startswith(f"{image.python}.") and not differ
    text = f"Python {python}; {len(differ)} of {len(image.distributions)} distributions differ"
    value = {"python": python, "glibc": told.get("glibc"), "distributions": here}
    live.tell("image", value=value, found=f"{text} from {image.name}", believed=same)


STEPS = (
    Step(1, "reads only: account, rules, limits, quota", "free, changes nothing", read_only),
    Step(
        2, "a private 1 KB dataset 'kagflow-probe', twice",
        "free; the dataset stays until you delete it", dataset,
    ),
    Step(
        3, "an offline CPU kernel 'kagflow-probe'",
        "about two minutes of a CPU session, no accelerator hours", cpu_kernel,
    ),
    Step(
        4, "a GPU kernel that outlives a two-minute limit",
        "0.04 GPU hours, 0.07 where the limit is not honoured; up to half an hour of waiting",
        gpu_kernel,
    ),
    Step(
        5, "an all-empty submission by a kernel that waits",
        "one of today's submissions; 0.2 GPU hours where reruns are billed; up to two hours",
        submission, named=True,
    ),
)  # fmt: skip
