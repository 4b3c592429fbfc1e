"""Source-free: its step against a slow twin, no source anywhere, what is refused, labels of a folder."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from conftest import METHOD_SETTINGS, RECIPE, small_recipe
from distributed.test_shares import micro_batches
from resuming import at, same
from segda import run as runs
from segda.cli.main import main
from segda.commands.compare import compare
from segda.commands.evaluate import evaluate
from segda.commands.pseudo_label import pseudo_label
from segda.commands.report import report
from segda.commands.train import train
from segda.distributed.shares import ALONE, Share
from segda.errors import RecipeError, WeightsError
from segda.methods import METHODS
from segda.methods.source_free import SourceFree
from segda.networks import NETWORKS, DeepLabV2
from segda.parts.entropy import diversity
from segda.recipes.build import build
from segda.recipes.recipe import parse_recipe
from segda.scene import IGNORE, Batch, Scene
from segda.training.max_batch import Trial
from small_run import write_run

OFF = {"jitter_prob": 0, "jitter_strength": 0.2, "blur_prob": 0, "blur_sigma": [0.15, 1.15]}
MASKS = {"mode": "target", "block": 8, "ratio": 0.5, "weight": 0.7, "augment": False}
NONE = {"pseudo_weight": 0, "entropy_weight": {"main": 0}, "diversity_weight": 0, "masking": None}
CLASSES = ("road", "car", "sky")


def source_free(**settings) -> SourceFree:
    """Two heads or one, without anything random in the network."""
    torch.manual_seed(0)
    heads = settings.get("entropy_weight", {"main": 0})
    student = DeepLabV2(
        CLASSES,
        encoder="small",
        weights="scratch",
        multi_level="aux" in heads,
        aux_weight=0.3 if "aux" in heads else None,
    )
    given = METHOD_SETTINGS["source_free"] | {"photometric": OFF, "norm": "frozen", "hold": 0} | settings
    return build(METHODS, {"name": "source_free", **given}, "method", student=student).train()


def batch(t: int = 0, label: Tensor | None = None) -> Batch:
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(t))
    return Batch(None, Scene(image, label, names=("a", "b")), share=Share(seed=4, step=t))


def terms_of(method: SourceFree, given: Batch, t: int = 0) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for event in method.step(given, t):
        assert not found.keys() & event.keys()
        found |= event
    return found


# The step


@pytest.mark.parametrize("eta", [None, 2.0])
def test_a_step_is_that_of_a_slow_twin(eta):
    """Loops over pixels in float64 of what the networks say; value and gradient of each term."""
    method = source_free(
        selection="class-entropy", threshold=0.1, selection_momentum=None, pseudo_weight=0.9,
        entropy_weight={"main": 0.4, "aux": 0.2}, eta=eta, diversity_weight=0.6, masking=MASKS,
    )  # fmt: skip
    with torch.no_grad():  # so that pixels differ
        for weight in method.parameters():
            weight.mul_(4 if weight.ndim == 4 else 1)
    given = batch()
    image = given.target.image
    label, counts = selected_by_hand(method.teacher.network.double()(image.double()).logits.detach(), 0.1)
    assert 0 < sum(counts.values()) < len(counts)
    method.teacher.float()
    ours = terms_of(method, given)

    student = method.student.double()
    heads = student(image.double()).heads
    theirs = {
        "pseudo": 0.9 * sum(w * cross_entropy(heads[k].logits, label, counts) for k, w in (("main", 1), ("aux", 0.3)))
    }
    for name, weight in (("main", 0.4), ("aux", 0.2)):
        relative = [entropy_of(pixel) / math.log(3) for pixel in pixels(heads[name].logits)]
        raised = relative if eta is None else [(e**2 + 1e-8) ** eta for e in relative]
        theirs[f"{'' if eta is None else 'robust_'}entropy/{name}"] = weight * sum(raised) / len(raised)
    share = sum(pixel.softmax(0) for pixel in pixels(heads["main"].logits)) / (2 * 32 * 48)
    theirs["diversity"] = 0.6 * sum(q * q.log() for q in share) / math.log(3)
    masked = student(masked_by_hand(image, student.fill).double()).heads
    theirs["masked"] = sum(w * cross_entropy(masked[k].logits, label, counts) for k, w in (("main", 0.7), ("aux", 0.3)))
    assert {name for name, term in ours.items() if term.requires_grad} == theirs.keys()
    for name, term in theirs.items():
        assert ours[name].item() == pytest.approx(term.item(), rel=1e-4, abs=1e-6), name
    assert ours["confident"].item() == pytest.approx(sum(counts.values()) / len(counts))


def pixels(logits: Tensor) -> list[Tensor]:
    return list(logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]))


def entropy_of(pixel: Tensor) -> Tensor:
    prob = pixel.softmax(0)
    return -(prob * prob.log()).sum()


def selected_by_hand(logits: Tensor, floor: float) -> tuple[list[int], dict[int, bool]]:
    """Each pixel's class, and whether it counts: by its entropy, against the larger of floor and its class's median."""
    label = [int(pixel.argmax()) for pixel in pixels(logits)]
    unsure = [float(entropy_of(pixel)) for pixel in pixels(logits)]
    medians = {}
    for c in set(label):
        here = sorted(value for value, one in zip(unsure, label, strict=True) if one == c)
        medians[c] = here[(len(here) + 1) // 2 - 1]
    return label, {i: unsure[i] <= max(floor, medians[label[i]]) + 1e-7 for i in range(len(label))}


def cross_entropy(logits: Tensor, label: list[int], counts: dict[int, bool]) -> Tensor:
    each = [-pixel.log_softmax(0)[c] for pixel, c in zip(pixels(logits), label, strict=True)]
    return sum(loss for i, loss in enumerate(each) if counts[i]) / len(each)


def masked_by_hand(image: Tensor, fill: tuple[float, float, float]) -> Tensor:
    seen = image.clone()
    for k in range(len(image)):
        kept = Share(seed=4, step=0).rng("mask", scene=k).random((4, 6)) > 0.5
        for row in range(32):
            for column in range(48):
                if not kept[row // 8, column // 8]:
                    seen[k, :, row, column] = torch.tensor(fill)
    return seen


def test_diversity_is_least_where_all_classes_are_there_and_0_where_one_is():
    def of(*shares):
        """Pixels that are sure, so many of each class."""
        label = torch.tensor([c for c, count in enumerate(shares) for _ in range(count)])
        return diversity(200.0 * torch.nn.functional.one_hot(label, 3).T[None, :, None].float(), ALONE).item()

    assert of(4, 0, 0) == pytest.approx(0, abs=1e-6)
    assert of(2, 2, 2) == pytest.approx(-1)
    assert of(2, 2, 0) == pytest.approx(-math.log(2) / math.log(3))
    assert diversity(torch.zeros(1, 3, 2, 2), ALONE).item() == pytest.approx(-1), "unsure pixels are of all classes"


def test_the_diversity_of_shares_is_that_of_all_scenes_in_value_and_gradient():
    def logits():
        made = 3 * torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(2))
        return made.requires_grad_()

    whole, parts = logits(), logits()
    expected = diversity(whole, ALONE)
    expected.backward()
    found = micro_batches(lambda share: diversity(parts[share.first_scene : share.first_scene + 2], share), scenes=2)
    mean = torch.stack(found).mean()
    mean.backward()
    assert mean.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("settings", "terms"), [
    ({"pseudo_weight": 1}, {"pseudo"}),
    ({"entropy_weight": {"main": 0.1}}, {"entropy/main"}),
    ({"entropy_weight": {"main": 0.1}, "eta": 2.0}, {"robust_entropy/main"}),
    ({"diversity_weight": 0.1}, {"diversity"}),
    ({"masking": MASKS}, {"masked"}),
    ({"masking": MASKS | {"masks": 2}, "pseudo_weight": 1}, {"pseudo", "masked", "masked_rest"}),
])  # fmt: skip
def test_a_term_whose_weight_is_0_is_not_there(settings, terms):
    found = terms_of(source_free(**NONE | settings), batch())
    assert {name for name, term in found.items() if term.requires_grad} == terms
    assert {"confident", "H/target"} <= found.keys()


def test_the_teacher_stays_what_the_student_began_with_while_it_is_held():
    method = source_free(hold=3, decay=0.5)
    name, first = next((name, one.clone()) for name, one in method.student.state_dict().items() if one.ndim == 4)
    player = torch.optim.SGD(method.student.parameters(), lr=0.1)
    held = []
    for t in range(5):
        sum(term for term in terms_of(method, batch(t), t).values() if term.requires_grad).backward()
        player.step()
        player.zero_grad()
        held.append(torch.equal(method.teacher.network.state_dict()[name], first))
    assert held == [True, True, True, False, False]


@pytest.mark.parametrize("norm", ["trained", "target", "frozen"])
def test_batch_norms_follow_the_target_as_it_is_or_whatever_is_seen_or_nothing(norm):
    method = source_free(norm=norm, pseudo_weight=1, masking=MASKS)
    student, teacher = (
        [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
        for network in (method.student, method.teacher.network)
    )
    start = [one.running_mean.clone() for one in student]
    plain = copy.deepcopy(method.teacher.network).train()
    plain.infer(batch().target.image)
    expected = [one.running_mean for one in plain.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    terms_of(method, batch())
    ours, theirs = ([one.running_mean for one in norms] for norms in (student, teacher))

    def equal(one: list[Tensor], other: list[Tensor]) -> bool:
        return all(torch.equal(*pair) for pair in zip(one, other, strict=True))

    assert equal(theirs, start if norm == "frozen" else expected)
    assert equal(ours, theirs) == (norm != "trained")
    assert {one.training for one in student} == {norm == "trained"}
    assert {one.training for one in teacher} == {norm != "frozen"}


def test_pseudo_labels_of_a_folder_take_the_place_of_the_teachers():
    method = source_free(**NONE | {"pseudo_weight": 1, "masking": MASKS})
    label = torch.full((2, 32, 48), IGNORE)
    label[0, :16] = 2
    found = terms_of(method, batch(label=label))
    logits = method.student(batch().target.image).logits
    expected = torch.nn.functional.cross_entropy(logits, label, ignore_index=IGNORE, reduction="sum") / label.numel()
    assert found["pseudo"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found["confident"].item() == 0.25 and found["masked"] > 0


# No source, anywhere


@pytest.fixture
def alone(camvid) -> Path:
    """Data without a source: neither its images nor a label of any scene that is trained on."""
    for path in (camvid / "camvid").glob("train/00*6*"):
        path.unlink()
    for path in (camvid / "camvid" / "trainannot").iterdir():
        path.unlink()
    return camvid


def test_it_trains_where_neither_source_nor_labels_are_left(camvid, tmp_path, said):
    recipe = small_recipe(camvid, "source_free").override("evaluate.report_images=2", "evaluate.every=2")
    train(recipe, tmp_path / "with")
    for path in (*(camvid / "camvid").glob("train/00*6*"), *(camvid / "camvid" / "trainannot").iterdir()):
        path.unlink()
    train(recipe, tmp_path / "without")
    assert same(tmp_path / "with", tmp_path / "without")
    assert "data.source.set" not in runs.read_json(tmp_path / "without" / "data.json")["sets"]


def test_check_max_batch_passes_resume_and_all_that_reads_a_run_do_without_a_source(alone, tmp_path, said):
    recipe = small_recipe(alone, "source_free").override("evaluate.report_images=2", "save_every=2")
    train(recipe, tmp_path / "checked", check=True)
    assert any("seconds a step" in line for line in said) and not (tmp_path / "checked").exists()
    trial = Trial(recipe)
    assert trial.noise(2).source is None and trial(1).memory
    unseen = ("evaluate.data=[]", "evaluate.report_images=0")
    train(recipe.override("data.batch=1", "accumulate=2", *unseen), tmp_path / "passes")
    run = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), at(3, lambda: 1 / 0):
        train(recipe, run)
    Path(recipe.start).unlink()  # a run that has begun needs its start no more
    train(recipe, run, resume=True)
    other = write_run(tmp_path / "other")
    evaluate(other, ["camvid:test:dusk"], root=alone)
    page = report(run, other, root=alone).read_text()
    assert "source_free: camvid:train:dusk" in page and "No target label was read in training." in page
    compare([other, run])
    assert [report.protocol.weights for report in evaluate(run, ["camvid:test:dusk"], root=alone)] == [
        "student",
        "teacher",
    ]


def test_labels_of_a_folder_are_learnt_without_a_source(alone, tmp_path):
    recipe = small_recipe(alone, "source_free").override("evaluate.data=[]")
    run = write_run(tmp_path / "given")
    pseudo_label([run], recipe.data.target.set, "entropy-median", tmp_path / "labels", root=alone)
    train(recipe.override(f"start={run}", f"data.target.labels={tmp_path / 'labels'}"), tmp_path / "run")
    kept = [line["confident"] for line in runs.read_log(tmp_path / "run")]
    assert len(kept) == 4 and all(0 < one < 1 for one in kept)


# What is refused


def refused(capsys, recipe: Path, *arguments: str) -> str:
    assert main(["train", str(recipe), *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def tree_of(camvid: Path) -> dict:
    return yaml.safe_load(small_recipe(camvid, "source_free").to_yaml(defaults=False))


def test_a_method_that_needs_a_source_says_so_and_which_do_without(camvid, tmp_path, capsys):
    tree = yaml.safe_load(RECIPE)
    del tree["data"]["source"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    line = refused(capsys, tmp_path / "mine.yaml", "--out", str(tmp_path / "run"))
    assert "mine.yaml: data.source: missing; method source_only learns from it" in line
    assert line.endswith("or take a method that does without: source_free") and not (tmp_path / "run").exists()


def test_a_source_that_it_has_no_use_for_is_refused(camvid):
    tree = tree_of(camvid)
    tree["data"]["source"] = yaml.safe_load(RECIPE)["data"]["source"]
    with pytest.raises(RecipeError, match="data.source: has no effect with method source_free; remove it"):
        parse_recipe(tree, "mine")


def test_without_a_start_it_is_refused(camvid, tmp_path, capsys):
    tree = tree_of(camvid)
    del tree["start"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    line = refused(capsys, tmp_path / "mine.yaml", "--out", str(tmp_path / "run"))
    assert "mine.yaml: start: missing; method source_free goes on from a trained network: start: RUN" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("start", "message"), [
    ("nowhere", "start: no run, file or folder nowhere; give one"),
    ("cityscapes", "start: .* knows 8 other classes than the 11 of this recipe"),
])  # fmt: skip
def test_a_start_that_is_none_or_knows_other_classes_is_refused_and_nothing_is_written(
    start, message, camvid, tmp_path
):
    recipe = small_recipe(camvid, "source_free")
    if start != "nowhere":
        start = tmp_path / "other.safetensors"
        network = build(NETWORKS, recipe.network, "network", class_names=tuple("abcdefgh"))
        runs.save_network(start, network, recipe.network, 3)
    with pytest.raises(WeightsError, match=message) as error:
        train(recipe.override(f"start={start}"), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("settings", "message"), [
    (NONE, "method: nothing is learnt: masking is null and all weights are 0"),
    ({"pseudo_weight": -1}, "method.pseudo_weight: -1.0 is below 0"),
    ({"entropy_weight": {"main": -0.1}}, "method.entropy_weight.main: -0.1 is below 0"),
    ({"masking": MASKS | {"mode": "both"}}, "method.masking.mode: both masks images of the source, and there is none"),
    ({"masking": MASKS | {"mode": "source"}}, "method.masking.mode: source masks images of the source"),
    ({"hold": -1}, "method.hold: -1 is negative"),
    ({"eta": 0.0}, "method.eta: 0.0 is not above 0"),
])  # fmt: skip
def test_settings_that_have_no_meaning_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        source_free(**settings)
