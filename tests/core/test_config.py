from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from kagflow.config import Competition, Recipe, load_recipe
from kagflow.errors import UsageError
from kagflow.overrides import examine
from kagflow.yaml_file import key_lines, parse_value, read_yaml

RECIPE = "model: {target: smp, kwargs: {arch: FPN, encoder: resnet18}}\noptimiser: {lr: 1e-3}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "fpn.yaml"
    path.write_text(RECIPE)
    return path


def test_overrides_are_laid_over_the_file(recipe: Path) -> None:
    found = load_recipe(recipe, ["optimiser.lr=3e-4", "size=[128, 800]", "model.kwargs.arch=Unet"])
    assert found.optimiser.lr == 3e-4
    assert found.size == (128, 800)
    assert found.model.kwargs == {"arch": "Unet", "encoder": "resnet18"}
    assert found.optimiser.weight_decay == 1e-2


def test_every_fault_is_named_at_once_with_the_nearest_key(recipe: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe, ["optimiser.lrr=1", "epochs=0", "predicts=maks"])
    message = caught.value.message
    assert "unknown key 'optimiser.lrr', did you mean 'lr'?" in message
    assert "'epochs': Input should be greater than or equal to 1 (got 0)" in message
    assert "'predicts': Input should be 'mask' or 'label' (got 'maks')" in message
    assert caught.value.exit_code == 2


def test_an_unknown_top_key_names_the_nearest(recipe: Path) -> None:
    with pytest.raises(UsageError, match="unknown key 'epoch', did you mean 'epochs'"):
        load_recipe(recipe, ["epoch=3"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3", 3), ("-2.5E+3", -2500.0), ("[1, 2]", [1, 2]), ("a", "a"), ("", None)],
)
def test_values_read_as_yaml_with_plain_exponents(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_a_missing_file_lists_its_neighbours(recipe: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe.with_name("unet.yaml"))
    assert caught.value.hint == "there are: fpn"


@pytest.mark.parametrize("text", ["a: [", "- 1"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize("item", ["lr", "=3", "model.target.deep=1"])
def test_a_malformed_override_is_refused(recipe: Path, item: str) -> None:
    with pytest.raises(UsageError):
        load_recipe(recipe, [item])


def test_config_is_frozen(recipe: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe).epochs = 3  # type: ignore[misc]


def test_the_task_carries_what_the_kernel_needs() -> None:
    config = Competition(slug="a-b", title="A", classes=("x", "y"), height=4, default_recipe="r")
    task = config.task()
    assert (task.slug, task.classes, task.height, task.width) == ("a-b", ("x", "y"), 4, None)
    assert task.metric == "dice"


def test_faults_one_by_one_with_their_keys(recipe: Path) -> None:
    found, faults = examine(recipe, Recipe, ["optimiser.lrr=1", "epochs=0"])
    assert (found.optimiser.lr, found.epochs) == (1e-3, 20), "what remains is still read"
    assert [(one.key, one.mend) for one in faults] == [
        ("optimiser.lrr", "did you mean 'lr'?"), ("epochs", ""),
    ]  # fmt: skip
    recipe.write_text("epochs: 3\n")
    found, faults = examine(recipe, Recipe)
    assert (found, faults[0].what) == (None, "'model' is missing")
    recipe.write_text(RECIPE)
    found, faults = examine(recipe, Recipe, ["epochs=3"])
    assert (found.epochs, faults) == (3, [])


def test_the_line_of_every_key(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "# first\nmodel:\n  target: smp\n  kwargs: {arch: FPN,\n    terms: [a, {b: 1}]}\n"
    )
    assert key_lines(path) == {
        "model": 2, "model.target": 3, "model.kwargs": 4, "model.kwargs.arch": 4,
        "model.kwargs.terms": 5, "model.kwargs.terms.0": 5, "model.kwargs.terms.1": 5,
        "model.kwargs.terms.1.b": 5,
    }  # fmt: skip


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("batch: 8\nmodel: {target: smp}\nbatch: 16\n")
    with pytest.raises(UsageError, match="key 'batch' stands twice"):
        read_yaml(path)


def test_what_may_be_replaced_is_named_and_never_torch() -> None:
    facts = {"slug": "a", "title": "A", "classes": ["x"], "default_recipe": "r"}
    found = Competition(**facts, allow_replace=["Huggingface_Hub"])
    assert found.allow_replace == ("huggingface-hub",)
    for name in ("torch", "NumPy", "nvidia-nccl-cu12"):
        with pytest.raises(ValidationError, match="stay the image's"):
            Competition(**facts, allow_replace=[name])


def test_a_back_end_brings_its_wheels_beside_what_the_competition_requires() -> None:
    facts = {"slug": "a", "title": "A", "classes": ("x",), "default_recipe": "r"}
    assert Competition(**facts, requires=("cc3d",)).packed() == ("cc3d",)
    for backend in ("auto", "onnxruntime"):
        packed = Competition(**facts, requires=("cc3d",), backend=backend).packed()
        assert [one.partition(">")[0] for one in packed] == ["cc3d", "onnx", "onnxruntime"]
    with pytest.raises(ValidationError):
        Competition(**facts, backend="openvino")


def test_pseudo_labels_bring_a_share_that_a_step_has_room_for(recipe: Path) -> None:
    assert load_recipe(recipe, ["pseudo=null"]).pseudo_share is None
    assert load_recipe(recipe, ["pseudo=default"]).pseudo_share == 0.125
    assert load_recipe(recipe, ["pseudo=a", "pseudo_share=0.25", "batch=4"]).pseudo_share == 0.25
    with pytest.raises(UsageError, match=r"'pseudo_share': .*none of the 4 images of a step"):
        load_recipe(recipe, ["pseudo=a", "batch=4"])
    assert load_recipe(recipe, ["pseudo=a", "batch=4", "accumulate=2"]).pseudo == "a"
    for bad in ("pseudo=../a", "pseudo=.a", "pseudo=a/b"):
        with pytest.raises(UsageError, match=r"'pseudo': .*the name of an ensemble"):
            load_recipe(recipe, [bad])
    with pytest.raises(UsageError, match="'pseudo_share'"):
        load_recipe(recipe, ["pseudo=a", "pseudo_share=0.6"])
