"""The advice as a whole: what is said, what is refused to be said, and in which words."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from kagflow.errors import UsageError
from kagflow.learn.adversarial import Likeness
from kagflow.learn.shakeup import Asked, Candidate, advise
from kagflow.learn.shakeup_posterior import Sizes
from kagflow.learn.shakeup_sampling import Paired
from kagflow.learn.shakeup_words import assumptions, explain

ASKED = Asked(Sizes(600, 1200), draws=400)
FEATURES = (("brightness", 2.1), ("contrast", -0.4), ("height", 0.0))


@pytest.fixture(scope="module")
def paired() -> Paired:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.2, 2000)
    own = rng.normal(0, 0.08, (4, 2000))
    own -= own.mean(axis=1, keepdims=True)
    return Paired(0.9 + np.arange(4)[:, None] * 0.002 + common + own, np.arange(2000))


def four(*public: float | None) -> list[Candidate]:
    return [Candidate(f"file{at}", 10 + at, score) for at, score in enumerate(public)]


def said(advice, likeness="there are no test images to look at") -> str:
    return "\n".join(explain(advice, page="PAGE", likeness=likeness))


def test_a_candidate_has_no_private_score() -> None:
    assert {field.name for field in fields(Candidate)} == {"name", "ref", "public"}


def test_the_noise_floor_says_what_a_public_difference_means(paired: Paired) -> None:
    advice = advise(four(0.9000, 0.9004, 0.89, 0.88), paired, ASKED)
    assert (advice.noise.first, advice.noise.second) == ("file1", "file0")
    assert advice.noise.difference == pytest.approx(0.0004)
    # At least the sampling of the difference of two files on 600 images.
    assert advice.noise.floor > 1.645 * np.sqrt(2) * 0.08 / np.sqrt(600) * 0.9
    assert 0.2 < advice.noise.flip < 0.8
    assert "+0.00040 above 'file0'. That is noise" in said(advice)
    clear = advise(four(0.95, 0.88, 0.88, 0.88), paired, ASKED)
    assert clear.noise.difference > clear.noise.floor
    assert "more than noise" in said(clear)
    assert clear.flip_leader < advice.flip_leader


def test_cannot_tell_only_where_drift_is_neither_seen_nor_excluded(paired: Paired) -> None:
    unseen = four(0.9, 0.9, None, None)
    assert not advise(unseen, paired, ASKED).known
    assert not advise(unseen, paired, replace(ASKED, auc=0.85)).known
    assert advise(unseen, paired, replace(ASKED, auc=0.55)).known
    seen = four(0.9, 0.9, 0.9, None)
    assert advise(seen, paired, ASKED).known
    assert advise(seen, paired, replace(ASKED, auc=0.85)).known
    hidden = advise(unseen, paired, ASKED)
    assert hidden.to_dict()["beats"] is None
    assert "cannot tell" in said(hidden)
    assert "cannot tell" not in said(advise(seen, paired, ASKED))


def test_images_alike_and_nothing_seen_is_sampling_alone(paired: Paired) -> None:
    alike = advise(four(None, None, None, None), paired, replace(ASKED, auc=0.5))
    unlike = advise(four(None, None, None, None), paired, replace(ASKED, auc=0.9))
    width = [one.high - one.low for one in alike.outlooks]
    assert alike.beats[3][0] > unlike.beats[3][0]
    assert alike.drift == 0
    assert min(width) > 0


def test_the_advice_is_json_and_words(paired: Paired) -> None:
    candidates = [*four(0.9, 0.9, 0.9), Candidate("unsent")]
    advice = advise(candidates, paired, ASKED)
    told = json.loads(json.dumps(advice.to_dict()))
    assert len(told["pair"]["refs"]) == 2
    assert told["wished"]["refs"].count(None) == 1
    assert set(advice.refs()) == set(told["pair"]["refs"])
    text = said(advice, Likeness(0.83, 100, 100, FEATURES))
    assert text.endswith(f"Tick {advice.refs()[0]} and {advice.refs()[1]} on PAGE")
    assert (
        "WARNING: the test's images are told from those of training (AUC 0.83; brightness" in text
    )
    assert "kagflow submit --ensemble unsent" in text
    assert all(one in text for one in assumptions(advice))
    # Everything but the table is words: no brackets of a list, no NaN.
    assert "[" not in text
    assert "nan" not in text


def test_nothing_submitted_and_one_alone(paired: Paired) -> None:
    nothing = advise([Candidate(f"e{at}") for at in range(4)], paired, ASKED)
    assert nothing.pair is None
    assert nothing.refs() == ()
    assert "nothing to tick: kagflow submit" in said(nothing)
    one = advise([Candidate("a", 5, 0.9)], Paired(paired.scores[:1], paired.clusters), ASKED)
    assert one.refs() == (5,)
    assert said(one).endswith("Tick 5 on PAGE")
    with pytest.raises(UsageError, match="no ensemble to judge"):
        advise([], paired, ASKED)


def test_whole_groups_are_said(paired: Paired) -> None:
    rolls = Paired(paired.scores, np.arange(2000) // 100)
    assert "nothing joins them" in said(advise(four(0.9, 0.9, 0.9, 0.9), rolls, ASKED))
    assert "rolls, patients" in said(advise(four(0.9, 0.9, 0.9, 0.9), paired, ASKED))


def test_drift_is_named_where_it_is_seen(paired: Paired) -> None:
    drifted = advise(four(0.93, 0.80, 0.90, 0.75), paired, ASKED)
    assert drifted.drift > 0.9
    assert "files drift apart there (9" in said(drifted)
    calm = advise(four(0.900, 0.902, 0.904, 0.906), paired, ASKED)
    assert calm.drift < 0.5
    assert "files drift apart there" not in said(calm)


def test_a_medal_changes_what_is_promised(paired: Paired) -> None:
    told = advise(four(0.9, 0.9, 0.9, 0.9), paired, replace(ASKED, medal_cut=0.905))
    assert 0 < told.pair.value < 1
    assert "the medal with" in said(told)
