"""Blocks: how they are put together, where a number's comment goes, and what is said of a wrong mix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from conftest import RECIPE
from segda.errors import RecipeError
from segda.recipes.blocks import FOLDER, compose, merged, shipped, shipped_blocks, short_name
from segda.recipes.recipe import load_recipe


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# Merging


@pytest.mark.parametrize(
    ("base", "over", "found"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"m": {"name": "dacs", "decay": 1}}, {"m": {"name": "minent", "w": 2}}, {"m": {"name": "minent", "w": 2}}),
        (
            {"m": {"name": "dacs", "decay": 1}},
            {"m": {"name": "dacs", "w": 2}},
            {"m": {"name": "dacs", "decay": 1, "w": 2}},
        ),
        ({"m": {"name": "dacs", "decay": 1}}, {"m": {"decay": 2}}, {"m": {"name": "dacs", "decay": 2}}),
        ({"n": {"over": {"name": "a", "x": 1}}}, {"n": {"over": {"name": "b"}}}, {"n": {"over": {"name": "b"}}}),
    ],
)
def test_later_wins_key_by_key_and_another_name_replaces_the_whole(base, over, found):
    assert merged(base, over) == found


def test_a_recipe_says_what_differs_from_its_blocks_nested_or_with_dots(tmp_path):
    use = "use: [benchmarks/streets, networks/mit_tiny_daformer, methods/ebda]\n"
    dotted = load_recipe(write(tmp_path / "one.yaml", use + "method.decay: 0.5\nmethod.feature_distance: null\n"))
    nested = load_recipe(write(tmp_path / "two.yaml", use + "method: {decay: 0.5, feature_distance: null}\n"))
    assert dotted == nested
    assert (dotted.method["decay"], dotted.method["threshold"], dotted.method["feature_distance"]) == (0.5, 0.968, None)


def test_a_block_of_ones_own_is_found_beside_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    write(tmp_path / "there" / "slow.yaml", "optim.lr: 1.0e-7  # ours\n")
    recipe = write(
        tmp_path / "there" / "mine.yaml",
        "use: [benchmarks/streets, networks/mit_tiny_daformer, methods/dacs, slow.yaml]\n",
    )
    monkeypatch.chdir(tmp_path)
    assert load_recipe(recipe).optim.lr == 1e-7


# Comments


def told(text: str) -> dict[str, str]:
    """Dotted key -> the comment beside it, by indentation alone; but for the lines that a file begins with."""
    found, above = {}, []
    for line in text.splitlines():
        code, mark, comment = line.partition("  # ")
        if not code.strip() or code.startswith("#"):
            continue
        above = [*above[: (len(code) - len(code.lstrip())) // 2], code.split(":")[0].strip()]
        if mark:
            found[".".join(above)] = comment.strip()
    return found


@pytest.mark.parametrize("name", shipped())
def test_a_flat_recipe_is_the_recipe_and_keeps_the_source_of_each_number(name, tmp_path):
    recipe = load_recipe(name)
    text = recipe.to_yaml(defaults=False)
    again = load_recipe(write(tmp_path / "flat.yaml", text))
    assert again == recipe and "use:" not in text
    assert again.to_yaml(defaults=False) == text, "what was flat stays as it is"
    own = shipped()[name].read_text()
    differs = yaml.safe_load(own)
    theirs = [told(shipped_blocks()[part].read_text()) for part in differs.pop("use")]
    kept = {
        key: comment
        for comments in theirs
        for key, comment in comments.items()
        if not any(key == other or key.startswith(f"{other}.") for other in differs)
    }
    heads = [line.partition(": ")[0] for line in text.splitlines() if line.startswith("# ")]
    used = [*yaml.safe_load(own)["use"], *blocks_of_stages(name)]
    assert [part for part in used if f"# {part}" not in heads] == []
    of_stages = {key: comment for key, comment in told(text).items() if key.startswith("stages.")}
    expected = kept | told(own)
    assert {key: comment for key, comment in told(text).items() if key not in of_stages} == {
        key: comment for key, comment in expected.items() if not key.startswith("stages.")
    }
    # A stage's stand in the recipe, in its blocks or in those that the stage uses.
    texts = [own, *(shipped_blocks()[part].read_text() for part in used)]
    assert set(of_stages.values()) <= {comment for text in texts for comment in told(text).values()}


def blocks_of_stages(name: str) -> list[str]:
    """The blocks that the stages of a shipped recipe use."""
    texts = [shipped()[name].read_text()]
    texts += [shipped_blocks()[part].read_text() for part in yaml.safe_load(texts[0])["use"]]
    found = [
        part
        for text in texts
        for listed in re.findall(r"train.*use: \[(.*?)\]|^ +use: \[(.*?)\]", text, re.M)
        for part in "".join(listed).split(", ")
    ]
    return list(dict.fromkeys(found))


BLOCK = """# A block.
# [code] is theirs.

method:
  # of the first
  # two lines
  name: dacs
  decay: 0.9      # theirs [code]
  photometric:    # of a block
    blur_prob: 0.5
  list: [1,
    2]  # after a list
"""


def test_a_comment_stands_where_its_value_does(tmp_path):
    block = write(tmp_path / "block.yaml", BLOCK)
    found, _ = compose(write(tmp_path / "mine.yaml", f"# Mine.\nuse: [{block}]\nmethod.decay: 0.8  # ours\nsteps: 3\n"))
    assert found.values == {
        "method": {"name": "dacs", "decay": 0.8, "photometric": {"blur_prob": 0.5}, "list": [1, 2]}, "steps": 3
    }  # fmt: skip
    said = {".".join(keys): (one.beside, one.above) for keys, one in found.comments.items()}
    assert said == {
        "method.name": ("", ("of the first", "two lines")),
        "method.decay": ("ours", ()),
        "method.photometric": ("of a block", ()),
        "method.list": ("after a list", ()),
    }
    assert found.head == ("Mine.", f"{block}: A block.", "[code] is theirs.")


def test_a_comment_goes_with_the_value_that_it_explained(tmp_path):
    block = write(tmp_path / "block.yaml", "method: {name: a}\noptim:\n  lr: 1  # theirs\n  name: sgd\n")
    gone, _ = compose(write(tmp_path / "one.yaml", f"use: [{block}]\noptim: {{name: adamw, lr: 2}}\n"))
    assert gone.comments == {} and gone.values["optim"] == {"name": "adamw", "lr": 2}
    assert "  decay: 0.5\n" in load_recipe("ebda_camvid").override("method.decay=0.5").to_yaml()


def test_a_run_folders_recipe_has_the_sources_too():
    text = load_recipe("daformer_streets").to_yaml()
    assert told(text)["method.decay"] == "ours: DAFormer's 0.999 remembers longer than this run lasts"
    assert "keep_every: 0" in text, "and what nobody has set"


# Mixes


OWN = yaml.safe_dump({key: yaml.safe_load(RECIPE)[key] for key in ("data", "evaluate", "steps", "seed")})


def test_blocks_are_mixed_with_data_of_ones_own(tmp_path):
    mine = write(tmp_path / "mine.yaml", OWN)
    mixed = load_recipe("methods/dacs+networks/mit_b0_daformer", data=mine)
    assert (mixed.method["name"], mixed.network["encoder"], mixed.data.source.set) == ("dacs", "b0", "camvid:train:day")
    assert mixed == load_recipe(f"methods/dacs+networks/mit_b0_daformer+{mine}")
    named = load_recipe("source_only_camvid")
    assert load_recipe("benchmarks/camvid+networks/lite0_segformer+methods/source_only_jitter") == named


def test_all_that_a_mix_lacks_is_said_at_once(tmp_path):
    with pytest.raises(RecipeError, match=r"seed, steps, data, evaluate: missing; add them to .*--data FILE"):
        load_recipe("methods/dacs+networks/mit_b0_daformer")
    with pytest.raises(RecipeError, match=r"methods/dacs: seed, steps, data, evaluate, network, optim: missing; add"):
        load_recipe("methods/dacs")
    with pytest.raises(RecipeError, match=r"streets: network, optim: missing; add them to a file of your own, --data"):
        load_recipe("methods/dacs+benchmarks/streets")
    mine = write(
        tmp_path / "mine.yaml", "steps: 3\ndata: {source: {set: streets:train:day}, target: {set: streets:train:fog}}\n"
    )
    with pytest.raises(
        RecipeError,
        match=r"seed, data.source.augment, data.target.augment, data.batch, evaluate: missing; add them to .*mine.yaml",
    ):
        load_recipe("methods/dacs+networks/mit_b0_daformer", mine)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("methods/ebd+networks/mit_b0_daformer", None, r"unknown block 'methods/ebd'; did you mean 'methods/ebda'\?"),
        ("ebda", None, r"unknown recipe 'ebda'"),
        ("ebda_streets+networks/mit_b0_daformer", None, "ebda_streets is a recipe, no block"),
        ("ebda_streets", "mine.yaml", "data of its own, .*: networks/mit_tiny_daformer.methods/ebda --data mine.yaml"),
        ("methods/ebda+mine.yaml", None, "no block at mine.yaml"),
        ("methods/ebda", "uses.yaml", "uses.yaml: use: a block uses no block"),
        ("uses.yaml", None, r"uses.yaml: unknown block 'methods/eb'; did you mean"),
        ("text.yaml", None, r"use: needs a list of blocks, .* \(got 'methods/ebda'\)"),
        ("twice.yaml", None, "method.decay: is written twice; remove one"),
        ("methods/ebda", "list.yaml", "list.yaml: holds no block"),
    ],
)  # fmt: skip
def test_a_wrong_mix_is_one_line_that_says_what_and_how(name, data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "uses.yaml", "use: [methods/eb]\n")
    write(tmp_path / "text.yaml", "use: methods/ebda\n")
    write(tmp_path / "twice.yaml", "method: {decay: 0.1}\nmethod.decay: 0.2\n")
    write(tmp_path / "list.yaml", "- steps\n")
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(name, data)
    assert "\n" not in str(error.value)


def test_a_mix_has_a_name_for_a_folder():
    assert short_name("methods/ebda+networks/mit_b0_daformer", "there/mine.yaml") == "ebda-mit_b0_daformer-mine"
    assert (short_name("ebda_streets"), short_name("there/mine.yaml")) == ("ebda_streets", "mine")


# Shipped blocks


def test_every_shipped_block_is_of_a_kind_and_used():
    used = {part for path in shipped().values() for part in yaml.safe_load(path.read_text())["use"]}
    # One that no recipe uses is for mixes of one's own, and stands where those are explained.
    explained = (Path(__file__).parents[2] / "docs" / "RECIPES.md").read_text()
    assert used <= set(shipped_blocks())
    assert all(f"`{name}`" in explained for name in set(shipped_blocks()) - used)
    for path in FOLDER.rglob("*.yaml"):
        assert path.parent == FOLDER or path.parent.name in ("benchmarks", "methods", "networks", "sweeps"), path


@pytest.mark.parametrize("name", shipped_blocks())
def test_a_shipped_block_says_what_it_is_and_no_more_than_its_kind(name):
    allowed = {
        "methods": {"paper", "method", "players", "stages", "data"},
        "networks": {"network", "optim"},
        "benchmarks": {"seed", "steps", "data", "evaluate", "save_every", "keep_every"},
    }
    found = yaml.safe_load(shipped_blocks()[name].read_text())
    assert found.keys() <= allowed[name.split("/")[0]]
    if name.startswith("methods/") and "data" in found:
        assert found["data"].keys() == {"source"} and found["data"]["source"]["augment"].keys() == {"distort"}
    assert shipped_blocks()[name].read_text().startswith("# ")


def sources() -> list[tuple[str, Path]]:
    return [*shipped().items(), *shipped_blocks().items()]


@pytest.mark.parametrize(("name", "path"), sources(), ids=[name for name, _ in sources()])
def test_every_number_says_where_it_comes_from_and_every_code_is_named(name, path):
    text = path.read_text()
    for number, line in enumerate(text.splitlines(), 1):
        assert len(line) <= 120, f"{name} line {number}: {len(line)} characters"
        code, _, comment = line.partition("#")
        key = code.partition(":")[0].strip()
        if key in ("name", "use", "title", "arxiv", "code", "data", "classes", "note") or line == "seed: 0":
            continue
        if re.search(r":\s.*(\d|null)", code) and key not in ("space", "set", "teacher"):
            known = re.search(r"\bours\b|\[(paper|code [A-Z]|code of|lhoyer|valeoai)|needs labels", comment)
            assert known, f"{name} line {number}: {line}"
    for code in set(re.findall(r"\[code (\w+)", text)) - {"of"}:
        head = "".join(re.findall(r"^#.*\n", text, re.MULTILINE))
        assert path.parent == FOLDER or f"[code {code}] is" in head or f"[code {code}], " in head, f"{name}: {code}"
