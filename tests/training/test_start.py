"""A student that starts from a trained one, and trained networks that are handed to a method."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import small_recipe
from networks.test_weights import official
from resuming import at, log_of, same
from segda import run as runs
from segda.commands.train import train
from segda.errors import RecipeError, RunError, SegdaError, WeightsError
from segda.methods.method import Method
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.networks.weights.layouts import LAYOUTS, to_theirs
from segda.parts.losses import supervised
from segda.recipes.build import build
from segda.recipes.recipe import Recipe
from segda.run_data import space_of
from segda.scene import Batch
from segda.training import assembly, checkpoint
from segda.training.max_batch import Trial
from small_run import write_run
from weight_files import prefixed

SAVED = ("evaluate.data=[]", "save_every=1", "steps=3")


class Near(Method):
    """Source only, and the target's prediction near that of a trained network; a second one may weigh in."""

    def __init__(self, student: Network, *, perceptual: Network, other: Network | None = None, factor: float):
        super().__init__()
        self.student, self.like, self.other, self.factor = student, perceptual, other, factor

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        yield {"source": supervised(self.student(batch.source.image), batch.source, over="all", share=batch.share)}
        theirs = self.like.infer(batch.target.image)
        ours = self.student(batch.target.image).logits
        yield {"near": self.factor * (ours - theirs).square().mean()}


@pytest.fixture(autouse=True)
def this_module(monkeypatch):
    """Under a name that recipes can say, however pytest has imported it."""
    monkeypatch.setitem(sys.modules, "near_module", sys.modules[__name__])


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    return write_run(tmp_path / "trained", teacher=True, seed=7)


def started(camvid: Path, start: Path | str, method: str = "ebda", *settings: str) -> Recipe:
    return small_recipe(camvid, method).override(*SAVED, f"start={start}", *settings)


def near(camvid: Path, given: dict[str, Path], *settings: str) -> Recipe:
    tree = small_recipe(camvid).override(*SAVED).model_dump(mode="json")
    tree["method"] = {"name": "near_module:Near", "factor": 0.1}
    tree["given"] = {name: str(run) for name, run in given.items()}
    from segda.recipes.recipe import parse_recipe

    return parse_recipe(tree, "near").override(*settings)


def stopped_and_resumed(recipe: Recipe, run: Path, between=lambda: None) -> None:
    class Killed(BaseException):
        pass

    def die():
        raise Killed

    with pytest.raises(Killed), at(2, die):
        train(recipe, run)
    between()
    train(recipe, run, resume=True)


def assembled(recipe: Recipe, camvid: Path) -> assembly.Training:
    return assembly.assemble(recipe, camvid, None)


def equal(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


# The student


@pytest.mark.parametrize("file", ["", "network.safetensors", "teacher.safetensors"])
def test_a_student_starts_from_a_run_or_a_file_of_it_encoder_and_decoder(camvid, trained, file, said):
    training = assembled(started(camvid, trained / file), camvid)
    theirs = load_file(trained / (file or "network.safetensors"))
    assert equal(training.method.student.state_dict(), theirs)
    assert equal(training.method.parts.feature_distance.network.state_dict(), theirs)
    (line,) = (one for one in said if one.startswith("student: "))
    assert line == f"student: {len(theirs)} tensors from {trained / (file or 'network.safetensors')}, after step 4"


def test_the_start_is_said_in_the_run_and_the_constants_are_what_was_started_from(camvid, tmp_path, trained):
    recipe = started(camvid, trained)
    train(recipe, tmp_path / "run")
    facts = runs.read_environment(tmp_path / "run")
    assert facts["start"].endswith(f"tensors from {trained / 'network.safetensors'}, after step 4")
    state = runs.load_checkpoint(tmp_path / "run")
    student = runs.load_network(trained)
    held = assembled(recipe, camvid).method.parts.feature_distance.network
    assert checkpoint.digest(held) == checkpoint.digest(student)
    assert list(state["constants"]) == ["parts.feature_distance"]
    # Its network can be read when its start is gone.
    shutil.rmtree(trained)
    assert isinstance(runs.load_network(tmp_path / "run"), Network)


def test_a_training_without_constants_goes_on_without_its_start(camvid, tmp_path, trained):
    recipe = started(camvid, trained, "dacs")
    train(recipe, tmp_path / "whole")
    stopped_and_resumed(recipe, tmp_path / "run", lambda: shutil.rmtree(trained))
    assert same(tmp_path / "run", tmp_path / "whole")
    facts = [runs.read_environment(tmp_path / name)["start"] for name in ("run", "whole")]
    assert facts[0] == facts[1] and "tensors from" in facts[0]


def test_a_training_without_constants_goes_on_without_its_pretrained_weights(camvid, tmp_path):
    torch.manual_seed(5)
    encoder = build(NETWORKS, small_recipe(camvid).network, "network", class_names=("a",)).encoder
    save_file(encoder.state_dict(), tmp_path / "start.safetensors")
    recipe = small_recipe(camvid, "dacs").override(*SAVED, f"network.weights={tmp_path / 'start.safetensors'}")
    train(recipe, tmp_path / "whole")
    stopped_and_resumed(recipe, tmp_path / "run", (tmp_path / "start.safetensors").unlink)
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_training_with_constants_must_have_its_start_again_and_the_same(camvid, tmp_path, trained):
    recipe = started(camvid, trained)
    stopped_and_resumed(recipe, tmp_path / "run")
    train(recipe, tmp_path / "whole")
    assert same(tmp_path / "run", tmp_path / "whole")
    write_run(trained, seed=8)
    with pytest.raises(
        WeightsError, match=r"feature_distance is as it was when the run began, but start \(.*\) now gives"
    ):
        train(recipe, tmp_path / "run", resume=True)
    shutil.rmtree(trained)
    with pytest.raises(WeightsError, match="^start: no run, file or folder .*trained; give one"):
        train(recipe, tmp_path / "run", resume=True)


def test_another_start_is_refused_when_a_run_goes_on(camvid, tmp_path, trained):
    train(started(camvid, trained, "dacs", "steps=1"), tmp_path / "run")
    with pytest.raises(RunError, match=r"begun with another recipe \(start: '.*trained' then, None now\)"):
        train(started(camvid, "null", "dacs", "steps=1"), tmp_path / "run", resume=True)


def test_a_start_stands_in_for_pretrained_weights_which_need_not_be_there(camvid, trained):
    training = assembled(started(camvid, trained, "dacs", "network.weights=nowhere.pth"), camvid)
    assert equal(training.method.student.state_dict(), load_file(trained / "network.safetensors"))


def test_memory_is_measured_without_the_start(camvid):
    assert Trial(started(camvid, "gone")).training.recipe.start == "gone"


def test_a_checkpoint_of_other_code_is_a_start_as_convert_reads_it(camvid, tmp_path, trained):
    ours = load_file(trained / "network.safetensors")
    theirs, _ = to_theirs({name: value for name, value in ours.items() if "encoder" not in name}, LAYOUTS["daformer"])
    encoder = {name.removeprefix("encoder."): value for name, value in ours.items() if name.startswith("encoder.")}
    network = build(NETWORKS, small_recipe(camvid).network, "network", class_names=("a",))
    network.encoder.load_state_dict(encoder)
    theirs |= prefixed("backbone.", official(network.encoder))
    torch.save({"state_dict": prefixed("model.", theirs), "meta": {"iter": 3}}, tmp_path / "latest.pth")
    training = assembled(started(camvid, tmp_path / "latest.pth", "dacs"), camvid)
    assert equal(training.method.student.state_dict(), ours)
    assert training.method.student.origin.endswith("latest.pth (latest.pth), daformer names")


def bad_starts() -> dict[str, tuple]:
    def another_network(run: Path) -> Path:
        recipe = runs.load_recipe_of(run).override("network.channels=16")
        network = build(NETWORKS, recipe.network, "network", class_names=space_of(recipe).classes)
        runs.save_network(run / "network.safetensors", network, recipe.network, 4)
        return run

    def another_class(run: Path) -> Path:
        recipe = runs.load_recipe_of(run)
        names = [*space_of(recipe).classes[:-1], "boat"]
        network = build(NETWORKS, recipe.network, "network", class_names=names)
        runs.save_network(run / "network.safetensors", network, recipe.network, 4)
        return run

    def another_order(run: Path) -> Path:
        recipe = runs.load_recipe_of(run)
        network = build(NETWORKS, recipe.network, "network", class_names=space_of(recipe).classes[::-1])
        runs.save_network(run / "network.safetensors", network, recipe.network, 4)
        return run

    def untrained(run: Path) -> Path:
        (run / "network.safetensors").unlink()
        return run

    def damaged(run: Path) -> Path:
        (run / "network.safetensors").write_bytes(b"damaged")
        return run

    def infinite(run: Path) -> Path:
        recipe = runs.load_recipe_of(run)
        network = runs.load_network(run)
        network.decoder.classify.bias.data[0] = float("inf")
        runs.save_network(run / "network.safetensors", network, recipe.network, 4)
        return run

    def encoder_alone(run: Path) -> Path:
        network = runs.load_network(run)
        torch.save(official(network.encoder), run.parent / "mit.pth")
        return run.parent / "mit.pth"

    def nothing(run: Path) -> Path:
        return run / "nothing.pth"

    def plain_folder(run: Path) -> Path:
        (run.parent / "empty").mkdir()
        return run.parent / "empty"

    return {
        "another network": (
            another_network, r"holds another network than the recipe's \(network.channels: 16 there, 8 here\); change",
        ),
        "another class": (another_class, r"knows 11 other classes .*only there: boat; only here: bicyclist"),
        "another order": (another_order, r"\(in another order\)"),
        "untrained": (untrained, r"has no student \(network.safetensors\); train it first"),
        "damaged": (damaged, "not a readable safetensors file"),
        "infinite": (infinite, "decoder.classify.bias holds numbers that are not finite"),
        "an encoder alone": (encoder_alone, "mit.pth holds an encoder alone; name it in network.weights"),
        "nothing": (nothing, "no run, file or folder .*nothing.pth; give one"),
        "a folder of nothing": (plain_folder, "the folder holds none of model.safetensors"),
    }  # fmt: skip


BAD = bad_starts()


@pytest.mark.parametrize("case", BAD)
def test_a_start_that_does_not_fit_is_one_line(camvid, tmp_path, trained, case):
    spoil, said = BAD[case]
    with pytest.raises(SegdaError, match=f"^start: .*{said}") as error:
        train(started(camvid, spoil(trained), "dacs"), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


# Networks of other runs


def test_a_given_network_never_learns_and_is_in_no_checkpoint_but_as_a_hash(camvid, tmp_path, trained):
    recipe = near(camvid, {"perceptual": trained})
    before = load_file(trained / "network.safetensors")
    training = assembled(recipe, camvid)
    like = training.method.like
    assert not like.training and not any(module.training for module in like.modules())
    assert not any(weight.requires_grad for weight in like.parameters())
    for drawn in training.batches(2, 0):
        training.step(drawn)
    assert equal(like.network.state_dict(), before)
    train(recipe, tmp_path / "whole")
    assert all(line["near"] > 0 for line in log_of(tmp_path / "whole"))
    state = runs.load_checkpoint(tmp_path / "whole")
    assert state["given"] == {"perceptual": checkpoint.digest(runs.load_network(trained))}
    assert state["constants"] == {} and all(name.startswith("student.") for name in state["method"])
    assert runs.read_environment(tmp_path / "whole")["given"]["perceptual"].startswith(f"perceptual: {trained}")
    stopped_and_resumed(recipe, tmp_path / "run")
    assert same(tmp_path / "run", tmp_path / "whole")


def test_gradients_pass_through_a_given_network(camvid, trained):
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    assembled(near(camvid, {"perceptual": trained}), camvid).method.like(image).logits.sum().backward()
    assert image.grad is not None and image.grad.any()


def test_a_network_that_may_be_given_is_given_or_none(camvid, trained):
    alone = assembled(near(camvid, {"perceptual": trained}), camvid)
    both = assembled(near(camvid, {"perceptual": trained, "other": trained / "teacher.safetensors"}), camvid)
    assert alone.method.other is None
    assert equal(both.method.other.network.state_dict(), load_file(trained / "teacher.safetensors"))


def test_a_run_that_was_given_another_network_does_not_go_on(camvid, tmp_path, trained):
    recipe = near(camvid, {"perceptual": trained}, "steps=1")
    train(recipe, tmp_path / "run")
    write_run(trained, seed=9)
    with pytest.raises(WeightsError, match=r"given.perceptual \(.*\) is another network than the run began with; put"):
        train(recipe, tmp_path / "run", resume=True)
    other = write_run(tmp_path / "other")
    with pytest.raises(RunError, match="begun with another recipe .given.perceptual"):
        train(near(camvid, {"perceptual": other}, "steps=1"), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree.update(given={}), "near: given.perceptual: missing; method .*:Near needs"),
        (lambda tree: tree["given"].update(perceptul="x"), "given.perceptul: .* no such network; did you mean"),
        (lambda tree: tree["method"].update(other="runs/x"), "near: method.other: is a trained network"),
        (lambda tree: tree.update(given=["runs/x"]), "near: given: Input should be a valid dictionary"),
        (lambda tree: tree.update(start=["runs/x"]), "near: start: Input should be a valid string"),
    ],
)  # fmt: skip
def test_a_recipe_gives_what_the_method_takes(camvid, change, said):
    from segda.recipes.recipe import parse_recipe

    tree = near(camvid, {"perceptual": Path("runs/x")}).model_dump(mode="json")
    change(tree)
    with pytest.raises(RecipeError, match=said):
        parse_recipe(tree, "near")


def test_a_method_that_takes_no_network_is_given_none(camvid):
    with pytest.raises(RecipeError, match="given.perceptual: method ebda takes no such network; it takes none"):
        small_recipe(camvid, "ebda").override("given.perceptual=runs/x")


@pytest.mark.parametrize("case", ["another class", "untrained", "damaged", "nothing", "an encoder alone"])
def test_a_given_run_that_is_missing_or_of_other_classes_is_one_line(camvid, tmp_path, trained, case):
    spoil, said = BAD[case]
    said = said if case != "an encoder alone" else "mit.pth is no run and no .safetensors file of ours"
    with pytest.raises(SegdaError, match=f"^given.perceptual: .*{said}"):
        train(near(camvid, {"perceptual": spoil(trained)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
