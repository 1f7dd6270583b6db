"""Write cli.md and config.md from the code; --check tells whether they are current."""

from __future__ import annotations

import sys
from pathlib import Path

from typer.main import get_command

from kagflow import config
from kagflow.cli.app import app
from kagflow.cli.session import SHARED

HERE = Path(__file__).parent
MODELS = (
    config.Competition,
    config.Limits,
    config.Mini,
    config.Recipe,
    config.Target,
    config.Optimiser,
)


def cli_page() -> str:
    """Return the page of every command with its arguments and options."""
    group = get_command(app)
    parts = ["# Commands", "", f"{SHARED}.", ""]
    for name, command in group.commands.items():
        parts += [f"## kagflow {name}", "", command.help or "", ""]
        for one in command.params:
            if one.name == "help":
                continue
            option = one.param_type_name == "option"
            words = ", ".join(one.opts) if option else (one.metavar or one.name or "").upper()
            default = "" if one.default in (None, False, []) else f" (default: {one.default})"
            told = getattr(one, "help", None) or ""
            parts.append(f"- `{words}`{': ' if told else ''}{told}{default}")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def config_page() -> str:
    """Return the page of every key of competition.yaml and of a recipe."""
    parts = ["# Configuration", "", "Unknown keys are errors that name the nearest key.", ""]
    for model in MODELS:
        parts += [
            f"## {model.__name__}",
            "",
            model.__doc__ or "",
            "",
            "| key | type | default |",
            "|---|---|---|",
        ]
        for key, field in model.model_fields.items():
            kind = str(field.annotation).replace("typing.", "").replace("|", "\\|")
            kind = kind.replace("<class '", "").replace("'>", "").replace("kagflow.config.", "")
            value = None if field.is_required() else field.get_default(call_default_factory=True)
            default = "required" if field.is_required() else repr(value)
            parts.append(f"| `{key}` | {kind} | {default} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    """Write both pages, or with --check name the ones that drifted."""
    pages = {HERE / "cli.md": cli_page(), HERE / "config.md": config_page()}
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            sys.stdout.write(f"{path.name} is not current: make docs\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
