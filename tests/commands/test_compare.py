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
from segda.reporting.grids import best_of
from segda.reporting.tables import points
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


def shown(comparison, width=100, **what):
    text = io.StringIO()
    Console(width=width, file=text).print(comparison.table(**what))
    return text.getvalue()


def cells(text):
    """The cells of each row of a terminal's tables."""
    return [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if "│" in line]


def test_the_means_come_first_with_what_changed_against_the_first_run(runs):
    markdown = compare(runs).markdown().splitlines()
    assert markdown[:5] == [
        "| in % | mIoU | difference |",
        "| --- | ---: | ---: |",
        "| **camvid:test:dusk (target)** |  |  |",
        # IoU of sky, building and the wrongly predicted last class (0), by hand.
        rf"| source\_only | {140 / 3:.1f} |  |",
        f"| ebda | **{150 / 3:.1f}** | +{10 / 3:.1f} |",
    ]
    assert not any(line.startswith(("| sky", "| mean accuracy")) or "| ebda, teacher" in line for line in markdown)


def test_against_another_first_run_the_signs_are_the_other_way_round(runs):
    markdown = compare(runs[::-1]).markdown().splitlines()
    assert rf"| source\_only | {140 / 3:.1f} | -{10 / 3:.1f} |" in markdown


def test_the_best_of_each_class_is_marked(runs):
    markdown = compare(runs).markdown(classes=True).splitlines()
    begin = markdown.index(r"| IoU in % | share | source\_only | ebda | difference |")
    assert markdown[begin + 2 : begin + 6] == [
        "| **camvid:test:dusk (target)** |  |  |  |  |",
        "| sky | 50.0 | 50.0 | **70.0** | +20.0 |",
        "| building | 50.0 | **90.0** | 80.0 | -10.0 |",
        "| pole | 0.0 | - | - | - |",
    ]
    # Predicted and labelled nowhere.
    assert markdown[begin + 13].startswith("| bicyclist | 0.0 | 0.0 | 0.0 | 0.0 |")
    assert markdown[begin + 14] == f"| mIoU |  | {140 / 3:.1f} | **{150 / 3:.1f}** | +{10 / 3:.1f} |"


def test_the_terminal_has_the_same_tables_and_stars(runs):
    rows = cells(shown(compare(runs), classes=True, everything=True))
    assert ["sky", "50.0", "50.0", "70.0", "+20.0", "75.0*", "+25.0"] in rows
    assert ["ebda", "50.0", f"+{10 / 3:.1f}", "75.0", "75.0"] in rows
    assert ["ebda, teacher", f"{155 / 3:.1f}*", "+5.0", f"{155 / 2:.1f}*", f"{155 / 2:.1f}*"] in rows


def test_what_is_hidden_is_said_in_one_line_with_the_way_to_see_it(runs):
    hidden = "not shown: teacher, mean accuracy, pixel accuracy (--all), IoU of each class (--classes)"
    assert hidden in shown(compare(runs), 120)
    assert "not shown: IoU of each class (--classes)" in shown(compare(runs), everything=True)
    assert "not shown: teacher, mean accuracy, pixel accuracy (--all)\n" in shown(compare(runs), classes=True)
    assert "not shown" not in shown(compare(runs), everything=True, classes=True)
    assert "not shown: mean accuracy, pixel accuracy (--all)" in shown(compare(runs[:1])), "it has no teacher"


def test_a_teacher_is_shown_on_demand_or_where_it_is_all_there_is(runs):
    said = "| ebda, teacher | **51.7** | +5.0 |"
    assert said not in compare(runs).markdown() and said[:-2] in compare(runs).markdown(everything=True)
    write_reports(runs[1], [report_of(75, 80, weights="teacher")])
    assert said in compare(runs).markdown()
    assert "| ebda, teacher | 51.7 | - |" in compare(runs, weights="teacher").markdown().splitlines()


def test_the_target_comes_before_the_source(runs):
    for run, right in zip(runs, (60, 50), strict=True):
        write_reports(run, [report_of(right, data="camvid:test:day")])
    titles = [line for line in compare(runs).markdown().splitlines() if line.startswith("| **camvid")]
    assert [title.split("**")[1] for title in titles] == ["camvid:test:dusk (target)", "camvid:test:day (source)"]


def test_a_comparison_of_several_runs_and_data_sets_fits_a_screen(tmp_path):
    runs = [write_run(tmp_path / f"a_method_on_the_streets-seed{number}") for number in range(4)]
    for run in runs:
        for data in (DUSK, "camvid:val:day"):
            write_reports(run, [report_of(50, data=data), report_of(60, data=data, weights="teacher")])
    lines = [line for line in shown(compare(runs)).splitlines() if "│" in line or "━" in line]
    assert len(lines) <= 20 and max(map(len, lines)) <= 100
    two = shown(compare(runs[:2])).splitlines()
    assert len(two) <= 25 and max(map(len, two)) <= 100


def test_all_rates_fit_the_width_of_a_screen(tmp_path):
    run = write_run(tmp_path / "ebda")
    views = {f"mIoU {count}": SPACE.classes[:count] for count in (2, 3, 4)}
    both = [report_of(50, weights=weights) for weights in ("student", "teacher")]
    write_reports(run, [replace(report, views=views) for report in both])
    text = shown(compare([run]), everything=True)
    assert ["ebda, teacher", "25.0", "0.0", *["50.0"] * 5] in cells(text), text
    assert "│ camvid:test:dusk (target) │" in text and "accuracy ┃" in text


def test_two_runs_end_with_what_was_gained_in_every_form(runs):
    lines = [
        "camvid:test:dusk (target)  46.7 -> 50.0  (+3.3 mIoU)",
        "ebda against source_only: gained 3.3 points on the target; at IoU 0 on the target: 1 class (bicyclist) "
        "before, 1 class (bicyclist) after.",
    ]
    assert shown(compare(runs), 200).splitlines()[-2:] == lines
    written = compare(runs).markdown().splitlines()[-2:]
    assert [line.replace("\\", "")[2:] for line in written] == [" ".join(line.split()) for line in lines]
    assert "->" not in shown(compare(runs[:1])).replace("day -> camvid", "")


def test_equal_numbers_zeros_and_lonely_numbers_are_not_marked():
    assert best_of([0.5, 0.5]) == [False, False]
    assert best_of([math.nan, 0.5]) == [False, False]
    assert best_of([0.5, math.nan, 0.7, 0.7]) == [False, False, True, True]
    assert best_of([0.0, 0.0, 0.0004]) == [False, False, False], "0.04 % is printed as 0.0"
    assert best_of([0.5, 0.7, 0.7004]) == [False, True, True], "both are printed as 70.0"
    assert best_of([0.5, 0.5004]) == [False, False]


def test_a_difference_that_is_printed_as_zero_has_no_sign():
    assert [points(each) for each in (0.086, -0.004, 0.0004, -0.0004, 0, math.nan)] == [
        "+8.6", "-0.4", "0.0", "0.0", "0.0", "-",
    ]  # fmt: skip


def test_means_over_a_views_classes_have_columns_of_their_own(runs):
    views = {"mIoU 1": ("sky",)}
    write_reports(runs[1], [replace(report_of(70, 80), views=views)])
    markdown = compare(runs).markdown(everything=True)
    assert markdown.startswith("| in % | mIoU | difference | mIoU 1 | mean accuracy | pixel accuracy |\n")
    # The first run's report has no such view: there is nothing to mark.
    assert "| ebda | **50.0** | +3.3 | 70.0 | **75.0** | **75.0** |" in markdown
    write_reports(runs[0], [replace(report_of(50, 90), views=views)])
    assert "| ebda | **50.0** | +3.3 | **70.0** | **75.0** | **75.0** |" in compare(runs).markdown(everything=True)


def test_a_file_that_holds_no_reports_is_refused(runs, tmp_path):
    (tmp_path / "notes.json").write_text("{}x")
    with pytest.raises(RunError, match=r"notes\.json is not a report of segda"):
        compare([*runs, tmp_path / "notes.json"])


def test_every_number_has_its_protocol_below(runs):
    for run in runs:
        write_reports(run, [report_of(50, data="camvid:val:day")])
    markdown = compare(runs).markdown().splitlines()
    assert "- camvid:test:dusk, camvid:val:day: 3 images at their size, whole, no mirroring" in markdown
    assert r"- source\_only: student of tiny after step 40, float32" in markdown
    assert "different ways" not in "".join(markdown)


def test_numbers_of_a_step_before_the_last_are_said_to_be(runs):
    second = runs[1]  # its networks are of step 4
    for step, outdated in ((3, True), (4, False), (None, False)):
        write_reports(second, [report_of(70, 80, step=step), report_of(75, 80, weights="teacher", step=step)])
        line = (
            f"{second}: on {DUSK} its student was measured after step 3, and has been trained to step 4 since: segda "
            f"evaluate {second} --data {DUSK}"
        )
        assert (line in compare(runs).notes()) == outdated
        assert any("trained to step" in one for one in compare(runs).notes()) == outdated
    write_reports(second, [report_of(70, 80, step=3)])
    assert line.replace("_", r"\_") in compare(runs).markdown() or line in compare(runs).markdown()
    (second / "network.safetensors").unlink()
    assert not any("trained to step" in one for one in compare(runs).notes())


def test_runs_measured_in_different_ways_are_said_to_be(runs):
    write_reports(runs[1], [report_of(70, 80, flip=True)])
    text = shown(compare(runs))
    assert "camvid:test:dusk: images are seen in different ways" in text
    assert "camvid:test:dusk, source_only: 3 images at their size, whole, no mirroring" in text
    assert "camvid:test:dusk, ebda: 3 images at their size, whole, mean with mirrored" in text


def test_runs_of_one_name_are_told_apart_by_their_paths(runs, tmp_path):
    other = write_run(tmp_path / "other" / "ebda")
    write_reports(other, [report_of(1, 1)])
    assert compare([runs[1], other]).runs == (str(runs[1]), str(other))
    assert compare([runs[1], runs[1]]).runs == ("ebda",)


def test_names_are_not_taken_for_markup(tmp_path):
    run = write_run(tmp_path / "[red]a|b_:car:")
    write_reports(run, [report_of(1, 1)])
    assert "[red]a|b_:car:" in shown(compare([run]))
    assert r"| \[red\]a\|b\_:car: | 0.7 |" in compare([run]).markdown()


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
    markdown = compare([runs[0], other, *runs[1:]], seeds=True).markdown(classes=True).splitlines()
    # IoU of sky, building (80) and the wrongly predicted last class (0): a third of sky's deviation. The other run has
    # seed 0 alone: 44 there, 130 / 3 in its pair.
    spread = math.sqrt(266 / 2) / 3
    assert f"| ebda, n = 3 | **{423 / 9:.1f} ± {spread:.1f}** |  |" in markdown
    assert f"| faster-seed0, n = 1 | {132 / 3:.1f} | +{2 / 3:.1f} |" in markdown
    assert "| IoU in % | share | ebda | faster-seed0 | difference |" in markdown
    # Mean 61; deviations -11, -1, 12: sqrt((121 + 1 + 144) / 2) = 11.5.
    assert "| sky | 50.0 | 61.0 ± 11.5 | **62.0** | +12.0 |" in markdown
    assert "| building | 50.0 | **80.0 ± 0.0** | 70.0 | -10.0 |" in markdown
    assert "| pole | 0.0 | - | - | - |" in markdown
    assert any(line.endswith("paired by seed; ±: sample standard deviation over n seeds") for line in markdown)
    assert "- ebda, seeds 0, 1, 5: student of tiny after step 40, float32" in markdown
    assert "- faster-seed0, seed 0: student of tiny after step 40, float32" in markdown


def test_differences_are_paired_by_seed(tmp_path):
    plain = [seeded(tmp_path / f"x-seed{seed}", seed, report_of(sky)) for seed, sky in ((0, 20), (1, 40), (2, 90))]
    ours = [
        seeded(tmp_path / f"y-seed{seed}", seed, report_of(sky), optim__lr=0.1)
        for seed, sky in ((2, 96), (1, 44), (7, 5))
    ]
    rows = cells(shown(compare([*plain, *ours], seeds=True)))
    # Halves of sky's +6 and +4 by the last class's 0: +3 and +2. Seeds 0 and 7 stand alone.
    assert ["y, n = 3", "24.2 ± 22.8", "+2.5 ± 0.7 (2)"] in rows


def test_without_a_seed_in_common_the_means_are_compared_and_that_is_said(tmp_path):
    plain = [seeded(tmp_path / f"x-seed{seed}", seed, report_of(20)) for seed in (0, 1)]
    ours = [seeded(tmp_path / f"y-seed{seed}", seed, report_of(30), optim__lr=0.1) for seed in (2, 3)]
    text = shown(compare([*plain, *ours], seeds=True))
    assert ["y, n = 2", "15.0 ± 0.0*", "+5.0"] in cells(text)
    assert "no seed in common with x, hence the difference of the means: y\n" in text


def test_the_terminal_table_has_the_same_means(tmp_path):
    runs = [seeded(tmp_path / f"ebda-seed{seed}", seed, report_of(sky)) for seed, sky in ((0, 50), (1, 70))]
    other = seeded(tmp_path / "slower", 0, report_of(10), optim__lr=1e-9)
    text = shown(compare([*runs, other], seeds=True), classes=True)
    assert ["ebda, n = 2", "30.0 ± 7.1*"] in cells(text)
    assert ["sky", "100.0", "60.0 ± 14.1*", "10.0", "-40.0"] in cells(text)
    assert "ebda, seeds 0, 1: student of tiny" in text and "sample standard deviation" in text


def test_without_being_asked_each_seed_has_its_row(tmp_path):
    runs = [seeded(tmp_path / f"ebda-seed{seed}", seed, report_of(50)) for seed in (0, 1)]
    markdown = compare(runs).markdown()
    assert "| ebda-seed0 | 25.0 |  |\n| ebda-seed1 | 25.0 | 0.0 |\n" in markdown
    assert "±" not in markdown and "n =" not in markdown


def test_runs_that_were_not_measured_and_classes_that_are_not_there_are_not_counted(tmp_path):
    first = seeded(tmp_path / "x-seed0", 0, report_of(50, 80), report_of(90, weights="teacher"))
    second = seeded(tmp_path / "x-seed1", 1, report_of(70))
    markdown = compare([first, second], seeds=True).markdown(everything=True, classes=True)
    assert "\n| x, n = 2 | " in markdown and "\n| x, teacher, n = 1 | " in markdown
    assert "\n| sky | 50.0 | 60.0 ± 14.1 | **90.0** | +40.0 |\n" in markdown
    assert "\n| building | 50.0 | 80.0 (1) | - | - |\n" in markdown


def test_seeds_measured_in_different_ways_are_told_apart(tmp_path):
    runs = [
        seeded(tmp_path / f"x-seed{seed}", seed, report_of(50, flip=flip))
        for seed, flip in ((0, False), (1, True), (2, False))
    ]
    notes = compare(runs, seeds=True).notes()
    assert notes[0] == "camvid:test:dusk, x, seeds 0, 2: 3 images at their size, whole, no mirroring"
    assert notes[1] == "camvid:test:dusk, x, seed 1: 3 images at their size, whole, mean with mirrored"
    assert "different ways" in notes[2]


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
