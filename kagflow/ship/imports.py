"""Follow the imports of what travels, by reading alone, down to the image's own packages."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kagflow.fingerprint import Fingerprint, normalise

# Gone from the standard library; distutils is given back by the image's setuptools.
_REMOVED = {12: {"asynchat", "asyncore", "imp", "smtpd"}}
_REMOVED[13] = _REMOVED[12] | {"audioop", "cgi", "crypt", "imghdr", "pipes", "telnetlib", "uu"}
# An approximate image knows no packages; these are not called as their distributions are.
_ALIASES = {
    "PIL": ("pillow",),
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "yaml": ("pyyaml",),
    "google": ("protobuf",),
    "pkg_resources": ("setuptools",),
    "distutils": ("setuptools",),
}
_SUFFIXES = (".py", ".so", ".pyd")
_NAMED = re.compile(r"[\"']([A-Za-z_][\w.]*):[A-Za-z_]\w*[\"']")
# Where statements stand in others.
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")


@dataclass(frozen=True)
class Lost:
    """Name an import that nothing provides: `who` has it; `distribution` is its own, where known.

    `surely` is False where an approximate image may hold it under a name that is not known here.
    """

    module: str
    who: str
    distribution: str
    surely: bool


@dataclass(frozen=True)
class Followed:
    """Count what was read, and list what nothing provides."""

    modules: int
    imports: int
    lost: tuple[Lost, ...]


@dataclass(frozen=True)
class _Module:
    name: str
    source: bytes | None
    package: bool


@dataclass(frozen=True)
class _Import:
    module: str
    lazy: bool
    # `from a import b` may name a module or anything else: followed where there is one.
    maybe: bool = False


def follow(
    wheels: Iterable[Path], start: Iterable[str], own: Iterable[str], fingerprint: Fingerprint
) -> Followed:
    """Read from the modules in `start` on, through the wheels, and look up what they import.

    Imports inside functions count in the packages `own`, and lead on in kagflow's, as do names in
    its strings; imports that a `try` guards count nowhere.
    """
    modules = {one.name: one for wheel in wheels for one in _modules(wheel)}
    tops = {name.partition(".")[0] for name in modules}
    strict, seen, count = set(own), set[str](), 0
    waiting = [name for name in start if name in modules]
    lost: dict[str, Lost] = {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        top = name.partition(".")[0]
        for one in _imports(modules[name], lazily=top in strict or top == "kagflow"):
            waiting += [part for part in _parents(one.module) if part in modules]
            if one.maybe or (one.lazy and top not in strict):
                continue
            count += 1
            if not _provided(one.module, modules, tops, fingerprint):
                lost.setdefault(one.module, _lost(one.module, name, fingerprint))
    return Followed(len(seen), count, tuple(lost[key] for key in sorted(lost)))


def _modules(wheel: Path) -> Iterator[_Module]:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            path = PurePosixPath(entry)
            parts = path.parts
            if parts[0].endswith(".data"):
                parts = parts[2:] if parts[1:2] in (("purelib",), ("platlib",)) else ()
            if not parts or parts[0].endswith(".dist-info") or path.suffix not in _SUFFIXES:
                continue
            stem = parts[-1].partition(".")[0]
            package = stem == "__init__"
            name = ".".join(parts[:-1] if package else [*parts[:-1], stem])
            if name:
                source = archive.read(entry) if path.suffix == ".py" else None
                yield _Module(name, source, package)


def _imports(module: _Module, *, lazily: bool) -> Iterator[_Import]:
    try:
        tree = ast.parse(module.source or b"")
    except SyntaxError:
        # Templates and code for other Pythons travel in wheels, too; nothing imports them.
        return
    if lazily:
        # kagflow finds code by name, through strings.
        named = _NAMED.findall((module.source or b"").decode(errors="replace"))
        yield from (_Import(name, lazy=True, maybe=True) for name in named)
    for node, lazy in _nodes(tree, lazily=lazily, lazy=False):
        if isinstance(node, ast.Import):
            yield from (_Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module)
            yield _Import(base, lazy, maybe=bool(node.level))
            yield from (_Import(f"{base}.{one.name}", lazy, maybe=True) for one in node.names)


def _base(node: ast.ImportFrom, module: _Module) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    up = node.level - 1 if module.package else node.level
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def _nodes(node: ast.AST, *, lazily: bool, lazy: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Yield the statements that run, or may run, with whether they wait for a call."""
    for child in (one for name in _BLOCKS for one in getattr(node, name, ())):
        inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if (
            (inner and not lazily)
            or (isinstance(child, ast.Try) and _guards(child))
            or (isinstance(child, ast.If) and _never(child.test))
        ):
            continue
        yield child, lazy
        yield from _nodes(child, lazily=lazily, lazy=lazy or inner)


def _guards(node: ast.Try) -> bool:
    caught = {
        part.id
        for handler in node.handlers
        for part in (ast.walk(handler.type) if handler.type else [ast.Name("Exception")])
        if isinstance(part, ast.Name)
    }
    return bool(caught & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def _never(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return "TYPE_CHECKING" in text or text == "__name__ == '__main__'"


def _parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _provided(
    module: str, modules: Mapping[str, _Module], held: Collection[str], image: Fingerprint
) -> bool:
    top = module.partition(".")[0]
    if top in held:
        parent = modules.get(module.rpartition(".")[0])
        # What a plain module makes as it is imported can't be seen by reading.
        return module in modules or parent is None or not parent.package
    minor = int(image.python.split(".")[1])
    if top in sys.stdlib_module_names and top not in _REMOVED.get(min(minor, 13), set()):
        return True
    if image.headers:
        return top in _tops(image)
    return _owner(top, image) in image.distributions


def _tops(image: Fingerprint) -> set[str]:
    return {top for one in image.headers.values() for top in one.tops}


def _owner(top: str, image: Fingerprint) -> str:
    """Return the distribution of a package, "" where it is not known here."""
    named = (normalise(top), *_ALIASES.get(top, ()))
    inside = next((name for name in named if name in image.distributions), None)
    if inside:
        return inside
    owners = [normalise(name) for name in _installed().get(top, ())]
    return next((name for name in owners if name in image.distributions), next(iter(owners), ""))


@functools.cache
def _installed() -> Mapping[str, list[str]]:
    # Reads every RECORD: asked only for a name that nothing else explains.
    return importlib.metadata.packages_distributions()


def _lost(module: str, who: str, image: Fingerprint) -> Lost:
    owner = _owner(module.partition(".")[0], image)
    return Lost(module, who, owner, bool(image.headers or owner or not image.approximate))
