import copy
from dataclasses import replace

import pytest
import torch

from kagflow.errors import UsageError
from kagflow.infer.forward import forward
from kagflow.infer.members import load_member
from kagflow.infer.models import build_model, named_outputs, outputs, pad_to
from kagflow.learn.losses import LOSSES
from kagflow.resolve import build

TINY = {"arch": "Unet", "encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}


def smp(**kwargs):
    return {"target": "smp", "kwargs": TINY | kwargs}


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return build_model(smp(label_head=True), classes=3).eval()


def test_label_head_gives_mask_and_label_of_the_classes(unet):
    with torch.inference_mode():
        raw = unet(torch.zeros(2, 1, 64, 96))
    assert raw["mask"].shape == (2, 3, 64, 96)
    assert raw["label"].shape == (2, 3)
    assert outputs(raw, "label") is raw["label"]


def test_any_size_is_padded_by_reflection_and_cropped_back(unet):
    torch.manual_seed(1)
    image = torch.rand(1, 1, 50, 70)
    with torch.inference_mode():
        got = unet(image)["mask"]
        by_hand = torch.nn.functional.pad(image, (0, 26, 0, 14), mode="reflect")
        wanted = unet(by_hand)["mask"][..., :50, :70]
    assert got.shape == (1, 3, 50, 70)
    assert torch.equal(got, wanted)
    probs = forward([unet], image, "mask", ["none"])
    torch.testing.assert_close(probs, wanted.sigmoid(), atol=1e-5, rtol=0)


def test_padding_of_tiny_images_repeats_the_border():
    assert pad_to(torch.ones(1, 1, 3, 5), 32).shape == (1, 1, 32, 32)
    assert pad_to(torch.ones(1, 1, 3, 5), 32).min() == 1
    whole = torch.ones(1, 1, 32, 64)
    assert pad_to(whole, 32) is whole


@pytest.mark.parametrize("arch", ["unet", "FPN", "Linknet"])
def test_architectures_by_name_whatever_the_case(arch):
    kwargs = {"arch": arch, "encoder": "resnet18"}
    model = build_model({"target": "smp", "kwargs": kwargs}, classes=2)
    assert not model.state_dict()["encoder.conv1.weight"].shape[1] - 1  # grey unless said


def test_timm_encoders_and_classifiers():
    kwargs = {"arch": "FPN", "encoder": "tu-mobilenetv3_small_050"}
    model = build_model({"target": "smp", "kwargs": kwargs}, classes=2).eval()
    assert forward([model], torch.zeros(1, 1, 64, 64), "mask", ["none"]).shape == (1, 2, 64, 64)
    spec = {"target": "timm", "kwargs": {"name": "mobilenetv3_small_050"}}
    gate = build_model(spec, classes=4).eval()
    assert forward([gate], torch.zeros(2, 1, 64, 64), "label", ["none"]).shape == (2, 4)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (smp(arch="FPM"), "FPN"),
        (smp(encoder="resnet81"), "resnet18"),
        (smp(encoder="tu-tf_efficientnet_light0"), "tu-tf_efficientnet_lite0"),
        ({"target": "timm", "kwargs": {"name": "resnet_18"}}, "resnet18"),
        ({"target": "spm", "kwargs": {}}, "smp"),
    ],
)
def test_unknown_names_say_the_nearest(spec, said):
    with pytest.raises(UsageError) as caught:
        build_model(spec, classes=1)
    assert said in caught.value.hint


def test_a_wrong_argument_names_itself():
    with pytest.raises(UsageError, match="decoder_chanels"):
        build_model(smp(decoder_chanels=[1]), classes=1)


def test_encoder_weights_reach_only_models_that_take_them(plugins):
    spec = {"target": "plugins_for_infer:Bright"}
    assert build_model(spec, classes=2).gain.shape == (2,)
    with pytest.raises(UsageError, match="takes no encoder_weights"):
        build_model(spec, classes=2, encoder_weights="imagenet")


def test_a_member_asks_nobody_for_weights(member, plugins):
    """The kernel has no network: whatever a model starts from otherwise, it is built bare."""
    asked = []

    class Greedy(plugins.Bright):
        def __init__(self, classes, encoder_weights="imagenet"):
            asked.append(encoder_weights)
            super().__init__(classes)

    plugins.Greedy = Greedy
    one = replace(member("Bright"), model={"target": "plugins_for_infer:Greedy"})
    load_member(one, 2, "cpu")
    assert asked == [None]


def test_a_model_that_answers_another_question_is_named():
    label = torch.zeros(1, 2)
    assert named_outputs(label, "label") == {"label": label}
    with pytest.raises(UsageError, match="predicts 'mask'"):
        outputs({"label": label}, "mask")


def test_a_copy_supervises_itself():
    """The average of weights is a copy: hooks of the original's would fill the original's list."""
    torch.manual_seed(0)
    model = build_model(smp(deep_supervision=True), classes=2).train()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.aux_heads.parameters():
            parameter.zero_()
    image = torch.rand(2, 1, 40, 48)
    assert model(image)["aux"].abs().max() > 0
    assert twin(image)["aux"].abs().max() == 0
    assert sorted(twin(image)) == ["aux", "aux1", "mask"]
    assert not any(module._forward_hooks for module in model.modules())
    assert isinstance(twin.eval()(image), torch.Tensor)


def test_supervised_levels_share_the_weight_of_aux():
    loss = build({"target": "bce", "kwargs": {"aux": 0.4}}, LOSSES)
    mask, flat = torch.full((1, 1, 4, 4), 2.0), torch.zeros(1, 1, 2, 2)
    target = {"mask": torch.ones(1, 1, 4, 4)}
    one, none = (loss({"mask": logits}, target) for logits in (mask, torch.zeros_like(mask)))
    found = loss({"mask": mask, "aux": flat, "aux1": mask}, target)
    torch.testing.assert_close(found, one + 0.2 * none + 0.2 * one)


def test_supervision_where_there_is_none_names_those_that_have_it():
    with pytest.raises(UsageError, match="PSPNet has no deep supervision") as caught:
        kwargs = {"arch": "PSPNet", "encoder": "resnet18", "deep_supervision": True}
        build_model({"target": "smp", "kwargs": kwargs}, classes=1)
    assert "UnetPlusPlus" in caught.value.hint


def test_an_encoder_for_research_only_must_be_allowed():
    kwargs = {"arch": "FPN", "encoder": "mit_b0"}
    with pytest.raises(UsageError, match="NVIDIA's licence for non-commercial use") as caught:
        build_model({"target": "smp", "kwargs": kwargs}, classes=1)
    assert "model.kwargs.noncommercial=true" in caught.value.hint
    build_model({"target": "smp", "kwargs": kwargs | {"noncommercial": True}}, classes=1)


@pytest.mark.parametrize(
    ("arch", "encoder", "why"),
    [
        ("UnetPlusPlus", "mit_b0", "not support"),
        ("DPT", "resnet18", "Only Timm encoders"),
        ("PAN", "densenet121", "dilated mode"),
        ("Unet", "tu-vit_tiny_patch16_224", "Unsupported model downsampling"),
    ],
)
def test_a_pair_that_smp_refuses_says_why(arch, encoder, why):
    kwargs = {"arch": arch, "encoder": encoder, "noncommercial": True}
    with pytest.raises(UsageError, match=why):
        build_model({"target": "smp", "kwargs": kwargs}, classes=1)


def test_windows_of_attention_pad_to_their_own_multiple():
    kwargs = {"arch": "FPN", "encoder": "tu-maxvit_rmlp_pico_rw_256"}
    model = build_model({"target": "smp", "kwargs": kwargs}, classes=1).eval()
    assert model.stride == 256
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, 60, 300)).shape == (1, 1, 60, 300)
