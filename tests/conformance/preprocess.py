"""Images, labels and label maps of ADVENT and ESL against values recorded from the authors' code (golden/advent_esl).

Theirs: Pillow's bicubic (labels: nearest) on 8 bits, then BGR in 0..255 less the mean. Every pixel here is equal; only
subtracting the mean may round otherwise.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from golden import Golden
from segda.data.labels.labellings import LABELLINGS
from segda.data.labels.spaces import SPACES, UNKNOWN
from segda.data.stream.augment import padded_size, resize, resize_label, resized
from segda.data.stream.settings import Augment
from segda.networks.deeplab import DeepLabV2
from segda.scene import IGNORE, Scene, stack

GOLDEN = Golden("advent_esl")
MEAN = np.array([104.00698793, 116.66876762, 122.67891434], np.float32)[:, None, None]  # of blue, green, red
SIZES = {"down": (32, 20), "up": (80, 48), "same": (53, 37)}
"""Width and height that the street is brought to."""
PAD = (32, 16)

NAMED = {"gta5": "GTA5", "synthia": "SYNTHIA", "cityscapes": "Cityscapes"}
SPACE_OF = {19: "cityscapes-19", 16: "synthia-16", 7: "mapillary-7"}
MAPS = [("gta5", 19), ("gta5", 7), *((name, count) for name in ("synthia", "cityscapes") for count in SPACE_OF)]


@pytest.fixture(scope="module")
def recorded():
    return GOLDEN.npz("preprocess.npz")


@pytest.fixture(scope="module")
def maps():
    return GOLDEN.json("label_maps.json")


def scene_of(image: np.ndarray, label: np.ndarray, space: str, labelling: str) -> Scene:
    table = SPACES[space].lookup(labelling)
    known = np.where(table == UNKNOWN, IGNORE, table)[label].astype(np.uint8)
    return Scene(torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(known), names=("recorded",))


def street(recorded) -> Scene:
    return scene_of(recorded["image_rgb_uint8"], recorded["label_uint8"], "cityscapes-19", "gta5")


def vista(recorded, number: int) -> Scene:
    image, label = recorded[f"mapillary{number}_image"], recorded[f"mapillary{number}_label"]
    return scene_of(image, label, "mapillary-7", "mapillary")


def as_authors(image: torch.Tensor) -> np.ndarray:
    return image.numpy()[::-1].astype(np.float32) - MEAN


@pytest.mark.parametrize("case", SIZES)
def test_images_and_labels_stretched_into_a_box_equal_the_authors_to_the_bit(recorded, case):
    ours = resize(street(recorded), SIZES[case], "stretch", "bicubic")
    assert np.array_equal(as_authors(ours.image), recorded[f"gta_{case}_input"])
    assert np.array_equal(ours.label.numpy(), recorded[f"gta_{case}_label"])


@pytest.mark.parametrize("case", SIZES)
def test_labels_resized_alone_equal_the_authors_to_the_pixel(recorded, case):
    ours = resize_label(torch.from_numpy(recorded["label_uint8"]), (40, 64), "bicubic")
    assert np.array_equal(ours.numpy(), recorded[f"city_{case}_label_raw_64x40"])


@pytest.mark.parametrize("number", range(3))
def test_images_and_labels_padded_into_a_box_equal_the_authors_to_the_bit(recorded, number):
    ours = resize(vista(recorded, number), PAD, "pad", "bicubic")
    assert np.array_equal(as_authors(ours.image), recorded[f"mapillary{number}_scaled_input"])
    assert np.array_equal(ours.label.numpy(), recorded[f"mapillary{number}_scaled_label"])
    # Their test set: the same image; the label at its own size, padded to the box's shape.
    assert np.array_equal(as_authors(ours.image), recorded[f"mapillary{number}_native_padded_input"])
    theirs, own = recorded[f"mapillary{number}_native_padded_label"], vista(recorded, number).label.numpy()
    height, width = own.shape
    assert padded_size(own.shape, PAD) == theirs.shape
    assert np.array_equal(own, theirs[:height, :width])
    assert (theirs[height:] == IGNORE).all() and (theirs[:, width:] == IGNORE).all()


def test_the_network_sees_what_the_authors_saw(recorded):
    network = DeepLabV2(("a", "b"), encoder="small", weights="scratch", multi_level=False)
    seen = []
    network.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().numpy()[0]))
    box = Augment(resize=SIZES["up"], crop=None, max_class_share=None, flip=0, shape="stretch", kernel="bicubic")
    network.infer(stack([resized(street(recorded), box)]).to("cpu").image)
    # 255 (x / 255) is x but for its last bit.
    np.testing.assert_allclose(seen[0], recorded["gta_up_input"], rtol=0, atol=2 * np.spacing(np.float32(255)))


@pytest.mark.parametrize(("labelling", "count"), MAPS)
def test_every_named_id_becomes_the_authors_train_id(maps, labelling, count):
    theirs = maps[f"{NAMED[labelling]}_{count}"]
    theirs = theirs["0..33"] if labelling == "cityscapes" else theirs
    ours = SPACES[SPACE_OF[count]].lookup(labelling)
    named = list(LABELLINGS[labelling])
    assert [int(ours[id]) for id in named] == [theirs[id] for id in named]
    # The rest they ignore (Cityscapes: an error), and we refuse.
    rest = sorted(set(range(255)) - set(named))
    assert (ours[rest] == UNKNOWN).all()
    assert labelling == "cityscapes" or {theirs[id] for id in rest} == {IGNORE}


def test_every_id_of_mapillary_becomes_the_authors_train_id(maps):
    ours = SPACES["mapillary-7"].lookup("mapillary")
    theirs = maps["Mapillary_66_to_7"]
    assert [LABELLINGS["mapillary"][entry["id"]] for entry in theirs] == [entry["name"] for entry in theirs]
    assert [int(ours[entry["id"]]) for entry in theirs] == [entry["train_id"] for entry in theirs]
    assert {entry["id"] for entry in theirs} == set(LABELLINGS["mapillary"])
    names = maps["Mapillary_7_names"]
    assert list(SPACES["mapillary-7"].classes) == sorted(names.keys() - {"other"}, key=names.get)
    # Theirs leaves ids above 65 as they are, so that 66 would be a class of its own; ours refuses them.
    assert maps["Mapillary_ids_66_to_255"].startswith("unchanged") and (ours[66:255] == UNKNOWN).all()


@pytest.mark.parametrize("count", [19, 16])
def test_classes_have_the_authors_order(maps, count):
    theirs = maps[f"Cityscapes_{count}"]["names_in_info"]
    said = {"traffic light": "light", "traffic sign": "sign", "motorcycle": "motocycle"}
    assert [said.get(name, name) for name in SPACES[SPACE_OF[count]].classes] == theirs
