from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.learn.perimage import Images, from_counts
from kagflow.report import collect, errors
from kagflow.report.facts import Limits, Missing
from kagflow.task import metric


def missing(facts):
    return {name: one.command for name, one in vars(facts).items() if isinstance(one, Missing)}


def test_everything_is_there_when_everything_was_done(house):
    house.run("one").run("two", noise=0.4).run("gate", predicts="label", noise=0.05)
    facts = house.ensemble("one", "two", "gate").collect()
    assert missing(facts) == {}
    low, high = facts.worth.interval
    assert 0 < low < facts.worth.score < high <= 1
    assert sorted(row.run for row in facts.members.rows) == ["gate", "one", "two"]
    assert sorted(facts.members.names) == ["one", "two"]
    (own, other), _ = facts.members.correlation
    assert own == pytest.approx(1)
    assert -1 < other < 1
    assert [curve.label for curve in facts.curves] == ["1", "2", "3"]
    assert facts.gates[-1].name == "gate"
    assert all(one.auc > 0.8 for one in facts.gates[-1].classes)
    assert facts.submitted.gap == pytest.approx(-0.02)
    assert facts.hours.total == pytest.approx(6000 / 3600)
    assert facts.hours.open == 1
    assert len(facts.cards) == len(house.names)


@pytest.mark.parametrize("classes", [("1", "2", "3"), ("a", "b", "c", "d", "e"), ("x",)])
def test_what_errors_cost_adds_up_to_what_is_lost(build, classes):
    house = build(classes=classes).run("one")
    facts = house.ensemble("one").collect()
    lost = sum(one.points for row in facts.costs for one in row)
    assert lost == pytest.approx(1 - facts.worth.score)
    assert sum(one.count for row in facts.costs for one in row) == 24 * len(classes)


def test_what_cards_cost_is_what_the_drawn_masks_lose(house):
    facts = house.run("one").collect()
    # No ensemble: default rules, so that the cards are of the very predictions that are scored.
    assert sum(card.loss for card in facts.cards) == pytest.approx(1 - facts.worth.score)
    losses = [card.loss for card in facts.cards]
    assert losses == sorted(losses, reverse=True)
    for card in facts.cards:
        for unit in card.units:
            there, said = unit.true > 0, unit.predicted > 0
            assert (unit.kind == errors.MISSED) == (there and not said)
            assert (unit.kind == errors.HALLUCINATED) == (said and not there)
        assert {shape.label for shape in card.truth} == {u.label for u in card.units if u.true}


@pytest.mark.parametrize("names", [(), ("one",), ("one", "gate")])
def test_whatever_is_missing_is_said_with_its_command(house, names):
    if "one" in names:
        house.run("one", folds=(0,))
    if "gate" in names:
        house.run("gate", folds=(1,), predicts="label")
    facts = house.collect(history=False)
    lacking = missing(facts)
    assert lacking["submitted"] == "kagflow submit"
    assert lacking["hours"] == "kagflow train fold=0"
    assert ("gates" in lacking) == ("gate" not in names)
    for section in ("worth", "costs", "members", "curves", "cards", "doubts"):
        assert (section in lacking) == (not names), section
    if not names:
        assert lacking["cards"] == "kagflow train fold=0"
    else:
        assert facts.worth.images == 12


def test_a_lone_gate_draws_nothing(house):
    facts = house.run("gate", predicts="label").collect()
    assert "No finished run predicts a mask" in facts.cards.what or "gallery" in facts.cards.what
    assert [gate.name for gate in facts.gates] == ["gate"]


def test_a_classification_has_labels_and_no_masks(build):
    house = build(kind="classification").run("one", predicts="label", noise=0.1)
    facts = house.ensemble("one").collect()
    assert set(missing(facts)) == set()
    assert facts.doubts == []
    assert all(card.truth == card.predicted == () for card in facts.cards)
    kinds = {unit.kind for card in facts.cards for unit in card.units}
    assert kinds <= {errors.MISSED, errors.HALLUCINATED, errors.GOOD}


def test_a_metric_of_whole_images_is_shared_by_the_wrong_classes(build):
    house = build(kind="classification")
    house.spec = type(house.spec)(**{**house.spec.to_dict(), "metric": "exact_match"})
    facts = house.run("one", predicts="label", noise=0.2).collect()
    assert sum(one.points for row in facts.costs for one in row) == pytest.approx(
        1 - facts.worth.score
    )
    assert all(one.missed is None for one in facts.worth.classes)


def test_the_gallery_keeps_its_limit_and_shows_each_kind(build):
    house = build(images=60).run("one", noise=0.3)
    facts = house.collect(limits=Limits(images=20))
    assert len(facts.cards) == 20
    why = {reason for card in facts.cards for reason in card.why}
    assert {"worst", "median", "missed", "hallucinated"} <= why
    assert len(house.collect(limits=Limits(images=1)).cards) == 1
    assert house.collect(limits=Limits(images=0)).cards.command == "kagflow report --images 300"


def test_labels_that_models_contradict_are_in_doubt(build):
    house = build().run("one", noise=0).run("two", noise=0)
    name, (c, *_) = next((n, sorted(f)) for n, f in house.truth.items() if f)
    del house.truth[name][c]
    house._labels()
    facts = house.ensemble("one", "two").collect()
    (doubt,) = facts.doubts
    assert (doubt.image_id, doubt.label, doubt.kind) == (name, str(c + 1), errors.HALLUCINATED)
    assert doubt.agree == doubt.of >= 1
    assert doubt.sure > 0.9
    shown = next(card for card in facts.cards if card.image_id == name)
    assert "doubted" in shown.why
    # Neighbours share a cluster, and here often not their classes.
    assert any(name in dict(twins.images) for twins in facts.twins)


def test_a_picture_that_is_gone_leaves_its_facts(house):
    house.run("one")
    (house.data / "train_images" / house.names[3]).unlink()
    cards = {card.image_id: card for card in house.collect().cards}
    assert cards[house.names[3]].picture is None
    assert cards[house.names[4]].picture.uri.startswith("data:image/webp;base64,")


def test_choosing_gives_every_kind_its_turn():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, (400, 2)) * 100
    predicted = rng.integers(0, 2, (400, 2)) * 100
    both = np.minimum(true, predicted) // 2
    ids = tuple(f"{n:03}" for n in range(400))
    images = Images(ids, np.arange(400), np.zeros(400, np.int64))
    result = from_counts("x", ("a", "b"), images, np.array([true, predicted, both]), metric.dice)
    chosen = errors.choose(result, 50)
    assert len(chosen) == 50
    many = {reason: sum(reason in why for why in chosen.values()) for reason in
            ("worst", "median", "missed", "hallucinated")}  # fmt: skip
    assert min(many.values()) >= 5
    lost = errors.losses(result).sum(axis=1)
    order = [lost[int(name)] for name in chosen]
    assert order == sorted(order, reverse=True)


def test_of_many_images_curves_and_members_are_a_sample_of_whole_clusters(house, monkeypatch):
    monkeypatch.setattr(collect, "SAMPLE", 10)
    facts = house.run("one").run("two").ensemble("one", "two").collect()
    assert facts.sample == (10, 24)
    assert facts.members.rows[0].alone.images == 10
    assert facts.members.rows[0].alone.clusters == 5
    assert facts.worth.images == 24
    assert len(facts.cards) == 24


def test_pictures_shrink_until_all_fit_into_the_page(house):
    house.run("one")
    noise = np.random.default_rng(0).integers(0, 255, (150, 200), np.uint8)
    for path in (house.data / "train_images").iterdir():
        path.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    small = house.collect(limits=Limits(megabytes=1.8)).cards
    assert sum(len(card.picture.uri) for card in small) <= 300_000 - 24 * 10_000
    large = house.collect(limits=Limits(images=2)).cards
    assert all(len(card.picture.uri) > 10_000 for card in large)


def test_a_member_that_is_gone_is_named(house):
    house.run("one").run("two").ensemble("one", "two")
    shutil.rmtree(house.root / "runs" / "tiles" / "two")
    with pytest.raises(DataError, match="two has no finished fold"):
        house.collect()


def result(scores):
    true = np.full((len(scores), 1), 100)
    both = np.round(scores * 100).astype(np.int64)[:, None]
    ids = tuple(map(str, range(len(scores))))
    images = Images(ids, np.arange(len(scores)), np.zeros(len(scores), np.int64))
    return from_counts("x", ("a",), images, np.array([true, true, both]), metric.dice)


def test_correlations_are_pearsons():
    scores = np.random.default_rng(0).random((3, 50)).round(2)
    found = collect.correlations([result(one) for one in scores])
    np.testing.assert_allclose(found, np.corrcoef(scores), atol=1e-9)
    flat = collect.correlations([result(scores[0]), result(np.ones(50))])
    assert flat[0][1] is None
