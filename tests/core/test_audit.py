"""Every manifest of a workspace against the files it vouches for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from kagflow.audit import audit


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Write one of each that a workspace holds, all as it should be."""

    def put(path: str, data: bytes | object) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())

    listed = {"train.csv": {"sha256": sha(b"rows"), "bytes": 4}}
    put("data/a/train.csv", b"rows")
    put("data/a/manifest.json", {"files": listed})
    config = {"config.json": {"sha256": sha(b"{}"), "bytes": 2}}
    for part in ("env", "weights"):
        put(f"packs/a/feed/{part}/config.json", b"{}")
        put(f"packs/a/feed/{part}/manifest.json", {"hash": part, "files": config})
    put(
        "packs/a/feed/manifest.json",
        {"pack": "feed", "parts": {"env": "env", "weights": "weights"}},
    )
    # As an earlier kagflow packed.
    put("packs/a/0ld/config.json", b"{}")
    put("packs/a/0ld/manifest.json", {"pack": "0ld", "files": config})
    put("runs/a/r/fold0/ckpt-10.pt", b"state")
    put("runs/a/r/fold0/ckpt-10.json", {"sha256": sha(b"state"), "step": 10})
    put("runs/a/r/fold0/config.yaml", b"epochs: 1")
    put("runs/a/r/fold0/best.safetensors", b"weights")
    put("runs/a/r/fold0/run.json", {"finished": True})
    put("ensembles/a/e.json", {"members": [{"weights": ["runs/a/r/fold0/best.safetensors"]}]})
    return tmp_path


def test_a_whole_workspace_has_no_fault(home: Path) -> None:
    found = audit(home)
    assert found.faults == ()
    assert found.manifests == 6
    assert found.files == 13


@pytest.mark.parametrize(
    ("path", "data", "what"),
    [
        ("data/a/train.csv", b"ROWS", "its bytes have changed"),
        ("data/a/train.csv", None, "is missing"),
        ("packs/a/feed/env/config.json", b"[]", "its bytes have changed"),
        ("packs/a/0ld/config.json", b"[]", "its bytes have changed"),
        ("packs/a/feed/env/manifest.json", b'{"hash": "x", "files": {}}', "manifest of env x"),
        ("packs/a/feed/manifest.json", b"{", "not readable"),
        ("runs/a/r/fold0/ckpt-10.pt", b"stat", "its bytes have changed"),
        ("runs/a/r/fold0/best.safetensors", b"", "is missing or empty"),
        ("runs/a/r/fold0/best.safetensors", None, "e.json needs it"),
        ("runs/a/r/fold0/run.json", b'{"finished": false}', "not finished"),
        ("runs/a/r/fold0/run.json", b"{}", "not readable"),
    ],
)
def test_every_kind_of_damage_is_named(
    home: Path, path: str, data: bytes | None, what: str
) -> None:
    if data is None:
        (home / path).unlink()
    else:
        (home / path).write_bytes(data)
    found = audit(home)
    assert [one for one in found.faults if what in one.what], found.faults
    assert str(home / path) in {str(one.path) for one in found.faults}


def test_a_pack_in_another_packs_folder_is_a_fault(home: Path) -> None:
    (home / "packs/a/feed").rename(home / "packs/a/beef")
    assert [one.what for one in audit(home).faults] == ["is the manifest of pack feed"]
