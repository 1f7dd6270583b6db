from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from kagflow.errors import DataError
from kagflow.infer.engine import Settings, predict, predict_probs
from kagflow.infer.forward import forward
from kagflow.infer.members import Member, load_member, members_from_config
from kagflow.infer.postprocess import ClassRule
from kagflow.task.rle import decode
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("tiny", "segmentation", ("a", "b"))
RULES = [ClassRule(0.5, 1, gate=0.5), ClassRule(0.5, 1, gate=0.5)]
KEEP = Settings(batch=2, keep_probs=True)


def square(height=32, width=64, value=255):
    image = np.zeros((height, width), np.uint8)
    image[4:10, 5:15] = value
    return image


def by_id(found):
    return {one.image_id: one for one in found}


def test_masks_are_the_bright_and_the_dark_pixels(member):
    files = [(f"i{n}", square()) for n in range(5)]
    found = by_id(predict([member("Bright")], RULES, SPEC, files, settings=Settings(batch=2)))
    assert sorted(found) == [f"i{n}" for n in range(5)]
    bright = decode(found["i3"].rows[0], 32, 64)
    assert np.array_equal(bright, square() // 255)
    assert np.array_equal(decode(found["i3"].rows[1], 32, 64), 1 - bright)
    assert found["i0"].masks is None


def test_classes_without_a_pixel_have_no_row(member):
    (one,) = predict([member("Bright")], RULES, SPEC, [("x", square(value=0))])
    assert sorted(one.rows) == [1]


def test_members_are_weighted_and_folds_share_a_members_weight(member):
    # At brightness 1 the two gains give sigmoid(2) and sigmoid(4).
    members = [member("Bright", gain=4.0, weight=3.0, folds=2), member("Bright", gain=8.0)]
    (one,) = predict(members, RULES, SPEC, [("x", np.full((32, 32), 255, np.uint8))], settings=KEEP)
    wanted = 0.75 / (1 + np.exp(-2)) + 0.25 / (1 + np.exp(-4))
    np.testing.assert_allclose(one.masks[0], wanted, rtol=1e-5)


def test_members_of_unequal_working_size_meet_at_the_images_own(member):
    members = [member("Bright", size=(16, 32)), member("Bright", size=(48, 96)), member("Bright")]
    (one,) = predict(members, RULES, SPEC, [("x", square())], settings=KEEP)
    assert one.masks.shape == (2, 32, 64)
    assert np.array_equal(decode(one.rows[0], 32, 64)[5:9, 6:14], np.ones((4, 8)))


def test_images_of_many_sizes_are_answered_at_their_own_size(member):
    sizes = [(20, 30), (33, 65), (20, 30), (50, 41), (64, 64), (33, 65), (20, 30)]
    files = [(str(n), square(*size)) for n, size in enumerate(sizes)]
    for size in (None, (32, 32)):
        one = member("Bright", size=size)
        found = by_id(predict([one], RULES, SPEC, files, settings=KEEP))
        assert len(found) == len(files)
        for n, (height, width) in enumerate(sizes):
            assert found[str(n)].masks.shape == (2, height, width)
            if size is None:
                mask = decode(found[str(n)].rows[0], height, width)
                assert np.array_equal(mask, square(height, width) // 255)


def test_batches_do_not_change_the_answer(member):
    rng = np.random.default_rng(0)
    files = [(str(n), rng.integers(0, 256, (40, 56), np.uint8)) for n in range(7)]
    members = [member("Bright", gain=3.0, tta=("none", "hflip")), member("Ramp")]
    runs = [
        by_id(predict(members, RULES, SPEC, files, settings=Settings(batch=b, keep_probs=True)))
        for b in (1, 3, 16)
    ]
    for image_id, one in runs[0].items():
        for other in runs[1:]:
            np.testing.assert_allclose(one.masks, other[image_id].masks, atol=1e-6)


def test_vetoed_images_never_reach_the_segmenters(member, plugins):
    members = [member("Bright"), member("MeanLabel", predicts="label", tta=("none", "hflip"))]
    files = [(f"dark{n}", np.zeros((32, 32), np.uint8)) for n in range(6)]
    files += [(f"light{n}", np.full((32, 32), 250, np.uint8)) for n in range(3)]
    plugins.CALLS.clear()
    found = by_id(predict(members, RULES, SPEC, files, settings=KEEP))
    seen = {kind: sum(s[0] for k, s in plugins.CALLS if k == kind) for kind in ("mask", "label")}
    assert seen == {"label": 18, "mask": 3}
    assert all(found[f"dark{n}"].rows == {} for n in range(6))
    assert all(sorted(found[f"light{n}"].rows) == [0] for n in range(3))
    assert found["dark0"].labels.shape == (2,)
    # Survivors are gathered anew: two full batches, not four half-empty ones.
    assert [s[0] for k, s in plugins.CALLS if k == "mask"] == [2, 1]


def test_without_a_class_to_predict_nothing_runs(member, plugins):
    rules = [ClassRule(empty=True)] * 2
    plugins.CALLS.clear()
    (one,) = predict([member("Bright")], rules, SPEC, [("x", square())])
    assert one.rows == {}
    assert plugins.CALLS == []


def test_an_unreadable_image_is_empty_and_told(member, tmp_path):
    good, empty, text = (tmp_path / name for name in ("good.png", "empty.png", "text.png"))
    cv2.imwrite(str(good), square())
    empty.write_bytes(b"")
    text.write_text("no image")
    files = [(p.name, p) for p in (empty, good, text, tmp_path / "gone.png")]
    told = {}
    found = by_id(predict([member("Bright")], RULES, SPEC, files, on_fault=told.__setitem__))
    assert sorted(told) == ["empty.png", "gone.png", "text.png"]
    assert all(found[name].rows == {} and found[name].fault == told[name] for name in told)
    assert found["good.png"].rows


def test_every_other_error_is_raised(member):
    files = [(str(n), square()) for n in range(6)]
    found = predict([member("Crash", after=2)], RULES, SPEC, files, settings=Settings(batch=1))
    assert {next(found).image_id, next(found).image_id} == {"0", "1"}
    with pytest.raises(RuntimeError, match="fell off the bus"):
        list(found)


def test_classification_by_threshold_and_exclusively(member):
    files = [("dark", np.zeros((32, 32), np.uint8)), ("light", np.full((32, 32), 255, np.uint8))]
    gate = member("MeanLabel", predicts="label", classes=3)
    for exclusive, wanted in ((False, {"dark": {}, "light": {0: "", 1: "", 2: ""}}), (True, None)):
        spec = TaskSpec("tiny", "classification", ("a", "b", "c"), exclusive=exclusive)
        found = by_id(predict([gate], [ClassRule()] * 3, spec, files, settings=KEEP))
        if exclusive:
            assert all(len(one.rows) == 1 for one in found.values())
        else:
            assert {i: one.rows for i, one in found.items()} == wanted
        assert found["light"].labels[0] > 0.99


def test_probabilities_of_modules_in_memory_are_those_of_predict(member, tmp_path):
    one = member("Ramp", size=(24, 40), tta=("none", "hflip"))
    files = [(str(n), square()) for n in range(3)]
    modules = load_member(one, 2, "cpu")
    (tmp_path / "bad.png").write_text("")
    told = []
    found = list(
        predict_probs(
            one,
            modules,
            [*files, ("bad", tmp_path / "bad.png")],
            settings=Settings(batch=2),
            on_fault=lambda *a: told.append(a),
        )
    )
    assert [p.image_id for p in found] == ["0", "1", "2"]
    assert found[0].probs.shape == (2, 24, 40)
    assert found[0].size == (32, 64)
    assert [a[0] for a in told] == ["bad"]
    batch = torch.zeros(1, 1, 24, 40)
    wanted = forward(modules, batch, "mask", ["none", "hflip"])[0]
    np.testing.assert_allclose(found[0].probs, wanted, atol=1e-6)
    label = member("MeanLabel", predicts="label")
    (probs,) = predict_probs(label, load_member(label, 2, "cpu"), files[:1])
    assert probs.probs.shape == (2,)


def entry(one, folder):
    names = [str(path.relative_to(folder)) for path in one.weights]
    return {"run": one.name, "predicts": one.predicts, "model": one.model, "input": one.input,
            "size": [16, 32], "tta": ["none"], "weights": names, "weight": 2}  # fmt: skip


def test_members_come_from_an_ensembles_json(member, tmp_path):
    config = {"task": SPEC.to_dict(), "members": [entry(member("Bright", folds=2), tmp_path)]}
    config["rules"] = [{"threshold": 0.4, "min_area": 5, "gate": 0.1, "empty": False}] * 2
    (one,), rules, spec = members_from_config(config, tmp_path)
    assert (one.name, one.size, one.weight, len(one.weights)) == ("Bright", (16, 32), 2.0, 2)
    assert all(path.is_file() for path in one.weights)
    assert rules[1] == ClassRule(0.4, 5, gate=0.1)
    assert spec == SPEC


def test_an_ensemble_that_cannot_answer_is_refused(member, tmp_path):
    whole = {
        "task": SPEC.to_dict(),
        "members": [entry(member("Bright"), tmp_path)],
        "rules": [{}] * 2,
    }
    gate = entry(member("MeanLabel", predicts="label"), tmp_path)
    for change, said in (
        ({"rules": [{}]}, "1 rules for 2 classes"),
        ({"members": [gate]}, "predicts 'mask'"),
        ({"members": [{**whole["members"][0], "tta": ["rot90"]}]}, "rot90"),
    ):
        with pytest.raises(DataError, match=said):
            members_from_config(whole | change, tmp_path)
    with pytest.raises(DataError, match="lacks 'rules'"):
        members_from_config({k: v for k, v in whole.items() if k != "rules"}, tmp_path)


def test_a_member_must_predict_something_known():
    with pytest.raises(DataError, match="boxes"):
        Member("x", "boxes", {}, {}, None, ())


def in_logits(members):
    return [replace(one, mean="logits") for one in members]


def test_logits_are_averaged_by_weight_at_the_images_own_size(member):
    members = [member("Bright", gain=4.0, weight=3.0), member("Bright", gain=7.0, size=(16, 32))]
    files = [("x", cv2.GaussianBlur(square(), (0, 0), 2)), ("y", square())]
    alone = [by_id(predict([one], RULES, SPEC, files, settings=KEEP)) for one in members]
    found = by_id(predict(in_logits(members), RULES, SPEC, files, settings=KEEP))
    for name in ("x", "y"):
        odds = [np.log(one[name].masks / (1 - one[name].masks)) for one in alone]
        wanted = 1 / (1 + np.exp(-(0.75 * odds[0] + 0.25 * odds[1])))
        np.testing.assert_allclose(found[name].masks, wanted, atol=1e-5)


def test_certainty_counts_for_no_more_than_the_store_knows(member):
    # One member is as good as certain; in logits it may not outvote the other without end.
    members = [member("Bright", gain=400.0), member("Bright", gain=-4.0)]
    (one,) = predict(in_logits(members), RULES, SPEC, [("x", square(value=255))], settings=KEEP)
    wanted = 1 / (1 + np.exp(-(np.log(509) - 2) / 2))
    np.testing.assert_allclose(one.masks[0, 5, 6], wanted, rtol=1e-4)


def test_labels_are_averaged_in_logits_too(member):
    spec = TaskSpec("tiny", "classification", ("a", "b"))
    pair = [
        member("MeanLabel", predicts="label"),
        member("MeanLabel", predicts="label", offset=3.0),
    ]
    files = [("x", np.full((32, 32), 115, np.uint8))]
    alone = [next(predict([one], RULES, spec, files, settings=KEEP)).labels for one in pair]
    (one,) = predict(in_logits(pair), RULES, spec, files, settings=KEEP)
    odds = np.mean([np.log(p / (1 - p)) for p in alone], axis=0)
    np.testing.assert_allclose(one.labels, 1 / (1 + np.exp(-odds)), rtol=1e-5)


def test_members_must_agree_on_their_mean(member, tmp_path):
    with pytest.raises(DataError, match="mean 'median'"):
        replace(member("Bright"), mean="median")
    entry = {
        "run": "a", "predicts": "mask", "model": {}, "input": {}, "size": None, "weights": ["w"],
        "mean": "logits",
    }  # fmt: skip
    config = {"task": SPEC.to_dict(), "rules": [{}, {}], "members": [entry, entry | {"run": "b"}]}
    read, _, _ = members_from_config(config, tmp_path)
    assert [one.mean for one in read] == ["logits", "logits"]
    config["members"][1] = {key: value for key, value in entry.items() if key != "mean"}
    with pytest.raises(DataError, match="averaged in two ways"):
        members_from_config(config, tmp_path)
