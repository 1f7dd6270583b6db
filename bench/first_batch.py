"""Go from a new process to the first batch: kagflow's kernel, or smp as people import it.

`python bench/first_batch.py ours|plain FOLDER`; without words it writes the weights and times both.
Both load the same weights of FPN on EfficientNet-Lite0 and predict one image of 256x1600.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAIRS = 5
KWARGS = {"arch": "FPN", "encoder": "tu-tf_efficientnet_lite0"}
SPEC = {"target": "smp", "kwargs": KWARGS}
WEIGHTS, IMAGE, CLASSES = "fpn.safetensors", "image.png", 4


def ours(folder: Path) -> None:
    """Predict as the kernel does."""
    from kagflow.infer.engine import Member, predict
    from kagflow.infer.postprocess import ClassRule
    from kagflow.task.spec import TaskSpec

    labels = tuple(str(number) for number in range(1, CLASSES + 1))
    spec = TaskSpec("steel", "segmentation", labels, height=256, width=1600)
    grey = {"target": "grey", "kwargs": {}}
    member = Member("fpn", "mask", SPEC, grey, None, (folder / WEIGHTS,))
    files = [(IMAGE, folder / IMAGE)]
    (found,) = predict([member], [ClassRule()] * CLASSES, spec, files)
    assert not found.fault


def plain(folder: Path) -> None:
    """Predict as a script does."""
    import cv2
    import segmentation_models_pytorch as smp
    import torch
    from safetensors.torch import load_file

    model = smp.FPN(KWARGS["encoder"], encoder_weights=None, in_channels=1, classes=CLASSES)
    model.load_state_dict(load_file(folder / WEIGHTS))
    model.eval()
    image = cv2.imread(str(folder / IMAGE), cv2.IMREAD_GRAYSCALE)
    with torch.no_grad():
        model(torch.from_numpy(image)[None, None].float().div(255)).sigmoid()


def prepare(folder: Path) -> None:
    """Write weights and an image."""
    import cv2
    import numpy as np

    from kagflow.infer.export import save_weights
    from kagflow.infer.models import build_model

    save_weights(build_model(SPEC, classes=CLASSES), folder / WEIGHTS)
    grey = np.random.default_rng(0).integers(0, 255, (256, 1600)).astype(np.uint8)
    cv2.imwrite(str(folder / IMAGE), grey)


def pairs(count: int = PAIRS) -> list[tuple[float, float]]:
    """Return (ours, plain) seconds of new processes, in turn."""
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        prepare(Path(name))
        found = [(_seconds("ours", name), _seconds("plain", name)) for _ in range(count + 1)]
    # The first pair fills the system's cache of files.
    return found[1:]


def _seconds(arm: str, folder: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, __file__, arm, folder], check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    if len(sys.argv) == 3:
        {"ours": ours, "plain": plain}[sys.argv[1]](Path(sys.argv[2]))
    else:
        print(pairs())
