"""`segda evaluate` on a tiny run: its numbers against a loop of its own, its files, its refusals."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import small_recipe, write_camvid
from segda.cli.main import main
from segda.commands.evaluate import evaluate
from segda.data.labels.spaces import SPACES, Space
from segda.data.sets.datasets import open_data
from segda.data.streets.conditions import SPLITS
from segda.errors import DataError, RecipeError, RunError, WeightsError
from segda.evaluation.look import ahead
from segda.evaluation.measure import evaluate_network
from segda.evaluation.metrics import read_reports
from segda.run import load_network, load_recipe_of
from small_run import DUSK, SPACE, write_run

PROTOCOL = {"weights": "student", "step": 4, "recipe": "tiny", "precision": "float32"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", teacher=True)


class Painter(nn.Module):
    """Says the class whose colour a pixel has: right wherever the image is its own label's picture."""

    class_names = SPACE.classes
    classes = len(SPACE.classes)
    align_corners = False

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)
        self.frozen = nn.BatchNorm2d(3).eval()

    def low_res_logits(self, image):
        colours = torch.tensor(SPACE.palette()[: self.classes] / 255, dtype=torch.float32)
        return -(self.dropout(image)[:, None] - colours.view(1, -1, 3, 1, 1)).square().sum(2)


def test_a_network_that_is_always_right_scores_one(tmp_path):
    root = write_camvid(tmp_path)
    labelled = 0
    for path in (root / "camvid" / "test").glob("*.png"):
        with Image.open(root / "camvid" / "testannot" / path.name) as picture:
            label = np.array(picture)
        Image.fromarray(SPACE.palette()[label]).save(path)
        labelled += (label < 11).sum()
    dataset = open_data(DUSK, root, SPACE)
    network = Painter()
    network.train()
    network.frozen.eval()
    report = evaluate_network(
        network, dataset, small_recipe(root).evaluate, torch.device("cpu"), nullcontext(), PROTOCOL
    )
    assert report.miou == report.pixel_accuracy == 1
    assert report.counts.sum() == labelled < 3 * 48 * 64  # the unlabelled blocks do not count
    assert network.training and network.dropout.training and not network.frozen.training


def test_measuring_draws_no_random_number(root, run):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network = load_network(run).train()
    torch.set_rng_state(before)
    evaluate_network(
        network,
        open_data(DUSK, root, SPACE),
        small_recipe(root).evaluate,
        torch.device("cpu"),
        nullcontext(),
        PROTOCOL,
    )
    assert (torch.get_rng_state() == before).all()


def test_student_and_teacher_are_measured_and_written_with_their_protocol(root, run):
    reports = evaluate(run, [DUSK], root)
    assert [report.protocol.weights for report in reports] == ["student", "teacher"]
    assert reports[0].protocol.sentence().startswith("camvid:test:dusk, 3 images at their size, whole, no mirroring")
    assert reports[0].protocol.step == 4
    written = json.loads((run / "reports" / "camvid-test-dusk.json").read_text())
    assert [table["miou"] for table in written] == [report.miou for report in reports]
    assert [report.counts.tolist() for report in read_reports(run)] == [report.counts.tolist() for report in reports]


def test_the_numbers_are_those_of_a_plain_loop(root, run):
    (ours,) = evaluate(run, [DUSK], root, weights=["teacher"], precision="32")
    network = load_network(run, "teacher")
    hits = labelled = 0
    for name in ("0001TP_101.png", "0001TP_102.png", "0001TP_103.png"):
        image = np.array(Image.open(root / "camvid" / "test" / name), np.float32) / 255
        label = np.array(Image.open(root / "camvid" / "testannot" / name))
        with torch.no_grad():
            prediction = network.infer(torch.from_numpy(image.transpose(2, 0, 1))[None]).argmax(1)[0].numpy()
        hits += ((prediction == label) & (label < 11)).sum()
        labelled += (label < 11).sum()
    # Random weights leave near ties, which another memory layout may decide otherwise.
    assert ours.pixel_accuracy == pytest.approx(hits / labelled, abs=2e-3)


def test_a_run_without_teacher_has_one_report(root, tmp_path):
    run = write_run(tmp_path / "run")
    assert [report.protocol.weights for report in evaluate(run, [DUSK], root)] == ["student"]


def test_measuring_again_replaces_the_file(root, run):
    evaluate(run, [DUSK], root)
    evaluate(run, [DUSK], root, weights=["student"])
    assert [report.protocol.weights for report in read_reports(run)] == ["student"]
    assert [path.name for path in (run / "reports").iterdir()] == ["camvid-test-dusk.json"]


def test_how_images_are_seen_comes_from_the_recipe(root, tmp_path):
    asked = {"resize": [48, 48], "how": "slide", "window": [32, 32], "stride": [16, 16], "flip": True}
    run = write_run(tmp_path / "run", **asked)
    (report,) = evaluate(run, [DUSK], root)
    assert report.protocol.input() == "fitted into 48x48, window 32x32 every 16x16, mean with mirrored"


def test_several_data_sets_are_opened_before_one_is_measured(root, run):
    with pytest.raises(RecipeError, match="did you mean 'dusk'"):
        evaluate(run, [DUSK, "camvid:test:dsuk"], root)
    assert not (run / "reports").exists()


def test_labels_that_do_not_know_all_classes_are_measured_over_those_that_they_know(root, run, monkeypatch, capsys):
    known = Space("camvid-11", dict(SPACE.colours))  # without the names that Cityscapes has for its classes
    monkeypatch.setitem(SPACES, "camvid-11", known)
    monkeypatch.setitem(SPLITS, "val", (SPLITS["val"][0], 3))
    report = evaluate(run, ["streets:val"], root)[0]
    over = ("sky", "building", "pole", "road", "fence", "car")
    assert report.protocol.over == over and "means over sky, building" in report.protocol.sentence()
    hits, labelled, predicted = report.counts.diagonal()[:11], report.counts[:11].sum(1), report.counts.sum(0)
    unions = labelled + predicted - hits
    rates = [hits[i] / unions[i] for i in map(SPACE.classes.index, over) if unions[i]]
    assert report.miou == pytest.approx(np.mean(rates))
    assert np.isnan(report.iou[SPACE.classes.index("tree")])
    assert main(["evaluate", str(run), "--data", "streets:val", "--root", str(root), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "streets:val: mean over 6 of 11 classes: sky, building, pole, road, fence and 1 more" in text


def test_means_go_over_the_classes_that_the_recipe_chooses(root, run):
    whole = evaluate(run, [DUSK], root)[0]
    path = run / "recipe.yaml"
    recipe = load_recipe_of(run)
    path.write_text(recipe.override("evaluate.classes=[car, sky]").to_yaml())
    report = evaluate(run, [DUSK], root)[0]
    assert report.protocol.over == ("sky", "car") and (report.counts == whole.counts).all()
    assert report.miou == pytest.approx(np.mean([whole.iou[SPACE.classes.index(name)] for name in ("sky", "car")]))
    chosen = [SPACE.classes.index(name) for name in ("sky", "car")]
    hits, labelled = whole.counts.diagonal()[chosen].sum(), whole.counts[chosen].sum()
    assert report.pixel_accuracy == pytest.approx(hits / labelled)
    path.write_text(recipe.override("evaluate.classes=[cat]").to_yaml())
    with pytest.raises(RecipeError, match=r"evaluate.classes: unknown class 'cat'; did you mean 'car'"):
        evaluate(run, [DUSK], root)


def test_a_label_space_other_than_the_networks_is_refused(root, run):
    dataset = open_data("streets:val")
    with pytest.raises(RecipeError, match="cityscapes-19"):
        evaluate_network(
            load_network(run), dataset, small_recipe(root).evaluate, torch.device("cpu"), nullcontext(), PROTOCOL
        )


def test_an_image_without_label_is_refused_before_anything_is_measured(tmp_path, run):
    root = write_camvid(tmp_path / "data")
    (root / "camvid" / "testannot" / "0001TP_102.png").unlink()
    with pytest.raises(DataError, match="0001TP_102"):
        evaluate(run, [DUSK], root)
    assert not (run / "reports").exists()


def test_a_folder_that_is_no_run_is_refused(root, tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(tmp_path, [DUSK], root)


def test_an_unfinished_run_says_how_to_finish_it(root, run):
    (run / "network.safetensors").unlink()
    (run / "teacher.safetensors").unlink()
    with pytest.raises(WeightsError, match="segda train --resume"):
        evaluate(run, [DUSK], root)


def printed(capsys, *arguments):
    """The rows of what a command prints, and its other lines."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in lines if "│" in line]
    return rows, [line for line in lines if line and line[0] not in "│┏┡├└┃"]


def test_what_is_printed_is_the_students_mean_with_its_protocol(root, run, capsys):
    rows, said = printed(capsys, "evaluate", run, "--data", DUSK, "--root", root)
    student, _ = read_reports(run)
    assert rows == [["camvid:test:dusk (target)"], ["run", f"{100 * student.miou:.1f}"]]
    assert said == [
        "camvid:test:dusk: 3 images at their size, whole, no mirroring",
        f"run: {student.protocol.network()}",
        "not shown: teacher, mean accuracy, pixel accuracy (--all), IoU of each class (--classes)",
    ]
    assert "student of source_only camvid:train:day -> camvid:train:dusk after step 4" in said[1]


def test_classes_and_the_teacher_are_printed_on_demand(root, run, capsys):
    rows, _ = printed(capsys, "evaluate", run, "--data", DUSK, "--root", root, "--classes", "--weights", "student")
    (student,) = read_reports(run)
    for number, name in enumerate(SPACE.classes):
        rates = (student.share[number], student.iou[number], student.accuracy[number])
        assert [name, *("-" if np.isnan(rate) else f"{100 * rate:.1f}" for rate in rates)] in rows
    rows, said = printed(capsys, "evaluate", run, "--data", DUSK, "--root", root, "--classes", "--all")
    _, teacher = read_reports(run)
    (row,) = [row for row in rows if row[0] == "run, teacher"]
    assert [cell.strip("*") for cell in row[3:]] == [
        f"{100 * rate:.1f}" for rate in (teacher.mean_accuracy, teacher.pixel_accuracy)
    ]
    assert len(next(row for row in rows if row[0] == "sky")) == 5 and not any("not shown" in line for line in said)


def test_several_runs_are_printed_beside_each_other(root, run, tmp_path, capsys):
    other = write_run(tmp_path / "other", seed=5)
    rows, said = printed(capsys, "evaluate", other, run, "--data", DUSK, "--root", root)
    first, second = (read_reports(each)[0].miou for each in (other, run))
    assert [row[0] for row in rows[1:]] == ["other", "run"] and rows[2][2] == f"{100 * (second - first):+.1f}"
    assert said[-1].startswith("run against other: ")


def test_an_ensemble_is_printed_with_its_target_and_json_holds_all(root, run, tmp_path, capsys):
    other = write_run(tmp_path / "other", teacher=True, seed=5)
    arguments = ["evaluate", other, run, "--ensemble", "logits", "--data", DUSK, "--root", root]
    rows, said = printed(capsys, *arguments)
    assert [row[0] for row in rows] == ["camvid:test:dusk (target)", "ensemble of 2"]
    assert said[1].startswith("ensemble of 2: ensemble, mean of logits: 0.5 x ")
    assert main([*map(str, arguments), "--json"]) == 0
    assert [each["protocol"]["weights"] for each in json.loads(capsys.readouterr().out)] == ["student", "teacher"]


def test_a_spaces_views_are_measured_with_it(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", report_images=0)
    monkeypatch.setitem(SPLITS, "val", (2, 1))
    dataset = open_data("streets:val")
    space = replace(dataset.space, views={"mIoU 2": ("road", "sky")})
    network = load_network(run)
    network.class_names = space.classes
    known = {"settings": small_recipe(tmp_path).evaluate, "device": torch.device("cpu"), "autocast": nullcontext()}
    # Eleven logits for nineteen classes: the rest is never predicted.
    report = evaluate_network(network, replace(dataset, space=space), **known, protocol=PROTOCOL)
    assert report.view("mIoU 2") == pytest.approx(np.nanmean(report.iou[[0, 10]]))


def test_scenes_are_read_ahead_in_order_and_a_bad_one_is_an_error_in_its_turn(root):
    dataset = open_data(DUSK, root, SPACE)
    order = [2, 0, 1, 0, 2, 1, 1, 0, 2, 0, 1, 2]  # more than there are threads
    assert [scene.names[0] for scene in ahead(dataset.read, order)] == [dataset.names[index] for index in order]
    scenes = ahead(replace(dataset, images=(dataset.images[0], "test/gone.png", dataset.images[2])).read, [0, 1, 2])
    assert next(scenes).names == (dataset.names[0],)
    with pytest.raises(DataError, match="gone.png"):
        next(scenes)
