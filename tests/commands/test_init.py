"""From two folders to a training: what `segda init` sees, assumes, writes and refuses."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segda.cli.main import main
from segda.commands.check_data import check_data
from segda.commands.evaluate import evaluate
from segda.commands.init import init
from segda.commands.predict import predict
from segda.commands.train import train
from segda.data.labels.spaces import SPACES
from segda.data.sets import trees
from segda.data.sets.datasets import open_data
from segda.errors import RecipeError
from segda.recipes.presets import PRESETS
from segda.recipes.recipe import load_recipe
from segda.run import load_network
from segda.training import running

SHORT = ("steps=2", "network.weights=scratch", "method.begin=1", "evaluate.report_images=1")
"""Instead of what `init` chose: only the way is tried."""

CLASSES = ("ground", "thing", "other")


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Ten photographs by day with labels of ids, six by night; the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for domain, count, bright in (("day", 10, 1.0), ("night", 6, 0.3)):
        for number in range(count):
            ids = np.kron(rng.integers(0, 3, (4, 5)), np.ones((16, 16), int)).astype(np.uint8)
            image = (bright * (ids[..., None] * 60 + 40) + rng.normal(0, 5, (64, 80, 3))).clip(0, 255)
            for kind, pixels in (("photos", image.astype(np.uint8)), ("masks", ids)):
                path = tmp_path / kind / domain / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    shutil.rmtree(tmp_path / "masks" / "night")
    return tmp_path


def begin(*options: str) -> int:
    asked = ["init", "mine", "--source", "photos/day", "--labels", "masks/day", "--target", "photos/night"]
    return main([*asked, *options])


def in_colours(folder: Path, colours: np.ndarray) -> None:
    """Labels as pictures: each id as its row of (n, 3) colours."""
    for path in (folder / "masks" / "day").iterdir():
        Image.fromarray(colours[np.array(Image.open(path))]).save(path)


def told(folder: Path) -> dict:
    return yaml.safe_load((folder / "mine" / "data.yaml").read_text())


def test_two_folders_become_a_training_and_a_report(photos, capsys):
    assert begin("--classes", ",".join(CLASSES)) == 0
    said = capsys.readouterr().out
    assert "10 images, the middle one 80x64" in said
    assert "ids: 1 37.0%, 2 33.5%, 0 29.5% (in 10 files)" in said
    assert told(photos)["classes"] == {name: {"id": id} for id, name in enumerate(CLASSES)}
    assert told(photos)["splits"] == {
        "train": {"images": "../photos/day", "labels": "../masks/day"},
        "target": {"images": "../photos/night"},
        "val": "20%",
    }
    assert sorted(path.name for path in (photos / "mine" / "sheets").iterdir())
    settings = [word for setting in SHORT for word in ("--set", setting)]
    assert main(["train", "mine", "--preset", "quick", *settings]) == 0
    run = photos / "runs" / "mine-quick"
    assert (run / "report.html").is_file()
    assert load_network(run).class_names == CLASSES


def test_the_share_that_is_scored_is_not_trained_on(photos):
    begin("--classes", ",".join(CLASSES), "--val", "30%")
    both = [open_data(f"folder:mine/data.yaml:{name}", photos) for name in ("train", "val")]
    names = [{str(data.place(i)) for i in range(len(data))} for data in both]
    assert [len(one) for one in names] == [7, 3]
    assert not names[0] & names[1]


def test_labelled_images_of_the_target_are_scored_beside_the_share(photos):
    (photos / "some").mkdir()
    for kind in ("photos", "masks"):
        shutil.copytree(photos / kind / "day", photos / "some" / kind)
    assert begin("--val", "some/photos", "--val-labels", "some/masks") == 0
    assert load_recipe("mine").evaluate.data == ["folder:mine/data.yaml:val_target", "folder:mine/data.yaml:val"]


def test_masks_in_the_colours_of_a_known_palette_need_no_names(photos, capsys):
    in_colours(photos, np.array([*SPACES["camvid-11"].colours.values()], np.uint8))
    assert begin() == 0
    assert told(photos)["labels_are"] == "colours"
    assert list(told(photos)["classes"]) == list(SPACES["camvid-11"].classes)
    assert "the colours are those of camvid-11" in capsys.readouterr().out


def test_brushes_of_label_studio_are_read_from_the_export_beside_them(photos, said):
    """Whose PNGs name no image."""
    corners = [[0, 0], [50, 0], [50, 100], [0, 100]]
    size = {"original_width": 80, "original_height": 64, "image_rotation": 0}
    shapes = [
        {"type": "polygonlabels", "value": {"points": corners, "polygonlabels": [name]}} | size
        for name in ("road", "car")
    ]
    tasks = [
        {"data": {"image": f"/data/upload/1/0a1b2c3d-{n}.png"}, "annotations": [{"result": shapes[n % 2 :]}]}
        for n in range(8)
    ]
    (photos / "masks" / "export.json").write_text(json.dumps(tasks))
    for path in (photos / "masks" / "day").iterdir():
        path.rename(path.with_name(f"task-{path.stem}-annotation-1-by-1-tag-road-0.png"))
    begun = init("mine", "photos/day", "masks/day", "photos/night")
    assert any(
        "labels are those of masks/export.json: the names of the files in masks/day say no image" in line
        for line in said
    )
    assert told(photos)["splits"]["train"] == {
        "images": "../photos/day", "labels": "../masks/export.json", "only": "labelled.txt",
    }  # fmt: skip
    assert list(told(photos)["classes"]) == ["background", "car", "road"]
    assert begun.seen["labels"].startswith("8 of the images have one")
    # The car is over the road, of which nothing is left where both are.
    label = open_data("folder:mine/data.yaml:train", photos).read(0, label=True).label
    assert label.unique(return_counts=True)[1].tolist() == [64 * 39, 64 * 41]


def test_train_ids_by_name_have_the_names_of_cityscapes(photos):
    for path in (photos / "masks" / "day").iterdir():
        path.rename(path.with_stem(f"{path.stem}_gtFine_labelTrainIds"))
    assert begin() == 0
    assert list(told(photos)["classes"]) == list(SPACES["cityscapes-19"].classes)


def test_black_and_white_masks_are_two_classes(photos, capsys):
    for path in (photos / "masks" / "day").iterdir():
        Image.fromarray(np.where(np.array(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
    assert begin() == 0
    assert told(photos)["classes"] == {"background": {"id": 0}, "foreground": {"id": 255}}
    assert "assumed: 255 is a class" in capsys.readouterr().out
    train("mine", "run", settings=[*SHORT, "evaluate.data=[]", "evaluate.report_images=0"])
    assert load_network("run").class_names == ("background", "foreground")


def test_a_terminal_is_asked_for_the_names_of_classes(photos, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: "a, b, c")
    init("mine", "photos/day", "masks/day", "photos/night")
    assert list(told(photos)["classes"]) == ["a", "b", "c"]


OWN_COLOURS = np.array([(200, 0, 0), (0, 200, 0), (0, 0, 200)], np.uint8)
"""Of no palette, for ids 0, 1 and 2, of which 1 is the most frequent and 0 the least."""


@pytest.mark.parametrize(
    ("answer", "classes", "ignored"),
    [
        ("a, b, c", {"a": [0, 200, 0], "b": [0, 0, 200], "c": [200, 0, 0]}, None),
        ("a=#0000c8,b=#c80000", {"a": [0, 0, 200], "b": [200, 0, 0]}, [[0, 200, 0]]),
        ("", {"colour_00c800": [0, 200, 0], "colour_0000c8": [0, 0, 200], "colour_c80000": [200, 0, 0]}, None),
    ],
)
def test_a_terminal_is_asked_for_the_names_of_colours(answer, classes, ignored, photos, monkeypatch, said):
    in_colours(photos, OWN_COLOURS)
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda words, **_: asked.append(words) or answer)
    init("mine", "photos/day", "masks/day", "photos/night")
    assert any("labels have the colours #00c800 (37.0%), #0000c8 (33.5%), #c80000 (29.5%)" in line for line in said)
    assert "or NAME=#00c800 of some" in asked[0]
    assert told(photos)["classes"] == {name: {"colour": colour} for name, colour in classes.items()}
    assert told(photos).get("ignored") == ignored


def test_an_answer_of_other_length_names_no_colour_by_chance(photos, monkeypatch, capsys):
    in_colours(photos, OWN_COLOURS)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: "a, b")
    assert begin() == 2
    assert "2 names for 3 colours; name all, or those that are classes, as a=#00c800" in capsys.readouterr().err
    assert not (photos / "mine").exists()


def test_nobody_is_asked_what_a_known_palette_says(photos, monkeypatch):
    in_colours(photos, np.array([*SPACES["camvid-11"].colours.values()], np.uint8))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.delattr("typer.prompt")
    assert begin() == 0


def test_without_a_terminal_colours_are_called_by_themselves_and_that_is_said(photos, capsys):
    in_colours(photos, OWN_COLOURS)
    assert begin() == 0
    assert (
        "classes are called by their colours, of no palette that is known: #00c800 (37.0%)" in capsys.readouterr().out
    )


def test_wide_ids_of_every_format_go_from_two_folders_to_a_report(photos):
    """Of 16 bits, each a class or several one, as PNG, TIFF and arrays."""
    wide = np.array([7, 300, 65535], np.uint16)
    for number, path in enumerate(sorted((photos / "masks" / "day").iterdir())):
        ids = wide[np.array(Image.open(path))]
        path.unlink()
        if number % 3 == 2:
            np.save(path.with_suffix(".npy"), ids)
        else:
            Image.fromarray(ids).save(path.with_suffix((".png", ".tif")[number % 3]))
    assert begin("--classes", "low=7,high=300") == 0
    assert (told(photos)["classes"], told(photos)["ignored"]) == ({"low": {"id": 7}, "high": {"id": 300}}, [65535])
    file = photos / "mine" / "data.yaml"
    file.write_text(file.read_text().replace("ignored: [65535]\n", "").replace("id: 300", "id: [300, 65535]"))
    assert check_data("folder:mine/data.yaml:train", out=photos / "sheets").class_counts[-1] == 0
    train("mine", "run", settings=SHORT)
    report, _ = evaluate(photos / "run", ["folder:mine/data.yaml:val"], device="cpu")
    low, high, unlabelled = report.counts.sum(1)
    assert low > 0 and high == 2 * 64 * 80 - low and unlabelled == 0
    assert (photos / "run" / "report.html").is_file()
    predict(photos / "run", [photos / "photos" / "night" / "0.png"], photos / "out", device="cpu")
    assert set(np.unique(np.array(Image.open(photos / "out" / "0.png")))) <= {0, 1}


@pytest.mark.parametrize("names", [(), ("--classes", "names.txt")])
def test_more_classes_than_a_byte_holds_are_refused_before_anything_is_written(names, photos, capsys):
    Path("names.txt").write_text("\n".join(f"class {id}" for id in range(300)))
    for path in (photos / "masks" / "day").iterdir():
        Image.fromarray((np.arange(64 * 80).reshape(64, 80) % 300).astype(np.uint16)).save(path)
    assert begin(*names) == 2
    err = capsys.readouterr().err
    assert "classes, more than 254: a label in training has one byte a pixel" in err and err.count("\n") == 1
    assert not (photos / "mine").exists()


def test_a_recipe_says_why_each_number_is_as_it_is(photos):
    begin("--classes", ",".join(CLASSES))
    for name in ("recipe.yaml", "source_only.yaml"):
        lines = (photos / "mine" / name).read_text().splitlines()
        values = [line for line in lines if not line.startswith(("#", "use:", "seed:")) and not line.endswith(":")]
        assert all("  # " in line for line in values if "set: folder" not in line and "how: whole" not in line), lines
    assert load_recipe("mine").steps == PRESETS["standard"].steps


def test_a_preset_is_the_same_at_init_and_at_train(photos):
    from segda.recipes.presets import preset

    written = []
    for name, one in PRESETS.items():
        begin("--classes", ",".join(CLASSES), "--preset", name, "--overwrite")
        assert (load_recipe("mine").steps, load_recipe("mine").network["encoder"]) == (one.steps, one.encoder)
        written += [load_recipe(file) for file in ("mine/recipe.yaml", "mine/source_only.yaml")]
    for recipe, (name, one) in product(written, PRESETS.items()):
        changed = preset(recipe, name)
        assert (changed.steps, changed.network["encoder"]) == (one.steps, one.encoder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--labels", "nowhere"), "nowhere: no such folder"),
        (("--labels", "photos/night"), "labels"),
        (("--classes", "a,b"), "names 2 classes, labels have 3 ids: 0, 1, 2"),
        (("--val", "120%"), "write a share between 1% and 99%"),
        (("--val", "photos/night"), "give --val-labels for a folder"),
        (("--val-labels", "masks/day"), "belongs to --val FOLDER"),
        (("--target", "masks/day"), "--target masks/day: is the folder of --labels; give the target's photographs"),
        (("--target", "photos/../photos/day"), "is the folder of --source; give other images"),
        (("--source", "masks/day", "--labels", "photos/day"), "--source and --labels the wrong way round?"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(options, said, photos, capsys):
    assert begin(*options) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (photos / "mine").exists()


def test_images_without_a_label_are_left_out_by_a_list(photos, capsys):
    for number in (0, 4, 7):
        (photos / "masks" / "day" / f"{number}.png").unlink()
    (photos / "some").mkdir()
    for kind in ("photos", "masks"):
        shutil.copytree(photos / kind / "day", photos / "some" / kind)
    assert begin("--val", "some/photos", "--val-labels", "some/masks") == 0
    said = capsys.readouterr().out
    for name, split in (("labelled.txt", "train"), ("labelled_val.txt", "val_target")):
        assert f"assumed: 3 images without label are left out: {name} names the others" in said
        names = (photos / "mine" / name).read_text().splitlines()
        assert names[1:] == [f"{number}.png" for number in (1, 2, 3, 5, 6, 8, 9)]
        assert told(photos)["splits"][split]["only"] == name
    parts = [open_data(f"folder:mine/data.yaml:{split}", photos) for split in ("train", "val")]
    assert sum(map(len, parts)) == 7
    for data in parts:
        data.check_pairs()
    assert begin("--overwrite") == 0


def test_what_does_not_go_together_leaves_nothing_behind(photos, capsys):
    (photos / "photos" / "night" / "0.jpg").write_bytes((photos / "photos" / "night" / "0.png").read_bytes())
    assert begin() == 2
    assert "would both be called '0'" in capsys.readouterr().err
    assert not (photos / "mine").exists()


def test_one_labelled_image_has_no_share(photos, capsys):
    for number in range(1, 10):
        (photos / "masks" / "day" / f"{number}.png").unlink()
    assert begin() == 2
    assert "photos/day: 1 labelled image, of which no share can be kept; label some more" in capsys.readouterr().err
    assert not (photos / "mine").exists()


def test_the_folder_that_is_written_to_may_be_that_of_the_images(photos, monkeypatch):
    """Of which the file then says `.`: no more than that folder is looked at."""
    walk = trees._walk
    walked = []
    monkeypatch.setattr(trees, "_walk", lambda top, *rest: walked.append(top) or walk(top, *rest))
    init("photos/day", "photos/day", "masks/day", "photos/night")
    assert load_recipe("photos/day").data.source.set == "folder:photos/day/data.yaml:train"
    assert walked and "" not in walked  # the root of the machine


def test_images_smaller_than_a_network_takes_are_enlarged(photos, monkeypatch):
    monkeypatch.setattr(running, "write_report", lambda run: run / "report.html")
    for path in photos.glob("*/*/*.png"):
        Image.open(path).resize((30, 24), Image.Resampling.NEAREST).save(path)
    assert begin() == 0
    assert load_recipe("mine").evaluate.resize == (80, 64)
    assert "# width, height; of 30 x 24; enlarged to what a network needs" in (photos / "mine/recipe.yaml").read_text()
    train("mine", "run", settings=SHORT)


def test_what_an_earlier_init_wrote_is_not_written_over_unasked(photos, capsys):
    assert begin("--classes", ",".join(CLASSES)) == 0
    assert begin("--classes", ",".join(CLASSES)) == 2
    assert "mine/data.yaml: exists" in capsys.readouterr().err
    assert begin("--classes", ",".join(CLASSES), "--overwrite") == 0
    (photos / "mine" / "data.yaml").write_text("# mine now\n")
    assert begin("--classes", ",".join(CLASSES), "--overwrite") == 2
    assert "was not written by `segda init`" in capsys.readouterr().err
    assert (photos / "mine" / "data.yaml").read_text() == "# mine now\n"


def test_a_folder_that_init_did_not_write_is_no_recipe(photos):
    (photos / "run").mkdir()
    (photos / "run" / "recipe.yaml").write_text("steps: 1\n")
    with pytest.raises(RecipeError, match=r"run: a folder without recipe\.yaml and data\.yaml"):
        load_recipe("run")


def test_a_preset_is_refused_for_a_recipe_of_another_network(photos):
    with pytest.raises(RecipeError, match=r"--preset quick: is for recipes of the encoders lite0, lite2"):
        train("ebda_streets", "run", preset="quick")


def test_the_recipe_is_found_from_anywhere_and_after_a_move(photos, monkeypatch):
    begin("--classes", ",".join(CLASSES))
    (photos / "elsewhere").mkdir()
    for name in ("mine", "photos", "masks"):
        (photos / name).rename(photos / "elsewhere" / name)
    monkeypatch.chdir(photos / "elsewhere" / "photos")
    assert load_recipe("../mine").data.source.set == "folder:../mine/data.yaml:train"
    train("../mine", photos / "run", settings=SHORT)
    assert (photos / "run" / "report.html").is_file()
