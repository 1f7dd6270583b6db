"""Which devices a kernel may use: all GPUs that really compute, else the CPU."""

from __future__ import annotations

import torch

from kagflow.errors import LocalError


def choose(wanted: object = None, *, forgiving: bool = False) -> str:
    """Return the devices to run on, separated by commas: what is `wanted`, or every GPU.

    A GPU that torch was not compiled for says that it is available and fails at its first sum, so
    each is tried. Raises LocalError for one that fails, unless `forgiving` leaves it out.
    """
    if wanted:
        return str(wanted)
    good = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = f"cuda:{number}"
        try:
            (torch.zeros(1, device=device) + 1).item()
        except RuntimeError as error:
            if not forgiving:
                raise LocalError(
                    f"{device} does not compute: {error}",
                    hint="choose another accelerator in competition.yaml",
                ) from None
        else:
            good.append(device)
    return ",".join(good) or "cpu"
