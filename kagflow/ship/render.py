"""Fill a shipped template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kagflow import resources


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill `templates/<template>`; `{{ value | literal }}` writes a Python or YAML literal.

    A name that the template uses and `values` lacks is an error, never an empty place.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.templates()),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - what is written is Python and YAML, not HTML
    )
    environment.filters["literal"] = _literal
    return environment.get_template(template).render(**values)


def _literal(value: Any) -> str:
    # JSON's strings, numbers and lists are literals of Python and of YAML alike.
    return json.dumps(value, ensure_ascii=True)
