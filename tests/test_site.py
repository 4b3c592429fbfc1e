"""The site: every page is in its navigation, its reference lacks nothing, its links lead somewhere. `make docs` builds
it; what is tested here needs nothing that the site alone needs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel

import segda
from docs_build import commands, keys, links, lists, names
from segda.cli.main import COMMANDS, app
from segda.methods import METHODS
from segda.networks import NETWORKS
from segda.networks.encoder_decoder import DECODERS
from segda.networks.encoders.table import ENCODERS
from segda.recipes.blocks import shipped, shipped_blocks
from segda.recipes.build import parameters_of
from segda.recipes.complaints import models_in
from segda.recipes.keys import Ensemble, Labelling, Translating
from segda.recipes.recipe import Recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
KEYS = keys.page()
MADE = [f"reference/{name}.md" for name in ("commands", "recipe", "python", "lists")]


def leaves(tree) -> list[str]:
    """The pages of a navigation."""
    if isinstance(tree, str):
        return [tree]
    return [page for one in (tree.values() if isinstance(tree, dict) else tree) for page in leaves(one)]


def blocks_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A block and all inside it."""
    inside = {one for field in model.model_fields.values() for one in models_in(field.annotation)}
    return {model}.union(*map(blocks_of, inside))


def definitions(section: str) -> set[str]:
    """The keys that a section of the page defines, each with a text."""
    found = re.findall(r"^<span [^>]*></span>\*\*`([^`]+)`\*\*.*\n:   \S.*$", section, re.MULTILINE)
    return set(found)


def section(title: str) -> str:
    """What stands below a heading, up to the next."""
    return re.split(rf"^#+ {re.escape(title)}(?: {{.*}})?$", KEYS, maxsplit=1, flags=re.MULTILINE)[1].partition("\n#")[
        0
    ]


def test_every_page_is_in_the_navigation_once():
    written = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    executed = [path.relative_to(DOCS).with_suffix(".md").as_posix() for path in NOTEBOOKS]
    assert sorted(leaves(SITE["nav"])) == sorted([*written, *executed, *links.PAGES.values(), *MADE])


def test_every_public_name_is_in_the_reference():
    page = names.page()
    for name in segda.__all__:
        assert f'<span id="segda.{name}"></span>' in page or f"{{ #segda.{name} }}" in page, name


def test_every_command_and_option_is_in_the_reference():
    page, group = commands.page(), typer.main.get_command(app)
    for name in COMMANDS:
        text = page.partition(f"\n## segda {name} ")[2].partition("\n## ")[0]
        for parameter in group.commands[name].params:
            assert all(f"{option}" in text for option in parameter.opts), (name, parameter.name)
            assert f'id="{name}.{parameter.name}"' in text or parameter.name == "help", (name, parameter.name)


def all_blocks() -> list[type[BaseModel]]:
    """Those of a recipe, and of the settings of methods and networks."""
    settings = (one for cls in (*METHODS.values(), *NETWORKS.values()) for one in parameters_of(cls).values())
    inside = {block for one in settings for block in models_in(one.annotation)}
    return sorted(blocks_of(Recipe).union(*map(blocks_of, inside)), key=lambda one: one.__name__)


@pytest.mark.parametrize("model", all_blocks(), ids=lambda one: one.__name__)
def test_every_key_of_a_block_is_in_the_reference_and_explained(model):
    title = "A recipe" if model is Recipe else model.__name__
    assert definitions(section(title)) - {"use"} == model.model_fields.keys() - {"name"}


@pytest.mark.parametrize(
    "title, model", [("pseudo-label", Labelling), ("translate", Translating), ("evaluate", Ensemble)]
)
def test_every_key_of_a_stage_is_in_the_reference_and_explained(title, model):
    assert definitions(section(title)) == model.model_fields.keys()


@pytest.mark.parametrize("place, table", [("method", METHODS), ("network", NETWORKS)], ids=["method", "network"])
def test_every_setting_of_a_method_and_a_network_is_in_the_reference_and_explained(place, table):
    for name, cls in table.items():
        text = KEYS.partition(f"{{ #{place}-{name} }}")[2].partition("\n### ")[0]
        given = {"student", "class_names", "perceptual"}  # by the trainer, or by `given`
        assert definitions(text.partition("\n## ")[0]) == parameters_of(cls).keys() - given, name


def test_all_that_a_recipe_can_name_is_in_the_lists():
    page = lists.page()
    for name in (
        *METHODS,
        *NETWORKS,
        *ENCODERS,
        *DECODERS,
        *segda.DATASETS,
        *segda.SPACES,
        *shipped(),
        *shipped_blocks(),
    ):
        assert f"| `{name}` |" in page, name


@pytest.mark.parametrize(
    "page, written, shown",
    [
        ("index.md", "[a](docs/RUNS.md#resume)", "[a](RUNS.md#resume)"),
        ("index.md", "![a](docs/pictures/x.png)", "![a](pictures/x.png)"),
        ("RUNS.md", "[a](../README.md) [b](results/ease.md)", "[a](index.md) [b](results/ease.md)"),
        ("results/ease.md", "[a](../../CHANGELOG.md#x)", "[a](../CHANGELOG.md#x)"),
        ("RUNS.md", "[`run.py`](../src/segda/run.py)", "[`run.py`](source/src/segda/run.py.md)"),
        ("RUNS.md", "[the folder](../src/segda) [no](../nothing.md)", "the folder no"),
        ("RUNS.md", "[a](https://example.org) [b](#here)", "[a](https://example.org) [b](#here)"),
        ("RUNS.md", "```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
    ],
)
def test_a_link_of_the_repository_becomes_one_of_the_site(page, written, shown):
    assert links.rewritten(page, written) == shown


def test_a_page_asks_for_the_files_that_it_links_to():
    assert links.shown("RUNS.md", "[a](../src/segda/run.py) [b](RUNS.md) [c](../src)") == ["src/segda/run.py"]
    assert "\n```" not in links.of_file("docs/RUNS.md").partition("`````")[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_uses_public_names_alone(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    text = "\n".join("".join(cell["source"]) for cell in code)
    assert set(re.findall(r"\bsegda\.(\w+)", text)) <= set(segda.__all__) and "from segda" not in text
