"""Which files are the images and labels of people's own folders: stars, lists, shares, masks beside photographs."""

from __future__ import annotations

from unicodedata import normalize

import numpy as np
import pytest
import yaml

from conftest import small_recipe
from layouts import save
from segda.commands.check_data import check_data
from segda.commands.train import train
from segda.data.sets.datasets import open_data
from segda.data.sets.shares import divided, sequences_of
from segda.errors import DataError, RecipeError
from segda.training.assembly import build_parts

RGB, IDS = np.full((2, 3, 3), 90, np.uint8), np.array([[0, 1, 0], [1, 0, 1]], np.uint8)


def told(at, splits, **more):
    tree = {"splits": splits, "classes": {"x": {"id": 0}, "y": {"id": 1}}} | more
    (at / "x.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return f"folder:{at}/x.yaml"


def photos(root, *names):
    for name in names:
        save(root / name, RGB)


def masks(root, *names):
    for name in names:
        save(root / name, IDS)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images/*/{key}.png", "masks/*/{key}.png"), ("images/**/{key}.png", "masks/**/{key}.png"),
        ("images/**/*.png", "masks/**/*.png"), ("images/*/{key}", "masks/*/{key}"), ("images/**/{key}", "masks"),
        ("images/**", "masks/**"), ("images/*/{key}.png", "masks"),
    ],
)  # fmt: skip
def test_a_label_lies_under_the_folders_of_its_image(tmp_path, images, labels):
    for seq in ("seq1", "seq2"):
        photos(tmp_path, f"images/{seq}/0000.png", f"images/{seq}/0001.png")
        masks(tmp_path, f"masks/{seq}/0000.png", f"masks/{seq}/0001.png")
    data = open_data(told(tmp_path, {"train": {"images": images, "labels": labels}}) + ":train")
    assert data.names == ("seq1_0000", "seq1_0001", "seq2_0000", "seq2_0001")
    data.check_pairs()
    for i, image in enumerate(data.images):
        assert data.label_place(i) == str(tmp_path / image.replace("images", "masks"))
        assert data.read(i, label=True).label.tolist() == IDS.tolist()


def test_two_stars_stars_stand_for_no_folder_and_for_many(tmp_path):
    photos(tmp_path, "i/a.png", "i/b/c.png", "i/b/d/e.png", "j/f.png")
    masks(tmp_path, "m/a.png", "m/b/c.png", "m/b/d/e.png")
    data = open_data(told(tmp_path, {"t": {"images": "i/**/{key}.png", "labels": "m/**/{key}.png"}}) + ":t")
    assert data.names == ("a", "c", "e")
    data.check_pairs()


def test_a_folder_that_leads_back_to_itself_is_walked_once(tmp_path):
    photos(tmp_path, "i/a/b.png")
    (tmp_path / "i/a/loop").symlink_to(tmp_path / "i")
    assert open_data(told(tmp_path, {"t": {"images": "i/**/{key}.png"}}) + ":t").names == ("b",)


def test_one_label_of_two_images_is_refused(tmp_path):
    photos(tmp_path, "i/s/0.png", "i/t/0.png")
    masks(tmp_path, "m/0.png")
    data = open_data(told(tmp_path, {"t": {"images": "i/*/{key}.png", "labels": "m/{key}.png"}}) + ":t")
    with pytest.raises(DataError, match=r"m/0.png would be the label of i/s/0.png and of i/t/0.png"):
        data.check_pairs()


@pytest.mark.parametrize("labels", ["m/*/{key}.png", "m/**/{key}.png"])
def test_a_star_of_labels_that_images_do_not_have_is_refused(tmp_path, labels):
    photos(tmp_path, "i/0.png")
    with pytest.raises(RecipeError, match="an image has one label"):
        open_data(told(tmp_path, {"t": {"images": "i", "labels": labels}}) + ":t")


@pytest.mark.parametrize(
    ("images", "labels", "photo", "mask"),
    [
        ("t", "t/{key}_mask.png", "t/a.jpg", "t/a_mask.png"), ("t", "t/{key}_mask.png", "t/a.png", "t/a_mask.png"),
        ("t", "t", "t/a.jpg", "t/a.png"), ("t/{key}", "t/{key}-gt", "t/a.PNG", "t/a-gt.png"),
        (".", "{key}_label.tif", "a.tif", "a_label.tif"),
    ],
)  # fmt: skip
def test_masks_beside_images_are_labels_and_no_images(tmp_path, images, labels, photo, mask):
    photos(tmp_path, photo, photo.replace("a.", "b."))
    masks(tmp_path, mask, mask.replace("a", "b", 1))
    data = open_data(told(tmp_path, {"train": {"images": images, "labels": labels}}) + ":train")
    assert data.names == ("a", "b")
    data.check_pairs()
    assert data.label_place(0) == str(tmp_path / mask)


def test_masks_beside_the_images_of_a_target_are_no_images(tmp_path):
    photos(tmp_path, "t/a.jpg", "t/b.jpg", "t/sun_mask.jpg")
    masks(tmp_path, "t/a_mask.png", "t/b_mask.png")
    report = check_data(told(tmp_path, {"train": {"images": "t"}}) + ":train")
    assert report.images == 3 and report.usable  # a photograph of a mask is one
    assert any("2 files are labels, not images" in note for note in report.notes)


def test_labels_of_a_missing_image_beside_images_are_named(tmp_path):
    photos(tmp_path, "t/a.jpg")
    masks(tmp_path, "t/a_mask.png", "t/b_mask.png")
    report = check_data(told(tmp_path, {"train": {"images": "t", "labels": "t/{key}_mask.png"}}) + ":train")
    assert report.faults == {"labels without image": [str(tmp_path / "t/b_mask.png")]}


@pytest.mark.parametrize(
    ("mask", "way"),
    [
        ("m/a0.jpg.png", 'labels: "m/{key}.jpg.png"'), ("m/a0_gt.png", 'labels: "m/{key}_gt.png"'),
        ("m/deep/a0.png", 'labels: "m/deep/{key}.png"'), ("m/0.png", 'images: "i/a{key}.jpg"'),
    ],
)  # fmt: skip
def test_labels_by_another_name_are_shown_with_the_way_to_them(tmp_path, mask, way):
    photos(tmp_path, "i/a0.jpg", "i/a1.jpg")
    masks(tmp_path, mask, mask.replace("0", "1"))
    spec = told(tmp_path, {"train": {"images": "i", "labels": "m"}}) + ":train"
    report = check_data(spec)
    assert not report.usable and any(way in note for note in report.notes), report.notes
    with pytest.raises(DataError) as caught:
        open_data(spec).check_pairs()
    assert way in str(caught.value) and str(tmp_path / "m/a0.png") in str(caught.value)


@pytest.mark.parametrize(
    ("put", "message"),
    [
        ((), "there is no folder"), (("i/deep/a.png",), 'write images: "i/**/{key}"'),
        (("i/a.txt", "i/b.txt"), "there are 2 .txt"),
    ],
)  # fmt: skip
def test_where_no_image_is_found_it_is_said_what_lies_there(tmp_path, put, message):
    for name in put:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        open_data(told(tmp_path, {"train": {"images": "i"}}) + ":train")
    assert (message in str(caught.value) and "correct splits.train" in str(caught.value)) or put == ("i/deep/a.png",)


def test_images_in_subfolders_that_are_left_out_are_counted(tmp_path):
    photos(tmp_path, "i/a.png", "i/s/b.png", "i/s/c.png")
    report = check_data(told(tmp_path, {"train": {"images": "i"}}) + ":train")
    assert report.images == 1 and any("2 more images in subfolders" in n and '"i/**/{key}"' in n for n in report.notes)


# Lists


def test_a_list_names_images_and_labels(tmp_path):
    photos(tmp_path, "i/a b.png", "i/c.png", "i/d.png")
    masks(tmp_path, "m/x.png", "m/y.png")
    (tmp_path / "lists").mkdir()
    for line in ("i/a b.png m/x.png\ni/c.png m/y.png\n", "i/a b.png,m/x.png\n\ni/c.png, m/y.png"):
        (tmp_path / "lists/train.txt").write_text(line)
        data = open_data(told(tmp_path, {"train": {"images": "lists/train.txt"}}) + ":train")
        assert data.names == ("a b", "c") and data.label_place(1) == str(tmp_path / "m/y.png")
        data.check_pairs()
        assert data.read(0, label=True).label.tolist() == IDS.tolist()


def test_a_list_of_images_alone_takes_labels_by_their_names(tmp_path):
    photos(tmp_path, "i/a.png", "i/c.png")
    masks(tmp_path, "m/a.png", "m/c.png")
    (tmp_path / "i/val.txt").write_text("c.png\n")  # as seen from the list
    data = open_data(told(tmp_path, {"val": {"images": "i/val.txt", "labels": "m"}}) + ":val")
    assert data.names == ("c",) and data.label_place(0) == str(tmp_path / "m/c.png")
    data.check_pairs()


@pytest.mark.parametrize("lines", ["a\nc\n", "a.png\nc.png", "i/a.png\ni/c\n", "# those of May\na\n\nc"])
def test_a_list_may_choose_among_the_images_of_a_folder(tmp_path, lines):
    photos(tmp_path, "i/a.png", "i/b.png", "i/c.png")
    masks(tmp_path, "m/a.png", "m/b.png", "m/c.png")
    (tmp_path / "train.txt").write_text(lines)
    data = open_data(told(tmp_path, {"t": {"images": "i", "labels": "m", "only": "train.txt"}}) + ":t")
    assert data.names == ("a", "c") and data.labels_without_image() == []


@pytest.mark.parametrize(
    ("split", "text", "message"),
    [
        ({"images": "x.txt"}, "i/gone.png\n", "line 1: i/gone.png is no file"),
        ({"images": "x.txt"}, "i/a.png\ni/a.png\n", "line 2: i/a.png is listed twice"),
        ({"images": "x.txt"}, "i/a.png m/a.png\ni/b.png\n", "i/b.png has no label beside it"),
        ({"images": "x.txt"}, "", "names no image"),
        ({"images": "x.txt"}, None, "no list of images that can be read"),
        ({"images": "i", "only": "x.txt"}, "a\nz\n", "line 2: there is no image z"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, split, text, message):
    photos(tmp_path, "i/a.png", "i/b.png")
    masks(tmp_path, "m/a.png")
    if text is not None:
        (tmp_path / "x.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        open_data(told(tmp_path, {"t": split}) + ":t")
    assert message in str(caught.value)


# Shares


def test_a_share_is_whole_sequences_and_the_rest_is_the_split(tmp_path):
    for seq in "abcde":
        photos(tmp_path, *(f"i/{seq}/{k}.png" for k in range(4)))
        masks(tmp_path, *(f"m/{seq}/{k}.png" for k in range(4)))
    spec = told(
        tmp_path, {"train": {"images": "i/*/{key}.png", "labels": "m/*/{key}.png"}, "val": "20%", "test": "20%"}
    )
    parts = {name: open_data(f"{spec}:{name}") for name in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [12, 4, 4]
    folders = [{image.split("/")[1] for image in part.images} for part in parts.values()]
    assert set.union(*folders) == set("abcde") and sum(map(len, folders)) == 5
    for name, part in parts.items():
        part.check_pairs()
        assert any("whole sequences, by folder" in note for note in check_data(f"{spec}:{name}").notes)


def test_more_images_leave_a_sequence_where_it_was():
    paths = [f"{seq}_{k:03d}.png" for seq in ("alps", "bonn", "chur", "dijon", "essen") for k in range(4)]
    before, how = divided(paths, {"val": 0.2})
    more = paths + [f"alps_{k:03d}.png" for k in range(4, 6)]
    after, _ = divided(more, {"val": 0.2})
    assert how == "whole sequences, by name"
    assert {paths[i].split("_")[0] for i in before["val"]} == {more[i].split("_")[0] for i in after["val"]}


def test_without_sequences_a_share_is_the_last_images_by_number():
    parts, how = divided([f"IMG_{k}.jpg" for k in (10, 9, 8, 7, 11)], {"val": 0.4})
    assert parts == {"val": [0, 4]} and "no sequences" in how


@pytest.mark.parametrize(
    ("paths", "by"),
    [
        (["a/1.png", "b/1.png"], "folder"),
        ([f"{city}_{frame}_leftImg8bit.png" for city in ("ulm_000001", "bonn_000000") for frame in (19, 20)], "name"),
        (["0006R0_f00930.png", "0006R0_f00960.png", "Seq05VD_f00000.png", "Seq05VD_f00030.png"], "name"),
        (["dog.png", "cat.png", "bird.png"], ""),
        (["IMG_1.png", "IMG_2.png"], ""),
    ],
)  # fmt: skip
def test_sequences_are_seen_in_folders_and_names(paths, by):
    assert sequences_of(paths).by == by


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"a": {"images": "i"}, "b": {"images": "i"}, "val": "20%"}, "splits.val: a share of what?"),
        ({"train": {"images": "i"}, "val": "60%", "test": "50%"}, "the shares of train come to 110%"),
        ({"train": {"images": "i"}, "val": "120%"}, "write a share between 0 and 1"),
        ({"train": {"images": "i"}, "val": "x%"}, "write a share between 0 and 1"),
        ({"train": {"images": "i"}, "val": {"share": "20%", "images": "i"}}, "splits.val: is a share"),
        ({"train": {"labels": "i"}}, "splits.train.images: missing"),
        ({"train": {"images": "i", "of": "val"}}, "splits.train.of: belongs to a share"),
    ],
)
def test_a_share_that_cannot_be_is_refused(tmp_path, splits, message):
    photos(tmp_path, "i/a.png")
    with pytest.raises(RecipeError) as caught:
        open_data(told(tmp_path, splits) + ":val")
    assert message in str(caught.value)


def test_too_few_images_for_a_share_are_said(tmp_path):
    photos(tmp_path, "i/a.png")
    with pytest.raises(DataError, match="has 1 images, too few to take 1 shares"):
        open_data(told(tmp_path, {"train": {"images": "i"}, "val": "20%"}) + ":val")


# In a training


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (
            {"traffic_light": {"id": 0}, "car": {"id": 1}},
            "did you mean traffic light? write becomes: {traffic_light: tra",
        ),
        ({"ship": {"id": 0}, "car": {"id": 1}}, "and so ignored; becomes: says what they are in it"),
    ],
)
def test_classes_that_a_space_lacks_are_said_and_no_other_advice_is_given(tmp_path, classes, said):
    photos(tmp_path, "i/a.png")
    masks(tmp_path, "m/a.png")
    spec = told(tmp_path, {"t": {"images": "i", "labels": "m"}}, classes=classes, space="cityscapes-19")
    doubts = check_data(f"{spec}:t").doubts
    assert said in doubts[0]
    assert "50 % of the pixels are ignored, of the ids 0 (3 pixels); of classes that the space lacks" in doubts


def test_of_colours_that_are_ignored_no_id_is_told(tmp_path):
    photos(tmp_path, "i/a.png")
    save(tmp_path / "m/a.png", np.array([[[9, 9, 9], [9, 9, 9], [0, 0, 0]]] * 2, np.uint8))
    tree = {"classes": {"x": {"colour": [0, 0, 0]}, "y": {"colour": [1, 1, 1]}}, "ignored": [[9, 9, 9]]}
    spec = told(tmp_path, {"t": {"images": "i", "labels": "m"}}, labels_are="colours", **tree)
    assert "67 % of the pixels are ignored; is that meant?" in check_data(f"{spec}:t").doubts


def test_a_training_says_once_how_images_are_read_and_which_classes_are_lost(tmp_path, said):
    save(tmp_path / "i/a.png", RGB[..., 0])
    masks(tmp_path, "m/a.png")
    tree = {"classes": {"Road": {"id": 0}, "car": {"id": 1}}, "space": "cityscapes-19"}
    spec = told(tmp_path, {"t": {"images": "i", "labels": "m"}}, **tree)
    settings = (f"data.source.set={spec}:t", f"data.target.set={spec}:t", "evaluate.data=[]")
    build_parts(small_recipe(tmp_path).override(*settings), tmp_path, fresh=False)
    assert [line for line in said if "greyscale" in line] == [
        f"{spec}:t: images are greyscale, repeated to three channels"
    ]
    (line,) = [line for line in said if "no class of the space" in line]
    assert "Road is no class of the space cityscapes-19, and so ignored; did you mean road?" in line


@pytest.mark.parametrize("place", ["i/b.png", "m/b.png"])
def test_bad_files_of_what_is_measured_are_named_before_the_first_step(tmp_path, place):
    for name in ("aa", "b", "c"):
        save(tmp_path / f"i/{name}.png", np.full((32, 32, 3), 9, np.uint8))
        save(tmp_path / f"m/{name}.png", np.zeros((32, 32), np.uint8))
    for name in (place, "i/c.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    spec = told(tmp_path, {"good": {"images": "i/a{key}", "labels": "m/a{key}"}, "t": {"images": "i", "labels": "m"}})
    settings = (f"data.source.set={spec}:good", f"data.target.set={spec}:good", f"evaluate.data=['{spec}:t']")
    recipe = small_recipe(tmp_path).override(*settings)
    for check in (True, False):
        with pytest.raises(DataError, match="2 of 3 images cannot be used: .*b.png, .*c.png; mend them"):
            train(recipe, tmp_path / "run", check=check)
    assert not (tmp_path / "run/log.jsonl").exists()


@pytest.mark.parametrize(
    ("images", "labels", "way"),
    [
        ("i/*/{key}.png", "flat", "flat/*_{key}.png"),
        ("i/*/{key}.png", "flat/deeper", "flat/deeper/x/*_{key}.png"),
        ("i/**/{key}.png", "m", "m/**/{key}_m.png"),
        ("i/*/{key}.png", "m", "m/*/{key}_m.png"),
    ],
)
def test_the_path_that_finds_labels_of_sequences_has_their_stars(tmp_path, images, labels, way):
    for seq in ("s1", "s2"):
        photos(tmp_path, f"i/{seq}/0.png", f"i/{seq}/1.png")
        masks(tmp_path, *(way.replace("**/", f"{seq}/").replace("*", seq).replace("{key}", key) for key in "01"))
    split = {"images": images, "labels": labels}
    (note,) = (note for note in check_data(told(tmp_path, {"t": split}) + ":t").notes if "lies there" in note)
    assert f'labels: "{way}" in the YAML file finds 4 of them' in note
    found = check_data(told(tmp_path, {"t": split | {"labels": way}}) + ":t")
    assert found.usable and found.labels == 4


def test_labels_of_other_images_are_no_way_to_one_that_is_missing(tmp_path):
    photos(tmp_path, "i/a.png", "i/b.png")
    masks(tmp_path, "m/a.png")
    spec = told(tmp_path, {"t": {"images": "i", "labels": "m"}}) + ":t"
    report = check_data(spec)
    assert report.faults["images without label"] and not any("none of the same name" in note for note in report.notes)
    with pytest.raises(DataError, match="or name the images that have one: only: FILE.txt"):
        open_data(spec).check_pairs()


def test_accents_are_the_same_however_a_system_writes_them(tmp_path):
    """macOS as two letters, others as one."""
    one, two = (normalize(form, "ü") for form in ("NFC", "NFD"))
    photos(tmp_path, f"i/{one}.png")
    masks(tmp_path, f"m/{two}_m.png")
    data = open_data(told(tmp_path, {"t": {"images": "i", "labels": "m/{key}_m.png"}}) + ":t")
    data.check_pairs()
    assert data.read(0, label=True).label.tolist() == IDS.tolist()


def test_images_too_small_for_the_network_are_named_before_the_first_step(tmp_path):
    for name, side in (("a", 40), ("b", 20)):
        save(tmp_path / f"i/{name}.png", np.full((side, 40, 3), 9, np.uint8))
        save(tmp_path / f"m/{name}.png", np.zeros((side, 40), np.uint8))
    spec = told(tmp_path, {"t": {"images": "i", "labels": "m"}}) + ":t"
    settings = (
        f"data.source.set={spec}",
        f"data.target.set={spec}",
        f"evaluate.data=['{spec}']",
        "evaluate.resize=null",
    )
    for check in (True, False):
        with pytest.raises(DataError, match=r"i/b.png: is 40x20 and would be shown .* needs 32 on each side; cut it"):
            train(small_recipe(tmp_path).override(*settings), tmp_path / "run", check=check)
    assert not (tmp_path / "run/log.jsonl").exists()


def test_names_that_differ_in_case_alone_are_told_so(tmp_path):
    photos(tmp_path, "i/a0.png")
    masks(tmp_path, "m/A0.png")
    report = check_data(told(tmp_path, {"t": {"images": "i", "labels": "m"}}) + ":t")
    assert any(
        "m/A0.png and " in note and "differ in upper and lower case alone; rename" in note for note in report.notes
    )


def test_pictures_that_segda_wrote_are_no_photographs(tmp_path):
    photos(tmp_path, "a.png")
    masks(tmp_path, "m/a.png")
    spec = told(tmp_path, {"t": {"images": "{key}", "labels": "m"}, "all": {"images": "**/{key}"}})
    check_data(f"{spec}:t", out=tmp_path / "sheets")
    notes = check_data(f"{spec}:all").notes
    assert any("1 images are pictures that segda wrote, and no photographs: " in note for note in notes)


# Specs and paths


def test_variables_and_the_home_stand_in_every_path_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PHOTOS", "i")
    photos(tmp_path, "home/data/i/a.png")
    masks(tmp_path, "home/m/a.png")
    spec = told(tmp_path, {"t": {"images": "$PHOTOS/{key}.png", "labels": "~/m"}}, root="~/data")
    data = open_data(f"{spec}:t")
    assert data.names == ("a",) and data.read(0, label=True).label.tolist() == IDS.tolist()


@pytest.mark.parametrize("name", ["a+b", "a*2", "a:b", "a'b", "a#b", "a b"])
def test_a_path_with_marks_of_a_spec_is_read_in_quotes_and_where_it_is_a_file(tmp_path, name):
    root = tmp_path / name
    photos(root, "i/a.png")
    file = told(root, {"t": {"images": "i"}}).removeprefix("folder:")
    quote = '"' if "'" in name else "'"
    photos(tmp_path, "j/b.png")
    other = told(tmp_path, {"t": {"images": "j"}})
    for one in (f"folder:{file}:t", f"folder:{quote}{file}{quote}:t"):
        assert open_data(one).names == ("a",)
        both = open_data(f"{one}*3+{other}:t")
        assert len(both) == 2 and both.shares == (0.75, 0.25)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{root}/i", "is a folder: a YAML file says what is in one; segda init writes it"),
        ("{root}/i:train", "is a folder"),
        ("{root}/x.yaml", "is written folder:{root}/x.yaml:SPLIT"),
        ("folder:'{root}/x.yaml:t", "a quotation mark is not closed"),
    ],
)
def test_a_bare_folder_or_file_points_at_the_way_to_write_it(tmp_path, spec, message):
    photos(tmp_path, "i/a.png")
    told(tmp_path, {"t": {"images": "i"}})
    with pytest.raises(RecipeError) as caught:
        open_data(spec.format(root=tmp_path))
    assert message.format(root=tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ("{}", ["splits, classes: missing", "splits: {train", "classes: {background"]),
        ("splits: {t: {image: i}}\nclasses: {a: {id: 0}}", ["splits.t: unknown key 'image'; did you mean 'images'?"]),
        ("train: i\nnames: [a]\nnc: 1", ["missing", "'train'; did you mean 'splits'?"]),
        ("splits: {t: i}\nclasses: {a: {id: 0}}", ["write t: {images: i, labels: FOLDER}"]),
        ("splits: {t: {images: i}}\nclasses: {a: 3}", ["classes.a: write a: {id: 3}"]),
        ("splits: {t: {images: i}}\nclasses: {a: [1, 2, 3]}", ["classes.a: write a: {colour: [1, 2, 3]}"]),
        ("splits: {t: {images: i}}\nclasses: {yes: {id: 1}}", ["put the name in quotes"]),
        ("splits: {t: {images: i}}\nclasses: {a: {color: [1, 2, 3]}}", ["did you mean 'colour'"]),
        ("splits: {t: {images: i}}\nclasses: {a: {id: x}}", ["classes.a.id: got 'x'; write the value"]),
        ("splits: {t: {images: i}}\nclasses: {a: {id: 0}}\nignored: 255", ["ignored: got 255; write a list"]),
        ("splits: {t: {images: 3}}\nclasses: {a: {id: 0}}", ["splits.t.images: got 3; write a folder"]),
        ("splits: {t: {images: i}}\nclasses: {a: {id: 0}}\nignore_index: 255", ["did you mean 'ignored'"]),
    ],
)
def test_a_file_in_the_words_of_other_tools_is_answered_in_ours(tmp_path, tree, words):
    (tmp_path / "x.yaml").write_text(tree)
    with pytest.raises(RecipeError) as caught:
        open_data(f"folder:{tmp_path}/x.yaml:t")
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert not any(word in said for word in ("Input", "Extra", "valid ", "Field required", "[type"))
