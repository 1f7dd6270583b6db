"""Pack and submit as forked.py does an order, or ask about what is pending, as `history` does.

{"folder", "user", "slug", "rerun", "weights", "kernel", "what", "wait", "later"}: all that one user
has lies in the folder, the kernel in a folder of it; a copy begins `later` seconds after the one
before. Under "die" it kills itself at that boundary, a number: before and after each call to Kaggle
and each change of the records. The file "boundaries" tells what was passed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import forked

from kagflow.fingerprint import load_snapshot
from kagflow.ship import submit
from kagflow.ship.pack import build_pack
from kagflow.ship.records import Records
from kagflow.ship.refresh import refresh
from kagflow.ship.remote import Remote

NAME = "a.fold0.safetensors"
FACTS = {"ensemble": "tiny", "runs": ("a/fold0",), "cv_naive": 0.9, "projected_p50": 0.1}


def child(order, url):
    folder = Path(order["folder"])
    time.sleep(order.get("later", 0.0) * order["copy"])
    submit.WAIT = order.get("wait", submit.WAIT)
    remote = Remote(
        "local",
        url=url.replace("http://", f"http://{order['user']}:local@"),
        state=folder / "client",
        # A server that was asked by a killed client answers all the same; what it did shows soon.
        sleep=lambda seconds: time.sleep(min(seconds, 0.2)),
    )
    records = Records(folder / "records")
    passed = watch(order.get("die"), remote)
    if order.get("what") == "refresh":
        refresh(records, remote, profile="local")
        return
    request = submit.SubmitRequest(
        "tiny", order["slug"], packed(folder, order), folder / order["kernel"], 60, facts=FACTS
    )
    plan = submit.make_plan(request, remote, records)
    submit.execute(plan, remote, records)
    (folder / "boundaries").write_text(json.dumps(passed))


def watch(die, remote):
    """Return the list into which every boundary is put as it is passed; die at number `die`."""
    passed = []

    def cross(name):
        passed.append(name)
        if len(passed) - 1 == die:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(call, name):
        def crossing(*values, **named):
            told = name or values[1]
            cross(f"before {told}")
            answer = call(*values, **named)
            cross(f"after {told}")
            return answer

        return crossing

    remote.transport.call = around(remote.transport.call, "")
    for name in ("add", "update"):
        setattr(Records, name, around(getattr(Records, name), name))
    return passed


def packed(folder, order):
    weights = folder / f"weights-{order['weights']}"
    weights.write_text(order["weights"] * 1000)
    member = {"name": "a", "weights": [NAME]}
    return build_pack(
        folder / "packs",
        weights={NAME: weights},
        config={"schema": 1, "members": [member], "rerun": order["rerun"]},
        competition_folder=competition(folder),
        fingerprint=load_snapshot(),
    ).path


def competition(folder):
    made = folder / "rolls"
    made.mkdir(exist_ok=True)
    (made / "competition.yaml").write_text("slug: rolls\n")
    (made / "__init__.py").touch()
    return made


if __name__ == "__main__":
    # Once in this very process, so that nothing is imported or looked up for the first time later.
    with tempfile.TemporaryDirectory() as warm:
        packed(Path(warm), {"weights": "w", "rerun": "none"})
        answers = Remote("local", url=sys.argv[1], state=Path(warm) / "client")
        answers.quota()
        Records(Path(warm) / "records")
    forked.serve(child, sys.argv[1])
