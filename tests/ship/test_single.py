"""fetch --only: the files alone where that is less, and never a file that is not as listed."""

from __future__ import annotations

import fnmatch
import io
import zipfile

import pytest

from kagflow.errors import NetworkError
from kagflow.ship import fetch, single
from kagflow.ship.manifest import check_tree, read_manifest
from kagflow.ship.remote_types import RemoteFile
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec(slug="steel", kind="segmentation", classes=("1", "2"))
TABLE, SAMPLE = b"ImageId,ClassId\n" * 9, b"ImageId\n"


def zipped(**members: bytes) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name.replace("_csv", ".csv"), content)
    return body.getvalue()


@pytest.fixture
def offer(script, stub):
    """Serve a competition whose files come alone as given, and whose archive is whole."""

    def serve(files: dict[str, bytes], *, sizes: dict[str, int | None] | None = None) -> None:
        listed = {"train.csv": len(TABLE), "sample.csv": len(SAMPLE), **(sizes or {})}
        script.rpc("GetCompetition", {"userHasEntered": True, "hostName": "someone"})
        items = [
            {"name": name} | ({} if size is None else {"totalBytes": size})
            for name, size in listed.items()
        ]
        script.rpc("ListDataFiles", {"files": items})
        links = [(302, {"Location": f"{stub}/files/{name}"}, b"") for name in files]
        script.rpc("DownloadDataFile", *links)
        for name, body in files.items():
            script.on(f"/files/{name}", (200, {"ETag": '"1"'}, body))
        script.rpc("DownloadDataFiles", (302, {"Location": f"{stub}/a.zip"}, b""))
        whole = zipped(train_csv=TABLE, sample_csv=SAMPLE)
        script.on("/a.zip", (200, {"ETag": '"1"'}, whole))

    return serve


@pytest.fixture
def some(remote, tmp_path):
    """Fetch what matches into the folder `data/steel` and return {name: bytes}."""

    def run(only: str) -> dict[str, bytes]:
        target = tmp_path / "data" / "steel"
        fetch.fetch(remote, SPEC, target, wish=fetch.Wish(only=only))
        manifest = read_manifest(target)
        check_tree(target, manifest, verify=True)
        beside = {path.name for path in target.parent.iterdir()}
        assert beside == {"steel", ".steel.lock"}
        return {name: (target / name).read_bytes() for name in manifest["files"]}

    return run


def asked(script) -> list[str]:
    return [path.rsplit("/", 1)[-1] for _, path, *_ in script.seen if "/DownloadData" in path]


def test_only_what_is_wanted_is_downloaded(offer, some, script) -> None:
    offer({"train.csv": TABLE})
    assert some("train*") == {"train.csv": TABLE}
    assert asked(script) == ["DownloadDataFile"]
    assert script.bodies("DownloadDataFile") == [
        {"competitionName": "steel", "fileName": "train.csv"}
    ]


def test_a_file_that_was_packed_for_the_way_is_unpacked(offer, some, script) -> None:
    offer({"train.csv.zip": zipped(train_csv=TABLE)})
    assert some("train*") == {"train.csv": TABLE}
    assert asked(script) == ["DownloadDataFile"]


@pytest.mark.parametrize(
    "files",
    [
        {"train.csv": TABLE[:-1]},
        {"train.csv": b"<html>sign in</html>"},
        {"train.csv.zip": zipped(other_csv=TABLE)},
        {"train.csv.zip": zipped(train_csv=TABLE, other_csv=SAMPLE)},
        {"train.csv.zip": zipped(train_csv=TABLE)[:-4]},
    ],
)
def test_what_does_not_agree_with_the_listing_comes_from_the_archive(
    offer, some, script, files
) -> None:
    offer(files)
    assert some("train*") == {"train.csv": TABLE}
    assert asked(script)[-1] == "DownloadDataFiles"


def test_a_refused_file_comes_from_the_archive(offer, some, script) -> None:
    offer({})
    script.rpc("DownloadDataFile", (404, {}, b'{"code": 404, "message": "no such file"}'))
    assert some("train*") == {"train.csv": TABLE}


def test_what_came_before_a_break_does_not_come_again(offer, some, script, stub) -> None:
    offer({"train.csv": TABLE, "sample.csv": SAMPLE})
    script.on("/files/sample.csv", (500, {}, b""))
    with pytest.raises(NetworkError):
        some("*.csv")
    links = [
        (302, {"Location": f"{stub}/files/{name}"}, b"") for name in ("train.csv", "sample.csv")
    ]
    script.rpc("DownloadDataFile", *links)
    # Headers only, of the same version: a body would not do.
    script.on("/files/train.csv", (200, {"ETag": '"1"', "X-Cut": "0"}, TABLE))
    script.on("/files/sample.csv", (200, {"ETag": '"1"'}, SAMPLE))
    assert some("*.csv") == {"train.csv": TABLE, "sample.csv": SAMPLE}
    assert "DownloadDataFiles" not in asked(script)


class Listing:
    """Stand where a Remote stands, with a listing only."""

    def __init__(self, **sizes: int | None) -> None:
        self.sizes = sizes

    def files(self, _):
        return tuple(RemoteFile(name, size) for name, size in self.sizes.items())


def chosen(only: str, **sizes: int | None) -> list[str]:
    return [file.name for file in single.wanted(Listing(**sizes), "steel", only)]


def test_many_small_files_come_in_the_archive_and_few_of_many_alone() -> None:
    images = {f"a/{number}.png": 1 << 20 for number in range(100)}
    assert chosen("a/*", **images) == []
    assert len(chosen("a/1?.png", **images)) == 10
    heavy = {f"b/{number}.png": 100 << 20 for number in range(100)}
    assert len(chosen("b/[0-4]*.png", **heavy)) == 45
    assert chosen("[ab]/*", **images, **heavy) == []


@pytest.mark.parametrize("name", ["../evil", "/evil", "a//b", "x" * 300, "C:evil"])
def test_names_that_leave_the_folder_are_left_to_the_archive(name) -> None:
    assert fnmatch.fnmatchcase(name, "*")
    assert chosen("*", **{name: 5}) == []
    assert chosen("[aA]", a=5, A=5) == []
    assert chosen("a", a=5, A=5) == ["a"]


def test_a_listing_without_sizes_is_not_trusted() -> None:
    assert chosen("*.csv", **{"train.csv": None, "sample.csv": 3}) == []
    assert chosen("s*.csv", **{"train.csv": None, "sample.csv": 3}) == ["sample.csv"]
    assert chosen("*.tif", **{"train.csv": 3}) == []
