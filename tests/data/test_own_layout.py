"""How images and labels of one's own belong together: from names alone."""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import normalize

import pytest

from segda.data.own.layout import lay_out, named_by
from segda.errors import RecipeError, SegdaError


def files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


WAYS = {
    "alike": (["a.jpg", "b.jpg"], ["a.png", "b.png"], "", ""),
    "an end of labels": (["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png"], "{key}", "{key}_mask"),
    "a beginning of labels": (["a.jpg", "b.jpg"], ["mask_a.png", "mask_b.png"], "{key}", "mask_{key}"),
    "ends of both": (["a_rgb.png", "b_rgb.png"], ["a_label.png", "b_label.png"], "{key}_rgb", "{key}_label"),
    "the whole name": (["a.jpg", "b.jpg"], ["a.jpg.png", "b.jpg.png"], "{key}", "{key}.jpg"),
    "upper case": (["DSC_1.JPG", "DSC_2.JPG"], ["DSC_1.PNG", "DSC_2.PNG"], "", ""),
    "sequences": (["s1/0.png", "s2/0.png"], ["s1/0.png", "s2/0.png"], "**/{key}", "**/{key}"),
    "labels of sequences in one folder": (["s1/a.png", "s2/b.png"], ["a.png", "b.png"], "**/{key}", "{key}"),
    "Cityscapes": (
        ["x/x_0_leftImg8bit.png", "x/x_1_leftImg8bit.png"],
        [f"x/x_{k}_gtFine_{what}.png" for k in (0, 1) for what in ("color", "instanceIds", "labelIds")],
        "**/{key}_leftImg8bit",
        "**/{key}_gtFine_labelIds",
    ),
    "numbers that are in others": (["1.jpg", "10.jpg", "101.jpg"], ["1.png", "10.png", "101.png"], "", ""),
    "arrays": (["a.jpg"], ["a.npy"], "", ""),
    "one image": (["photo.jpg"], ["photo_mask.png"], "{key}", "{key}_mask"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_names_have_before_and_behind_their_key_is_found(way, tmp_path):
    images, labels, images_path, labels_path = WAYS[way]
    found = lay_out(files(tmp_path / "images", *images), files(tmp_path / "labels", *labels))
    assert (found.images, found.labels) == (images_path, labels_path)
    assert (found.labelled, list(found.pairs)) == (len(images), sorted(images))


def test_each_image_has_the_label_of_its_name(tmp_path):
    images = files(tmp_path / "i", "s1/0_rgb.png", "s2/0_rgb.png", "s2/1_rgb.png")
    labels = files(tmp_path / "l", "s1/0_m.png", "s2/0_m.png", "s2/1_m.png")
    found = lay_out(images, labels)
    assert found.pairs == {
        "s1/0_rgb.png": ("s1/0_m.png",), "s2/0_rgb.png": ("s2/0_m.png",), "s2/1_rgb.png": ("s2/1_m.png",),
    }  # fmt: skip


@pytest.mark.parametrize("endings", [(".jpg", ".png"), (".png", ".png")])
def test_masks_beside_their_images_are_no_images(endings, tmp_path):
    image, label = endings
    names = [f"{k}{end}" for k in "abc" for end in (image, f"_mask{label}")]
    folder = files(tmp_path, *names)
    found = lay_out(folder, folder)
    assert found.pairs == {f"{k}{image}": (f"{k}_mask{label}",) for k in "abc"}
    assert (found.images, found.labels) == (f"{{key}}{image}", f"{{key}}_mask{label}")


def test_a_folder_of_masks_for_each_class(tmp_path):
    images = files(tmp_path / "i", "a.jpg", "b.jpg")
    labels = files(tmp_path / "l", "road/a.png", "road/b.png", "car/b.png")
    found = lay_out(images, labels)
    assert (found.labels, found.classes) == ("{class}/{key}", ("car", "road"))
    assert found.pairs == {"a.jpg": ("road/a.png",), "b.jpg": ("car/b.png", "road/b.png")}


def test_images_without_label_and_labels_without_image_are_counted(tmp_path):
    found = lay_out(files(tmp_path / "i", "a.jpg", "b.jpg", "c.jpg"), files(tmp_path / "l", "a.png", "b.png", "x.png"))
    assert (found.labelled, len(found.pairs), found.lone) == (2, 3, 1)


def test_hidden_files_and_links_that_lead_up_are_passed_over(tmp_path):
    images = files(tmp_path / "i", "a.jpg", ".cache/b.jpg", "._a.jpg")
    (images / "again").symlink_to(images)
    assert list(lay_out(images).pairs) == ["a.jpg"]


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (["a.gif"], ["a.png"], "no images there (1 .gif); an image ends with .png, .jpg"),
        (["a.jpg"], ["a.txt"], "no labels there (1 .txt): YOLO's polygons are not read"),
        (
            ["a.jpg"],
            ["a.JPG"],
            "no labels there (a.JPG and others change values where areas meet: export them as PNG; or are",
        ),
        (["a.jpg"], ["x.png"], "no label has the name of an image"),
    ],
)
def test_what_cannot_be_is_refused_with_the_files_that_are_there(images, labels, said, tmp_path):
    with pytest.raises(RecipeError) as refused:
        lay_out(files(tmp_path / "i", *images), files(tmp_path / "l", *labels))
    assert said in str(refused.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere: no such folder"):
        lay_out(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("x.zip", "unpack it"),
        ("x.MP4", "take pictures of it, as ffmpeg -i FILE %06d.png does"),
        ("x.heic", "save it as JPEG or PNG"),
        ("x.txt", "YOLO's polygons are not read: export COCO or PNG masks"),
    ],
)
def test_files_of_other_kinds_say_the_way_to_what_is_read(name, way, tmp_path):
    files(tmp_path, f"other/{name}", "i/a.png")
    ending = Path(name).suffix.lower()
    for given, said in (
        ((tmp_path / "other",), rf"no images there \(1 {ending}\): {way}; an image ends with .png"),
        ((tmp_path / "other" / name,), rf"{name}: is a file, and no folder: {way}; give a folder"),
        ((tmp_path / "i", tmp_path / "other"), rf"no labels there \(1 {ending}\): {way}; a label ends with .png"),
    ):
        with pytest.raises(RecipeError, match=said):
            lay_out(*given)


def test_accents_are_the_same_however_a_system_writes_them(tmp_path):
    """macOS as two letters, others as one."""
    one, two = (normalize(form, "ü1") for form in ("NFC", "NFD"))
    assert one != two
    found = lay_out(files(tmp_path / "i", f"{one}.jpg", "a.jpg"), files(tmp_path / "l", f"{two}.png", "a.png"))
    assert found.labelled == 2


def coco(*names: str) -> str:
    images = [{"id": id, "file_name": name, "height": 8, "width": 8} for id, name in enumerate(names)]
    return json.dumps({"images": images, "annotations": [], "categories": []})


def label_studio(*names: str) -> str:
    return json.dumps(
        [{"data": {"image": f"/data/upload/1/0a1b2c3d-{name}"}, "annotations": [{"result": []}]} for name in names]
    )


def cvat(*names: str) -> str:
    rows = (f"<image name='{name}' height='8' width='8'/>" for name in names)
    return f"<annotations>{''.join(rows)}</annotations>"


@pytest.mark.parametrize(("file", "text"), [("x.json", coco), ("x.json", label_studio), ("x.xml", cvat)])
def test_a_file_of_a_tool_has_the_shapes_of_the_images_that_it_names(file, text, tmp_path):
    images = files(tmp_path / "i", "a.jpg", "s/b.jpg", "c.jpg")
    (tmp_path / file).write_text(text("a.jpg", "b.jpg"))
    found = lay_out(images, tmp_path / file)
    assert (found.labels, found.pairs) == ("", {"a.jpg": ("",), "c.jpg": (), "s/b.jpg": ("",)})
    (tmp_path / file).write_text(text("d.jpg"))
    with pytest.raises(RecipeError, match="names none of the images"):
        lay_out(images, tmp_path / file)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("x.json", "{}", "no annotations as labelme, COCO, CVAT"),
        ("x.zip", "PK", "is a file, and no JSON or XML of an annotation tool: unpack it; give the folder"),
    ],
)
def test_a_file_of_no_tool_is_refused(file, text, said, tmp_path):
    (tmp_path / file).write_text(text)
    with pytest.raises(SegdaError, match=said):
        lay_out(files(tmp_path / "i", "a.jpg"), tmp_path / file)


@pytest.mark.parametrize("place", ["l", "."])
def test_brushes_of_label_studio_are_those_of_the_export_beside_them(place, tmp_path):
    files(tmp_path, "l/task-1-annotation-2-by-1-tag-road-0.png", "l/task-1-annotation-2-by-1-tag-car-0.npy", "l/x.json")
    with pytest.raises(
        RecipeError, match=r"task-1-.*says no image; .* there is none in the folder or above it: give it"
    ):
        named_by(tmp_path / "l")
    (tmp_path / place / "export.json").write_text(label_studio("a.jpg"))
    assert named_by(tmp_path / "l") == tmp_path / place / "export.json"
    (tmp_path / "l" / "later.json").write_text(label_studio("a.jpg"))
    with pytest.raises(RecipeError, match=r"there are \S+ and \S+: give it, --labels FILE\.json"):
        named_by(tmp_path / "l")


def test_labels_of_other_tools_stay_where_they_are(tmp_path):
    files(tmp_path, "l/a.png")
    (tmp_path / "l" / "export.json").write_text(label_studio("a.jpg"))
    assert named_by(tmp_path / "l") == tmp_path / "l"
    assert named_by(tmp_path / "nowhere") == tmp_path / "nowhere"
