"""References in the stream: resized, cut and mirrored as their image, read without labels, left out with it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from segda.data.sets.datasets import open_data
from segda.data.sets.pairs import partners
from segda.data.stream.loading import Skip, loader
from segda.data.stream.settings import Augment, Distortion
from segda.data.stream.stream import References, Stream
from segda.errors import DataError, ImageError, RunFailure
from segda.scene import Batch, Scene
from streams import cut_off, make_deadly

SIZE = (40, 60)
COUNT = 3
LIVELY = Distortion(brightness=32, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=18, probability=1)
LOOKS = {
    "as it is": {"resize": None, "crop": None},
    "crop": {"resize": None, "crop": (24, 32)},
    "resized crop": {"resize": (45, 30), "crop": (16, 16)},
    "smoothed": {"resize": (30, 45), "crop": (16, 16), "kernel": "bicubic"},
    "stretched": {"resize": (50, 50), "crop": (24, 32), "shape": "stretch"},
    "padded": {"resize": (50, 50), "crop": (40, 40), "shape": "pad"},
    "crop beyond the edge": {"resize": None, "crop": (64, 32), "ignore_top": 3},
    "scaled": {"scale": (0.8, 1.2), "crop": (24, 32), "kernel": "bicubic"},
    "scaled crop of another size": {"resize": (45, 30), "scale": (0.5, 1), "crop": (20, 20), "bring_to": (12, 16)},
}


def settings(**given) -> Augment:
    return Augment(**{"max_class_share": None, "flip": 0.5, "resize": None, "crop": (24, 32)} | given)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Day and night of three places: the same picture, at night with its channels turned round. Elsewhere it is day."""
    for k in range(COUNT):
        picture = cv2.resize(np.random.default_rng(k).integers(0, 256, (5, 8, 3)).astype(np.uint8), SIZE[::-1])
        for folder, pixels in (("day", picture), ("night", picture[..., ::-1]), ("elsewhere", picture)):
            path = tmp_path / f"{folder}/{k}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
            label = tmp_path / f"{folder}-labels/{k}.png"
            label.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full(SIZE, k % 2, np.uint8)).save(label)
    (tmp_path / "places.yaml").write_text(
        "splits:\n"
        "  day: {images: day, labels: day-labels}\n"
        "  night: {images: night, labels: night-labels}\n"
        "  elsewhere: {images: elsewhere, labels: elsewhere-labels}\n"
        "classes: {ground: {id: 0}, sky: {id: 1}}\n"
    )
    return tmp_path


def stream_of(root: Path, look: Augment, of: str = "target", referenced: bool = True) -> Stream:
    """Night is the domain `of`, day its reference; the other domain is elsewhere."""
    day, night, elsewhere = (open_data(f"folder:{root}/places.yaml:{split}") for split in ("day", "night", "elsewhere"))
    references = References(day, of, partners(night, day)) if referenced else None
    source, target = (elsewhere, night) if of == "target" else (night, elsewhere)
    return Stream(source, target, 3, look, look, references=references)


def batches(stream: Stream, workers: int = 0, **given) -> Iterator[Batch]:
    return chain.from_iterable(loader(stream, 1, 0, 9, workers, 3, **given))


def turned(scene: Scene) -> torch.Tensor:
    return scene.image.flip(0)


@pytest.mark.parametrize("of", ["target", "source"])
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_reference_is_cut_and_mirrored_as_its_image(root, look, of):
    # Padding is black, so that it has the same colour either way round.
    stream = stream_of(root, settings(**look), of)
    stream.fill = (0.0, 0.0, 0.0)
    for n in range(8):
        drawn = stream[n]
        image = drawn.target if of == "target" else drawn.source
        assert torch.equal(turned(drawn.reference), image.image) and drawn.reference.names == image.names
        assert drawn.reference.label is None
        assert (drawn.reference.weight is None) == (image.weight is None)
        assert image.weight is None or torch.equal(drawn.reference.weight, image.weight)


@pytest.mark.parametrize("of", ["target", "source"])
def test_other_scenes_are_the_same_with_references_and_without(root, of):
    look = settings(distort=LIVELY)
    with_them, without = (stream_of(root, look, of, referenced) for referenced in (True, False))
    for n in range(8):
        ours, theirs = with_them[n], without[n]
        assert torch.equal(ours.source.image, theirs.source.image) and torch.equal(
            ours.source.label, theirs.source.label
        )
        assert torch.equal(ours.target.image, theirs.target.image) and theirs.reference is None


def test_a_references_colours_stay_as_they_are(root):
    plain, lively = stream_of(root, settings()), stream_of(root, settings(distort=LIVELY))
    assert torch.equal(plain[0].reference.image, lively[0].reference.image)
    assert not torch.equal(plain[0].target.image, lively[0].target.image)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_reference_of_another_size_is_brought_to_its_images(root, look):
    small = stream_of(root, settings(**look))
    for k in range(COUNT):
        path = root / f"day/{k}.png"
        Image.open(path).resize((120, 80), Image.Resampling.NEAREST).save(path)
    large = stream_of(root, settings(**look))
    for n in range(4):
        ours, theirs = large[n].reference.image, small[n].reference.image
        assert ours.shape == theirs.shape
        # Twice as large, pixel by pixel: what it shows is in the same place.
        assert (ours.float() - theirs.float()).abs().mean() < 6


def test_a_reference_of_another_shape_is_refused_with_both_files(root):
    Image.new("RGB", (60, 41)).save(root / "day/1.png")
    list(batches(stream_of(root, settings())))  # a pixel is rounding
    Image.new("RGB", (60, 45)).save(root / "day/1.png")
    with pytest.raises(DataError) as caught:
        list(batches(stream_of(root, settings()), on_bad_image="skip"))
    assert str(caught.value).startswith(
        f"{root}/day/1.png is 60x45, of another shape than the 60x40 of {root}/night/1.png, whose reference it is; give"
    )


@pytest.mark.parametrize("of", ["target", "source"])
def test_labels_of_references_are_never_opened(root, of):
    look = settings()
    before = [stream_of(root, look, of)[n] for n in range(6)]
    # The source's own labels are read.
    for folder in ("day", "night" if of == "target" else "elsewhere"):
        for path in (root / f"{folder}-labels").iterdir():
            path.write_bytes(b"no label")
    stream = stream_of(root, look, of)
    for n, theirs in enumerate(before):
        assert torch.equal(stream[n].reference.image, theirs.reference.image) and stream[n].reference.label is None
        assert torch.equal(stream[n].target.image, theirs.target.image) and stream[n].target.label is None


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_the_reference_of_each_image_however_they_are_made(root, workers):
    stream = stream_of(root, settings())
    for n, batch in enumerate(batches(stream, workers)):
        assert torch.equal(batch.reference.image[0], stream[n].reference.image)
        assert batch.reference.names == batch.target.names
        moved = batch.to("cpu")
        assert torch.equal(moved.reference.image.flip(1), moved.target.image) and moved.share is batch.share
        assert list(batch.scenes) == ["source", "target", "reference"]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_whose_reference_is_damaged_is_left_out_with_it(root, workers):
    path = root / "day/1.png"
    stream = stream_of(root, settings())
    whole = list(batches(stream))
    cut_off(path)
    with pytest.raises(ImageError, match="cut off after") as caught:
        list(batches(stream, workers))
    assert caught.value.path == str(path)
    skipped: list[Skip] = []
    ours = list(batches(stream, workers, on_bad_image="skip", skipped=skipped.append))
    # A draw in its place may be of the same image.
    assert {one.draw for one in skipped} == {n for n, one in enumerate(whole) if one.target.names == ("1",)}
    assert {one.path for one in skipped} == {str(path)} and len({one.draw for one in skipped}) == 3
    for n, (one, other) in enumerate(zip(ours, whole, strict=True)):
        assert torch.equal(one.source.image, other.source.image), "the source's draw is another"
        assert torch.equal(one.reference.image.flip(1), one.target.image)
        assert (one.target.names == other.target.names) == (n not in {skip.draw for skip in skipped})


def test_a_reference_that_kills_its_reader_is_named_as_one(root, tmp_path, monkeypatch):
    stream = stream_of(root, settings(), "source")
    make_deadly(root / "day/2.png", tmp_path / "deaths", monkeypatch)
    with pytest.raises(
        RunFailure, match=r"day/2.png: two processes died \(SIGKILL\) while it read .* of the reference;"
    ):
        list(batches(stream, 1))
    skipped: list[Skip] = []
    ours = list(batches(stream, 1, on_bad_image="skip", skipped=skipped.append))
    assert ("2",) not in [batch.source.names for batch in ours]
    assert len({skip.draw for skip in skipped}) == 3 and {skip.path for skip in skipped} == {f"{root}/day/2.png"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_without_a_source_draws_the_same_targets(root, workers):
    look = settings()
    both = stream_of(root, look)
    alone = Stream(None, both.target, 3, None, look, references=both.references)
    assert alone[0].source is None
    for ours, theirs in zip(batches(alone, workers), batches(both), strict=True):
        assert ours.source is None and torch.equal(ours.target.image, theirs.target.image)
        assert torch.equal(ours.reference.image, theirs.reference.image) and ours.to("cpu").source is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a cuda device")
def test_references_for_a_cuda_device_lie_in_memory_that_it_reads_by_itself(root):
    assert all(batch.reference.image.is_pinned() for batch in batches(stream_of(root, settings()), pin=True))
