"""fetch: a whole tree or none, the same tree again, and nothing outside of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import stat
import sys
import time
import zipfile
from pathlib import Path

import pytest

from kagflow import process
from kagflow.errors import DataError, LocalError, RefusedError, RemoteError
from kagflow.ship import archive, claim, fetch, listing
from kagflow.task.spec import TaskSpec
from kagflow.task.surveyed import Plan

SPEC = TaskSpec(slug="tiny-squares", kind="segmentation", classes=("1", "2"), height=64, width=64)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fetched(remote, target: Path, **wish) -> fetch.Fetched:
    return fetch.fetch(remote, SPEC, target, wish=fetch.Wish(**wish))


# -- against the embedded Kaggle


def test_fetch_then_again_is_the_same_tree(local, tmp_path) -> None:
    target = tmp_path / "data" / "tiny"
    first = fetched(local(), target)
    assert (first.already, first.generated, first.profile) == (False, True, "local")
    assert first.images == 8 + 3
    assert first.files == first.images + 2
    before = tree(target)
    assert {path.name for path in target.parent.iterdir()} <= {"tiny", ".tiny.lock"}

    again = fetched(local(), target)
    assert again.already
    assert tree(target) == before

    forced = fetched(local(), target, force=True)
    assert not forced.already
    assert tree(target) == before


def test_index_and_folds_are_written_once_and_survive_the_same_data(local, tmp_path) -> None:
    target = tmp_path / "tiny"
    fetched(local(), target)
    made = fetch.index_data(target, SPEC, Plan(2))
    assert (made.images, made.folds, made.already) == (8, 2, False)
    before = tree(target)
    assert fetch.index_data(target, SPEC, Plan(2, 1)).already
    fetched(local(), target, force=True)
    assert tree(target) == before
    with pytest.raises(RefusedError, match="2 folds"):
        fetch.index_data(target, SPEC, Plan(3))


def test_every_label_row_is_checked_against_its_image(local, tmp_path) -> None:
    target = tmp_path / "tiny"
    fetched(local(), target)
    good = (target / "train.csv").read_text()
    for row, words in [
        ("nowhere.png,1,1 1", "nowhere"),
        ("0000.png,9,1 1", "class"),
        ("0001.png,1,4096 2", "pixel 4097"),
    ]:
        (target / "train.csv").write_text(f"{good.splitlines()[0]}\n{row}\n")
        with pytest.raises(DataError, match=words):
            fetch.index_data(target, SPEC, Plan(2))
        assert not (target / "folds.csv").exists()


def test_a_changed_file_is_seen_without_hashing_what_is_untouched(local, tmp_path) -> None:
    target = tmp_path / "tiny"
    fetched(local(), target)
    image = next((target / "train_images").iterdir())
    image.touch()
    assert fetched(local(), target).already
    content = image.read_bytes()
    image.write_bytes(content[:-1] + b"\0")
    with pytest.raises(DataError, match="1 files are missing or changed"):
        fetched(local(), target)
    fetched(local(), target, force=True)
    assert image.read_bytes() == content


def test_data_of_another_profile_is_refused(local, tmp_path) -> None:
    target = tmp_path / "tiny"
    fetched(local(), target)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**manifest, "profile": "kaggle"}))
    with pytest.raises(RefusedError, match="fetched under profile 'kaggle'"):
        fetched(local(), target)


def test_a_half_made_folder_is_no_data(local, tmp_path) -> None:
    (tmp_path / "tiny").mkdir()
    with pytest.raises(DataError, match="not a whole download"):
        fetched(local(), tmp_path / "tiny")


def test_an_unknown_competition_is_exit_4(local, tmp_path) -> None:
    spec = TaskSpec(slug="no-such", kind="segmentation", classes=("1",))
    with pytest.raises(RemoteError, match="no competition 'no-such'"):
        fetch.fetch(local(), spec, tmp_path / "x")
    assert not (tmp_path / "x").exists()


# -- what a kill leaves


def test_what_a_kill_left_is_mended(local, tmp_path) -> None:
    target = tmp_path / "tiny"
    fetched(local(), target)
    before = tree(target)
    target.rename(tmp_path / ".tiny.old")
    stale = tmp_path / "..tiny.new.abc.staging"
    (stale / "train_images").mkdir(parents=True)
    assert fetched(local(), target).already
    assert tree(target) == before
    assert not stale.exists()


# -- against damage


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(name, content)
    return body.getvalue()


GOOD = zipped(("train.csv", b"ImageId,ClassId,EncodedPixels\n"), ("train_images/a.png", b"x" * 99))


def offer(script, stub, *bodies: bytes) -> None:
    script.rpc("GetCompetition", {"userHasEntered": True, "hostName": "someone"})
    script.rpc("DownloadDataFiles", (302, {"Location": f"{stub}/a.zip"}, b""))
    script.on("/a.zip", *[(200, {"ETag": '"1"'}, body) for body in bodies])


def flipped(body: bytes) -> bytes:
    at = body.index(b"x" * 3) if b"xxx" in body else 45
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def test_a_damaged_archive_is_fetched_once_more(script, stub, remote, tmp_path) -> None:
    offer(script, stub, b"<html>sign in</html>", GOOD)
    got = fetched(remote, tmp_path / "tiny")
    assert (got.files, got.generated) == (2, False)
    assert not list(tmp_path.glob(".tiny.bad"))


def test_twice_damaged_names_the_member_and_keeps_the_archive(
    script, stub, remote, tmp_path
) -> None:
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as made:
        made.writestr("train_images/a.png", b"x" * 99)
    offer(script, stub, flipped(stored.getvalue()))
    with pytest.raises(DataError, match=r"damaged twice.*train_images/a\.png"):
        fetched(remote, tmp_path / "tiny")
    assert (tmp_path / ".tiny.bad").exists()
    assert not (tmp_path / "tiny").exists()


def test_a_full_disk_is_told_before_the_bytes_come(
    script, stub, remote, tmp_path, monkeypatch
) -> None:
    offer(script, stub, GOOD)
    usage = type("Usage", (), {"free": len(GOOD)})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(LocalError, match="GB needed"):
        fetched(remote, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_one_fetch_at_a_time(script, stub, remote, tmp_path, monkeypatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(claim, "WAIT", 0.05)
    with (
        FileLock(tmp_path / ".tiny.lock"),
        pytest.raises(RefusedError, match="another kagflow is fetching"),
    ):
        fetched(remote, tmp_path / "tiny")


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("../evil", b"x")], "leave the folder"),
        ([("a/../../evil", b"x")], "leave the folder"),
        ([("/etc/evil", b"x")], "leave the folder"),
        ([("C:evil", b"x")], "leave the folder"),
        ([(linked("link"), b"/etc/passwd")], "not a regular file"),
        ([("a", b"x"), ("A", b"y")], "listed twice"),
        ([("manifest.json", b"{}")], "kagflow writes itself"),
        ([("a", b"x"), ("a/b", b"y")], "damaged"),
    ],
)
def test_hostile_archives_never_land(script, stub, remote, tmp_path, members, words) -> None:
    offer(script, stub, zipped(*members))
    with pytest.raises(DataError, match=words):
        fetched(remote, tmp_path / "data" / "tiny")
    assert not (tmp_path / "data" / "tiny").exists()
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {".tiny.bad", ".tiny.lock"}


def test_a_bomb_is_refused_by_its_listing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(listing, "SMALL", 1000)
    (tmp_path / "bomb.zip").write_bytes(zipped(("zeros", b"\0" * 1_000_000)))
    with pytest.raises(DataError, match="would unpack to 1000000 bytes"):
        listing.members(tmp_path / "bomb.zip")


def test_a_header_that_disagrees_with_the_listing_is_refused(tmp_path) -> None:
    body = zipped(("aaaa", b"x" * 50))
    (tmp_path / "a.zip").write_bytes(body.replace(b"aaaa", b"bbbb", 1))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="aaaa"):
        archive.unpack(tmp_path / "a.zip", tmp_path / "out", listing.members(tmp_path / "a.zip"))


# -- by name of the fault


def test_f1_a_kill_between_download_and_unpacking_downloads_nothing_again(
    script, stub, remote, tmp_path, monkeypatch
) -> None:
    script.rpc("GetCompetition", {"userHasEntered": True, "hostName": "someone"})
    script.rpc("DownloadDataFiles", (302, {"Location": f"{stub}/a.zip"}, b""))
    script.on("/a.zip", (200, {"ETag": '"1"'}, GOOD), (200, {"ETag": '"1"', "X-Cut": "0"}, GOOD))

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(archive, "unpack", stopped)
        fetched(remote, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()
    # The second answer has headers only: its body would not do.
    assert fetched(remote, tmp_path / "tiny").files == 2


def test_f2_an_empty_file_and_a_page_are_no_archives(script, stub, remote, tmp_path) -> None:
    offer(script, stub, b"", b"<html>sign in</html>")
    with pytest.raises(DataError, match="not a whole zip") as caught:
        fetched(remote, tmp_path / "tiny")
    assert str(tmp_path / ".tiny.bad") in caught.value.hint
    assert not (tmp_path / "tiny").exists()


FULL = """
import sys
from pathlib import Path
from kagflow.errors import LocalError
from kagflow.ship import fetch
from kagflow.ship.manifest import check_tree, read_manifest
from kagflow.ship.remote import Remote
from kagflow.task.spec import TaskSpec
base, spec = Path(sys.argv[2]), TaskSpec(slug=sys.argv[3], kind="segmentation", classes=("1", "2"))
remote = Remote("local", url=sys.argv[1], state=base / "state")
fetch.fetch(remote, spec, base / "tiny")
fetch._need = lambda *_: None
junk = base / "junk"
for left in (40_000, 12_000, 4_096, 0):
    with junk.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    with junk.open("rb+") as file:
        file.truncate(max(0, junk.stat().st_size - left))
    try:
        fetch.fetch(remote, spec, base / "tiny", wish=fetch.Wish(force=True))
    except LocalError as error:
        print(error.message)
    check_tree(base / "tiny", read_manifest(base / "tiny"), verify=True)
    junk.unlink()
fetch.fetch(remote, spec, base / "tiny", wish=fetch.Wish(force=True))
print("whole", sorted(path.name for path in base.iterdir()))
"""


def test_f3_a_disk_that_fills_up_harms_nothing(embedded, tmp_path) -> None:
    url = embedded.replace("http://", "http://full:local@")
    script = 'mount -t tmpfs -o size=200k tmpfs "$1" && shift && exec "$@"'
    words = ["unshare", "-rm", "sh", "-c", script, "sh", tmp_path]
    probe = process.run([*words, "true"], check=False)
    if probe.returncode:
        pytest.skip(f"no small disk can be mounted here: {probe.stderr}")
    done = process.run([*words, sys.executable, "-c", FULL, url, tmp_path, SPEC.slug], timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) >= 3
    assert all("the disk is full" in line for line in lines[:-1]), lines
    assert lines[-1] == "whole ['.tiny.lock', 'tiny']"


HOLD = """
import sys, time
from pathlib import Path
from kagflow.ship.claim import claim
with claim(Path(sys.argv[1]), "is fetching"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("locks", [True, False])
def test_f21_a_second_fetch_names_the_first_and_gives_up(
    local, tmp_path, monkeypatch, locks
) -> None:
    monkeypatch.setattr(claim, "WAIT", 0.2)
    holder = process.spawn([sys.executable, "-c", HOLD, tmp_path / "tiny"], stdout=process.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with monkeypatch.context() as patch:
            if not locks:  # as on some network file systems
                patch.setattr("filelock.FileLock", lambda *_, **__: contextlib.nullcontext())
            with pytest.raises(RefusedError) as caught:
                fetched(local(), tmp_path / "tiny")
        who = rf"pid {holder.pid} on {re.escape(socket.gethostname())}, for \d+ s"
        assert re.search(who, caught.value.message)
        assert caught.value.exit_code == 8
    finally:
        holder.kill()
        holder.wait()
    # Its note is still there, but nobody behind it.
    assert (tmp_path / ".tiny.owner.json").exists()
    assert not fetched(local(), tmp_path / "tiny").already
    assert not (tmp_path / ".tiny.owner.json").exists()


TWICE = """
import sys
from pathlib import Path
from kagflow.ship.fetch import Wish, fetch, index_data
from kagflow.ship.remote import Remote
from kagflow.task.spec import TaskSpec
from kagflow.task.surveyed import Plan
spec = TaskSpec(slug=sys.argv[3], kind="segmentation", classes=("1", "2"))
remote = Remote("local", url=sys.argv[1], state=Path(sys.argv[2], "state"))
for turn in range(10):
    fetch(remote, spec, Path(sys.argv[2], "tiny"), wish=Wish(force=turn % 3 == 0))
    index_data(Path(sys.argv[2], "tiny"), spec, Plan(2))
"""


def test_f21_two_that_fetch_at_once_leave_one_whole_tree(local, embedded, tmp_path) -> None:
    fetched(local(), tmp_path / "golden")
    fetch.index_data(tmp_path / "golden", SPEC, Plan(2))
    url = embedded.replace("http://", "http://twice:local@")
    words = [sys.executable, "-c", TWICE, url, tmp_path, SPEC.slug]
    running = [process.spawn(words, stderr=process.PIPE) for _ in range(2)]
    said = [one.communicate(timeout=60)[1] for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    assert tree(tmp_path / "tiny") == tree(tmp_path / "golden")


def test_f21_a_number_that_was_given_out_again_is_no_owner(local, tmp_path) -> None:
    note = {"host": socket.gethostname(), "pid": os.getppid(), "started": 1, "since": 0}
    (tmp_path / ".tiny.owner.json").write_text(json.dumps(note))
    assert not fetched(local(), tmp_path / "tiny").already


def test_f18_a_clock_that_jumps_back_gives_no_negative_age(tmp_path) -> None:
    note = tmp_path / ".tiny.owner.json"
    note.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": time.time() + 9000}))
    assert "for 0 s" in claim._taken(tmp_path / "tiny", "is fetching", note).message


def test_f29_f31_links_in_a_fetched_tree_are_changes(local, tmp_path) -> None:
    target = tmp_path / "tiny"
    fetched(local(), target)
    image = next((target / "train_images").iterdir())
    image.rename(tmp_path / "elsewhere.png")
    image.symlink_to(tmp_path / "elsewhere.png")
    for verify in (False, True):
        with pytest.raises(DataError, match="missing or changed"):
            fetched(local(), target, verify=verify)


def test_f31_a_part_that_is_a_link_is_not_written_through(script, stub, remote, tmp_path) -> None:
    offer(script, stub, GOOD)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".tiny.zip.part").symlink_to(precious)
    (tmp_path / ".tiny.zip").symlink_to(precious)
    fetched(remote, tmp_path / "tiny")
    assert precious.read_text() == "mine"


def test_verify_finds_what_size_and_time_hide(local, tmp_path) -> None:
    target = tmp_path / "tiny"
    fetched(local(), target)
    image = next((target / "train_images").iterdir())
    content = image.read_bytes()
    image.write_bytes(content[:-1] + b"\0")
    os.utime(image, (archive.UNTOUCHED, archive.UNTOUCHED))
    assert fetched(local(), target).already
    with pytest.raises(DataError, match="1 files are missing or changed"):
        fetched(local(), target, verify=True)


def test_only_some_files_are_no_whole_fetch(local, tmp_path) -> None:
    target = tmp_path / "tiny"
    some = fetched(local(), target, only="*.csv")
    assert (some.files, some.images, some.only) == (2, 0, "*.csv")
    assert {path.name for path in target.iterdir()} == {
        "manifest.json", "sample_submission.csv", "train.csv",
    }  # fmt: skip
    assert fetched(local(), target, only="*.csv").already
    with pytest.raises(DataError, match=r"holds only what matches"):
        fetch.index_data(target, SPEC, Plan(2))
    assert fetched(local(), target).images == 11
    assert fetched(local(), target, only="*.csv").already
    with pytest.raises(DataError, match=r"no file of the archive matches"):
        fetched(local(), tmp_path / "none", only="*.tif")
