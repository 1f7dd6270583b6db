"""Build a model whose weights come from a file, without what that does not need.

timm and torchvision import torch's compiler, which takes twice as long as they do, for what only
compiled models need: whether a device can be compiled for, and that a function is to be left out.
Drawing weights at random imports it, too, where smp asks timm for a model without memory.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

COMPILER = "torch._dynamo.utils"
QUESTION = "is_compile_supported"


class _Later(ModuleType):
    """Stands for the compiler's module until something of it is really wanted."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self), name)


@contextlib.contextmanager
def building() -> Iterator[None]:
    """Leave the weights of models built here as memory gives them, and the compiler where it is.

    Who asks for the compiler gets it all the same; but what is imported here for the first time
    should not be compiled in this process.
    """
    with contextlib.ExitStack() as stack:
        names = (name for name in vars(nn.init) if re.fullmatch(r"[a-z]\w*_", name))
        drawing: dict[str, Any] = dict.fromkeys(names, _unchanged)
        stack.enter_context(mock.patch.multiple(nn.init, **drawing))
        if "torch._dynamo" not in sys.modules:
            stack.enter_context(mock.patch.object(torch.compiler, "disable", _disable))
            later = _Later(COMPILER)
            vars(later)[QUESTION] = partial(_ask, later)
            sys.modules[COMPILER] = later
            stack.callback(_give_way, later)
        yield


def _ask(later: ModuleType, *given: Any) -> Any:
    return getattr(_real(later), QUESTION)(*given)


def _unchanged(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    """Stand for what draws a weight."""
    return tensor


def _disable(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """Leave a function as it is: nothing here is compiled."""
    return function or (lambda given: given)


def _real(later: ModuleType) -> ModuleType:
    _give_way(later)
    return importlib.import_module(COMPILER)


def _give_way(later: ModuleType) -> None:
    if sys.modules.get(COMPILER) is later:
        del sys.modules[COMPILER]
