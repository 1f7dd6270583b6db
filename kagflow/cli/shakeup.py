"""kagflow shakeup: what the private board may hold, and which finals to tick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagflow import durable
from kagflow.cli import competitions, finals, remotes
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session, sole
from kagflow.errors import UsageError

if TYPE_CHECKING:
    from kagflow.cli.finals import Joined
    from kagflow.learn.shakeup import Advice, Asked
    from kagflow.learn.shakeup_posterior import Sizes

# Where neither competition.yaml nor the command tells: Kaggle's usual share of public images.
PUBLIC_SHARE = 0.3


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMPETITION]")] = None,
    medal: Annotated[
        str | None, typer.Option(help="Play for gold, silver or bronze instead of the score.")
    ] = None,
    teams: Annotated[int | None, typer.Option(help="Teams, where Kaggle's list is cut.")] = None,
    public_images: Annotated[int | None, typer.Option(help="Size of the public test.")] = None,
    private_images: Annotated[int | None, typer.Option(help="Size of the private test.")] = None,
    draws: Annotated[int, typer.Option(min=100, help="Simulated leaderboards.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
) -> None:
    """Advise which finals to tick, from out-of-fold and public scores, drift and noise."""
    from kagflow.learn import adversarial, shakeup_words
    from kagflow.learn.shakeup import Asked, advise

    session = open_session(context)
    known = competitions.find(session.workspace, sole(words or [], "competition"))
    competitions.manifest(session.workspace, known)
    joined = finals.join(session, known)
    for remark in joined.remarks:
        session.out.say(remark)
    sizes, source = _sizes(known, joined, public_images, private_images)
    likeness = adversarial.compare(
        session.workspace.data(known.name),
        known.config.task(),
        cache=session.workspace.cache / "adversarial",
        progress=session.out.progress(),
    )
    asked = Asked(
        sizes=sizes,
        finals=known.config.finals,
        auc=None if isinstance(likeness, str) else likeness.auc,
        medal_cut=_medal_cut(session, known, medal, teams) if medal else None,
        draws=draws,
        seed=seed,
    )
    advice = advise(joined.candidates, joined.paired, asked)
    page = finals.page(known)
    text = shakeup_words.explain(advice, page=page, likeness=likeness)
    _table(session, advice)
    value = _value(advice, asked, joined, text) | {"page": page, "sizes_from": source}
    durable.write_json(finals.path(session, known), finals.kept(value, advice))
    session.out.result(value, "\n\n".join([f"Test sizes: {source}.", *text]))


def _value(advice: Advice, asked: Asked, joined: Joined, text: list[str]) -> dict[str, Any]:
    return {
        **advice.to_dict(),
        "refs": list(advice.refs()),
        "medal_cut": asked.medal_cut,
        "left_out": list(joined.remarks),
        "said": text,
    }


def _table(session: Session, advice: Advice) -> None:
    rows = [
        (
            one.name,
            "not submitted" if one.ref is None else one.ref,
            f"{one.oof:.4f}",
            "-" if one.public is None else f"{one.public:.5f}",
            f"{one.expected:.4f}",
            f"{one.low:.4f} to {one.high:.4f}",
            f"{one.best:.0%}" if advice.known else "cannot tell",
        )
        for one in sorted(advice.outlooks, key=lambda one: -one.expected)
    ]
    columns = ("", "ref", "out of fold", "public", "private?", "90 of 100", "best of these")
    session.out.table("what private may hold", columns, rows)


def _sizes(
    known: Known, joined: Joined, public: int | None, private: int | None
) -> tuple[Sizes, str]:
    from kagflow.learn.shakeup_posterior import Sizes

    limits = known.config.limits
    source = "--public-images and --private-images" if public or private else "competition.yaml"
    public = public or limits.public_images
    hidden = limits.hidden_images
    # The hidden test that a kernel is run on again holds the public images too.
    private = private or (hidden - public if hidden and public and hidden > public else hidden)
    if public and private:
        return Sizes(public, private), source
    whole = private or joined.paired.images
    guess = Sizes(
        public or max(1, round(PUBLIC_SHARE * whole)),
        private or max(1, round((1 - PUBLIC_SHARE) * whole)),
    )
    return guess, (
        f"not known, taken as {guess.public} public and {guess.private} private (limits in "
        "competition.yaml, or --public-images and --private-images)"
    )


def _medal_cut(session: Session, known: Known, medal: str, teams: int | None) -> float:
    """Return the public score that wins the medal now, by Kaggle's leaderboard."""
    from kagflow.learn.shakeup_pair import medal_rank

    board = remotes.open_remote(session).leaderboard(known.config.slug)
    scores = [row.score for row in board if row.score is not None]
    rank = medal_rank(teams or len(scores), medal)
    if rank > len(scores):
        raise UsageError(
            f"{medal} is rank {rank}, and the leaderboard lists {len(scores)} teams",
            hint="leave --teams out, or play for the score: kagflow shakeup",
        )
    session.out.say(f"{medal} is rank {rank} of {teams or len(scores)}: {scores[rank - 1]:.5f}")
    return scores[rank - 1]
