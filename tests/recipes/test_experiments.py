"""The shipped sweeps against the experiments of DAFormer's authors, written down here in the authors' words.

An experiment is a list of (decoder, encoder, adaptation, T of rare-class sampling, whether rows are ignored), each of
which is run with several seeds: lhoyer/DAFormer and vron8632/EB_DA, experiments.py.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import product
from math import inf

import pytest

from layouts import LAYOUTS, write_row
from segda.commands.train import train
from segda.data.rows import DATASETS
from segda.data.stream.settings import Distortion
from segda.recipes.recipe import Recipe
from segda.training.sweep import plan

DECODERS = {
    "deeplab_v2_reduced": "dlv2red",
    "danet": "da_nodbn",
    "isanet": "isa_nodbn",
    "deeplab_v3_plus": "dlv3p_nodbn",
    "deeplab_v3_plus_enlarged": "sfa_dlv3p_nodbn",
    "segformer": "segformer",
    "conv1": "daformer_conv1",
    "upernet": "upernet",
    "upernet_256": "upernet_ch256",
    "isa_fusion": "daformer_isa",
    "bottleneck_aspp": "daformer_sepaspp_bottleneck",
    "aspp": "daformer_aspp",
    "sep_aspp": "daformer_sepaspp",
}
ENCODERS = {
    **{f"b{size}": f"mitb{size}" for size in range(6)},
    **{f"resnet{depth}_v1c": f"r{depth}v1c" for depth in (50, 101)},
    **{f"resnest{depth}": f"s{depth}" for depth in (50, 101, 200)},
}
THINGS = ("traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
TASKS = {
    ("gta5:train", "cityscapes:train"): ("gta", "cityscapes"),
    ("synthia:train", "cityscapes:train"): ("synthia", "cityscapes"),
    ("cityscapes:train", "acdc:train"): ("cityscapes", "acdc"),
    ("cityscapes:train", "dark-zurich:train:night"): ("cityscapes", "darkzurich"),
    ("cityscapes:train", "cityscapes:train"): ("gta", "cityscapes"),  # target-only never sees GTA5
}
BOXES = {"gta": (1280, 720), "synthia": (1280, 760), "cityscapes": (1024, 512), "acdc": (960, 540)}
BOXES["darkzurich"] = BOXES["acdc"]

WITHOUT_TEACHER = ("source-only", "target-only")
MODELS = [
    *((decoder, "r101v1c") for decoder in ("dlv2red", "da_nodbn", "isa_nodbn", "dlv3p_nodbn")),
    ("segformer", "mitb5"),
]
CROSSED = [("sfa_dlv3p_nodbn", "mitb5"), ("segformer", "r101v1c")]
ENCODED = [*(("dlv2red", encoder) for encoder in ("r50v1c", "s50", "s101", "s200"))]
ENCODED += [("segformer", "mitb3"), ("segformer", "mitb4")]
FINAL = ("dacs_a999_fdthings", 0.01, True)
STRATEGIES = [
    ("segformer", "mitb5", "dacs", inf, False),
    ("segformer", "mitb5", "dacs", 0.01, False),
    ("segformer", "mitb5", "dacs_fd", None, False),
    ("segformer", "mitb5", "dacs_fdthings", None, False),
    ("segformer", "mitb5", "dacs_fdthings", 0.01, False),
    ("segformer", "mitb5", *FINAL),
    ("dlv2red", "r101v1c", *FINAL),
]
STARTUP = [("segformer", "mitb5", uda, None, False) for uda in (*WITHOUT_TEACHER, "dacs")] + STRATEGIES[:6]
"""Experiment 101: whether all kinds of training begin."""
LAST_DECODERS = ["daformer_conv1", "upernet", "upernet_ch256", "daformer_isa"]
LAST_DECODERS += ["daformer_sepaspp_bottleneck", "daformer_aspp", "daformer_sepaspp"]


def each(models, adaptations) -> list[tuple]:
    return [(*model, uda, None, False) for model, uda in product(models, adaptations)]


GTA = [("gta", "cityscapes")]
FOUR = [*GTA, ("synthia", "cityscapes"), ("cityscapes", "acdc"), ("cityscapes", "darkzurich")]
FULL = [("daformer_sepaspp", "mitb5", *FINAL)]
ALL = ("source-only", "dacs", "target-only")
EXPERIMENTS = {
    "daformer_architectures": (
        GTA, each(MODELS, ALL) + each(CROSSED, ("dacs", "target-only")), "poly10warm", [0, 1, 2],
    ),
    "daformer_encoders": (GTA, each(ENCODED, ALL), "poly10warm", [0]),
    "daformer_schedule": (GTA, each([MODELS[0], MODELS[-1]], ("dacs", "target-only")), "poly10", [0]),
    "daformer_strategies": (GTA, STRATEGIES, "poly10warm", [0, 1, 2]),
    "daformer_decoders": (
        GTA,
        [(decoder, "mitb5", *FINAL) for decoder in LAST_DECODERS]
        + each([(decoder, "mitb5") for decoder in LAST_DECODERS], ("target-only",)),
        "poly10warm",
        [0, 1, 2],
    ),
    "daformer_benchmarks": (FOUR, FULL, "poly10warm", [0, 1, 2]),
}  # fmt: skip
"""Sweep -> tasks, settings, schedule, seeds: experiments 1 and 2, 3, 4, 5, 6; and 7 and 8, with what 6 has of them."""


@cache
def planned(name: str) -> tuple[Recipe, ...]:
    return tuple(run.recipe for run in plan(name))


def adaptation(recipe: Recipe) -> tuple[str, float | None, bool]:
    """The authors' name of it, T, whether rows are ignored."""
    method, data = recipe.method, recipe.data
    if method["name"] == "source_only":
        assert method["photometric"] is None and data.source.rare_class is None
        return ("source-only" if data.source.set.startswith("gta5") else "target-only"), None, False
    assert method["threshold"] == 0.968 and method["classes_of"] == "batch"
    temperature = None
    if data.source.rare_class is not None:
        temperature = data.source.rare_class.temperature
        assert (
            data.source.rare_class.min_pixels,
            data.source.rare_class.crop_ratio,
            data.source.rare_class.retries,
        ) == (3000, 0.5, 10)
    rows = (data.target.augment.ignore_top, data.target.augment.ignore_bottom)
    assert rows in ((0, 0), (15, 120))
    distance = method.get("feature_distance")
    if method["name"] == "dacs":
        name = "dacs"
    elif distance["classes"] is None:
        name = "dacs_fd"
    else:
        assert sorted(distance["classes"]) == sorted(THINGS) and distance["min_share"] == 0.75
        name = "dacs_fdthings"
    assert distance is None or distance["weight"] == 0.005
    if method["decay"] == 0.999:
        return name.replace("dacs", "dacs_a999"), temperature, rows == (15, 120)
    assert method["decay"] == 0.99
    return name, temperature, rows == (15, 120)


def schedule(recipe: Recipe) -> str:
    optim = recipe.optim
    assert (optim.name, optim.lr, optim.head_lr_factor, optim.power) == ("adamw", 6e-5, 10, 1)
    assert (optim.betas, optim.weight_decay, optim.decay_steps) == ((0.9, 0.999), 0.01, None)
    kinds = {(1500, 1e-6, 0): "poly10warm", (0, None, 1e-4): "poly10"}
    return kinds[optim.warmup, optim.warmup_ratio, optim.min_lr]


def in_their_words(recipe: Recipe) -> tuple:
    network = recipe.network
    if network["name"] == "mit_daformer":
        assert (network["channels"], network["dilations"]) == (256, [1, 6, 12, 18])
        decoder = "sep_aspp"
    else:
        decoder = network["decoder"]
    encoder = network["encoder"]
    start = f"nvidia/mit-{encoder}" if encoder.startswith("b") else f"weights/{encoder}.pth"
    assert network["weights"] == start
    assert network.get("dropout") == (None if decoder == "deeplab_v2_reduced" else 0.1)
    assert network.get("drop_path") == (0.1 if encoder.startswith("b") else None)
    task = TASKS[recipe.data.source.set, recipe.data.target.set]
    return (task, (DECODERS[decoder], ENCODERS[encoder], *adaptation(recipe)), schedule(recipe), recipe.seed)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_sweep_has_the_runs_of_its_experiment_and_no_other(name):
    tasks, settings, rate, seeds = EXPERIMENTS[name]
    theirs = Counter((task, one, rate, seed) for task, one, seed in product(tasks, settings, seeds))
    assert Counter(map(in_their_words, planned(name))) == theirs
    assert max(theirs.values()) == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_all_runs_of_the_experiments_read_and_measure_images_alike(name):
    authors = Distortion(brightness=32, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=18, probability=0.5)
    for recipe in planned(name):
        data = recipe.data
        (source, target), (_, _, uda, *_), *_ = in_their_words(recipe)
        assert (recipe.steps, data.batch, data.workers) == (40000, 2, 4)
        given = data.source.augment
        assert given.resize == (BOXES["cityscapes"] if uda == "target-only" else BOXES[source])
        assert (given.crop, given.max_class_share, given.flip) == ((512, 512), 0.75, 0.5)
        assert given.distort == (authors if uda in WITHOUT_TEACHER else None)
        assert (given.ignore_top, given.ignore_bottom) == (0, 0)
        given = data.target.augment
        assert (given.resize, given.crop, given.flip, given.distort) == (BOXES[target], (512, 512), 0.5, None)
        if uda not in WITHOUT_TEACHER:
            assert recipe.method["photometric"] == {
                "jitter_prob": 0.8, "jitter_strength": 0.2, "blur_prob": 0.5, "blur_sigma": [0.15, 1.15],
            }  # fmt: skip
        measured = recipe.evaluate
        assert (measured.every, measured.resize, measured.how, measured.flip) == (4000, BOXES[target], "whole", False)
        (on,) = measured.data
        assert on == data.target.set.replace(":train", ":val").removesuffix(":night")


def test_every_kind_of_training_that_the_authors_try_to_begin_is_in_a_sweep():
    ours = {in_their_words(recipe)[1] for name in EXPERIMENTS for recipe in planned(name)}
    assert len(set(STARTUP)) == 9 and set(STARTUP) <= ours


TINY = "{name: encoder_decoder, encoder: tiny, weights: scratch, decoder: conv1, dropout: 0.1, drop_path: 0.1}"
SMALL = [f"network={TINY}", "steps=1", "device=cpu", "precision='32'", "data.workers=0"]
SMALL += [
    f"data.{domain}.augment.{key}"
    for domain in ("source", "target")
    for key in ("resize=[96, 64]", "crop=[64, 64]", "ignore_top=0", "ignore_bottom=0")
]
KINDS = [(*one[2:], "poly10warm") for one in STARTUP]
KINDS += [("dacs", None, False, "poly10"), ("target-only", None, False, "poly10")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """GTA5 and Cityscapes, a few images each."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("gta5", "cityscapes"):
        _, template, labelling = next(layout for layout in LAYOUTS if layout[0] == name)
        write_row(folder / DATASETS[name].folders[0], name, template, labelling)
    return folder


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_run_takes_a_step(kind, root, tmp_path, said):
    every = (recipe for name in EXPERIMENTS for recipe in planned(name))
    recipe = next(recipe for recipe in every if (*adaptation(recipe), schedule(recipe)) == kind)
    rare = ["data.source.rare_class.min_pixels=1"] if recipe.data.source.rare_class else []
    train(recipe.override(*SMALL, *rare), tmp_path / "run", root, check=True)
    terms = {"dacs": {"source", "mix"}, "daformer": {"source", "feature_distance", "mix"}, "source_only": {"source"}}
    line = next(line for line in said if line.startswith("source "))
    assert terms[recipe.method["name"]] <= set(line.split())


def test_the_benchmarks_of_the_balance_are_those_of_daformer_and_one_more():
    def changed(name: str) -> dict[tuple, dict]:
        trees = {}
        for recipe in planned(name):
            tree = recipe.model_dump(mode="json", exclude={"paper", "expect"})
            tree["method"] = {
                key: value
                for key, value in tree["method"].items()
                if key not in ("name", "balance_weight", "level", "second_pass")
            }
            trees[recipe.data.source.set, recipe.data.target.set, recipe.seed] = tree
        return trees

    ebda, daformer = changed("ebda_benchmarks"), changed("daformer_benchmarks")
    more = {key: tree for key, tree in ebda.items() if key not in daformer}
    assert {key: tree for key, tree in ebda.items() if key in daformer} == daformer
    assert {target for _, target, _ in more} == {"cityscapes-foggy:train+cityscapes-rain:train"} and len(more) == 3
    for recipe in planned("ebda_benchmarks"):
        method = recipe.method
        assert (method["balance_weight"], method["level"], method["second_pass"]) == (0.1, 0.4, True)
