"""The slim wheel: the same bytes each time, and nothing in it that Kaggle's image can't import."""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kagflow import process
from kagflow.errors import DataError
from kagflow.ship import runtime, wheelfile

# The import names of runtime.IMPORTED.
IMAGE = {"cv2", "numpy", "pandas", "safetensors", "timm", "torch"}
NEVER = {"albumentations", "kaggle", "kagglesdk", "pydantic", "rich", "typer", "yaml"}


@pytest.fixture
def competition(tmp_path: Path) -> Path:
    folder = tmp_path / "competitions" / "rolls"
    (folder / "recipes").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "__init__.py").write_text('"""Rolls."""\n')
    (folder / "models.py").write_text("NAME = 'net'\n")
    (folder / "competition.yaml").write_text("slug: rolls\n")
    (folder / "recipes" / "base.yaml").write_text("epochs: 1\n")
    for name in ("LOG.md", "frame.jpg", "__pycache__/models.cpython-311.pyc", ".hidden/x.py"):
        (folder / name).write_text("not for the kernel")
    return folder


def imports(source: bytes, *, everywhere: bool) -> Iterator[str]:
    tree = ast.parse(source)
    nodes = list(ast.walk(tree)) if everywhere else list(at_module_level(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_module_level(child)


def test_the_wheel_is_the_same_bytes_each_time(competition: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = (runtime.build_runtime(competition, folder) for folder in (one, two))
    assert first.read_bytes() == second.read_bytes()
    assert first.name.startswith("kagflow_runtime-")
    assert first.name.endswith("-py3-none-any.whl")
    (competition / "models.py").write_text("NAME = 'other'\n")
    assert runtime.build_runtime(competition, one).read_bytes() != second.read_bytes()


def test_the_wheel_holds_what_travels_and_no_more(competition: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(runtime.build_runtime(competition, tmp_path)) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    rolls = {name for name in names if name.startswith("rolls/")}
    assert rolls == {f"rolls/{name}" for name in (
        "__init__.py", "models.py", "competition.yaml", "recipes/base.yaml")}  # fmt: skip
    tops = {Path(name).parts[1] for name in names - rolls}
    assert tops == {*runtime.CORE, *runtime.ROOMS}
    assert {"kagflow/infer/kernel.py", "kagflow/task/rle.py"} <= names


def test_module_level_imports_exist_inside_the_kernel(competition: Path) -> None:
    files = {
        name: data
        for name, data in runtime.runtime_files(competition).items()
        if name.startswith("kagflow/") and name.endswith(".py")
    }
    modules = {
        ".".join(Path(name).with_suffix("").parts).removesuffix(".__init__") for name in files
    }
    for name, data in files.items():
        for module in imports(data, everywhere=False):
            top = module.partition(".")[0]
            assert top in sys.stdlib_module_names | IMAGE | {"kagflow"}, f"{name}: {module}"
        for module in imports(data, everywhere=True):
            assert module.partition(".")[0] not in NEVER, f"{name}: {module}"
            if module.startswith("kagflow"):
                inside = {module, module.rpartition(".")[0]} & modules
                assert inside - {"kagflow"} or module == "kagflow" or module in modules, (
                    f"{name} imports {module}, which does not travel"
                )


def test_metadata_declares_what_is_imported(competition: Path, tmp_path: Path) -> None:
    metadata = wheelfile.read_metadata(runtime.build_runtime(competition, tmp_path))
    declared = metadata.get_all("Requires-Dist")
    assert {text.partition("=")[0].partition(">")[0] for text in declared} == set(runtime.IMPORTED)
    pinned = [text for text in declared if text.startswith("segmentation-models-pytorch==")]
    assert len(pinned) == 1
    assert metadata["Name"] == "kagflow_runtime"


def test_the_wheel_imports_where_kagflow_is_not_installed(
    competition: Path, tmp_path: Path
) -> None:
    wheel = runtime.build_runtime(competition, tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r});"
        "import kagflow.errors, kagflow.durable, kagflow.resolve, rolls.models;"
        "print(kagflow.__file__, kagflow.resolve.resolve('rolls.models:NAME', {}))"
    )
    told = process.run([sys.executable, "-I", "-S", "-c", code]).stdout.split()
    assert told == [f"{wheel}/kagflow/__init__.py", "net"]


@pytest.mark.parametrize("name", ["kagflow", "json", "with-dash"])
def test_a_folder_that_cannot_be_a_package_is_refused(
    competition: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(DataError, match="travels as a Python package"):
        runtime.build_runtime(competition.rename(competition.parent / name), tmp_path)


def test_a_link_does_not_travel(competition: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("X = 1\n")
    (competition / "linked.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(DataError, match=r"linked\.py is a link"):
        runtime.build_runtime(competition, tmp_path)


def test_a_folder_without_competition_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no competition\.yaml"):
        runtime.build_runtime(tmp_path / "empty", tmp_path)
