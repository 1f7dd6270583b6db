"""A tiny competition, and an embedded Kaggle of this test run's own to walk through."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kagflow import process


def _load_tiny():
    # Under importlib mode, neighbours are no importable names.
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny():
    """The module that makes the tiny competition: make_facts, make_folder, kernel, SLUG."""
    return _load_tiny()


@pytest.fixture(scope="session")
def tiny_folder(tiny, tmp_path_factory):
    """A prepared folder {public, hidden, solution.csv}."""
    return tiny.make_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def store(tiny, tiny_folder, tmp_path):
    """A fresh store with the competition in it, under `rerun: hidden`."""
    from kagflow.rehearse.store import Store

    made = Store(tmp_path / "store")
    made.add_competition(tiny.make_facts(), tiny_folder)
    return made


def saved_facts(tiny):
    """The same competition as one that scores the saved output, with one submission a day."""
    facts = tiny.make_facts(
        slug="tiny-saved", title="Tiny Saved", rerun="none", daily_submissions=1
    )
    return replace(facts, task=replace(facts.task, slug="tiny-saved"))


@pytest.fixture(scope="session")
def kaggle_store(tiny, tiny_folder, tmp_path_factory):
    """A store with both kinds of competition, served for the whole session."""
    from kagflow.rehearse import server, settings
    from kagflow.rehearse.store import Store

    folder = tmp_path_factory.mktemp("kaggle") / "store"
    store = Store(folder)
    store.add_competition(tiny.make_facts(), tiny_folder)
    store.add_competition(saved_facts(tiny), tiny_folder)
    # Every run draws where its inputs are, the same in each run of the tests.
    settings.change(folder, mount_layout="random", mount_seed=1)
    server.ensure(folder)
    yield store
    server.stop(folder)


@pytest.fixture(scope="session")
def sdk(kaggle_store):
    """Kaggle's own SDK client, its endpoint turned to the embedded Kaggle."""
    from kagglesdk import KaggleClient, KaggleEnv

    from kagflow.rehearse import server

    client = KaggleClient(env=KaggleEnv.LOCAL, username="sdk-user", password="local")
    client.http_client()._endpoint = server.status(kaggle_store.path).url
    return client


@pytest.fixture(scope="session")
def kaggle(kaggle_store, tmp_path_factory):
    """The unmodified `kaggle` command: kaggle("quota") -> Completed."""
    from kagflow.rehearse import server

    home = tmp_path_factory.mktemp("kaggle-home")

    def command(*words, cwd=home, user="cli-user", key="local"):
        url = server.status(kaggle_store.path).url
        env = {
            "PATH": os.defpath,
            "HOME": str(home),
            "TMPDIR": str(home),
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_USERNAME": user,
            "KAGGLE_KEY": key,
            "http_proxy": url,
            "https_proxy": url,
            # Where another release of the client is tried, it is found here.
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        return process.run(
            [Path(sys.executable).with_name("kaggle"), *words],
            env=env,
            cwd=cwd,
            check=False,
            timeout=60,
        )

    return command


def wait_for(answer, *, seconds=60):
    """Call until something true comes back."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = answer()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("nothing came in time")


@pytest.fixture(scope="session", name="wait_for")
def wait_for_fixture():
    return wait_for


def write_kernel(folder, source, *, ref, competition, **changes):
    """Write a folder that `kaggle kernels push` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.py").write_text(source)
    metadata = {
        "id": ref,
        "title": ref.partition("/")[2].replace("-", " "),
        "code_file": "kernel.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_internet": False,
        "competition_sources": [competition],
        **changes,
    }
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture(scope="session", name="write_kernel")
def write_kernel_fixture():
    return write_kernel
