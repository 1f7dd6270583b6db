"""A clean file is not scanned twice, and nothing else is taken for clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from kagflow.ship import scanned, secrets


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    real = secrets.scan_file

    def counted(file: Path, own: object = ()) -> object:
        seen.append(file.name)
        return real(file, own)

    monkeypatch.setattr(secrets, "scan_file", counted)
    return seen


def test_clean_bytes_are_scanned_once_whatever_they_are_called(
    tmp_path: Path, scans: list[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"nothing to see")
        assert scanned.scan_once(tmp_path / name, []) == []
    assert scans == ["a"]


def test_another_byte_or_another_credential_is_looked_at_again(
    tmp_path: Path, scans: list[str]
) -> None:
    file, own = tmp_path / "a", "a-secret-of-this-machine"
    file.write_bytes(b"holds " + own.encode())
    assert scanned.scan_once(file, []) == []
    for _ in range(2):
        (leak,) = scanned.scan_once(file, [own])
        assert leak.tail == own[-4:]
    file.write_bytes(b"KGAT_" + b"0123456789abcdef" * 2)
    assert len(scanned.scan_once(file, [])) == 1
    assert scans == ["a"] * 4


def test_a_file_that_changes_meanwhile_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"before")
    real = secrets.scan_file

    def changing(path: Path, own: object = ()) -> object:
        found = real(path, own)
        path.write_bytes(b"after")
        return found

    monkeypatch.setattr(secrets, "scan_file", changing)
    assert scanned.scan_once(file, []) == []
    monkeypatch.setattr(secrets, "scan_file", lambda *_: ["scanned"])
    file.write_bytes(b"before")
    assert scanned.scan_once(file, []) == ["scanned"]
