import json

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.infer import kernel
from kagflow.infer.engine import Settings, members_from_config, predict
from kagflow.infer.kernel import find_images, main
from kagflow.infer.meter import key_of
from kagflow.task.check import check_submission
from kagflow.task.costs import Costs, from_log
from kagflow.task.submission import read_submission


@pytest.fixture
def working(tmp_path):
    folder = tmp_path / "working"
    folder.mkdir()
    return folder


def report(working):
    return json.loads((working / "kagflow-report.json").read_text())


@pytest.mark.parametrize("rerun", [False, True])
def test_the_kernel_writes_what_predict_says(pack, member, competition, working, rerun, capsys):
    folder, spec = competition
    packed = pack(member("Bright", folds=2, tta=("none", "hflip")))
    main(packed, folder, working, rerun=rerun)
    sample = folder / "sample_submission.csv"
    assert check_submission(working / "submission.csv", spec, sample) == []
    config = json.loads((packed / "config.json").read_text())
    members, rules, spec = members_from_config(config, packed)
    files = [(p.name, p) for p in sorted((folder / "test_images").iterdir())]
    local = {p.image_id: p.rows for p in predict(members, rules, spec, files)}
    assert read_submission(working / "submission.csv", spec) == local
    assert all(local.values())
    done = report(working)
    assert (done["images"], done["predicted"], done["nonempty"], done["error"]) == (12, 12, 12, "")
    assert done["mode"] == ("rerun" if rerun else "save")
    assert done["seconds_per_image"] > 0
    assert capsys.readouterr().out.count("images, ") >= 10


def test_a_failure_on_save_removes_the_csv_and_is_raised(pack, member, competition, working):
    (working / "submission.csv").write_text("stale")
    with pytest.raises(RuntimeError, match="fell off the bus"):
        main(pack(member("Crash", after=1)), competition[0], working, rerun=False)
    assert not (working / "submission.csv").exists()
    assert "fell off the bus" in report(working)["error"]


def test_a_failure_in_the_rerun_keeps_what_is_predicted(pack, member, competition, working, capsys):
    folder, spec = competition
    main(pack(member("Crash", after=1), batch=1), folder, working, rerun=True)
    sample = folder / "sample_submission.csv"
    assert check_submission(working / "submission.csv", spec, sample) == []
    rows = read_submission(working / "submission.csv", spec)
    assert [image_id for image_id, found in rows.items() if found] == ["i00.png"]
    assert report(working)["predicted"] == 1
    assert "RuntimeError" in capsys.readouterr().err


def test_the_rerun_writes_an_empty_file_before_anything_can_fail(
    pack, member, competition, working, monkeypatch
):
    folder, spec = competition
    seen = []

    def look(config, pack):
        seen.append(read_submission(working / "submission.csv", spec))
        raise MemoryError("no room for the models")

    monkeypatch.setattr(kernel, "members_from_config", look)
    main(pack(member("Bright")), folder, working, rerun=True)
    assert len(seen[0]) == 12
    assert not any(seen[0].values())
    assert read_submission(working / "submission.csv", spec) == seen[0]
    assert "no room" in report(working)["error"]


def test_the_rerun_replaces_the_file_as_it_goes(pack, member, competition, working, monkeypatch):
    folder, spec = competition
    counts = []
    say = kernel._say

    def look(text):
        say(text)
        if (working / "submission.csv").exists():
            rows = read_submission(working / "submission.csv", spec)
            counts.append(sum(map(bool, rows.values())))

    monkeypatch.setattr(kernel, "_say", look)
    main(pack(member("Bright"), batch=1), folder, working, rerun=True)
    assert counts == sorted(counts)
    assert len(set(counts)) > 3


def test_a_corrupt_image_is_an_empty_row_in_both_modes(pack, member, competition, working):
    folder, spec = competition
    (folder / "test_images" / "i04.png").write_bytes(b"\x89PNG")
    (folder / "test_images" / "i05.png").unlink()
    for rerun in (False, True):
        main(pack(member("Bright")), folder, working, rerun=rerun)
        rows = read_submission(working / "submission.csv", spec)
        assert [i for i, found in rows.items() if not found] == ["i04.png", "i05.png"]
        assert sorted(report(working)["faults"]) == ["i04.png", "i05.png"]


def test_members_run_and_are_shed_in_the_order_of_the_ensembles_list(
    pack, member, competition, working, monkeypatch
):
    folder, _ = competition
    (folder / "test_images" / "i11.png").unlink()
    members = [
        member("Bright", middle=0.4, tta=("none", "hflip")),
        member("Slow", seconds=0.3),
        member("MeanLabel", predicts="label"),
    ]
    limits = {"inference_minutes": 2.0 / 60 / kernel.SHARE}
    packed = pack(*members, batch=1, limits=limits, shedding=["Bright", "Slow"])
    asked = []

    def look(members, rules, spec, files, *, settings):
        asked.append(([one.name for one in members], [p.views for p in settings.governor.plans]))
        return predict(members, rules, spec, files, settings=settings)

    monkeypatch.setattr(kernel, "predict", look)
    main(packed, folder, working, rerun=True)
    assert asked == [(["Slow", "Bright", "MeanLabel"], [(1, 2), (1, 1), (1, 0), (0, 0)])]
    # The dear one is worth most a second: what there is no time for is empty, or has it alone.
    assert set(report(working)["shed"]) <= {"1+1", "1+0", "0+0"}
    assert report(working)["late"] > 0


def test_costs_travel_and_tell_of_members_that_never_ran(pack, member, competition, working):
    from dataclasses import replace

    packed = pack(member("Bright", tta=("none", "hflip")), member("MeanLabel", predicts="label"))
    config = json.loads((packed / "config.json").read_text())
    for entry, seconds in zip(config["members"], (3.0, 0.5), strict=True):
        entry["seconds_per_image"] = seconds
    run = kernel.Run(config, packed, competition[0], working, rerun=True, boot=0.0)
    members, _, spec = members_from_config(config, packed)
    members, shed = run._order([*members, replace(members[0], name="Next", seconds=0.0)], spec)
    governor = run._governor(members, 12, shed)
    assert governor.priors == [1.5, 0.0]
    assert governor.gate_prior == 0.5


def test_a_run_tells_what_each_stage_took_in_its_report_and_its_log(
    pack, member, competition, working, capsys
):
    members = [
        member("Slow", seconds=0.05, tta=("none", "hflip")),
        member("MeanLabel", predicts="label", offset=100.0),
    ]
    rules = [{"threshold": 0.5, "gate": 0.1}] * 2
    main(pack(*members, batch=2, rules=rules), competition[0], working, rerun=False)
    told = report(working)["costs"]
    assert from_log(capsys.readouterr().out.splitlines()) == told
    costs = Costs.from_dict(told)
    assert [(one.name, one.gate) for one in costs.members] == [("Slow", False), ("MeanLabel", True)]
    # Two views of a batch of two, .05 s each.
    assert 0.05 <= costs.members[0].seconds < costs.total
    assert costs.passed == costs.gated == costs.images == 12
    assert costs.decode > 0
    assert costs.finish > 0
    assert costs.total > 0
    assert costs.lanes == 1
    assert "threads of" in costs.machine


def test_what_decides_a_members_cost_has_one_key(member):
    from dataclasses import replace

    one = member("Bright")
    assert key_of(one) == key_of(replace(one, name="other", weight=0.3, seconds=9.0))
    others = [
        replace(one, tta=("none", "hflip")),
        replace(one, size=(8, 8)),
        replace(one, weights=one.weights * 2),
        replace(one, model={**one.model, "kwargs": {"gain": 1.0}}),
    ]
    assert len({key_of(each) for each in (one, *others)}) == 5


def test_ids_without_a_suffix_find_their_files(tmp_path):
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4), np.uint8))
    found = dict(find_images(tmp_path, iter(["a", "b.jpg", "c"])))
    assert found == {"a": tmp_path / "a.png", "b.jpg": tmp_path / "b.jpg", "c": tmp_path / "c"}
    with pytest.raises(DataError, match="none of the 2 images"):
        find_images(tmp_path, iter(["x", "y"]))


def test_one_settings_object_holds_for_the_whole_run():
    assert Settings().batch == 8
