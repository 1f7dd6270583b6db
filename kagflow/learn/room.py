"""How much of a device's memory training takes, and how much it may take."""

from __future__ import annotations

import gc
import math
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Beyond its tensors a step on a CPU took a tenth more: operators' scratch space, and freed blocks
# that the allocator keeps (measured on EfficientNet-b5 under FPN).
SCRATCH = 1.1
# What the kernel says of this process.
STATUS = Path("/proc/self/status")

# What says that memory was lacking where torch has no type for it: a CPU, cuBLAS, cuDNN.
_LACKING = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)


class Room(Protocol):
    """A device's memory: `limit` in bytes, None for what the device has; `peak` of `watched`."""

    limit: int | None
    peak: int

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measure a block; lacking memory raises torch.OutOfMemoryError inside it."""
        yield


class GpuRoom:
    """Memory of a GPU, which torch's allocator counts and caps.

    The cap holds for the whole process. CUDA's own context, some 0.3 to 0.5 GB, stands beside it.
    """

    def __init__(self, device: torch.device, memory: int | None = None) -> None:
        total = torch.cuda.get_device_properties(device).total_memory
        self.limit = memory if memory is not None and memory < total else None
        self.peak = 0
        self._device = device
        torch.cuda.set_per_process_memory_fraction((self.limit or total) / total, device)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measure what the allocator reserves."""
        # An error's traceback may still hold tensors of the last try.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            yield
        finally:
            self.peak = torch.cuda.max_memory_reserved(self._device)


class CpuRoom:
    """Memory of this process on a CPU, where no allocator keeps count: tensors are counted here.

    `base` is what the process takes without them.
    """

    def __init__(self, memory: int | None = None, base: int | None = None) -> None:
        self.limit = memory
        self.base = resident() if base is None else base
        self.peak = self.base

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count the tensors that live at once, those that the block makes."""
        room = None if self.limit is None else math.ceil((self.limit - self.base) / SCRATCH)
        counter = _Counter(room)
        try:
            with counter:
                yield
        finally:
            self.peak = self.base + int(SCRATCH * counter.peak)


def open_room(device: torch.device, memory: int | None) -> Room:
    """Return the device's room; `memory` in bytes caps it."""
    return GpuRoom(device, memory) if device.type == "cuda" else CpuRoom(memory)


def resident() -> int:
    """Return the bytes that this process holds for itself, mapped files left out; 0 if unknown."""
    text = STATUS.read_text() if STATUS.is_file() else ""
    found = re.search(r"^RssAnon:\s*(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def lacks_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device's memory was not enough."""
    lacking = isinstance(error, RuntimeError) and _LACKING.search(str(error)) is not None
    return lacking or isinstance(error, torch.OutOfMemoryError | MemoryError)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up the storages that operators return, each until it is freed."""

    def __init__(self, limit: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._limit = limit
        self._live: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                self._count(one)
        if self._limit is not None and self.now > self._limit:
            raise torch.OutOfMemoryError(f"{self.now} bytes are more than {self._limit}")
        return out

    def _count(self, tensor: Tensor) -> None:
        # A storage's Python object lives as long as the storage does.
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._live:
            return

        def freed(_: Any) -> None:
            self.now -= size
            del self._live[key]

        self._live[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)
