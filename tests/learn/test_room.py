"""Memory is counted as it is taken, and a cap holds where no allocator keeps one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kagflow.learn.room import CpuRoom, lacks_memory, open_room, resident

MIB = 1 << 20


def take(count: int) -> list[torch.Tensor]:
    return [torch.empty(MIB, dtype=torch.uint8) for _ in range(count)]


def test_the_peak_is_what_lives_at_once():
    room = CpuRoom(base=5)
    with room.watched():
        kept = take(3)
        del kept[1:]
        kept += take(1)
        views = [one[10:] for one in kept]
    assert room.peak == 5 + 3 * MIB
    del views
    with room.watched():
        take(2)
    assert room.peak == 5 + 2 * MIB


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
    with CpuRoom(4 * MIB, base=MIB).watched():
        take(3)
    with pytest.raises(torch.OutOfMemoryError), CpuRoom(4 * MIB, base=MIB).watched():
        take(4)
    with CpuRoom(4 * MIB, base=MIB).watched():
        take(3)


def test_a_process_counts_as_what_it_holds():
    before = resident()
    held = torch.ones(256 * MIB, dtype=torch.uint8)
    assert 192 * MIB < resident() - before < 320 * MIB
    assert open_room(torch.device("cpu"), 7).base > 256 * MIB
    del held


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
