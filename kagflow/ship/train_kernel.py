"""Write the kernel of one session of a training: a script that carries its own deadline."""

from __future__ import annotations

from kagflow.ship.kernel import NO_ACCELERATOR
from kagflow.ship.parts import Part
from kagflow.ship.remote_types import KernelPush
from kagflow.ship.render import render
from kagflow.ship.train_order import TrainOrder, reserve

TEMPLATE = "train/kernel.py.j2"


def session_push(  # noqa: PLR0913 - one keyword for each thing that a session is made of
    order: TrainOrder,
    account: str,
    number: int,
    *,
    code: Part,
    load: Part,
    seconds: float,
    turn: str = "a",
    previous: str,
    sources: tuple[str, ...] = (),
    datasets: tuple[str, ...] = (),
) -> KernelPush:
    """Return the push of session `number`, which lasts `seconds` at most.

    `turn` says which of two kernels it is, `previous` is the token of the session that it goes on
    from, "" for none; `sources` are the kernels whose output it mounts.
    """
    gpu = order.accelerator not in ("", NO_ACCELERATOR)
    values = {
        "token": token(order, number),
        "previous": previous,
        "parts": {part.name: part.hash for part in (code, load)},
        "python": code.manifest["python"],
        "competition": order.slug,
        "gpu": order.accelerator if gpu else "",
        "task": dict(order.task),
        "jobs": [
            {"run": one.run, "words": list(one.words), "gpus": one.gpus} for one in order.jobs
        ],
        "runs": order.runs,
        "seconds": seconds,
        "reserve": reserve(seconds),
    }
    return KernelPush(
        ref=order.kernel(account, turn),
        title=order.title(turn),
        text=render(TEMPLATE, values),
        datasets=datasets,
        competition=order.slug,
        machine_shape=order.accelerator or NO_ACCELERATOR,
        timeout_s=int(seconds),
        docker_image=str(code.manifest.get("digest", "")),
        kernels=sources,
    )


def token(order: TrainOrder, number: int) -> str:
    """Return the mark of one session: in its source, and in what it leaves."""
    return f"{order.key}/{number}"
