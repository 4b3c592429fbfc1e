"""Sweep files: which runs they make, what these are called and set, and what is wrong in a file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from conftest import RECIPE
from segda.cli.main import main
from segda.errors import RecipeError
from segda.networks import NETWORKS
from segda.recipes.build import build, from_scratch
from segda.recipes.recipe import Recipe, load_recipe
from segda.recipes.sweeps import load_sweep, shipped_sweeps
from segda.reporting.listing import about
from segda.training.sweep import plan, script


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A current folder with a small recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


def names(text: str) -> list[str]:
    Path("sweep.yaml").write_text(text)
    return [one.name for one in load_sweep("sweep.yaml").combinations]


def refused(text: str, *settings: str) -> str:
    """What is said of a sweep file that is wrong."""
    Path("sweep.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        plan("sweep.yaml", settings=settings)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in Path().iterdir()) == ["mine.yaml", "sweep.yaml"]
    return str(caught.value)


def test_every_combination_is_a_run_with_its_values_in_its_name():
    text = """
    axes:
      seed: [0, 7]
      recipe: [ebda_streets, ebda_camvid]
      method.level: [0.3, 4e-1]
    """
    assert names(text) == [
        "ebda_streets-level0.3-seed0", "ebda_streets-level4e-1-seed0",
        "ebda_camvid-level0.3-seed0", "ebda_camvid-level4e-1-seed0",
        "ebda_streets-level0.3-seed7", "ebda_streets-level4e-1-seed7",
        "ebda_camvid-level0.3-seed7", "ebda_camvid-level4e-1-seed7",
    ]  # fmt: skip


def test_values_are_named_by_their_key_their_words_or_their_author():
    text = """
    recipe: mine.yaml
    axes:
      optim.lr: {slow: 1e-5, fast: 1e-3}
      data.target.set: ["camvid:train:dusk", "camvid:val"]
      evaluate.flip: [true]
      paper: [null]
    """
    assert names(text) == [
        f"{speed}-target_camvid_{split}-flip_true-paper_null"
        for speed in ("slow", "fast")
        for split in ("train_dusk", "val")
    ]
    assert names("{recipe: mine.yaml, axes: {data.batch: [1], network.batch: [2]}}") == ["data.batch1-network.batch2"]
    assert names("axes: {recipe: [my/own.yaml, other.yml]}") == ["own", "other"]


def test_settings_reach_the_recipe_in_their_order():
    Path("sweep.yaml").write_text("""
    recipe: mine.yaml
    set: {steps: 9, network.channels: 16}
    axes:
      set: {plain: {}, warm: {optim.warmup: 5, optim.lr: 1e-5}}
      network.encoder: [tiny, b0]
    """)
    made = {run.out.name: run.recipe for run in plan("sweep.yaml", settings=["steps=8"])}
    assert list(made) == ["plain-encoder_tiny", "plain-encoder_b0", "warm-encoder_tiny", "warm-encoder_b0"]
    assert {recipe.steps for recipe in made.values()} == {8}
    assert {recipe.network["channels"] for recipe in made.values()} == {16}
    warm = made["warm-encoder_b0"]
    assert (warm.optim.warmup, warm.optim.lr, warm.network["encoder"]) == (5, 1e-5, "b0")
    assert (made["plain-encoder_b0"].optim.warmup, made["plain-encoder_b0"].optim.lr) == (2, 1e-3)


def test_the_file_in_the_documentation_makes_the_runs_that_it_says():
    page = (Path(__file__).parents[2] / "docs" / "COMMANDS.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    Path("sweep.yaml").write_text(text)
    planned = plan("sweep.yaml")
    assert len(planned) == 9 and planned[0].out == Path("runs/levels/level0.3-seed0")
    assert [run.recipe.method["level"] for run in planned] == [0.3] * 3 + [0.4] * 3 + [0.5] * 3


def test_what_is_excluded_is_no_run():
    text = """
    recipe: mine.yaml
    axes: {optim.lr: {slow: 1e-5, fast: 1e-3}, seed: [0, 1, 2]}
    exclude: [{optim.lr: slow, seed: [1, 2]}, {seed: 0, optim.lr: 1e-3}]
    """
    assert names(text) == ["slow-seed0", "fast-seed1", "fast-seed2"]


def test_a_dry_run_prints_commands_that_make_the_recipes_of_the_plan(monkeypatch, capsys):
    Path("sweep.yaml").write_text("""
    recipe: mine.yaml
    axes:
      network:
        narrow: {name: mit_daformer, encoder: tiny, weights: "it's a file.pth", channels: 4, dilations: [1, 3],
                 dropout: 1e-5, drop_path: 0.00001}
      data.space: [null]
      seed: [0, 1]
    """)
    given = ["--out", "my runs", "--root", "the data", "--device", "cpu", "--precision", "32", "--set", "steps=5"]
    assert main(["sweep", "sweep.yaml", "--dry-run", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not Path("my runs").exists()
    planned = plan("sweep.yaml", Path("my runs"), ["steps=5"], Path("the data"), "cpu", "32")
    assert [run.out for run in planned] == [Path(f"my runs/narrow-space_null-seed{seed}") for seed in (0, 1)]
    trained: list[tuple[Recipe, Path, Path]] = []
    monkeypatch.setattr(
        "segda.training.running.train_run", lambda recipe, out, root, *rest: trained.append((recipe, out, root))
    )
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "segda" and main(words) == 0
    assert trained == [(run.recipe, run.out, Path("the data").absolute()) for run in planned]
    assert [recipe.seed for recipe, *_ in trained] == [0, 1] and trained[0][0].network["dropout"] == 1e-5


def test_a_recipe_may_change_together_with_its_settings():
    Path("sweep.yaml").write_text("""
    set: {network.channels: 16}
    axes:
      set: {ours: {recipe: mine.yaml, network.channels: 4}, shipped: {recipe: ebda_streets}}
      seed: [0]
    """)
    ours, shipped = plan("sweep.yaml")
    assert [run.out.name for run in (ours, shipped)] == ["ours-seed0", "shipped-seed0"]
    assert (ours.recipe.method["name"], ours.recipe.network["channels"]) == ("source_only", 4)
    assert (shipped.recipe.method["name"], shipped.recipe.network["channels"]) == ("ebda", 16)


SHIPPED = {
    "camvid_methods": 11 * 3,
    "daformer_architectures": 45 + 12,
    "daformer_benchmarks": 4 * 3,
    "daformer_decoders": 42,
    "daformer_encoders": 18,
    "daformer_schedule": 4,
    "daformer_strategies": 21,
    "ease_balance": 6 * 2 * 3,
    "ebda_benchmarks": 5 * 3,
    "growth": 2 * 2 * 4,
    "snapshots_camvid": 6 * 2,
    "snapshots_streets": 5 * 2,
    "streets_imagenet": 4 * 3,
    "streets_modern": 6 * 3,
    "streets_seeds": 4 * 3,
}
"""Runs of each; of DAFormer's as many as its authors' experiments have."""


def test_every_shipped_sweep_is_counted_here():
    assert list(shipped_sweeps()) == list(SHIPPED)


def test_every_shipped_sweep_says_in_a_sentence_what_it_is():
    said = {name: about(path) for name, path in shipped_sweeps().items()}
    assert all(10 < len(sentence) < 160 and sentence[0].isupper() for sentence in said.values()), said
    assert said["daformer_decoders"] == "Which decoder adapts best, GTA5 -> Cityscapes?"


@pytest.mark.parametrize("name", shipped_sweeps())
def test_every_shipped_sweep_can_be_planned(name):
    planned = plan(name)
    assert len(planned) == SHIPPED[name]
    assert [shlex.split(line)[:2] for line in script(planned)] == [["segda", "train"]] * len(planned)


def test_every_network_of_a_shipped_sweep_can_be_built():
    networks = {}
    for name in shipped_sweeps():
        networks |= {yaml.safe_dump(run.recipe.network): run.recipe.network for run in plan(name)}
    for spec in networks.values():
        # Shapes alone, but for HRDA, which runs its encoder once to learn the widths of its maps.
        with torch.device("cpu" if spec["name"] == "hrda" else "meta"):
            build(NETWORKS, from_scratch(NETWORKS, spec, "network"), "network", class_names=("road", "sky"))


def test_esl_is_trained_in_its_stages():
    planned = {run.out.name: run for run in plan("camvid_methods")}
    assert len(planned) == 33
    staged = {name: [place.name for place in run.stages] for name, run in planned.items() if run.stages}
    assert staged == {f"esl-seed{seed}": [f"esl-seed{seed}-teacher", f"esl-seed{seed}-labels"] for seed in (0, 1, 2)}
    # They find out by themselves what is there.
    assert "--resume" not in planned["esl-seed0"].command("begun")


def test_a_sweep_mixes_blocks():
    Path("sweep.yaml").write_text(
        "axes:\n"
        "  recipe: [methods/source_only_jitter+networks/lite0_segformer+benchmarks/camvid, dacs_streets]\n"
        "  seed: [0]\n"
    )
    first, second = plan("sweep.yaml")
    assert (first.out.name, second.out.name) == (
        "source_only_jitter-lite0_segformer-camvid-seed0",
        "dacs_streets-seed0",
    )
    assert first.recipe == load_recipe("source_only_camvid").override("seed=0")


# Mistakes

MISTAKES = [
    ("axes: [seed", "sweep.yaml: not valid YAML"),
    ("- seed", "sweep.yaml: holds no sweep"),
    ("{recipe: mine.yaml, axes: {seed: [0], seed: [1]}}", "key 'seed' is written twice"),
    ("{recipe: mine.yaml, axis: {seed: [0]}}", "unknown key 'axis'; did you mean 'axes'?"),
    ("{recipe: mine.yaml}", "axes: missing"),
    ("{recipe: mine.yaml, axes: {}}", "axes: needs at least one"),
    ("{recipe: mine.yaml, axes: {sed: [0]}}", "axes: sed: recipes have no such key; did you mean 'seed'?"),
    ("{recipe: mine.yaml, axes: {optim.rl: [0.1]}}", "run rl0.1: --set: optim: unknown key 'rl'"),
    ("{recipe: mine.yaml, axes: {method.level: [1]}}", "run level1: --set: method source_only has no setting 'level'"),
    ("{recipe: mine.yaml, axes: {seed: [0, -1]}}", "run seed-1: --set: seed: Input should be greater"),
    ("{recipe: mine.yaml, axes: {seed: []}}", "axes: seed: needs a list of values, or NAME: VALUE pairs (got [])"),
    ("{recipe: mine.yaml, axes: {seed: 0}}", "axes: seed: needs a list of values"),
    ("{recipe: mine.yaml, axes: {seed: [0, 1, 0]}}", "axes: seed: 2 values are called 'seed0'"),
    ("{recipe: mine.yaml, axes: {evaluate.resize: [[8, 8]]}}", "cannot be part of a folder's name; write NAME: VALUE"),
    ("{recipe: mine.yaml, axes: {seed: {../up: 0}}}", "'../up' cannot be part of a folder's name"),
    ("{recipe: mine.yaml, axes: {set: [{seed: 0}]}}", "axes: set: needs NAME: {KEY: VALUE, ...} pairs"),
    ("{recipe: mine.yaml, axes: {set: {a: {seed: 0}}, seed: [1]}}", "axes: set: a: seed is an axis, too; remove one"),
    ("{recipe: mine.yaml, set: {seed: 3}, axes: {seed: [0]}}", "axes: seed: is in set, too; remove one"),
    ("{recipe: mine.yaml, set: {sed: 3}, axes: {seed: [0]}}", "unknown key 'sed'; did you mean 'seed'?"),
    ("{axes: {seed: [0]}}", "needs one recipe a run: `recipe: NAME`, or an axis"),
    ("{recipe: mine.yaml, axes: {recipe: [mine.yaml]}}", "needs one recipe a run"),
    ("{axes: {set: {a: {recipe: mine.yaml}, b: {seed: 4}}}}", "needs one recipe a run"),
    ("{recipe: mine.yaml, axes: {set: {a: {recipe: mine.yaml}}}}", "needs one recipe a run"),
    ("{axes: {recipe: [mine.yaml, ebda_street]}}", "run ebda_street: unknown recipe 'ebda_street'; did you mean"),
    ("{axes: {recipe: [mine.yaml, my.yaml]}}", "run my: no recipe at my.yaml"),
    ("{recipe: mine.yaml, axes: {seed: [0]}, exclude: [{sed: 0}]}", "exclude: no axis 'sed'; did you mean 'seed'?"),
    ("{recipe: mine.yaml, axes: {seed: [0]}, exclude: [{seed: 7}]}", "exclude: seed is never 7; known: seed0"),
    ("{recipe: mine.yaml, axes: {seed: [0]}, exclude: [{}]}", "exclude: a rule is empty"),
    ("{recipe: mine.yaml, axes: {seed: [0]}, exclude: [{seed: 0}]}", "exclude leaves no run"),
    ("{recipe: mine.yaml, axes: {seed: {a: 0, A: 1}}}", "two runs would write runs/sweep/A"),
    ("{recipe: mine.yaml, axes: {seed: {a: 0, b: 0}}}", "a and b are the same recipe"),
    (
        "{axes: {recipe: {esl: esl_camvid, esl-teacher: advent_camvid}}}",
        "two runs would write runs/sweep/esl-teacher",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[text[:60] for text, _ in MISTAKES])
def test_a_file_that_is_wrong_is_refused_before_anything_starts(text, message):
    assert message in refused(text)


def test_a_setting_that_undoes_an_axis_is_noticed():
    message = refused("{recipe: mine.yaml, axes: {seed: [0, 1]}}", "seed=5")
    assert "seed0 and seed1 are the same recipe" in message


def test_a_file_that_is_not_there_or_no_text_is_one_line(capsys):
    Path("picture.yaml").write_bytes(b"\xff\xfe\x00\x81")
    for name, message in (
        ("streets_seed", "unknown sweep 'streets_seed'; did you mean 'streets_seeds'?"),
        ("there.yaml", "no sweep file at there.yaml; shipped are: camvid_methods, daformer_architectures"),
        ("picture.yaml", "picture.yaml: cannot be read as text"),
    ):
        assert main(["sweep", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
