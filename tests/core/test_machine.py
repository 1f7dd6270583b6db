"""This machine's findings: GPUs that fit and do not, file systems that keep word and do not."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from kagflow import machine, process
from kagflow.errors import LocalError


def smi(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str, code: int = 0) -> None:
    """Put a driver's tool that says `text` in front of everything else."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '%s\\n' '{text}'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def torch(monkeypatch: pytest.MonkeyPatch, cuda: str | None) -> None:
    monkeypatch.setattr(machine, "torch_cuda", lambda: ("2.10.0", cuda))


@pytest.mark.parametrize(
    ("gpu", "cuda", "state", "mend"),
    [
        ("Tesla T4, 7.5, 15360", "12.8", "ok", ""),
        ("Tesla T4, 7.5, 15360", "13.0", "ok", ""),
        ("NVIDIA GeForce RTX 4070, 8.9, 12282", "12.8", "ok", ""),
        ("Tesla P100-PCIE-16GB, 6.0, 16384", "12.8", "fail", "cu126"),
        ("NVIDIA GeForce GTX 1060, 6.1, 6144", "13.0", "fail", "cu126"),
        ("Tesla V100-SXM2-16GB, 7.0, 16384", "13.0", "fail", "cu126"),
        ("Tesla V100-SXM2-16GB, 7.0, 16384", "12.8", "ok", ""),
        ("A Card of Tomorrow, 13.0, 16384", "13.0", "fail", "newer"),
        ("NVIDIA GeForce RTX 5090, 12.0, 32607", "12.6", "fail", "cu130"),
        ("Tesla T4, 7.5, 15360", None, "warn", "cu130"),
        ("Some Card, [N/A], [N/A]", "12.8", "ok", ""),
    ],
)
def test_a_gpu_is_compared_with_what_torch_was_built_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu: str, cuda: str | None, state, mend: str
) -> None:
    smi(monkeypatch, tmp_path, gpu)
    torch(monkeypatch, cuda)
    found = machine.gpu_check()
    assert found.state == state
    assert mend in found.mend
    assert bool(found.mend) == (state != "ok")


def test_no_gpu_is_no_fault_and_a_broken_driver_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu_check().state == "ok"
    smi(monkeypatch, tmp_path, "Driver/library version mismatch", 18)
    found = machine.judged("gpu", machine.gpu_check)
    assert (found.state, found.code) == ("fail", LocalError.exit_code)
    assert "mismatch" in found.found


def test_versions_come_without_importing_torch() -> None:
    code = (
        "import sys; from kagflow import machine; print(machine.torch_check().found, "
        "'torch' in sys.modules)"
    )
    done = process.run([sys.executable, "-c", code], timeout=60)
    version = importlib.metadata.version("torch")
    assert done.stdout.startswith(version)
    assert done.stdout.strip().endswith("False")


def test_a_missing_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "torch_cuda", lambda: None)
    found = machine.torch_check()
    assert found.state == "fail"
    assert "pip install torch" in found.mend


def test_python_is_old_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.python_check().state == "ok"
    monkeypatch.setattr(machine, "PYTHON", (9, 9))
    assert machine.python_check().state == "fail"


def test_disk_is_judged_by_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, state in ((1 << 30, "fail"), (10 << 30, "warn"), (100 << 30, "ok")):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, usage=usage: usage)
        found = machine.disk_check(tmp_path / "not" / "there")
        assert found.state == state
        assert bool(found.mend) == (state != "ok")


def test_a_file_system_is_tried_and_left_clean(tmp_path: Path) -> None:
    found = machine.file_system_check(tmp_path)
    assert found.state == "ok", found.found
    assert list(tmp_path.iterdir()) == []


def test_locks_that_do_nothing_and_names_without_case_are_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine.fcntl, "flock", lambda *_: None)
    found = machine.file_system_check(tmp_path)
    assert found.state == "warn"
    assert "locks" in found.found
    exists = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda self: exists(self.with_name(self.name.lower()))
    )  # fmt: skip
    assert "case" in machine.file_system_check(tmp_path).found


def test_a_rename_that_does_not_replace_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "replace", lambda self, _: self)
    found = machine.file_system_check(tmp_path)
    assert (found.state, found.mend) == ("fail", "move the workspace to a local disk")


def test_a_folder_that_takes_nothing_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryDirectory", refuse)
    found = machine.file_system_check(tmp_path)
    assert found.state == "fail"
    assert "Permission denied" in found.found


def test_volta_left_one_build_between_two_versions() -> None:
    assert machine.fits(7.0, "12.8", "2.10.0+cu128")
    assert not machine.fits(7.0, "12.8", "2.11.0+cu128")
    assert machine.fits(7.0, "12.6", "2.14.1+cu126")
    assert machine.fits(9.9, "99.9")
