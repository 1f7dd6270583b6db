"""Models build with the oldest segmentation_models_pytorch that kagflow takes, as with this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OLDEST = "0.5.0"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smp")
    wanted = f"segmentation_models_pytorch=={OLDEST}"
    words = ["-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), wanted]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=200, check=False
    )
    if done.returncode:
        pytest.skip(f"{wanted} cannot be had here: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.mark.slow
def test_the_tests_of_models_pass_with_the_oldest_smp(packages: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(packages)}
    asked = "import segmentation_models_pytorch as smp; print(smp.__version__)"
    found = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, env=environment, check=True
    )
    assert found.stdout.strip() == OLDEST
    tests = [str(Path(__file__).with_name(name)) for name in ("test_models.py", "test_affinity.py")]
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow", *tests]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
