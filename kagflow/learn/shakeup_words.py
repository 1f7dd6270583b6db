"""Say the advice as a tired person reads it: what is noise, what may turn, what is assumed."""

from __future__ import annotations

from kagflow.learn.adversarial import Likeness
from kagflow.learn.shakeup import Advice, Noise
from kagflow.learn.shakeup_pair import DIVERSITY_COST, Pair
from kagflow.learn.shakeup_posterior import ENOUGH_PUBLIC, WHOLE_GROUP

# From here on a chance is called an answer.
_SURE = 0.7
# A variance that is wider by less is not worth a sentence.
_WIDER = 1.05


def explain(advice: Advice, *, page: str, likeness: Likeness | str) -> list[str]:
    """Return the advice in paragraphs; the last one says what to tick, and where."""
    parts = [
        _noise(advice.noise, advice.asked.sizes.public),
        _leader(advice),
        _drift(advice, likeness),
        _cannot_tell(advice),
        _pair(advice),
        _wished(advice),
        "This assumes:\n" + "\n".join(f"  - {one}" for one in assumptions(advice)),
        _tick(advice, page),
    ]
    return [part for part in parts if part]


def assumptions(advice: Advice) -> list[str]:
    """Return what the advice rests on, one sentence each."""
    sizes, lines = advice.asked.sizes, []
    lines.append(
        f"{sizes.public} public and {sizes.private} private images, drawn from one place: drift "
        "that public shows, private has too"
    )
    lines.append(
        f"out-of-fold scores on the same {advice.images} images in {advice.clusters} groups of "
        "near-duplicates, each by rules that did not see it; a kernel that averages folds does "
        "as its folds did"
    )
    if advice.design > _WIDER:
        lines.append(
            "images come in larger groups that nobody named (rolls, patients, days), so that "
            f"scores vary {advice.design:.1f} times as much (variance) as near-duplicates alone "
            "say; this number is an average over what the scores allow, 1 to 16"
        )
    else:
        lines.append(f"groups of {WHOLE_GROUP:.0f} images and more are whole: nothing joins them")
    lines.append("private scores are not looked at, even where Kaggle already shows them")
    return lines


def _noise(noise: Noise | None, public: int) -> str:
    if noise is None:
        return ""
    seen = f"On the public board '{noise.first}' is {noise.difference:+.5f} above '{noise.second}'."
    if noise.difference < noise.floor:
        verdict = f"That is noise: with {public} images, less than {noise.floor:.4f} means nothing."
    else:
        verdict = f"That is more than noise, which with {public} images is up to {noise.floor:.4f}."
    return f"{seen} {verdict} On private the order turns round with {_chance(noise.flip)}."


def _leader(advice: Advice) -> str:
    if advice.flip_leader is None:
        return ""
    return (
        f"With {_chance(advice.flip_leader)} your best file on public is not your best on private."
    )


def _drift(advice: Advice, likeness: Likeness | str) -> str:
    if isinstance(likeness, str):
        told = f"Whether the test looks like training is not known: {likeness}."
    elif likeness.trusted:
        told = f"The test's images look like those of training (AUC {likeness.auc:.2f})."
    else:
        most = ", ".join(f"{name} {size:+.1f} sd" for name, size in likeness.features)
        told = (
            f"WARNING: the test's images are told from those of training (AUC {likeness.auc:.2f}; "
            f"{most}): the order of out-of-fold scores is not to be trusted alone."
        )
    if advice.seen < ENOUGH_PUBLIC:
        return told
    seen = f"the {advice.seen} public scores"
    chance = f"({_chance(advice.drift)} at even odds)"
    if advice.drift > _SURE:
        return f"{told} By {seen} files drift apart there {chance}: public counts for more."
    if advice.drift < 1 - _SURE:
        return f"{told} By {seen} there is no drift beyond noise {chance}."
    return f"{told} Whether files drift apart there, {seen} do not tell {chance}."


def _cannot_tell(advice: Advice) -> str:
    if advice.known:
        return ""
    return (
        "Which of two files wins on private: cannot tell. The test may differ from training, and "
        f"{advice.seen} public scores do not show how much; {ENOUGH_PUBLIC} would. The finals "
        "below hedge between both worlds."
    )


def _pair(advice: Advice) -> str:
    pair = advice.pair
    if pair is None:
        return "Nothing was submitted yet, so there is nothing to tick: kagflow submit"
    names = " and ".join(f"'{name}'" for name in advice.names(pair))
    if len(pair.places) == 1:
        return f"The file to tick is {names}: {_worth(advice, pair)}."
    said = (
        f"The finals are {names}: {_worth(advice, pair)}. They agree to {pair.correlation:.3f} "
        "(1 is the same file twice)."
    )
    if pair.alike is not None:
        twins = " and ".join(f"'{advice.outlooks[at].name}'" for at in pair.alike)
        said += (
            f" {twins} promise {pair.best - pair.value:.5f} more but agree more: of the pairs "
            f"within {DIVERSITY_COST} of the best, the one that agrees least is taken."
        )
    return said


def _wished(advice: Advice) -> str:
    if advice.wished is None:
        return ""
    new = [at for at in advice.wished.places if advice.outlooks[at].ref is None]
    names = " and ".join(f"'{advice.outlooks[at].name}'" for at in new)
    gain = "" if advice.pair is None else f" ({advice.wished.value - advice.pair.value:+.4f})"
    commands = "; ".join(f"kagflow submit --ensemble {advice.outlooks[at].name}" for at in new)
    return f"Not submitted, but it would be a final{gain}: {names}. While there is time: {commands}"


def _worth(advice: Advice, pair: Pair) -> str:
    if advice.asked.medal_cut is not None:
        return f"the medal with {_chance(pair.value)}"
    better = "the better of them is" if len(pair.places) > 1 else "it is"
    return f"{better} expected to score {pair.value:.4f} on private"


def _tick(advice: Advice, page: str) -> str:
    refs = advice.refs()
    return f"Tick {' and '.join(map(str, refs))} on {page}" if refs else ""


def _chance(value: float) -> str:
    """Write a chance in whole per cents, never as certain."""
    return f"{min(max(round(100 * value), 1), 99)} %"
