"""Stages that refine labels with references and learn from them as a part of the source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import small_recipe
from segda.commands.train import train
from segda.errors import DataError, RecipeError, RunError
from segda.recipes.recipe import parse_recipe

DAY, DUSK = "camvid:train:day", "camvid:train:dusk"
KEEP_ALL = {"name": "fixed", "level": 0}
NUMBERS = {
    "weight": 0.6, "low": 0.3, "doubt": 0.2, "things": ["car"], "space": 8, "space_cell": 2, "colour": 0.1,
    "colour_cell": 0.1,
}  # fmt: skip


def recipe_of(root: Path, pairs: Path, **changes):
    refine = {"name": "references", "references": DAY, "pairs": str(pairs), "alignment": "none", "run": "original"}
    stages = {
        "original": {"train": {}},
        "twilight": {"train": {"start": "original", "steps": 1}},
        "refined": {
            "pseudo-label": {
                "runs": ["twilight"], "rule": KEEP_ALL, "data": DUSK, "refine": refine | NUMBERS | changes,
            }
        },
        "night": {"train": {"data": {"source": {"set": f"{DAY}+{DUSK}", "labels": "refined"}}, "start": "twilight"}},
    }  # fmt: skip
    tree = small_recipe(root, "mgcda").override("steps=2").model_dump(mode="json", exclude_unset=True)
    return parse_recipe(tree | {"stages": stages}, "small recipe")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text("".join(f"0001TP_00{k},0006R0_f0{1 + k % 2}\n" for k in (1, 2, 3)))
    return path


def test_the_stages_run_and_the_references_are_looked_at_by_the_named_stage(camvid, tmp_path, pairs, said):
    train(recipe_of(camvid, pairs), tmp_path / "run")
    summary = json.loads((tmp_path / "run-refined" / "pseudo_labels.json").read_text())
    assert [Path(one["run"]).name for one in summary["runs"]] == ["run-twilight"]
    assert Path(summary["refinement"]["network"]["run"]).name == "run-original"
    assert summary["refinement"]["network"]["sha256"] != summary["runs"][0]["sha256"]
    assert summary["kept"] == summary["pixels"]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any(line.get("source", 0) > 0 for line in log)

    # Called again, all is there; with other settings of the refinement it is refused.
    train(recipe_of(camvid, pairs), tmp_path / "run", resume=True)
    assert sum("is there; skipped" in line for line in said) == 4
    with pytest.raises(RunError, match="run-refined was refined otherwise"):
        train(recipe_of(camvid, pairs, weight=0.5), tmp_path / "run", resume=True)


def test_what_references_lack_is_said_before_the_first_stage(camvid, tmp_path, pairs):
    pairs.write_text("0001TP_001,0006R0_f01\n")
    with pytest.raises(DataError, match="refine: 2 of 3 images of camvid:train:dusk have no reference"):
        train(recipe_of(camvid, pairs), tmp_path / "run")
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alignment": "geometry"}, "refine.depth: missing"),
        ({"wieght": 1}, "refine references has no setting 'wieght'"),
        ({"low": 2}, "refine.low: 2.0 is not between 0 and 1"),
    ],
)
def test_a_bad_refinement_of_a_stage_is_refused(camvid, tmp_path, pairs, changes, said):
    with pytest.raises(RecipeError, match=said):
        train(recipe_of(camvid, pairs, **changes), tmp_path / "run")
    assert not list(tmp_path.glob("run*"))
