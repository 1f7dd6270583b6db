import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kagflow.errors import DataError
from kagflow.infer.export import drift, export_fp16, load_weights, save_weights, shipped
from kagflow.infer.forward import forward
from kagflow.infer.models import build_model

SPEC = {
    "target": "smp",
    "kwargs": {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [16, 8, 8]},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(SPEC, classes=2).eval()
    path = tmp_path_factory.mktemp("w") / "best.safetensors"
    save_weights(model, path)
    return model, path


def test_convolutions_ship_as_fp16_and_norms_as_fp32(saved, tmp_path):
    model, path = saved
    out = tmp_path / "pack.safetensors"
    export_fp16(path, out)
    state = load_file(out)
    assert set(state) == set(model.state_dict())
    assert state["encoder.conv1.weight"].dtype == torch.float16
    assert state["encoder.bn1.weight"].dtype == torch.float32
    assert state["encoder.bn1.running_var"].dtype == torch.float32
    assert state["encoder.bn1.num_batches_tracked"].dtype == torch.int64
    assert out.stat().st_size < 0.52 * path.stat().st_size


def test_what_ships_predicts_the_same_here_and_there(saved, tmp_path):
    model, path = saved
    export_fp16(path, tmp_path / "pack.safetensors")
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    answers = []
    for source, rounded in ((path, True), (tmp_path / "pack.safetensors", False)):
        other = build_model(SPEC, classes=2).eval()
        load_weights(other, source, as_shipped=rounded)
        assert next(other.parameters()).dtype == torch.float32
        answers.append(forward([other], image, "mask", ["none"]))
    assert torch.equal(*answers)
    full = forward([model], image, "mask", ["none"])
    assert 0 < drift(full, answers[0]) < 1e-3


def test_a_weight_too_large_for_fp16_stays():
    large = torch.tensor([[1.0, 1e6]])
    assert shipped("a.weight", large).dtype == torch.float32
    assert shipped("a.weight", large / 1e6).dtype == torch.float16


class Buffered(nn.Module):
    """Tensors of two axes that are neither: centres, a buffer."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.ones(3, 4))
        self.register_buffer("grid", torch.ones(5, 6))


@pytest.mark.parametrize(
    ("make", "halved"),
    [
        (lambda: nn.Conv2d(2, 3, 3), {"weight"}),
        (lambda: nn.ConvTranspose2d(2, 3, 3), {"weight"}),
        (lambda: nn.Linear(2, 3), {"weight"}),
        (lambda: nn.BatchNorm2d(3), set()),
        (lambda: nn.LayerNorm(4), set()),
        (lambda: nn.GroupNorm(1, 3), set()),
        (Buffered, set()),
    ],
)
def test_only_what_multiplies_is_halved(make, halved, tmp_path):
    save_weights(make(), tmp_path / "a.safetensors")
    export_fp16(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    state = load_file(tmp_path / "b.safetensors")
    assert {name for name, one in state.items() if one.dtype == torch.float16} == halved


def test_a_large_file_goes_in_pieces(saved, tmp_path):
    model, path = saved
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    assert export_fp16(path, whole) == [whole]
    limit = whole.stat().st_size // 3
    files = export_fp16(path, cut, limit=limit)
    assert len(files) >= 3
    assert files == [cut.with_name(f"cut.{n}of{len(files)}.safetensors") for n in
                     range(1, len(files) + 1)]  # fmt: skip
    assert not cut.exists()
    tensors = [load_file(file) for file in files]
    largest = max(one.nbytes for part in tensors for one in part.values())
    for part in tensors:
        assert sum(one.nbytes for one in part.values()) <= max(limit, largest)
    names = [name for part in tensors for name in part]
    assert sorted(names) == sorted(model.state_dict())
    one, other = (build_model(SPEC, classes=2).eval() for _ in range(2))
    load_weights(one, whole)
    load_weights(other, cut)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    files[1].unlink()
    with pytest.raises(DataError, match=r"some pieces of .* are missing"):
        load_weights(other, cut)


def test_a_tensor_larger_than_the_limit_is_a_piece_of_its_own(tmp_path):
    save_file({"a": torch.ones(100), "b": torch.ones(2), "c": torch.ones(1)}, tmp_path / "a")
    parts = [load_file(one) for one in export_fp16(tmp_path / "a", tmp_path / "b.s", limit=40)]
    assert [sorted(part) for part in parts] == [["a"], ["b", "c"]]


def test_weights_of_another_model_are_named(saved, tmp_path):
    _, path = saved
    state = load_file(path)
    state["strange"] = state.pop("encoder.conv1.weight")
    save_file(state, tmp_path / "other.safetensors")
    model = build_model(SPEC, classes=2)
    with pytest.raises(DataError, match=r"lacks encoder\.conv1\.weight; has strange"):
        load_weights(model, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"segmentation_head.* is \(2, .* not \(5, "):
        load_weights(build_model(SPEC, classes=5), path)


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"x" * 100])
def test_a_damaged_file_is_a_data_error(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match="safetensors"):
        export_fp16(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
