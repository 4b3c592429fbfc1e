"""`segda select`: candidates, what the criteria see of them, the choice, and that no target label makes it."""

import json
import math
import shutil
from contextlib import nullcontext
from typing import get_args

import numpy as np
import pytest
import torch

from conftest import small_recipe, write_camvid
from segda import run as runs
from segda.cli.main import main
from segda.commands.evaluate import evaluate
from segda.commands.select import select
from segda.data.sets.datasets import open_data
from segda.errors import DataError, RecipeError, RunError, WeightsError
from segda.evaluation.certainty import labels
from segda.evaluation.criteria import CRITERIA, LAMBDA
from segda.evaluation.evidence import LastLayer, evidence
from segda.evaluation.inference import views
from segda.evaluation.look import Eye, spread
from segda.evaluation.selection import SOURCE, Candidate, Selection
from segda.ground.choices import Criterion
from segda.networks import NETWORKS
from segda.recipes.build import build
from segda.run import load_network
from small_run import DUSK, SPACE, write_run

TARGET, DAY = "camvid:train:dusk", "camvid:val:day"
CPU = torch.device("cpu")
BOTH = ("student", "teacher")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The labels of the target's training images are not there."""
    root = write_camvid(tmp_path_factory.mktemp("data"))
    for label in (root / "camvid" / "trainannot").glob("0001TP*"):
        label.unlink()
    return root


def keep(run, step, seed, weights="student"):
    """A snapshot with random weights."""
    recipe = runs.load_recipe_of(run)
    torch.manual_seed(seed)
    network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
    for buffer in network.decoder.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.1, 1)
    runs.save_network(runs.snapshot_path(run, step, weights), network, recipe.network, step)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of 4 steps with teacher and snapshots of step 2, and one without."""
    folder = tmp_path_factory.mktemp("runs")
    taught = write_run(folder / "taught", teacher=True)
    for which, seed in (("student", 7), ("teacher", 8)):
        keep(taught, 2, seed, which)
    return taught, write_run(folder / "plain", seed=5)


@pytest.fixture(scope="module")
def found(two, root):
    return select(two, oracle=DUSK, source=DAY, root=root, precision="32", weights=BOTH)


def test_each_snapshot_of_each_run_is_a_candidate_student_and_teacher(two, found):
    taught, plain = two
    assert [(one.run, one.step, one.weights, one.last) for one in found.candidates] == [
        (taught, 2, "student", False),
        (taught, 2, "teacher", False),
        (taught, 4, "student", True),
        (taught, 4, "teacher", True),
        (plain, 4, "student", True),
    ]
    assert found.data == TARGET and found.images == 3
    assert all(len(set(of)) > 1 for of in found.scores.values())


def test_candidates_are_students_unless_weights_say_otherwise(two, root):
    ours = select(two, root=root)
    assert [(one.step, one.weights) for one in ours.candidates] == [(2, "student"), (4, "student"), (4, "student")]
    assert not math.isnan(ours.scores["agreement"][1])  # with the teacher, which is no candidate


def test_weights_and_step_say_which_are_candidates(two, root):
    ours = select([two[0]], root=root, weights=["teacher"], step=2)
    assert [(one.step, one.weights) for one in ours.candidates] == [(2, "teacher")]
    # The student is looked at to say whether they agree, and is no candidate.
    assert 0 <= ours.scores["agreement"][0] <= 1
    with pytest.raises(WeightsError, match="step 3"):
        select([two[0]], root=root, step=3)


def test_a_network_of_a_snapshot_scores_as_it_does_alone(two, found, root, tmp_path):
    other = write_run(tmp_path / "other")
    shutil.copyfile(runs.snapshot_path(two[0], 2), runs.product_path(other, "student"))
    alone = select([other], source=DAY, root=root, precision="32")
    for name, scores in alone.scores.items():
        assert scores[0] == found.scores[name][0] or name == "agreement"


def test_mious_are_those_of_evaluate(two, found, root):
    taught, plain = two
    for run, numbers in ((taught, (2, 3)), (plain, (4,))):
        for data, ours in ((DUSK, found.mious), (DAY, found.scores["source"])):
            theirs = evaluate(run, [data], root, precision="32")
            assert [ours[i] for i in numbers] == [report.miou for report in theirs]


def test_mixed_images_and_agreement_are_those_of_a_plain_loop(two, root):
    taught, _ = two
    settings, dataset = small_recipe(root).evaluate, open_data(TARGET, root)
    networks = {which: load_network(taught, which) for which in ("student", "teacher")}
    eyes = {which: Eye(network, settings, CPU, nullcontext()) for which, network in networks.items()}
    ours = evidence(eyes, dataset, [0, 2], "t")

    def told(network, image):
        return labels(views(network, image, settings, CPU, nullcontext()), tuple(image.shape[1:]))

    first, second = (dataset.read(i).image for i in (0, 2))
    mix = torch.from_numpy(np.round(LAMBDA * second.numpy() + (1 - LAMBDA) * first.numpy()).astype(np.uint8))
    said = {}
    for which, network in networks.items():
        before, own, mixed = said[which] = [told(network, image) for image in (first, second, mix)]
        same = before == own
        theirs = [[int((mixed == own)[part].sum()), int(part.sum())] for part in (same, ~same)]
        assert ours[which].mixed.tolist() == theirs
    agreed = sum(int((one == other).sum()) for one, other in zip(*(of[:2] for of in said.values()), strict=True))
    assert ours["student"].agreed == ours["teacher"].agreed == agreed


def test_without_an_oracle_no_target_label_is_read(two, root, monkeypatch, tmp_path):
    """They are not there; and where they are, nobody asks for them."""
    shutil.copytree(root, tmp_path / "data")
    write_camvid(tmp_path / "data")
    asked = []
    dataset_read = type(open_data(TARGET, root)).read

    def read(self, i, label=False):
        asked.append((self.spec, label))
        return dataset_read(self, i, label)

    monkeypatch.setattr(type(open_data(TARGET, root)), "read", read)
    ours = select(two, source=DAY, root=tmp_path / "data")
    assert {spec for spec, label in asked if label} == {DAY}
    assert {spec for spec, label in asked if not label} == {TARGET}
    assert ours.oracle is None and ours.mious == () and "oracle" not in json.dumps(ours.to_json()["candidates"])
    assert ours.scores == select(two, source=DAY, root=root).scores


ANY = {"name": "encoder_decoder", "encoder": "tiny", "weights": "scratch"}
MIT = {"name": "mit_daformer", "encoder": "tiny", "weights": "scratch", "channels": 8, "dilations": [1, 3],
       "dropout": 0.1, "drop_path": 0.1}  # fmt: skip
LAST_LAYERS = {
    "a 1x1 convolution": (ANY | {"decoder": "segformer_64", "dropout": 0.1, "drop_path": 0.1}, 64),
    "a 3x3 convolution": (ANY | {"decoder": "refinenet", "dropout": 0.1, "drop_path": 0.1}, 256),
    "one of three heads": (ANY | {"decoder": "danet", "dropout": 0.1, "drop_path": 0.1}, 512),
    "a sum of dilated ones": ({"name": "deeplab_v2", "encoder": "small", "weights": "scratch", "multi_level": True,
                               "aux_weight": 0.1}, None),
    "a wrapped network's": ({"name": "hrda", "box": [32, 32], "grid": 8, "context_scale": 0.5, "detail_weight": 0.1,
                             "attention": "conv1", "attention_dropout": 0.1, "window_batch": 3, "over": MIT}, 8),
}  # fmt: skip
"""What a network ends with -> its spec, and how many numbers a cell is of before it, where that is told."""


@pytest.mark.parametrize("kind", LAST_LAYERS)
def test_the_last_layer_is_found_with_what_reaches_it(kind):
    spec, width = LAST_LAYERS[kind]
    network = build(NETWORKS, spec, "network", class_names=SPACE.classes).eval()
    watched = LastLayer(network)
    with torch.no_grad():
        network.low_res_logits(torch.rand(1, 3, 64, 64))
    weights, cells = watched.weights(), watched.cells()
    assert len(weights) == len(SPACE.classes) and weights.shape[1] % cells.shape[1] == 0
    assert width in (None, cells.shape[1])
    watched.close()
    assert not any(module._forward_hooks for module in network.modules())


class Outgrown(torch.nn.Module):
    """Ends with no convolution to its classes."""

    classes = 3

    def __init__(self):
        super().__init__()
        self.classify, self.after = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 5, 1)

    def wrapped(self):
        return []


def test_a_network_that_ends_otherwise_has_no_last_layer():
    network = Outgrown()
    watched = LastLayer(network)
    network.after(network.classify(torch.rand(1, 3, 4, 4)))
    assert watched.weights() is None and watched.cells() is None


def test_each_word_that_a_user_chooses_among_has_its_row():
    assert sorted(get_args(Criterion)) == sorted([*CRITERIA, SOURCE])


def selection(**more):
    """Three candidates of one run."""
    candidates = tuple(Candidate("run", "student", step, step == 3) for step in (1, 2, 3))
    scores = {"entropy": (0.3, 0.1, 0.1), "agreement": (math.nan, 0.2, 0.9), "density": (math.nan,) * 3}
    return Selection("d", 5, candidates, scores, "entropy", **more)


def test_the_best_end_of_a_criterion_chooses_and_the_first_of_several():
    ours = selection()
    assert ours.ranks("entropy") == [3, 1.5, 1.5] and ours.choice("entropy") == 1
    assert ours.ranks("agreement")[1:] == [2, 1] and ours.choice("agreement") == 2
    assert ours.choice("density") is None and ours.chosen.step == 2


def test_an_oracle_says_correlation_and_regret():
    ours = selection(oracle="x", mious=(0.5, 0.4, 0.6))
    # Entropy's ranks 3, 1.5, 1.5 and the mIoU's 2, 3, 1: no order in common.
    assert ours.correlation("entropy") == pytest.approx(0) and ours.regret("entropy") == pytest.approx(0.2)
    assert ours.correlation("agreement") == pytest.approx(1) and ours.regret("agreement") == 0
    assert math.isnan(ours.correlation("density")) and math.isnan(ours.regret("density"))
    told = ours.to_json()
    assert told["oracle"]["best"] == 2 and told["criteria"]["entropy"]["regret"] == pytest.approx(0.2)
    json.dumps(told, allow_nan=False)


def test_images_are_spread_evenly():
    assert spread(10, 3) == [0, 4, 9] and spread(3, 100) == [0, 1, 2]


def test_the_command_prints_a_table_and_the_way_to_use_the_choice(two, root, capsys):
    arguments = ["select", *map(str, two), "--root", str(root), "--source", DAY]
    capsys.readouterr()
    assert main([*arguments, "--by", "entropy", "--oracle", DUSK]) == 0
    out = capsys.readouterr().out
    assert "rank correlation" in out and "oracle: chosen by target labels" in out and "segda predict" in out
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["oracle"] is None and len(told["candidates"]) == 3
    assert told["candidates"][told["chosen"]]["criteria"][told["by"]]["rank"] in (1, 1.5)


def test_what_cannot_be_is_refused_in_a_line(two, root, tmp_path, capsys):
    _, plain = two
    for more, words in (
        ({"source": DUSK}, "--source camvid:test:dusk: is of the target"),
        ({"images": 1}, "--images 1: criteria compare images"),
        ({"by": "source"}, "--source NAME:SPLIT"),
        ({"data": "camvid:nowhere"}, "nowhere"),
    ):
        with pytest.raises((RecipeError, DataError), match=words):
            select([plain], root=root, **more)
    with pytest.raises(RunError, match="--by agreement: no candidate has a value of it .it needs runs with a teacher"):
        select([plain], root=root, by="agreement")
    with pytest.raises(RecipeError, match="named twice"):
        select([plain, plain], root=root)
    shutil.copytree(plain, tmp_path / "other")
    recipe = (tmp_path / "other" / "recipe.yaml").read_text()
    (tmp_path / "other" / "recipe.yaml").write_text(recipe.replace("set: camvid:train:dusk", "set: camvid:val:dusk"))
    with pytest.raises(RecipeError, match="adapt to different data .*--data NAME:SPLIT"):
        select([plain, tmp_path / "other"], root=root)
    assert main(["select", str(plain), "--by", "guess"]) == 2
    assert "guess" in capsys.readouterr().err
