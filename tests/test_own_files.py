"""--overwrite removes what segda wrote, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import small_recipe
from resuming import content, log_of
from segda import run as runs
from segda.cli.main import main
from segda.commands.convert import convert
from segda.commands.evaluate import evaluate
from segda.commands.train import train
from segda.errors import RunError
from segda.methods import METHODS
from segda.recipes.recipe import Recipe
from small_run import DUSK, write_run


@pytest.fixture
def plain(camvid: Path) -> Recipe:
    return small_recipe(camvid).override(
        "save_every=1", "keep=1", "keep_every=1", "evaluate.report_images=0", "steps=2"
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MINE = {
    "notes.txt": "notes", "thesis.safetensors": "weights", "reports/notes.md": "notes", "reports/figures/a.png": "a",
    "snapshots/best.safetensors": "weights",
    "snapshots/network-1.safetensors": "weights",
    "checkpoints/checkpoint-best.pt": "state", "logs/log.jsonl": "{}", "network-0000001.safetensors": "weights",
    ".hidden": "mine", ".mine.partial": "mine",
}  # fmt: skip


def add_mine(folder: Path) -> None:
    for name, text in MINE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_in_a_run_folder_what_others_put_there_stays_and_is_named(plain, camvid, tmp_path, said):
    run = tmp_path / "run"
    train(plain.override("seed=8"), run)
    evaluate(run, ["camvid:test"], camvid)
    add_mine(run)
    train(plain, run, overwrite=True)
    train(plain, tmp_path / "alone")
    alone, ours = content(tmp_path / "alone"), content(run)
    assert {name: ours[name] for name in alone} == alone and log_of(run) == log_of(tmp_path / "alone")
    left = {name for name in files(run) if name not in MINE}
    assert left == files(tmp_path / "alone").keys(), "nothing of the older run"
    assert {name: (run / name).read_text() for name in MINE} == MINE
    (line,) = (line for line in said if "kept what segda did not write" in line)
    for name in ("notes.txt", "thesis.safetensors", "reports/notes.md", "snapshots/best.safetensors", "logs"):
        assert f"{name}" in line


def test_what_would_be_read_as_a_report_is_refused_before_anything_is_removed(plain, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "reports").mkdir()
    for text in ('{"miou": 1}', "[]x", '[{"miou": 1}]'):
        (run / "reports" / "mine.json").write_text(text)
        before = files(run)
        with pytest.raises(RunError, match=r"reports/mine.json is no report of segda, .* move it elsewhere"):
            train(plain, run, overwrite=True)
        assert files(run) == before


def own_recipe(plain: Recipe) -> str:
    return plain.to_yaml()


def edited(plain: Recipe) -> str:
    from segda.own_files import marked

    return marked(plain.to_yaml()).replace("seed: 3", "seed: 4")


@pytest.mark.parametrize("text", [own_recipe, edited, lambda _: "a: {recipe: of something}\n", lambda _: ""])
def test_a_folder_whose_recipe_segda_did_not_write_is_left_alone(plain, tmp_path, text, capsys):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs.pth"
    add_mine(mine)
    for name in ("last.pt", "network.safetensors", "log.jsonl"):
        (mine / name).write_text("mine")
    (mine / "recipe.yaml").write_text(text(plain))
    (tmp_path / "r.yaml").write_text(plain.to_yaml())
    before = files(mine)
    write_run(tmp_path / "run")
    convert(tmp_path / "run", theirs, target="daformer")
    with pytest.raises(RunError, match="mine: its recipe.yaml is not as segda left it, so --overwrite removes nothing"):
        train(plain, mine, overwrite=True)
    with pytest.raises(RunError, match="recipe.yaml is not as segda left it"):
        convert(theirs, mine, "daformer", recipe=plain, overwrite=True)
    assert main(["train", str(tmp_path / "r.yaml"), "--out", str(mine), "--overwrite"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert files(mine) == before


def test_what_any_method_makes_is_removed(tmp_path):
    products = {product for method in METHODS.values() for product in method.products}
    assert {"student", "teacher"} <= products
    run = write_run(tmp_path / "run")
    for product in products:
        for path in (runs.product_path(run, product), runs.snapshot_path(run, 7, product)):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"old")
    runs.begin(run, small_recipe(tmp_path))
    assert {path.name for path in run.iterdir()} == {"recipe.yaml", "data.json"}


def test_a_recipe_taken_out_of_a_run_is_no_mark(plain, tmp_path, capsys):
    runs.begin(tmp_path / "run", plain)
    (tmp_path / "mine").mkdir()
    assert main(["recipe", str(tmp_path / "run/recipe.yaml"), "--to", str(tmp_path / "mine/recipe.yaml")]) == 0
    with pytest.raises(RunError, match="is not as segda left it"):
        runs.check_folder(tmp_path / "mine", plain, resume=False, overwrite=True)
    runs.check_folder(tmp_path / "run", plain, resume=False, overwrite=True)
    assert runs.load_recipe_of(tmp_path / "run") == plain


def test_a_run_that_goes_on_is_marked_whatever_wrote_it(plain, tmp_path):
    run = tmp_path / "run"
    train(plain, run)
    (run / "recipe.yaml").write_text(plain.to_yaml())  # as older versions of segda did
    train(plain, run, resume=True)
    train(plain, run, overwrite=True)
    assert runs.step_of(run) == 2


def test_reports_of_every_kind_are_ones_own(camvid, tmp_path):
    run = write_run(tmp_path / "run")
    runs.snapshot_path(run, 2).parent.mkdir()
    runs.snapshot_path(run, 2).write_bytes((run / "network.safetensors").read_bytes())
    arguments = ["evaluate", str(run), "--data", DUSK, "--root", str(camvid)]
    assert main(arguments) == main([*arguments, "--all-checkpoints"]) == 0
    assert len(list((run / "reports").iterdir())) == 2
    runs.begin(run, small_recipe(tmp_path))
    assert {path.name for path in run.iterdir()} == {"recipe.yaml", "data.json"}
