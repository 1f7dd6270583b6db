"""What a step computes in: by the recipe's word, or what the device is fast and safe in."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from kagflow.errors import UsageError
from kagflow.learn import checkpoint
from kagflow.learn.job import Job
from kagflow.learn.step import build_scaler, precision
from kagflow.learn.train import train

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        pytest.param((6, 0), FP32, id="P100: fp16 without tensor cores"),
        pytest.param((6, 1), FP32, id="GTX 1060: fp16 at 1/64 of the speed"),
        pytest.param((7, 0), FP16, id="V100"),
        pytest.param((7, 5), FP16, id="T4"),
        pytest.param((8, 0), BF16, id="A100"),
        pytest.param((8, 6), BF16, id="RTX 3060"),
        pytest.param((8, 9), BF16, id="L4"),
        pytest.param((9, 0), BF16, id="H100"),
        pytest.param((12, 0), BF16, id="RTX 5090"),
    ],
)
def test_auto_takes_what_the_gpu_is_fast_and_safe_in(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision("auto", GPU) == expected
    assert precision("fp32", GPU) == FP32
    assert precision("fp16", GPU) == FP16


def test_a_cpu_computes_in_fp32_unless_told():
    assert precision("auto", CPU) == FP32
    assert precision("bf16", CPU) == BF16
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        precision("fp16", CPU)


def test_only_fp16_scales_its_loss():
    """The others' scaler stands at one: it is there to skip steps that are no numbers."""
    for dtype in (FP32, BF16):
        scaler = build_scaler(CPU, dtype)
        assert scaler.scale(torch.ones(())).item() == 1.0
    assert build_scaler(CPU, FP16).scale(torch.ones(())).item() > 1000


def test_bf16_trains_and_keeps_its_weights_in_fp32(squares, spec, recipe, run_dir):
    job = Job(run_dir, recipe(precision="bf16", epochs=1), spec, squares, 0, "cpu")
    train(job)
    state = checkpoint.newest(run_dir).state
    assert {one.dtype for one in state["model"].values() if one.is_floating_point()} == {FP32}
    whole = Job(run_dir.with_name("x") / "fold0", recipe(epochs=1), spec, squares, 0, "cpu")
    train(whole)
    other = load_file(whole.run_dir / "best.safetensors")
    ours = load_file(run_dir / "best.safetensors")
    furthest = max(float((ours[key] - other[key]).abs().max()) for key in ours)
    assert 0 < furthest < 0.1


@pytest.mark.slow
def test_a_compiled_model_trains_as_itself_and_goes_on(stop_at, squares, spec, recipe, run_dir):
    """Its names are the model's own, and a plain training may go on where it was stopped."""
    import signal

    model = {"target": "tiny_models:Unbiased", "kwargs": {}}

    def job(name: str, **changes) -> Job:
        folder = run_dir.parents[1] / name / "fold0"
        return Job(folder, recipe(model=model, **changes), spec, squares, 0, "cpu")

    plain, compiled = job("plain"), job("compiled", compile=True)
    train(plain)
    with pytest.raises(KeyboardInterrupt):
        train(compiled, stop_at(4, signal.SIGTERM))
    assert train(compiled).resumed == 4
    ours, theirs = (load_file(one.run_dir / "best.safetensors") for one in (compiled, plain))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-4
