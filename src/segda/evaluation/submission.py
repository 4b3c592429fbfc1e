"""The archives that evaluation servers take.

Cityscapes: `evalPixelLevelSemanticLabeling.py` looks for CITY_SEQ_FRAME*.png in all folders, just one for each image,
and reads 8-bit label ids of the image's size; mcordts/cityscapesScripts#65 and #117 say the same of the server.

Dark Zurich (CodaLab 23553, now 3783 of codalab.lisn): the folders labelTrainIds, labelTrainIds_invalid and confidence
are all needed (README of BIT-DA/SePiCo, W-zx-Y/DANNet#11); confidence has 16 bits, 65535 for 1 (Attila94/CIConv writes
it so). IoU is counted in the first; the other two are for UIoU, where a label may be 255, "invalid". No pixel is called
invalid here, so that those labels are the first ones again; confidence is the mean probability of the class. Not seen:
the rules on the server's own page. That files are found by SEQUENCE_frame_NUMBER*.png is from other users' scripts.

ACDC: lhoyer/MIC writes train ids, one file an image under its own name, into a folder labelTrainIds and hands that in;
brdav/refign writes the same files. One zip serves for all conditions or for one of them, which is chosen at the server
(brdav/cma#4). Not seen: the rules on the server's own page, which wants a login. That the folder's name matters, and
folders below it do not, is from other users' scripts.

No archive of ours has been sent to any of the three.
"""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from segda.data.labels.label_ids import label_ids
from segda.data.labels.spaces import SPACES, Space
from segda.data.sets.given import Given, GivenImages
from segda.distributed import group
from segda.errors import DataError, RecipeError, RunError, nearest
from segda.evaluation.certainty import labels, labels_and_confidence
from segda.evaluation.look import Eye, Sight, agreed, look
from segda.ground.alone import first_alone_in
from segda.ground.atomic import atomic_write, cannot_write
from segda.ground.choices import Ids

Content = Literal["ids", "confidence"]
"""Of a submission's pictures."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What an evaluation server takes: a zip of PNGs, one an image in each folder, under the image's own name.

    images, size: of its test set; (width, height) in pixels. ids: what the labels are written in.
    name, example: how an image's name begins, by which the server finds what belongs to it.
    folders: in the archive, and what is in their files.
    """

    page: str
    images: int
    size: tuple[int, int]
    ids: Ids
    name: str
    example: str
    folders: Mapping[str, Content]

    @property
    def confident(self) -> bool:
        """Whether it asks how sure the network is."""
        return "confidence" in self.folders.values()


SEQUENCE = r"\w+?_frame_\d{6}"

SERVERS: dict[str, Server] = {
    "cityscapes": Server(
        page="https://www.cityscapes-dataset.com/submit/",
        images=1525,
        size=(2048, 1024),
        ids="label",
        name=r"[a-z-]+_\d{6}_\d{6}",
        example="berlin_000000_000019",
        folders={"": "ids"},
    ),
    "acdc": Server(
        page="https://acdc.vision.ee.ethz.ch/submit",
        images=2000,
        size=(1920, 1080),
        ids="train",
        name=SEQUENCE,
        example="GOPR0356_frame_000321",
        folders={"labelTrainIds/": "ids"},
    ),
    "dark-zurich": Server(
        page="https://codalab.lisn.upsaclay.fr/competitions/3783",
        images=151,
        size=(1920, 1080),
        ids="train",
        name=SEQUENCE,
        example="GOPR0356_frame_000321",
        folders={"labelTrainIds/": "ids", "labelTrainIds_invalid/": "ids", "confidence/": "confidence"},
    ),
}


def server_named(name: str, space: Space) -> Server:
    """The server of that name, for a network of that space; RecipeError if there is none, or for other classes."""
    if name not in SERVERS:
        raise RecipeError(f"--submission: unknown server {name!r}{nearest(name, SERVERS)}")
    theirs = SPACES["cityscapes-19"].classes
    if space.classes != theirs:
        raise RecipeError(
            f"--submission {name}: the network's {len(space.classes)} classes (space {space.name}) are not the "
            f"server's {len(theirs)}; use a network of Cityscapes' classes"
        )
    return SERVERS[name]


def check_names(server: Server, stems: Mapping[str, str]) -> None:
    """DataError unless the server can tell by an image's name what it is of. stems: where an image is -> its stem."""
    owner: dict[str, str] = {}
    for where, stem in stems.items():
        match = re.match(server.name, stem)
        if match is None:
            raise DataError(
                f"{where}: the server finds labels by a name that begins as {server.example}; give the images of its "
                "test set under their own names"
            )
        if (other := owner.setdefault(match[0], where)) != where:
            raise DataError(f"{other} and {where} are both {match[0]} to the server; give one of them")


def check_size(server: Server, where: str, size: tuple[int, int]) -> None:
    """DataError unless an image of (height, width) has the size of the server's labels."""
    width, height = server.size
    if size != (height, width):
        raise DataError(
            f"{where} is {size[1]}x{size[0]}, the server's labels are {width}x{height}; give the images as they were "
            "downloaded"
        )


def check_archive(path: Path, overwrite: bool) -> None:
    """RunError unless an archive can be written there anew, or in place of what is there if that is agreed to."""
    if path.suffix.lower() != ".zip":
        raise RunError(f"{path}: a submission is one archive; give a name that ends in .zip with --out")
    if path.exists() and not overwrite:
        raise RunError(f"{path} is there already; use --overwrite to replace it, or give another --out")


def submitted(
    server: Server, space: Space, label: np.ndarray, confidence: np.ndarray | None = None
) -> dict[Content, bytes]:
    """PNGs of an image's (H, W) train ids and, where the server asks for it, (H, W) confidence in [0, 1]."""
    assert (confidence is not None) == server.confident
    table = label_ids(space) if server.ids == "label" else np.arange(256, dtype=np.uint8)
    content: dict[Content, bytes] = {"ids": grey_png(table[label])}
    if confidence is not None:
        content["confidence"] = grey_png((confidence.clip(0, 1) * 65535 + 0.5).astype(np.uint16))
    return content


def write_archive(path: Path, server: Server, images: Iterable[tuple[str, Mapping[Content, bytes]]]) -> None:
    """The zip of a submission, whole or not at all: of each image its stem and what is submitted of it, in this order.

    The same predictions make the same bytes.
    """
    # PNGs are compressed already.
    with atomic_write(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        for stem, content in images:
            for folder, what in server.folders.items():
                entry = zipfile.ZipInfo(f"{folder}{stem}.png")  # of 1980: the time is no part of a prediction
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content[what])


class Parts:
    """What several processes made of an archive's images, as files in a folder beside it, until one of them writes it.
    Who holds the folder writes the archive.

    The folder has the same name the next time: what a killed call left goes then.
    """

    def __init__(self, archive: Path, server: Server):
        self.folder = archive.with_name(f".{archive.name}.parts")
        self.kinds = tuple(dict.fromkeys(server.folders.values()))

    def _path(self, i: int, kind: Content) -> Path:
        return self.folder / f"{i:06d}-{kind}.png"

    def make_place(self) -> None:
        """The folder of the archive."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder.parent, error) from error

    def begin(self) -> None:
        """Removes another call's."""
        try:
            for path in self.folder.glob("*.png"):
                path.unlink()
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def write(self, i: int, content: Mapping[Content, bytes]) -> None:
        for kind in self.kinds:
            try:
                self._path(i, kind).write_bytes(content[kind])
            except OSError as error:
                raise cannot_write(self._path(i, kind), error) from error

    def read(self, i: int) -> dict[Content, bytes]:
        return {kind: self._path(i, kind).read_bytes() for kind in self.kinds}

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def grey_png(values: np.ndarray) -> bytes:
    """(H, W) uint8 or uint16 -> greyscale PNG, whose values every reader takes as they are; a palette's are colours to
    some.
    """
    content = io.BytesIO()
    Image.fromarray(values).save(content, "PNG")
    return content.getvalue()


def submit(out: Path, server: Server, space: Space, images: Sequence[Given], eye: Eye) -> None:
    """The zip of a submission, whole or not at all, of the processes' predictions of their own images."""

    def made(sight: Sight) -> tuple[int, dict[Content, bytes]]:
        if server.confident:
            label, confidence = (each.cpu().numpy() for each in labels_and_confidence(sight.views, sight.size))
            return sight.index, submitted(server, space, label, confidence)
        return sight.index, submitted(server, space, labels(sight.views, sight.size).cpu().numpy())

    shown, parts = GivenImages(images), Parts(out, server)
    group.on_rank_zero(parts.make_place)
    with first_alone_in([parts.folder], f"another process writes {out}"):
        group.on_rank_zero(parts.begin)
        if group.world() == 1:
            found = look([eye], shown, made, title="predict")
            write_archive(out, server, ((images[i].stem, content) for i, content in found))
            return
        try:
            agreed(look([eye], shown, lambda sight: parts.write(*made(sight)), title="predict"))
            every = ((image.stem, parts.read(i)) for i, image in enumerate(images))
            group.on_rank_zero(write_archive, out, server, every)
        finally:
            if group.rank() == 0:
                parts.remove()
