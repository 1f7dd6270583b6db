"""The typer app: every command in one place, and the entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from kagflow import __version__
from kagflow.cli import (
    check,
    demo,
    doctor,
    ensemble,
    evaluate,
    fetch,
    history,
    init,
    local,
    pack,
    predict,
    quota,
    report,
    score,
    shakeup,
    status,
    submit,
    target,
    train,
)
from kagflow.cli.session import SHARED, guarded, take_shared

ROAD = "The road"
JUDGE = "Judge"
HELP = "Help"

COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "fetch": (fetch.command, ROAD),
    "train": (train.command, ROAD),
    "ensemble": (ensemble.command, ROAD),
    "pack": (pack.command, ROAD),
    "submit": (submit.command, ROAD),
    "evaluate": (evaluate.command, JUDGE),
    "report": (report.command, JUDGE),
    "score": (score.command, JUDGE),
    "shakeup": (shakeup.command, JUDGE),
    "history": (history.command, JUDGE),
    "quota": (quota.command, JUDGE),
    "init": (init.command, HELP),
    "doctor": (doctor.command, HELP),
    "check": (check.command, HELP),
    "predict": (predict.command, HELP),
    "target": (target.command, HELP),
    "local": (local.command, HELP),
    "demo": (demo.command, HELP),
}

app = typer.Typer(
    name="kagflow",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"{SHARED}. `kagflow` alone says where you are on the road and what comes next.",
)


@app.callback(invoke_without_command=True)
@guarded
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Run a whole offline Kaggle code competition: fetch, train, ensemble, pack, submit."""
    if version:
        typer.echo(f"kagflow {__version__}")
    elif context.invoked_subcommand is None:
        status.show(context)


for _name, (_function, _panel) in COMMANDS.items():
    app.command(_name, rich_help_panel=_panel, epilog=SHARED)(_function)


def main(argv: Sequence[str] | None = None) -> Any:
    """Run the command line; the shared options may stand anywhere."""
    settings, words = take_shared(sys.argv[1:] if argv is None else argv)
    return app(args=words, obj=settings, prog_name="kagflow")


if __name__ == "__main__":
    main()
