"""Runs that leave images out, lose a process, or wait: what they say, log and report, and how they go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import small_recipe
from resuming import at
from resuming import same as same_run
from segda import run as runs
from segda.commands.train import train
from segda.errors import DataError, ImageError, RecipeError
from segda.recipes.recipe import Recipe
from segda.training.timing import Pace, waiting_said
from streams import cut_off, make_deadly, pairs_of, path_of


@pytest.fixture
def skipping(camvid: Path) -> Recipe:
    """Ten steps, saved after the fifth; the first draw's source image is broken."""
    cut_off(path_of(pairs_of(camvid), 0))
    settings = ("steps=10", "save_every=5", "log_every=4", "evaluate.report_images=0", "data.on_bad_image=skip")
    return small_recipe(camvid).override(*settings)


def test_a_run_says_each_file_once_and_counts_what_it_left_out_in_log_and_report(camvid, skipping, tmp_path, said):
    train(skipping, tmp_path / "run")
    told = [line for line in runs.read_log(tmp_path / "run") if "skipped" in line]
    # Twenty draws of four images: once an epoch, and perhaps once more in its own place.
    assert len({line["draw"] for line in told}) == 5 and told[0]["draw"] == 0
    assert all(line["step"] == line["draw"] // 2 + 1 for line in told)
    (path,) = {line["skipped"] for line in told}
    (line,) = (line for line in said if "left out" in line)
    assert line.startswith(f"left out: {path}: cut off after ")
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"left out {len(told)} times, and another draw took its place" in page
    assert f"1 file:\n{path} ({len(told)} times)." in page

    # Killed after a checkpoint and after a log line that it does not know; resumed by two processes.
    out = tmp_path / "resumed"
    with pytest.raises(ZeroDivisionError), at(8, lambda: 1 / 0):
        train(skipping, out)
    assert len([line for line in runs.read_log(out) if "skipped" in line]) > 2
    train(skipping.override("data.workers=2"), out, resume=True)
    assert same_run(out, tmp_path / "run")


def test_a_run_that_stopped_at_a_broken_image_goes_on_without_it(skipping, tmp_path):
    train(skipping, tmp_path / "whole")
    with pytest.raises(DataError, match="cut off after"):
        train(skipping.override("data.on_bad_image=stop"), tmp_path / "run")
    train(skipping, tmp_path / "run", resume=True)
    assert same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_without_faults_is_the_same_whether_it_would_skip_or_stop(camvid, tmp_path):
    for way in ("stop", "skip"):
        train(small_recipe(camvid).override(f"data.on_bad_image={way}", "evaluate.data=[]"), tmp_path / way)
    assert same_run(tmp_path / "stop", tmp_path / "skip")
    assert not any("skipped" in line for line in runs.read_log(tmp_path / "skip"))


def test_a_process_that_dies_in_a_run_changes_nothing(camvid, tmp_path, monkeypatch, said):
    recipe = small_recipe(camvid).override("evaluate.data=[]", "steps=6", "data.workers=2")
    train(recipe, tmp_path / "whole")
    path = path_of(pairs_of(camvid), 7)
    make_deadly(path, tmp_path / "deaths", monkeypatch, times=1)
    train(recipe, tmp_path / "run")
    assert same_run(tmp_path / "run", tmp_path / "whole")
    assert len([line for line in said if f"died (SIGKILL) while it read {path}" in line]) == 1


def test_a_label_that_cannot_be_counted_for_rare_classes_is_left_out_and_said(camvid, tmp_path, warned):
    rare = "{temperature: 0.1, min_pixels: 1, crop_ratio: 0, retries: 0}"
    recipe = small_recipe(camvid).override("evaluate.data=[]", f"data.source.rare_class={rare}")
    pairs = pairs_of(camvid)
    labels = [pairs.source.label_path(i) for i in range(len(pairs.source))]
    cut_off(labels[2])
    skipping = recipe.override("data.on_bad_image=skip")
    for _ in range(2):  # counted, and from what is kept
        train(skipping, tmp_path / "run", overwrite=True)
        (said,) = (line for line in warned if "labels cannot be read" in line)
        assert said.startswith(f"camvid:train:day: 1 of 4 labels cannot be read, first {labels[2]}; rare classes are")
        warned.clear()
    assert not any("skipped" in line for line in runs.read_log(tmp_path / "run")), "it was never drawn"
    with pytest.raises(ImageError, match="cut off after"):  # what was kept does not hide it
        train(recipe, tmp_path / "other")
    cut_off(labels[0])
    with pytest.raises(DataError, match=r"2 of 4 labels cannot be read, first .*: too many are bad"):
        train(skipping, tmp_path / "other")


def test_the_pace_of_a_run_is_its_time_a_step_and_the_share_of_it_that_waits(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("segda.training.timing.time.monotonic", lambda: now[0])
    pace = Pace(20)
    for waits, works in ((1.0, 3.0), (0.0, 4.0)):
        with pace.waiting():
            now[0] += waits
        now[0] += works
    with pace.paused():  # while it is scored
        now[0] += 1000
    assert pace.take(22) == (4.0, 0.125)
    now[0] += 6
    assert pace.take(24) == (3.0, 0.0)
    assert [waiting_said(share) for share in (0, 0.05, 0.125)] == ["", "", " (12% of it waiting for images)"]


@pytest.mark.parametrize("value", ["ignore", "true", "1", "null", "[skip]"])
def test_a_word_that_is_no_way_to_treat_a_bad_image_is_refused(camvid, value):
    with pytest.raises(RecipeError, match=r"data\.on_bad_image: .*'stop' or 'skip'"):
        small_recipe(camvid).override(f"data.on_bad_image={value}")
