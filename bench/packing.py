"""Time a whole pack with its proofs, cold and warm, beside pip's answer to the same requirements.

A plain `pip download` of them fetches torch and CUDA, gigabytes that the image has. It is not run:
the baseline is pip's dry run, which resolves and downloads nothing, and its bytes are those that
the index gives for the files it would fetch. Both need a network.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests

from kagflow.ship.sources import host_sources

REPEATS = 3
Pairs = list[tuple[float, float]]
REQUIREMENTS = (
    "segmentation-models-pytorch",
    "timm",
    "albumentations",
    "omegaconf",
    "iterative-stratification",
    "connected-components-3d",
)
OURS = """
import json, sys
from pathlib import Path
from kagflow.fingerprint import load_snapshot
from kagflow.ship.pack import build_pack
work, *requires = sys.argv[1:]
folder = Path(work, "rolls")
folder.mkdir(exist_ok=True)
(folder / "competition.yaml").write_text("slug: rolls\\n")
(folder / "__init__.py").write_text("import cc3d, iterstrat.ml_stratifiers\\n")
weights = Path(work, "a.safetensors")
weights.write_bytes(b"weights")
config = {"members": [{"name": "a", "weights": ["a.safetensors"], "model": {"target": "rolls:x"}}]}
pack = build_pack(
    Path(work, "packs"), weights={"a.safetensors": weights}, config=config,
    competition_folder=folder, fingerprint=load_snapshot(), requires=requires,
)
held = [one.name for one in pack.proofs if one.held]
print(json.dumps({"bytes": pack.bytes, "wheels": len(pack.wheels), "held": held,
                  "offline": pack.offline}))
"""


@dataclass(frozen=True)
class Timed:
    """Hold one run: seconds on the wall clock, bytes, and how many files."""

    seconds: float
    bytes: int
    files: int


def reachable() -> bool:
    """Tell whether the first index of this machine answers."""
    address = urlsplit(next(iter(host_sources().indexes), ""))
    try:
        socket.create_connection((address.hostname or "", address.port or 443), 5).close()
    except OSError:
        return False
    return True


def ours(work: Path, cache: Path) -> Timed:
    """Pack once with a cache of its own; a pack that was not proved by uv is no pack."""
    environment = {**os.environ, "KAGFLOW_CACHE": str(cache)}
    environment.pop("KAGFLOW_OFFLINE", None)
    work.mkdir()
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", OURS, str(work), *REQUIREMENTS],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    took = time.perf_counter() - start
    told = json.loads(done.stdout)
    if told["offline"] or told["held"] != ["tags", "closure", "install", "imports"]:
        sys.exit(f"not a pack as it is meant to be: {told}")
    return Timed(took, told["bytes"], told["wheels"])


def theirs(work: Path) -> tuple[Timed, list[dict[str, object]]]:
    """Let pip resolve the same for this Python, as one types it, and download nothing."""
    report = work / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--disable-pip-version-check", "--no-cache-dir", "--report", str(report)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull}
    work.mkdir()
    start = time.perf_counter()
    subprocess.run([*command, *REQUIREMENTS], check=True, capture_output=True, env=environment)
    took = time.perf_counter() - start
    files = json.loads(report.read_text())["install"]
    return Timed(took, 0, len(files)), files


def weigh(files: list[dict[str, object]]) -> int:
    """Return the bytes of the files of a pip report, as the index gives them."""
    total = 0
    for one in files:
        url = str(one["download_info"]["url"])  # type: ignore[index]
        answer = requests.head(url, timeout=30, allow_redirects=True)
        answer.raise_for_status()
        total += int(answer.headers["Content-Length"])
    return total


def measure(repeats: int = REPEATS) -> tuple[Pairs, Pairs, str]:
    """Return (ours, pip's) seconds cold and warm, and one sentence on the bytes."""
    cold: Pairs = []
    warm: Pairs = []
    sizes = ""
    with tempfile.TemporaryDirectory(prefix="bench-packing-") as folder:
        home = Path(folder)
        for turn in range(repeats):
            cache = home / f"cache{turn}"
            first = ours(home / f"cold{turn}", cache)
            other, files = theirs(home / f"pip{turn}")
            second = ours(home / f"warm{turn}", cache)
            cold.append((first.seconds, other.seconds))
            warm.append((second.seconds, other.seconds))
            if not sizes:
                total = weigh(files)
                sizes = (
                    f"A pack of {len(REQUIREMENTS)} requirements holds {first.files} wheels, "
                    f"{first.bytes / 1e6:.1f} MB; pip would download {other.files} files, "
                    f"{total / 1e6:.0f} MB ({total / first.bytes:.0f} times as much)."
                )
    return cold, warm, sizes


def main() -> None:
    """Print the figures."""
    if not reachable():
        sys.exit("no network: nothing to compare with")
    cold, warm, sizes = measure()
    for name, pairs in (("cold", cold), ("warm", warm)):
        one, two = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        print(f"{name}: pack with proofs {one:.2f} s, pip's resolution alone {two:.2f} s: {pairs}")
    print(sizes)


if __name__ == "__main__":
    main()
