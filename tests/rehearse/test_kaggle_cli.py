"""The unmodified `kaggle` command walks the whole road against the embedded Kaggle."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest


def table(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.fixture(scope="module")
def dataset(kaggle, tmp_path_factory):
    """A dataset made by the command: a file, an empty one, a wheel and a folder sent as zip."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "a.txt").write_text("hello\n")
    (folder / "empty.bin").touch()
    (folder / "sub").mkdir()
    (folder / "sub" / "y.txt").write_text("y\n")
    with zipfile.ZipFile(folder / "lib-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("lib.py", "x = 1\n")
    metadata = {
        "id": "cli-user/tiny-pack",
        "title": "Tiny pack",
        "licenses": [{"name": "CC0-1.0"}],
    }
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata))
    done = kaggle("datasets", "create", "-p", str(folder), "--dir-mode", "zip", "-q")
    assert "private Dataset is being created" in done.stdout, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pushed(kaggle, dataset, tiny, write_kernel, wait_for, tmp_path_factory):
    """A finished kernel version that reads the competition and the dataset."""
    source = tiny.kernel() + (
        "found = [p for p in Path('/kaggle/input').rglob('y.txt')]\n"
        "Path('/kaggle/working/from-dataset.txt').write_text(found[0].read_text())\n"
    )
    folder = write_kernel(
        tmp_path_factory.mktemp("kernel"),
        source,
        ref="cli-user/tiny-kernel",
        competition=tiny.SLUG,
        dataset_sources=["cli-user/tiny-pack"],
        machine_shape="NvidiaTeslaT4",
        enable_gpu=True,
    )
    wait_for(lambda: "ready" in kaggle("datasets", "status", "cli-user/tiny-pack").stdout)
    done = kaggle("kernels", "push", "-p", str(folder), "-t", "60")
    assert "Kernel version 1 successfully pushed" in done.stdout, done.stdout + done.stderr
    followed = kaggle("kernels", "logs", "-f", "cli-user/tiny-kernel")
    assert "rerun: False" in followed.stdout
    assert "done" in followed.stdout
    return "cli-user/tiny-kernel"


def test_competitions_are_listed_with_their_files(kaggle, tiny):
    assert tiny.SLUG in kaggle("competitions", "list").stdout
    rows = table(kaggle("competitions", "files", tiny.SLUG, "-v"))
    assert {"train.csv", "sample_submission.csv", "test_images/0003.png"} <= {
        row["name"] for row in rows
    }
    assert not any("0006" in row["name"] for row in rows), "a private test image is shown"


def test_a_download_is_one_zip_of_the_public_tree(kaggle, tiny, tiny_folder, tmp_path):
    done = kaggle("competitions", "download", tiny.SLUG, "-p", str(tmp_path), "-q")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / f"{tiny.SLUG}.zip") as archive:
        assert archive.read("train.csv") == (tiny_folder / "public" / "train.csv").read_bytes()
        assert not any("0006" in name for name in archive.namelist())


def test_an_unknown_competition_is_a_denied_permission(kaggle):
    done = kaggle("competitions", "files", "no-such-thing")
    assert done.returncode == 1
    assert "403" in done.stdout + done.stderr


def test_a_wrong_key_is_refused(kaggle):
    done = kaggle("competitions", "list", key="wrong")
    assert done.returncode == 1
    assert "Authentication required" in done.stdout


def test_a_dataset_is_unpacked_and_versions_replace_it(kaggle, dataset, wait_for):
    wait_for(lambda: "ready" in kaggle("datasets", "status", "cli-user/tiny-pack").stdout)
    rows = table(kaggle("datasets", "files", "cli-user/tiny-pack", "-v"))
    sizes = {row["name"]: int(row["size"]) for row in rows}
    assert sizes.keys() == {"a.txt", "empty.bin", "sub/y.txt", "lib-1.0-py3-none-any.whl"}
    assert (sizes["a.txt"], sizes["empty.bin"]) == (6, 0)
    again = kaggle("datasets", "create", "-p", str(dataset), "-q")
    assert "already in use" in again.stdout


def test_outputs_and_log_come_back(kaggle, pushed, tmp_path):
    assert 'has status "KernelWorkerStatus.COMPLETE"' in kaggle("kernels", "status", pushed).stdout
    assert kaggle("kernels", "output", pushed, "-p", str(tmp_path), "-q").returncode == 0
    assert (tmp_path / "seen.txt").read_text() == "6\n", "a save sees the public test only"
    assert (tmp_path / "from-dataset.txt").read_text() == "y\n"
    log = json.loads((tmp_path / "tiny-kernel.log").read_text())
    assert [record["data"] for record in log] == ["rerun: False\n", "done\n"]
    assert "submission.csv" in kaggle("kernels", "files", pushed).stdout


def test_a_submission_reruns_on_the_hidden_test_and_scores(kaggle, pushed, tiny, wait_for):
    done = kaggle(
        *f"competitions submit {tiny.SLUG} -k {pushed} -v 1 -f submission.csv -m".split(), "first"
    )
    assert "Successfully submitted" in done.stdout, done.stdout + done.stderr
    assert "4 submissions remaining today" in done.stdout

    def finished():
        rows = table(kaggle("competitions", "submissions", tiny.SLUG, "-v"))
        return rows if "PENDING" not in rows[0]["status"] else None

    (row,) = wait_for(finished)
    assert (row["status"], row["description"]) == ("SubmissionStatus.COMPLETE", "first")
    assert (row["publicScore"], row["privateScore"]) == ("1.00000", "1.00000")
    board = kaggle("competitions", "leaderboard", tiny.SLUG, "--show").stdout
    assert "cli-user" in board
    assert "1.00000" in board


def test_the_quota_counts_what_a_gpu_kernel_used(kaggle, pushed, kaggle_store):
    rows = {row["resource"]: row for row in table(kaggle("quota", "-v"))}
    assert (rows["GPU"]["total"], rows["TPU"]["total"]) == ("30.00h", "20.00h")
    used = kaggle_store.row("SELECT SUM(seconds) AS s FROM session WHERE accelerator = 'gpu'")
    assert used["s"] > 0


def test_the_saved_output_is_scored_where_there_is_no_rerun(
    kaggle, tiny, write_kernel, wait_for, tmp_path, kaggle_store
):
    folder = write_kernel(
        tmp_path, tiny.kernel("tiny-saved"), ref="cli-user/saved-kernel", competition="tiny-saved"
    )
    assert "successfully pushed" in kaggle("kernels", "push", "-p", str(folder)).stdout
    kaggle("kernels", "logs", "-f", "cli-user/saved-kernel")
    words = "competitions submit tiny-saved -k cli-user/saved-kernel -v 1 -f submission.csv -m"
    assert "Successfully submitted" in kaggle(*words.split(), "one").stdout
    find = "SELECT * FROM submission WHERE competition = 'tiny-saved' AND status != 'PENDING'"
    row = wait_for(lambda: kaggle_store.row(find))
    assert (row["status"], row["public"], row["private"]) == ("COMPLETE", "1.00000", "1.00000")
    reruns = (
        "SELECT COUNT(*) AS n FROM session s JOIN kernel_version v ON v.id = s.version "
        "JOIN kernel k ON k.id = v.kernel WHERE k.slug = 'saved-kernel' AND s.kind = 'rerun'"
    )
    assert kaggle_store.row(reruns)["n"] == 0
    # One submission a day is what this competition allows.
    second = kaggle(*words.split(), "two")
    assert "400" in second.stdout + second.stderr
    assert (
        kaggle_store.row("SELECT COUNT(*) AS n FROM submission WHERE description = 'two'")["n"] == 0
    )


def test_a_dataset_version_replaces_every_file(kaggle, dataset, wait_for, tmp_path):
    """Its own dataset: kernels of other tests read the first one."""
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "old.txt").write_text("old\n")
    about = {"id": "cli-user/two-versions", "title": "Two versions"}
    about["licenses"] = [{"name": "CC0-1.0"}]
    (folder / "dataset-metadata.json").write_text(json.dumps(about))
    assert kaggle("datasets", "create", "-p", str(folder), "-q").returncode == 0
    wait_for(lambda: "ready" in kaggle("datasets", "status", "cli-user/two-versions").stdout)
    (folder / "old.txt").rename(folder / "new.txt")
    done = kaggle("datasets", "version", "-p", str(folder), "-m", "second", "-q")
    assert "Dataset version is being created" in done.stdout, done.stdout + done.stderr

    def names():
        rows = table(kaggle("datasets", "files", "cli-user/two-versions", "-v"))
        return [row["name"] for row in rows] == ["new.txt"]

    wait_for(names)


def test_a_dataset_comes_back_as_one_zip(kaggle, dataset, wait_for, tmp_path):
    wait_for(lambda: "ready" in kaggle("datasets", "status", "cli-user/tiny-pack").stdout)
    done = kaggle("datasets", "download", "cli-user/tiny-pack", "-p", str(tmp_path), "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(tmp_path / "tiny-pack.zip") as archive:
        assert archive.read("a.txt") == b"hello\n"
        assert archive.read("sub/y.txt") == b"y\n"


def test_one_file_comes_alone(kaggle, tiny, tiny_folder, tmp_path):
    words = ["competitions", "download", tiny.SLUG, "-f", "train.csv", "-p", str(tmp_path), "-q"]
    done = kaggle(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "train.csv").read_bytes() == (
        tiny_folder / "public" / "train.csv"
    ).read_bytes()


def test_the_leaderboard_comes_as_a_zip(kaggle, tiny, tmp_path):
    words = ["competitions", "leaderboard", tiny.SLUG, "--download", "-p", str(tmp_path), "-q"]
    done = kaggle(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        assert archive.read(name).startswith(b"Rank,TeamId,TeamName")


def test_a_kernel_comes_back_as_it_was_pushed(kaggle, pushed, tmp_path):
    done = kaggle("kernels", "pull", pushed, "-p", str(tmp_path), "-m")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from-dataset.txt" in (tmp_path / "tiny-kernel.py").read_text()
    told = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert told["id"] == pushed
    assert told["enable_internet"] is False
    assert told["competition_sources"] == ["tiny-squares"]


def test_a_bad_source_is_listed_and_the_command_calls_it_success(
    kaggle, tiny, write_kernel, tmp_path
):
    folder = write_kernel(
        tmp_path,
        "print(1)\n",
        ref="cli-user/bad-source",
        competition=tiny.SLUG,
        dataset_sources=["cli-user/no-such-pack"],
    )
    done = kaggle("kernels", "push", "-p", str(folder))
    assert "cli-user/no-such-pack" in done.stdout + done.stderr
    assert done.returncode == 0


def test_a_kernel_of_nobody_is_denied(kaggle):
    done = kaggle("kernels", "status", "cli-user/never-pushed")
    assert done.returncode == 1
    assert "Permission 'kernels.get' was denied" in done.stdout + done.stderr


def test_nothing_leaves_this_machine_when_the_server_is_the_proxy(kaggle_store):
    """What asks for another host gets this server's refusal instead."""
    import requests

    from kagflow.rehearse import server

    url = server.status(kaggle_store.path).url
    session = requests.Session()
    session.trust_env = False
    with pytest.raises(requests.exceptions.ProxyError):
        session.get("https://api.kaggle.com/", proxies={"https": url}, timeout=10)
