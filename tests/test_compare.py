"""`segda compare`: which numbers stand where, which are marked, and what it says when there are none."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from segda.commands.compare import best_of, compare
from segda.errors import RunError
from segda.evaluation.metrics import Report, write_reports
from segda.evaluation.protocol import Protocol
from small_run import DUSK, SPACE, write_run

PROTOCOL = Protocol(DUSK, 3, "student", 40, "tiny", None, "whole", None, None, False, "float32")


def counts_of(*hits):
    """Of each of the first classes, 100 labelled pixels of which so many are right; the others are said to be
    the last class.
    """
    counts = np.zeros((12, 11), np.int64)
    for index, right in enumerate(hits):
        counts[index, index] = right
        counts[index, 10] = 100 - right
    return counts


def report_of(*hits, **protocol):
    return Report(replace(PROTOCOL, **protocol), SPACE.classes, counts_of(*hits))


@pytest.fixture
def runs(tmp_path):
    first, second = (write_run(tmp_path / name) for name in ("source_only", "ebda"))
    write_reports(first, [report_of(50, 90)])
    write_reports(second, [report_of(70, 80), report_of(75, 80, weights="teacher")])
    return [first, second]


def shown(comparison, width=120):
    text = io.StringIO()
    Console(width=width, file=text).print(comparison.table())
    return text.getvalue()


def test_the_best_of_each_row_is_marked(runs):
    markdown = compare(runs).markdown().splitlines()
    assert markdown[0] == r"| IoU in % | source\_only | ebda |"
    assert markdown[2] == "| **camvid:test:dusk, student** |  |  |"
    assert markdown[3] == "| sky | 50.0 | **70.0** |"
    assert markdown[4] == "| building | **90.0** | 80.0 |"
    assert markdown[5] == "| pole | - | - |"
    # IoU of sky, building and the wrongly predicted last class (0), by hand.
    assert f"| mIoU | {140 / 3:.1f} | **{150 / 3:.1f}** |" in markdown
    assert "| pixel accuracy | 70.0 | **75.0** |" in markdown


def test_the_terminal_table_has_the_same_numbers_and_stars(runs):
    text = shown(compare(runs))
    sky = next(line for line in text.splitlines() if "sky" in line)
    assert [cell.strip() for cell in sky.strip("│ ").split("│")] == ["sky", "50.0", "70.0*"]


def test_a_network_that_one_run_lacks_has_a_row_of_its_own_without_a_mark(runs):
    markdown = compare(runs).markdown()
    teacher = markdown[markdown.index("teacher") :].splitlines()
    assert teacher[1] == "| sky | - | 75.0 |"


def test_equal_numbers_and_lonely_numbers_are_not_marked():
    assert best_of([0.5, 0.5]) == [False, False]
    assert best_of([math.nan, 0.5]) == [False, False]
    assert best_of([0.5, math.nan, 0.7, 0.7]) == [False, False, True, True]


def test_means_over_a_views_classes_have_rows_of_their_own(runs):
    views = {"mIoU 1": ("sky",)}
    write_reports(runs[1], [replace(report_of(70, 80), views=views)])
    markdown = compare(runs).markdown().splitlines()
    means = [line for line in markdown if line.startswith("| mIoU")]
    # The first run's report has no such view: there is nothing to mark.
    assert means == [f"| mIoU | {140 / 3:.1f} | **{150 / 3:.1f}** |", "| mIoU 1 | - | 70.0 |"]
    write_reports(runs[0], [replace(report_of(50, 90), views=views)])
    assert "| mIoU 1 | 50.0 | **70.0** |" in compare(runs).markdown()


def test_a_file_that_holds_no_reports_is_refused(runs, tmp_path):
    (tmp_path / "notes.json").write_text("{}x")
    with pytest.raises(RunError, match=r"notes\.json is not a report of segda"):
        compare([*runs, tmp_path / "notes.json"])


def test_every_number_has_its_protocol_below(runs):
    markdown = compare(runs).markdown()
    assert r"- source\_only: camvid:test:dusk, 3 images at their size, whole" in markdown
    assert "different ways" not in markdown


def test_runs_measured_in_different_ways_are_said_to_be(runs):
    write_reports(runs[1], [report_of(70, 80, flip=True)])
    assert "camvid:test:dusk, student: images are seen in different ways" in shown(compare(runs))


def test_runs_of_one_name_are_told_apart_by_their_paths(runs, tmp_path):
    other = write_run(tmp_path / "other" / "ebda")
    write_reports(other, [report_of(1, 1)])
    assert compare([runs[1], other]).runs == (str(runs[1]), str(other))
    assert compare([runs[1], runs[1]]).runs == ("ebda",)


def test_names_are_not_taken_for_markup(tmp_path):
    run = write_run(tmp_path / "[red]a|b_:car:")
    write_reports(run, [report_of(1, 1)])
    assert "[red]a|b_:car:" in shown(compare([run]))
    assert r"| IoU in % | \[red\]a\|b\_:car: |" in compare([run]).markdown()


def test_a_run_without_reports_says_how_to_make_them(runs, tmp_path):
    bare = write_run(tmp_path / "bare")
    with pytest.raises(RunError, match=r"segda evaluate .*bare --data camvid:test:dusk"):
        compare([*runs, bare])


def test_a_folder_that_is_no_run_is_refused(runs, tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        compare([*runs, tmp_path])
