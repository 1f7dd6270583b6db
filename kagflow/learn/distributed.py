"""Several processes that train one model as one process would.

Each takes its share of every batch. Losses and batch norm see the whole batch, so that a step is
the single process's up to rounding, whatever the loss looks at; only dropout and its like draw
other numbers. torch's own DDP averages the gradients of shares, which is not the same for Dice or
for shares of unequal size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kagflow.learn import checkpoint
from kagflow.learn.syncnorm import share_statistics

# The others wait while the first decodes all images, or looks at some.
PATIENCE = timedelta(hours=6)

T = TypeVar("T")
Tensors = dict[str, Tensor]


class Ranks:
    """The processes of a run; this class is the one process that trains alone."""

    count = 1
    index = 0

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.index == 0

    def share(self, batch: list[T]) -> list[T]:
        """Return this process's part of a batch."""
        return batch

    def begin_step(self, seed: int, step: int) -> None:
        """Start the generators anew where processes must not draw the same numbers."""

    def whole(self, tensors: Tensors) -> Tensors:
        """Return every process's rows, in the batch's order; gradients reach this one's."""
        return tensors

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over the processes."""

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - a question about the flag itself
        """Tell whether any process says yes; all wait for all."""
        return flag

    def tell(self, value: T) -> T:
        """Return the first process's value."""
        return value

    def in_turn(self, make: Callable[[], T]) -> T:
        """Let the first process make what the others then find made."""
        return make()

    def share_statistics(self, model: nn.Module) -> nn.Module:
        """Make batch norm see the whole batch."""
        return model


ALONE = Ranks()


class Group(Ranks):
    """The processes that torchrun started, joined in torch's default process group."""

    def __init__(self, device: torch.device) -> None:
        self.count, self.index = dist.get_world_size(), dist.get_rank()
        self._device = device
        self._sizes: list[int] = []
        # Flags go by the CPU, so that no GPU is waited for.
        self._flags: Any = dist.new_group(backend="gloo", timeout=PATIENCE)

    def share(self, batch: list[T]) -> list[T]:
        """Return this process's part: an equal one, one more for the first few."""
        small, more = divmod(len(batch), self.count)
        self._sizes = [small + (index < more) for index in range(self.count)]
        start = sum(self._sizes[: self.index])
        return batch[start : start + self._sizes[self.index]]

    def begin_step(self, seed: int, step: int) -> None:
        """Seed by (seed, step, process), so that a resume needs no process's generators."""
        mixed = (seed * 1_000_003 + step) * self.count + self.index
        checkpoint.seed_all(mixed % 2**32)

    def whole(self, tensors: Tensors) -> Tensors:
        """Gather rows; the gradient of a loss of them is this process's part of the whole one."""
        return {name: self._gather(one) for name, one in sorted(tensors.items())}

    def _gather(self, own: Tensor) -> Tensor:
        # Collectives want equal shapes, so the smaller parts are filled up.
        padded = own.new_zeros((max(self._sizes), *own.shape[1:]))
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in self._sizes]
        dist.all_gather(parts, padded)
        cut = [part[:size] for part, size in zip(parts, self._sizes, strict=True)]
        cut[self.index] = own
        return torch.cat(cut)

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients, all of one type in one message."""
        grads = [one.grad for one in parameters if one.grad is not None]
        for dtype in sorted({grad.dtype for grad in grads}, key=str):
            same = [grad for grad in grads if grad.dtype == dtype]
            flat = torch.cat([grad.reshape(-1) for grad in same])
            dist.all_reduce(flat)
            parts = torch.split(flat, [grad.numel() for grad in same])
            for grad, part in zip(same, parts, strict=True):
                grad.copy_(part.view_as(grad))

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - as above
        """Ask all."""
        said = torch.tensor([int(flag)])
        dist.all_reduce(said, op=dist.ReduceOp.MAX, group=self._flags)
        return bool(said.item())

    def tell(self, value: T) -> T:
        """Send the first process's value to all."""
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self._flags)
        return held[0]

    def in_turn(self, make: Callable[[], T]) -> T:
        """Make on the first process, then on the others."""
        made = make() if self.first else None
        dist.barrier(group=self._flags)
        return made if made is not None else make()

    def share_statistics(self, model: nn.Module) -> nn.Module:
        """Make batch norm see the whole batch, by torch's own layer on GPUs."""
        return share_statistics(model, self._device)


@contextmanager
def join(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that torchrun started, if it did; yields them and this one's device."""
    if "RANK" not in os.environ:
        yield ALONE, device
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    own = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if cuda else "gloo")
    yield Group(torch.device(own)), own
    # Not after an error: the others may be waiting for this one, and torchrun ends them.
    dist.destroy_process_group()
