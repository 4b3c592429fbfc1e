"""How quickly images and labels are read: images a second beside the bare decoders, as Markdown tables.

    python benchmarks/readers.py [SECONDS] [IMAGES]

Drawn streets of 2048 x 1024, with noise as a camera has it, as PNG, as JPEG (quality 95) and in a zip archive; labels
as greyscale PNG. "Reader" is DataSet.read, "bare" the decoder alone on the same bytes (OpenCV for images, Pillow for
labels), "crop" a whole draw of the stream: resize to 1024 x 512, crop 512 x 512, flip. One thread, one process. Below
that: listing 5,000 images of Cityscapes, first and again, and the class statistics of 1,000 labels in all processes.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segda.data.labels.spaces import SPACES
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.stream.settings import Augment
from segda.data.stream.stream import SOURCE, TARGET, Stream
from segda.data.streets import streets
from segda.ground.pool import cores

SIZE = (1024, 2048)
LISTED, COUNTED = 5000, 1000
LOOK = Augment(resize=(1024, 512), crop=(512, 512), max_class_share=None, flip=0.5)
TARGET_SHARE = 0.8
"""Of the bare decoder's throughput: what the reader should reach."""


def main(seconds: float, images: int) -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        draw(root, images)
        print("| 2048 x 1024 | bare, images/s | reader, images/s | share | draw with crop, images/s |")
        print("|---|---:|---:|---:|---:|")
        for title, name, label in (
            ("PNG", "png", False),
            ("JPEG", "jpeg", False),
            ("PNG in a zip archive", "zip", False),
            ("PNG and label", "png", True),
            ("JPEG and label", "jpeg", True),
        ):
            data = open_data(
                f"folder:{root}/{name}.yaml:train" if name != "zip" else "cityscapes:train", root / "zipped"
            )
            bare = rate(lambda i, data=data, label=label: decode(data, i, label), len(data), seconds)
            ours = rate(lambda i, data=data, label=label: data.read(i, label=label), len(data), seconds)
            pairs = Stream(data, data, 0, LOOK, LOOK)
            draws = rate(partial(pairs.scenes, SOURCE if label else TARGET), 1 << 30, seconds)
            print(f"| {title} | {bare:.1f} | {ours:.1f} | {ours / bare:.0%} | {draws:.1f} |")
        print(f"\nThe reader should reach {TARGET_SHARE:.0%} of the bare decoder.\n")
        listing(root / "listed")
        statistics(root)


def draw(root: Path, images: int) -> None:
    """The pictures as folders, and in Cityscapes' archives."""
    rng = np.random.default_rng(0)
    classes = "".join(f"  {name}: {{id: {id}}}\n" for id, name in enumerate(SPACES["cityscapes-19"].classes))
    for kind in ("png", "jpeg"):
        (root / kind).mkdir()
        told = f"splits: {{train: {{images: {kind}, labels: labels}}}}\nspace: cityscapes-19\nclasses:\n{classes}"
        (root / f"{kind}.yaml").write_text(told)
    (root / "labels").mkdir()
    archives = root / "zipped"
    archives.mkdir()
    with (
        zipfile.ZipFile(archives / "leftImg8bit_trainvaltest.zip", "w") as pictures,
        zipfile.ZipFile(archives / "gtFine_trainvaltest.zip", "w") as labels,
    ):
        for i in range(images):
            scene = streets.draw(0, i, "day", SIZE)
            noisy = np.clip(scene.image + rng.normal(0, 3, scene.image.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / "png" / f"{i}.png", compress_level=6)
            Image.fromarray(noisy).save(root / "jpeg" / f"{i}.jpg", quality=95)
            Image.fromarray(scene.label).save(root / "labels" / f"{i}.png")
            pictures.write(root / "png" / f"{i}.png", f"leftImg8bit/train/a/{i}_leftImg8bit.png")
            labels.write(root / "labels" / f"{i}.png", f"gtFine/train/a/{i}_gtFine_labelTrainIds.png")


def decode(data, i: int, label: bool) -> None:
    """The bytes, and nothing but their decoders."""
    path = data.image_path(i)
    content = path.read_bytes() if path.is_file() else packed(data.folder).read(data.images[i])
    cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if label:
        with Image.open(io.BytesIO(data.label_path(i).read_bytes())) as picture:
            np.array(picture)


@lru_cache
def packed(folder: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(folder / "leftImg8bit_trainvaltest.zip")


def rate(work: Callable[[int], object], count: int, seconds: float) -> float:
    """How often a second, after a first round."""
    work(0)
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or done < 3:
        work(done % count)
        done += 1
    return done / spent


def listing(root: Path) -> None:
    """How long it takes to open a Cityscapes of 5,000 images, and to see that each has its label."""
    for k in range(LISTED):
        for path in (
            f"leftImg8bit/train/city{k % 20}/k{k}_leftImg8bit.png",
            f"gtFine/train/city{k % 20}/k{k}_gtFine_labelIds.png",
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        data = open_data("cityscapes:train", root)
        opened = time.perf_counter()
        data.check_pairs()
        spent.append((opened - start, time.perf_counter() - opened))
    (first, found), (again, found_again) = spent[0], min(spent[1:])
    print(f"{LISTED:,} images listed in {first:.2f} s, again in {again:.2f} s;")
    print(f"their labels found in {found:.2f} s, again in {found_again:.2f} s.\n")


def statistics(root: Path) -> None:
    """Class statistics of 1,000 labels; they are a few files, each under many names."""
    folder = root / "many"
    few = sorted((root / "labels").iterdir())
    for k in range(COUNTED):
        for source, path in (
            (root / "png" / "0.png", f"leftImg8bit/train/a/{k}_leftImg8bit.png"),
            (few[k % len(few)], f"gtFine/train/a/{k}_gtFine_labelTrainIds.png"),
        ):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(source)
    data = open_data("cityscapes:train", folder)
    start = time.perf_counter()
    class_statistics(data, root / "kept")
    counted = time.perf_counter()
    class_statistics(data, root / "kept")
    kept = time.perf_counter() - counted
    print(f"Statistics of {COUNTED:,} labels of 2048 x 1024 in {cores()} processes: {counted - start:.1f} s;")
    print(f"kept ones in {kept:.2f} s.")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0, int(sys.argv[2]) if len(sys.argv) > 2 else 6)
