"""`segda compare`: which numbers stand where, which are marked, and what it says when there are none."""

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conftest import small_recipe
from segda import run as folders
from segda.commands.compare import compare
from segda.errors import RunError
from segda.evaluation.metrics import Report, write_reports
from segda.evaluation.protocol import Protocol
from segda.reporting.comparison import best_of
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


# Means over seeds


def seeded(run, seed, *reports, method="source_only", **settings):
    """A run folder of the small recipe with a seed of its own."""
    changes = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    folders.begin(run, small_recipe(Path("data"), method).override(f"seed={seed}", *changes))
    write_reports(run, list(reports))
    return run


def test_runs_that_differ_in_their_seed_are_one_column_of_mean_and_sample_deviation(tmp_path):
    runs = [
        seeded(tmp_path / f"ebda-seed{seed}", seed, report_of(sky, 80)) for seed, sky in ((0, 50), (1, 60), (5, 73))
    ]
    other = seeded(tmp_path / "faster-seed0", 0, report_of(62, 70), optim__lr=0.1)
    markdown = compare([runs[0], other, *runs[1:]], seeds=True).markdown().splitlines()
    assert markdown[0] == "| IoU in % | ebda | faster-seed0 |"
    assert markdown[2] == "| **camvid:test:dusk, student** | n = 3 | n = 1 |"
    # Mean 61; deviations -11, -1, 12: sqrt((121 + 1 + 144) / 2) = 11.5.
    assert markdown[3] == "| sky | 61.0 ± 11.5 | **62.0** |"
    assert markdown[4] == "| building | **80.0 ± 0.0** | 70.0 |"
    assert markdown[5] == "| pole | - | - |"
    # IoU of sky, building (80) and the wrongly predicted last class (0): a third of sky's deviation.
    assert f"| mIoU | **{423 / 9:.1f} ± {math.sqrt(266 / 2) / 3:.1f}** | {132 / 3:.1f} |" in markdown
    assert "- IoU in %; mean ± sample standard deviation over n runs that differ in their seed" in markdown
    assert any(line.startswith("- ebda, seeds 0, 1, 5: camvid:test:dusk, 3 images") for line in markdown)
    assert any(line.startswith("- faster-seed0, seed 0: camvid:test:dusk, 3 images") for line in markdown)


def test_the_terminal_table_has_the_same_means(tmp_path):
    runs = [seeded(tmp_path / f"ebda-seed{seed}", seed, report_of(sky)) for seed, sky in ((0, 50), (1, 70))]
    other = seeded(tmp_path / "slower", 0, report_of(10), optim__lr=1e-9)
    text = shown(compare([*runs, other], seeds=True))
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if "│" in line]
    assert ["camvid:test:dusk, student", "n = 2", "n = 1"] in rows
    assert ["sky", "60.0 ± 14.1*", "10.0"] in rows
    assert "ebda, seeds 0, 1: camvid:test:dusk" in text and "sample standard deviation" in text


def test_without_being_asked_each_seed_has_its_column(tmp_path):
    runs = [seeded(tmp_path / f"ebda-seed{seed}", seed, report_of(50)) for seed in (0, 1)]
    markdown = compare(runs).markdown()
    assert markdown.startswith("| IoU in % | ebda-seed0 | ebda-seed1 |\n")
    assert "±" not in markdown and "n =" not in markdown


def test_runs_that_were_not_measured_and_classes_that_are_not_there_are_not_counted(tmp_path):
    first = seeded(tmp_path / "x-seed0", 0, report_of(50, 80), report_of(90, weights="teacher"))
    second = seeded(tmp_path / "x-seed1", 1, report_of(70))
    markdown = compare([first, second], seeds=True).markdown().splitlines()
    student, teacher = (
        markdown[markdown.index(f"| **camvid:test:dusk, {weights}** | n = {count} |") :]
        for weights, count in (("student", 2), ("teacher", 1))
    )
    assert student[1] == "| sky | 60.0 ± 14.1 |"
    assert student[2] == "| building | 80.0 (1) |"
    assert teacher[1] == "| sky | 90.0 |"


def test_seeds_measured_in_different_ways_are_told_apart(tmp_path):
    runs = [
        seeded(tmp_path / f"x-seed{seed}", seed, report_of(50, flip=flip))
        for seed, flip in ((0, False), (1, True), (2, False))
    ]
    notes = compare(runs, seeds=True).notes()
    assert [note.partition(":")[0] for note in notes[:2]] == ["x, seeds 0, 2", "x, seed 1"]
    assert "mean with mirrored" in notes[1] and "different ways" in notes[2]


def test_the_same_recipe_and_seed_twice_would_count_twice(tmp_path):
    runs = [seeded(tmp_path / name, 4, report_of(50)) for name in ("one", "again")]
    with pytest.raises(RunError, match="one and again are runs of one recipe and one seed; leave one out"):
        compare(runs, seeds=True)


def test_labels_of_a_runs_own_stages_are_no_other_recipe(tmp_path):
    def run(name, seed, labels):
        return seeded(tmp_path / name, seed, report_of(50), method="esl", data__target__labels=labels)

    own = [run(f"esl-seed{seed}", seed, f"/somewhere/esl-seed{seed}-labels") for seed in (0, 1)]
    others = [run(f"esl-bdl{seed}", seed, f"/labels{seed}") for seed in (2, 3)]
    columns = compare([*own, *others], seeds=True).columns
    assert [column.title for column in columns] == ["esl", "esl-bdl2", "esl-bdl3"]


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (("ebda-seed0", "ebda-seed10"), "ebda"),
        (("seed0-ebda_b5", "seed1-ebda_b5"), "ebda_b5"),
        (("run1", "run2"), "run1 and 1 more"),
    ],
)
def test_a_columns_title_is_what_the_names_share(names, title, tmp_path):
    runs = [seeded(tmp_path / name, seed, report_of(50)) for seed, name in enumerate(names)]
    assert compare(runs, seeds=True).columns[0].title == title


def test_columns_whose_names_share_the_same_words_are_told_apart(tmp_path):
    runs = [
        seeded(tmp_path / f"x-{word}{seed}", seed, report_of(50), optim__lr=lr)
        for word, lr in (("slow", 1e-5), ("fast", 1e-2))
        for seed in (0, 1)
    ]
    titles = [column.title for column in compare(runs, seeds=True).columns]
    assert titles == ["x-slow0 and 1 more", "x-fast0 and 1 more"]
