"""kagflow quota: the week's GPU hours, as Kaggle counts them and as the ledger explains them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagflow.cli import pending, planned, quota_screen, remotes
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import AuthError, NetworkError, UsageError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.ship.hours import Window
    from kagflow.ship.ledger_lines import Terms
    from kagflow.ship.reckoning import Reckoning
    from kagflow.ship.records import Records
    from kagflow.ship.remote_types import QuotaView


@dataclass(frozen=True)
class Told:
    """Hold what Kaggle answered, or `why` it did not; `account` as far as it is known."""

    account: str
    view: QuotaView | None
    why: str


@guarded
def command(
    context: typer.Context,
    used: Annotated[
        float | None,
        typer.Option(help="Enter the GPU hours that the site shows as used; asks Kaggle nothing."),
    ] = None,
    allowed: Annotated[
        float | None, typer.Option(help="With --used: the hours allowed a week.")
    ] = None,
) -> None:
    """Show the hours used, reserved and left this week, who took them, and what is next.

    Without an account or a network it works from the ledger and the last count, yours included.
    """
    from kagflow.ship import counts
    from kagflow.ship.records import Records

    session = open_session(context)
    records = Records(user_state())
    if used is None and allowed is not None:
        raise UsageError(
            "--allowed comes with --used", hint="kagflow quota --used 12.5 --allowed 30"
        )
    if used is None:
        told = _ask(session, records)
    else:
        _check(used, allowed)
        account = _offline_account(session, records)
        total = None if allowed is None else allowed * 3600
        counts.enter(
            records, profile=session.workspace.profile, account=account, used=used * 3600,
            total=total,
        )  # fmt: skip
        told = Told(account, None, "the count that you entered is used")
    _show(session, records, told)


def _check(used: float, allowed: float | None) -> None:
    week = 7 * 24.0
    if not 0 <= used <= week or not (allowed is None or 0 < allowed <= week):
        raise UsageError("hours of a week are between 0 and 168", hint="--used 12.5 --allowed 30")


def _ask(session: Session, records: Records) -> Told:
    """Ask Kaggle, and keep its answer; tell why where there is no account or no network.

    What Kaggle refuses is an error all the same.
    """
    from kagflow.ship import counts

    try:
        remote = remotes.open_remote(session, sleep=pending.impatience())
    except AuthError as error:
        return Told(_offline_account(session, records), None, error.message)
    try:
        view, account = remote.quota(), remote.account()
    except NetworkError as error:
        return Told(_offline_account(session, records), None, error.message)
    counts.snapshot(records, view, profile=session.workspace.profile, account=account)
    return Told(account, view, "")


def _offline_account(session: Session, records: Records) -> str:
    """Return the account's name as this machine knows it, "" where it does not."""
    from kagflow.ship import counts, credentials

    if not session.local:
        try:
            name = credentials.choose().username
        except AuthError:
            name = None
        if name:
            return name
    return counts.last_account(records, profile=session.workspace.profile)


def _show(session: Session, records: Records, told: Told) -> None:
    from kagflow.ship import ledger_lines

    at, state = datetime.now(UTC), remotes.client_state(session)
    weeks = [_reckon(session, records, told, state, name, at) for name in ("gpu", "tpu")]
    weeks = [one for one in weeks if one.accelerator == "gpu" or one.total or one.lines]
    here = ledger_lines.lines_of_others(
        records, profile=session.workspace.profile, window=weeks[0].window, at=at
    )
    plans = planned.find(session, state)
    screen = quota_screen.Screen(session, told.account, told.why, weeks, here, plans, at)
    screen.draw()
    session.out.result(_value(screen, told), screen.closing())


def _value(screen: quota_screen.Screen, told: Told) -> dict[str, Any]:
    return {
        "account": told.account,
        "quota": asdict(told.view) if told.view else None,
        "not_asked": told.why or None,
        "weeks": [one.to_dict() for one in screen.weeks],
        "other_machines": [
            {"what": one.what, "place": one.place, "hours": one.seconds.most / 3600}
            for one in screen.here
        ],
        "planned": [one.to_dict() for one in screen.plans],
        "fitting": [one.name for one in screen.judgement.fitting],
        "how": planned.HOW,
    }


def _reckon(
    session: Session, records: Records, told: Told, state: Path, accelerator: Any, at: datetime
) -> Reckoning:
    from kagflow.ship import counts, reckoning

    profile, view = session.workspace.profile, told.view
    last, refresh = counts.last_count(
        records, profile=profile, account=told.account, accelerator=accelerator
    )
    quota = None if view is None else view.gpu if accelerator == "gpu" else view.tpu
    return reckoning.reckon(
        records,
        profile=profile,
        account=told.account,
        window=_window(view, refresh, state, at),
        count=last if quota is None else counts.live_count(quota, at),
        terms=_terms(view, state),
        accelerator=accelerator,
        at=at,
    )


def _window(view: QuotaView | None, known: datetime | None, state: Path, at: datetime) -> Window:
    from kagflow.ship import assumptions, hours

    if view is not None and view.refresh is not None:
        return hours.window_until(view.refresh)
    weekday = assumptions.value(state, "quota_week")
    return hours.window(at, known, weekday=weekday if isinstance(weekday, int) else hours.SATURDAY)


def _terms(view: QuotaView | None, state: Path) -> Terms:
    from kagflow.ship import assumptions
    from kagflow.ship.ledger_lines import Terms

    return Terms(
        billed=assumptions.known(state, "rerun_billed"),
        lag_s=float(assumptions.value(state, "quota_lag_s")),
        ahead=timedelta(seconds=view.ahead_s if view else 0.0),
    )
