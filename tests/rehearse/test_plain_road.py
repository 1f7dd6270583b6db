"""The road driven with the plain `kaggle` command ends where kagflow's own ends.

Two accounts send the same pack and kernel, one by `kagflow submit`'s code, one by hand with the
unmodified client; then the embedded Kaggle holds the same of both.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
from pathlib import Path

import pytest

from kagflow.rehearse import datasets, sandbox, server
from kagflow.rehearse.runner import session_folder
from kagflow.ship.plan import SubmitRequest
from kagflow.ship.records import Records
from kagflow.ship.remote import Remote
from kagflow.ship.submit import execute, kernel_push, make_plan

FLOW, PLAIN = "flow-user", "hand-user"
# What a push says of a kernel; the rest is what the client leaves out or the server adds.
SAID = (
    *("newTitle", "text", "language", "kernelType", "isPrivate", "enableInternet", "machineShape"),
    *("datasetDataSources", "competitionDataSources", "sessionTimeoutSeconds", "pinnedDatasets"),
)


@pytest.fixture(scope="module")
def roads():
    path = Path(__file__).parents[1] / "ship" / "test_submit.py"
    spec = importlib.util.spec_from_file_location("plain_roads", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pack(roads, tmp_path_factory):
    return roads.make_pack(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def flow(kaggle_store, tiny, roads, pack, tmp_path_factory):
    """kagflow's own road; return its plan and its row."""
    if not sandbox.probe_layers():
        pytest.skip("no sandbox layer works on this machine")
    folder = tmp_path_factory.mktemp("flow")
    url = server.status(kaggle_store.path).url.replace("http://", f"http://{FLOW}:local@")
    remote = Remote("local", url=url, state=folder / "state")
    kernel = roads.make_kernel(folder / "kernel", tiny.kernel(), account=FLOW, slug=tiny.SLUG)
    wish = SubmitRequest("tiny", tiny.SLUG, pack, kernel, 60, facts=roads.FACTS)
    records = Records(folder / "records")
    plan = make_plan(wish, remote, records)
    return plan, execute(plan, remote, records).row


@pytest.fixture(scope="module")
def plain(flow, kaggle, kaggle_store, tiny, pack, write_kernel, wait_for, tmp_path_factory):
    """The same by hand."""
    plan, row = flow
    sources = [one.replace(FLOW, PLAIN) for one in row.datasets]
    for one in plan.datasets:
        folder = tmp_path_factory.mktemp("half") / one.part
        shutil.copytree(pack / one.part, folder)
        about = {"id": one.push.ref.replace(FLOW, PLAIN), "title": one.push.title}
        about["licenses"] = [{"name": "CC0-1.0"}]
        (folder / "dataset-metadata.json").write_text(json.dumps(about))
        done = kaggle("datasets", "create", "-p", str(folder), "-q", user=PLAIN)
        assert "is being created" in done.stdout, done.stdout + done.stderr
        slug = one.push.ref.partition("/")[2]
        wait_for(lambda slug=slug: datasets.find(kaggle_store, PLAIN, slug).ready)
    folder = write_kernel(
        tmp_path_factory.mktemp("kernel"),
        kernel_push(plan, row.datasets).text,
        ref=f"{PLAIN}/kagflow-tiny",
        competition=tiny.SLUG,
        title=plan.title,
        dataset_sources=sources,
        machine_shape=plan.accelerator,
    )
    done = kaggle("kernels", "push", "-p", str(folder), "-t", str(plan.timeout_s), user=PLAIN)
    assert "Kernel version 1 successfully pushed" in done.stdout, done.stdout + done.stderr
    wait_for(lambda: runs(kaggle_store, PLAIN)[0]["status"] == "COMPLETE")
    words = f"competitions submit {tiny.SLUG} -k {PLAIN}/kagflow-tiny -v 1 -f submission.csv -m"
    done = kaggle(*words.split(), plan.message, user=PLAIN)
    assert "Successfully submitted" in done.stdout, done.stdout + done.stderr
    wait_for(lambda: submissions(kaggle_store, PLAIN)[0]["status"] == "COMPLETE")


def runs(store, user):
    return store.rows(
        "SELECT s.*, v.request FROM session s JOIN kernel_version v ON v.id = s.version "
        "JOIN kernel k ON k.id = v.kernel WHERE k.owner = ? ORDER BY s.id",
        (user,),
    )


def submissions(store, user):
    rows = store.rows("SELECT * FROM submission WHERE user = ? ORDER BY ref", (user,))
    names = ("competition", "file_name", "description", "status", "public", "private", "bytes")
    return [{name: row[name] for name in names} for row in rows]


def end_state(store, user):
    """Return all that the store holds of an account, without its name, numbers and times."""
    made = store.rows("SELECT * FROM dataset WHERE owner = ? ORDER BY slug", (user,))
    versions = {row["slug"]: datasets.find(store, user, row["slug"]) for row in made}
    ran = runs(store, user)
    pushed = [json.loads(run["request"]) for run in ran if run["kind"] == "save"]
    state = {
        "datasets": [[row["slug"], row["title"], row["license"], row["private"]] for row in made],
        "files": {
            slug: {path.name: path.read_bytes().hex() for path in sorted(version.tree.iterdir())}
            for slug, version in versions.items()
        },
        "numbers": {slug: version.number for slug, version in versions.items()},
        "kernels": [{key: one.get(key) for key in SAID} for one in pushed],
        "runs": [[run["kind"], run["accelerator"], run["status"], run["limit_s"]] for run in ran],
        "outputs": [
            {
                path.name: path.read_text()
                for path in sorted((session_folder(store, run["id"]) / "working").iterdir())
            }
            for run in ran
        ],
        "submissions": submissions(store, user),
    }
    return json.loads(json.dumps(state).replace(user, "user"))


def test_both_roads_leave_the_same_behind(kaggle_store, flow, plain) -> None:
    own, by_hand = end_state(kaggle_store, FLOW), end_state(kaggle_store, PLAIN)
    for name in own:
        assert own[name] == by_hand[name], name
    assert set(own["files"]) == {"kagflow-tiny-env", "kagflow-tiny-weights"}
    assert [one[0] for one in own["runs"]] == ["save", "rerun"]
    assert (own["submissions"][0]["public"], own["submissions"][0]["private"]) == (
        "1.00000", "1.00000",
    )  # fmt: skip


def test_the_plain_command_lists_what_kagflow_submitted(kaggle, flow, tiny) -> None:
    _, row = flow
    done = kaggle("competitions", "submissions", tiny.SLUG, "-v", user=FLOW)
    (shown,) = csv.DictReader(io.StringIO(done.stdout))
    assert shown["description"] == row.message
    assert (float(shown["publicScore"]), float(shown["privateScore"])) == (row.public, row.private)
