"""Memory is counted as it is taken, and a cap holds where no allocator keeps one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from kagflow.learn.room import SCRATCH, CpuRoom, GpuRoom, lacks_memory

MIB, GB = 1 << 20, 10**9


def take(count: int) -> list[torch.Tensor]:
    return [torch.empty(MIB, dtype=torch.uint8) for _ in range(count)]


def test_the_peak_is_what_lives_at_once():
    room = CpuRoom(base=5)
    with room.watched():
        kept = take(3)
        del kept[1:]
        kept += take(1)
        views = [one[10:] for one in kept]
    assert room.peak == 5 + int(SCRATCH * 3 * MIB)
    del views
    with room.watched():
        take(2)
    assert room.peak == 5 + int(SCRATCH * 2 * MIB)


def test_what_backward_keeps_is_counted():
    """Of two convolutions the inputs stay until backward has used them."""
    wide = 8 * 64 * 64 * 4
    net = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
    images = torch.zeros(1, 8, 64, 64)
    trained, predicted = CpuRoom(base=0), CpuRoom(base=0)
    with trained.watched():
        net(images).sum().backward()
    with predicted.watched(), torch.no_grad():
        net(images).sum()
    assert trained.peak >= 3 * wide
    assert predicted.peak < trained.peak


def test_more_than_the_cap_is_out_of_memory():
    cap = MIB + int(SCRATCH * 3 * MIB) + 2
    with CpuRoom(cap, base=MIB).watched():
        take(3)
    with pytest.raises(torch.OutOfMemoryError), CpuRoom(cap, base=MIB).watched():
        take(4)
    with CpuRoom(cap, base=MIB).watched():
        take(3)
    with pytest.raises(torch.OutOfMemoryError), CpuRoom(MIB, base=2 * MIB).watched():
        take(1)


HOLDS = """
import torch
from kagflow.learn.room import open_room, resident
before = resident()
held = torch.ones(256 << 20, dtype=torch.uint8)
print(resident() - before, open_room(torch.device("cpu"), 7).base)
"""


def test_a_process_counts_as_what_it_holds():
    # In a process of its own: a kernel that ran in this one had freed memory kept.
    done = subprocess.run(
        [sys.executable, "-c", HOLDS], capture_output=True, text=True, check=True
    ).stdout
    more, base = map(int, done.split())
    assert 192 * MIB < more < 320 * MIB
    assert base > 256 * MIB


def test_only_memory_is_taken_for_memory():
    lacking = (
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    )
    assert all(lacks_memory(one) for one in lacking)
    assert not lacks_memory(RuntimeError("size mismatch"))
    assert not lacks_memory(ValueError("out of memory"))


class Gpu:
    """Stand in for torch.cuda on a card of 6 GB."""

    def __init__(self, monkeypatch):
        self.told = []
        named = ("set_per_process_memory_fraction", "reset_peak_memory_stats", "empty_cache")
        for name in named:
            monkeypatch.setattr(
                torch.cuda, name, lambda *args, name=name: self.told.append((name, *args))
            )
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 123)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: self)
        self.total_memory = 6 * GB

    def tell(self, *words):
        self.told.append(words)


def test_a_gpus_allocator_holds_the_cap_and_counts(monkeypatch):
    gpu, device = Gpu(monkeypatch), torch.device("cuda", 1)
    for memory, limit, fraction in (
        (None, None, 1.0),
        (3_000_000_000, 3_000_000_000, 0.5),
        (9_000_000_000, None, 1.0),
    ):
        room = GpuRoom(device, memory)
        assert room.limit == limit
        assert gpu.told.pop() == ("set_per_process_memory_fraction", fraction, device)
    with room.watched():
        assert ("reset_peak_memory_stats", device) in gpu.told
        assert room.peak == 0
    assert room.peak == 123
