"""The kernel of a pack, written beside it as the command line asks, and what it is made for."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kagflow.cli.competitions import Known
from kagflow.cli.pack import Packed
from kagflow.cli.session import Session

if TYPE_CHECKING:
    from kagflow.fingerprint import Fingerprint
    from kagflow.ship.kernel import Kernel


@dataclass(frozen=True)
class How:
    """What the command line asks of a submission beyond its pack.

    Whole commands: `same` asks for this very submission, `go_on` continues it once it began,
    `offer` would submit the same without an accelerator.
    """

    again: bool = False
    notebook: bool = False
    over_quota: bool = False
    offer: str = ""
    same: str = ""
    go_on: str = ""


PLAIN = How()


def render(known: Known, packed: Packed, *, account: str, notebook: bool) -> Kernel:
    """Write a pack's kernel for an account, as a script or a notebook."""
    from kagflow.ship.kernel import KernelSpec, render_kernel
    from kagflow.ship.plan import kernel_slug, kernel_title

    spec = KernelSpec(
        owner=account,
        slug=kernel_slug(known.name, notebook=notebook),
        title=kernel_title(known.name, notebook=notebook),
        competition_slug=known.config.slug,
        # The version is pinned when it exists: at the push.
        datasets=(),
        accelerator=known.config.accelerator,
        timeout_s=int(known.config.limits.inference_minutes * 60),
        notebook=notebook,
    )
    return render_kernel(packed.pack.path, beside(packed, "kernel", notebook), spec)


def beside(packed: Packed, suffix: str, notebook: bool) -> Path:
    """Return a file or folder beside a pack; what comes of a notebook has a name of its own."""
    form = "notebook." if notebook else ""
    return packed.pack.path.with_name(f"{packed.pack.hash}.{form}{suffix}")


def image(session: Session, packed: Packed) -> Fingerprint:
    """Return the image of a pack, after a look for wheels that stand in here for what it holds."""
    from kagflow import fingerprint
    from kagflow.ship.stand_ins import provide
    from kagflow.ship.wheels import own_shelf

    found = fingerprint.load(packed.pack.env.manifest["image"], session.workspace.targets)
    with tempfile.TemporaryDirectory(prefix="kagflow-stand-ins-") as work:
        for said in provide(packed.pack.path / "env", found, own_shelf(Path(work))):
            session.out.say(said)
    return found
