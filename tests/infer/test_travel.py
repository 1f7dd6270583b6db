"""What travels to Kaggle imports nothing that Kaggle's image or the pack's order of work lacks."""

import pkgutil
import sys

import kagflow.infer
import kagflow.task
from kagflow.process import run

FORBIDDEN = {
    *("typer", "rich", "pydantic", "yaml", "kaggle", "kagglesdk", "albumentations"),
    *("segmentation_models_pytorch", "timm", "torchvision", "starlette", "requests", "click"),
}


def names(package):
    found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    return [package.__name__, *(module.name for module in found)]


def imported(modules):
    code = f"import sys\nfor m in {modules!r}: __import__(m)\nprint(*sorted(sys.modules))"
    return set(run([sys.executable, "-c", code], timeout=120).stdout.split())


def test_task_and_infer_import_only_what_the_image_has():
    modules = names(kagflow.task) + names(kagflow.infer)
    assert len(modules) > 12
    loaded = imported(modules)
    assert set(modules) <= loaded
    assert loaded.isdisjoint(FORBIDDEN), sorted(loaded & FORBIDDEN)


def test_task_needs_no_torch():
    assert "torch" not in imported(names(kagflow.task))
