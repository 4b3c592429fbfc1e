"""The documents: what they tell a reader to type works, what they point at exists, what they quote is so."""

from __future__ import annotations

import glob
import inspect
import json
import re
import shlex
import shutil
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from PIL import Image

import segda
from conftest import write_camvid
from segda.cli.main import app, main
from segda.data.labels import spaces
from segda.data.rows import DATASETS, Row
from segda.data.sets import streets as street_sets
from segda.data.streets.conditions import SPLITS
from segda.methods.minent import MinEnt
from segda.recipes.blocks import shipped
from segda.recipes.recipe import load_recipe
from segda.training import running

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ADDING, COMMANDS, FIRST, OWN, RECIPES, REPRODUCE = (
    ROOT / "docs" / f"{name}.md"
    for name in ("ADDING", "COMMANDS", "FIRST-METHOD", "OWN-IMAGES", "RECIPES", "REPRODUCE")
)
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SMALL = ["steps=2", "data.batch=1", "evaluate.report_images=1"]
LITTLE = "network={name: encoder_decoder, encoder: small, decoder: segformer_64, weights: scratch, dropout: 0.1}"
"""In place of lite0, which takes three times as long to export. What `init` writes keeps lite0 and its weights."""


def shorter(words: list[str]) -> list[str]:
    """What is put after a command of the documents, so that it takes a second."""
    if words[0] == "draw":
        return ["--count", "2", "--size", "64x128"]
    if words[0] in ("export", "benchmark"):  # of any size they take half a minute
        return ["--size", "64x48"]
    if words[0] != "train":
        return []
    settings, recipe = [*SMALL], load_recipe(words[1])
    if recipe.network.get("name") == "mit_daformer":
        settings.append("network.encoder=tiny")
    if words[1] in shipped() and recipe.network.get("name") == "encoder_decoder":
        settings.append(LITTLE)
    if "begin" in recipe.method:
        settings.append("method.begin=1")
    return [word for setting in settings for word in ("--set", setting)]


def blocks(document: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(document.read_text(encoding="utf-8")) if found == language]


def commands(document: Path) -> list[list[str]]:
    """The words of each `segda ...` line in the document's sh blocks; comments are left out."""
    lines = "\n".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "segda"]


def plain(document: Path) -> str:
    """The document without its code."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def rows(document: Path, column: str) -> list[str]:
    """The lines of the one table that has a column of this name."""
    tables = re.findall(r"^(?:\|.*\n)+", plain(document), re.MULTILINE)
    (found,) = (table for table in tables if column in table.splitlines()[0])
    return found.splitlines()


def recipe_names(row: str) -> list[str]:
    """What a table's row has in the form of a recipe's name."""
    return re.findall(r"`(\w+_[\w-]+)`", row)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A current folder with a small CamVid in data/, photographs and masks, and few and small drawn streets."""
    write_camvid(tmp_path / "data")
    for place, of in (("photos/day", "val"), ("masks/day", "valannot"), ("photos/night", "test")):
        shutil.copytree(tmp_path / "data" / "camvid" / of, tmp_path / place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGDA_DATA", raising=False)
    monkeypatch.setattr(street_sets, "SIZE", (64, 128))
    for split, (seed, _) in list(SPLITS.items()):
        monkeypatch.setitem(SPLITS, split, (seed, 2))
    street_sets.drawn.cache_clear()
    yield tmp_path
    street_sets.drawn.cache_clear()


def work(lines: list[list[str]], capsys) -> None:
    for words in lines:
        words = [path for word in words for path in (sorted(glob.glob(word)) if {"*", "?"} & {*word} else [word])]
        arguments = [*words, *shorter(words)]
        assert main(arguments) == 0, f"segda {' '.join(arguments)}: {capsys.readouterr().err}"


@pytest.mark.long
def test_the_commands_of_the_readme_and_of_their_page_work_in_their_order(here, capsys):
    lines = commands(README) + commands(COMMANDS)
    assert len(lines) > 20
    work(lines, capsys)
    for left in (
        "labels/pseudo_labels.json",
        "runs/esl-labels/contact_sheet.jpg",
        "runs/ease/report.html",
        "runs/ebda_camvid/reports/camvid-test-dusk.json",
        "predictions",
        "drawn",
    ):
        assert (here / left).exists(), left


def test_the_way_of_own_images_leads_from_folders_to_a_report_a_table_and_pictures(here, capsys):
    work(commands(OWN), capsys)
    assert "folder:street/data.yaml:val" in capsys.readouterr().out
    for left in ("street/sheets", "runs/street-quick/report.html", "painted"):
        assert (here / left).exists(), left


def test_the_way_of_a_table_leads_to_the_table(here, capsys, monkeypatch):
    monkeypatch.setattr(running, "write_report", lambda run: run / "report.html")  # the way needs no page
    (axes,) = blocks(REPRODUCE, "yaml")
    (here / "table.yaml").write_text(axes)
    for words in commands(REPRODUCE):
        if words == ["sweep", "table.yaml"]:  # in this process, whose streets are small
            capsys.readouterr()
            assert main([*words, "--dry-run"]) == 0
            words_of_each = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
            assert len(words_of_each) == 6
            work(words_of_each, capsys)
        else:
            work([words], capsys)
    table = capsys.readouterr().out
    assert "source\\_only\\_imagenet\\_streets, with statistics of streets:train:night, n = 3" in table
    assert "| ease\\_streets, n = 3 |" in table


def test_the_way_of_a_first_method_leads_to_a_trained_one(here, monkeypatch, capsys):
    code, test = blocks(FIRST, "python")
    (recipe,) = blocks(FIRST, "yaml")
    (here / "own_labels.py").write_text(code)
    (here / "own_labels.yaml").write_text(recipe)
    monkeypatch.syspath_prepend(here)
    work(commands(FIRST), capsys)
    assert (here / "runs/own_labels/report.html").is_file()
    lines = map(json.loads, (here / "runs/own_labels/log.jsonl").read_text().splitlines())
    assert any({"source", "own", "own/kept"} <= line.keys() for line in lines)
    names: dict = {}
    exec(compile(test, "FIRST-METHOD.md", "exec"), names)
    names["test_what_is_not_sure_teaches_nothing"]()


def test_the_python_of_the_commands_page_works(here, capsys):
    programs = [block for block in blocks(COMMANDS, "python") if "import segda" in block]
    assert len(programs) == 1
    program = programs[0].replace('"steps=100"', '"steps=2", "data.batch=1", "evaluate.report_images=1"')
    assert program != programs[0]
    names: dict = {}
    exec(compile(program, "COMMANDS.md", "exec"), names)
    assert names["label"].shape == (1, 64, 128)
    assert "streets:test:night, 2 images" in capsys.readouterr().out


def test_the_readme_shows_minents_step_as_it_stands():
    shown = [block for block in blocks(README, "python") if block.startswith("def step")]
    assert shown == [textwrap.dedent(inspect.getsource(MinEnt.step))]


def test_every_recipe_in_the_list_of_recipes_is_shipped_and_every_shipped_one_is_there_once():
    assert sorted(name for row in rows(RECIPES, "| recipes |") for name in recipe_names(row)) == sorted(shipped())


def test_the_readme_names_each_method_with_its_file_and_recipes_of_it():
    named = {}
    for row in rows(README, "| file |"):
        for method in re.findall(r"methods/(\w+)\.py\)", row):
            named[method] = {load_recipe(name).method["name"] for name in recipe_names(row)}
    assert named == {method: {method} for method in segda.METHODS}


def test_every_method_and_data_set_is_documented():
    files = set(re.findall(r"methods/(\w+)\.py", plain(README)))
    assert files == set(segda.METHODS)
    headings = re.findall(r"^## `([\w-]+)`", (ROOT / "docs" / "DATA.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(segda.DATASETS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_picture_leads_somewhere(document):
    for target in LINK.findall(plain(document)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        led = (document.parent / path).resolve() if path else document
        assert led.exists(), f"{document.name}: {target}"
        assert led.is_relative_to(ROOT), f"{document.name}: {target} is outside the repository"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", led.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_line_is_understood(document):
    group = typer.main.get_command(app)
    spans = re.findall(r"`(segda [a-z][a-z-]* [^`]+)`", plain(document))
    lines = commands(document) + [shlex.split(span)[1:] for span in spans]
    for words in lines:
        context = group.make_context("segda", list(words))
        name, command, rest = group.resolve_command(context, [*words])
        # Raises what a user would see for an unknown option, a wrong choice or a missing argument.
        command.make_context(name, rest, parent=context, resilient_parsing="--help" in words)


def test_the_method_and_the_network_in_adding_train(here, monkeypatch, capsys):
    method, network = (block for block in blocks(ADDING, "python") if "class Mine" in block)
    imports = (
        "from collections.abc import Sequence\n"
        "from torch import Tensor, nn\n"
        "from torch.nn.functional import interpolate\n"
        "from segda.networks.network import Head, Network, Output\n"
    )
    (here / "my_method.py").write_text(method)
    (here / "my_network.py").write_text(imports + network)
    monkeypatch.syspath_prepend(here)
    arguments = ["train", "source_only_streets", "--out", "runs/mine", "--set", "steps=2", "--set", "evaluate.data=[]"]
    arguments += ["--set", "method={name: 'my_method:Mine', entropy_weight: 0.001}"]
    arguments += ["--set", "network={name: 'my_network:Mine', channels: 8}"]
    assert main(arguments) == 0, capsys.readouterr().err
    assert {"source", "entropy"} <= json.loads((here / "runs/mine/log.jsonl").read_text().splitlines()[-1]).keys()


def test_the_data_set_in_adding_is_read(here, monkeypatch):
    row, names = (block for block in blocks(ADDING, "python") if '"harbour"' in block)
    space, labelling = (part for part in re.split(r"^# .*\n", names, flags=re.MULTILINE) if part)
    (made,) = eval(f"({space})", {"Space": spaces.Space})
    monkeypatch.setitem(spaces.SPACES, made.name, made)
    monkeypatch.setitem(spaces.LABELLINGS, "harbour", eval(f"{{{labelling}}}")["harbour"])
    monkeypatch.setitem(DATASETS, "harbour", eval(f"{{{row}}}", {"Row": Row})["harbour"])
    for path, pixels in (
        ("images/train/storm_1.png", np.zeros((2, 5, 3), np.uint8)),
        ("images/train/calm_1.png", np.zeros((2, 5, 3), np.uint8)),
        ("labels/train/storm_1_ids.png", np.array([[0, 1, 2, 3, 4], [255, 1, 1, 1, 1]], np.uint8)),
    ):
        (here / "data/harbour" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(here / "data/harbour" / path)
    scene = segda.open_data("harbour:train:storm").read(0, label=True)
    assert scene.label.tolist() == [[255, 0, 1, 2, 3], [255, 0, 0, 0, 0]]
    assert len(segda.open_data("harbour:train")) == 2


def test_every_test_named_as_holding_a_row_exists():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "FIDELITY.md").read_text(encoding="utf-8")))
    assert len(named) > 30
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    needed = {re.match(r"[\w-]+", requirement).group() for requirement in asked} - {"segda"}  # its own extras
    rows = (ROOT / "docs" / "DEPENDENCIES.md").read_text(encoding="utf-8").splitlines()
    explained = {name for row in rows if row.startswith("|") for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert explained == needed


def test_the_changelog_begins_each_version_with_numbers():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[.*\n+(.*)$", text, re.MULTILINE)
    assert versions and all(first == "### Numbers" for first in versions)


def test_the_version_is_the_same_in_all_places():
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d.*)\] - (.*)$", changes, re.MULTILINE)
    assert released[0] == (cited["version"], str(cited["date-released"]))
    assert cited["version"] == version
