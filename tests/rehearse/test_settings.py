"""Every assumption about Kaggle can be set to its contrary, and the server then behaves so."""

from __future__ import annotations

import importlib.util
import io
import json
import random
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kagflow.errors import DataError, RemoteError, UsageError
from kagflow.rehearse import datasets, finals, lies, runner
from kagflow.rehearse import settings as settings_file
from kagflow.rehearse.settings import CHOICES, KEYS, Settings
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_errors import ForbiddenError
from kagflow.ship.remote_types import KernelPush

SLUG = "tiny-squares"


@pytest.fixture
def served(tiny, tiny_folder, tmp_path):
    path = Path(__file__).parents[1] / "gauntlet" / "served.py"
    spec = importlib.util.spec_from_file_location("served_for_settings", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.serve(tmp_path / "store") as one:
        one.store.add_competition(tiny.make_facts(), tiny_folder)
        yield one


@pytest.fixture
def remote(served, tmp_path):
    return Remote("local", url=served.url, state=tmp_path / "state")


@pytest.fixture
def change(served):
    def to(**values):
        settings_file.change(served.store.path, **values)

    to(dataset_ready_s=0.0)
    return to


def push(name, **changes):
    values = {
        "ref": f"local/{name}",
        "title": name,
        "text": f"print('{name}')",
        "datasets": (),
        "competition": SLUG,
        "machine_shape": "None",
        "timeout_s": 60,
    }
    return KernelPush(**{**values, **changes})


def run(remote, wait_for, name, **changes):
    pushed = remote.push_kernel(push(name, **changes))
    wait_for(lambda: remote.kernel_status(pushed.ref, pushed.version).complete)
    return pushed


def upload(remote, folder, name="a-dataset", mark="one", **files):
    folder.mkdir()
    for file, body in (files or {"a.bin": b"a"}).items():
        (folder / file).write_bytes(body)
    pack = DatasetPush(f"local/{name}", name, folder, mark)
    return remote.dataset_create_or_version(pack)


def specs(monkeypatch):
    """Collect what runs are given."""
    seen, real = [], runner.SandboxSpec

    def noting(**values):
        seen.append(values)
        return real(**values)

    monkeypatch.setattr(runner, "SandboxSpec", noting)
    return seen


# -- the file


def test_nothing_is_set_at_first(tmp_path):
    assert settings_file.read(tmp_path) == Settings()


def test_only_what_differs_is_written_and_other_keys_stay(tmp_path):
    settings_file.change(tmp_path, mount_layout="flat", quota_lag_s=3)
    made = settings_file.change(tmp_path, quota_lag_s=0.0, rerun="none")
    assert made == settings_file.read(tmp_path) == Settings(mount_layout="flat", rerun="none")
    assert json.loads((tmp_path / "settings.json").read_text()) == {
        "mount_layout": "flat",
        "rerun": "none",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"mount_layuot": "flat"}', "mount_layuot"),
        ('{"mount_layout": "upside-down"}', "mount_layout"),
        ('{"gpu_slots": true}', "gpu_slots"),
        ('{"gpu_hours": "30"}', "gpu_hours"),
        ('{"rules_accepted": 1}', "rules_accepted"),
        ("[]", "not a JSON object"),
        ("{", "not readable"),
    ],
)
def test_a_wrong_file_is_named_not_guessed(tmp_path, text, says):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(DataError, match=says):
        settings_file.read(tmp_path)


def test_a_change_that_cannot_be_changes_nothing(tmp_path):
    settings_file.change(tmp_path, rerun="none")
    with pytest.raises(DataError):
        settings_file.change(tmp_path, rerun="maybe")
    assert settings_file.read(tmp_path).rerun == "none"
    assert set(CHOICES) <= set(KEYS)


# -- where a kernel finds its inputs, and in what


@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_the_layout_is_the_stores(served, remote, change, wait_for, monkeypatch, layout):
    seen = specs(monkeypatch)
    change(mount_layout=layout)
    run(remote, wait_for, "a-layout")
    assert [one["layout"] for one in seen] == [layout]


def test_a_random_layout_is_both_and_the_same_each_time():
    seed = random.Random(4).randrange(10**6)
    chosen = Settings(mount_layout="random", mount_seed=seed)
    drawn = [runner.layout_of(chosen, session) for session in range(30)]
    assert set(drawn) == {"nested", "flat"}
    assert drawn == [runner.layout_of(chosen, session) for session in range(30)]


def test_archives_may_arrive_as_they_were_sent(served, remote, change, tmp_path, wait_for):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("inner.txt", "x")
    change(archives_unpacked=False)
    upload(remote, tmp_path / "pack", **{"a.zip": body.getvalue()})
    version = wait_for(lambda: ready(served, "a-dataset"))
    assert [path.name for path in version.tree.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("name", ["a@b.bin", "a&b.bin"])
def test_bad_names_are_taken_and_fail_later(served, remote, change, tmp_path, wait_for, name):
    change(dataset_ready_s=0.2)
    assert upload(remote, tmp_path / "pack", **{name: b"x"}) == 1
    assert remote.dataset_status("local/a-dataset") in datasets.STEPS
    wait_for(lambda: remote.dataset_status("local/a-dataset") == "FAILED")


def ready(served, slug, number=None):
    found = datasets.find(served.store, "local", slug, number)
    return found if found and found.ready else None


@pytest.mark.parametrize("honoured", [True, False])
def test_a_pinned_version_may_not_be_honoured(
    served, remote, change, tmp_path, wait_for, monkeypatch, honoured
):
    for number in (1, 2):
        upload(remote, tmp_path / f"pack{number}", mark=f"m{number}")
        wait_for(lambda number=number: ready(served, "a-dataset", number))
    seen = specs(monkeypatch)
    change(version_pin_honoured=honoured)
    run(remote, wait_for, "a-pin", datasets=("local/a-dataset/1",))
    mounted = seen[0]["datasets"]["local/a-dataset"].name
    assert mounted == ("1" if honoured else "2")


def test_a_kernel_pushed_too_early_mounts_the_version_before(
    served, remote, change, tmp_path, wait_for, monkeypatch
):
    upload(remote, tmp_path / "pack1", mark="m1")
    wait_for(lambda: ready(served, "a-dataset", 1))
    seen = specs(monkeypatch)
    change(dataset_ready_s=0.6)
    served.store.execute("UPDATE dataset_version SET created = '2026-01-01T00:00:00.000'")
    upload(remote, tmp_path / "pack2", mark="m2")
    run(remote, wait_for, "too-early", datasets=("local/a-dataset",))
    assert seen[0]["datasets"]["local/a-dataset"].name == "1"
    with pytest.raises(RemoteError, match="local/a-dataset/2"):
        remote.push_kernel(push("far-too-early", datasets=("local/a-dataset/2",)))


def test_a_run_may_be_told_of_a_network_and_another_gpu(tmp_path):
    source = "from __future__ import annotations\nimport socket, subprocess\n" + (
        "socket.create_connection(('192.0.2.1', 9), 1)\n"
        "print(socket.getaddrinfo('www.kaggle.com', 443)[0][4][1])\n"
        "print(subprocess.run('nvidia-smi', capture_output=True, text=True).stdout)\n"
    )
    told = lies.told(
        Settings(internet_really_off=False, accelerator_substituted="Tesla P100"), "gpu", source
    )
    (tmp_path / "kernel.py").write_text(told)
    done = subprocess.run(
        [sys.executable, tmp_path / "kernel.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "443"
    assert "Tesla P100" in done.stdout
    assert lies.told(Settings(accelerator_substituted="Tesla P100"), "none", source) == source


# -- what runs cost and when they end


@pytest.mark.parametrize(("rerun", "sessions"), [("none", 1), ("hidden", 2)])
def test_the_store_may_override_a_competitions_rerun(
    served, remote, change, wait_for, rerun, sessions
):
    change(rerun=rerun)
    pushed = run(remote, wait_for, "overridden")
    ref = remote.submit(SLUG, pushed.ref, version=1, file="submission.csv", message="m")
    wait_for(lambda: remote.submission(ref).status == "COMPLETE")
    assert served.store.row("SELECT COUNT(*) AS n FROM session")["n"] == sessions


def finished(served, kind, ago_s, seconds=3600):
    version = served.store.row("SELECT MAX(id) AS id FROM kernel_version")["id"]
    moment = datetime.fromtimestamp(datetime.now(UTC).timestamp() - ago_s, UTC)
    text = moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
    served.store.execute(
        "INSERT INTO session (version, kind, accelerator, status, limit_s, created, finished, "
        "seconds) VALUES (?, ?, 'gpu', 'COMPLETE', 60, ?, ?, ?)",
        (version, kind, text, text, seconds),
    )


@pytest.mark.parametrize(("billed", "hours"), [(False, 1), (True, 2)])
def test_a_rerun_may_be_billed(served, remote, change, wait_for, billed, hours):
    run(remote, wait_for, "some-kernel")
    change(rerun_billed=billed)
    finished(served, "save", 1)
    finished(served, "rerun", 1)
    assert remote.quota().gpu.used == pytest.approx(3600 * hours)


def test_the_quota_may_lag_and_allow_something_else(served, remote, change, wait_for):
    run(remote, wait_for, "some-kernel")
    finished(served, "save", 5)
    change(quota_lag_s=600.0, gpu_hours=12.0)
    assert remote.quota().gpu.used == 0
    assert remote.quota().gpu.total == 12 * 3600
    change(quota_lag_s=0.0, gpu_hours=0.5)
    assert remote.quota().gpu.used == 3600
    with pytest.raises(RemoteError, match=r"weekly GPU quota of 0\.50 hours"):
        remote.push_kernel(push("too-much", machine_shape="NvidiaTeslaT4"))


def test_the_quota_may_renew_on_another_day(remote, change):
    change(quota_weekday=2)
    assert remote.quota().refresh.weekday() == 2


def test_slots_are_the_stores(remote, change):
    change(cpu_slots=1, kernel_queue_s=0.5)
    remote.push_kernel(push("first-one"))
    with pytest.raises(RemoteError, match="CPU session count of 1"):
        remote.push_kernel(push("second-one"))


@pytest.mark.parametrize(("honoured", "limit"), [(True, 60), (False, 12 * 3600)])
def test_a_session_timeout_may_not_be_honoured(served, remote, change, wait_for, honoured, limit):
    change(session_timeout_honoured=honoured)
    run(remote, wait_for, "timed-one")
    assert served.store.row("SELECT limit_s FROM session")["limit_s"] == limit


def test_a_timeout_may_show_as_an_error(served):
    late = runner.SandboxResult("bwrap", -9, 60.0, 1, timed_out=True, out_of_memory=False)
    assert runner.judge(late).status == "CANCEL_ACKNOWLEDGED"
    assert runner.judge(late, "ERROR").status == "ERROR"


# -- when things show


def test_dataset_states_take_their_time(served, remote, change, tmp_path, wait_for):
    change(dataset_ready_s=0.4)
    upload(remote, tmp_path / "pack")
    seen = []
    wait_for(lambda: seen.append(remote.dataset_status("local/a-dataset")) or seen[-1] == "READY")
    order = [*datasets.STEPS, "READY"]
    assert sorted(seen, key=order.index) == seen
    assert len(set(seen)) > 2


def test_a_submission_may_take_a_while_to_be_listed(served, remote, change, wait_for):
    change(rerun="none")
    pushed = run(remote, wait_for, "a-kernel")
    change(rerun="none", submission_listed_s=600.0)
    ref = remote.submit(SLUG, pushed.ref, version=1, file="submission.csv", message="m")
    assert remote.submissions(SLUG) == ()
    assert remote.submission(ref).status == "PENDING"
    change(submission_listed_s=0.0)
    assert [one.ref for one in remote.submissions(SLUG)] == [ref]


def test_a_status_may_always_be_the_newest_versions(remote, change, wait_for):
    pushed = run(remote, wait_for, "two-versions")
    change(kernel_queue_s=0.5)
    remote.push_kernel(push("two-versions", text="print(2)"))
    assert remote.kernel_status(pushed.ref, 1).complete
    change(status_version_honoured=False)
    assert not remote.kernel_status(pushed.ref, 1).complete


def test_a_slug_may_not_come_from_the_title(remote, change):
    asked = push("the-slug", title="Another Title")
    assert remote.push_kernel(asked).ref == "local/another-title"
    change(slug_from_title=False)
    assert remote.push_kernel(asked).ref == "local/the-slug"


# -- the account and the wire


def test_rules_may_not_be_accepted(remote, change, tmp_path):
    change(rules_accepted=False)
    assert not remote.competition(SLUG).entered
    with pytest.raises(RemoteError, match="rules"):
        remote.download(SLUG, tmp_path / "data.zip")
    with pytest.raises((ForbiddenError, RemoteError), match=r"rules|denied|403"):
        remote.submit(SLUG, "local/k", version=1, file="submission.csv", message="m")


def test_a_phone_may_not_be_verified(remote, change):
    change(phone_verified=False)
    remote.push_kernel(push("on-a-cpu"))
    with pytest.raises(RemoteError, match="phone"):
        remote.push_kernel(push("on-a-gpu", machine_shape="NvidiaTeslaT4"))


def test_a_link_may_be_dead_on_arrival(served, remote, change, tmp_path):
    change(link_s=-1.0)
    remote.transport.sleep = lambda _: change(link_s=60.0)
    remote.download(SLUG, tmp_path / "data.zip")
    assert (tmp_path / "data.zip").read_bytes() == served.store.archive(SLUG).read_bytes()


def test_a_deadline_may_end_submissions(tiny, tiny_folder, served, remote, change, wait_for):
    served.store.add_competition(tiny.make_facts(deadline="2020-01-01"), tiny_folder)
    change(late_submissions=False)
    pushed = run(remote, wait_for, "too-late")
    with pytest.raises(RemoteError, match="deadline"):
        remote.submit(SLUG, pushed.ref, version=1, file="submission.csv", message="m")


def scored(remote, wait_for, pushed, message="m"):
    ref = remote.submit(SLUG, pushed.ref, version=1, file="submission.csv", message=message)
    return wait_for(lambda: (one := remote.submission(ref)).status == "COMPLETE" and one)


def test_private_scores_may_wait_for_the_deadline_and_late_ones_have_both_at_once(
    tiny, tiny_folder, served, remote, change, wait_for
):
    pushed = run(remote, wait_for, "a-kernel")
    change(private_before_deadline=False)
    early = scored(remote, wait_for, pushed)
    assert early.public is not None
    assert early.private is None
    served.store.add_competition(tiny.make_facts(deadline="2020-01-01"), tiny_folder)
    late = scored(remote, wait_for, pushed, "late")
    assert (late.public, late.private is None) == (early.public, False)
    assert remote.submission(early.ref).private == late.private


def test_finals_are_those_that_were_ticked(served, remote, change, wait_for):
    pushed = run(remote, wait_for, "a-kernel")
    first, second, third = (scored(remote, wait_for, pushed, str(n)).ref for n in range(3))
    assert remote.selected(SLUG) == ()
    finals.select(served.store, SLUG, [first, third])
    assert sorted(one.ref for one in remote.selected(SLUG)) == [first, third]
    finals.select(served.store, SLUG, [second])
    assert [one.ref for one in remote.selected(SLUG)] == [second]
    with pytest.raises(UsageError, match="no scored submission 99"):
        finals.select(served.store, SLUG, [first, 99])
    assert finals.selected(served.store, SLUG) == {second}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [("settings.json", '{"mount": 1}', "mount"), ("faults.json", '[{"at": "*"}]', "do")],
)
def test_a_running_server_names_a_file_that_cannot_be(
    tiny, kaggle_store, sdk, tmp_path, name, text, says
):
    path = kaggle_store.path / name
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    try:
        remote = Remote("local", url=sdk.http_client()._endpoint, state=tmp_path)
        with pytest.raises(RemoteError, match=f"{name}.*{says}"):
            remote.competition(SLUG)
    finally:
        path.unlink() if before is None else path.write_text(before)
