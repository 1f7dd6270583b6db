from __future__ import annotations

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.evidence import THRESHOLDS, Evidence
from kagflow.report import charts, curves, pictures, reliability, spent
from kagflow.task import metric

AXES = charts.Axes("x", "y")


def line(name="a", x=(0, 1), y=(0, 1), **how):
    return charts.Line(name, x, y, **how)


def test_a_chart_is_the_same_bytes_and_no_more_than_a_drawing():
    lines = [line(), line("b", colour=charts.ORANGE, dots=[20, 30])]
    first = charts.plot("one", lines, AXES, at=0.5)
    assert first == charts.plot("one", lines, AXES, at=0.5)
    assert first.startswith("<svg")
    assert "width=" not in first[: first.index(">")]
    assert "<script" not in first
    assert "<style" not in first
    assert "http" not in first.replace("http://www.w3.org/", "")
    assert len(first) < 20_000


def test_charts_on_one_page_share_no_names():
    texts = [charts.plot(key, [line()], AXES) for key in ("one", "two")]
    names = [set(re.findall(r'\bid="([^"]*)"', text)) for text in texts]
    assert names[0]
    assert not names[0] & names[1]
    for text, known in zip(texts, names, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^)"]*)', text)) <= known


def test_what_a_chart_is_told_is_text_and_takes_the_pages_colours():
    text = charts.plot("one", [line("$x_1$ <script>")], AXES)
    assert "$x_1$ &lt;script&gt;" in text
    assert "var(--blue)" in text
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", text)


def test_reliability_agrees_with_counting_pairs():
    rng = np.random.default_rng(0)
    said = rng.random(200).round(2)
    was = rng.random(200) < said
    found = reliability.reliability("a", said, was)
    pairs = [(a > b) + (a == b) / 2 for a in said[was] for b in said[~was]]
    assert found.auc == pytest.approx(np.mean(pairs))
    assert sum(one.count for one in found.bins) == 200
    assert found.ece < 0.15
    assert reliability.reliability("a", said, was < 0).auc is None
    wrong = reliability.reliability("a", np.full(50, 0.95), np.zeros(50, bool))
    assert wrong.ece == pytest.approx(0.95)
    (joined,) = reliability.pool([wrong, wrong])
    assert (joined.count, joined.was) == (100, 0)


def test_a_curve_is_the_score_at_each_threshold():
    rng = np.random.default_rng(0)
    many, steps = 30, len(THRESHOLDS)
    true = rng.integers(0, 2, (many, 1)) * 50
    predicted = np.sort(rng.integers(0, 120, (many, 1, steps)))[..., ::-1]
    both = np.minimum(predicted, true[..., None]) // 2
    gate = rng.random((many, 1)).astype(np.float32)
    ids = tuple(map(str, range(many)))
    evidence = Evidence(ids, np.arange(many), true, predicted, both, gate, 1000)
    rule = ClassRule(0.25, min_area=60, gate=0.5)
    (curve,) = curves.curves(evidence, [rule], metric.dice, ["a"])
    at = int(np.flatnonzero(THRESHOLDS == 0.25)[0])
    kept = (predicted[:, 0, at] >= 60) & (gate[:, 0] >= 0.5)
    cut = metric.dice(both[:, 0, at] * kept, predicted[:, 0, at] * kept, true[:, 0]).mean()
    alone = metric.dice(both[:, 0, at], predicted[:, 0, at], true[:, 0]).mean()
    assert curve.numbers[at] == pytest.approx((0.25, alone, cut))
    assert curve.floor == pytest.approx((true == 0).mean())
    assert (curve.label, curve.chosen) == ("a", 0.25)
    assert curve.rule == "from 0.25, at least 60 px, gate from 0.5"
    (dropped,) = curves.curves(evidence, [replace(rule, min_component=7)], metric.dice, ["a"])
    assert all(np.isnan(row[2]) for row in dropped.numbers)
    (empty,) = curves.curves(evidence, [ClassRule(empty=True)], metric.dice, ["a"])
    assert (empty.chosen, empty.rule) == (None, "never predicted")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (ClassRule(empty=True), "never predicted"),
        (ClassRule(0.5), "from 0.5"),
        (ClassRule(0.5, 9, 5, seed=0.7), "from 0.5, components from 5 px, at least 9 px reaching"),
        (ClassRule(gate=0.4), "from 0.5, gate from 0.4"),
        (ClassRule(min_area=9, soft=3), "from 0.5, at least 9 px, up to 3 times as many where"),
    ],
)  # fmt: skip
def test_rules_are_told_in_words(rule, said):
    assert curves.describe(rule, masks=True).startswith(said)


def test_submissions_without_a_score_are_listed_and_not_drawn():
    row = {"cv_crossfitted": None, "cv_naive": 0.9, "public": None, "private": None}
    found = spent.submitted([row, {**row, "cv_naive": None, "public": 0.8}])
    assert [one["cv"] for one in found.rows] == [0.9, None]
    assert (found.svg, found.gap, found.compared) == (None, None, 0)


def test_pictures_keep_their_budget_and_their_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (256, 1800), np.uint8)
    path = tmp_path / "ü.png"
    path.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    for most in (400_000, 60_000, 20_000):
        found = pictures.read_picture(path, most=most)
        assert len(found.uri) <= most
        assert (found.width, found.height) == (1800, 256)
    assert pictures.read_picture(tmp_path / "none.png", most=1) is None
    path.write_bytes(b"x")
    assert pictures.read_picture(path, most=1) is None
