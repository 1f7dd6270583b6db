"""An image that was probed is named to Kaggle with the kernel; an approximate one never is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kagflow.fingerprint import load_snapshot
from kagflow.ship.kernel import KernelSpec, render_kernel
from kagflow.ship.pack import build_pack
from kagflow.ship.remote_kernels import save_fields
from kagflow.ship.remote_types import KernelPush
from kagflow.task.spec import TaskSpec

DIGEST = "gcr.io/kaggle-gpu-images/python@sha256:37c6"
SPEC = KernelSpec("me", "kagflow-rolls", "kagflow rolls", "rolls", (), "NvidiaTeslaT4", 60)
PUSH = KernelPush("me/kagflow-rolls", "kagflow rolls", "print()", (), "rolls", "NvidiaTeslaT4", 60)


@pytest.mark.parametrize("digest", ["", DIGEST])
def test_the_packs_image_is_the_kernels(tmp_path: Path, digest: str) -> None:
    folder = tmp_path / "competitions" / "rolls"
    folder.mkdir(parents=True)
    (folder / "competition.yaml").write_text("slug: rolls\n")
    (folder / "__init__.py").touch()
    weights = tmp_path / "a.safetensors"
    weights.write_bytes(b"weights")
    pack = build_pack(
        tmp_path / "packs",
        weights={"a.safetensors": weights},
        config={
            "members": [{"name": "a", "weights": ["a.safetensors"]}],
            "task": TaskSpec("rolls", "segmentation", ("1",)).to_dict(),
        },
        competition_folder=folder,
        fingerprint=replace(load_snapshot(), digest=digest),
    )
    assert pack.env.manifest.get("digest", "") == digest
    told = render_kernel(pack.path, tmp_path / "kernel", SPEC).metadata
    pin = {"docker_image": DIGEST, "docker_image_pinning_type": "original"}
    assert {key: told[key] for key in told if key.startswith("docker")} == (pin if digest else {})


def test_a_push_names_the_image_or_nothing() -> None:
    assert not [key for key in save_fields(PUSH) if key.startswith("docker")]
    fields = save_fields(replace(PUSH, docker_image=DIGEST))
    assert (fields["dockerImage"], fields["dockerImagePinningType"]) == (DIGEST, "original")
