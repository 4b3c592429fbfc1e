"""A run folder knows its classes and what its data were, wherever it lies and whatever is said of the data by then."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from conftest import RECIPE
from hostile import refused
from segda import run_data
from segda.commands.evaluate import evaluate
from segda.commands.predict import predict
from segda.commands.report import report
from segda.commands.train import train
from segda.data.labels.spaces import space_named
from segda.data.sets.datasets import open_data
from segda.errors import RunError
from segda.recipes.recipe import Recipe, parse_recipe
from segda.run import read_tensors
from segda.run_data import label_digest, space_in
from small_run import write_run

CLASSES = {"sky": {"id": 0, "colour": [0, 0, 255]}, "road": {"id": 1, "colour": [0, 255, 0]}, "car": {"id": 2}}


def told(folder: Path, classes: dict, **more: object) -> None:
    (folder / "d.yaml").write_text(
        yaml.safe_dump(
            {"splits": {"train": {"images": "images", "labels": "masks"}}, "classes": classes} | more, sort_keys=False
        )
    )


def write_images(folder: Path, count: int) -> None:
    for n in range(count):
        rng = np.random.default_rng(n)
        for name, pixels in (("images", rng.integers(0, 255, (32, 40, 3))), ("masks", rng.integers(0, 3, (32, 40)))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"a{n}.png")


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A folder of one's own, in which commands are called."""
    write_images(tmp_path / "own", 2)
    told(tmp_path / "own", CLASSES)
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


def recipe(steps: int = 1) -> Recipe:
    found = parse_recipe(yaml.safe_load(RECIPE), "test")
    sets = [f"data.{domain}.set=folder:d.yaml:train" for domain in ("source", "target")]
    return found.override(*sets, f"steps={steps}", "evaluate.data=['folder:d.yaml:train']", "save_every=1")


@pytest.fixture
def run(own) -> Path:
    train(recipe(), own / "run")
    return own / "run"


def test_a_run_predicts_the_same_wherever_it_is_and_whatever_the_file_says(run, own, tmp_path, monkeypatch):
    pixels = {}
    for n, change in enumerate((None, "reordered", "gone")):
        if change == "reordered":
            told(own, dict(reversed(CLASSES.items())))
        if change == "gone":
            (own / "d.yaml").unlink()
            run = Path(shutil.move(run, tmp_path / "elsewhere"))
            monkeypatch.chdir("/")
        predict(run, [own / "images" / "a0.png"], tmp_path / f"out{n}", colour=True, device="cpu")
        pixels[change] = np.asarray(Image.open(tmp_path / f"out{n}" / "a0_colour.png"))
    assert (pixels["reordered"] == pixels[None]).all() and (pixels["gone"] == pixels[None]).all()
    known = {(0, 0, 255), (0, 255, 0), space_in(run).colours["car"]}
    assert set(map(tuple, pixels[None].reshape(-1, 3).tolist())) <= known


def test_a_run_is_measured_on_the_same_data_by_another_path(run, own, monkeypatch):
    (own / "x").mkdir()
    (here,) = evaluate(run, ["folder:d.yaml:train"], device="cpu")
    monkeypatch.chdir(own / "x")
    (there,) = evaluate(Path("../run"), ["folder:../d.yaml:train"], device="cpu")
    assert here.counts.tolist() == there.counts.tolist()
    told(own, dict(reversed(CLASSES.items())))  # says the same
    (reordered,) = evaluate(run, ["folder:../d.yaml:train"], device="cpu")
    assert here.counts.tolist() == reordered.counts.tolist()
    assert report(run, device="cpu").exists()  # finds the file from the run folder


def test_classes_that_a_run_does_not_know_are_said_where_it_is_measured(run, own, said):
    sky, road, car = CLASSES.values()
    told(own, {"sky": sky, "Road": road, "car": car})
    (own / "d.yaml").rename(own / "other.yaml")
    told(own, CLASSES)
    (report,) = evaluate(run, ["folder:other.yaml:train"], device="cpu")
    assert list(report.protocol.over) == ["sky", "car"]
    (line,) = (line for line in said if "Road" in line)
    assert line.endswith("Road is no class of the space d, and so ignored; did you mean road? call it so in other.yaml")
    evaluate(run, ["folder:d.yaml:train"], device="cpu")
    assert sum("ignored" in line for line in said) == 1


def test_labels_that_mean_another_thing_by_now_are_not_measured(run, own, monkeypatch):
    told(own, CLASSES | {"road": {"id": 2}, "car": {"id": 1}})
    (own / "x").mkdir()
    for folder, spec in ((own, "folder:d.yaml:train"), (own / "x", "folder:../d.yaml:train")):
        monkeypatch.chdir(folder)
        said = refused(lambda spec=spec: evaluate(run, [spec], device="cpu"), kind=RunError)
        assert "classes.car.id: 2 then, 1 now; classes.road.id: 1 then, 2 now" in said
    # Another file may call other ids so.
    shutil.copy(own / "d.yaml", own / "other.yaml")
    monkeypatch.chdir(own)
    told(own, CLASSES | {"road": {"id": 1, "colour": [9, 9, 9]}})  # shown otherwise, and the same
    evaluate(run, ["folder:other.yaml:train", "folder:d.yaml:train"], device="cpu")


def test_a_run_does_not_go_on_with_other_classes(run, own):
    before = read_tensors(run / "network.safetensors")
    for classes, said in (
        (dict(reversed(CLASSES.items())), "sky, road, car, and its data now say car, road, sky; put them back in this"),
        (CLASSES | {"ship": {"id": 3}}, "sky, road, car, and its data now say sky, road, car, ship; put them back, or"),
        (CLASSES | {"car": {"id": [2, 3]}}, "classes.car.id: 2 then, [2, 3] now"),
    ):
        told(own, classes)
        assert said in refused(lambda: train(recipe(), run, resume=True), kind=RunError)
    told(own, CLASSES, ignored=[9])
    assert "ignored: None then, [9] now" in refused(lambda: train(recipe(), run, resume=True), kind=RunError)
    told(own, CLASSES)
    train(recipe(), run, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in read_tensors(run / "network.safetensors").items())


def test_a_run_does_not_go_on_with_other_files_unless_it_is_told_to(run, own):
    write_images(own, 3)
    said = refused(lambda: train(recipe(), run, resume=True), kind=RunError)
    assert "the files of folder:d.yaml:train: '2 images, " in said and "'3 images, " in said
    train(recipe(), run, resume=True, allow_changed=["files"])
    train(recipe(), run, resume=True)
    (own / "images" / "a2.png").rename(own / "images" / "b2.png")
    (own / "masks" / "a2.png").rename(own / "masks" / "b2.png")
    assert "by other names or sizes" in refused(lambda: train(recipe(), run, resume=True), kind=RunError)


def test_a_run_does_not_go_on_with_labels_that_were_changed_in_place(run, own):
    """Of the same name and size, and even time."""
    path = own / "masks" / "a1.png"
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(path, compress_level=0)
    begin = recipe().override("seed=1")
    train(begin, own / "other")
    before = path.stat()
    Image.fromarray(np.ones((32, 40), np.uint8)).save(path, compress_level=0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    said = refused(lambda: train(begin, own / "other", resume=True), kind=RunError)
    assert said.count("the files of folder:d.yaml:train") == 1 and "bytes, other contents of label files'" in said
    train(begin, own / "other", resume=True, allow_changed=["files"])
    train(begin, own / "other", resume=True)


def test_labels_are_read_for_their_hash_where_they_are_learnt_and_nowhere_else(run):
    sets = json.loads((run / "data.json").read_text())["sets"]
    assert {key for key, one in sets.items() if "labels" in one} == {"data.source.set"}


def test_a_run_of_an_earlier_version_goes_on_though_it_knows_nothing_of_labels(run, own):
    tree = json.loads((run / "data.json").read_text())
    del tree["sets"]["data.source.set"]["labels"], tree["sha256"]
    (run / "data.json").write_text(json.dumps(tree))
    train(recipe(), run, resume=True)


def test_of_many_labels_some_are_read_evenly_spread(own, monkeypatch):
    write_images(own, 7)
    data = open_data("folder:d.yaml:train")
    monkeypatch.setattr(run_data, "LABEL_FILES", 3)
    before = label_digest(data)
    changes = {}
    for n in range(7):
        path = own / "masks" / f"a{n}.png"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"x")
        changes[n] = label_digest(data) != before
        path.write_bytes(content)
    assert [n for n, changed in changes.items() if changed] == [0, 3, 6]


def test_a_run_goes_on_after_all_has_moved(run, own, tmp_path, monkeypatch):
    shutil.move(own, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    train(recipe(), Path("run"), resume=True)


def test_what_an_older_run_folder_lacks_is_taken_from_the_recipe_or_refused(run, own):
    (run / "data.json").unlink()
    assert space_in(run).classes == ("sky", "road", "car")
    told(own, dict(reversed(CLASSES.items())))
    said = refused(space_in, run, kind=RunError)
    assert "trained on sky, road, car, and the recipe's data now say car, road, sky; put them back" in said


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        '{"space": "d"}',
        '{"space": "d", "classes": {"sky": [0, 0]}, "sets": {}, "folders": {}}',
        '{"space": "../d", "classes": {"sky": [0, 0, 0]}, "sets": {}, "folders": {}}',
        '{"space": 3, "classes": {"sky": [0, 0, 0]}, "sets": {}, "folders": {}}',
        '{"space": "d", "classes": {"s\\u001bky": [0, 0, 0]}, "sets": {}, "folders": {}}',
        '{"space": "d", "classes": {"sky": [0, 0, 256]}, "sets": {}, "folders": {}}',
        '{"space": "d", "classes": {"sky": [0, 0, 0]}, "sets": {"a": 3}, "folders": {}}',
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage):
    run = write_run(tmp_path / "run")
    assert space_in(run) is space_named("camvid-11")
    (run / "data.json").write_text(damage)
    assert "data.json cannot be read" in refused(space_in, run, kind=RunError)


def test_images_are_known_by_their_names_and_sizes_alone(run, own):
    """Not by their times, which a copy changes."""
    sets = json.loads((run / "data.json").read_text())["sets"]
    assert sets["data.source.set"]["images"] == 2
    assert sets["data.source.set"]["bytes"] == sum(path.stat().st_size for path in (own / "images").iterdir())
    for path in (own / "images").iterdir():
        path.touch()
    train(recipe(), run, resume=True)


def test_a_file_in_which_anything_was_changed_is_refused(tmp_path, own, run):
    path = run / "data.json"
    tree = json.loads(path.read_text())
    assert len(tree["sha256"]) == 64
    for other in (tree | {"space": "other"}, tree | {"sets": {}}, tree | {"x": 1}, tree | {"sha256": "0" * 64}):
        path.write_text(json.dumps(other))
        assert "data.json cannot be read (damaged or edited" in refused(space_in, run, kind=RunError)
    # An earlier version wrote none.
    path.write_text(json.dumps({key: value for key, value in tree.items() if key != "sha256"}))
    space_in(run)


def test_a_list_of_classes_that_says_something_else_by_now_is_noticed(own):
    (own / "names.txt").write_text("sky\nroad\ncar\n")
    told(own, "names.txt")
    train(recipe(), own / "run")
    (own / "names.txt").write_text("sky\ncar\nroad\n")
    told(own, "names.txt")
    said = refused(lambda: evaluate(own / "run", ["folder:d.yaml:train"], device="cpu"), kind=RunError)
    assert "classes.car.id: 2 then, 1 now" in said
