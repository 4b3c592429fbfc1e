"""The data pipeline against recorded outputs of EB_DA / DAFormer (mmsegmentation 0.16): see
golden/README.md.
"""

import numpy as np
import pytest
import torch

from golden import Golden
from segda.data.labels.spaces import SPACES
from segda.data.stream import stream
from segda.data.stream.augment import augment, cut, fitted_size
from segda.data.stream.distortion import distort
from segda.data.stream.settings import Augment, Distortion, RareClass
from segda.data.stream.stream import Stream, class_probabilities
from segda.scene import Scene

MEAN = np.array([123.675, 116.28, 103.53], np.float32)[:, None, None]
DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)[:, None, None]
TAKES_ALL = Augment(resize=None, crop=None, max_class_share=None, flip=0)


@pytest.fixture(scope="module")
def golden():
    return Golden("daformer_ebda")


@pytest.fixture(scope="module")
def pipeline(golden):
    return golden.npz("pipeline.npz")


@pytest.fixture(scope="module")
def rare(golden):
    return golden.json("rcs.json")


class TheirRandom:
    """numpy's global generator, which the authors draw from, by the names that ours has."""

    def __init__(self, seed: int):
        self.state = np.random.RandomState(seed)

    def integers(self, low: int, high: int) -> int:
        return self.state.randint(low, high)

    def random(self) -> float:
        return self.state.rand()


class TheirCoins(TheirRandom):
    """The same where they toss a coin instead of comparing a number with a probability of a half."""

    def random(self) -> float:
        return 0.0 if self.state.randint(2) else 1.0

    def uniform(self, low: float, high: float) -> float:
        return self.state.uniform(low, high)


def normalised(scene: Scene) -> np.ndarray:
    return (scene.image.numpy().astype(np.float32) - MEAN) / DEVIATION


def recorded_scene(pipeline, label: bool) -> Scene:
    image = torch.from_numpy(pipeline["img_bgr"][..., ::-1].copy()).permute(2, 0, 1)
    return Scene(image, torch.from_numpy(pipeline["label"]) if label else None)


def test_images_are_scaled_to_the_authors_sizes(pipeline):
    table = pipeline["rescale_table_h_w_scale_newh_neww"]
    assert len(table) == 7
    for height, width, *box, new_height, new_width in table.tolist():
        assert fitted_size((height, width), tuple(box)) == (new_height, new_width)


@pytest.mark.parametrize("case", range(4))
def test_source_crops_equal_the_authors_to_the_bit(pipeline, case):
    settings = Augment(resize=(128, 72), crop=(64, 64), max_class_share=0.75, flip=0.5)
    ours = augment(recorded_scene(pipeline, True), settings, TheirRandom(int(pipeline["seeds"][case])))
    assert np.array_equal(normalised(ours), pipeline[f"src{case}_img"])
    assert np.array_equal(ours.label.numpy(), pipeline[f"src{case}_lab"][0])


@pytest.mark.parametrize("case", range(4))
def test_target_crops_equal_the_authors_to_the_bit(pipeline, case):
    settings = Augment(resize=(128, 72), crop=(64, 64), max_class_share=None, flip=0.5)
    ours = augment(recorded_scene(pipeline, False), settings, TheirRandom(int(pipeline["seeds"][case])))
    theirs = pipeline[f"trg{case}_img"]  # of the last two, one channel was kept
    assert np.array_equal(normalised(ours)[: len(theirs)], theirs)


DISTORTION = Distortion(brightness=32, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=18, probability=0.5)


def test_distorted_colours_equal_the_authors_to_the_bit(pipeline):
    image = recorded_scene(pipeline, False).image[:, :48, :64]
    changed = 0
    for case, seed in enumerate(pipeline["seeds"]):
        ours = distort(image, DISTORTION, TheirCoins(int(seed)))
        assert np.array_equal(ours.permute(1, 2, 0).numpy()[..., ::-1], pipeline[f"pmd{case}"])
        changed += not torch.equal(ours, image)
    assert changed > 1


def test_class_probabilities_equal_the_authors(rare):
    counts = np.zeros(19)
    for entry in rare["sample_class_stats"]:
        for key, pixels in entry.items():
            if key != "file":
                counts[int(key)] += pixels
    assert sorted(rare["probs"]) == ["0.01", "0.1", "1.0", "inf"]
    for temperature, theirs in rare["probs"].items():
        ours = class_probabilities(counts, float(temperature))
        # They compute in float32, and the temperature multiplies its rounding.
        np.testing.assert_allclose(ours[theirs["classes"]], theirs["prob"], atol=2e-6)


class Recorded:
    """A source with the recorded statistics. Image i is a line of which a class fills the first 3000 pixels."""

    spec, space, shares = "recorded:train", SPACES["cityscapes-19"], None

    def __init__(self, files: list[str]):
        self.names = tuple(files)
        self.wanted = 0

    def __len__(self) -> int:
        return len(self.names)

    def check_pairs(self) -> None:
        pass

    def read(self, i: int, label: bool) -> Scene:
        ids = torch.full((1, 6000), 255, dtype=torch.uint8)
        ids[:, :3000] = self.wanted
        return Scene(torch.zeros(3, 1, 6000, dtype=torch.uint8), ids, names=(self.names[i],))


@pytest.fixture
def pairs(rare):
    source = Recorded(rare["source_files"])
    statistics = np.zeros((len(source), 20), np.int64)
    for entry in rare["sample_class_stats"]:
        i = rare["file_to_idx"][entry["file"].split("/")[-1]]
        for key, pixels in entry.items():
            if key != "file":
                statistics[i, int(key)] = pixels
    settings = RareClass(
        temperature=rare["temperature"],
        min_pixels=rare["min_pixels"],
        crop_ratio=rare["min_crop_ratio"],
        retries=10,
    )
    return Stream(source, source, 0, TAKES_ALL, TAKES_ALL, settings, statistics)


def test_the_images_that_serve_a_class_are_the_authors(pairs, rare):
    for name, images in zip(range(19), pairs.images_of, strict=True):
        theirs = rare["samples_with_class"].get(str(name), [])
        assert [pairs.source.names[i] for i in images] == sorted(theirs)


def test_crops_are_drawn_again_as_often_as_the_authors_reload(pairs, rare, monkeypatch):
    drawn = 0

    def recorded_box(scene, settings, rng, pixel=None):
        """A crop of 3000 pixels with as many of the class as their stub had in this access."""
        nonlocal drawn
        pixels = (drawn * 701 + i * 97) % 3000
        drawn += 1
        return 0, 3000 - pixels, 1, 3000

    monkeypatch.setattr(stream, "draw_box", recorded_box)
    accesses = []
    for draw in rare["sequence"]:
        pairs.source.wanted, i = draw["c"], draw["source_index"]
        assert i in pairs.images_of[draw["c"]]
        monkeypatch.setattr(pairs, "pick", lambda rng, draw=draw: (draw["c"], draw["source_index"]))
        before = drawn
        assert pairs.scenes(stream.SOURCE, 0)[stream.SOURCE].names == (draw["file"],)
        accesses.append(drawn - before)
    assert accesses == [draw["accesses"] for draw in rare["sequence"]]
    assert len(set(accesses)) > 1


@pytest.mark.parametrize(
    "case", Golden("modern").json("margins.json")["draws"], ids=lambda case: str(case["numpy_seed"])
)
def test_margins_lie_where_hrdas_loader_puts_them(case):
    recorded = Golden("modern").json("margins.json")
    width, height = case["scale"]
    rows, columns = case["crop"]
    # Theirs shrink with the image, to the nearest pixel; ours are those of the image as it was brought to its box.
    shrunk = recorded["label_size"][0] // height
    margins = [part // shrunk for part in recorded["margins_top_bottom_left_right"]]
    settings = Augment(resize=None, crop=(rows, columns), max_class_share=None, flip=0, margins=margins)
    rng = np.random.RandomState(case["numpy_seed"])
    top, left = rng.randint(0, height - rows + 1), rng.randint(0, width - columns + 1)
    scene = Scene(torch.zeros(3, height, width, dtype=torch.uint8))
    ours = cut(scene, (top, left, rows, columns), case["flip"], settings, (0, 0, 0), None).weight
    y1, y2, x1, x2 = case["valid_box_y1_y2_x1_x2"]
    expected = torch.zeros(case["shape"])
    expected[y1:y2, x1:x2] = 1
    assert torch.equal(ours, expected) and ours.sum().item() == case["valid_pixels"]
