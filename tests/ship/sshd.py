"""A real sshd on loopback for the current user: own host key, own authorized key, own port."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def skip_without_sshd() -> None:
    """Skip a test where there is no sshd or rsync to talk to."""
    missing = [tool for tool in ("ssh", "ssh-keygen", "rsync") if shutil.which(tool) is None]
    missing += [] if Path(SSHD).is_file() else ["sshd"]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        # A daemon of root's wants it, whatever its settings.
        try:
            Path("/run/sshd").mkdir(mode=0o755)
        except OSError as error:
            pytest.skip(f"sshd of root needs /run/sshd: {error}")


class Sshd:
    """A server; `config` is the ssh settings with which the host `box` is reached."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True)
        for name in ("host_key", "user_key", "stranger"):
            keygen(folder / name)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        self.path = folder / "bin"
        self.path.mkdir()
        self.bin_without()
        self.write_config()
        self._started: subprocess.Popen[bytes] | None = None

    def write_config(self, **settings: str) -> Path:
        """Write the settings of the user's side; give some another value."""
        self.known(self.folder / "host_key.pub")
        values = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": getpass.getuser(),
            "IdentityFile": f'"{self.folder / "user_key"}"',
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": f'"{self.folder / "known_hosts"}"',
            "GlobalKnownHostsFile": "none",
            "IdentityAgent": "none",
            **settings,
        }
        self.config = self.folder / "ssh config"
        lines = ["Host box", *(f"  {key} {value}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n")
        return self.config

    def known(self, public: Path) -> None:
        """Have the user's side know a key as this host's."""
        kind, key = public.read_text().split()[:2]
        text = f"[127.0.0.1]:{self.port} {kind} {key}\n"
        (self.folder / "known_hosts").write_text(text)

    def bin_without(self, *names: str) -> None:
        """Let the host's PATH hold what a job needs, without some tools."""
        for old in self.path.iterdir():
            old.unlink()
        for name in ("sh", "env", "rsync", "git", "uname", "cat"):
            found = shutil.which(name)
            if found and name not in names:
                (self.path / name).symlink_to(found)
        if "python3" not in names:
            # A link would take the prefix from where it lies.
            python = self.path / "python3"
            python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            python.chmod(0o755)

    def start(self, *variables: str) -> None:
        """Start the server, with a home folder of the host's own and more of its variables."""
        home = self.folder / "home of the höst"
        home.mkdir(exist_ok=True)
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": f'"{self.folder / "host_key"}"',
            "AuthorizedKeysFile": f'"{self.folder / "authorized_keys"}"',
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "MaxStartups": "100",
            "SetEnv": f'"PATH={self.path}" "HOME={home}" OMP_NUM_THREADS=1 KAGFLOW_OFFLINE=1 '
            + " ".join(variables),
        }
        text = "".join(f"{key} {value}\n" for key, value in settings.items())
        (self.folder / "sshd_config").write_text(text)
        argv = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            self._started = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def stop(self) -> None:
        """End the server; the connections that it has go on."""
        if self._started is not None:
            self._started.terminate()
            self._started.wait(10)
            self._started = None

    def cut(self) -> None:
        """End every connection of the server, as a network that is gone would."""
        for pid in children(self._started.pid if self._started else 0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _wait(self) -> None:
        assert self._started is not None
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            if self._started.poll() is not None:
                pytest.fail(f"sshd does not start: {(self.folder / 'sshd.log').read_text()}")
            time.sleep(0.01)
        pytest.fail("sshd does not listen")


def children(parent: int) -> list[int]:
    """Return the processes that another one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if int(text.rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def keygen(file: Path) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(file)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
