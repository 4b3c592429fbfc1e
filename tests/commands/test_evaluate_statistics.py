"""`segda evaluate --statistics`: numbers in files and rows of their own, and what they are said wherever they stand."""

import io
import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from conftest import small_recipe, write_camvid
from segda import run as runs
from segda.cli.main import main
from segda.commands.compare import compare
from segda.commands.evaluate import evaluate
from segda.commands.report import report
from segda.data.sets.datasets import open_data
from segda.errors import RunError
from segda.evaluation.checkpoints import evaluate_snapshots
from segda.evaluation.look import Eye
from segda.evaluation.measure import evaluate_network
from segda.evaluation.metrics import Report, read_reports
from segda.evaluation.protocol import Statistics
from segda.evaluation.statistics import adopt_statistics
from segda.networks import NETWORKS
from segda.recipes.build import build
from segda.reporting.gain import gain_lines
from segda.run import load_network
from small_run import DUSK, SPACE, write_run

TARGET = "camvid:train:dusk"
WHOSE = f"student with statistics of {TARGET}"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The target's labels are not there."""
    root = write_camvid(tmp_path_factory.mktemp("data"))
    shutil.rmtree(root / "camvid" / "trainannot")
    return root


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", teacher=True, report_images=0)


def without_batch_norm(run):
    """A run whose network has none."""
    recipe = small_recipe("data")
    spec = {"name": "encoder_decoder", "encoder": "tiny", "weights": "scratch", "decoder": "deeplab_v2_reduced"}
    recipe = recipe.model_copy(update={"network": spec | {"drop_path": 0.1}})
    runs.begin(run, recipe)
    network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
    runs.save_network(runs.product_path(run, "student"), network, recipe.network, recipe.steps)
    return run


def files(run):
    return sorted(path.name for path in (run / "reports").glob("*"))


def test_a_run_is_measured_with_the_statistics_of_the_unlabelled_target(root, run):
    plain = evaluate(run, [DUSK], root, precision="32")
    ours = evaluate(run, [DUSK], root, precision="32", statistics=TARGET)
    for which, before, after in zip(("student", "teacher"), plain, ours, strict=True):
        network, settings = load_network(run, which), small_recipe(root).evaluate
        adopt_statistics(Eye(network, settings, CPU, nullcontext()), open_data(TARGET, root))
        known = {"weights": which, "step": 4, "recipe": "r", "precision": "float32"}
        theirs = evaluate_network(network, open_data(DUSK, root, SPACE), settings, CPU, nullcontext(), known)
        assert (after.counts == theirs.counts).all() and not (after.counts == before.counts).all()
        assert after.protocol == replace(before.protocol, statistics=Statistics(TARGET, 3, norms=4, of=4))


def test_its_reports_are_files_of_their_own_beside_the_runs(root, run):
    evaluate(run, [DUSK], root)
    before = (run / "reports" / "camvid-test-dusk.json").read_bytes()
    ours = evaluate(run, [DUSK], root, precision="32", statistics=TARGET)
    evaluate(run, [DUSK], root, weights=["student"], statistics="camvid:val")
    assert (run / "reports" / "camvid-test-dusk.json").read_bytes() == before
    assert files(run) == [
        f"camvid-test-dusk{other}.json" for other in ("-statistics-camvid-train-dusk", "-statistics-camvid-val", "")
    ]
    (read,) = [each for each in read_reports(run) if each.protocol == ours[0].protocol]
    assert (read.counts == ours[0].counts).all()
    said = f"after step 4, float32, 4 of 4 batch norms with the statistics of {TARGET}, 3 images"
    assert read.protocol.sentence().endswith(said)


def test_reports_from_before_there_was_a_choice_are_of_the_runs_own_statistics(root, run):
    evaluate(run, [DUSK], root, weights=["student"])
    path = run / "reports" / "camvid-test-dusk.json"
    (table,) = json.loads(path.read_text())
    del table["protocol"]["statistics"]
    path.write_text(json.dumps([table]))
    (read,) = read_reports(run)
    assert read.protocol.statistics is None and read.protocol.whose == "student"


@pytest.mark.parametrize("change", [{"data": "a\nb"}, {"images": "3"}, {"norms": None}])
def test_a_report_with_odd_statistics_is_refused(root, run, change):
    (ours,) = evaluate(run, [DUSK], root, weights=["student"], statistics=TARGET)
    table = ours.to_json()
    assert Report.from_json(json.loads(json.dumps(table))).protocol == ours.protocol
    table["protocol"]["statistics"] |= change
    with pytest.raises(ValueError, match="statistics|cannot be shown"):
        Report.from_json(table)


def test_compare_shows_them_in_rows_of_their_own(root, run, tmp_path):
    other = write_run(tmp_path / "other", seed=4)
    before = evaluate(other, [DUSK], root)
    plain = evaluate(run, [DUSK], root)
    ours = evaluate(run, [DUSK], root, statistics=TARGET)
    comparison = compare([other, run])
    keys = {(DUSK, each) for each in ("student", "teacher", WHOSE, WHOSE.replace("student", "teacher"))}
    assert set(comparison.reports) == keys
    assert comparison.reports[DUSK, "student"]["other"].miou == before[0].miou
    assert comparison.reports[DUSK, "student"]["run"].miou == plain[0].miou
    assert comparison.reports[DUSK, WHOSE]["run"].miou == ours[0].miou
    text = comparison.markdown()
    (line,) = (line for line in text.splitlines() if line.startswith(f"| run, {WHOSE.removeprefix('student ')} |"))
    assert f"{100 * ours[0].miou:.1f}" in line
    assert f"4 of 4 batch norms with the statistics of {TARGET}, 3 images" in text
    assert set(compare([run], weights="teacher").reports) == {key for key in keys if "teacher" in key[1]}


def test_the_terminal_names_them_and_no_name_is_an_emoji(root, run):
    evaluate(run, [DUSK], root, ["student"])
    evaluate(run, [DUSK], root, ["student"], statistics="camvid:train")
    shown = io.StringIO()
    Console(width=200, file=shown).print(compare([run]).table())
    assert "run, with statistics of camvid:train " in shown.getvalue()
    assert "4 of 4 batch norms with the statistics of camvid:train, 7 images" in shown.getvalue()


def test_what_two_runs_gained_is_said_of_their_own_statistics(root, run, tmp_path):
    """The yardstick's rows stand between them and change nothing in the lines at the end."""
    other = write_run(tmp_path / "other", seed=4)
    for each in (other, run):
        evaluate(each, [DUSK], root, ["student"])
    lines = gain_lines(compare([other, run]))
    assert lines
    evaluate(other, [DUSK], root, ["student"], statistics=TARGET)
    assert gain_lines(compare([other, run])) == lines


def test_the_page_has_a_column_for_them_and_its_gain_is_of_the_runs_own_networks(root, run, tmp_path):
    before = write_run(tmp_path / "plain", seed=7)
    plain, own = (evaluate(each, [DUSK], root)[0].miou for each in (before, run))
    for each in (before, run):
        evaluate(each, [DUSK], root, statistics=TARGET)
    many = [f"camvid:{split}" for split in ("train", "val", "test:dusk")]  # more bars than there are colours
    for spec in many:
        evaluate(run, [DUSK], root, statistics=spec)
    page = re.sub(r"\s+", " ", report(run, before, root=root).read_text(encoding="utf-8"))
    for spec in (TARGET, many[0]):
        assert f">run, with statistics of {spec}<" in page
    assert f"4 of 4 batch norms with the statistics of {TARGET}, 3 images" in page
    assert f"{100 * (own - plain):+.1f}" in page


def test_snapshots_leave_them_alone(root, run):
    snapshot = runs.snapshot_path(run, 2)
    snapshot.parent.mkdir()
    shutil.copy(runs.product_path(run, "student"), snapshot)
    ours = evaluate(run, [DUSK], root, statistics=TARGET)
    evaluate_snapshots(run, [DUSK], root)
    here = read_reports(run)
    assert [each.protocol.whose for each in here] == ["student", *(each.protocol.whose for each in ours)]
    evaluate(run, [DUSK], root)
    evaluate_snapshots(run, [DUSK], root)
    own = json.loads((run / "reports" / "camvid-test-dusk.json").read_text())
    assert [(each["protocol"]["weights"], each["protocol"]["statistics"]) for each in own] == [
        ("student", None),
        ("teacher", None),
    ]


def test_the_networks_of_a_step_are_measured_with_them_and_not_written(root, run):
    snapshot = runs.snapshot_path(run, 2)
    snapshot.parent.mkdir()
    shutil.copy(runs.product_path(run, "student"), snapshot)
    (ours,) = evaluate(run, [DUSK], root, step=2, statistics=TARGET)
    assert (ours.protocol.step, ours.protocol.whose) == (2, WHOSE) and not (run / "reports").exists()


def test_on_the_command_line_several_runs_take_them_one_after_the_other(root, run, tmp_path, capsys):
    other = write_run(tmp_path / "other", seed=4)
    words = ["evaluate", str(run), str(other), "--data", DUSK, "--root", str(root), "--statistics", TARGET, "--json"]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["protocol"]["statistics"]["data"] for each in shown] == [TARGET] * 3
    assert files(run) == files(other) == ["camvid-test-dusk-statistics-camvid-train-dusk.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--statistics", "camvid:train:dsuk"], "no condition 'dsuk'.*did you mean 'dusk'"),
        (["--statistics", "camvd:train"], "unknown data set 'camvd'.*did you mean 'camvid'"),
        (["--statistics", "camvid:train*2+camvid:val"], "weights say how often"),
        (["--statistics", TARGET, "--ensemble", "logits"], f"--statistics {TARGET} .*leave --ensemble out"),
        (["--statistics", TARGET, "--all-checkpoints"], f"--statistics {TARGET} .*leave --all-checkpoints out"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(root, run, capsys, words, said):
    assert main(["evaluate", str(run), "--data", DUSK, "--root", str(root), *words]) == 2
    assert re.search(f"^segda: .*{said}[^\n]*\n$", capsys.readouterr().err) and not (run / "reports").exists()


def test_data_without_images_are_refused_before_anything_is_measured(tmp_path, run, capsys):
    root = write_camvid(tmp_path / "data")
    for image in (root / "camvid" / "train").iterdir():
        image.unlink()
    assert main(["evaluate", str(run), "--data", DUSK, "--root", str(root), "--statistics", TARGET]) == 2
    line = capsys.readouterr().err
    assert "camvid" in line and line.count("\n") == 1 and not (run / "reports").exists()


def test_a_network_without_batch_norm_is_refused_before_the_first_run_is_measured(root, run, tmp_path, capsys):
    other = without_batch_norm(tmp_path / "without")
    words = ["evaluate", str(run), str(other), "--data", DUSK, "--root", str(root)]
    assert main([*words, "--statistics", TARGET]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"segda: {other}: its student has no batch norm that learns statistics in training")
    assert line.endswith("leave --statistics out\n") and not (run / "reports").exists()
    assert main(words) == 0


def test_a_run_measured_with_them_alone_has_no_gain_to_show(root, run, tmp_path):
    before = write_run(tmp_path / "plain", seed=7)
    evaluate(before, [DUSK], root, statistics=TARGET)
    evaluate(run, [DUSK], root)
    with pytest.raises(RunError, match="was not measured on"):
        report(run, before, root=root)
