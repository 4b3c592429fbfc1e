"""Every snapshot of a run: its numbers, the oracle's mark wherever its choice is shown, and nothing measured twice."""

import io
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from rich.console import Console

from conftest import write_camvid
from segda import run as runs
from segda.cli.main import main
from segda.commands.compare import compare
from segda.commands.evaluate import evaluate
from segda.commands.report import report
from segda.errors import RunError, WeightsError
from segda.evaluation import checkpoints
from segda.evaluation.checkpoints import evaluate_snapshots
from segda.evaluation.metrics import Report, read_reports
from segda.evaluation.protocol import Protocol
from segda.evaluation.snapshots import LAST, ORACLE, Snapshot, Snapshots, read_snapshots
from segda.networks import NETWORKS
from segda.recipes.build import build
from segda.reporting.tables import points, snapshots_table
from small_run import DUSK, SPACE, write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("data"))


def keep(run, step, seed):
    """A snapshot with random weights."""
    recipe = runs.load_recipe_of(run)
    torch.manual_seed(seed)
    network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
    for buffer in network.decoder.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.1, 1)
    runs.save_network(runs.snapshot_path(run, step), network, recipe.network, step)


@pytest.fixture
def run(tmp_path):
    """A run of 4 steps with snapshots of steps 1 and 2."""
    run = write_run(tmp_path / "run", teacher=True, report_images=0)
    for step in (1, 2):
        keep(run, step, seed=10 + step)
    return run


@pytest.fixture
def calls(monkeypatch):
    """The steps that are measured from now on."""
    steps, measure = [], checkpoints.evaluate_network

    def measured(network, dataset, settings, device, autocast, protocol):
        steps.append(protocol["step"])
        return measure(network, dataset, settings, device, autocast, protocol)

    monkeypatch.setattr(checkpoints, "evaluate_network", measured)
    return steps


def report_of(right, step=4):
    """Two classes of 100 pixels, of the first of which so many are right."""
    protocol = Protocol(DUSK, 3, "student", step, "tiny", None, "whole", None, None, False, "float32")
    return Report(protocol, ("road", "sky"), np.array([[right, 100 - right], [0, 100], [0, 0]]))


def snapshots_of(*rights):
    """Of steps 1, 2, ..., the last being the last checkpoint."""
    return Snapshots(
        DUSK, {step: Snapshot("0", report_of(right, step)) for step, right in enumerate(rights, 1)}, len(rights)
    )


def test_each_snapshot_has_the_numbers_of_its_own_weights_and_the_last_checkpoint_is_one(root, run, tmp_path):
    (ours,) = evaluate_snapshots(run, [DUSK], root)
    assert list(ours.mious()) == [1, 2, 4] and ours.last == 4
    for step, file in ((2, runs.snapshot_path(run, 2)), (4, run / "network.safetensors")):
        other = write_run(tmp_path / str(step))
        (other / "network.safetensors").write_bytes(file.read_bytes())
        (alone,) = evaluate(other, [DUSK], root)
        assert (ours.by_step[step].report.counts == alone.counts).all()
        assert ours.by_step[step].report.protocol.step == step


def test_a_snapshot_of_the_last_step_is_not_measured_beside_the_last_checkpoint(root, run, calls):
    keep(run, 4, seed=0)
    (ours,) = evaluate_snapshots(run, [DUSK], root)
    assert sorted(calls) == sorted(ours.mious()) == [1, 2, 4]


def test_what_was_measured_is_not_measured_again_unless_weights_or_protocol_change(root, run, calls):
    evaluate_snapshots(run, [DUSK], root, precision="32")
    before = (run / "reports" / "camvid-test-dusk-snapshots.json").read_bytes()
    calls.clear()
    evaluate_snapshots(run, [DUSK], root, precision="32")
    assert calls == []
    assert (run / "reports" / "camvid-test-dusk-snapshots.json").read_bytes() == before
    keep(run, 2, seed=99)
    keep(run, 3, seed=5)
    (ours,) = evaluate_snapshots(run, [DUSK], root, precision="32")
    assert calls == [2, 3] and list(ours.mious()) == [1, 2, 3, 4]
    calls.clear()
    evaluate_snapshots(run, [DUSK], root, precision="bf16")
    assert sorted(calls) == [1, 2, 3, 4]


def test_a_snapshot_that_has_gone_is_no_longer_one_of_them(root, run):
    evaluate_snapshots(run, [DUSK], root)
    runs.snapshot_path(run, 1).unlink()
    (ours,) = evaluate_snapshots(run, [DUSK], root)
    assert list(ours.mious()) == [2, 4]
    (kept,) = read_snapshots(run)
    assert list(kept.mious()) == [2, 4]


def test_an_interrupted_call_goes_on_where_it_stopped(root, run, calls, monkeypatch):
    measure = checkpoints.evaluate_network

    def interrupted(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoints, "evaluate_network", interrupted)
        evaluate_snapshots(run, [DUSK], root)
    assert calls == [4, 1]
    evaluate_snapshots(run, [DUSK], root)
    assert calls == [4, 1, 2]


def test_the_runs_own_report_is_the_last_checkpoints_and_the_teachers_stays(root, run):
    before = evaluate(run, [DUSK], root)
    evaluate_snapshots(run, [DUSK], root)
    student, teacher = read_reports(run)
    assert (student.protocol, teacher.protocol) == tuple(report.protocol for report in before)
    assert (student.counts == before[0].counts).all() and (teacher.counts == before[1].counts).all()


def test_snapshots_are_of_one_run_and_never_of_a_mean_of_several_networks():
    table = snapshots_of(50).to_json()
    report = table["snapshots"][0]["report"]
    members = [{"run": "a", "share": 1.0, "protocol": report["protocol"]}]
    report["protocol"] = {"mean": "logits", "members": members}
    with pytest.raises(ValueError, match="several networks"):
        Snapshots.from_json(table)


def test_the_oracle_takes_the_first_of_the_highest():
    assert snapshots_of(50, 90, 90, 70).best == 2
    assert snapshots_of(50).best == 1


def test_the_oracle_never_takes_a_snapshot_without_a_mean():
    ours = snapshots_of(50, 60)
    nothing = Report(report_of(0).protocol, ("road", "sky"), np.zeros((3, 2), int))
    ours = Snapshots(DUSK, {0: Snapshot("0", nothing), **ours.by_step}, 2)
    assert math.isnan(ours.mious()[0]) and ours.best == 2
    assert json.loads(json.dumps(ours.to_json(), allow_nan=False))["mious"][0] == {"step": 0, "miou": None}


def test_json_keeps_everything_and_says_who_chose(root, run):
    (ours,) = evaluate_snapshots(run, [DUSK], root)
    table = json.loads((run / "reports" / "camvid-test-dusk-snapshots.json").read_text())
    assert table["best"] == {"step": ours.best, "miou": ours.mious()[ours.best], "note": ORACLE}
    assert table["last"] == {"step": 4, "miou": ours.mious()[4], "note": LAST}
    assert {one["step"]: one["miou"] for one in table["mious"]} == ours.mious()
    (back,) = read_snapshots(run)
    assert back.mious() == ours.mious() and back.last == 4


def test_the_terminal_table_marks_the_last_and_the_oracles_choice():
    text = io.StringIO()
    Console(width=150, file=text).print(snapshots_table(snapshots_of(50, 90, 70), "runs/advent"))
    rows = {line.split("│")[1].strip(): line for line in text.getvalue().splitlines() if line.startswith("│")}
    assert ORACLE in rows["2"] and ORACLE not in rows["1"] + rows["3"]
    assert LAST in rows["3"] and LAST not in rows["1"] + rows["2"]
    # By hand: class 0 has 90 of 100, class 1 has 100 of 110.
    assert f"{(90 + 100 / 1.1) / 2:.1f}" in rows["2"]


def test_a_comparison_shows_the_oracle_apart_and_without_a_star(root, run, tmp_path):
    (ours,) = evaluate_snapshots(run, [DUSK], root)
    plain = write_run(tmp_path / "plain", seed=4)
    evaluate(plain, [DUSK], root)
    markdown = compare([run, plain]).markdown(everything=True)
    (row,) = [line for line in markdown.splitlines() if line.startswith("|") and ORACLE in line]
    best, last = ours.mious()[ours.best], ours.mious()[4]
    assert row.startswith(f"| run, best snapshot ({ORACLE}) | {100 * best:.1f} | {points(best - last)} | ")
    assert f"- run: best of 3 snapshots on {DUSK}: step {ours.best}; {ORACLE}" in markdown
    assert f"| run | {100 * last:.1f} |" in markdown.replace("*", "")
    assert ORACLE not in compare([plain]).markdown(everything=True) + compare([run, plain]).markdown()
    assert "best snapshot (--all)" in compare([run, plain]).hidden()[0]


class Words(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.words, self.labels = [], []
        self.feed(page.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.labels += [value for key, value in attrs if key == "aria-label"]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_has_the_curve_the_numbers_and_the_oracles_mark(root, run):
    evaluate(run, [DUSK], root)
    assert ORACLE not in Words(report(run, root=root)).text
    (ours,) = evaluate_snapshots(run, [DUSK], root)
    page = Words(report(run, root=root))
    (curve,) = [words for words in page.labels if "step 1:" in words]
    assert f"{ORACLE}: step {ours.best}" in curve and f"{LAST}: step 4" in curve
    assert all(f"step {step}: {100 * miou:.1f}" in curve for step, miou in ours.mious().items())
    # In the text, in the legend and in the table.
    assert page.text.count(ORACLE) == 3


def test_several_runs_and_data_sets_are_printed(root, run, tmp_path, capsys):
    other = write_run(tmp_path / "other")
    keep(other, 3, seed=1)
    arguments = ["--all-checkpoints", "--data", DUSK, "--data", "camvid:val:day", "--root", str(root)]
    assert main(["evaluate", str(run), str(other), *arguments, "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert [(table["run"], table["data"]) for table in tables] == [
        (str(each), data) for each in (run, other) for data in (DUSK, "camvid:val:day")
    ]
    assert main(["evaluate", str(other), *arguments]) == 0
    assert capsys.readouterr().out.count(ORACLE) == 2


def test_a_run_without_snapshots_says_how_to_keep_them(root, tmp_path, run, capsys):
    bare = write_run(tmp_path / "bare")
    with pytest.raises(RunError, match="bare has no snapshots .* keep_every: 2000"):
        evaluate_snapshots(bare, [DUSK], root)
    # Also as the second of two, before the first is measured.
    arguments = ["evaluate", str(run), str(bare), "--data", DUSK, "--root", str(root), "--all-checkpoints"]
    assert main(arguments) == 2
    assert "bare has no snapshots" in capsys.readouterr().err
    assert not (run / "reports").exists()


def test_a_damaged_snapshot_is_named_and_the_others_stay_measured(root, run):
    runs.snapshot_path(run, 2).write_bytes(b"half")
    with pytest.raises(WeightsError, match="network-0000002.safetensors is not a whole safetensors file"):
        evaluate_snapshots(run, [DUSK], root)
    (kept,) = read_snapshots(run)
    assert list(kept.mious()) == [1, 4]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"data": "x", "last": {"step": 1}, "snapshots": []}', '{"snapshots": 3}']
)
def test_a_damaged_file_of_snapshots_is_named_and_says_the_way_out(root, run, text):
    (run / "reports").mkdir()
    (run / "reports" / "camvid-test-dusk-snapshots.json").write_text(text)
    assert read_reports(run) == []
    with pytest.raises(RunError, match=r"camvid-test-dusk-snapshots\.json.*--all-checkpoints") as caught:
        evaluate_snapshots(run, [DUSK], root)
    assert "\n" not in str(caught.value)
