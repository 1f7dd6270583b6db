"""The installed kagglesdk has every call, field and name that the client relies on."""

from __future__ import annotations

import enum
import inspect
import re
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kagflow import process
from kagflow.errors import KagflowError
from kagflow.ship import remote_datasets, remote_rpc
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_kernels import save_fields
from kagflow.ship.remote_types import KernelPush, KernelStatus

# The releases beside the installed ones that the client must work with.
OTHER = ("kaggle==2.2.5", "kagglesdk==0.1.38")

COMPETITION = {"competitionName": "steel"}
KERNEL = {"userName": "ann", "kernelSlug": "k-steel", "versionLabel": "v3"}
DATASET = {"ownerSlug": "ann", "datasetSlug": "d-steel"}
PAGES = {"pageSize": 200, "pageToken": "7"}
PUSH = KernelPush(
    ref="local/kernel-one",
    title="kernel one",
    text="print(1)\n",
    datasets=("local/pack/3",),
    competition="steel",
    machine_shape="NvidiaTeslaT4",
    timeout_s=3600,
)
# Every RPC that ship sends, with every field that it fills.
CONTRACT = [
    ("competitions", "get_competition", COMPETITION),
    (
        "competitions",
        "list_competitions",
        {"group": "COMPETITION_LIST_TAB_ENTERED"} | PAGES,
    ),
    ("competitions", "list_data_files", COMPETITION | PAGES),
    ("competitions", "download_data_files", COMPETITION),
    ("competitions", "download_data_file", COMPETITION | {"fileName": "train.csv"}),
    ("competitions", "list_submissions", COMPETITION | PAGES),
    ("competitions", "get_submission", {"ref": 7}),
    ("competitions", "get_submission_limits", COMPETITION),
    ("competitions", "get_leaderboard", COMPETITION | PAGES),
    (
        "competitions",
        "create_code_submission",
        COMPETITION
        | {"kernelOwner": "ann", "kernelSlug": "k", "kernelVersion": 3}
        | {"fileName": "submission.csv", "submissionDescription": "m"},
    ),
    (
        "blobs",
        "start_blob_upload",
        {"type": "DATASET", "name": "a", "contentLength": 3, "lastModifiedEpochSeconds": 9},
    ),
    ("datasets", "get_dataset", DATASET),
    ("datasets", "get_dataset_status", DATASET),
    ("datasets", "list_dataset_files", DATASET | PAGES | {"datasetVersionNumber": 2}),
    (
        "datasets",
        "create_dataset",
        {"ownerSlug": "ann", "slug": "d-steel", "title": "d steel", "licenseName": "CC0-1.0"}
        | {"isPrivate": True, "description": "mark", "files": [{"token": "t"}]},
    ),
    (
        "datasets",
        "create_dataset_version",
        DATASET | {"body": {"versionNotes": "mark", "files": [{"token": "t"}]}},
    ),
    ("kernels", "save_kernel", {k: v for k, v in save_fields(PUSH).items() if v != []}),
    ("kernels", "get_kernel", {"userName": "ann", "kernelSlug": "k-steel"}),
    ("kernels", "get_kernel_session_status", KERNEL),
    ("kernels", "list_kernel_session_output", KERNEL | PAGES),
    ("kernels", "get_accelerator_quota_statistics", {}),
    ("security", "introspect_token", {"token": "t"}),
]


@pytest.mark.parametrize(("service", "method", "fields"), CONTRACT)
def test_the_installed_sdk_has_every_call_and_field(service, method, fields) -> None:
    call = getattr(remote_rpc._client_class(service), method)
    request = inspect.signature(call).parameters["request"].annotation
    assert request.from_dict(fields).to_dict() == fields


def test_the_contract_lists_every_call_of_the_source() -> None:
    folder = Path(remote_rpc.__file__).parent
    text = "".join(path.read_text() for path in sorted(folder.glob("remote*.py")))
    names = r"\(\s*\"(competitions|blobs|datasets|kernels|security)\",\s*\"(\w+)\""
    assert set(re.findall(names, text)) == {(service, method) for service, method, _ in CONTRACT}


# -- what is read from the answers


class Answer(dict):
    """An answer of a response type, filled; a key that the type lacks is noted when it is read."""

    strange: list[str]

    def __init__(self, kind: type, strange: list[str]) -> None:
        self.kind, self.strange = kind, strange
        super().__init__({field.json_name: sample(field, strange) for field in kind._fields})

    def get(self, key, default=None):
        if key not in self:
            self.strange.append(f"{self.kind.__name__}.{key}")
        return super().get(key, default)

    def __getitem__(self, key):
        return self.get(key)


def sample(field, strange: list[str]) -> object:
    """A value such as the field's type has on the wire."""
    name, kind = field.json_name, field.field_type
    if name in {"error", "errorMessage", "nextPageToken"} or name.startswith("invalid"):
        return ""
    if hasattr(kind, "_fields"):
        value: object = Answer(kind, strange)
    elif issubclass(kind, enum.Enum):
        value = list(kind)[-1].name
    else:
        samples = {int: 7, bool: True, float: 0.5, timedelta: "60s"}
        samples[datetime] = "2026-01-02T03:04:05.000Z"
        value = samples.get(kind, "1")
    return [value] if type(field.serializer).__name__ == "ListSerializer" else value


@pytest.fixture
def answering(monkeypatch, tmp_path) -> tuple[Remote, list[str], set[tuple[str, str]]]:
    """A Remote whose answers are of the SDK's types; the keys that are not; the calls made."""
    strange: list[str] = []
    made: set[tuple[str, str]] = set()
    remote = Remote("local", url="http://127.0.0.1:9", state=tmp_path, sleep=lambda _: None)

    def call(service: str, method: str, request: object, response: type) -> object:
        made.add((service.split(".")[0], method))
        if not hasattr(response, "_fields"):
            return "http://127.0.0.1:9/a.zip"
        return Answer(response, strange)

    monkeypatch.setattr(remote.transport, "call", call)
    return remote, strange, made


CALLS: dict[str, Callable[[Remote, Path], object]] = {
    "competition": lambda remote, _: remote.competition("steel"),
    "files": lambda remote, _: remote.files("steel"),
    "submit": lambda remote, _: remote.submit("s", "a/k", version=1, file="f", message="m"),
    "submission": lambda remote, _: remote.submission(7),
    "submissions": lambda remote, _: remote.submissions("steel"),
    "limits": lambda remote, _: remote.limits("steel"),
    "leaderboard": lambda remote, _: remote.leaderboard("steel"),
    "nearest": lambda remote, _: remote._nearest("steel"),
    "dataset": lambda remote, _: remote.dataset("a/d"),
    "dataset_files": lambda remote, _: remote.dataset_files("a/d", 1),
    "dataset_status": lambda remote, _: remote.dataset_status("a/d"),
    "dataset_create": lambda remote, path: remote._make(push(path), [], 0),
    "dataset_version": lambda remote, path: remote._make(push(path), [], 1),
    "push_kernel": lambda remote, _: remote.push_kernel(PUSH),
    "kernel_version": lambda remote, _: remote.kernel_version("a/k"),
    "kernel_status": lambda remote, _: remote.kernel_status("a/k", 1),
    "kernel_log": lambda remote, _: remote.kernel_log("a/k", 1),
    "quota": lambda remote, _: remote.quota(),
    "upload": lambda remote, path: remote_datasets.Upload(remote, file_in(path))._begin(1),
}


def push(path: Path) -> DatasetPush:
    return DatasetPush("a/d", "title", path, "mark")


def file_in(path: Path) -> Path:
    (path / "a.bin").write_bytes(b"x")
    return path / "a.bin"


@pytest.mark.parametrize("name", CALLS)
def test_every_key_that_is_read_is_a_field_of_the_answer(name, answering, tmp_path) -> None:
    remote, strange, made = answering
    CALLS[name](remote, tmp_path)
    assert made
    assert strange == []


def test_the_account_is_read_from_fields_that_exist(answering) -> None:
    remote, strange, _ = answering
    remote._account = None
    assert remote.account() == "1"
    assert strange == []


@pytest.mark.parametrize("name", [name for name in CALLS if name != "upload"])
@pytest.mark.parametrize("nonsense", [{}, None, 7, -1, "x", [], [7], ["x"], [{}], {"x": 1}, 1e999])
def test_nonsense_in_any_field_is_never_a_raw_exception(
    name, nonsense, answering, tmp_path, monkeypatch
) -> None:
    remote = answering[0]

    class Nonsense(dict):
        def __missing__(self, key):
            return nonsense

        def get(self, key, default=None):
            return nonsense

    monkeypatch.setattr(remote.transport, "call", lambda *_: Nonsense())
    try:
        CALLS[name](remote, tmp_path)
    except KagflowError:
        return


def names(kind: str) -> set[str]:
    """The names of an enum of the SDK's answers."""
    service, method, field = kind.split(".")
    recorded: list[type] = []

    class Recorder:
        def call(self, *words: type) -> None:
            recorded.append(words[-1])

    getattr(remote_rpc._client_class(service)(Recorder()), method)()
    (found,) = [one for one in recorded[0]._fields if one.json_name == field]
    return {member.name for member in found.field_type}


def test_the_states_that_decide_are_names_of_the_sdk() -> None:
    kernel = names("kernels.get_kernel_session_status.status")
    settled = {name for name in kernel if KernelStatus(name, "").failed} | {"COMPLETE"}
    assert settled == {"COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED", "NEW_SCRIPT"}
    assert kernel - settled == {"QUEUED", "RUNNING", "CANCEL_REQUESTED"}
    assert names("competitions.get_submission.status") == {"PENDING", "COMPLETE", "ERROR"}
    dataset = names("datasets.get_dataset_status.status")
    assert dataset == {"READY"} | remote_datasets.DEAD | remote_datasets.BUSY


def test_every_list_of_invalid_sources_is_a_failure() -> None:
    call = remote_rpc._client_class("kernels").save_kernel
    kind = inspect.signature(call).return_annotation
    lists = {field.json_name for field in kind._fields if field.json_name.startswith("invalid")}
    assert {"invalidDatasetSources", "invalidCompetitionSources"} <= lists
    assert {"invalidKernelSources", "invalidModelSources"} <= lists


# -- the other release


@pytest.fixture(scope="session")
def other_release() -> Path:
    """A folder with the other releases alone, made once beside this environment's packages."""
    folder = Path(sys.prefix) / "other-kaggle"
    if not (folder / "kaggle").is_dir():
        words = ["install", "--quiet", "--no-deps", "--target", str(folder), *OTHER]
        done = process.run([sys.executable, "-m", "pip", *words], check=False, timeout=120)
        if done.returncode:
            pytest.skip(f"{' '.join(OTHER)} cannot be had: {done.stderr.strip()[-300:]}")
    return folder


@pytest.mark.slow
def test_the_other_release_keeps_the_contract_and_drives_the_same_road(other_release) -> None:
    tests = Path(__file__).parents[1]
    ship = ("test_contract.py", "test_remote.py", "test_remote_faults.py")
    rehearse = ("test_wire.py", "test_wire_storage.py", "test_kaggle_cli.py")
    files = [str(tests / "ship" / name) for name in ship]
    files += [str(tests / "rehearse" / name) for name in rehearse]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(other_release)}
    where = (
        "from importlib.util import find_spec\n"
        "print(find_spec('kaggle').origin, find_spec('kagglesdk').origin)"
    )
    at = process.run([sys.executable, "-c", where], env=env).stdout.split()
    assert all(path.startswith(str(other_release)) for path in at)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = process.run(words, env=env, cwd=tests.parent, check=False, timeout=280)
    assert done.returncode == 0, done.stdout[-4000:]


def test_every_test_that_the_table_of_traps_names_is_there() -> None:
    root = Path(__file__).parents[2]
    table = (root / "docs" / "explanation" / "kaggle-traps.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", table))
    text = "".join(file.read_text() for file in sorted((root / "tests").rglob("test_*.py")))
    assert len(named) > 60
    assert named - set(re.findall(r"def (test_\w+)", text)) == set()
