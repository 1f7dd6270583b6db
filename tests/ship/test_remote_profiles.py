"""Profiles never touch each other, the shell never reaches a call, and any server will do."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kagflow import process
from kagflow.cli.app import main
from kagflow.errors import NetworkError, RefusedError
from kagflow.rehearse import server
from kagflow.rehearse.store import Store
from kagflow.ship import credentials
from kagflow.ship.credentials import Credential
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush

# What continuous integration and other tools leave in the environment.
STRAY = {
    "VERBOSE": "1",
    "VERBOSE_OUTPUT": "true",
    "KAGGLE_API_ENVIRONMENT": "TEST",
    "KAGGLE_API_ENDPOINT": "http://127.0.0.1:9",
    "KAGGLE_PROXY": "http://127.0.0.1:9",
    "KAGGLE_TOKEN": "stray",
    "KAGGLE_COMPETITION": "stray",
    "KAGGLE_PATH": "/nowhere",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "all_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
}
AUDIT = """
import os, sys
seen = []
def hook(event, args):
    # urllib3 looks whether there is IPv6 by binding to loopback; nothing is sent.
    if event == "socket.__new__" or (event == "socket.bind" and args[1] == ("::1", 0)):
        return
    if event.startswith(("socket.", "urllib.", "http.client", "subprocess", "os.mkdir", "os.remove",
                         "os.rename", "shutil.", "tempfile.", "sqlite3", "os.chmod", "os.symlink")):
        seen.append((event, str(args)))
    if event == "open":
        path, mode, flags = str(args[0]), args[1], args[2] or 0
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or path.startswith(os.environ["HOME"]):
            seen.append((event, str(args)))
sys.addaudithook(hook)
import kagflow.ship.remote, kagflow.ship.submit, kagflow.ship.fetch
sys.stderr.write(repr(seen)) if seen else None
"""


@pytest.mark.parametrize("stray", [{}, STRAY, {"KAGGLE_API_TOKEN": "KGAT_" + "0" * 32}])
def test_import_is_silent_and_touches_neither_network_nor_disk(stray, tmp_path) -> None:
    env = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", **stray}
    done = process.run([sys.executable, "-c", AUDIT], env=env, cwd=tmp_path)
    assert done.stdout == ""
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_shells_reaches_a_call(script, stub, tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from kagflow.ship.remote import Remote\n"
        f"remote = Remote('local', url={stub!r}, state=Path('state'))\n"
        "assert remote.competition('steel').title == 'Steel'\n"
        "from kagflow.ship import remote as module\n"
        "assert module._site() == 'https://api.kaggle.com', module._site()\n"
    )
    script.rpc("GetCompetition", {"title": "Steel"})
    env = {"PATH": os.defpath, "HOME": str(tmp_path), **STRAY}
    done = process.run([sys.executable, "-c", code], env=env, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
    (seen,) = script.seen
    assert seen[1] == "/api/v1/competitions.CompetitionApiService/GetCompetition"
    assert not (tmp_path / ".kaggle").exists()


def push(tmp_path: Path) -> DatasetPush:
    folder = tmp_path / "pack"
    folder.mkdir(exist_ok=True)
    (folder / "a.bin").write_bytes(b"weights" * 100)
    return DatasetPush("ann/pack-one", "pack one", folder, "kagflow pack 0123")


@pytest.fixture
def two(script, stub, tmp_path, monkeypatch):
    """Make the client of either profile: one user, one state folder, another endpoint each."""
    real = stub.replace("127.0.0.1", "localhost")
    monkeypatch.setattr("kagflow.ship.remote._site", lambda: real)
    chosen = Credential("key", "f" * 32, "a test", "ann")
    monkeypatch.setattr(credentials, "choose", lambda: chosen)

    def make(profile: str) -> Remote:
        url = stub.replace("http://", "http://ann:local@") if profile == "local" else None
        return Remote(profile, url=url, state=tmp_path / "state", sleep=lambda _: None)

    script.rpc("GetDataset", (404, {}, b"{}"))
    script.rpc("CreateDataset", (503, {}, b""))
    return make


@pytest.mark.parametrize("order", [("local", "kaggle"), ("kaggle", "local")])
def test_a_half_finished_upload_never_leaks_into_the_other_profile(
    order, two, script, stub, tmp_path
) -> None:
    links = iter(f"{stub}/up-{profile}" for profile in order)
    answer = lambda *_: {"token": f"t{len(script.seen)}", "createUrl": next(links)}  # noqa: E731
    script.rpc("StartBlobUpload", answer)
    for profile in order:
        script.on(f"/up-{profile}", (308, {"Range": "bytes=0-9"}, b""))
        with pytest.raises(NetworkError):
            two(profile).dataset_create_or_version(push(tmp_path))
        puts = {path for command, path, _, _ in script.seen if command == "PUT"}
        assert puts == {f"/up-{profile}"}
        script.seen.clear()


def test_an_upload_noted_by_the_other_profile_is_not_even_asked_for(
    two, script, stub, tmp_path
) -> None:
    script.rpc("StartBlobUpload", {"token": "t", "createUrl": f"{stub}/up"})
    script.on("/up", (200, {}, b"{}"))
    for profile in ("local", "kaggle"):
        with pytest.raises(NetworkError):
            two(profile).dataset_create_or_version(push(tmp_path))
    assert len(script.bodies("StartBlobUpload")) == 2
    assert len(list((tmp_path / "state" / "uploads").iterdir())) == 2


def test_the_temp_folder_of_the_machine_stays_empty(two, script, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    script.rpc("StartBlobUpload", (503, {}, b""))
    with pytest.raises(NetworkError):
        two("kaggle").dataset_create_or_version(push(tmp_path))
    assert list((tmp_path / "temp").iterdir()) == []


@pytest.mark.parametrize("command", ["quota", "fetch"])
def test_the_command_line_keeps_a_folder_for_each_profile(command, tmp_path, monkeypatch) -> None:
    states = {}

    def note(self, profile, *, url=None, state, **_):
        states[profile] = state
        raise RefusedError("seen")

    monkeypatch.setattr(Remote, "__init__", note)
    monkeypatch.setenv("KAGFLOW_LOCAL_URL", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    words = [command] + (["severstal"] if command == "fetch" else [])
    for profile in ("local", "kaggle"):
        with pytest.raises(SystemExit):
            main([*words, "--profile", profile])
    assert states["local"] != states["kaggle"]
    assert not states["local"].is_relative_to(states["kaggle"])
    assert not states["kaggle"].is_relative_to(states["local"])


# -- any other server of the protocol


@pytest.fixture(scope="module")
def other_server(tiny, tmp_path_factory):
    """A second server on a store of its own, started by hand; returns its url and its key."""
    store = tmp_path_factory.mktemp("other") / "elsewhere"
    folder = tiny.make_folder(tmp_path_factory.mktemp("tiny"), train=8)
    Store(store).add_competition(tiny.make_facts(host="kagflow-mini"), folder)
    words = [sys.executable, "-m", "kagflow.rehearse.server", str(store)]
    with Path(os.devnull).open("w") as nowhere:
        child = process.spawn(
            words, cwd=store, env=dict(os.environ), stdout=nowhere, stderr=nowhere
        )
    running = None
    for _ in range(400):
        running = server.status(store)
        if running is not None:
            break
        child.poll()
        time.sleep(0.05)
    assert running is not None
    yield running.url, json.loads((store / "server.json").read_text())["token"]
    child.terminate()
    child.wait(10)


def test_the_local_profile_talks_to_whatever_server_is_named(
    other_server, tmp_path, monkeypatch, capfd, tiny
) -> None:
    url, token = other_server
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".kagflow").mkdir()
    for named in (url, f"{url}/", f"{url}/api", url.replace("http://", f"http://bob:{token}@")):
        monkeypatch.setenv("KAGFLOW_LOCAL_URL", named)
        with pytest.raises(SystemExit) as stopped:
            main(["quota", "--profile", "local", "--json"])
        out, err = capfd.readouterr()
        assert stopped.value.code == 0, err
        assert json.loads(out)["quota"]["gpu"]["total"] == 108000.0
        remote = Remote("local", state=tmp_path / "client")
        assert remote.competition(tiny.SLUG).host == "kagflow-mini"
        assert remote.download(tiny.SLUG, tmp_path / "a.zip").size > 0
        (tmp_path / "a.zip").unlink()
    # Nothing was started here.
    assert not (tmp_path / ".kagflow" / "local" / "kaggle").exists()


def test_a_named_server_with_another_key_is_exit_3(other_server, tmp_path, monkeypatch) -> None:
    url, _ = other_server
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAGFLOW_LOCAL_URL", url.replace("http://", "http://bob:wrong-key@"))
    with pytest.raises(SystemExit) as stopped:
        main(["quota", "--profile", "local"])
    assert stopped.value.code == 3


@pytest.mark.parametrize("url", ["http://kaggle.example:80", "https://10.0.0.1", "http://[bad"])
def test_a_named_server_elsewhere_is_refused(url, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAGFLOW_LOCAL_URL", url)
    with pytest.raises(SystemExit) as stopped:
        main(["quota", "--profile", "local"])
    assert stopped.value.code == 8


def test_the_client_knows_nothing_of_the_embedded_kaggle() -> None:
    folder = Path(credentials.__file__).parent
    for file in folder.glob("*.py"):
        text = file.read_text()
        assert "kagflow/health" not in text, file
        assert "server.json" not in text, file
        assert "import rehearse" not in text, file
        assert "kagflow.rehearse" not in text, file
