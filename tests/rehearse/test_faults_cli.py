"""Faults from a running store's file, as the unmodified kaggle command sees them."""

from __future__ import annotations

import pytest

from kagflow.rehearse import faults
from kagflow.rehearse.faults import NAMED, Fault


@pytest.fixture
def plan(kaggle_store):
    yield lambda *planned: faults.write(kaggle_store.path, planned)
    faults.write(kaggle_store.path, ())


def test_a_flat_refusal_keeps_its_text_and_a_nested_one_loses_it(kaggle, plan):
    for shape, kept in (("flat", True), ("nested", False)):
        plan(Fault("ListDataFiles", "status", status=403, text="no luck today", shape=shape))
        done = kaggle("competitions", "files", "tiny-squares")
        assert done.returncode == 1
        assert ("no luck today" in done.stdout + done.stderr) is kept
    plan()
    assert kaggle("competitions", "files", "tiny-squares").returncode == 0


def test_a_refused_push_looks_well_to_a_shell(kaggle, plan, tiny, tmp_path, write_kernel):
    folder = write_kernel(
        tmp_path / "k", tiny.kernel(), ref="cli-user/no-slot-left", competition=tiny.SLUG
    )
    plan(NAMED["no-slot"])
    done = kaggle("kernels", "push", "-p", folder)
    assert done.returncode == 0
    assert "session count of 2" in done.stdout


def test_a_cut_download_ends_whole(kaggle, kaggle_store, plan, tiny, tmp_path):
    plan(NAMED["cut-download"])
    done = kaggle("competitions", "download", tiny.SLUG, "-p", tmp_path)
    assert done.returncode == 0
    archive = kaggle_store.archive(tiny.SLUG)
    assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()
