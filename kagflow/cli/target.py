"""kagflow target: the Kaggle image that packs are made for."""

from __future__ import annotations

from typing import Annotated

import typer

from kagflow.cli.session import guarded, open_session
from kagflow.errors import UsageError
from kagflow.fingerprint import DEFAULT, load_snapshot


@guarded
def command(
    context: typer.Context,
    action: Annotated[str, typer.Argument(help="show.")] = "show",
    name: Annotated[str, typer.Option(help="Which snapshot.")] = DEFAULT,
    find: Annotated[str, typer.Option(help="Only distributions whose name holds this.")] = "",
) -> None:
    """Show the fingerprint of Kaggle's image: Python, CUDA and every distribution."""
    session = open_session(context)
    if action != "show":
        raise UsageError(f"unknown action '{action}'", hint="kagflow target show")
    image = load_snapshot(name)
    chosen = {key: value for key, value in image.distributions.items() if find in key}
    label = "approximate, not probed" if image.approximate else "probed"
    if find:
        session.out.table(image.name, ("distribution", "version"), list(chosen.items()))
    session.out.result(
        {
            "name": image.name,
            "approximate": image.approximate,
            "python": image.python,
            "glibc": image.glibc,
            "cuda": image.cuda,
            "distributions": chosen,
        },
        f"{image.name} ({label}): Python {image.python}, glibc {image.glibc}, CUDA {image.cuda}, "
        f"{len(image.distributions)} distributions",
    )
