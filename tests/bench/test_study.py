"""The study: equal compute, what a row needs and says, rows once, sessions that go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"
NAMES = (
    "study", "study_arms", "study_costs", "study_finals", "study_records", "study_rows",
    "study_train", "quality_rows", "quality_stats", "quality_train", "plain_smp",
)  # fmt: skip
HEAD = "# Title\n\n| row | data | on | compared |\n|---|---|---|---|\n"
IMAGES = {
    "oof": list(range(40)),
    "hidden": list(range(40)),
    "public": [at % 2 for at in range(40)],
    "floor": {"oof": 0.5, "hidden": 0.5},
}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import study
    import study_costs

    yield SimpleNamespace(
        study=study, arms=study.arms, rows=study.rows, records=study.records, costs=study_costs
    )
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def kept(bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Records and rows of the test's own."""
    folder = tmp_path / "study"
    results = tmp_path / "STUDY.md"
    results.write_text(HEAD)
    monkeypatch.setattr(bench.arms, "KEPT", folder)
    monkeypatch.setattr(bench.rows, "RESULTS", results)
    return folder


def _record(score: float, *, empty: bool = False, wall: float = 100.0, name: str = "lite"):
    ways = {"half": [score - 0.1] * 40, "final": [score] * 40}
    dice = {"half": score, "final": score}
    note = {"cpu_seconds": 90.0, "wall_seconds": wall}
    return {
        "oof": ways, "hidden": ways, "dice": {"oof": dice, "hidden": dice},
        "empty": empty, "trainings": {name: note},
    }  # fmt: skip


def _keep(bench, data: str, arm: str, seed: int, record: dict) -> None:
    path = bench.records.path_of(data, arm, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    (path.parent / "images.json").write_text(json.dumps(IMAGES))


def test_an_arm_sees_as_many_images_as_its_cost_allows(bench) -> None:
    arena = SimpleNamespace(images=6000, batch=16)
    assert bench.arms.budget(arena, "lite", {}) == 6000
    assert bench.arms.budget(arena, "plain", {}) == 6000, "no layer differs: nothing to measure"
    assert bench.arms.budget(arena, "siamese", {"siamese": 2.0}) == 3000
    assert bench.arms.budget(arena, "gate", {"gate": 0.5}) == 12000
    assert bench.arms.budget(arena, "unet-lite1", {"unet-lite1": 4.0}) == 500
    with pytest.raises(KeyError):
        bench.arms.budget(arena, "siamese", {})


def test_an_arm_of_three_thirds_costs_one_budget_and_a_gate_another(bench) -> None:
    budgets = {name: arm.budgets for name, arm in bench.arms.ARMS.items()}
    assert budgets["baseline"] == pytest.approx(budgets["lite"])
    assert budgets["gated"] == budgets["joined"] == 2


def test_a_cost_is_measured_once(bench, tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    for cost in (1.5, 1.9):
        bench.costs.keep("neu_steel", "gate", cost, path)
    assert json.loads(path.read_text())["costs"] == {"neu_steel": {"gate": 1.5}}


def test_recipes_are_the_reference_but_for_what_an_arm_is_about(bench, tmp_path: Path) -> None:
    shown = BENCH.parent / "tests" / "competitions" / "neu_steel" / "recipes"
    home = tmp_path / "competitions" / "neu_steel"
    home.mkdir(parents=True)
    (home / "recipes").symlink_to(shown)
    arena = bench.study.ARENAS["neu_steel"]
    place = SimpleNamespace(arena=arena, root=tmp_path, files=lambda held_out: [None] * 420)
    lite, *_ = whole = [
        bench.arms.recipe(place, name, 3, 2000).model_dump()
        for name, one in bench.arms.TRAININGS.items()
        if not one.script and not one.recipe
    ]
    changed = [{key for key in lite if one[key] != lite[key]} for one in whole]
    assert changed == [
        set(), {"weights"}, {"weights", "model"}, {"sampler"}, {"model", "loss"}, {"model"},
        {"model", "assets", "input"},
    ]  # fmt: skip
    gate = bench.arms.recipe(place, "gate", 3, 2000)
    assert (gate.predicts, gate.seed) == ("label", 3)
    assert gate.epochs * gate.samples == pytest.approx(2000, abs=gate.epochs)


def _line(bench, kept: Path, ours: dict, theirs: dict, row: str = "weights") -> list[str]:
    for seed in range(3):
        _keep(bench, "neu_steel", "lite", seed, ours)
        _keep(bench, "neu_steel", "random", seed, theirs)
    there, read = bench.records.there, bench.records.read
    return bench.rows.lines(row, "neu_steel", there, read, IMAGES)


def test_win_loss_and_undecided_are_said(bench, kept: Path) -> None:
    assert all("**win**" in one for one in _line(bench, kept, _record(0.8), _record(0.7)))
    assert all("**loss**" in one for one in _line(bench, kept, _record(0.7), _record(0.8)))
    found = _line(bench, kept, _record(0.8), _record(0.8))
    assert len(found) == 4, "tuned and at .5, out of fold and hidden"
    assert all("**undecided**" in one for one in found)
    assert "| 0.8000 ± 0.0000 | 0.8000 ± 0.0000 | +0.0000 [+0.0000, +0.0000] |" in found[0]


def test_arms_tuned_to_nothing_answer_nothing(bench, kept: Path) -> None:
    both = _line(bench, kept, _record(0.8, empty=True), _record(0.7, empty=True))
    assert ["**not answered**" in one for one in both] == [True, True, False, False]
    one = _line(bench, kept, _record(0.8, empty=True), _record(0.7))
    assert all("**win**" in line for line in one)


def test_a_line_waits_for_its_records_and_is_written_once(bench, kept: Path) -> None:
    assert _line(bench, kept, _record(0.8), _record(0.7), row="gate") == []
    assert len(bench.study.write_rows()) == 2 + 4, "tuning's step and the row of weights"
    text = bench.rows.RESULTS.read_text()
    _line(bench, kept, _record(0.1), _record(0.7))
    assert bench.study.write_rows() == []
    assert bench.rows.RESULTS.read_text() == text


def test_the_chosen_arm_is_chosen_out_of_fold(bench, kept: Path) -> None:
    good_hidden, good_outside = _record(0.7), _record(0.8)
    good_hidden["hidden"] = {"half": [0.9] * 40, "final": [0.9] * 40}
    assert bench.rows.choose({"a": [good_hidden], "b": [good_outside]}) == "b"
    for name in [*bench.rows.single_budget("neu_steel"), "baseline"]:
        for seed in range(3):
            score = {"plain": 0.8, "baseline": 0.6}.get(name, 0.7)
            _keep(bench, "neu_steel", name, seed, _record(score))
    there, read = bench.records.there, bench.records.read
    first, _, chosen, _ = bench.rows.lines("baseline", "neu_steel", there, read, IMAGES)
    assert "| lite, tuned / baseline, by hand | 0.7000" in first
    assert "| chosen out of fold (plain), tuned / baseline, by hand | 0.8000" in chosen
    again = chosen.replace("(plain)", "(random)")
    assert bench.rows.key_of(again) == bench.rows.key_of(chosen) != bench.rows.key_of(first)


def test_what_cannot_be_asked_of_a_data_set_is_not_needed(bench) -> None:
    assert ("siamese", 0) in bench.rows.needs("texture", "magnetic_tile")
    assert "siamese" not in {arm for arm, _ in bench.rows.needs("texture", "neu_steel")}
    for data in bench.study.DATA:
        wanted = set(bench.study.order())
        known = bench.arms.arms_of(data)
        assert {(data, arm, s) for arm in known for s in range(known[arm].seeds)} <= wanted


def test_a_session_goes_on_where_another_stopped(bench, kept: Path, monkeypatch) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(bench.study.study_train, "told", lambda *_: None)
    monkeypatch.setattr(bench.study, "_run", lambda what, _, *one: ran.append((what, *one)))
    monkeypatch.setattr(bench.arms, "costs", lambda: {"neu_steel": {"gate": 0.8}})
    monkeypatch.setattr(bench.study.records, "make", lambda *_: BENCH / "made")
    _keep(bench, "neu_steel", "lite", 0, _record(0.8))
    units = bench.study.missing(bench.study.order("gate"))
    assert ("neu_steel", "lite", 0) not in units
    bench.study.do(kept, ("neu_steel", "gated", 0))
    # The reference's record is there, but its predictions were lost with the session.
    assert ran == [
        ("study_train.py", "neu_steel", "lite", "0"), ("study_train.py", "neu_steel", "gate", "0"),
    ]  # fmt: skip


def test_nothing_is_trained_while_its_cost_cannot_be_measured(bench, kept, monkeypatch) -> None:
    ran: list[str] = []

    def busy(what, *words, check=True):
        ran.append(what)
        return 1

    monkeypatch.setattr(bench.study.study_train, "told", lambda *_: None)
    monkeypatch.setattr(bench.study, "_run", busy)
    monkeypatch.setattr(bench.arms, "costs", dict)
    assert not bench.study.do(kept, ("neu_steel", "gated", 0))
    assert ran == ["study_costs.py"]


def test_a_busy_machine_tells_no_cost(bench) -> None:
    """Both of a pair may be slower than of the next; their ratio may not differ."""
    steady = [[2.1, 1.0], [4.0, 2.0], [2.3, 1.1]]
    assert bench.costs.cost_of(steady) == pytest.approx(2.3 / 1.1)
    assert bench.costs.cost_of(steady[:2]) is None
    assert bench.costs.cost_of([[2.0, 1.0], [3.3, 1.1], [3.5, 1.0]]) is None
    assert bench.costs.cost_of([[2.0, 1.0], [2.9, 1.0], [2.5, 1.0]]) is None
    # One pair that something fell into is left out, on either side.
    assert bench.costs.cost_of([*steady, [1.0, 1.0], [9.0, 1.0]]) == pytest.approx(2.3 / 1.1)


def test_nothing_is_begun_that_would_not_be_done_in_time(bench, kept: Path, monkeypatch) -> None:
    monkeypatch.setattr(bench.study.study_train, "told", lambda *_: None)
    monkeypatch.setattr(bench.study.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(bench.study, "_run", lambda *_, **__: pytest.fail("began"))
    _keep(bench, "neu_steel", "lite", 0, _record(0.8, wall=100.0))
    assert not bench.study.do(kept, ("neu_steel", "lite", 1), until=99.0)


def test_finals_are_judged_on_the_private_half(bench) -> None:
    from study_finals import better, compare

    rng = np.random.default_rng(0)
    named = {}
    for at, name in enumerate(("a", "b", "c")):
        one = _record(0.5)
        for where in ("oof", "hidden"):
            one[where]["final"] = (0.5 + 0.1 * at + rng.normal(0, 0.01, 40)).tolist()
        named[name] = one
    found = compare(named, IMAGES)
    assert [one[3] for one in found] == ["the same"] * 3
    assert all(one[2].images == 20 for one in found)
    assert better([0, 2], np.array([[0.1], [0.5], [0.3]])) == 2


def test_a_gate_counts_as_a_gate_and_masks_are_averaged(bench, tmp_path: Path) -> None:
    from kagflow.infer.postprocess import ClassRule
    from kagflow.learn.oof import OofReader, OofWriter

    stores = []
    for at, probs in enumerate((np.full((2, 4, 4), 0.9), np.full((2, 4, 4), 0.3), [0.8, 0.2])):
        with OofWriter(tmp_path / str(at), "label" if at == 2 else "mask", 2) as out:
            out.add("x.png", np.array(probs, np.float32), 4, 4)
        stores.append(OofReader(tmp_path / str(at)))
    rules = [ClassRule(gate=0.5)] * 2
    counts = bench.records._applied(stores, ["x.png"], {"x.png": {0: "1 8"}}, rules)
    assert counts[:, 0].tolist() == [[8, 0], [16, 0], [8, 0]]
    alone = bench.records._applied(stores[1:], ["x.png"], {}, rules)
    assert not alone.any(), ".3 alone is below .5"


def test_groups_lose_their_names(bench) -> None:
    assert bench.records._small(np.array([907, 12, 907, 3])) == [0, 1, 0, 2]


def test_two_may_train_side_by_side_each_its_own_data(bench, kept: Path, monkeypatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(bench.study, "do", lambda root, unit, until: asked.append(unit[0]))
    for words, data in (
        ([], {"neu_steel", "magnetic_tile"}),
        (["--data", "neu_steel"], {"neu_steel"}),
    ):
        asked.clear()
        monkeypatch.setattr("sys.argv", ["study.py", str(kept), "next", *words])
        bench.study.main()
        assert set(asked) == data
