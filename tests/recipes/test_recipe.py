"""Recipes: loading, overriding, building, and what is said of a wrong one."""

from __future__ import annotations

import copy
import re
from functools import cache, reduce
from operator import getitem

import pytest
import yaml

from conftest import RECIPE
from segda.data.stream.settings import Distortion
from segda.errors import RecipeError, SegdaError
from segda.methods import METHODS
from segda.networks import NETWORKS
from segda.recipes.blocks import shipped
from segda.recipes.build import build
from segda.recipes.recipe import Recipe, load_recipe, parse_recipe, stages_of


def written(tmp_path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_a_resolved_recipe_is_a_valid_recipe_and_the_same(recipe, tmp_path):
    again = load_recipe(written(tmp_path, recipe.to_yaml()))
    assert again == recipe


def test_scientific_numbers_that_yaml_reads_as_text_become_numbers(tmp_path):
    assert load_recipe(written(tmp_path, RECIPE)).optim.lr == 0.001


def test_set_changes_one_key_and_types_it(recipe):
    changed = recipe.override("optim.lr=2e-4", "data.batch=3", "evaluate.data=[camvid:val:day]", "network.channels=4")
    assert (changed.optim.lr, changed.data.batch, changed.network["channels"]) == (2e-4, 3, 4)
    assert changed.evaluate.data == ["camvid:val:day"]
    assert recipe.optim.lr == 1e-3, "the original stays"


WRONG = [
    ("steps: 4", "stepz: 4", r"unknown key 'stepz'; did you mean 'steps'\?"),
    ("batch: 2", "bach: 2", r"data: unknown key 'bach'; did you mean 'batch'\?"),
    ("steps: 4", "steps: many", r"steps: .*integer.*\(got 'many'\)"),
    ("lr: 1e-3,", "", r"optim\.lr: missing"),
    ("how: whole", "how: hole", r"evaluate\.how: .*'whole' or 'slide'.*\(got 'hole'\)"),
    ("how: whole", "how: slide", r"evaluate: .*window and stride"),
    (
        "encoder: tiny,",
        "encodr: tiny,",
        r"network mit_daformer has no setting 'encodr'; did you mean 'encoder'\?",
    ),
    ("channels: 8", "channels: wide", r"network\.channels: .*integer.*\(got 'wide'\)"),
    (
        "name: source_only",
        "name: source_onyl",
        r"method\.name: unknown 'source_onyl'; did you mean 'source_only'\?",
    ),
    ("photometric: null", "photometrik: null", r"has no setting 'photometrik'; did you mean 'photometric'\?"),
    (", photometric: null", "", r"method source_only needs photometric; add it"),
    ("photometric: null", "photometric: {jitter_prob: 2}", r"method\.photometric"),
    ("crop: [32, 32], max_class_share: 0.75", "crop: [32], max_class_share: 0.75", r"source\.augment\.crop"),
    ("seed: 3", "seed: 3\nseed: 4", r"key 'seed' is written twice"),
    ("seed: 3", "seed: [3", r"not valid YAML"),
    ("seed: 3", "seed: !!python/object/apply:os.system ['true']", r"not valid YAML"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), WRONG)
def test_a_wrong_recipe_is_one_line_that_names_file_key_and_way_out(tmp_path, right, wrong, message):
    assert right in RECIPE
    path = written(tmp_path, RECIPE.replace(right, wrong))
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    text = str(error.value)
    assert re.search(message, text), text
    assert "mine.yaml" in text and "\n" not in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lrr=1", r"optim: unknown key 'lrr'; did you mean 'lr'\?"),
        ("optim.lr", r"write KEY=VALUE"),
        ("seed.deep=1", r"seed is 3, not a block"),
        ("method.level=0.3", r"source_only has no setting 'level'"),
        ("steps=[", r"not a YAML value"),
    ],
)
def test_a_wrong_set_is_explained(recipe, setting, message):
    with pytest.raises(RecipeError, match=message):
        recipe.override(setting)


def test_unknown_and_missing_recipes_are_explained(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'ebda_streets'"):
        load_recipe("ebda_street")
    with pytest.raises(RecipeError, match="no recipe at"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="holds no recipe"):
        load_recipe(written(tmp_path, "- 1"))
    (tmp_path / "raw.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read as text"):
        load_recipe(tmp_path / "raw.yaml")


def test_a_class_of_ones_own_is_named_by_its_module():
    given = {"class_names": ("a", "b")}
    spec = {
        "name": "segda.networks.mit_daformer:MiTDAFormer",
        "encoder": "tiny",
        "weights": "scratch",
        "channels": 4,
    }
    rest = {"dilations": [1], "dropout": 0.0, "drop_path": 0.0}
    assert build(NETWORKS, spec | rest, "network", **given).classes == 2
    with pytest.raises(RecipeError, match="cannot import"):
        build(METHODS, {"name": "no_such_package:Mine"}, "method")


# Shipped recipes


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_loads_and_is_named_after_its_method_and_domains(name):
    recipe = load_recipe(name)
    # HRDA is DAFormer's method on a network of its own.
    assert name.startswith(recipe.method["name"] + "_") or (
        name.startswith("hrda_") and (recipe.method["name"], recipe.network["name"]) == ("daformer", "hrda")
    )
    first = recipe if recipe.data.source is not None else stages_of(recipe)[0].recipe
    source = first.data.source.set.split(":")[0]
    # Of cityscapes-foggy:train+cityscapes-rain:train, as a target of cityscapes, foggy_rain is left.
    target = "_".join(part.split(":")[0].removeprefix(f"{source}-") for part in recipe.data.target.set.split("+"))
    assert name.endswith(source if source == target else f"_{source}_{target}")
    assert (recipe.paper is None) == (recipe.method["name"] == "source_only")


def keys(tree: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in tree.items():
        flat |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


TRANSFORMER = ("source_only", "dacs", "daformer", "ebda")
ADVERSARIAL = ("minent", "advent", "esl")
FAMILIES = {
    ("streets", "mit_daformer"): TRANSFORMER,
    ("camvid", "encoder_decoder"): (*TRANSFORMER, *ADVERSARIAL, "ease", "mic", "bdl", "fda"),
    ("mic_camvid", "encoder_decoder"): ("ebda",),
    ("mic_streets", "encoder_decoder"): ("ebda",),
    ("distort_camvid", "encoder_decoder"): ("source_only",),
    ("streets", "encoder_decoder"): ("source_only", "daformer", "ebda", "ease", "mic", "bdl", "fda", "mgcda", "refign"),
    ("cityscapes_dark-zurich", "encoder_decoder"): ("mgcda",),
    ("filter_cityscapes_dark-zurich", "encoder_decoder"): ("mgcda",),
    ("cityscapes_acdc", "encoder_decoder"): ("mgcda",),
    ("streets_camvid", "encoder_decoder"): ("source_only", "ease"),
    ("gta5_cityscapes", "mit_daformer"): TRANSFORMER,
    ("daformer_gta5_cityscapes", "mit_daformer"): ("mic",),
    ("streets", "hrda"): ("daformer", "mic"),
    **{(f"dinov2_{pair}", "vfm"): ("vfm",) for pair in ("gta5_cityscapes", "synthia_cityscapes", "cityscapes_acdc")},
    **{(f"dinov3_{pair}", "vfm"): ("vfm",) for pair in ("gta5_cityscapes", "synthia_cityscapes", "cityscapes_acdc")},
    **{
        (f"dinov2_{pair}", "vfm with an adapter"): ("vfm_plus",)
        for pair in ("gta5_cityscapes", "synthia_cityscapes", "cityscapes_dark-zurich")
    },
    ("gta5_cityscapes", "hrda"): ("daformer", "mic", "ebda"),
    ("synthia_cityscapes", "hrda"): ("daformer", "mic", "ebda"),
    ("cityscapes_acdc", "hrda"): ("daformer", "mic", "ebda"),
    ("cityscapes_dark-zurich", "hrda"): ("daformer", "mic", "ebda"),
    ("synthia_cityscapes", "mit_daformer"): TRANSFORMER,
    ("cityscapes_acdc", "mit_daformer"): (*TRANSFORMER, "refign"),
    ("cityscapes_dark-zurich", "mit_daformer"): (*TRANSFORMER, "refign"),
    ("cityscapes_foggy_rain", "mit_daformer"): ("daformer", "ebda"),
    ("streets", "deeplab_v2"): ("source_only", *ADVERSARIAL),
    ("gta5_cityscapes", "deeplab_v2"): ADVERSARIAL,
    ("synthia_cityscapes", "deeplab_v2"): ADVERSARIAL,
    ("gta5_mapillary", "deeplab_v2"): ADVERSARIAL,
    ("synthia_mapillary", "deeplab_v2"): ADVERSARIAL,
    ("gta5_cityscapes", "deeplab_v2 of one head"): ("bdl",),
    ("synthia_cityscapes", "deeplab_v2 of one head"): ("bdl",),
    ("gta5_cityscapes", "deeplab_v2 of one head, crops"): ("fda",),
    ("synthia_cityscapes", "deeplab_v2 of one head, crops"): ("fda",),
    **{(pair, ""): ("cyclegan",) for pair in ("streets", "camvid", "gta5_cityscapes", "synthia_cityscapes")},
    **{(pair, "encoder_decoder without a source"): ("source_free",) for pair in ("streets", "camvid")},
    ("streets", "relit"): ("dannet",),
    ("cityscapes_acdc", "relit"): ("dannet",),
    ("cityscapes_dark-zurich", "relit"): ("dannet",),
}
"""Domains and network ("": the method trains none) -> the methods that have a recipe for them."""


@cache
def trees() -> dict[str, dict]:
    """Every shipped recipe, without what nobody has set."""
    return {name: yaml.safe_load(load_recipe(name).to_yaml(defaults=False)) for name in shipped()}


def pair_of(name: str, tree: dict) -> str:
    """source_only_resnet_streets -> streets."""
    rest = name.removeprefix(tree["method"]["name"] + "_")
    if tree.get("network", {}).get("name") == "hrda":
        rest = rest.removeprefix("hrda_").removeprefix("mic_")
    return rest.removeprefix("resnet_").removeprefix("imagenet_")


def network_of(tree: dict) -> str:
    network = tree.get("network", {})
    if network.get("decoder") == "adapter":
        return f"{network['name']} with an adapter"
    if tree["data"].get("source") is None:
        return f"{network['name']} without a source"
    if network.get("multi_level") is not False:
        return network.get("name", "")
    # FDA's authors train on crops, BDL's on whole images.
    return f"{network['name']} of one head" + (", crops" if tree["data"]["source"]["augment"]["crop"] else "")


def family(pair: str, network: str) -> dict[str, dict]:
    """Method -> the recipe of these domains and this network, without what nobody has set."""
    found = [tree for name, tree in trees().items() if pair_of(name, tree) == pair and network_of(tree) == network]
    return {tree["method"]["name"]: copy.deepcopy(tree) for tree in found}


def test_every_shipped_recipe_is_of_a_family():
    assert sum(len(family(*of)) for of in FAMILIES) == len(trees())
    assert {of: set(family(*of)) for of in FAMILIES} == {of: set(methods) for of, methods in FAMILIES.items()}


@pytest.mark.parametrize("of", FAMILIES, ids=" ".join)
def test_the_recipes_of_a_pair_and_a_network_differ_in_their_method_alone(of):
    trees = list(family(*of).values())
    for tree in trees:
        # With the authors' numbers come the colours of their yardstick; the methods without jitter have them on CamVid,
        # FDA on streets too.
        distorted = {*ADVERSARIAL, "bdl", "fda"} if of == ("camvid", "encoder_decoder") else set()
        distorted |= {"fda"} if of == ("streets", "encoder_decoder") else set()
        distorted |= {"source_only"} if of[0] in (*TARGETS, "distort_camvid") else set()
        source = tree["data"].get("source") or {"augment": {}}
        assert (source["augment"].pop("distort", None) is not None) == (tree["method"]["name"] in distorted)
        # A part of EASE there; the page of results has the others with statistics of the dusk.
        exact = (of[0], tree["method"]["name"]) == ("camvid", "ease")
        assert tree.pop("exact_statistics", None) == (["source", "target"] if exact else None)
        for key in ("method", "paper", "expect", "players", "stages"):
            tree.pop(key, None)
        tree["data"].pop("reference", None)
    assert all(keys(tree) == keys(trees[0]) for tree in trees)


TARGETS = {
    "gta5_cityscapes": ([1280, 720], [1024, 512]),
    "synthia_cityscapes": ([1280, 760], [1024, 512]),
    "cityscapes_acdc": ([1024, 512], [960, 540]),
    "cityscapes_dark-zurich": ([1024, 512], [960, 540]),
    "cityscapes_foggy_rain": ([1024, 512], [1024, 512]),
}
"""Domains -> boxes of source and target; spec of DAFormer's and EB_DA's data files."""


@pytest.mark.parametrize("pair", [pair for pair, network in FAMILIES if network == "hrda" and pair != "streets"])
def test_the_benchmarks_of_hrda_are_daformers_at_twice_the_size(pair):
    small, large = load_recipe(f"daformer_{pair}"), load_recipe(f"hrda_{pair}")
    for domain in ("source", "target"):
        one, other = (getattr(recipe.data, domain).augment for recipe in (small, large))
        assert [2 * side for side in one.resize] == [*other.resize] and [2 * side for side in one.crop] == [*other.crop]
    assert large.data.source.rare_class.crop_ratio == 4 * small.data.source.rare_class.crop_ratio
    # The same margin at the bottom; none where the target is dark.
    margins = large.data.target.augment.margins
    assert margins == ((30, 240, 30, 30) if pair in ("gta5_cityscapes", "synthia_cityscapes") else None)
    assert (large.evaluate.how, large.evaluate.window, large.evaluate.stride) == ("slide", (1024, 1024), (512, 512))
    assert large.method == small.method and large.network["over"] == small.network
    both = load_recipe(f"mic_{pair}").method["masking"]
    assert (both["mode"], both["augment"]) == (("target", True) if margins else ("both", False))


def test_the_published_benchmarks_differ_in_their_data_alone():
    trees = {pair: family(pair, "mit_daformer")["ebda"] for pair in TARGETS}
    for pair, tree in trees.items():
        boxes = [tree["data"][domain]["augment"].pop("resize") for domain in ("source", "target")]
        assert tuple(boxes) == TARGETS[pair] and tree["evaluate"].pop("resize") == boxes[1]
        for place in ("data.source.set", "data.target.set", "data.space", "evaluate.data", "expect"):
            *blocks, key = place.split(".")
            reduce(getitem, blocks, tree).pop(key, None)
    assert all(keys(tree) == keys(trees["gta5_cityscapes"]) for tree in trees.values())


@pytest.mark.parametrize("pair", [pair for (pair, _), methods in FAMILIES.items() if "esl" in methods])
def test_esl_is_advent_with_pseudo_labels_of_advents_network(pair):
    esl, advent = load_recipe(f"esl_{pair}"), load_recipe(f"advent_{pair}")
    teacher, _, last = stages_of(esl)
    assert teacher.recipe.model_copy(update={"expect": advent.expect}) == advent and advent.stages == {}
    assert last.outputs == (("data.target.labels", "labels"),)
    assert esl.method | {"name": "advent"} == advent.method
    assert esl.players == advent.players


@pytest.mark.parametrize(("pair", "steps"), [("streets", 600), ("camvid", 1200)])
def test_source_free_goes_on_from_source_only(pair, steps):
    recipe = load_recipe(f"source_free_{pair}")
    first, last = stages_of(recipe)
    yardstick = load_recipe({"streets": "source_only_imagenet_streets", "camvid": "source_only_camvid"}[pair])
    assert first.recipe.override("paper=null") == yardstick.override(f"steps={steps}", "paper=null")
    assert last.outputs == (("start", "source"),) and last.recipe.data.source is None
    assert (last.recipe.data.target, last.recipe.network) == (yardstick.data.target, yardstick.network)


@pytest.mark.parametrize("pair", ["camvid", *TARGETS])
def test_ebda_differs_from_daformer_by_its_balance(pair):
    ebda, daformer = load_recipe(f"ebda_{pair}").method, load_recipe(f"daformer_{pair}").method
    changed = {key for key in ebda.keys() | daformer.keys() if ebda.get(key) != daformer.get(key)}
    # With the authors' numbers comes their second forward pass.
    assert changed == {"name", "balance_weight", "level"} | ({"second_pass"} if pair in TARGETS else set())


@pytest.mark.parametrize("pair", [pair for pair in TARGETS if f"source_only_{pair}" in shipped()])
def test_the_published_yardsticks_change_colours_as_the_authors_do_and_in_no_other_way(pair):
    recipe = load_recipe(f"source_only_{pair}")
    assert recipe.method["photometric"] is None and recipe.data.target.augment.distort is None
    # mmsegmentation 0.16: the arguments that PhotoMetricDistortion has when nothing is said.
    assert recipe.data.source.augment.distort == Distortion(
        brightness=32, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=18, probability=0.5
    )


WITHOUT_CLASSES = (
    "method.feature_distance: min_share has no effect where classes is null, which holds all cells; remove it"
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["method.feature_distance.classes=null"], WITHOUT_CLASSES),
        (
            ["method.feature_distance.min_share=null"],
            "method.feature_distance: classes need min_share, the",
        ),
        (["method.feature_distance.classes=[]"], "method.feature_distance: classes: Tuple should have at least 1 item"),
        (["method.feature_distance={weight: 0.005}"], "method.feature_distance: classes: missing"),
    ],
)
def test_a_feature_distance_that_cannot_be_is_explained(changes, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("daformer_gta5_cityscapes").override(*changes)


def test_a_feature_distance_may_hold_everything():
    recipe = load_recipe("daformer_gta5_cityscapes").override(
        "method.feature_distance.classes=null", "method.feature_distance.min_share=null"
    )
    again = parse_recipe(yaml.safe_load(recipe.to_yaml()), "again")
    assert again.method["feature_distance"] == {"weight": 0.005, "classes": None, "min_share": None}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "auto"}, "level: auto needs level_statistic, level_momentum"),
        ({"level": "auto", "level_statistic": "quantile", "level_momentum": 0.9}, "needs level_quantile"),
        ({"level": 0.4, "level_momentum": 0.9}, "level_momentum has no effect"),
        ({"level": "auto", "level_statistic": "mean", "level_momentum": 1.5}, "level_momentum must be in"),
        ({"level": "often"}, "level: .*got 'often'"),
    ],
)
def test_a_level_that_cannot_be_is_explained(settings, message):
    tree = load_recipe("ebda_streets").model_dump(mode="json")
    tree["method"] |= settings
    with pytest.raises(SegdaError, match=message):
        recipe = parse_recipe(tree, "here")
        student = build(NETWORKS, recipe.network, "network", class_names=("a", "b"))
        build(METHODS, recipe.method, "method", student=student)


def test_recipes_are_immutable(recipe: Recipe):
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1


@pytest.mark.parametrize("pair", ["streets", "camvid", "gta5_cityscapes", "synthia_cityscapes"])
def test_the_translators_of_bdls_stages_are_those_of_their_own_recipes(pair):
    bdl, alone = load_recipe(f"bdl_{pair}"), load_recipe(f"cyclegan_{pair}")
    stages = {stage.name: stage for stage in stages_of(bdl)}
    for name, given, weights in (("translator", {}, (0, 0)), ("translator_again", {"perceptual"}, (0.1, 10))):
        recipe = stages[name].recipe
        for key in ("data", "steps", "players", "network", "optim"):
            assert getattr(recipe, key) == getattr(alone, key), (name, key)
        assert recipe.evaluate.data == alone.evaluate.data == []
        perceptual = dict(zip(("perceptual_weight", "reconstruction_weight"), weights, strict=True))
        assert recipe.method == alone.method | perceptual and set(recipe.given) == set(given)
        assert (alone.method["perceptual_weight"], alone.method["reconstruction_weight"]) == (0, 0)
    last = list(stages.values())[-1]
    # Each network learns from images of the newest translator, the last one with labels of another network.
    assert dict(last.outputs)["data.source.images"] == "translated_again"
    assert stages["first"].outputs == (("data.source.images", "translated"),)
    assert dict(last.outputs)["data.target.labels"] in stages and last.recipe.network == bdl.network
