"""A pack: two flat halves named by their bytes, without credentials, checked when used again."""

from __future__ import annotations

import base64
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kagflow import durable
from kagflow.errors import DataError, RefusedError
from kagflow.fingerprint import load_snapshot
from kagflow.ship import pack as packs
from kagflow.ship import parts, secrets
from kagflow.ship.pack import Pack, build_pack, read_pack

CONFIG = {"schema": 1, "members": [{"name": "a", "weights": ["a.fold0.safetensors"]}]}
HEX = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGFLOW_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "competitions" / "rolls"
    folder.mkdir(parents=True)
    (folder / "competition.yaml").write_text("slug: rolls\n")
    (folder / "__init__.py").touch()
    weights = tmp_path / "exported.safetensors"
    weights.write_bytes(bytes(range(256)) * 64)
    return {
        "weights": {"a.fold0.safetensors": weights},
        "config": CONFIG,
        "competition_folder": folder,
        "fingerprint": load_snapshot(),
    }


def contents(pack: Pack) -> dict[str, bytes]:
    files = (file for file in pack.path.rglob("*") if file.is_file())
    return {str(file.relative_to(pack.path)): file.read_bytes() for file in files}


def test_two_builds_are_the_same_bytes(inputs: dict[str, Any], tmp_path: Path) -> None:
    first = build_pack(tmp_path / "one", **inputs)
    second = build_pack(tmp_path / "two", **inputs)
    assert first.hash == second.hash == first.path.name
    assert contents(first) == contents(second)
    assert (first.reused, second.reused) == (False, False)


def test_proofs_stand_beside_a_pack_and_not_in_its_hash(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    pack = build_pack(tmp_path, **inputs)
    told = json.loads((tmp_path / f"{pack.hash}.proofs.json").read_text())
    assert told["pack"] == pack.hash
    assert told["resolver"].endswith(pack.offline)
    assert [one["name"] for one in told["proofs"]] == [one.name for one in pack.proofs]
    assert {name.split("-")[0] for name in told["wheels"]} == {"segmentation_models_pytorch"}
    assert "replaced" not in pack.env.manifest


def test_an_import_that_nothing_provides_stops_the_pack(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    code = "def late():\n    import hypothesis\n"
    (inputs["competition_folder"] / "models.py").write_text(code)
    member = {
        "name": "a",
        "weights": ["a.fold0.safetensors"],
        "model": {"target": "rolls.models:X"},
    }
    inputs["config"] = {"schema": 1, "members": [member]}
    with pytest.raises(DataError, match=r"rolls\.models imports hypothesis") as told:
        build_pack(tmp_path / "packs", **inputs)
    assert "requires" in told.value.hint
    assert not (tmp_path / "packs").exists()


def test_the_same_inputs_are_not_built_again(inputs: dict[str, Any], tmp_path: Path) -> None:
    first = build_pack(tmp_path, **inputs)
    before = {file: file.stat().st_mtime_ns for file in first.path.rglob("*")}
    second = build_pack(tmp_path, **inputs)
    assert second.reused
    assert second.path == first.path
    assert {file: file.stat().st_mtime_ns for file in first.path.rglob("*")} == before
    assert [wheel.file for wheel in second.wheels] == [wheel.file for wheel in first.wheels]


@pytest.mark.parametrize(
    ("what", "changed"),
    [("weights", {"weights"}), ("config", {"weights"}), ("code", {"env"}), ("image", {"env"})],
)
def test_any_other_input_gives_another_pack_and_one_half_stays(
    inputs: dict[str, Any], tmp_path: Path, what: str, changed: set[str]
) -> None:
    first = build_pack(tmp_path, **inputs)
    if what == "weights":
        inputs["weights"]["a.fold0.safetensors"].write_bytes(b"other")
    if what == "config":
        inputs["config"] = {**CONFIG, "batch": 3}
    if what == "code":
        (inputs["competition_folder"] / "models.py").write_text("X = 1\n")
    if what == "image":
        held = {**load_snapshot().distributions, "numpy": "2.1.0"}
        kind = type(load_snapshot())
        inputs["fingerprint"] = kind("other", "3.12", "2.35", "12.8", True, held)
    second = build_pack(tmp_path, **inputs)
    assert second.hash != first.hash
    pairs = zip(first.parts, second.parts, strict=True)
    assert {one.name for one, other in pairs if one.hash != other.hash} == changed
    (kept,) = {"env", "weights"} - changed
    for file in (first.path / kept).iterdir():
        assert (second.path / kept / file.name).read_bytes() == file.read_bytes()


def test_the_halves_are_flat_and_tell_all(inputs: dict[str, Any], tmp_path: Path) -> None:
    pack = build_pack(tmp_path, **inputs)
    names = {part.name: sorted(file.name for file in part.path.iterdir()) for part in pack.parts}
    assert all(packs.FLAT_NAME.fullmatch(name) for name in [*names["env"], *names["weights"]])
    assert names["weights"] == ["a.fold0.safetensors", "config.json", "manifest.json"]
    assert [name.split("-")[0] for name in names["env"]] == [
        "kagflow_runtime", "manifest.json", "segmentation_models_pytorch"]  # fmt: skip
    whole = json.loads((pack.path / "manifest.json").read_text())
    assert whole["pack"] == pack.hash
    assert whole["parts"] == {"env": pack.env.hash, "weights": pack.weights.hash}
    for part in pack.parts:
        manifest = json.loads((part.path / "manifest.json").read_text())
        assert manifest == parts.sealed(manifest, "hash") == part.manifest
        assert (manifest["part"], manifest["hash"]) == (part.name, part.hash)
        assert set(manifest["files"]) == set(names[part.name]) - {"manifest.json"}
        for name, facts in manifest["files"].items():
            assert facts["sha256"] == durable.sha256_file(part.path / name)
            assert facts["bytes"] == (part.path / name).stat().st_size
        assert part.files[-1].name == "manifest.json"
    assert pack.env.manifest["relied_on"]["timm"] == "1.0.26"
    assert (pack.env.manifest["python"], pack.env.manifest["approximate"]) == ("3.12", True)
    assert pack.bytes == sum(len(data) for data in contents(pack).values()) - len(
        (pack.path / "manifest.json").read_bytes()
    )
    assert {(wheel.name, wheel.origin) for wheel in pack.wheels} == {
        ("kagflow_runtime", "rebuilt"), ("segmentation-models-pytorch", "rebuilt")}  # fmt: skip
    assert all(wheel.file.is_file() for wheel in pack.wheels)


def test_what_was_read_is_what_was_built(inputs: dict[str, Any], tmp_path: Path) -> None:
    built = build_pack(tmp_path, **inputs)
    read = read_pack(built.path)
    assert (read.hash, read.parts) == (built.hash, built.parts)


def test_a_pack_of_an_earlier_kagflow_is_to_be_packed_again(tmp_path: Path) -> None:
    old = {"schema": 1, "files": {}, "python": "3.12", "pack": "0" * 16}
    durable.write_json(tmp_path / "manifest.json", old)
    with pytest.raises(DataError, match="earlier kagflow, as one dataset") as told:
        read_pack(tmp_path)
    assert "kagflow pack" in told.value.hint


@pytest.mark.parametrize("name", ["a=1.safetensors", "sub/a.safetensors", "a&b", "manifest.json"])
def test_a_name_that_kaggle_refuses_is_refused_here(
    inputs: dict[str, Any], tmp_path: Path, name: str
) -> None:
    inputs["weights"] = {name: inputs["weights"]["a.fold0.safetensors"]}
    inputs["config"] = {"members": [{"weights": [name]}]}
    with pytest.raises(DataError, match="can't be a file of a Kaggle dataset"):
        build_pack(tmp_path, **inputs)


def test_assets_travel_like_weights(inputs: dict[str, Any], tmp_path: Path) -> None:
    asset = tmp_path / "references"
    asset.write_bytes(b"frames")
    inputs["weights"] |= {"a.fold0.references.asset": asset}
    with pytest.raises(DataError, match="references"):
        build_pack(tmp_path / "packs", **inputs)
    member = CONFIG["members"][0] | {"assets": {"references": "a.fold0.references.asset"}}
    inputs["config"] = CONFIG | {"members": [member]}
    pack = build_pack(tmp_path / "packs", **inputs)
    assert (pack.weights.path / "a.fold0.references.asset").read_bytes() == b"frames"
    assert pack.weights.manifest["files"]["a.fold0.references.asset"]["bytes"] == 6


def test_weights_and_members_must_agree(inputs: dict[str, Any], tmp_path: Path) -> None:
    inputs["config"] = {"members": [{"weights": ["b.safetensors"]}]}
    with pytest.raises(DataError, match="do not name the same files"):
        build_pack(tmp_path, **inputs)


def test_a_weight_in_pieces_is_the_one_that_its_member_names(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    (file,) = inputs["weights"].values()
    inputs["weights"] = {f"a.fold0.{number}of2.safetensors": file for number in (1, 2)}
    pack = build_pack(tmp_path / "packs", **inputs)
    assert set(inputs["weights"]) < set(pack.weights.manifest["files"])
    inputs["weights"] = {f"b.fold0.{number}of2.safetensors": file for number in (1, 2)}
    with pytest.raises(DataError, match="do not name the same files"):
        build_pack(tmp_path / "packs", **inputs)


def test_a_linked_weight_is_refused(inputs: dict[str, Any], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(inputs["weights"]["a.fold0.safetensors"])
    inputs["weights"] = {"a.fold0.safetensors": link}
    with pytest.raises(DataError, match="no regular file"):
        build_pack(tmp_path, **inputs)


@pytest.mark.parametrize(
    "fault", ["flip", "remove", "add", "beside", "manifest", "whole", "swap", "half"]
)
def test_a_damaged_pack_is_not_used_again(
    inputs: dict[str, Any], tmp_path: Path, fault: str
) -> None:
    pack = build_pack(tmp_path / "packs", **inputs)
    weights = pack.weights.path / "a.fold0.safetensors"
    if fault == "flip":
        data = bytearray(weights.read_bytes())
        data[100] ^= 1
        weights.write_bytes(data)
    if fault == "remove":
        weights.unlink()
    if fault == "add":
        (pack.env.path / "more.bin").touch()
    if fault == "beside":
        (pack.path / "more.bin").touch()
    if fault == "manifest":
        manifest = {**pack.env.manifest, "python": "3.13"}
        durable.write_json(pack.env.path / "manifest.json", manifest)
    if fault == "whole":
        durable.write_json(pack.path / "manifest.json", {"schema": 2, "parts": {}, "pack": "0"})
    if fault == "swap":
        # A half that is whole, but another pack's.
        manifest = parts.sealed({**pack.env.manifest, "python": "3.13"}, "hash")
        durable.write_json(pack.env.path / "manifest.json", manifest)
    if fault == "half":
        shutil.rmtree(pack.env.path)
    for again in (lambda: build_pack(tmp_path / "packs", **inputs), lambda: read_pack(pack.path)):
        with pytest.raises(DataError) as told:
            again()
        assert "pack again" in told.value.hint
        assert str(pack.path) in told.value.hint


def test_a_build_that_fails_leaves_nothing(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        build_pack(tmp_path / "packs", **inputs)
    assert list((tmp_path / "packs").iterdir()) == []


@pytest.mark.parametrize("where", ["code", "weights", "config"])
def test_a_planted_secret_is_refused(inputs: dict[str, Any], tmp_path: Path, where: str) -> None:
    token = "KGAT_" + HEX
    if where == "code":
        (inputs["competition_folder"] / "models.py").write_text(f"TOKEN = '{token}'\n")
    if where == "weights":
        inputs["weights"]["a.fold0.safetensors"].write_bytes(b"\0" * 99 + token.encode() + b"\0")
    if where == "config":
        inputs["config"] = {**CONFIG, "note": token}
    with pytest.raises(RefusedError, match=r"Kaggle token \(ends in cdef\)") as told:
        build_pack(tmp_path / "packs", **inputs)
    assert token not in told.value.message
    assert ("rolls/models.py" in told.value.message) == (where == "code")
    assert not (tmp_path / "packs").exists()


LEGACY = json.dumps({"username": "someone", "key": HEX})
PLANTED = [
    "KGAT_" + HEX,
    LEGACY,
    json.dumps({"key": HEX, "username": "someone"}),
    json.dumps({"source": LEGACY}),
    f"export KAGGLE_KEY={HEX}",
    f'KAGGLE_API_TOKEN = "{HEX}"',
    "hf_" + "aB" * 17,
    "ghp_" + "a1" * 18,
    "AIza" + "aB3_x" * 7,
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    "AKIA" + "A1" * 8,
    "machine api.wandb.ai login user password " + "0a" * 20,
    "sk-" + "a1B2" * 6,
]


@pytest.mark.parametrize("secret", PLANTED)
def test_every_rule_finds_its_secret_plain_and_zipped(secret: str, tmp_path: Path) -> None:
    plain = tmp_path / "file.txt"
    plain.write_bytes(b"\x80 before\n" + secret.encode() + b"\nafter")
    leaks = secrets.scan_file(plain)
    assert len(leaks) == 1
    assert len(leaks[0].tail) <= 4
    with zipfile.ZipFile(tmp_path / "file.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(plain, "inner/file.txt")
    assert [leak.where for leak in secrets.scan_file(tmp_path / "file.whl")] == [
        "file.whl/inner/file.txt"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "mask-predictions-of-the-second-stage",
        "os.environ['KAGGLE_KEY']",
        '{"username": "me", "key": "value"}',
        base64.b64encode(bytes(range(256)) * 8).decode(),
        "the password is typed by hand",
    ],
)
def test_ordinary_text_is_no_secret(text: str) -> None:
    assert list(secrets.scan_bytes(text.encode(), "x")) == []
