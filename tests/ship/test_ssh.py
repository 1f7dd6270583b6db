"""Transport, folders and jobs on a real sshd on loopback; nothing here trains."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kagflow.errors import (
    AuthError,
    DataError,
    KagflowError,
    LocalError,
    NetworkError,
    RefusedError,
    UsageError,
)
from kagflow.ship import ssh_job, ssh_pull, ssh_send
from kagflow.ship.ssh import Host, Link
from kagflow.ship.ssh_send import listed, send

HOSTILE = ("$(touch hacked)", "`touch hacked`; touch hacked", "a\nb 'c' \"d\"", "-rf", "ünï cödé *")


def load(name: str) -> Any:
    path = Path(__file__).with_name(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    sshd = load("sshd.py")
    sshd.skip_without_sshd()
    one = sshd.Sshd(tmp_path_factory.mktemp("sshd") / "the server")
    one.start()
    yield one
    one.stop()


@pytest.fixture
def box(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("KAGFLOW_SSH_CONFIG", str(server.config))
    monkeypatch.setattr(ssh_send, "FIRST_PAUSE", 0.02)
    yield server
    server.write_config()
    server.bin_without()


@pytest.fixture
def link(box: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    monkeypatch.setenv("KAGFLOW_SSH_HOME", str(tmp_path / "on the höst"))
    with Link(Host.parse("ssh:box")) as one:
        one.open()
        yield one


def fails(kind: type[KagflowError]) -> KagflowError:
    with pytest.raises(kind) as caught, Link(Host.parse("ssh:box")) as link:
        link.open()
    assert type(caught.value) is kind
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("word", "target", "port"),
    [
        ("ssh:box", "box", None),
        ("ssh:me@box.example.org:2222", "me@box.example.org", 2222),
        ("ssh://me@box:22", "me@box", 22),
        ("ssh:me@[fe80::1]:2222", "me@fe80::1", 2222),
    ],
)
def test_a_host_is_named_as_ssh_names_it(word: str, target: str, port: int | None) -> None:
    host = Host.parse(word)
    assert (host.target, host.port) == (target, port)
    assert host.for_rsync.count("[") == ("::" in target)
    assert Host.parse(str(host)) == host


@pytest.mark.parametrize(
    "word", ["ssh:-oProxyCommand=touch hacked", "ssh:a b", "ssh:a;b", "ssh:$(id)", "ssh:me@-x", ""]
)
def test_what_is_no_host_is_refused_before_ssh_sees_it(word: str) -> None:
    with pytest.raises(UsageError, match="names no host"):
        Host.parse(word)


def test_a_host_says_what_it_has(link: Link) -> None:
    facts = link.facts
    assert facts["home"].endswith("on the höst")
    assert facts["python"] == sys.executable
    assert facts["free"] > 0
    assert facts["rsync"]
    assert "nvidia-smi" in facts["driver"]


def test_an_unknown_key_is_not_accepted(box: Any) -> None:
    box.write_config()
    (box.folder / "known_hosts").write_text("")
    assert "not known" in fails(AuthError).message


def test_another_key_than_the_known_one_is_refused(box: Any) -> None:
    box.write_config()
    box.known(box.folder / "stranger.pub")
    assert "another key" in fails(RefusedError).message


def test_a_login_that_is_refused_names_the_mend(box: Any) -> None:
    box.write_config(IdentityFile=f'"{box.folder / "stranger"}"')
    assert "ssh-copy-id" in fails(AuthError).hint


def test_nobody_there_is_a_matter_of_the_network(box: Any) -> None:
    box.write_config(Port="1")
    assert "does not answer" in fails(NetworkError).message
    box.write_config(HostName="no-such-host.invalid")
    assert "no machine" in fails(NetworkError).message


def test_what_the_host_lacks_is_named(box: Any) -> None:
    box.bin_without("rsync")
    assert "apt install rsync" in fails(LocalError).hint
    box.bin_without("python3")
    assert "no Python >= 3.11" in fails(LocalError).message
    old = box.path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1\nexit 1\n')
    old.chmod(0o755)
    assert "python3 is 3.8.1" in fails(LocalError).message


def test_a_python_is_named_by_its_path(
    box: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.bin_without("python3")
    python = tmp_path / "a $(touch hacked) python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("KAGFLOW_SSH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGFLOW_SSH_PYTHON", str(python))
    with Link(Host.parse("box")) as link:
        assert link.open()["version"].startswith("3.")
    monkeypatch.setenv("KAGFLOW_SSH_PYTHON", "/no/such/python")
    assert "KAGFLOW_SSH_PYTHON=/no/such/python" in fails(LocalError).message


def folder(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_names_travel_as_they_are_and_nothing_runs(link: Link, tmp_path: Path) -> None:
    here = tmp_path / "here $(touch hacked)"
    for number, name in enumerate(HOSTILE):
        folder(here / f"in {name}", **{name: f"{number}"})
    path = Path(send(link, "data/one", here, listed(here), what="names"))
    assert listed(path) == listed(here)
    assert len(listed(path)) == len(HOSTILE)
    assert not list(tmp_path.rglob("hacked"))
    assert not Path("hacked").exists()


def test_only_what_a_host_lacks_is_sent(link: Link, tmp_path: Path) -> None:
    """Not what lies there under another name, and nothing twice."""
    sent: list[list[str]] = []
    push = link.push
    link.push = lambda root, names, place: (sent.append(list(names)), push(root, names, place))[1]  # type: ignore[method-assign]
    first = folder(tmp_path / "first", a="one", b="two")
    second = folder(tmp_path / "second", b="two", c="three")
    for name, here in (("first", first), ("second", second), ("second", second)):
        assert listed(Path(send(link, f"data/{name}", here, listed(here), what="x"))) == listed(
            here
        )
    assert sent == [["a", "b"], ["c"]]


def test_a_transfer_goes_on_where_it_broke(
    box: Any, link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = folder(tmp_path / "here", **{f"{number}": f"{number}" * 99 for number in range(40)})
    wrapper(
        tmp_path,
        monkeypatch,
        f'if [ -e "{tmp_path}/once" ]; then exec "$real" "$@"; fi; touch "{tmp_path}/once"; '
        '"$real" "$@" >/dev/null; exit 12',
    )
    assert listed(Path(send(link, "data/one", here, listed(here), what="x"))) == listed(here)


def test_a_file_that_arrives_changed_is_refused(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = folder(tmp_path / "here", a="one", b="two")
    staging = Path(link.home) / "data" / ".one.part"
    wrapper(tmp_path, monkeypatch, f'"$real" "$@"; printf x >> "{staging}/b"')
    with pytest.raises(DataError, match="arriving changed on box, the first: b"):
        send(link, "data/one", here, listed(here), what="x")
    assert not (Path(link.home) / "data" / "one").exists()


def test_two_that_send_the_same_do_not_trip_each_other(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, data = folder(tmp_path / "here", a="one"), Path(link.home) / "data"
    wrapper(tmp_path, monkeypatch, f'"$real" "$@"; mv "{data}/.one.part" "{data}/one"; exit 23')
    assert listed(Path(send(link, "data/one", here, listed(here), what="x"))) == listed(here)


def test_what_does_not_fit_is_not_begun(link: Link, tmp_path: Path) -> None:
    here = folder(tmp_path / "here", a="one")
    with pytest.raises(LocalError, match="GB are free"):
        send(link, "data/one", here, {"a": (10**16, "0" * 64)}, what="x")


def wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program of this machine's before rsync; `$real` is rsync itself."""
    place = tmp_path / "wrapped"
    place.mkdir()
    (place / "rsync").write_text(f"#!/bin/sh\nreal='{shutil.which('rsync')}'\n{script}\n")
    (place / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")


# ------------------------------------------------------------------------------------------ jobs


def python(text: str, **more: Any) -> dict[str, Any]:
    return {"argv": [sys.executable, "-u", "-c", text], **more}


def test_a_job_outlives_the_connection_and_is_started_once(box: Any, link: Link) -> None:
    home = Path(link.home)
    count = f"open({str(home / 'starts')!r}, 'a').write('x')"
    waits = (
        f"import os, time\n{count}\nwhile not os.path.exists({str(home / 'go')!r}): time.sleep(.01)"
    )
    standing, fresh = ssh_job.start(link, "j", [python(waits)], note={"space": "s"})
    assert (standing.state, fresh) == ("running", True)
    box.cut()
    link.drop()
    again, fresh = ssh_job.start(link, "j", [python(waits)])
    assert (again.state, again.pid, fresh) == ("running", standing.pid, False)
    assert link.call("newest", home=link.home, space="s")["job"] == "j"
    (home / "go").touch()
    ended, _ = ssh_job.follow(link, "j", lambda line: None)
    assert (ended.state, ended.code) == ("ended", 0)
    assert (home / "starts").read_text() == "x"
    assert 0 < ended.seconds < 600


def test_two_at_once_start_one(box: Any, link: Link) -> None:
    from concurrent.futures import ThreadPoolExecutor

    count = f"open({str(Path(link.home) / 'starts')!r}, 'a').write('x'); import time; time.sleep(1)"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ssh_job.start(link, "j", [python(count)]), range(4)))
    assert sorted(fresh for _, fresh in found) == [False, False, False, True]
    ssh_job.follow(link, "j", lambda line: None)
    assert (Path(link.home) / "starts").read_text() == "x"


def test_a_log_is_followed_through_broken_connections(box: Any, link: Link) -> None:
    """No line is lost and none comes twice; the last one needs no end."""
    goes = [Path(link.home) / f"go{part}" for part in range(3)]
    text = f"""import pathlib, sys, time
for part, go in enumerate({[str(go) for go in goes]}):
    for n in range(20): print(f'line {{20 * part + n}} é', flush=True)
    while not pathlib.Path(go).exists(): time.sleep(.01)
sys.stdout.write('the end')"""
    ssh_job.start(link, "j", [python(text)])
    seen: list[str] = []
    over = threading.Event()

    def cut() -> None:
        # While a call waits for the next line, after each twenty: the job goes on when one broke.
        for part, go in enumerate(goes):
            while len(seen) < 20 * (part + 1) and not over.wait(0.01):
                pass
            while len(broken) <= part and not over.wait(0.05):
                box.cut()
            go.touch()

    drop, broken = link.drop, list[int]()
    link.drop = lambda: (broken.append(len(seen)), drop())[1]  # type: ignore[method-assign]
    thread = threading.Thread(target=cut)
    thread.start()
    try:
        ended, tail = ssh_job.follow(link, "j", seen.append)
    finally:
        over.set()
        thread.join()
    assert len(broken) >= 3
    assert seen == [*(f"line {number} é" for number in range(60)), "the end"]
    assert tail == seen[-30:]
    assert ended.code == 0


def test_patience_ends_and_the_error_is_of_the_network(box: Any, link: Link) -> None:
    box.write_config(Port="1")
    link.drop()
    with pytest.raises(NetworkError):
        ssh_send.patiently(link, lambda: link.call("status", home=link.home, job="j"), patience=0.2)


def test_a_deadline_ends_a_job_and_the_rest_is_not_begun(link: Link) -> None:
    waits = python("import time\nprint('begun {left}', flush=True)\ntime.sleep(600)")
    ssh_job.start(link, "j", [waits, python("print('never')")], deadline=0.7)
    lines: list[str] = []
    ended, _ = ssh_job.follow(link, "j", lines.append)
    assert (ended.late, ended.code) == (True, -signal.SIGTERM)
    assert lines == ["begun 1"]


def test_steps_end_at_the_first_that_fails_but_for_those_that_go_on_anyway(link: Link) -> None:
    fine, bad = python("print('{}')", kept=True), python("import sys; sys.exit(3)", anyway=True)
    ssh_job.start(link, "j", [bad, fine, python("import sys; sys.exit(4)"), python("print(1)")])
    lines: list[str] = []
    ended, _ = ssh_job.follow(link, "j", lines.append)
    assert (ended.code, lines) == (3, [])
    assert link.call("said", home=link.home, job="j")["texts"] == ["{}\n"]
    ssh_job.start(link, "j", [{"argv": ["/no/such/program"]}])
    ended, tail = ssh_job.follow(link, "j", lines.append)
    assert ended.code == 127
    assert "/no/such/program" in tail[-1]


def test_a_job_that_is_asked_to_stop_asks_its_command(link: Link) -> None:
    text = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(130))\n"
    steps = [python(text + "print('begun', flush=True)\ntime.sleep(600)", anyway=True)]
    standing, _ = ssh_job.start(link, "j", [*steps, python("print('never')")])
    assert standing.pid is not None
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        os.kill(standing.pid or 0, signal.SIGTERM)

    ended, _ = ssh_job.follow(link, "j", say)
    assert (ended.code, ended.late, lines) == (130, False, ["begun"])


def test_a_job_that_was_killed_with_its_keeper_is_gone_and_may_begin_again(link: Link) -> None:
    ssh_job.start(link, "j", [python("import time; time.sleep(600)")])
    noted = json.loads((Path(link.home) / "jobs" / "j" / "pid.json").read_text())
    keeper, child = (one["pid"] for one in noted["of"])
    os.kill(keeper, signal.SIGKILL)
    assert ssh_job.find(link, "j").state == "running"
    assert not ssh_job.start(link, "j", [python("print('twice')")])[1]
    os.kill(child, signal.SIGKILL)
    until = time.monotonic() + 20
    while ssh_job.find(link, "j").state == "running":
        assert time.monotonic() < until
    assert ssh_job.find(link, "j").state == "gone"
    assert ssh_job.start(link, "j", [python("print('again')")])[1]
    lines: list[str] = []
    assert ssh_job.follow(link, "j", lines.append)[0].code == 0
    assert lines == ["again"]


# ------------------------------------------------------------------------------------------ back


def test_a_run_comes_back_whole_and_never_over_a_finished_one(link: Link, tmp_path: Path) -> None:
    there, here = Path(link.home) / "runs" / "s" / "r" / "fold0", tmp_path / "runs" / "r" / "fold0"
    folder(there, **{"ckpt-20.pt": "new", "oof/index.csv": "x", ".lock": "", "config.yaml": "c"})
    folder(here, **{"ckpt-10.pt": "old", "config.yaml": "c"})
    assert ssh_pull.bring(link, "runs/s", "r/fold0", here)
    assert set(listed(here)) == {"ckpt-20.pt", "oof/index.csv", "config.yaml"}
    folder(here, **{"ckpt-30.pt": "further"})
    assert not ssh_pull.bring(link, "runs/s", "r/fold0", here)
    folder(there, **{"run.json": "done"})
    assert ssh_pull.bring(link, "runs/s", "r/fold0", here)
    assert "ckpt-30.pt" not in listed(here)
    folder(there, **{"run.json": "other"})
    assert not ssh_pull.bring(link, "runs/s", "r/fold0", here)
    assert (here / "run.json").read_text() == "done"
    assert not ssh_pull.bring(link, "runs/s", "r/fold1", here.parent / "fold1")
    assert [path.name for path in here.parent.iterdir()] == ["fold0"]


def test_a_file_corrupted_on_the_way_back_is_refused(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = Path(link.home) / "runs" / "s" / "r" / "fold0", tmp_path / "runs" / "r" / "fold0"
    folder(there, **{"ckpt-20.pt": "new", "run.json": "done"})
    folder(here, **{"ckpt-10.pt": "old"})
    spoil = f'"$real" "$@"; printf x >> "{here.parent}/.fold0.arriving/ckpt-20.pt"'
    with monkeypatch.context() as patched:
        wrapper(tmp_path, patched, spoil)
        with pytest.raises(DataError, match=r"other than they are there, the first: ckpt-20\.pt"):
            ssh_pull.bring(link, "runs/s", "r/fold0", here)
    assert set(listed(here)) == {"ckpt-10.pt"}
    assert ssh_pull.bring(link, "runs/s", "r/fold0", here)
    assert (here / "ckpt-20.pt").read_text() == "new"


def test_a_run_that_is_trained_here_is_left_alone(link: Link, tmp_path: Path) -> None:
    import filelock

    there, here = Path(link.home) / "runs" / "s" / "r" / "fold0", tmp_path / "runs" / "r" / "fold0"
    folder(there, **{"run.json": "done"})
    folder(here, **{"ckpt-10.pt": "old"})
    with filelock.FileLock(here / ".lock"), pytest.raises(RefusedError, match="is training"):
        ssh_pull.bring(link, "runs/s", "r/fold0", here)
    assert "run.json" not in listed(here)


def test_a_kill_between_the_two_renames_loses_nothing(link: Link, tmp_path: Path) -> None:
    here = tmp_path / "runs" / "r" / "fold0"
    folder(here.parent / ".fold0.before", **{"ckpt-10.pt": "old"})
    assert not ssh_pull.bring(link, "runs/s", "r/fold0", here)
    assert set(listed(here)) == {"ckpt-10.pt"}


def test_a_host_cannot_name_a_file_out_of_the_run(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"files": {"../../evil": [1, "0" * 64], "run.json": [1, "0" * 64]}, "root": "/"}
    monkeypatch.setattr(link, "call", lambda do, **given: answer)
    with pytest.raises(DataError, match="leads out"):
        ssh_pull.bring(link, "runs/s", "r/fold0", tmp_path / "runs" / "r" / "fold0")


def test_no_process_is_left_behind(
    box: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGFLOW_SSH_HOME", str(tmp_path / "home"))
    with Link(Host.parse("box")) as link:
        link.open()
        socket = link._folder
        assert (socket / "s").exists()
    assert not socket.exists()
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(socket) not in found
