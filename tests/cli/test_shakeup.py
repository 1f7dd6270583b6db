"""`kagflow shakeup` and `kagflow` alone: joined from history, ensembles and an embedded Kaggle."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kagflow.cli import standing
from kagflow.cli.app import main
from kagflow.learn import perimage
from kagflow.learn.perimage import Images
from kagflow.rehearse import finals
from kagflow.ship.records import Records, SubmissionRow
from kagflow.task import metric
from kagflow.workspace import Workspace

SLUG = "tiny-squares"
YAML = """
slug: tiny-squares
title: Tiny squares
classes: ["1", "2"]
metric: dice
rerun: hidden
default_recipe: none
limits: {public_images: 100, hidden_images: 300}
"""
IMAGES = 400


class Desk:
    """One workspace, filled by hand; commands as typed."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys
        self.home = root / ".kagflow" / "local"
        (root / "competitions" / "tiny").mkdir(parents=True)
        (root / "competitions" / "tiny" / "competition.yaml").write_text(YAML)
        (self.home / "data" / "tiny").mkdir(parents=True)
        (self.home / "data" / "tiny" / "manifest.json").write_text("{}")
        (self.home / ".active.json").write_text('{"competition": "tiny"}')
        self.records = Records(root / "state")

    def ensemble(self, name: str, quality: float, *, seed: int, images: int = IMAGES) -> Path:
        """An ensemble's images: class 1 is there in half of them and found by `quality`."""
        rng = np.random.default_rng(seed)
        true = np.zeros((images, 2), int)
        true[::2, 0] = 100
        hit = np.where(true > 0, np.clip(rng.normal(quality, 0.1, true.shape), 0, 1) * 100, 0)
        counts = np.stack([true, true, hit.astype(int)])
        ids = tuple(f"{at:04}.png" for at in range(images))
        told = perimage.from_counts(
            name, ("1", "2"), Images(ids, np.arange(images), np.arange(images) % 2), counts,
            metric.dice,
        )  # fmt: skip
        file = self.home / "ensembles" / "tiny" / f"{name}.json"
        perimage.write(perimage.path_beside(file), told)
        cv = {"naive": quality, "crossfitted": quality}
        file.write_text(json.dumps({"name": name, "cv": cv}))
        return perimage.path_beside(file)

    def sent(self, name: str, ref: int, public: float | None, **changes: Any) -> SubmissionRow:
        """A submission of an ensemble as it is now."""
        pack = f"{ref:016x}"
        images = self.home / "ensembles" / "tiny" / f"{name}.images.csv"
        target = self.home / "packs" / "tiny" / f"{pack}.images.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(images.read_bytes())
        row = SubmissionRow(
            profile="local", account="local", competition="tiny", pack=pack, ensemble=name,
            ref=ref, public=public, status="scored", intent_at="2026-11-01", private=0.5,
        )  # fmt: skip
        return self.records.add(replace(row, **changes))

    def run(self, *words: str, code: int = 0) -> dict[str, Any]:
        out = self.typed("--json", *words, code=code)[0]
        return dict(json.loads(out))

    def typed(self, *words: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["--profile", "local", *words])
        out, err = self.capsys.readouterr()
        assert (stopped.value.code or 0) == code, err
        return out, err


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAGFLOW_HOME", str(tmp_path / "state"))
    return Desk(tmp_path, capsys)


@pytest.fixture
def four(desk: Desk) -> Desk:
    """Three submissions and an ensemble that was not submitted; the first two are near twins."""
    for number, (name, quality) in enumerate([("mean", 0.80), ("gate", 0.79), ("small", 0.70)]):
        desk.ensemble(name, quality, seed=number)
        desk.sent(name, 11 + number, 0.94 - 0.01 * number)
    desk.ensemble("new", 0.95, seed=9)
    return desk


def test_the_advice_ends_with_what_to_tick_and_where(four: Desk) -> None:
    told = four.run("shakeup", "--draws", "400")
    assert told["refs"] == [11, 12]
    assert told["pair"]["names"] == ["mean 11", "gate 12"]
    assert told["page"] == f"https://www.kaggle.com/competitions/{SLUG}/submissions"
    assert told["said"][-1] == f"Tick 11 and 12 on {told['page']}"
    assert (told["public_images"], told["private_images"]) == (100, 200)
    assert told["wished"]["refs"].count(None) == 1
    assert "kagflow submit --ensemble new" in " ".join(told["said"])
    assert {one["ref"] for one in told["candidates"]} == {11, 12, 13, None}
    assert told["cannot_tell"] is False
    chances = np.array(told["beats"])
    np.testing.assert_allclose(chances + chances.T, 1)
    text, _ = four.typed("shakeup", "--draws", "400")
    assert text.rstrip().endswith(f"Tick 11 and 12 on {told['page']}")
    assert "This assumes:" in text
    assert "not submitted" in text


def test_private_scores_are_never_looked_at(four: Desk) -> None:
    before = four.run("shakeup", "--draws", "300")
    for row, private in zip(four.records.select(SubmissionRow), (0.1, 0.2, 0.99), strict=True):
        four.records.update(SubmissionRow, row.id, private=private)
    assert four.run("shakeup", "--draws", "300") == before


def test_a_public_score_turns_the_advice(four: Desk) -> None:
    row = four.records.select(SubmissionRow)[2]
    four.records.update(SubmissionRow, row.id, public=0.99)
    assert 13 in four.run("shakeup", "--draws", "300")["refs"]


def test_without_enough_public_scores_the_answer_is_cannot_tell(desk: Desk) -> None:
    desk.ensemble("mean", 0.8, seed=0)
    desk.sent("mean", 11, 0.94)
    desk.ensemble("gate", 0.7, seed=1)
    desk.sent("gate", 12, None, status="submitted")
    told = desk.run("shakeup", "--draws", "300")
    assert told["cannot_tell"] is True
    assert told["beats"] is None
    assert told["refs"] == [11, 12]
    assert "cannot tell" in desk.typed("shakeup", "--draws", "300")[0]


def test_a_remade_ensemble_does_not_change_what_was_submitted(four: Desk) -> None:
    before = four.run("shakeup", "--draws", "300")["candidates"]
    four.ensemble("mean", 0.2, seed=5)
    after = four.run("shakeup", "--draws", "300")["candidates"]
    assert after[0]["oof"] == before[0]["oof"]
    assert [one["name"] for one in after] == ["mean 11", "gate 12", "small 13", "mean", "new"]


def test_what_was_not_kept_is_left_out_by_name(four: Desk) -> None:
    (four.home / "packs" / "tiny" / f"{11:016x}.images.csv").unlink()
    row = four.records.select(SubmissionRow)[0]
    four.records.update(SubmissionRow, row.id, cv_naive=0.8, cv_crossfitted=0.8)
    assert four.run("shakeup", "--draws", "300")["left_out"] == []
    four.records.update(SubmissionRow, row.id, cv_naive=0.7)
    told = four.run("shakeup", "--draws", "300")
    assert "11 (mean)" in told["left_out"][0]
    assert 11 not in told["refs"]


def test_only_images_that_all_have_are_compared(four: Desk) -> None:
    four.ensemble("half", 0.8, seed=3, images=200)
    told = four.run("shakeup", "--draws", "300")
    assert told["images"] == 200
    assert "200 images that all have, of 400" in told["left_out"][0]


def test_failed_submissions_and_older_attempts_are_no_finals(four: Desk) -> None:
    four.sent("small", 14, None, status="failed")
    four.sent("small", 15, 0.92, pack=f"{13:016x}", attempt=2)
    refs = {one["ref"] for one in four.run("shakeup", "--draws", "300")["candidates"]}
    assert refs == {11, 12, 15, None}


def test_sizes_are_asked_for_where_nobody_told(four: Desk) -> None:
    yaml = four.root / "competitions" / "tiny" / "competition.yaml"
    yaml.write_text(YAML.replace("limits: {public_images: 100, hidden_images: 300}", ""))
    told = four.run("shakeup", "--draws", "300")
    assert "not known" in told["sizes_from"]
    assert (told["public_images"], told["private_images"]) == (120, 280)
    given = four.run("shakeup", "--draws", "300", "--public-images", "50", "--private-images", "70")
    assert (given["public_images"], given["private_images"]) == (50, 70)


def test_nothing_to_judge_is_said(desk: Desk) -> None:
    told = desk.run("shakeup", code=2)
    assert told["error"] == "there is no ensemble to judge"
    assert told["hint"] == "kagflow ensemble"


def test_history_of_a_competition_is_its_own(four: Desk) -> None:
    four.sent("mean", 99, 0.9, competition="other")
    refs = [row["ref"] for row in four.run("history", "--competition", "tiny")["submissions"]]
    assert refs == [11, 12, 13]


# -- kagflow alone


@pytest.fixture
def kaggle(four: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An embedded Kaggle whose deadline is near, with submissions 11 to 13 scored."""
    tests = Path(__file__).parents[1]
    made = []
    for name, place in (("served", "gauntlet/served.py"), ("tiny", "rehearse/tiny.py")):
        spec = importlib.util.spec_from_file_location(f"{name}_for_cli", tests / place)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made.append(module)
    served, tiny = made
    with served.serve(tmp_path / "kaggle") as one:
        deadline = (datetime.now(UTC) + timedelta(hours=41.5)).replace(tzinfo=None)
        folder = tiny.make_folder(tmp_path / "tiny")
        one.store.add_competition(tiny.make_facts(deadline=deadline.isoformat()), folder)
        for ref in (11, 12, 13):
            one.store.execute(
                "INSERT INTO submission (ref, competition, user, version, file_name, description, "
                "status, created) VALUES (?, ?, 'local', 1, 'f', '', 'COMPLETE', ?)",
                (ref, SLUG, datetime.now(UTC).replace(tzinfo=None).isoformat()),
            )
        monkeypatch.setenv("KAGFLOW_LOCAL_URL", one.url)
        monkeypatch.setattr(standing, "FRESH_S", 0.0)
        yield one


def test_alone_shows_deadline_submissions_left_and_finals(four: Desk, kaggle: Any) -> None:
    four.run("shakeup", "--draws", "300")
    finals.select(kaggle.store, SLUG, [11, 12])
    told = four.run()
    stands = told["standing"]
    assert stands["hours_left"] == pytest.approx(41.5, abs=0.1)
    assert stands["submissions_left"] == 2
    assert (stands["ticked"], stands["advised"], stands["agrees"]) == ([11, 12], [11, 12], True)
    assert told["alarms"] == []
    assert "11 and 12 (1 min ago): ticked" in four.typed()[0]


def test_the_wrong_finals_are_said_loudly_before_the_deadline(four: Desk, kaggle: Any) -> None:
    assert "no finals were advised: kagflow shakeup" in four.run()["alarms"][0]
    four.run("shakeup", "--draws", "300")
    (alarm,) = four.run()["alarms"]
    assert "no finals are ticked; tick 11 and 12 on https://www.kaggle.com/" in alarm
    finals.select(kaggle.store, SLUG, [11, 13])
    out, err = four.typed()
    assert re.search(r"warning: the deadline is in 4[12] h", err)
    assert "11 and 13 ticked; tick 11 and 12" in err
    assert "NOT what is ticked" in out
    four.sent("small", 14, 0.95)
    assert "1 submission is newer than the advice" in four.run()["alarms"][0]


def test_far_from_the_deadline_nothing_is_loud(
    four: Desk, kaggle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = datetime.now(UTC) - timedelta(days=30)
    monkeypatch.setattr(standing, "now", lambda: early)
    told = four.run()
    assert told["alarms"] == []
    assert told["standing"]["hours_left"] > 700


def test_offline_says_what_it_could_not_ask(
    four: Desk, kaggle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    four.run("shakeup", "--draws", "300")
    four.run()
    monkeypatch.setenv("KAGFLOW_LOCAL_URL", "http://127.0.0.1:9")
    told = four.run()
    stands = told["standing"]
    # The deadline was learned before and holds; what is ticked may have changed.
    assert stands["hours_left"] == pytest.approx(41.5, abs=0.1)
    assert (stands["ticked"], stands["submissions_left"], stands["agrees"]) == (None, None, None)
    assert stands["not_asked"]
    assert "what is ticked is not known" in told["alarms"][0]


def test_a_server_that_hangs_is_not_waited_for(
    four: Desk, kaggle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, waited = threading.Event(), []

    def hang() -> None:
        waited.append(release.wait(30))

    monkeypatch.setattr(standing, "PATIENCE_S", 0.2)
    monkeypatch.setattr(standing, "_questions", lambda *_: {"deadline": hang})
    assert four.run()["standing"]["not_asked"] == "no answer within 0 s"
    assert waited == []
    release.set()


def test_a_fresh_answer_is_not_asked_for_again(
    four: Desk, kaggle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = four.run()["standing"]
    monkeypatch.setattr(standing, "FRESH_S", 60.0)
    monkeypatch.setattr(standing, "_questions", None)
    assert four.run()["standing"]["submissions_left"] == first["submissions_left"]


def test_alone_loads_neither_torch_nor_kaggle(four: Desk) -> None:
    four.run("shakeup", "--draws", "300")
    code = (
        "import sys; from kagflow.cli.app import main\n"
        "try: main(['--profile', 'local', '--json'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert not loaded & {"torch", "pandas", "kaggle", "scipy", "albumentations"}
    assert '"not_asked": "the embedded Kaggle is not running"' in done.stdout


@pytest.mark.parametrize(
    ("refs", "error"),
    [
        ("11,12,13", "tiny takes 2 finals, not 3"),
        ("11;12", "'11;12' names no submissions"),
        ("11,99", "tiny-squares has no scored submission 99"),
    ],
)
def test_ticking_on_the_embedded_kaggle(
    four: Desk, kaggle: Any, monkeypatch: pytest.MonkeyPatch, refs: str, error: str
) -> None:
    monkeypatch.setattr(Workspace, "kaggle_store", kaggle.store.path)
    told = four.run("local", "tick", "tiny", "--refs", "12,11")
    assert told["finals"] == [12, 11]
    assert finals.selected(kaggle.store, SLUG) == {11, 12}
    assert error in four.run("local", "tick", "tiny", "--refs", refs, code=2)["error"]
    assert finals.selected(kaggle.store, SLUG) == {11, 12}
    four.run("local", "tick", "tiny")
    assert finals.selected(kaggle.store, SLUG) == set()


def test_a_medal_is_played_for_by_kaggles_leaderboard(four: Desk, kaggle: Any) -> None:
    for rank, score in enumerate((0.97, 0.96, 0.95, 0.945, 0.93)):
        kaggle.store.execute(
            "INSERT INTO submission (competition, user, version, file_name, description, status, "
            "public, created) VALUES (?, ?, 1, 'f', '', 'COMPLETE', ?, '2026-11-01T00:00:00.000')",
            (SLUG, f"team{rank}", str(score)),
        )
    told = four.run("shakeup", "--draws", "300", "--medal", "bronze", "--teams", "10")
    assert told["medal_cut"] == 0.945
    assert 0 < told["pair"]["value"] < 1
    assert "the medal with" in " ".join(told["said"])
    refused = four.run("shakeup", "--medal", "bronze", "--teams", "1000", code=2)
    assert "the leaderboard lists" in refused["error"]
    assert "no medal 'tin'" in four.run("shakeup", "--medal", "tin", code=2)["error"]
