"""Time `kagflow fetch` beside the official client's download and unzip, of the same gigabyte.

Both talk to the same embedded Kaggle, alternating. `KAGFLOW_BENCH_GB` sets the size.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from kagflow.rehearse import server
from kagflow.rehearse.facts import CompetitionFacts
from kagflow.rehearse.store import Store
from kagflow.task.spec import TaskSpec

SLUG = "bench-fetch"
# Of the size of a photograph of 256x1600 pixels.
IMAGE = 110_000
OURS = """
import sys
from pathlib import Path
from kagflow.ship.fetch import fetch
from kagflow.ship.remote import Remote
from kagflow.task.spec import TaskSpec
spec = TaskSpec(slug="bench-fetch", kind="segmentation", classes=("1",))
remote = Remote("local", url=sys.argv[1], state=Path(sys.argv[2], "state"))
fetch(remote, spec, Path(sys.argv[2], "data"))
"""


def served(base: Path, size: int) -> str:
    """Serve a competition of `size` bytes; return the address."""
    folder, block = base / "made", np.random.default_rng(0).bytes(IMAGE + 10_000)
    for place in ("public/train_images", "hidden"):
        (folder / place).mkdir(parents=True)
    for number in range(size // IMAGE):
        start = number % 9973
        image = number.to_bytes(4, "big") + block[start : start + IMAGE - 4]
        (folder / "public/train_images" / f"{number:06}.jpg").write_bytes(image)
    for name in ("public/train.csv", "public/sample_submission.csv", "solution.csv"):
        (folder / name).write_text("ImageId,ClassId,EncodedPixels\n")
    task = TaskSpec(slug=SLUG, kind="segmentation", classes=("1",))
    facts = CompetitionFacts(
        slug=SLUG,
        title="Bench",
        host="bench",
        task=task,
        rerun="hidden",
        inference_minutes=1.0,
        memory_gb=1.0,
        daily_submissions=1,
        deadline="2100-01-01",
    )
    store = Store(base / "store")
    store.add_competition(facts, folder)
    shutil.rmtree(folder)
    store.archive(SLUG)
    return server.ensure(base / "store").url


def environment(base: Path, url: str) -> dict[str, str]:
    """Return what points the official client at the embedded Kaggle, and nothing else."""
    return {
        "PATH": os.defpath,
        "HOME": str(base),
        "TMPDIR": str(base),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "bench",
        "KAGGLE_KEY": "local",
        "http_proxy": url,
        "https_proxy": url,
    }


def ours(base: Path, url: str) -> float:
    """Return seconds of a whole fetch: download, every CRC and SHA-256, unpacked and synced."""
    address = url.replace("http://", "http://bench:local@")
    words = [sys.executable, "-c", OURS, address, str(base / "ours")]
    return timed(words, base / "ours", {**os.environ, "OMP_NUM_THREADS": "2"})


def theirs(base: Path, url: str) -> float:
    """Return seconds of the official client's download and unzip."""
    program = str(Path(sys.executable).with_name("kaggle"))
    words = [program, "competitions", "download", "-q", SLUG, "-p", "."]
    unzip = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall('data')"
    then = [sys.executable, "-c", unzip, f"{SLUG}.zip"]
    first = timed(words, base / "theirs", environment(base, url))
    return first + timed(then, base / "theirs", dict(os.environ), fresh=False)


def timed(words: list[str], folder: Path, env: dict[str, str], *, fresh: bool = True) -> float:
    """Return the wall time of a command in an empty folder."""
    if fresh:
        # Nothing is removed between the runs: freeing gigabytes would slow whoever comes next.
        if folder.exists():
            folder.rename(folder.with_name(f"{folder.name}-{time.monotonic_ns()}"))
        folder.mkdir()
        # What one wrote must not be flushed in the other's time.
        os.sync()
    start = time.perf_counter()
    subprocess.run(words, check=True, cwd=folder, env=env, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def pairs(count: int, gigabytes: float) -> list[tuple[float, float]]:
    """Return (ours, theirs) in seconds, alternating which goes first."""
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        base = Path(name)
        url = served(base, int(gigabytes * 1e9))
        try:
            ours(base, url)
            found = []
            for turn in range(count):
                if turn % 2:
                    second = theirs(base, url)
                    found.append((ours(base, url), second))
                else:
                    first = ours(base, url)
                    found.append((first, theirs(base, url)))
            return found
        finally:
            server.stop(base / "store")


if __name__ == "__main__":
    size = float(os.environ.get("KAGFLOW_BENCH_GB", "1"))
    for mine, other in pairs(int(sys.argv[1]) if len(sys.argv) > 1 else 3, size):
        print(
            f"{size:g} GB: kagflow {mine:.2f} s, kaggle and unzip {other:.2f} s: {mine / other:.2f}"
        )
