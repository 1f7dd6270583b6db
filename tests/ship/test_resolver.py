"""uv against a served index: what travels, what is refused and why, and what is fetched."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kagflow.errors import DataError, LocalError, NetworkError, RefusedError
from kagflow.fingerprint import Fingerprint, Headers, load_snapshot
from kagflow.ship import wheelfile
from kagflow.ship.ghost import ghost, unmet
from kagflow.ship.index import fetch_wheel, read_html
from kagflow.ship.resolver import unbuilt
from kagflow.ship.shelf import Shelf
from kagflow.ship.sources import Sources, host_sources
from kagflow.ship.uv_run import read_changes
from kagflow.ship.wheels import missing_wheels, own_shelf
from kagflow.tags import target_tags

CP312 = "cp312-cp312-manylinux_2_17_x86_64"
BACKEND = """
import zipfile
def build_wheel(folder, *_, **__):
    name = "{name}-{version}-{tag}.whl"
    files = dict(
        METADATA="Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n",
        WHEEL="Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {tag}\\n",
        RECORD="",
    )
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("{name}.py", "")
        for file, text in files.items():
            wheel.writestr("{name}-{version}.dist-info/" + file, text)
    return name
"""


class Index:
    """An index of a few distributions, spoken in JSON or HTML, that counts what is fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.html, self.wrong = folder, False, set[str]()
        self.fetched: list[str] = []
        self.nonsense = False
        folder.mkdir()

    def wheel(self, name: str, version: str, *requires: str, tag: str = "py3-none-any") -> None:
        info = f"{name}-{version}.dist-info"
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        files = {
            f"{name}.py": f"VALUE = '{version}'\n".encode(),
            f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        }
        wheelfile.write_wheel(self.folder, name=name, version=version, tag=tag, files=files)

    def source(self, name: str, version: str, tag: str = "py3-none-any") -> None:
        project = '[build-system]\nrequires = []\nbuild-backend = "made"\nbackend-path = ["."]\n'
        files = {
            "pyproject.toml": project,
            "made.py": BACKEND.format(name=name, version=version, tag=tag),
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        }
        with tarfile.open(self.folder / f"{name}-{version}.tar.gz", "w:gz") as archive:
            for path, text in files.items():
                member = tarfile.TarInfo(f"{name}-{version}/{path}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))

    def answer(self, path: str) -> tuple[str, bytes] | None:
        if self.nonsense:
            return "application/json", b"[1, 2]"
        parts = path.strip("/").split("/")
        if parts[0] == "files":
            self.fetched.append(parts[1])
            return "application/octet-stream", (self.folder / parts[1]).read_bytes()
        found = {
            one.name: self.digest(one)
            for one in sorted(self.folder.iterdir())
            if one.name.startswith(f"{parts[1]}-")
        }
        if not found:
            return None
        if self.html:
            links = [f'<a href="/files/{n}#sha256={d}">{n}</a>' for n, d in found.items()]
            return "text/html", "\n".join(links).encode()
        files = [
            {"filename": n, "url": f"/files/{n}", "hashes": {"sha256": d}} for n, d in found.items()
        ]
        page = {"meta": {"api-version": "1.0"}, "name": parts[1], "files": files}
        return "application/vnd.pypi.simple.v1+json", json.dumps(page).encode()

    def digest(self, file: Path) -> str:
        right = hashlib.sha256(file.read_bytes()).hexdigest()
        return "0" * 64 if file.name in self.wrong else right


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    served = Index(tmp_path / "index")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            answer = served.answer(self.path)
            kind, body = answer or ("text/plain", b"")
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("KAGFLOW_OFFLINE")
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "no-settings"))
    monkeypatch.setenv("KAGFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def shelf(index: Index, tmp_path: Path) -> Shelf:
    (tmp_path / "work").mkdir()
    return own_shelf(tmp_path / "work")


def image(headers: dict[str, Headers] | None = None, **distributions: str) -> Fingerprint:
    named = {name.replace("_", "-"): version for name, version in distributions.items()}
    return Fingerprint(
        "tiny-image", "3.12", "2.35", "12.8", headers is None, named, headers=headers or {}
    )


HELD = {"torch": "2.10.0+cu128", "numpy": "2.0.2", "pandas": "2.3.3", "einops": "0.8.2"}


@pytest.mark.parametrize("html", [False, True])
def test_exactly_what_the_image_lacks_is_fetched_and_checked(
    index: Index, shelf: Shelf, html: bool
) -> None:
    index.html = html
    index.wheel("outer", "1.2", "numpy>=2", "torch==2.10.0", "inner[fast]>=1", "no; extra=='x'")
    index.wheel("inner", "1.5", "quick>=3; extra == 'fast'", "slow; extra == 'slow'")
    index.wheel("quick", "3.1", "tomli; python_version < '3.12'", tag=CP312)
    index.wheel("quick", "3.2", tag="cp311-cp311-manylinux_2_17_x86_64")
    closure = missing_wheels({"me": ["outer"]}, image(**HELD), shelf)
    assert [(w.name, w.version, w.origin) for w in closure.wheels] == [
        ("inner", "1.5", "downloaded"),
        ("outer", "1.2", "downloaded"),
        ("quick", "3.1", "downloaded"),
    ]
    assert closure.relied_on == {"numpy": "2.0.2", "torch": "2.10.0+cu128"}
    assert closure.reasons["inner"] == ("outer asks for inner[fast]>=1",)
    assert not closure.offline
    again = missing_wheels({"me": ["outer"]}, image(**HELD), shelf)
    assert {w.origin for w in again.wheels} == {"cache"}
    assert sorted(set(index.fetched)) == sorted(w.file.name for w in again.wheels)


def test_a_release_that_fits_the_image_is_found_behind_newer_ones(
    index: Index, shelf: Shelf
) -> None:
    index.wheel("outer", "1", "numpy<2.1")
    index.wheel("outer", "2", "numpy>=2.3")
    closure = missing_wheels({"me": ["outer"]}, image(**HELD), shelf)
    assert [w.version for w in closure.wheels] == ["1"]


def test_a_wrong_hash_is_refused_and_nothing_is_kept(index: Index, shelf: Shelf) -> None:
    index.wheel("outer", "1")
    index.wrong.add("outer-1-py3-none-any.whl")
    with pytest.raises(DataError, match=r"outer-1-py3-none-any\.whl: what came has not the sha256"):
        missing_wheels({"me": ["outer"]}, image(**HELD), shelf)
    assert not list(shelf.cache.glob("*"))


def test_replacing_an_image_distribution_is_refused_with_who_and_why(
    index: Index, shelf: Shelf
) -> None:
    index.wheel("outer", "1", "inner")
    index.wheel("inner", "1", "einops<0.8")
    index.wheel("einops", "0.7.0")
    with pytest.raises(DataError, match=r"inner needs einops<0\.8, but tiny-image holds einops 0\.8"
                       ) as told:  # fmt: skip
        missing_wheels({"me": ["outer"]}, image(**HELD), shelf)
    assert "allow_replace: [einops]" in told.value.hint
    closure = missing_wheels({"me": ["outer"]}, image(**HELD), shelf, allow_replace=["Einops"])
    assert [w.name for w in closure.wheels] == ["einops", "inner", "outer"]
    assert closure.replaced == {"einops": "0.8.2"}
    assert closure.relied_on == {}


@pytest.mark.parametrize("name", ["numpy", "torch", "nvidia-cudnn-cu12", "torchvision"])
def test_some_are_never_replaced(index: Index, shelf: Shelf, name: str) -> None:
    index.wheel("outer", "1", f"{name}>99")
    index.wheel(name.replace("-", "_"), "100")
    held = image(**{**HELD, name: "2.0.2"})
    with pytest.raises(DataError, match=f"outer needs {name}>99") as told:
        missing_wheels({"me": ["outer"]}, held, shelf, allow_replace=[name])
    assert "can't be replaced" in told.value.hint
    with pytest.raises(DataError, match=f"me needs {name}>99"):
        missing_wheels({"me": [f"{name}>99"]}, held, shelf, allow_replace=[name])


def test_a_pure_source_is_built_here_and_kept(index: Index, shelf: Shelf) -> None:
    index.wheel("outer", "1", "spring>=2")
    index.source("spring", "2.1")
    closure = missing_wheels({"me": ["outer"]}, image(**HELD), shelf)
    assert [(w.name, w.version) for w in closure.wheels] == [("outer", "1"), ("spring", "2.1")]
    assert (shelf.cache / "spring-2.1-py3-none-any.whl").is_file()


def test_a_compiled_source_is_refused_and_the_way_is_named(index: Index, shelf: Shelf) -> None:
    index.source("steel", "1.0", tag="cp311-cp311-linux_x86_64")
    with pytest.raises(RefusedError, match=r"steel.* is compiled from its source") as told:
        missing_wheels({"me": ["steel"]}, image(**HELD), shelf)
    assert "notebook with the internet on" in told.value.hint
    assert not list(shelf.cache.glob("*.whl"))


def test_settings_of_this_machine_do_not_leak(
    index: Index, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("outer", "1")
    index.wheel("outer", "2")
    (tmp_path / "limits.txt").write_text("outer<2\n")
    for name in ("PIP_CONSTRAINT", "UV_CONSTRAINT"):
        monkeypatch.setenv(name, str(tmp_path / "limits.txt"))
    monkeypatch.setenv("UV_INDEX", "http://127.0.0.1:9/never")
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    closure = missing_wheels({"me": ["outer"]}, image(**HELD), shelf)
    assert [w.version for w in closure.wheels] == ["2"]


def test_without_an_index_the_cache_answers_and_it_is_said(
    index: Index, shelf: Shelf, tmp_path: Path
) -> None:
    index.wheel("outer", "1")
    missing_wheels({"me": ["outer"]}, image(**HELD), shelf)
    gone = Shelf(shelf.cache, shelf.work, sources=Sources(("http://127.0.0.1:9/simple",)))
    closure = missing_wheels({"me": ["outer"]}, image(**HELD), gone)
    assert [w.origin for w in closure.wheels] == ["cache"]
    assert "does not answer" in closure.offline
    with pytest.raises(LocalError, match="not downloaded"):
        missing_wheels({"me": ["other"]}, image(**HELD), gone)


def test_an_image_that_contradicts_itself_is_left_as_it_is(index: Index, shelf: Shelf) -> None:
    index.wheel("outer", "1", "torch")
    headers = {
        "torch": Headers(requires=("numpy<2", "gone; extra == 'x'", "einops"), extras=("x",)),
        "einops": Headers(requires=("absent",)),
    }
    held = image(headers, **HELD)
    assert unmet(held) == ["torch needs numpy<2", "einops needs absent"]
    closure = missing_wheels({"me": ["outer", "torch[x]"]}, held, shelf_with(index, shelf, "gone"))
    assert [w.name for w in closure.wheels] == ["gone", "outer"]


def shelf_with(index: Index, shelf: Shelf, name: str) -> Shelf:
    index.wheel(name, "1")
    return shelf


def test_a_ghost_holds_the_image_and_is_made_once(tmp_path: Path) -> None:
    held = image(**HELD)
    first = ghost(held, tmp_path)
    assert sorted(one.name for one in first.iterdir()) == [
        "einops-0.8.2.dist-info", "numpy-2.0.2.dist-info",
        "pandas-2.3.3.dist-info", "torch-2.10.0+cu128.dist-info"]  # fmt: skip
    before = first.stat().st_mtime_ns
    assert ghost(held, tmp_path) == first
    assert first.stat().st_mtime_ns == before
    assert ghost(image(**HELD, more="1"), tmp_path) != first


def test_an_image_that_nobody_asked_for_in_weeks_is_forgotten(tmp_path: Path) -> None:
    old, young = ghost(image(**HELD), tmp_path), ghost(image(**HELD, more="1"), tmp_path)
    os.utime(old, (0, 0))
    last = ghost(image(**HELD, more="2"), tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {young.name, last.name}


def test_what_is_installed_here_and_on_no_index_travels_all_the_same(shelf: Shelf) -> None:
    model = "segmentation-models-pytorch"
    asked = {"me": [f"{model}=={importlib.metadata.version(model)}"]}
    closure = missing_wheels(asked, load_snapshot(), shelf)
    assert [(one.name, one.origin) for one in closure.wheels] == [(model, "rebuilt")]
    assert closure.offline.startswith("no index offers it")


def test_an_index_that_talks_nonsense_is_said_to(index: Index, tmp_path: Path) -> None:
    index.nonsense = True
    with pytest.raises(NetworkError, match="answers what is no index"):
        fetch_wheel("outer", "1", target_tags(image()), "3.12.0", host_sources(), tmp_path)


def test_sources_are_read_from_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    shared, user = tmp_path / "xdg", tmp_path / "home"
    (shared / "pip").mkdir(parents=True)
    (user / "uv").mkdir(parents=True)
    (shared / "pip" / "pip.conf").write_text(
        "[global]\nindex-url = https://a.example/simple\nconstraint = /x\n"
        "[install]\nextra-index-url =\n    https://b.example/simple\n    https://c.example/s\n"
    )
    (user / "uv" / "uv.toml").write_text(
        '[[index]]\nurl = "https://d.example/simple"\n[pip]\nfind-links = ["/wheels"]\n'
    )
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(shared))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user))
    monkeypatch.setenv("PIP_CERT", "/ca.pem")
    monkeypatch.setenv("PIP_PROXY", "http://proxy:3128")
    found = host_sources()
    assert found.indexes == ("https://a.example/simple", "https://d.example/simple",
                             "https://b.example/simple", "https://c.example/s")  # fmt: skip
    assert (found.find_links, found.certificate, found.proxy) == (
        ("/wheels",), "/ca.pem", "http://proxy:3128")  # fmt: skip
    monkeypatch.setenv("PIP_CONSTRAINT", "/leak.txt")
    made = found.environment()
    assert "PIP_CONSTRAINT" not in made
    assert made["UV_DEFAULT_INDEX"] == "https://a.example/simple"
    assert made["HTTPS_PROXY"] == "http://proxy:3128"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert host_sources().indexes == ()


def test_an_index_without_a_fitting_wheel_or_any_answer(index: Index, tmp_path: Path) -> None:
    index.wheel("outer", "1", tag="cp311-cp311-manylinux_2_17_x86_64")
    tags, sources = target_tags(image()), host_sources()
    with pytest.raises(LocalError, match=r"no wheel of outer 1 for this image on 127\.0\.0\.1"):
        fetch_wheel("outer", "1", tags, "3.12.0", sources, tmp_path)
    with pytest.raises(NetworkError, match="does not answer"):
        fetch_wheel("outer", "1", tags, "3.12.0", Sources(("http://127.0.0.1:9/s",)), tmp_path)


def test_a_page_of_links_is_read_with_its_base_and_marks() -> None:
    page = (
        '<base href="https://files.example/x/"><a href="a-1-py3-none-any.whl#sha256=ab" '
        'data-requires-python="&gt;=3.8" data-yanked="bad">a</a><a href="/b%2B1.whl">b</a>'
    )
    one, two = read_html(page, "https://index.example/simple/a/")
    assert one.url == "https://files.example/x/a-1-py3-none-any.whl"
    assert (one.hashes, one.requires_python, one.yanked) == ({"sha256": "ab"}, ">=3.8", True)
    assert (two.name, two.url, two.hashes) == ("b+1.whl", "https://files.example/b%2B1.whl", {})


def test_uvs_plan_is_read_in_either_form() -> None:
    change = {"name": "A_b", "version": "1", "action": "installed"}
    gone = {"name": "c", "version": "2", "action": "uninstalled"}
    told = json.dumps({"schema": {"version": "preview"}, "changes": [change, gone]})
    for found in (read_changes(told, ""), read_changes("", "Would\n - c==2\n + A_b==1\n")):
        assert (found.installed, found.removed) == ({"a-b": "1"}, {"c": "2"})


NO_WHEEL = "hint: Wheels are required for `a` because building from source is disabled"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (f"Because all versions of a have no usable wheels and you require a, {NO_WHEEL}", "a"),
        (
            f"Because a>=0.6.0 has no usable wheels and you require a>=0.6, we {NO_WHEEL}",
            "a>=0.6.0",
        ),
        (
            f"Because b==1 depends on a>=2,<3 and a>=2,<3 has no usable wheels, {NO_WHEEL}",
            "a<3,>=2",
        ),
        (f"Because a==1 has no usable wheels and only a==1 is available, we {NO_WHEEL}", "a==1"),
        (f"a has no usable wheels and a>=2 depends on numpy>=3 and numpy==2.0.2 {NO_WHEEL}", None),
        ("Because you require numpy>=2.3 and numpy==2.0.2, we can conclude", None),
    ],
)
def test_only_a_missing_wheel_is_a_reason_to_build(said: str, wanted: str | None) -> None:
    found = unbuilt(said, image(**HELD))
    assert (str(found) if found else None) == wanted
