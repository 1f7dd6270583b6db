"""What every model must do, built-in or plug-in: one class that all of them pass.

With another smp before this one on PYTHONPATH, the same tests judge that one.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch

from kagflow import resources
from kagflow.infer.export import export_fp16, load_weights, save_weights
from kagflow.infer.models import build_model, named_outputs
from kagflow.process import run

SMALL = "tu-mobilenetv3_small_050"
ARCHITECTURES = sorted(found.__name__ for found in smp.MODEL_ARCHITECTURES_MAPPING.values())
# What smp leaves behind in timm's encoders without ever running it.
UNUSED = {
    "DPT": ("encoder.model.conv_head.", "encoder.model.classifier."),
    "PSPNet": ("encoder.model.blocks.",),
}


def of_smp(arch, **kwargs):
    return {"target": "smp", "kwargs": {"arch": arch, "encoder": SMALL, **kwargs}}


def of_timm(name):
    return {"target": "timm", "kwargs": {"name": name}}


def of_severstal(name, **kwargs):
    return {"target": f"severstal.models:{name}", "kwargs": kwargs}


BOTH = {"label_head": True, "deep_supervision": True}
MODELS = {arch: of_smp(arch) for arch in ARCHITECTURES}
MODELS |= {f"{a}+heads": of_smp(a, **BOTH) for a in ("FPN", "Linknet", "Unet", "UnetPlusPlus")}
MODELS |= {
    "ShallowDeep": of_severstal("ShallowDeep", encoder=SMALL),
    "ShallowDeep+Unet": of_severstal("ShallowDeep", encoder=SMALL, arch="Unet"),
    "Siamese": of_severstal("Siamese", encoder=SMALL),
    "Siamese+Unet": of_severstal("Siamese", encoder=SMALL, arch="Unet"),
}
GATES = {
    "PeakGate": of_severstal("PeakGate", encoder=SMALL[3:]),
    "mobilenetv3": of_timm("mobilenetv3_small_050"),
    "vit": of_timm("vit_tiny_patch16_224"),
    "maxvit": of_timm("maxvit_rmlp_pico_rw_256"),
}
ALL = MODELS | GATES
SLOW = {"DPT", "UPerNet", "maxvit", "FPN+heads", "Linknet+heads", "ShallowDeep+Unet"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Competitions on the path; no network, since the kernel has none."""

    def refuse(*_args):
        raise AssertionError("a model asked for the network")

    monkeypatch.setattr(sys, "path", [str(resources.competitions()), *sys.path])
    monkeypatch.setattr(socket.socket, "connect", refuse)
    torch.manual_seed(0)


def images(name, *size):
    return torch.randn(size[0], 2 if name.startswith("Siamese") else 1, *size[1:])


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=[pytest.mark.slow] if one in SLOW else []) for one in ALL],
)
class TestEveryModel:
    def test_any_size_batch_and_number_of_classes(self, name):
        kind = "label" if name in GATES else "mask"
        for classes, size in ((4, (2, 60, 100)), (7, (1, 64, 33))):
            model = build_model(ALL[name], classes=classes).eval()
            given = images(name, *size)
            with torch.inference_mode():
                first, again = (named_outputs(model(given), kind) for _ in range(2))
            wanted = (size[0], classes) if kind == "label" else (size[0], classes, *size[1:])
            assert first[kind].shape == wanted
            assert first[kind].isfinite().all()
            assert torch.equal(first[kind], again[kind])
            extra = {"label"} if name.endswith("+heads") else set()
            assert set(first) == {kind} | extra
            if extra:
                assert first["label"].shape == (size[0], classes)

    def test_training_reaches_every_parameter(self, name):
        model = build_model(ALL[name], classes=3).train()
        raw = model(images(name, 2, 60, 100))
        outputs = named_outputs(raw, "label" if name in GATES else "mask")
        torch.stack([one.square().mean() for one in outputs.values()]).sum().backward()
        lost = [key for key, p in model.named_parameters() if p.grad is None]
        assert [key for key in lost if not key.startswith(UNUSED.get(name, ("none",)))] == []
        supervised = [key for key in outputs if key.startswith("aux")]
        assert len(supervised) == (0 if "+heads" not in name else 4 if "FPN" in name else 2)
        for key in supervised:
            assert outputs[key].shape == outputs["mask"].shape

    def test_weights_come_back_as_they_ship(self, name, tmp_path):
        first, second = (build_model(ALL[name], classes=1).eval() for _ in range(2))
        save_weights(first, tmp_path / "own")
        export_fp16(tmp_path / "own", tmp_path / "shipped")
        given, kind = images(name, 1, 64, 64), "label" if name in GATES else "mask"
        with torch.inference_mode():
            whole = named_outputs(first(given), kind)[kind]
            load_weights(second, tmp_path / "own", as_shipped=True)
            half = named_outputs(second(given), kind)[kind]
            load_weights(second, tmp_path / "shipped")
            kernel = named_outputs(second(given), kind)[kind]
        assert torch.equal(half, kernel)
        assert 0 < (whole - half).abs().max() < 0.05 * whole.abs().max() + 0.05


@pytest.mark.slow
@pytest.mark.skipif(
    "OTHER_SMP" not in os.environ,
    reason="OTHER_SMP names no folder with another segmentation_models_pytorch (0.5)",
)
def test_the_other_smp_passes_too():
    folder = os.environ["OTHER_SMP"]
    env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    env.pop("OTHER_SMP")
    code = "import segmentation_models_pytorch as smp; print(smp.__version__)"
    assert run([sys.executable, "-c", code], env=env).stdout.strip() != smp.__version__
    words = ["-m", "pytest", "-q", "-m", "slow or not slow", "-p", "no:cacheprovider"]
    run([sys.executable, *words, str(Path(__file__))], env=env, timeout=280)
