"""Run a module on the CPU by ONNX Runtime where that is faster, within one run.

The module is exported here, from the weights that it holds, for images of one size and batches of
any: a pack carries no second form of its weights, and what differs between releases of torch never
meets. torch's older exporter needs `onnx` alone, which Kaggle's image has; should it be gone or
fail, as anything else here may, the module itself runs. OpenVINO, as fast, took five times as long
to convert, and its wheel is twice the size.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kagflow.errors import DataError
from kagflow.infer.decode import decode, to_batch
from kagflow.infer.members import Member
from kagflow.infer.models import STRIDE, outputs, pad_to

# Before it was tried: the share of torch's time that it saves, and seconds to set up a module.
SAVES, SETUP_S = 0.2, 20.0
# It must be clearly faster, and say the same: of a probability, as parity's fp32.
FASTER, NEAR = 0.95, 2e-3
_TRIAL, _OPSET = 2, 17


class Exported(nn.Module):
    """Runs a session on (N, C, H, W) of one (C, H, W); the module itself on any other."""

    memory_format = torch.contiguous_format

    def __init__(self, module: nn.Module, session: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self._session, self._shape = module, session, shape

    def forward(self, batch: Tensor) -> Any:
        """Return the logits alone, on the CPU, or whatever the module returns."""
        if tuple(batch.shape[1:]) == self._shape:
            try:
                return self.logits(batch)
            except Exception:  # noqa: BLE001 - from now on torch does it
                self._shape = ()
        return self.module(batch)

    def logits(self, batch: Tensor) -> Tensor:
        """Return the session's answer; raises whatever it raises."""
        (found,) = self._session.run(None, {"batch": batch.contiguous().numpy()})
        return torch.from_numpy(found)


class _Logits(nn.Module):
    """Gives the one tensor that is wanted."""

    def __init__(self, module: nn.Module, predicts: str) -> None:
        super().__init__()
        self.module, self.predicts = module, predicts

    def forward(self, batch: Tensor) -> Tensor:
        return outputs(self.module(batch), self.predicts)


@dataclass
class Backend:
    """Choose for each module what runs it: by measurement, or, where `forced`, wherever it works.

    `sample` is an image as the run will see them, (H, W) uint8. `images` are those of the whole
    run, whatever part of it this one is: a run that only proves the next must choose alike. `say`
    is told what was measured and chosen.
    """

    sample: NDArray[np.uint8]
    images: int
    forced: bool = False
    say: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.perf_counter
    setups: list[float] = field(default_factory=list)

    def choose(self, member: Member, modules: Sequence[nn.Module]) -> list[nn.Module]:
        """Return what is to run a member's modules, which lie on the CPU."""
        return [self._choose(member, module) for module in modules]

    def _choose(self, member: Member, module: nn.Module) -> nn.Module:
        try:
            (item,) = decode([member], [("sample", self.sample)])
            with torch.inference_mode():
                batch = pad_to(to_batch([item], 0, "cpu"), STRIDE)
                batch = batch.contiguous(memory_format=torch.channels_last)
                plain = self._seconds(module, batch)
                setup = max(self.setups, default=SETUP_S)
                saved = SAVES * plain * self.images * len(member.tta)
                if not self.forced and saved < setup:
                    self._tell(member, f"torch, as {setup:.0f} s of set-up do not pay", plain)
                    return module
                return self._tried(member, module, batch, plain)
        except Exception as error:  # noqa: BLE001 - torch is there for whatever it is
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            self.say(f"{member.name}: torch, since onnxruntime failed: {why}")
            return module

    def _tried(self, member: Member, module: nn.Module, batch: Tensor, plain: float) -> nn.Module:
        """Set the session up; return it where it is faster and says the same."""
        start, predicts = self.clock(), member.predicts
        exported = Exported(module, session_of(module, predicts, batch), tuple(batch.shape[1:]))
        self.setups.append(self.clock() - start)
        # Two, since it was exported with one: a batch's length may have become a constant.
        both = torch.cat([batch, batch.flip(-1)])
        there, here = exported.logits(both), outputs(module(both), predicts)
        apart = float((there.sigmoid() - here.sigmoid()).abs().max())
        if not apart <= NEAR:
            raise DataError(f"probabilities differ by {apart:.1e}")
        took = self._seconds(exported, batch)
        if self.forced or took < FASTER * plain:
            self._tell(member, f"onnxruntime, {plain / took:.2f} times as fast", plain)
            return exported
        self._tell(member, f"torch, {took / plain:.2f} times as fast as onnxruntime", plain)
        return module

    def _seconds(self, module: nn.Module, batch: Tensor) -> float:
        """Return what a forward takes once it is warm."""
        module(batch)
        found = []
        for _ in range(_TRIAL):
            start = self.clock()
            module(batch)
            found.append(self.clock() - start)
        return min(found)

    def _tell(self, member: Member, what: str, plain: float) -> None:
        self.say(f"{member.name}: {what}; torch takes {1000 * plain:.0f} ms for one image and view")


def session_of(module: nn.Module, predicts: str, batch: Tensor) -> Any:
    """Return ONNX Runtime's session for a module; raises whatever the export raises."""
    import onnxruntime

    # torch declares a path alone, and writes to any file.
    file: Any = io.BytesIO()
    axes = {"batch": {0: "n"}, "logits": {0: "n"}}
    # In eval mode as a whole: the exporter puts all modules back into the mode of the outermost.
    logits = _Logits(module, predicts).eval()
    with torch.inference_mode(mode=False), torch.no_grad(), _quiet():
        torch.onnx.export(
            logits, (batch.clone(),), file, dynamo=False, opset_version=_OPSET,
            input_names=["batch"], output_names=["logits"], dynamic_axes=axes,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait by spinning would take the cores from those that read and write.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(file.getvalue(), options, providers=providers)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
