"""kagflow submit: rehearse, then push and submit the very kernel that was rehearsed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kagflow import naming
from kagflow.cli import calibration, competitions, detach, ensemble, guard, kernels, pack, remotes
from kagflow.cli.competitions import Known
from kagflow.cli.kernels import PLAIN, How
from kagflow.cli.pack import Packed
from kagflow.cli.session import Session, guarded, open_session, sole
from kagflow.errors import RefusedError
from kagflow.workspace import user_state

# Of what a rehearsal could not prove, these are worth a line of their own.
SHOWN = ("python:", "torch:", "numpy:", "gpu:", "stand-in:", "the list")

if TYPE_CHECKING:
    from kagflow.rehearse.receipt import Receipt
    from kagflow.ship.plan import SubmitPlan
    from kagflow.ship.plan_datasets import DatasetPlan
    from kagflow.ship.remote import Remote


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMPETITION]")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Rehearse, and stop right before the effect.")
    ] = False,
    name: Annotated[str, typer.Option("--ensemble", help="Which one.")] = ensemble.DEFAULT,
    full: Annotated[
        bool, typer.Option("--full", help="Rehearse all images, in both mount layouts.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Submit the same pack once more.")] = False,
    notebook: Annotated[
        bool,
        typer.Option("--notebook", help="As a notebook, whose failures Kaggle does not tell."),
    ] = False,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Without an accelerator: 0 GPU hours.")
    ] = False,
    over_quota: Annotated[
        bool, typer.Option("--over-quota", help="Although the hours left may not hold it.")
    ] = False,
) -> None:
    """Submit: makes the missing ensemble and pack, rehearses the kernel offline, pushes, waits."""
    session = open_session(context)
    known = competitions.find(session.workspace, sole(words or [], "competition"))
    competitions.manifest(session.workspace, known)
    remote = remotes.open_remote(session)
    packed = pack.ensure(session, known, name=name)
    known = guard.on_cpu(known) if cpu else known
    how = guard.how(session, words or [], name=name, cpu=cpu, again=again, notebook=notebook,
                    over_quota=over_quota)  # fmt: skip
    plan = make_plan(known, packed, remote, how)
    show_plan(session, plan, packed)
    receipt = rehearse(session, known, packed, full=full, notebook=notebook)
    show_receipt(session, receipt)
    if receipt.verdict == "red":
        raise RefusedError(
            f"the rehearsal failed: {receipt.failure}: {receipt.sentence}",
            hint="mend it and run the same command again",
        )
    plan = make_plan(known, packed, remote, how)
    guard.hold(session, plan, dry_run=dry_run)
    if dry_run:
        session.out.result(
            {"plan": plan.to_dict(), "receipt": asdict(receipt), "next": how.same},
            f"next: {how.same}",
        )
        return
    confirm(plan, receipt, yes=yes)
    row = execute(session, known, packed, remote=remote, how=how)
    session.out.result(
        {"plan": plan.to_dict(), "submission": row, "next": session.command("history")},
        f"submission {row['ref']}: public {_score(row['public'])}, private "
        f"{_score(row['private'])}\nnext: {session.command('history ' + str(row['ref']))}",
    )


def make_plan(known: Known, packed: Packed, remote: Remote, how: How = PLAIN) -> SubmitPlan:
    """Return what submitting a pack would do."""
    from kagflow.ship.plan import SubmitRequest
    from kagflow.ship.plan import make_plan as plan
    from kagflow.ship.records import Records

    kernel = kernels.render(known, packed, account=remote.account(), notebook=how.notebook)
    request = SubmitRequest(
        competition=known.name,
        slug=known.config.slug,
        pack=packed.pack.path,
        kernel=kernel.folder,
        timeout_s=kernel.timeout_s,
        facts=_facts(packed, how.notebook),
        again=how.again,
        measured=guard.measured(packed, how),
        over_quota=how.over_quota,
    )
    return plan(request, remote, Records(user_state()))


def show_plan(session: Session, plan: SubmitPlan, packed: Packed) -> None:
    """Print what would be done."""
    cv = packed.ensemble["cv"]
    score = cv["naive"] if cv["crossfitted"] is None else cv["crossfitted"]
    rows = [
        ("account", f"{plan.account} on {plan.profile}"),
        *([("attempt", guard.earlier(plan))] if plan.attempt > 1 else []),
        ("score out of fold", f"{score:.4f} ({cv['label']}), all-empty {cv['floor']:.4f}"),
        *((one.part, f"{one.push.ref} version {one.version}, {_upload(one)}")
          for one in plan.datasets),
        ("kernel", f"{plan.kernel}, {plan.kernel_type}, {guard.named(plan.accelerator)}, "
                   "internet off, private"),
        ("machine received", plan.machine or "not known: kagflow doctor --live tells"),
        ("session ends after", f"{plan.timeout_s / 60:.0f} min{_unless(plan)}"),
        ("submissions left today", plan.submissions_left),
        ("hours left this week", guard.left(plan)),
    ]  # fmt: skip
    session.out.table(f"submit {plan.competition}, pack {plan.pack}", ("", ""), rows)


def rehearse(
    session: Session, known: Known, packed: Packed, *, full: bool = False, notebook: bool = False
) -> Receipt:
    """Return the receipt of this very pack, rehearsing it where there is none that passed.

    A receipt that leaves images open does not answer for a `full` rehearsal.
    """
    from kagflow.rehearse.receipt import read_receipt
    from kagflow.rehearse.rehearsal import Limits, RehearsalSpec
    from kagflow.rehearse.rehearsal import rehearse as run

    out = kernels.beside(packed, "receipt.json", notebook)
    if out.is_file():
        earlier = read_receipt(out)
        enough = not (full and earlier.not_run)
        if earlier.pack == packed.pack.hash and earlier.verdict != "red" and enough:
            earlier = calibration.settled(session, earlier, out, known.config.accelerator)
            session.out.say(f"this pack was rehearsed on {earlier.made}: {earlier.verdict}")
            return earlier
    generated = competitions.manifest(session.workspace, known).get("generated")
    limits, mini = known.config.limits, known.config.mini
    hidden = mini.hidden_images if generated and mini else limits.hidden_images
    account = session.workspace.profile
    kernel = kernels.render(known, packed, account=account, notebook=notebook)
    spec = RehearsalSpec(
        pack=packed.pack.path,
        kernel=kernel.script,
        data=session.workspace.data(known.name),
        task=known.config.task(),
        rerun_kind=rerun_kind(session, known),
        limits=Limits(limits.inference_minutes, limits.memory_gb, hidden),
        fingerprint=kernels.image(session, packed),
        full=full,
        accelerator=known.config.accelerator,
        pairs=calibration.pairs(session, known.config.accelerator),
        notes=packed.pack.notes,
    )
    return run(spec, out, progress=session.out.progress())


def rerun_kind(session: Session, known: Known) -> Literal["hidden", "none", "unknown"]:
    """Return what the competition's file says of the rerun, else what Kaggle was seen to do."""
    from kagflow.ship import assumptions

    if known.config.rerun != "unknown":
        return known.config.rerun
    seen = assumptions.value(remotes.client_state(session), "rerun", known.config.slug)
    return "hidden" if seen == "hidden" else "none" if seen == "none" else "unknown"


def show_receipt(session: Session, receipt: Receipt) -> None:
    """Print what a rehearsal proved and what it could not."""
    rows: list[tuple[str, object]] = [
        ("verdict", receipt.verdict),
        ("sandbox", f"{receipt.layer}; network blocked: {_yes(receipt.network_blocked)}, home "
                    f"hidden: {_yes(receipt.home_hidden)}, input read-only: "
                    f"{_yes(receipt.input_read_only)}"),
        *((f"{run.mode} run ({run.layout} mounts)",
           f"{run.images} images, {run.nonempty} with predictions, {run.seconds:.1f} s"
           + (f": {run.failure}" if run.failure else "")) for run in receipt.runs),
        ("peak memory", f"{receipt.peak_bytes / 2**30:.2f} GiB"),
        *([("images not run", f"{receipt.not_run}: --full runs them too")]
          if receipt.not_run else []),
        *calibration.rows(receipt),
    ]  # fmt: skip
    session.out.table("rehearsal", ("", ""), rows)
    for note in receipt.notes:
        session.out.say(f"  {note}")
    for warning in receipt.warnings:
        session.out.warn(warning)
    shown = [one for one in receipt.unproved if one.startswith(SHOWN)]
    rest = len(receipt.unproved) - len(shown)
    for item in shown:
        session.out.say(f"  unproved: {item}")
    if rest:
        session.out.say(f"  unproved: {rest} more distributions differ, listed in the receipt")
    for line in receipt.log_tail:
        session.out.say(f"  | {line}")


def confirm(plan: SubmitPlan, receipt: Receipt, *, yes: bool) -> None:
    """Ask once before hours and one of the day's submissions are spent.

    What began earlier was asked about then. Raises RefusedError on a no, and on a yellow receipt
    where nobody can be asked: a green one is taken there.
    """
    green = receipt.verdict == "green"
    if yes or not plan.pushes:
        return
    if not sys.stdin.isatty():
        if green:
            return
        why = "the rehearsal is yellow (see above) and nobody can be asked"
        raise RefusedError(why, hint="the same command with --yes")
    if not typer.confirm("Submit?" if green else "Submit with what could not be proved?", err=True):
        raise RefusedError("not submitted")


def execute(
    session: Session,
    known: Known,
    packed: Packed,
    *,
    remote: Remote | None = None,
    how: How = PLAIN,
) -> dict[str, Any]:
    """Carry the plan out and return the submission's row."""
    from kagflow.ship import history, submit
    from kagflow.ship.records import Records

    remote = remote or remotes.open_remote(session)
    plan = make_plan(known, packed, remote, how)
    records, progress = Records(user_state()), session.out.progress()
    try:
        with detach.told(session, plan, how.go_on):
            done = submit.execute(plan, remote, records, progress=progress)
    finally:
        # Whatever became of its submission, what the saved run took is known.
        receipt = kernels.beside(packed, "receipt.json", how.notebook)
        calibration.learn(session, plan, receipt)
    if done.already:
        session.out.say("this pack was submitted before; --again would submit it once more")
    if history.at_floor(done.row):
        session.out.warn(history.notes(done.row)[0])
    return history.as_dict(done.row)


def _facts(packed: Packed, notebook: bool) -> dict[str, Any]:
    from kagflow.rehearse.receipt import read_receipt

    value, cv = packed.ensemble, packed.ensemble["cv"]
    facts: dict[str, Any] = {
        "ensemble": value["name"],
        "runs": tuple(
            f"{one['run']}/{naming.fold_folder(fold)}"
            for one in value["members"]
            for fold in one["folds"]
        ),
        "cv_naive": cv["naive"],
        "cv_crossfitted": cv["crossfitted"],
        "cv_images": cv["images"],
        "cv_label": cv["label"],
        "floor": cv["floor"],
    }
    receipt = kernels.beside(packed, "receipt.json", notebook)
    if receipt.is_file():
        read = read_receipt(receipt)
        facts |= {"receipt": read.verdict, "projected_p50": read.projected_minutes}
        facts |= {"projected_p95": read.projected_p95}
    return facts


def _unless(plan: SubmitPlan) -> str:
    if plan.most_s <= plan.timeout_s:
        return ""
    return f"; {plan.most_s / 3600:.0f} h at most, until the limit was seen to hold"


def _upload(one: DatasetPlan) -> str:
    if one.there:
        return "already there"
    return f"upload {one.bytes / 1e6:.1f} MB in {one.files} files"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"
