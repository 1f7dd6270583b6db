"""A host reached with the system's own ssh and rsync, by the user's own ssh settings.

One connection serves all calls. A call sends the small program in templates/host with its request
through stdin and reads one line back, so that no name of ours is ever read by a shell there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kagflow import process, resources
from kagflow.errors import KagflowError, LocalError, NetworkError, UsageError
from kagflow.progress import QUIET, Progress
from kagflow.ship import ssh_errors

CONFIG, PYTHON, HOME = "KAGFLOW_SSH_CONFIG", "KAGFLOW_SSH_PYTHON", "KAGFLOW_SSH_HOME"
DEFAULT_HOME = "~/.kagflow-host"
MARK = "kagflow-host:"
CALL_SECONDS = 600.0
# A path of a socket may have 108 bytes, of which ssh takes 18 for its own ending.
LONGEST_SOCKET = 80
PARTS = ("common", "look", "folders", "ground", "jobs", "main")
PYTHONS = ("python3", *(f"python3.{minor}" for minor in (14, 13, 12, 11)), "python")
# In one line and without a quote, so that every login shell hands it on as it is.
FIND_PYTHON = (
    'for p in "$@"; do if command -v "$p" >/dev/null 2>&1; then '
    'if "$p" -I -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; '
    'then exec "$p" -I -; fi; echo "$p has $("$p" -V 2>&1)" >&2; fi; done; exit 97'
)
SETTINGS = (
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "ControlMaster=auto",
    "ControlPersist=60",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "RequestTTY=no",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "LogLevel=ERROR",
)


@dataclass(frozen=True)
class Host:
    """Name a host as ssh knows it; `port` None leaves it to ssh's settings."""

    target: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read user@host, an alias of ssh's settings, host:port or ssh://user@host:port.

        Raises UsageError for anything that ssh or a shell might read as more than a name.
        """
        word = text.removeprefix("ssh:").removeprefix("//").rstrip("/")
        found = re.fullmatch(r"((?:[\w.+-]+@)?(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+))(?::(\d{1,5}))?", word)
        if found is None or word.startswith("-") or "@-" in word:
            raise UsageError(
                f"'{text}' names no host", hint="--on ssh:user@host, ssh:host:port or an alias"
            )
        target = re.sub(r"[\[\]]", "", found[1])
        return cls(target, None if found[2] is None else int(found[2]))

    def __str__(self) -> str:
        name = self.for_rsync
        return name if self.port is None else f"{name}:{self.port}"

    @property
    def for_rsync(self) -> str:
        """The host as it stands before the colon of a remote path."""
        user, at, name = self.target.rpartition("@")
        return f"{user}{at}[{name}]" if ":" in name else self.target


class Link:
    """A connection to a host, opened by its first call; `facts` is what the host said of itself."""

    def __init__(self, host: Host, progress: Progress = QUIET) -> None:
        self.host, self.progress = host, progress
        self.facts: dict[str, Any] = {}
        self._folder = _private_folder()
        self._program = program()

    def __enter__(self) -> Self:
        """Use the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the connection; what was started on the host goes on."""
        self.drop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self) -> dict[str, Any]:
        """Connect and return what the host is and has.

        Raises AuthError for a key or login that is refused, NetworkError where nothing answers,
        LocalError where the host lacks Python >= 3.11 or rsync.
        """
        for tool in ("ssh", "rsync"):
            if shutil.which(tool) is None:
                raise LocalError(
                    f"'{tool}' is not installed here", hint=f"install it: apt install {tool}"
                )
        self.facts = self.call("probe", home=os.environ.get(HOME) or DEFAULT_HOME)
        if not self.facts["rsync"]:
            raise ssh_errors.no_rsync(str(self.host))
        return self.facts

    @property
    def home(self) -> str:
        """Where kagflow's files lie on the host."""
        return str(self.facts["home"])

    def call(self, do: str, *, timeout: float = CALL_SECONDS, **given: Any) -> dict[str, Any]:
        """Have the host do one thing of templates/host and return its answer.

        Raises what `open` raises, and LocalError or DataError for what the host refuses.
        """
        request = {"do": do, "with": given}
        text = f"{self._program}\nkagflow_host_main.main(json.loads({json.dumps(request)!r}))\n"
        done = self._ssh(self._python(), stdin=text, timeout=timeout)
        marked = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
        if not marked:
            raise self._unanswered(done)
        answer = json.loads(marked[-1].removeprefix(MARK))
        if "refused" in answer:
            raise ssh_errors.refusal(str(self.host), answer["refused"], answer["text"])
        return dict(answer["answer"])

    def push(self, root: Path, names: Sequence[str], folder: str) -> None:
        """Send files of a folder into one of the host's; goes on where an earlier try broke."""
        self._rsync([f"{root}/", f"{self.host.for_rsync}:{folder}/"], names)

    def pull(self, folder: str, names: Sequence[str], root: Path) -> None:
        """Bring files of one of the host's folders into one here."""
        self._rsync([f"{self.host.for_rsync}:{folder}/", f"{root}/"], names)

    def drop(self) -> None:
        """End the shared connection: the next call opens a new one."""
        if (self._folder / "s").exists():
            with suppress(LocalError):
                process.run([*self._command(), "-O", "exit", "--", self.host.target], timeout=10)
            (self._folder / "s").unlink(missing_ok=True)

    def _ssh(self, command: str, *, stdin: str, timeout: float) -> process.Completed:
        argv = [*self._command(), "-T", "--", self.host.target, command]
        began = time.monotonic()
        try:
            return process.run(argv, stdin=stdin, timeout=timeout, check=False)
        except LocalError as error:
            if time.monotonic() - began < timeout:
                raise
            self.drop()
            raise NetworkError(
                f"{self.host} did not answer within {timeout:.0f} s", hint="run the same again"
            ) from error

    def _python(self) -> str:
        """Return the command that has the host's Python read a program from stdin."""
        if self.facts:
            return f"exec {shlex.quote(self.facts['python'])} -I -"
        named = os.environ.get(PYTHON)
        return f"exec sh -c '{FIND_PYTHON}' sh {shlex.join([named] if named else PYTHONS)}"

    def _unanswered(self, done: process.Completed) -> KagflowError:
        host, code = str(self.host), done.returncode
        if code == ssh_errors.SSH_FAILED:
            return ssh_errors.ssh_error(host, done.stderr)
        if code in (ssh_errors.NO_PYTHON, ssh_errors.NOT_FOUND, ssh_errors.NOT_EXECUTABLE):
            return ssh_errors.no_python(host, done.stderr, os.environ.get(PYTHON, ""))
        said = ssh_errors.last_line(done.stderr) or f"exit status {code}"
        return NetworkError(f"{host} gave no answer: {said}", hint="run the same again")

    def _rsync(self, places: Sequence[str], names: Sequence[str]) -> None:
        listed = self._folder / "names"
        listed.write_bytes(b"\0".join(os.fsencode(name) for name in names))
        remote_shell = " ".join(_quoted(word) for word in self._command())
        # Secluded arguments: no shell of the host reads a path. Links are sent as what they mean.
        options = ["-s", "--copy-links", "--times", "--checksum", "--partial", "--timeout=120"]
        options += ["--from0", f"--files-from={listed}", "--out-format=%l", "-e", remote_shell]
        said: list[str] = []

        def take(line: str) -> None:
            if line.isdigit():
                self.progress.advance(int(line))
            else:
                said.append(line)

        code = process.stream(["rsync", *options, "--", *places], take)
        if code:
            raise ssh_errors.rsync_error(str(self.host), code, "\n".join(said))

    def _command(self) -> list[str]:
        settings = [*SETTINGS, f"ControlPath={self._folder / 's'}"]
        config, port = os.environ.get(CONFIG), self.host.port
        return [
            "ssh",
            *(["-F", config] if config else []),
            *(word for one in settings for word in ("-o", one)),
            *(["-p", str(port)] if port is not None else []),
        ]


def program() -> str:
    """Return the host's side as one Python text whose modules import each other."""
    folder = resources.templates() / "host"
    names = [f"kagflow_host_{part}" for part in PARTS]
    sources = {name: (folder / f"{name}.py").read_text() for name in names}
    return (
        "import json, sys, types\n"
        f"for name, text in json.loads({json.dumps(sources)!r}).items():\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    exec(compile(text, name, 'exec'), module.__dict__)\n"
        "import kagflow_host_main\n"
    )


def _private_folder() -> Path:
    made = tempfile.mkdtemp(prefix="kagflow-")
    if len(os.fsencode(made)) <= LONGEST_SOCKET:
        return Path(made)
    Path(made).rmdir()
    return Path(tempfile.mkdtemp(prefix="kagflow-", dir="/tmp"))


def _quoted(word: str) -> str:
    """Quote a word for rsync, which splits its remote shell at blanks."""
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word) else '"' + word.replace('"', '""') + '"'
