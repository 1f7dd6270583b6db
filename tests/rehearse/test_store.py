from __future__ import annotations

import json
import shutil
import zipfile

import pytest

from kagflow.errors import DataError, RefusedError
from kagflow.rehearse import facts as facts_file
from kagflow.rehearse.facts import CompetitionFacts
from kagflow.rehearse.store import Store


def test_facts_survive_the_disk(tiny, tmp_path):
    facts = tiny.make_facts(inference_minutes=2.5)
    facts_file.write(tmp_path / "facts.json", facts)
    assert facts_file.read(tmp_path / "facts.json") == facts


@pytest.mark.parametrize("damage", [{"rerun": None}, {"more": 1}])
def test_facts_with_other_keys_are_refused(tiny, damage):
    values = tiny.make_facts().to_dict() | damage
    values = {key: value for key, value in values.items() if value is not None}
    with pytest.raises(DataError, match=next(iter(damage))):
        CompetitionFacts.from_dict(values)


def test_a_competition_is_there_for_the_next_process(store, tiny):
    assert store.has_competition(tiny.SLUG)
    assert not store.has_competition("other")
    assert not store.has_competition(f"../competitions/{tiny.SLUG}")
    again = Store(store.path)
    assert (again.id, again.token) == (store.id, store.token)
    assert again.competitions() == [tiny.make_facts()]


def test_the_same_data_again_changes_only_the_facts(store, tiny, tiny_folder):
    before = (store.competition_folder(tiny.SLUG) / "solution.csv").stat().st_mtime_ns
    store.add_competition(tiny.make_facts(daily_submissions=9), tiny_folder)
    assert store.competition(tiny.SLUG).daily_submissions == 9
    after = (store.competition_folder(tiny.SLUG) / "solution.csv").stat().st_mtime_ns
    assert after == before


def test_other_data_under_the_same_slug_is_refused(store, tiny, tiny_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    (other / "solution.csv").write_text((other / "solution.csv").read_text().upper())
    with pytest.raises(RefusedError):
        store.add_competition(tiny.make_facts(), other)


def test_half_a_folder_leaves_nothing(tiny, tiny_folder, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(tiny_folder / "public", half / "public")
    store = Store(tmp_path / "store")
    with pytest.raises(DataError, match="hidden"):
        store.add_competition(tiny.make_facts(), half)
    assert store.competitions() == []
    assert not list((tmp_path / "store").glob("competitions/*"))


def test_a_rerun_sees_the_public_tree_with_the_hidden_test_in_it(store, tiny):
    tree = store.rerun_tree(tiny.SLUG)
    assert len(list((tree / "test_images").iterdir())) == 7
    assert len(list((tree / "train_images").iterdir())) == 3
    hidden = store.competition_folder(tiny.SLUG) / "hidden" / "sample_submission.csv"
    assert (tree / "sample_submission.csv").read_text() == hidden.read_text()
    assert not (tree / "solution.csv").exists()


def test_what_is_shown_follows_the_kind_of_competition(store, tiny, tiny_folder):
    with zipfile.ZipFile(store.archive(tiny.SLUG)) as archive:
        assert sum(name.startswith("test_images/") for name in archive.namelist()) == 3
    store.add_competition(tiny.make_facts(rerun="none"), tiny_folder)
    with zipfile.ZipFile(store.archive(tiny.SLUG)) as archive:
        assert sum(name.startswith("test_images/") for name in archive.namelist()) == 7
        assert "solution.csv" not in archive.namelist()


def test_a_failed_write_leaves_nothing(store):
    def half():
        with store.write() as db:
            db.execute("INSERT INTO blob (token, name, size) VALUES ('t', 'n', 1)")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        half()
    assert store.rows("SELECT * FROM blob") == []


def test_unreadable_facts_are_named(store, tiny):
    path = store.competition_folder(tiny.SLUG) / "facts.json"
    path.write_text(json.dumps([])[:-1])
    with pytest.raises(DataError, match=r"facts\.json"):
        store.competition(tiny.SLUG)
