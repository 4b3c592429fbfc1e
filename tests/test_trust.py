"""Classes of somebody's own: imported for a recipe that somebody names, never because a run folder says so."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from conftest import RECIPE, write_camvid
from hostile import refused
from segda.cli.main import COMMANDS, main
from segda.commands.evaluate import evaluate
from segda.errors import RunError
from segda.ground import trust
from segda.ground.trust import same_imports
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.networks.weights.files import read_facts, read_tensors, save_tensors
from segda.recipes.build import class_named
from segda.run import load_checkpoint, load_network, load_recipe_of, save_checkpoint
from segda.training.assembly import load_product
from small_run import DUSK, write_run

OWN = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from segda.methods.source_only import SourceOnly
from segda.networks.mit_daformer import MiTDAFormer
from segda.networks.network import Network

class Net(MiTDAFormer):
    pass

class Around(MiTDAFormer):
    def __init__(self, class_names, *, over: Network, **settings):
        raise AssertionError("the one inside is refused first")

class Mine(SourceOnly):
    pass
"""


class Own:
    """A package of somebody's own that can be imported, and whether it was."""

    def __init__(self, folder: Path):
        self.folder, self.mark = folder, folder / "ran"
        (folder / "pkg").mkdir()
        (folder / "pkg" / "__init__.py").write_text("")
        (folder / "pkg" / "mod.py").write_text(OWN.format(mark=str(self.mark)))

    @property
    def ran(self) -> bool:
        return self.mark.exists()


@pytest.fixture
def own(tmp_path, monkeypatch) -> Own:
    """In a process that has imported no such class yet."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(trust, "_imported", set())
    for name in [name for name in sys.modules if name.partition(".")[0] == "pkg"]:
        monkeypatch.delitem(sys.modules, name)
    return Own(folder)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The folder in which commands are given, with data and a sound run."""
    write_camvid(tmp_path / "data")
    write_run(tmp_path / "sound", data=[])
    monkeypatch.chdir(tmp_path)
    return tmp_path


POISONS = {
    "network": {"network": {"name": "pkg.mod:Net"}},
    "network inside": {"network": {"name": "two_scales:TwoScales", "detail": 0.1, "over": {"name": "pkg.mod:Net"}}},
    "method": {"method": {"name": "pkg.mod:Mine"}},
    "stage": {"stages": {"last": {"train": {"network": {"name": "pkg.mod:Net"}}}}},
}
"""What a run's recipe says instead."""


def poisoned(run: Path, changes: dict) -> Path:
    """A stranger's run: its recipe names classes of his own."""
    write_run(run, data=[])
    path = run / "recipe.yaml"
    tree = yaml.safe_load(path.read_text())
    for key, block in changes.items():
        tree[key] = block if "over" in block else {**tree.get(key, {}), **block}
    path.write_text(yaml.safe_dump(tree))
    return run


def poison_file(path: Path) -> None:
    """A stranger seals what he writes as we do."""
    facts = read_facts(path)
    facts["network"] = json.dumps(json.loads(facts["network"]) | {"name": "pkg.mod:Net"})
    save_tensors(path, facts, read_tensors(path)[0])


READS = {
    "report": ["report", "RUN"],
    "report against": ["report", "sound", "--against", "RUN"],
    "evaluate": ["evaluate", "RUN", "--data", DUSK, "--root", "data"],
    "ensemble": ["evaluate", "sound", "RUN", "--ensemble", "logits", "--data", DUSK, "--root", "data"],
    "statistics": ["evaluate", "RUN", "--data", DUSK, "--statistics", DUSK, "--root", "data"],
    "snapshots": ["evaluate", "RUN", "--data", DUSK, "--root", "data", "--all-checkpoints"],
    "compare": ["compare", "RUN", "sound"],
    "predict": ["predict", "RUN", "data/camvid/test", "--out", "made"],
    "pseudo-label": ["pseudo-label", "RUN", "--data", DUSK, "--root", "data", "--rule", "fixed", "--out", "made"],
    "translate": ["translate", "RUN", "--data", DUSK, "--root", "data", "--out", "made"],
    "select": ["select", "sound", "RUN", "--root", "data"],
    "adapt": ["adapt", "RUN", "--data", DUSK, "--root", "data", "--method", "batchnorm", "--out", "made"],
    "export": ["export", "RUN", "--to", "onnx", "--out", "made"],
    "benchmark": ["benchmark", "RUN"],
    "push": ["push", "RUN", "night"],
    "serve": ["serve", "sound", "--against", "RUN", "--port", "0"],
    "convert": ["convert", "RUN", "--to", "daformer", "--out", "made.pth"],
}


def told(capsys, *words: object) -> str:
    """Gives a command that must be refused in one line; returns the line."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("segda: ") and not out
    return line


@pytest.mark.parametrize("words", READS.values(), ids=READS)
def test_a_strangers_run_runs_no_code(words, own, place, capsys):
    poisoned(place / "theirs", POISONS["network"])
    if "--against" in words:
        evaluate("sound", [DUSK], Path("data"), device="cpu")
    line = told(capsys, *("theirs" if word == "RUN" else word for word in words))
    assert "network.name: 'pkg.mod:Net'" in line and line.endswith("add --trust theirs if you trust it")
    assert not own.ran and not (place / "made").exists()


@pytest.mark.parametrize("poison", POISONS)
def test_wherever_its_recipe_names_a_class_it_is_not_imported(poison, own, place):
    class_named(NETWORKS, {"name": "two_scales:TwoScales"}, "network")  # by who is here
    assert "pkg.mod:" in refused(load_recipe_of, poisoned(place / "theirs", POISONS[poison]))
    assert not own.ran


def test_classes_that_are_here_already_are_refused_as_well(place, monkeypatch):
    monkeypatch.setattr(trust, "_imported", set())
    run = poisoned(place / "theirs", {"network": {"name": "segda.networks.mit_daformer:MiTDAFormer"}})
    assert "--trust" in refused(load_recipe_of, run, kind=RunError)


def test_every_command_that_takes_a_run_can_be_told_to_trust_it():
    takes = {name for name, (function, *_) in COMMANDS.items() if "trust" in inspect.signature(function).parameters}
    runs = {words[0] for words in READS.values()}
    assert takes == runs | {"train", "sweep"}
    named = {
        name
        for name, (function, *_) in COMMANDS.items()
        if {"run", "runs", "against", "given"} & set(inspect.signature(function).parameters)
    }
    assert named == runs


def test_who_trusts_a_run_uses_its_network(own, place, capsys):
    run = poisoned(place / "mine", POISONS["network"])
    words = ["predict", "mine", "data/camvid/test", "--device", "cpu"]
    assert main(["predict", "sound", *words[2:], "--out", "sound_made"]) == 0
    # Another run is trusted, so this one is not; a folder above it is, so it is.
    told(capsys, *words, "--out", "made", "--trust", "sound", "--trust", "min")
    assert not own.ran
    assert main([*words, "--out", "made", "--trust", str(place)]) == 0
    assert own.ran and isinstance(load_network(run), Network)
    ours, theirs = (
        [Image.open(path).tobytes() for path in sorted(Path(name).glob("*.png"))] for name in ("made", "sound_made")
    )
    assert ours == theirs and len(ours) == 3


@pytest.mark.parametrize("how", [lambda run: run, lambda run: [str(run)], lambda run: (run.parent,)])
def test_python_trusts_what_it_is_told(how, own, place):
    run = poisoned(place / "theirs", POISONS["network"])
    data = {"data": [DUSK], "root": place / "data", "device": "cpu"}
    for call in (
        lambda trust: load_network(run, trust=trust),
        lambda trust: load_product(run, "student", trust=trust),
        lambda trust: evaluate(run, **data, trust=trust),
    ):
        refused(call, (), kind=RunError)
        refused(call, place / "sound", kind=RunError)
    assert not own.ran
    assert type(load_network(run, trust=how(run))).__name__ == "Net"
    trust._imported.clear()
    assert type(load_product(run, "student", trust=how(run))).__name__ == "Net"
    trust._imported.clear()
    assert evaluate(run, **data, trust=how(run))


# Training


@pytest.fixture
def mine(place) -> list[str]:
    """A training of a recipe that somebody names, with a class of their own in it."""
    (place / "mine.yaml").write_text(RECIPE.replace("mit_daformer, encoder", '"pkg.mod:Net", encoder'))
    return ["train", "mine.yaml", "--root", "data", "--out", "run", "--set", "evaluate.data=[]"]


def test_ones_own_recipe_trains_and_goes_on(own, mine, capsys):
    assert main([*mine, "--set", "steps=1"]) == 0
    trust._imported.clear()
    assert main([*mine, "--set", "steps=2", "--allow-changed", "steps", "--resume"]) == 0
    trust._imported.clear()
    assert "'pkg.mod:Net'" in told(capsys, "evaluate", "run", "--data", DUSK, "--root", "data")
    assert main(["evaluate", "run", "--data", DUSK, "--root", "data", "--trust", "run"]) == 0


@pytest.mark.parametrize("begun", [True, False], ids=["last.pt", "recipe.yaml"])
def test_a_strangers_checkpoint_is_not_gone_on_with(begun, own, place, capsys):
    recipe = ["train", "sound.yaml", "--root", "data", "--out", "run", "--set", "evaluate.data=[]", "--set", "steps=1"]
    (place / "sound.yaml").write_text(RECIPE)
    assert main(recipe) == 0
    if begun:
        state = load_checkpoint(place / "run")
        state["recipe"]["network"]["name"] = "pkg.mod:Net"
        save_checkpoint(place / "run", state, 0)
    else:
        for file in ("last.pt", "network.safetensors"):
            (place / "run" / file).unlink()
        path = place / "run" / "recipe.yaml"
        path.write_text(path.read_text().replace("mit_daformer", "pkg.mod:Net"))
    line = told(capsys, *recipe, "--resume")
    assert "network.name: 'pkg.mod:Net'" in line and "--trust run" in line
    assert not own.ran


def test_a_network_that_is_given_to_a_method_is_not_run(own, place, capsys, monkeypatch):
    from training.test_start import Near

    monkeypatch.setitem(sys.modules, "near_module", sys.modules[Near.__module__])
    poison_file(place / "sound" / "network.safetensors")
    tree = yaml.safe_load(RECIPE)
    tree |= {"method": {"name": "near_module:Near", "factor": 0.1}, "given": {"perceptual": "sound"}, "steps": 1}
    tree["evaluate"]["data"] = []
    (place / "near.yaml").write_text(yaml.safe_dump(tree))
    words = ["train", "near.yaml", "--root", "data", "--out", "run"]
    line = told(capsys, *words)
    assert "given.perceptual: network.name: 'pkg.mod:Net'" in line and "--trust sound" in line
    assert not own.ran
    assert main([*words, "--trust", "sound"]) == 0
    assert own.ran


def test_a_start_needs_no_class_of_the_run_that_it_is_taken_from(own, place):
    poison_file(place / "sound" / "network.safetensors")
    (place / "mine.yaml").write_text(f"{RECIPE}start: sound\n")
    words = ["train", "mine.yaml", "--root", "data", "--out", "run", "--set", "evaluate.data=[]", "--set", "steps=1"]
    assert main(words) == 0
    assert not own.ran


# The current folder


def test_with_the_current_folder_on_the_path_nothing_of_it_runs(own, place, forks):
    poisoned(place / "theirs", POISONS["network"])
    done = forks.run("-m", "segda", "report", place / "theirs", cwd=own.folder)
    assert done.returncode == 2 and "was not run" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not own.ran


def test_a_process_of_ours_imports_what_this_one_can_and_no_current_folder(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/a", "/b"])
    assert same_imports()["PYTHONPATH"] == "/a:/b"
    assert trust.python("-m", "segda")[1:] == ["-P", "-m", "segda"]
