"""Time kagflow's training loop beside a bare one on a GPU, in fp16 and, where native, bf16.

    python bench/train_gpu.py [pairs]

The arms are those of train_step.py, with processes that make the samples. It prints images a
second, the GPU's share of busy time and the memory that each arm reserved.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import train_step
from train_step import LITE, PAIRS, Case

MEBIBYTE = 2**20


def cases(steps: int = 60) -> list[Case]:
    """Return what is trained on this GPU."""
    types = {"fp16": torch.float16}
    # Ampere (8) is the first whose bf16 is not emulated.
    if torch.cuda.get_device_capability()[0] >= 8:
        types["bf16"] = torch.bfloat16
    return [
        Case(
            f"FPN on EfficientNet-Lite0, 16 crops of 256x512, {name}, {made}",
            LITE, (256, 512), 16, steps,
            prepared=made == "prepared", device=torch.device("cuda"), dtype=dtype,
        )
        for name, dtype in types.items()
        for made in ("prepared", "from samples")
    ]  # fmt: skip


@contextmanager
def busy() -> Iterator[list[int]]:
    """Collect the GPU's utilisation in percent, ten times a second; nothing without NVML."""
    found: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            try:
                found.append(torch.cuda.utilization())
            except (ModuleNotFoundError, RuntimeError):
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def measure(case: Case, count: int) -> str:
    """Return what a case came to, in one line."""
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        samples = train_step.samples_of(case, Path(name))
        torch.cuda.reset_peak_memory_stats()
        with busy() as percent:
            found = train_step.compare(case, samples, Path(name), count)
    ratios = sorted(ours.wall / bare.wall for ours, bare in found)
    images = case.steps * case.batch
    rates = [images / statistics.median(pair[arm].wall for pair in found) for arm in (0, 1)]
    share = f"{statistics.mean(percent):.0f} %" if percent else "not known"
    return (
        f"{case.name}: {rates[0]:.0f} images/s, the bare loop {rates[1]:.0f}; ratio of times "
        f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}); GPU busy {share}, "
        f"at most {torch.cuda.max_memory_reserved() / MEBIBYTE:.0f} MiB reserved by either"
    )


if __name__ == "__main__":
    print(torch.cuda.get_device_name())
    for one in cases():
        print(measure(one, int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS), flush=True)
