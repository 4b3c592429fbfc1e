"""`segda recipe`: what it prints is a recipe, with the source of each number."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from segda.cli.main import main
from segda.recipes.blocks import shipped, shipped_blocks
from segda.recipes.recipe import load_recipe
from segda.reporting.listing import listing


def printed(capsys, *words: str) -> str:
    assert main(["recipe", *words]) == 0
    return capsys.readouterr().out


def test_what_is_printed_is_the_recipe_with_its_sources(capsys, tmp_path):
    text = printed(capsys, "ebda_camvid", "--set", "steps=900")
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe("ebda_camvid").override("steps=900")
    lines = text.splitlines()
    assert "steps: 900" in lines, "a number of one's own has no source"
    assert "  level: 0.4                      # nats [code EB_DA, dacs.py]" in lines
    assert "  decay: 0.99                     # ours: DAFormer's 0.999 remembers longer than this run lasts" in lines
    assert lines[0] == "# EBDA on CamVid, day -> dusk, begun late: on two processor cores."
    keys = [line.split(":")[0] for line in lines if line[:1].isalpha()]
    assert keys == ["paper", "seed", "steps", "data", "network", "method", "optim", "evaluate"]


def test_it_is_written_to_a_file_which_is_not_replaced_unasked(capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    words = ["recipe", "methods/source_only_jitter+networks/lite0_segformer+benchmarks/camvid", "--to", str(file)]
    assert main(words) == 0 and load_recipe(file) == load_recipe("source_only_camvid")
    file.write_text("mine")
    assert main(words) == 2 and file.read_text() == "mine"
    assert "mine.yaml exists; use --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0 and load_recipe(file) == load_recipe("source_only_camvid")


def test_a_block_alone_is_printed_as_it_stands(capsys):
    assert printed(capsys, "methods/ebda") == shipped_blocks()["methods/ebda"].read_text()


def test_no_name_of_a_recipe_or_its_data_is_cut_off_in_eighty_columns():
    console = Console(width=80, file=io.StringIO())
    console.print(listing("recipes"))
    text = console.file.getvalue()
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    words = {*text.replace(",", " ").split()}
    for name in shipped():
        recipe = load_recipe(name)
        assert {name, (recipe.network or recipe.method)["name"], *recipe.data.target.set.split("+")} <= words
        assert recipe.data.source is None or {*recipe.data.source.set.split("+")} <= words


@pytest.mark.parametrize("kind", ["methods", "networks", "benchmarks"])
def test_blocks_are_listed_a_line_each_with_whole_names_in_eighty_columns(kind):
    console = Console(width=80, file=io.StringIO())
    console.print(listing(kind))
    lines = console.file.getvalue().splitlines()
    named = [line for line in lines if line.startswith(f"{kind}/")]
    assert [line.split()[0] for line in named] == list(shipped_blocks(kind))
    assert all(len(line) <= 80 for line in lines)
