"""What a run is made from, written when it begins and compared when it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from kagflow import durable
from kagflow.errors import RefusedError
from kagflow.learn import checkpoint, provenance
from kagflow.learn.cache import data_hash
from kagflow.learn.job import Job
from kagflow.progress import Progress

CONFIG, PROVENANCE = "config.yaml", "provenance.json"
# Written into config.yaml by the run itself; not part of what was asked for.
RESOLVED = "resolved"
_LISTED = 12


@dataclass(frozen=True)
class Standing:
    """How a job's folder stands to the job: `other` and `code` name what is not as it was."""

    begun: bool
    finished: bool = False
    other: tuple[str, ...] = ()
    code: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the job would not be what the folder holds; code counts until it is finished."""
        return bool(self.other) or (bool(self.code) and not self.finished)


def standing(job: Job) -> Standing:
    """Compare a job with what its folder was begun from; writes nothing."""
    return _compare(job, provenance.code_files(job.recipe))


def begin(job: Job, device: str, progress: Progress) -> bool:
    """Write config.yaml and provenance.json, or compare with them; tell whether it has finished.

    Raises RefusedError where the run was begun from another recipe, task, fold, data or code,
    naming each difference; `job.force` goes on with an unfinished one and notes it there.
    """
    files = provenance.code_files(job.recipe)
    config, path = _config(job, provenance.digest(files)), job.run_dir / CONFIG
    now = _compare(job, files)
    if not now.begun:
        found = provenance.collect(job.recipe, data=config["data"], device=device)
        durable.write_json(job.run_dir / PROVENANCE, found | {"files": files})
        _write(path, config)
        return False
    changes = [*now.other, *now.code]
    if not now.refused:
        if now.code:
            progress.note(
                f"since {job.label} finished, its code has changed: {'; '.join(now.code)}"
            )
        return now.finished
    if now.finished or not job.force:
        raise _refusal(job, changes, finished=now.finished)
    before = dict(yaml.safe_load(path.read_text())) if path.is_file() else {}
    _record(job, changes, files)
    _write(path, config | {key: before[key] for key in (RESOLVED,) if key in before})
    progress.note(f"going on in spite of: {'; '.join(changes)}")
    return now.finished


def _compare(job: Job, files: Mapping[str, str]) -> Standing:
    path = job.run_dir / CONFIG
    if not path.is_file():
        # Nobody can tell whose checkpoints these are.
        orphans = checkpoint.steps(job.run_dir)
        lost = (f"there are checkpoints but no {CONFIG}",) if orphans else ()
        return Standing(begun=bool(orphans), other=lost)
    before, config = dict(yaml.safe_load(path.read_text())), _config(job, provenance.digest(files))
    finished = (job.run_dir / "run.json").is_file()
    if finished:
        # How many processes made it no longer matters.
        before["processes"] = config["processes"]
    code = [] if before.get("code") == config["code"] else _code_changes(job.run_dir, files)
    other = differences(_asked(before), _asked(config))
    return Standing(begun=True, finished=finished, other=tuple(other), code=tuple(code))


def resolved(run_dir: Path) -> dict[str, Any]:
    """Return the recipe's keys that the run found other values for, by key."""
    config = yaml.safe_load((run_dir / CONFIG).read_text())
    return dict(config.get(RESOLVED) or {})


def resolve(run_dir: Path, values: Mapping[str, Any]) -> None:
    """Write down values that the run found for keys of the recipe, in place of earlier ones."""
    path = run_dir / CONFIG
    config = dict(yaml.safe_load(path.read_text()))
    if dict(values) != config.get(RESOLVED, {}):
        _write(path, config | {RESOLVED: dict(values)})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say of each dotted key that differs what it was and what it is."""
    old, new = _flat(before), _flat(now)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [f"{key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in keys]


def _config(job: Job, code: str) -> dict[str, Any]:
    return {
        "recipe": dict(job.recipe),
        "task": job.spec.to_dict(),
        "fold": job.fold,
        "data": data_hash(job.data),
        "processes": job.processes,
        "code": code,
    }


def _asked(config: Mapping[str, Any]) -> dict[str, Any]:
    asked = {key: value for key, value in config.items() if key not in (RESOLVED, "code")}
    return {"processes": 1} | asked


def _write(path: Path, config: Mapping[str, Any]) -> None:
    durable.write_text(path, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def _code_changes(run_dir: Path, now: Mapping[str, str]) -> list[str]:
    """Name the files of code that are not what they were when the run began."""
    before = _read(run_dir / PROVENANCE).get("files") or {}
    if not before:
        return ["the code it was begun with is not known"]
    signs = {
        **{name: f"+{name}" for name in now.keys() - before.keys()},
        **{name: f"-{name}" for name in before.keys() - now.keys()},
        **{name: name for name in now.keys() & before.keys() if now[name] != before[name]},
    }
    shown = [signs[name] for name in sorted(signs)]
    more = [f"and {len(shown) - _LISTED} more"] if len(shown) > _LISTED else []
    return ["code: " + ", ".join(shown[:_LISTED] + more)]


def _refusal(job: Job, changes: list[str], *, finished: bool) -> RefusedError:
    again = "" if finished else ", or --force-resume, which the run's provenance will say"
    return RefusedError(
        f"{job.run_dir} was begun from something else: {'; '.join(changes)}",
        hint=f"name the run otherwise (name=...), put it back{again}",
    )


def _record(job: Job, changes: list[str], files: Mapping[str, str]) -> None:
    path = job.run_dir / PROVENANCE
    found = _read(path)
    entry = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "changes": changes,
        "code": found.get("code"),
    }
    forced = [*found.get("forced", []), entry]
    now = {"code": provenance.digest(files), "files": dict(files), "forced": forced}
    durable.write_json(path, found | now)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return out
