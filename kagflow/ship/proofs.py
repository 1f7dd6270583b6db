"""Prove, without the image, that a pack installs and imports there; each proof is recorded."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from kagflow import durable
from kagflow.errors import DataError
from kagflow.fingerprint import Fingerprint, normalise
from kagflow.ship import imports, wheelfile
from kagflow.ship.environment import applies, target_environment
from kagflow.ship.ghost import ghost, headers_of
from kagflow.ship.resolver import constraints
from kagflow.ship.sources import Sources
from kagflow.ship.uv_run import NoSolutionError, plan_install
from kagflow.ship.wheels import Closure
from kagflow.tags import target_tags

SCHEMA = 1
SUFFIX = ".proofs.json"
ENTRY = "kagflow.infer.kernel"
_TARGET = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*")


@dataclass(frozen=True)
class Bundle:
    """Say what is proved: every wheel that travels, and what the kernel asks of them.

    `asked` are requirements, `own` the competition's package, `config` what the kernel runs;
    `replaced` maps what of the image gives way to its version there. `ghosts` is where images are
    kept as metadata.
    """

    wheels: tuple[Path, ...]
    asked: tuple[str, ...]
    own: str
    config: Mapping[str, Any]
    fingerprint: Fingerprint
    ghosts: Path
    replaced: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Proof:
    """State what was proved in one sentence; `open` lists what could not be, though nothing broke.

    `held` is None for what is proved elsewhere.
    """

    name: str
    text: str
    held: bool | None = True
    open: tuple[str, ...] = ()


def prove(bundle: Bundle) -> tuple[Proof, ...]:
    """Return the proofs of a bundle.

    Raises DataError at the first that fails, naming the wheel or the import, and how to mend it.
    """
    return (
        _tags(bundle),
        _closure(bundle),
        _installs(bundle),
        _imports(bundle),
        Proof("rehearsal", "kagflow submit --dry-run runs it; its receipt lies beside", held=None),
    )


def write(pack: Path, name: str, proofs: Iterable[Proof], closure: Closure) -> Path:
    """Keep the proofs beside a pack, whose own bytes do not depend on this machine.

    With them stands how the wheels were chosen, and where each came from.
    """
    value = {
        "schema": SCHEMA,
        "pack": name,
        "resolver": f"this machine's own wheels: {closure.offline}" if closure.offline else "uv",
        "replaced": closure.replaced,
        "wheels": {
            one.file.name: {"from": one.origin, "why": one.why, "sha256": one.sha256}
            for one in closure.wheels
        },
        "proofs": [asdict(one) for one in proofs],
    }
    file = pack.with_name(f"{name}{SUFFIX}")
    durable.write_json(file, value)
    return file


def _tags(bundle: Bundle) -> Proof:
    known = set(target_tags(bundle.fingerprint))
    for wheel in bundle.wheels:
        named = wheelfile.wheel_tags(wheel)
        if named is None or not named[2] & known:
            raise DataError(
                f"{wheel.name} does not install on Python {bundle.fingerprint.python}, glibc "
                f"{bundle.fingerprint.glibc}: its name carries another tag",
                hint=f"rm {wheel}, and pack again",
            )
    return Proof("tags", f"{len(bundle.wheels)} wheels, {len(known)} tags that install")


def _closure(bundle: Bundle) -> Proof:
    versions, extras, needs = _stated(bundle)
    environment = target_environment(bundle.fingerprint)
    checked, faults = 0, []
    for who, requirement in needs:
        if not applies(requirement, environment, extras.get(normalise(who), ())):
            continue
        checked += 1
        version = versions.get(normalise(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{who} needs {requirement}, there is {version or 'none'}")
    if faults:
        raise DataError(
            f"the wheels are not complete: {'; '.join(faults)}",
            hint="kagflow pack --explain shows who asks for what",
        )
    return Proof("closure", f"{checked} requirements met", open=tuple(_broken(bundle, versions)))


def _stated(
    bundle: Bundle,
) -> tuple[dict[str, str], dict[str, set[str]], list[tuple[str, Requirement]]]:
    """Return all versions, the extras asked of each, and every requirement with its owner."""
    versions = dict(bundle.fingerprint.distributions)
    needs = [("the kernel", Requirement(text)) for text in bundle.asked]
    for wheel in bundle.wheels:
        metadata = wheelfile.read_metadata(wheel, whole=False)
        versions[normalise(metadata["Name"])] = metadata["Version"]
        texts = metadata.get_all("Requires-Dist", [])
        needs += [(str(metadata["Name"]), Requirement(text)) for text in texts]
    extras: dict[str, set[str]] = {}
    for _, requirement in needs:
        extras.setdefault(normalise(requirement.name), set()).update(requirement.extras)
    for name in set(extras) & set(bundle.fingerprint.distributions):
        if extras[name]:
            known = map(Requirement, headers_of(bundle.fingerprint, name).requires)
            needs += [(name, one) for one in known if "extra" in str(one.marker)]
    return versions, extras, needs


def _broken(bundle: Bundle, versions: Mapping[str, str]) -> Iterable[str]:
    """List what the image's own distributions ask of those that give way; it was allowed."""
    for name, headers in sorted(bundle.fingerprint.headers.items()):
        for requirement in map(Requirement, headers.requires):
            other = normalise(requirement.name)
            if other in bundle.replaced and requirement.marker is None:
                version = versions[other]
                if not requirement.specifier.contains(version, prereleases=True):
                    yield f"the image's {name} needs {requirement}, the pack brings {version}"


def _installs(bundle: Bundle) -> Proof:
    image = bundle.fingerprint
    with tempfile.TemporaryDirectory(prefix="kagflow-proof-") as folder:
        for wheel in bundle.wheels:
            Path(folder, wheel.name).symlink_to(wheel.resolve())
        try:
            changes = plan_install(
                bundle.asked,
                fingerprint=image,
                into=ghost(image, bundle.ghosts),
                sources=Sources(indexes=()),
                constraints=constraints(image, set(bundle.replaced)),
                find_links=[Path(folder)],
                offline=True,
            )
        except NoSolutionError as error:
            raise DataError(
                f"the wheels do not install together into {image.name}: {error.message}",
                hint="kagflow pack --explain shows who asks for what",
            ) from None
    expected = {}
    for wheel in bundle.wheels:
        named = wheelfile.wheel_tags(wheel)
        assert named is not None
        expected[normalise(named[0])] = named[1]
    if changes.installed != expected or set(changes.removed) != set(bundle.replaced):
        moved = set(changes.installed.items()) ^ set(expected.items())
        odd = ", ".join(f"{name} {version}" for name, version in sorted(moved))
        raise DataError(f"the wheels are not what installing them takes: {odd}")
    text = f"uv installs {len(expected)} wheels offline, and changes nothing else"
    return Proof("install", text)


def _imports(bundle: Bundle) -> Proof:
    start = [ENTRY, *sorted(set(_named(bundle.config)))]
    found = imports.follow(bundle.wheels, start, [bundle.own], bundle.fingerprint)
    surely = [one for one in found.lost if one.surely]
    if surely:
        told = "; ".join(
            f"{one.who} imports {one.module}"
            + (f" ({one.distribution})" if one.distribution else "")
            for one in surely
        )
        raise DataError(
            f"neither {bundle.fingerprint.name} nor the pack has what is imported: {told}",
            hint="name its distribution under `requires` in competition.yaml",
        )
    return Proof(
        "imports",
        f"{found.imports} imports of {found.modules} modules lead into the image or the pack",
        open=tuple(f"{one.who} imports {one.module}: not known here" for one in found.lost),
    )


def _named(value: Any) -> Iterable[str]:
    """Yield the modules that a config names as `module:attribute`."""
    if isinstance(value, str):
        found = _TARGET.fullmatch(value)
        if found:
            yield found[1]
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _named(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _named(one)
