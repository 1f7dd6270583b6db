"""300 planted secrets in 12 kinds of files: none is missed; ordinary files are quiet."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import random
import string
import struct
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kagflow.ship import secrets

HEX, LETTERS = "0123456789abcdef", string.ascii_letters + string.digits


def draw(rng: random.Random, letters: str, count: int) -> str:
    return "".join(rng.choice(letters) for _ in range(count))


def kaggle_json(rng: random.Random) -> str:
    pairs = [("username", draw(rng, string.ascii_lowercase, 7)), ("key", draw(rng, HEX, 32))]
    rng.shuffle(pairs)
    return json.dumps(dict(pairs), indent=rng.choice([None, 2]))


KINDS: dict[str, Callable[[random.Random], str]] = {
    "token": lambda rng: f"KGAT_{draw(rng, HEX, 32)}",
    "kaggle.json": kaggle_json,
    "python": lambda rng: f"os.environ['KAGGLE_KEY'] = \"{draw(rng, HEX, 32)}\"",
    "shell": lambda rng: f"export KAGGLE_API_TOKEN={draw(rng, LETTERS, 40)}",
    "docker": lambda rng: f"ENV KAGGLE_KEY {draw(rng, HEX, 32)}",
    "yaml": lambda rng: f"username: me\nkey: {draw(rng, HEX, 32)}\n",
    "hub": lambda rng: f"hf_{draw(rng, LETTERS, 34)}",
    "github": lambda rng: f"ghp_{draw(rng, LETTERS, 36)}",
    "google": lambda rng: f"AIza{draw(rng, LETTERS, 35)}",
    "wandb": lambda rng: f"WANDB_API_KEY={draw(rng, HEX, 40)}",
    "netrc": lambda rng: f"machine api.wandb.ai login user password {draw(rng, HEX, 40)}",
    "openai": lambda rng: f"sk-{draw(rng, LETTERS, 32)}",
    "own": lambda rng: draw(rng, LETTERS, 37),
}


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def tarred(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        info = tarfile.TarInfo("folder/.env")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def notebook(text: str) -> bytes:
    output = {"output_type": "stream", "text": [f"{text}\n"]}
    return json.dumps({"cells": [{"cell_type": "code", "outputs": [output]}]}).encode()


def safetensors(text: str) -> bytes:
    header = json.dumps({"__metadata__": {"note": text}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


def encoded(text: str) -> bytes:
    return b"data:\n  secret: " + base64.b64encode(f"x = 1\n{text}\n".encode()) + b"\n"


FILES: dict[str, Callable[[str], bytes]] = {
    "notes.txt": lambda text: f"before\n{text}\nafter\n".encode(),
    "config.json": lambda text: json.dumps({"note": text}).encode(),
    "notebook.ipynb": notebook,
    "windows.txt": lambda text: text.encode("utf-16"),
    "cluster.yaml": encoded,
    "mail.eml": lambda text: base64.encodebytes(f"{'-' * 50}\n{text}\n".encode()),
    "code.whl": lambda text: zipped("severe/models.py", text.encode()),
    "twice.zip": lambda text: zipped("inner.zip", zipped("a.env", text.encode())),
    "log.gz": lambda text: gzip.compress(text.encode()),
    "home.tar.gz": lambda text: tarred(text.encode()),
    "weights.safetensors": safetensors,
    "model.pt": lambda text: zipped("archive/data.pkl", pickle.dumps({"note": text})),
}


@pytest.mark.parametrize("name", FILES)
def test_twenty_five_planted_secrets_a_kind_of_file(name: str, tmp_path: Path) -> None:
    rng, missed = random.Random(name), []
    for turn in range(25):
        kind = list(KINDS)[turn % len(KINDS)]
        secret = KINDS[kind](rng)
        path = tmp_path / name
        path.write_bytes(FILES[name](secret))
        leaks = secrets.scan_file(path, [secret] if kind == "own" else [])
        if not leaks:
            missed.append((kind, secret))
        assert all(len(leak.tail) <= 4 for leak in leaks)
    assert missed == []


def test_a_credential_of_this_machine_is_found_in_the_middle_of_base64(tmp_path: Path) -> None:
    own = "q7Vt2LmX0pZc9RdKw4"
    for before in range(3):
        text = base64.b64encode(b"x" * before + own.encode() + b"tail")
        leaks = list(secrets.scan_bytes(b"a.b=" + text, "x", [own]))
        assert [leak.what for leak in leaks][:1] == ["this machine's own credential"]
        assert leaks[0].tail == own[-4:]
    assert list(secrets.scan_bytes(base64.b64encode(own.encode()), "x")) == []
    # Short words are no secrets to search for: the local profile's is `local`.
    assert list(secrets.scan_bytes(b"local", "x", ["local"])) == []


def test_a_thousand_ordinary_files_raise_no_alarm() -> None:
    folder = Path(sysconfig.get_path("purelib"))
    kinds = {".py", ".json", ".txt", ".md", ".h", ".pyi", ".yaml", ".html", ".js"}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in kinds]
    chosen = random.Random(0).sample([one for one in files if one.stat().st_size < 1 << 18], 1000)
    alarms = {path.name: leaks for path in chosen if (leaks := secrets.scan_file(path))}
    assert alarms == {}


def test_a_broken_archive_is_searched_by_its_bytes(tmp_path: Path) -> None:
    token = f"KGAT_{'0a' * 16}".encode()
    for start in (b"PK\x03\x04", b"\x1f\x8b"):
        path = tmp_path / "broken"
        path.write_bytes(start + b"no archive " + token)
        assert [leak.what for leak in secrets.scan_file(path)] == ["a Kaggle token"]
