"""Which Python a host trains with, and how it gets what that lacks."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kagflow.errors import LocalError
from kagflow.fingerprint import normalise
from kagflow.ship import ssh_env
from kagflow.ship.ssh import Host, Link
from kagflow.ship.ssh_env import Needs

SITE = Path(sysconfig.get_path("purelib"))


def test_what_is_needed_is_pinned_to_what_runs_here() -> None:
    wanted = ssh_env.needs(["six>=1"])
    assert "six>=1" in wanted.requirements
    assert any(one.startswith("torch>=") for one in wanted.requirements)
    assert not any("+" in version for version in wanted.pins.values())
    # What the requirements bring along is held as well.
    assert {"torch", "timm", "six", "pyyaml", "huggingface-hub"} <= set(wanted.pins)


def test_a_python_lacks_what_is_missing_or_does_not_fit() -> None:
    wanted = Needs(("a>=2", "b", "c; python_version < '3.12'"), {})
    assert ssh_env.lacking(wanted, {"a": "1.9", "b": "1"}, "3.12.1") == ["a>=2"]
    assert ssh_env.lacking(wanted, {"a": "2.0+cu126"}, "3.11.9") == list(wanted.requirements)[1:]


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """Return a host without an index, whose Python has everything but typer."""
    path = Path(__file__).with_name("sshd.py")
    spec = importlib.util.spec_from_file_location("sshd", path)
    assert spec is not None
    assert spec.loader is not None
    sshd: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sshd)
    sshd.skip_without_sshd()
    server = sshd.Sshd(tmp_path / "the server")
    monkeypatch.setenv("KAGFLOW_SSH_CONFIG", str(server.config))
    server.start("PIP_NO_INDEX=1")
    with Link(Host.parse("box")) as one:
        yield one
    server.stop()


def python_without(place: Path, *names: str) -> Path:
    """Make a Python that imports what this one does, without some packages."""
    farm = place.parent / "farm of links"
    farm.mkdir()
    for entry in SITE.iterdir():
        name = entry.name.lower().replace("_", "-")
        if entry.suffix != ".pth" and not any(
            name == one or name.startswith(f"{one}-") for one in names
        ):
            (farm / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "farm.pth").write_text(f"{farm}\n")
    return place / "bin" / "python"


@pytest.mark.slow
def test_an_offline_host_gets_what_is_missing_as_wheels_and_keeps_it(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is laid over the host's own Python, torch and all, and found again."""
    named = python_without(tmp_path / "a python of the host", "typer")
    monkeypatch.setenv("KAGFLOW_SSH_PYTHON", str(named))
    link.open()
    wanted = ssh_env.needs()
    assert [one[:5] for one in ssh_env.lacking(wanted, _has(link), "3.11.7")] == ["typer"]
    python = ssh_env.ready(link, wanted)
    assert python.startswith(f"{link.home}/envs/")
    text = "import typer, torch, rich; print(typer.__file__); print(torch.__file__)"
    told = subprocess.run([python, "-c", text], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[0].startswith(f"{link.home}/envs/")
    assert "farm of links" in told.splitlines()[1]
    jobs = sorted(Path(link.home, "jobs").iterdir())
    assert ssh_env.ready(link, wanted) == python
    assert sorted(Path(link.home, "jobs").iterdir()) == jobs


@pytest.mark.slow
def test_torch_is_never_sent(link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = python_without(tmp_path / "host", "torch", "typer")
    monkeypatch.setenv("KAGFLOW_SSH_PYTHON", str(named))
    link.open()
    with pytest.raises(LocalError, match=r"has no torch.*, its pip finds none") as caught:
        ssh_env.ready(link, ssh_env.needs())
    assert "KAGFLOW_SSH_PYTHON" in caught.value.hint


def _has(link: Link) -> dict[str, str]:
    found = ssh_env.ask_packages(link, str(link.facts["python"]))["found"]
    return {normalise(name): version for name, version in found.items()}
