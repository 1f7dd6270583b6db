"""Which devices a training may use, and how many jobs or processes go beside each other."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kagflow.errors import LocalError, UsageError


@dataclass(frozen=True)
class Slot:
    """The devices that one job trains on at a time: one, or one for each of its processes."""

    devices: tuple[str, ...]

    @property
    def name(self) -> str:
        """The slot as messages and the ledger name it."""
        return "+".join(self.devices)

    def environment(self, cpu_share: int) -> dict[str, str]:
        """Return the variables with which a process sees this slot's devices, and no others.

        `cpu_share` processors are this slot's own.
        """
        if self.devices[0].startswith("cuda"):
            return {"CUDA_VISIBLE_DEVICES": ",".join(_visible(one) for one in self.devices)}
        threads = max(1, cpu_share // len(self.devices))
        return {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}

    @property
    def inside(self) -> str:
        """The device's name in a process of that environment."""
        return "cuda" if self.devices[0].startswith("cuda") else self.devices[0]


def slots(device: str, *, gpus: int = 1, jobs: int = 1) -> list[Slot]:
    """Return a slot for each of the jobs that can go at once, at least one.

    `device` is auto, cpu, cuda, cuda:<n>, or several with commas; auto and cuda are every GPU.
    `gpus` processes share a job. Raises LocalError where there are fewer devices than that.
    """
    named = [one.strip() for one in device.split(",")]
    if gpus == 1 and jobs == 1:
        return [Slot((named[0],))]
    if named in (["auto"], ["cuda"]) and (found := gpu_count()) > 1:
        named = [f"cuda:{index}" for index in range(found)]
    if named == ["cpu"]:
        named *= gpus
    if len(named) < gpus:
        raise LocalError(
            f"gpus={gpus}, but {device} is {len(named)} device here",
            hint="train on one; --device cpu shares the processors among that many processes",
        )
    if gpus > 1 and len({one.partition(":")[0] for one in named}) > 1:
        raise UsageError(f"--device {device}: processes of one model need devices of one kind")
    starts = range(0, len(named) - len(named) % gpus, gpus)
    return [Slot(tuple(named[at : at + gpus])) for at in starts][:jobs]


def gpu_count() -> int:
    """Return how many GPUs torch sees here."""
    import torch

    return torch.cuda.device_count()


def _visible(device: str) -> str:
    """Return what CUDA calls a device that torch calls cuda:<n>, where some are hidden."""
    index = int(device.partition(":")[2] or 0)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen.split(",")[index] if seen else str(index)
