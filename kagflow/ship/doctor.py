"""Look at the Kaggle side: client, credential, clock, rules, quota, and what is known of it."""

from __future__ import annotations

import importlib.metadata
import threading
import time
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from kagflow.errors import RemoteError
from kagflow.machine import Check
from kagflow.ship import assumptions, credentials
from kagflow.ship.remote import Remote
from kagflow.ship.remote_competitions import SITE
from kagflow.ship.remote_transport import Transport, clock_ahead

CLIENT = ("kaggle", "kagglesdk", "six")
REACH_SECONDS = 1.2  # a name that does not resolve may hang for longer
SKEW_SECONDS = 120.0
LITTLE_QUOTA = 3600.0


@dataclass(frozen=True)
class Greeting:
    """Hold the server's clock when it answered (seconds ahead of ours) and its errors' shape."""

    ahead: float | None
    shape: str


def client_check() -> Check:
    """Compare the installed client packages with what kagflow declares."""
    from packaging.requirements import Requirement

    declared = [Requirement(line) for line in importlib.metadata.requires("kagflow") or []]
    found, wrong = [], []
    for wanted in (one for one in declared if one.name in CLIENT):
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"'{wanted}'")
            continue
        found.append(f"{wanted.name} {version}")
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"'{wanted}'")
    if wrong:
        mend = f"pip install {' '.join(wrong)}"
        return Check("client", "fail", ", ".join(found) or "none", mend)
    return Check("client", "ok", ", ".join(found))


def credential_check() -> Check:
    """Name the source of the credential, never what it holds."""
    chosen = credentials.choose()
    return Check("credential", "ok", f"{chosen.kind} from {chosen.source}")


def greet(transport: Transport) -> Greeting | None:
    """Ask the endpoint something that it must refuse; None where it does not answer in time.

    Sends no credential. The refusal tells its clock and the shape of its errors.
    """
    answers: list[Greeting] = []

    def ask() -> None:
        found = _ask(transport)
        if found is not None:
            answers.append(found)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return answers[0] if answers else None


def _ask(transport: Transport) -> Greeting | None:
    import requests

    url = f"{transport.base}/v1/kernels.KernelsApiService/GetKernel"
    transport.check(url)
    session = requests.Session()
    session.trust_env = False
    before = time.time()
    try:
        response = session.post(url, json={}, timeout=(REACH_SECONDS, 10), allow_redirects=False)
    except requests.RequestException:
        return None
    return Greeting(clock_ahead(response.headers.get("Date", ""), before), _shape(response))


def _shape(response: Any) -> str:
    try:
        body = response.json()
    except ValueError:
        return "html"
    return "nested" if isinstance(body, dict) and isinstance(body.get("error"), dict) else "flat"


def clock_check(greeting: Greeting) -> Check:
    """Compare this machine's clock with the server's; the quota's week is UTC arithmetic."""
    if greeting.ahead is None:
        return Check("clock", "unknown", "the server sent no date")
    text = f"{abs(greeting.ahead):.0f} s {'behind' if greeting.ahead > 0 else 'ahead of'} Kaggle's"
    if abs(greeting.ahead) > SKEW_SECONDS:
        return Check("clock", "warn", text, "switch on NTP: timedatectl set-ntp true")
    return Check("clock", "ok", "agrees with Kaggle's" if abs(greeting.ahead) < 3 else text)


def account_check(remote: Remote) -> Check:
    """Name the account; raises AuthError where the credential is refused."""
    return Check("account", "ok", remote.account())


def rules_check(remote: Remote, slug: str) -> Check:
    """Tell whether the account has accepted the competition's rules."""
    info = remote.competition(slug)
    if info.entered:
        return Check("rules", "ok", f"{slug}: accepted")
    mend = f"accept them on {SITE}/competitions/{slug}/rules"
    return Check("rules", "fail", f"{slug}: not accepted", mend, RemoteError.exit_code)


def quota_check(remote: Remote) -> Check:
    """Tell what is left of the week's GPU hours."""
    view = remote.quota()
    if view.gpu is None:
        return Check("quota", "unknown", "Kaggle does not tell this account's hours")
    text = f"{view.gpu.left / 3600:.1f} of {view.gpu.total / 3600:.1f} GPU hours left"
    if view.refresh:
        text += f", renewed {view.refresh.astimezone(UTC):%a %d %b %H:%M} UTC"
    if view.gpu.left < LITTLE_QUOTA:
        return Check("quota", "warn", text, "wait for the renewal, or run without accelerator")
    return Check("quota", "ok", text)


def answers_check(state: Path) -> Check:
    """Count what is known of Kaggle, and what is only assumed."""
    answers = assumptions.read(state)
    against = sorted(one.name for one in answers.values() if one.state == "contradicted")
    seen = {one.name for one in answers.values()}
    open_ones = [name for name in assumptions.table() if name not in seen]
    text = f"{len(answers) - len(against)} verified, {len(open_ones)} unknown"
    if against:
        text += f", {len(against)} contradicted: {', '.join(against)}"
    if answers.get("internet_off") and answers["internet_off"].state == "contradicted":
        mend = "a kernel without internet reached one: rehearse before every push"
        return Check("assumptions", "warn", text, mend)
    return Check("assumptions", "ok", text, "")


def unreached(source: str) -> Check:
    """Say what could not be looked at without an answer from Kaggle."""
    text = f"no answer from {source}: clock, account, rules and quota not looked at"
    return Check("kaggle", "unknown", text)
