"""`segda predict`: the files it leaves, what is in them, and that bad input leaves none."""

import io
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.test_submission import LABEL_IDS, write_nineteen
from segda.commands.predict import predict
from segda.data.labels.spaces import space_named
from segda.data.sets import streets as street_sets
from segda.data.sets.given import images_of
from segda.data.streets.conditions import SPLITS
from segda.errors import DataError, RecipeError, RunError, WeightsError
from segda.reporting.pictures import SCALE, coloured, entropy_picture, overlaid, palette_png
from segda.reporting.predictions import plan
from segda.reporting.safe_colours import in_safe_colours
from segda.run import load_network
from small_run import SPACE, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def write_image(path, size=(33, 47), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def logits_of(run, path):
    """The network's logits of an image, read by Pillow."""
    with Image.open(path) as picture:
        image = torch.from_numpy(np.array(picture, np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        return load_network(run).infer(image)[0]


def pixels_of(path):
    with Image.open(path) as picture:
        return np.array(picture)


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_label_map_has_the_images_size_and_train_ids(run, tmp_path):
    image = write_image(tmp_path / "in" / "a.png")
    written = predict(run, [image], tmp_path / "out", precision="32")
    assert written == [tmp_path / "out" / "a.png"]
    with Image.open(written[0]) as label:
        assert label.mode == "P" and label.size == (47, 33)
        ids = np.array(label)
    assert (ids == logits_of(run, image).argmax(0).numpy()).mean() > 0.99


def test_every_picture_is_written_on_demand(run, tmp_path):
    image = write_image(tmp_path / "in" / "a.jpg")
    predict(run, [image], tmp_path / "out", colour=True, overlay=True, entropy=True, precision="32")
    assert files(tmp_path / "out") == ["a.png", "a_colour.png", "a_entropy.png", "a_overlay.png"]
    read = {name: pixels_of(tmp_path / "out" / name) for name in files(tmp_path / "out")}
    assert (read["a_colour.png"] == SPACE.palette()[read["a.png"]]).all()
    pixels = pixels_of(image).astype(int)
    half = (pixels + SPACE.palette()[read["a.png"]].astype(int)) / 2
    assert np.abs(read["a_overlay.png"] - half).max() <= 1
    prob = logits_of(run, image).softmax(0).double()
    relative = -(prob * prob.log()).sum(0).numpy() / math.log(11)
    theirs = SCALE[np.round(relative * 255).astype(int)].astype(int)
    assert np.abs(read["a_entropy.png"] - theirs).max() <= 4  # one step of the scale


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp", "PNG"])
def test_all_usual_kinds_of_images_are_read(run, tmp_path, suffix):
    image = write_image(tmp_path / f"a.{suffix}")
    predict(run, [image], tmp_path / "out")
    assert files(tmp_path / "out") == ["a.png"]


def test_a_folder_stands_for_its_images_but_not_for_hidden_or_other_files(run, tmp_path):
    for name in ("b.png", "a.jpg", ".hidden.png", "below/c.png"):
        write_image(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    written = predict(run, [tmp_path / "in", tmp_path / "in" / "b.png"], tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == ["a.png", "b.png", "below/c.png"]


def test_images_of_any_size_in_one_call(run, tmp_path):
    images = [write_image(tmp_path / f"{h}.png", (h, w)) for h, w in ((32, 32), (35, 90), (61, 33))]
    for path, image in zip(predict(run, images, tmp_path / "out"), images, strict=True):
        assert pixels_of(path).shape == pixels_of(image).shape[:2]


def test_two_images_of_one_name_do_not_overwrite_each_other(run, tmp_path):
    images = [write_image(tmp_path / place) for place in ("day/a.png", "dusk/a.jpg")]
    with pytest.raises(DataError, match=r"day.a\.png and .*dusk.a\.jpg .* two folders"):
        predict(run, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_label_map_does_not_overwrite_another_images_picture(tmp_path):
    images = [write_image(tmp_path / name) for name in ("a.png", "a_colour.png")]
    assert len(plan(images_of(images), tmp_path / "out", [])) == 2
    with pytest.raises(DataError, match="a_colour"):
        plan(images_of(images), tmp_path / "out", ["colour"])


def test_predictions_do_not_overwrite_the_images(run, tmp_path):
    image = write_image(tmp_path / "a.png")
    before = image.read_bytes()
    with pytest.raises(RunError, match="would be overwritten"):
        predict(run, [image], tmp_path)
    assert image.read_bytes() == before


def damaged(path, kind):
    write_image(path)
    content = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        path.write_text("no image at all")
    elif kind == "rgba":
        Image.new("RGBA", (40, 40)).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("z.png", "empty"),
        ("z.png", "cut"),
        ("z.png", "rgba"),
        ("z.jpg", "cut"),
        ("z.jpg", "text"),
        ("z.bmp", "cut"),
        ("z.bmp", "empty"),
        ("z.webp", "cut"),
        ("z.webp", "rgba"),
    ],
)
def test_one_bad_image_among_good_ones_is_named_and_nothing_is_written(run, tmp_path, name, kind):
    good = write_image(tmp_path / "in" / "a.png")
    damaged(tmp_path / "in" / name, kind)
    with pytest.raises(DataError, match=name) as caught:
        predict(run, [good.parent], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_all_bad_images_are_named_at_once_or_left_out(run, tmp_path, said):
    good = write_image(tmp_path / "in" / "a.png")
    bad = [damaged(tmp_path / "in" / f"{kind}.png", kind) for kind in ("cut", "empty", "rgba")]
    with pytest.raises(DataError, match="3 of 4 images cannot be used: .*cut.png, .*empty.png, .*rgba.png; mend them"):
        predict(run, [good.parent], tmp_path / "out")
    assert not (tmp_path / "out").exists() and all(any(str(path) in line for line in said) for path in bad)
    assert predict(run, [good.parent], tmp_path / "out", on_bad_image="skip") == [tmp_path / "out" / "a.png"]
    for path in bad:
        path.unlink()
    predict(run, [good], tmp_path / "alone")
    assert (tmp_path / "out/a.png").read_bytes() == (tmp_path / "alone/a.png").read_bytes()


def test_a_link_that_leads_nowhere_is_a_missing_image(run, tmp_path):
    """As git-annex and dvc leave them where a file was not fetched."""
    good = write_image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        predict(run, [good.parent], tmp_path / "out")


def test_where_all_images_are_bad_nothing_is_skipped(run, tmp_path):
    damaged(tmp_path / "in" / "z.png", "cut")
    with pytest.raises(DataError, match="z.png: cut off"):
        predict(run, [tmp_path / "in"], tmp_path / "out", on_bad_image="skip")


def test_subfolders_come_along_and_are_there_again(run, tmp_path):
    for place in ("a.png", "day/a.JPG", "day/deep/b.tif", ".hidden/c.png"):
        write_image(tmp_path / "in" / place)
    for _ in range(2):  # the second time the results lie among the images
        predict(run, [tmp_path / "in"], tmp_path / "in" / "out", colour=True)
    found = {path.relative_to(tmp_path / "in/out").as_posix() for path in (tmp_path / "in/out").rglob("*.png")}
    assert found == {f"{stem}{kind}.png" for stem in ("a", "day/a", "day/deep/b") for kind in ("", "_colour")}


def test_a_grey_image_is_predicted_as_its_three_equal_channels(run, tmp_path, said):
    grey = np.random.default_rng(0).integers(0, 256, (33, 47), np.uint8)
    for name, pixels in (("grey.png", grey), ("rgb.png", np.dstack([grey] * 3))):
        Image.fromarray(pixels).save(tmp_path / name)
        predict(run, [tmp_path / name], tmp_path / "out")
    assert (pixels_of(tmp_path / "out/grey.png") == pixels_of(tmp_path / "out/rgb.png")).all()
    assert sum("greyscale, repeated to three channels" in line for line in said) == 1


def test_a_photograph_on_its_side_is_predicted_as_viewers_show_it(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(1).integers(0, 256, (33, 47, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "tagged.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "turned.png")
    for name in ("tagged", "turned"):
        predict(run, [tmp_path / f"{name}.png"], tmp_path / "out")
    assert (pixels_of(tmp_path / "out/tagged.png") == pixels_of(tmp_path / "out/turned.png")).all()


def test_an_empty_folder_is_refused(run, tmp_path):
    with pytest.raises(DataError, match="no images in this folder"):
        predict(run, [tmp_path], tmp_path / "out")


def test_a_missing_image_and_an_unknown_kind_are_refused(run, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        predict(run, [tmp_path / "nowhere.png"], tmp_path / "out")
    (tmp_path / "film.gif").write_bytes(b"film")
    with pytest.raises(DataError, match="use one of png, jpg"):
        predict(run, [tmp_path / "film.gif"], tmp_path / "out")


def test_an_output_that_is_a_file_is_refused(run, tmp_path):
    image = write_image(tmp_path / "a.png")
    with pytest.raises(RunError, match="is a file"):
        predict(run, [image], image)


def test_a_teacher_that_the_run_has_not_is_refused(run, tmp_path):
    image = write_image(tmp_path / "a.png")
    with pytest.raises(WeightsError, match="teacher"):
        predict(run, [image], tmp_path / "out", weights="teacher")


def test_a_data_set_is_predicted_as_its_images_are_without_a_look_at_labels(run, camvid, tmp_path):
    shutil.rmtree(camvid / "camvid" / "testannot")
    written = predict(run, (), tmp_path / "data", data="camvid:test:dusk", root=camvid, precision="32")
    predict(run, [camvid / "camvid" / "test"], tmp_path / "images", precision="32")
    assert [path.name for path in written] == ["0001TP_101.png", "0001TP_102.png", "0001TP_103.png"]
    for path in written:
        assert path.read_bytes() == (tmp_path / "images" / path.name).read_bytes()


def test_several_data_sets_and_drawn_ones_are_predicted(run, camvid, tmp_path, monkeypatch):
    monkeypatch.setattr(street_sets, "SIZE", (64, 128))
    monkeypatch.setitem(SPLITS, "test", (SPLITS["test"][0], 1))
    street_sets.drawn.cache_clear()
    joined = predict(run, (), tmp_path / "joined", data="camvid:val+camvid:test", root=camvid)
    assert len(joined) == 5 and all(path.stem.startswith(("0016E5", "0001TP")) for path in joined)
    (drawn,) = predict(run, (), tmp_path / "drawn", data="streets:test:night", overlay=True)[::2]
    assert drawn.name == "test_night_0.png" and pixels_of(drawn).shape == (64, 128)
    street_sets.drawn.cache_clear()


def test_predictions_do_not_overwrite_a_data_set(run, camvid):
    folder = camvid / "camvid" / "test"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RunError, match="would be overwritten"):
        predict(run, (), folder, data="camvid:test", root=camvid)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_files_of_others_are_replaced_when_that_is_asked_for_alone(run, tmp_path):
    images, out = [write_image(tmp_path / "in" / f"{name}.png") for name in "ab"], tmp_path / "out"
    write_image(out / "a_overlay.png")
    write_image(out / "other.png")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RunError, match=r"a_overlay.png is there, and segda predict did not write it; use --overwrite"):
        predict(run, images, out, overlay=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    predict(run, images, out, colour=True)
    predict(run, images, out, colour=True)  # its own files
    predict(run, images, out, overlay=True, overwrite=True)
    predict(run, images, out, overlay=True)
    written = predict(run, images, tmp_path / "whole", colour=True, overlay=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        **{path.name: path.read_bytes() for path in written}, "other.png": before["other.png"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "camvid:test"}, "give images or --data NAME:SPLIT, not both"),
        ({"images": False}, "nothing to predict: give images or --data"),
        ({"images": False, "data": "camvid:tset"}, "did you mean 'test'"),
        ({"images": False, "data": "canvid:test"}, "did you mean 'camvid'"),
        ({"images": False, "data": "camvid:val*2+camvid:test*1"}, "weights say how often images are drawn in training"),
        ({"opacity": 0.3}, "--opacity 0.3 is of the overlay; add --overlay"),
        ({"legend": True}, "--legend is of pictures; add --colour, --overlay or --entropy"),
        ({"palette": "safe", "ids": "label"}, "--palette safe has no colours for Cityscapes' label ids"),
        ({"palette": "safe", "submission": "cityscapes"}, "--palette has no place in a submission"),
        ({"opacity": 1.5, "overlay": True}, "--opacity 1.5: give a number from 0 .* to 1"),
        ({"opacity": -0.1, "overlay": True}, "--opacity -0.1: give a number"),
        ({"opacity": math.nan, "overlay": True}, "--opacity nan: give a number"),
        ({"ids": "labels"}, "--ids labels: unknown; did you mean 'label'"),
        ({"ids": "label"}, "--ids label: pavement of the space camvid-11 is no class of Cityscapes"),
    ],
)
def test_options_that_mean_nothing_are_refused(run, camvid, tmp_path, options, message):
    options = dict(options)
    image = write_image(tmp_path / "a.png")
    inputs = [image] if options.pop("images", True) else []
    with pytest.raises(RecipeError, match=message) as caught:
        predict(run, inputs, tmp_path / "out", root=camvid, **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_folder_is_not_called_as_an_archive(run, tmp_path):
    with pytest.raises(RunError, match=r"a\.zip: predictions go to a folder; .* --submission"):
        predict(run, [write_image(tmp_path / "a.png")], tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_the_overlay_has_as_much_colour_as_asked_for(run, tmp_path):
    image = write_image(tmp_path / "a.png")
    read = {}
    for opacity in (0, 0.25, None, 1):
        label, overlay = predict(run, [image], tmp_path / str(opacity), overlay=True, opacity=opacity)
        read[opacity] = pixels_of(overlay)
    colour = SPACE.palette()[pixels_of(label)]
    assert (read[0] == pixels_of(image)).all() and (read[1] == colour).all()
    for opacity, share in ((0.25, 0.25), (None, 0.5)):
        mixed = (1 - share) * pixels_of(image).astype(float) + share * colour
        assert np.abs(read[opacity] - mixed).max() <= 0.5


def test_safe_colours_and_a_legend_change_pictures_and_no_id(run, tmp_path):
    image = write_image(tmp_path / "a.png")
    plain, colour = predict(run, [image], tmp_path / "plain", colour=True)
    label, safe = predict(run, [image], tmp_path / "safe", colour=True, palette="safe", legend=True)
    ids = pixels_of(plain)
    assert (pixels_of(label) == ids).all()
    table = in_safe_colours(SPACE).palette()
    assert (pixels_of(safe)[: len(ids)] == table[ids]).all() and len(pixels_of(safe)) > len(pixels_of(colour))
    with Image.open(label) as picture:
        assert picture.getpalette()[: 3 * len(SPACE.classes)] == table[: len(SPACE.classes)].ravel().tolist()


def test_label_ids_are_those_of_cityscapes_with_their_colours(tmp_path):
    run = write_nineteen(tmp_path / "run")
    image = write_image(tmp_path / "a.png", (64, 96))
    (train,) = predict(run, [image], tmp_path / "train", ids="train", precision="32")
    label, _, overlay = predict(
        run, [image], tmp_path / "label", ids="label", colour=True, overlay=True, precision="32"
    )
    ids = pixels_of(train)
    assert len(np.unique(ids)) > 3
    assert (pixels_of(label) == np.array(LABEL_IDS)[ids]).all()
    with Image.open(train) as one, Image.open(label) as other:
        assert one.mode == other.mode == "P"
        assert (np.array(one.convert("RGB")) == np.array(other.convert("RGB"))).all()
    colour = space_named("cityscapes-19").palette()[ids]
    assert (pixels_of(tmp_path / "label" / "a_colour.png") == colour).all()
    assert np.abs(pixels_of(overlay) - (pixels_of(image).astype(float) + colour) / 2).max() <= 0.5


def test_the_entropy_scale_runs_from_certain_to_all_classes_equal():
    picture = entropy_picture(np.array([[0, math.log(11) / 2, math.log(11), 99]]), 11)
    assert picture.tolist() == [[SCALE[0].tolist(), SCALE[128].tolist(), SCALE[255].tolist(), SCALE[255].tolist()]]
    luminance = SCALE @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > -0.5).all() and luminance[-1] > 4 * luminance[0]


def test_pixels_of_no_class_are_black_alone_and_untouched_in_an_overlay():
    label = np.array([[3, 255]], np.uint8)
    image = np.full((1, 2, 3), 100, np.uint8)
    assert coloured(label, SPACE).tolist() == [[[128, 64, 128], [0, 0, 0]]]
    assert overlaid(image, label, SPACE).tolist() == [[[114, 82, 114], [100, 100, 100]]]


def test_a_palette_png_keeps_every_id():
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with Image.open(io.BytesIO(palette_png(label, SPACE.palette()))) as back:
        assert (np.array(back) == label).all()
        assert back.getpalette()[9:12] == [128, 64, 128]
