"""Read and write YAML: 1.2 floats, no key twice, and the line of every key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kagflow.errors import UsageError


class _Loader(yaml.SafeLoader):
    """Read YAML 1.2 floats, PyYAML takes `1e-4` for a string; refuse a key that stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - its form
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                what = f"key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|nan)$"),
    list("-+.0123456789"),
)


def parse_value(text: str) -> Any:
    """Read one override's value in the file's own grammar.

    Raises UsageError when it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with one more number form
    except yaml.YAMLError as error:
        raise UsageError(f"'{text}' is not a YAML value: {error}", hint="quote it") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises UsageError when the file is missing, not YAML, or no mapping.
    """
    try:
        with path.open(encoding="utf-8") as file:
            values = yaml.load(file, Loader=_Loader)  # noqa: S506 - see parse_value
    except FileNotFoundError:
        near = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise UsageError(f"no file {path}", hint=f"there are: {near or 'none'}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path.name} is not YAML: {error}", hint="mend that line") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no mapping", hint="write `key: value` lines")
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Write a mapping as YAML, keys in their own order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def key_lines(path: Path) -> dict[str, int]:
    """Return the line of each dotted key of a YAML file; list items count as keys 0, 1, ..."""
    lines: dict[str, int] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            inner = [(key.value, key, value) for key, value in node.value]
        else:
            items = node.value if isinstance(node, yaml.SequenceNode) else []
            inner = [(str(at), item, item) for at, item in enumerate(items)]
        for name, mark, value in inner:
            lines[f"{prefix}{name}"] = mark.start_mark.line + 1
            walk(value, f"{prefix}{name}.")

    walk(yaml.compose(path.read_text(), _Loader), "")
    return lines
