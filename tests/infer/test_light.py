"""A kernel's start-up leaves out what it does not need, and says no other thing for it."""

import sys

import torch

from kagflow.infer.light import building
from kagflow.infer.members import load_member
from kagflow.infer.models import build_model
from kagflow.process import run

# Its own process, since here the compiler may have been imported long ago.
LOADS = """
import sys, torch
from kagflow.infer.light import building
from kagflow.infer.models import build_model
spec = {"target": "smp", "kwargs": {"arch": "FPN", "encoder": "tu-tf_efficientnet_lite0"}}
with building():
    model = build_model(spec, classes=4).eval()
with torch.inference_mode():
    model(torch.zeros(1, 1, 64, 64))
print("torch._dynamo" in sys.modules)
import torch._dynamo.utils as real
asks = sys.modules["torchvision.ops.roi_align"]
print(real.__file__.endswith("utils.py"), asks.is_compile_supported("cpu") in (True, False))
"""


def test_a_model_is_built_and_run_without_the_compiler_and_who_asks_for_it_gets_it():
    told = run([sys.executable, "-c", LOADS], timeout=280).stdout.split()
    assert told == ["False", "True", "True"]


def test_weights_are_drawn_again_after_building(member):
    (module,) = load_member(member("Bright"), 2, "cpu")
    assert torch.equal(module.gain, torch.tensor([20.0, -20.0]))
    with building():
        assert torch.equal(torch.nn.init.ones_(torch.zeros(3)), torch.zeros(3))
    assert torch.equal(torch.nn.init.ones_(torch.zeros(3)), torch.ones(3))


def test_a_loaded_model_has_the_weights_of_its_file_alone(tmp_path):
    from dataclasses import replace

    from kagflow.infer.export import save_weights
    from kagflow.infer.members import Member

    spec = {"target": "smp", "kwargs": {"arch": "Unet", "encoder": "resnet18"}}
    torch.manual_seed(1)
    stored = build_model(spec, classes=2)
    save_weights(stored, tmp_path / "one.safetensors")
    one = Member("one", "mask", spec, {}, None, (tmp_path / "one.safetensors",))
    torch.manual_seed(2)
    (here,) = load_member(replace(one, name="other"), 2, "cpu")
    rounded = {name: value.half().float() for name, value in stored.state_dict().items()}
    for name, value in here.state_dict().items():
        if value.ndim >= 2:
            assert torch.equal(value, rounded[name]), name
        else:
            assert torch.equal(value, stored.state_dict()[name]), name
