"""Measure what the stages of a run take, for whoever must say how long another run will."""

from __future__ import annotations

import hashlib
import json
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from kagflow.infer.members import Member
from kagflow.task.costs import Costs, Turn

T = TypeVar("T")
DECODE, FINISH = "decode", "finish"


class Meter:
    """Collect seconds; safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[tuple[str, int], list[float]] = {}
        self._stages = {DECODE: 0.0, FINISH: 0.0}
        self._began: float | None = None
        self._busy = self.parity = 0.0
        self.gated = self.passed = 0

    def turn(self, kind: str, number: int, *, views: int, images: int, seconds: float) -> None:
        """Take what a member (mask or label, and its number among those) took for a batch."""
        with self._lock:
            if self._began is None:
                self._began = time.monotonic() - seconds
            self._busy += seconds
            self._turns.setdefault((kind, number), []).append(seconds / (views * images))

    def gate(self, images: int, passed: int) -> None:
        """Count images that the gates saw, and those that they let pass."""
        with self._lock:
            self.gated += images
            self.passed += passed

    def stage(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Pass items on; count the processor time of the thread that makes them."""
        source = iter(items)
        while True:
            start = time.thread_time()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self._stages[name] += time.thread_time() - start
            yield item

    def costs(self, members: Sequence[Member], device: str, *, images: int, boot: float) -> Costs:
        """Return what `images` took; `boot` is when the container started (time.monotonic)."""
        now, count = time.monotonic(), max(images, 1)
        lanes = len(device.split(","))
        numbers = {"mask": 0, "label": 0}
        turns = []
        for member in members:
            number = numbers[member.predicts]
            numbers[member.predicts] += 1
            found = self._turns.get((member.predicts, number))
            if found:
                seconds = len(member.tta) * _typical(found)
                turns.append(Turn(member.name, key_of(member), seconds, member.predicts == "label"))
        wall = now - (now if self._began is None else self._began)
        return Costs(
            machine=machine(device),
            lanes=lanes,
            members=tuple(turns),
            gated=self.gated,
            passed=self.passed,
            decode=self._stages[DECODE] / count,
            finish=self._stages[FINISH] / count,
            rest=max(wall - self._busy / lanes, 0.0) / count,
            parity=self.parity,
            parity_images=0,
            images=images,
            total=now - boot,
        )


def key_of(member: Member) -> str:
    """Return a short name of everything about a member that decides what it costs."""
    facts: list[Any] = [
        member.model, member.input, member.size, len(member.weights), member.tta, member.predicts,
    ]  # fmt: skip
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def machine(device: str) -> str:
    """Name what computes: the GPUs, or the processor and the threads that torch uses of it."""
    devices = device.split(",")
    if devices[0].startswith("cuda"):
        return f"{len(devices)} x {torch.cuda.get_device_name(devices[0])}"
    return f"{torch.get_num_threads()} threads of {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "a processor"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "a processor")


def _typical(seconds: Sequence[float]) -> float:
    """Return the median without the first batch, which finds nothing warm."""
    return statistics.median(seconds[1:] or seconds)
