"""`segda evaluate` of several runs: each by itself, or the mean of their networks, against a loop of its own."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from conftest import FRAMES, write_camvid
from segda.cli.main import main
from segda.commands.compare import compare
from segda.commands.evaluate import evaluate
from segda.errors import RecipeError, RunError, WeightsError
from segda.evaluation.ensemble import evaluate_ensemble, proportions
from segda.evaluation.metrics import read_list, read_reports
from segda.networks.weights.files import read_facts, save_tensors
from segda.run import load_network, load_recipe_of
from segda.run_data import record
from small_run import DUSK, SPACE, write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("data"))


@pytest.fixture
def runs(tmp_path):
    """Two networks that see images in different ways; the first run has a teacher too."""
    return [
        write_run(tmp_path / "advent", teacher=True, resize=[48, 32], shape="stretch"),
        write_run(tmp_path / "minent", seed=7),
    ]


def sharpen(run, factor):
    """Larger logits: nearly even ones have the same order on average as their probabilities."""
    path = run / "network.safetensors"
    tensors = load_file(path)
    tensors["decoder.classify.weight"] *= factor
    save_tensors(path, read_facts(path), tensors)


def change_space(run):
    record(run, load_recipe_of(run).override("data.space=cityscapes-19"), {})


def command(*arguments, root):
    return main(["evaluate", *map(str, arguments), "--data", DUSK, "--root", str(root), "--device", "cpu"])


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
def test_the_numbers_are_those_of_a_plain_loop(mean, root, runs):
    sharpen(runs[0], 50)
    sharpen(runs[1], 300)
    (ours,) = evaluate_ensemble(runs, [DUSK], mean, [3, 1], root, precision="32")
    counts = np.zeros((11, 11), int)
    for name in FRAMES["test"]:
        image = np.array(Image.open(root / "camvid" / "test" / f"{name}.png"), np.float32) / 255
        label = np.array(Image.open(root / "camvid" / "testannot" / f"{name}.png"))
        total = 0
        for run, size, share in ((runs[0], (32, 48), 0.75), (runs[1], (48, 64), 0.25)):
            # Half the size and bilinear: OpenCV's and torch's agree to a step of 8 bits.
            seen = interpolate(torch.from_numpy(image.transpose(2, 0, 1))[None], size, mode="bilinear")
            with torch.no_grad():
                logits = interpolate(load_network(run).infer(seen), (48, 64), mode="bilinear").double()
            total = total + share * (logits if mean == "logits" else logits.softmax(1))
        prediction = total.argmax(1)[0].numpy()
        known = label < 11
        np.add.at(counts, (label[known], prediction[known]), 1)
    assert np.abs(ours.counts[:11] - counts).sum() < 0.02 * counts.sum()


def test_a_network_and_its_copy_are_that_network(root, tmp_path):
    runs = [write_run(tmp_path / name, seed=3) for name in ("one", "copy")]
    (alone,) = evaluate(runs[0], [DUSK], root)
    (ours,) = evaluate_ensemble(runs, [DUSK], "logits", None, root)
    assert (ours.counts == alone.counts).all()


def test_the_protocol_names_all_runs_their_shares_their_input_and_what_was_averaged(root, runs):
    (report,) = evaluate_ensemble(runs, [DUSK], "logits", [3, 1], root)
    said = report.protocol.sentence()
    assert said.startswith(f"{DUSK}, 3 images; ensemble, mean of logits: 0.75 x {runs[0]} (stretched to 48x32")
    assert f"0.25 x {runs[1]} (at their size, whole" in said and "after step 4" in said


def test_its_report_goes_to_the_file_that_is_named_and_to_no_run(root, runs, tmp_path):
    (report,) = evaluate_ensemble(runs, [DUSK], "probabilities", None, root, out=tmp_path / "both.json")
    assert not any((run / "reports").exists() for run in runs)
    (back,) = read_list(tmp_path / "both.json")
    assert back.protocol == report.protocol and (back.counts == report.counts).all()


def test_it_stands_beside_runs_in_a_comparison(root, runs, tmp_path):
    for run in runs:
        evaluate(run, [DUSK], root, ["student"])
    (report,) = evaluate_ensemble(runs, [DUSK], "logits", None, root, out=tmp_path / "both.json")
    comparison = compare([*runs, tmp_path / "both.json"])
    assert comparison.runs == ("advent", "minent", "both")
    both = comparison.entries(DUSK)[2]
    assert both.title == "both" and comparison.summary(DUSK, both).mean == report.miou
    assert any(note.startswith("both: ensemble, mean of logits: ") for note in comparison.notes())


def test_students_go_with_students_and_teachers_with_teachers(root, runs, tmp_path):
    runs.append(write_run(tmp_path / "third", teacher=True, seed=5))
    assert [each.protocol.weights for each in evaluate_ensemble(runs, [DUSK], "logits", None, root)] == ["student"]
    both = evaluate_ensemble([runs[0], runs[2]], [DUSK], "logits", None, root)
    assert [each.protocol.weights for each in both] == ["student", "teacher"]
    assert (both[0].counts != both[1].counts).any()


def test_shares_are_in_proportion():
    assert proportions(None, 4) == [0.25] * 4
    assert proportions([2, 1, 1], 3) == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([1], "give one a run"),
        ([1, 1, 1], "3 shares .* for 2 runs"),
        ([1, 0], "share 0"),
        ([1, -1], "share -1"),
        ([1, float("nan")], "share nan"),
        ([1, float("inf")], "share inf"),
    ],
)
def test_shares_that_are_no_shares_are_refused(shares, said, root, runs):
    with pytest.raises(RecipeError, match=said):
        evaluate_ensemble(runs, [DUSK], "logits", shares, root)


def test_one_run_is_no_ensemble(root, runs):
    with pytest.raises(RecipeError, match="this is one .*advent"):
        evaluate_ensemble(runs[:1], [DUSK], "logits", None, root)


def test_a_run_is_in_a_mean_once_however_its_path_is_written(root, runs, tmp_path, capsys):
    link = tmp_path / "link"
    link.symlink_to(runs[0])
    for again in (runs[0], runs[1] / ".." / "advent", link):
        assert command(runs[0], runs[1], again, "--ensemble", "logits", "--out", tmp_path / "x.json", root=root) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("advent is named twice; name it once")
    assert not (tmp_path / "x.json").exists()


def test_an_unknown_mean_is_refused(root, runs):
    with pytest.raises(RecipeError, match="did you mean 'logits'"):
        evaluate_ensemble(runs, [DUSK], "logit", None, root)


def test_runs_of_other_classes_are_refused_before_anything_is_measured(root, runs, tmp_path):
    change_space(runs[1])
    with pytest.raises(RecipeError, match="minent has the classes of cityscapes-19, .*advent those of camvid-11"):
        evaluate_ensemble(runs, [DUSK], "logits", None, root, out=tmp_path / "both.json")
    assert not (tmp_path / "both.json").exists()


def test_a_run_without_such_weights_is_named(root, runs):
    with pytest.raises(WeightsError, match="minent has no trained teacher"):
        evaluate_ensemble(runs, [DUSK], "logits", None, root, ["teacher"])


@pytest.mark.parametrize("out", ["both.txt", "both", "advent/reports/camvid-test-dusk.json"])
def test_its_report_cannot_pass_for_a_runs(out, root, runs, tmp_path):
    with pytest.raises(RunError, match="ends in .json|taken for a report of that run"):
        evaluate_ensemble(runs, [DUSK], "logits", None, root, out=tmp_path / out)
    assert not (tmp_path / out).exists()


def test_a_file_of_something_else_is_not_replaced_by_its_report(root, runs, tmp_path):
    (tmp_path / "mine.json").write_text('{"thesis": 1}')
    with pytest.raises(RunError, match="mine.json is there and holds no reports of segda; name another file"):
        evaluate_ensemble(runs, [DUSK], "logits", None, root, out=tmp_path / "mine.json")
    assert (tmp_path / "mine.json").read_text() == '{"thesis": 1}'
    for _ in range(2):
        evaluate_ensemble(runs, [DUSK], "logits", None, root, out=tmp_path / "both.json")


def test_several_runs_are_measured_one_by_one(root, runs, capsys):
    assert command(*runs, root=root) == 0
    text = capsys.readouterr().out
    assert all(f"│   {run.name} " in text for run in runs) and f"│ {DUSK} (target) " in text
    assert [len(read_reports(run)) for run in runs] == [2, 1]


def test_json_says_which_run_a_report_is_of(root, runs, capsys):
    assert command(*runs, "--json", root=root) == 0
    tables = json.loads(capsys.readouterr().out)
    assert [(table["run"], table["protocol"]["weights"]) for table in tables] == [
        (str(runs[0]), "student"), (str(runs[0]), "teacher"), (str(runs[1]), "student"),
    ]  # fmt: skip


def test_an_ensemble_is_printed_with_its_protocol(root, runs, capsys):
    assert command(*runs, "--ensemble", "logits", "--shares", "0.5,0.5", "--classes", root=root) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ensemble of 2" in text and "mean of logits: 0.5 x" in text
    assert all(name in text for name in SPACE.classes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ensemble", "votes"], "'votes' is not one of 'logits', 'probabilities'"),
        (["--ensemble", "logits", "--shares", "half,half"], "--shares half,half: give one number a run"),
        (["--shares", "1,1"], "add --ensemble logits"),
        (["--out", "both.json"], "a run's own goes to RUN/reports"),
        (["--ensemble", "logits", "--all-checkpoints"], "leave --ensemble out"),
        (
            ["--all-checkpoints", "--weights", "teacher"],
            "has no snapshots (snapshots/teacher-*.safetensors); train with keep_every",
        ),
    ],
)
def test_options_that_do_not_go_together_are_one_line_and_measure_nothing(arguments, said, root, runs, capsys):
    assert command(*runs, *arguments, root=root) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not any((run / "reports").exists() for run in runs)


def test_a_run_named_twice_is_refused(root, runs, capsys):
    assert command(runs[0], runs[0], root=root) == 2
    assert "is named twice" in capsys.readouterr().err


def test_what_is_wrong_with_the_last_run_is_said_before_the_first_is_measured(root, runs, tmp_path, capsys):
    assert command(*runs, tmp_path / "nowhere", root=root) == 2
    assert "nowhere is not a run folder" in capsys.readouterr().err
    (runs[1] / "data.json").write_text("{")
    assert command(*runs, root=root) == 2
    assert not (runs[0] / "reports").exists()
