"""Weights from a file: whatever fits is taken, whatever does not is named, no code is run."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from kagflow.config import Recipe
from kagflow.durable import sha256_file
from kagflow.errors import DataError
from kagflow.infer.models import build_model
from kagflow.learn.pretrained import start_model
from kagflow.learn.train import train_fold
from kagflow.learn.weights import load_start

UNET = {"target": "smp", "kwargs": {"encoder": "tu-mobilenetv3_small_050"}}
GATE = {"target": "timm", "kwargs": {"name": "mobilenetv3_small_050", "in_chans": 3}}


class Notes:
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)

    def start(self, *_, **__):
        """Bars are not looked at."""

    advance = finish = show = start


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(1)
    return build_model(UNET, classes=2)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_whole_state_comes_back_whatever_its_wrapping(unet, suffix, prefix, tmp_path):
    state = {prefix + name: tensor for name, tensor in unet.state_dict().items()}
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3}, file)
    notes = Notes()
    again = start_model(UNET, classes=2, weights=str(file), progress=notes)
    for name, tensor in unet.state_dict().items():
        if tensor.dim():
            assert torch.equal(again.state_dict()[name], tensor), name
    count = sum(tensor.dim() > 0 for tensor in unet.state_dict().values())
    assert notes.said == [f"{count} of {count} tensors start from {file}"]


def test_a_bare_encoder_finds_its_place_and_colours_become_grey(unet, tmp_path):
    torch.manual_seed(2)
    source = build_model(GATE, classes=5).state_dict()
    save_file(source, tmp_path / "timm.safetensors")
    model = build_model(UNET, classes=2)
    taken = load_start(model, tmp_path / "timm.safetensors")
    stem = model.state_dict()["encoder.model.conv_stem.weight"]
    assert torch.allclose(stem, source["conv_stem.weight"].sum(1, keepdim=True))
    assert all(name.startswith("encoder.model.") for name in taken.names)
    encoder = {n for n, t in model.state_dict().items() if n.startswith("encoder.") and t.dim()}
    assert set(taken.names) == encoder
    assert taken.unknown == 4  # timm's own head


def test_what_does_not_fit_is_named_with_both_shapes(unet, tmp_path):
    torch.save(unet.state_dict(), tmp_path / "two.pth")
    other = build_model(UNET, classes=3)
    before = other.state_dict()["segmentation_head.0.weight"].clone()
    taken = load_start(other, tmp_path / "two.pth")
    assert taken.misfits == (
        "segmentation_head.0.weight (2, 16, 3, 3) for (3, 16, 3, 3)",
        "segmentation_head.0.bias (2,) for (3,)",
    )
    assert "of another shape: segmentation_head.0.weight" in taken.summary("two.pth")
    assert torch.equal(other.state_dict()["segmentation_head.0.weight"], before)
    assert torch.equal(
        other.state_dict()["encoder.model.conv_stem.weight"],
        unet.state_dict()["encoder.model.conv_stem.weight"],
    )


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_file_that_is_no_start_says_so(unet, tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="none of its 1 tensors fits the model, such as a"):
        load_start(unet, tmp_path / "other.pt")
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match="could run code") as caught:
        load_start(unet, tmp_path / "evil.pt")
    assert "state_dict() alone" in caught.value.hint
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    for name in ("cut.safetensors", "cut.pth"):
        with pytest.raises(DataError, match="damaged"):
            load_start(unet, tmp_path / name)
    torch.save(torch.zeros(3), tmp_path / "one.pt")
    with pytest.raises(DataError, match="holds a Tensor, no state dict"):
        load_start(unet, tmp_path / "one.pt")
    with pytest.raises(DataError, match="no file"):
        load_start(unet, tmp_path / "none.pt")


def test_a_run_starts_from_another_runs_weights(squares, spec, recipe, run_dir):
    train_fold(run_dir, recipe(epochs=1), spec, squares, fold=0)
    best, notes = run_dir / "best.safetensors", Notes()
    second = run_dir.parents[1] / "second" / "fold0"
    wanted = recipe(epochs=1, weights=str(best))
    train_fold(second, wanted, spec, squares, fold=0, progress=notes)
    assert any(f"start from {best}" in text for text in notes.said)
    provenance = json.loads((second / "provenance.json").read_text())
    assert provenance["weights"] == sha256_file(best)


@pytest.mark.parametrize("weights", ["none", "imagenet", "packaged", "runs/a/best.safetensors"])
def test_a_recipe_names_its_weights(weights):
    assert Recipe(model={"target": "smp"}, weights=weights).weights == weights


def test_a_recipe_refuses_other_words():
    with pytest.raises(ValueError, match="none, imagenet, packaged or a file"):
        Recipe(model={"target": "smp"}, weights="imagnet")
