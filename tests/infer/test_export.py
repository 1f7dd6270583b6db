import pytest
import torch
from safetensors.torch import load_file, save_file

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
    assert shipped(large).dtype == torch.float32
    assert shipped(large / 1e6).dtype == torch.float16


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
