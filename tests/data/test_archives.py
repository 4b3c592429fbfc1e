"""Data sets read from the archives they are downloaded as: every row, several workers, and archives that are none."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from layouts import LAYOUTS, ZIPPED, encoded, pack, save, write_row
from segda.commands.check_data import check_data
from segda.data.files.archives import members, read_bytes, state
from segda.data.rows import DATASETS
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.stream.loading import loader
from segda.data.stream.settings import Augment
from segda.data.stream.stream import Stream
from segda.errors import DataError
from segda.pseudo_labelling.job import part_name

PACKED = [layout for layout in LAYOUTS if layout[0] in ZIPPED]


def written(root: Path, name: str) -> Path:
    """A row in its first layout, unpacked."""
    _, template, labelling = next(layout for layout in LAYOUTS if layout[0] == name)
    write_row(root, name, template, labelling)
    return root


@pytest.mark.parametrize(("name", "template", "labelling"), PACKED)
def test_a_packed_row_reads_as_the_unpacked_one(tmp_path, name, template, labelling):
    unpacked, packed = tmp_path / "unpacked", tmp_path / "packed" / DATASETS[name].folders[0]
    scenes = write_row(unpacked, name, template, labelling)
    assert write_row(packed, name, template, labelling).keys() == scenes.keys()
    if not pack(packed, name):
        pytest.skip("this layout is no archive's")
    assert not [path for path in packed.rglob("*") if path.suffix in (".png", ".jpg", ".json")]
    for split, condition in scenes:
        spec = f"{name}:{split}" + (f":{condition}" if condition else "")
        one, two = open_data(spec, unpacked), open_data(spec, tmp_path / "packed")
        assert one.names == two.names and one.images == two.images
        two.check_pairs()
        for i in range(len(one)):
            ours, theirs = two.read(i, label=True), one.read(i, label=True)
            assert torch.equal(ours.image, theirs.image) and torch.equal(ours.label, theirs.label)
            assert (two.class_counts(i) == one.class_counts(i)).all()
            assert ".zip/" in two.image_path(i).as_posix() and not two.image_path(i).is_file()
        assert len(set(two.label_marks())) == len({two.label_name(i) for i in range(len(two))})


def test_the_root_itself_may_hold_the_archives_of_several_sets(tmp_path):
    for name in ("cityscapes", "camvid-32"):
        pack(written(tmp_path, name), name)
    assert len(open_data("cityscapes:train", tmp_path)) == 2 and len(open_data("camvid-32:train", tmp_path)) == 4
    with pytest.raises(DataError, match="no folder"):
        open_data("muses:train", tmp_path)


def test_what_lies_unpacked_comes_before_the_archive_and_both_together_are_the_set(tmp_path):
    root = written(tmp_path / "cityscapes", "cityscapes")
    image = root / "leftImg8bit/train/town/scene_0_leftImg8bit.png"
    pack(root, "cityscapes")
    save(image, np.full((6, 9, 3), 77, np.uint8))
    data = open_data("cityscapes:train", tmp_path)
    assert len(data) == 2 and data.image_path(0) == image and (data.read(0).image == 77).all()
    assert data.image_path(1).parts[-5] == "leftImg8bit_trainvaltest.zip"
    save(image.with_name("another_leftImg8bit.png"), np.zeros((6, 9, 3), np.uint8))
    assert [name.split("_")[0] for name in open_data("cityscapes:train", tmp_path).names] == [
        "another",
        "scene",
        "scene",
    ]


class Items(torch.utils.data.Dataset):
    def __init__(self, read: Callable, count: int):
        self.read, self.count = read, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, n: int) -> tuple[int, bytes]:
        return os.getpid(), self.read(n)


def test_several_workers_read_one_archive_that_is_open_already(tmp_path):
    rng = np.random.default_rng(0)
    contents = [rng.integers(0, 256, 60_000).astype(np.uint8).tobytes() for _ in range(24)]
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for n, content in enumerate(contents):
            packed.writestr(f"{n}.bin", content)
    paths = [archive / f"{n}.bin" for n in range(24)]
    assert read_bytes(paths[3]) == contents[3]  # open in this process, whose place in it must not be shared
    loader = DataLoader(Items(lambda n: read_bytes(paths[n]), 24), batch_size=None, num_workers=2)
    got = list(loader)
    assert [content for _, content in got] == contents and len({process for process, _ in got}) == 2


def test_the_stream_from_archives_is_that_of_the_files_for_any_number_of_workers(tmp_path):
    look = Augment(resize=None, crop=(4, 4), max_class_share=None, flip=0.5)
    streams = []
    for packed, workers in ((False, 0), (True, 0), (True, 2)):
        root = tmp_path / f"{packed}{workers}"
        for name in ("cityscapes", "dark-zurich"):
            written(root / name, name)
            if packed:
                pack(root / name, name)
        source, target = (open_data(spec, root) for spec in ("cityscapes:train", "dark-zurich:train:night"))
        streams.append([batch for (batch,) in loader(Stream(source, target, 7, look, look), 2, 0, 3, workers, 7)])
    for batches in streams[1:]:
        for ours, theirs in zip(batches, streams[0], strict=True):
            assert torch.equal(ours.source.image, theirs.source.image)
            assert torch.equal(ours.source.label, theirs.source.label)
            assert torch.equal(ours.target.image, theirs.target.image) and ours.target.label is None


def test_statistics_from_an_archive_are_counted_again_only_when_its_labels_change(tmp_path):
    root = written(tmp_path / "cityscapes", "cityscapes")
    label = root / "gtFine/train/town/scene_0_gtFine_labelIds.png"
    own = label.read_bytes()
    _, archive = pack(root, "cityscapes")
    data = open_data("cityscapes:train", tmp_path)
    counts = class_statistics(data, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    before = kept.stat().st_mtime_ns
    archive.rename(archive.with_suffix(".old"))  # the same archive, copied anew
    archive.write_bytes(archive.with_suffix(".old").read_bytes())
    assert (class_statistics(open_data("cityscapes:train", tmp_path), tmp_path / "kept") == counts).all()
    assert kept.stat().st_mtime_ns == before
    archive.unlink()
    label.write_bytes(own)
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(label, "gtFine/train/town/scene_0_gtFine_labelIds.png")
        packed.writestr("gtFine/train/town/scene_1_gtFine_labelIds.png", encoded(np.full((6, 9), 7, np.uint8)))
    label.unlink()
    again = class_statistics(open_data("cityscapes:train", tmp_path), tmp_path / "kept")
    assert again[1, 0] == 54 and (again[0] == counts[0]).all()


def test_sizes_and_marks_of_packed_images_are_known(tmp_path):
    pack(written(tmp_path / "cityscapes", "cityscapes"), "cityscapes")
    data = open_data("cityscapes:train", tmp_path)
    assert [data.size(i) for i in range(2)] == [(6, 9)] * 2 and len({part_name(data, i) for i in range(2)}) == 2


# Archives that are none.


@pytest.fixture
def cityscapes(tmp_path):
    """The archives of the small Cityscapes."""
    root = written(tmp_path / "cityscapes", "cityscapes")
    return pack(root, "cityscapes")


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        data = open_data("cityscapes:train", root)
        for i in range(len(data)):
            data.read(i, label=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ZIPPED)
def test_half_an_archive_of_any_row_is_refused_even_where_the_other_is_whole(name, tmp_path):
    for archive in pack(written(tmp_path / DATASETS[name].folders[0], name), name):
        content = archive.read_bytes()
        archive.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=f"^{archive}: half an archive, or none"):
            data = open_data(f"{name}:{DATASETS[name].splits[0]}", tmp_path)
            data.check_pairs()
        archive.write_bytes(content)


def test_half_an_archive_is_named_with_the_way_out(cityscapes, tmp_path):
    images = cityscapes[0]
    size = images.stat().st_size
    images.write_bytes(images.read_bytes()[: size // 2])
    assert refused(tmp_path) == (
        f"{images}: half an archive, or none ({size // 2} bytes without an end); download it again, or remove it if "
        "its content lies unpacked beside it"
    )
    with pytest.raises(DataError, match="half an archive"):
        check_data("cityscapes:train", tmp_path)
    images.write_bytes(b"")
    assert "half an archive, or none (0 bytes" in refused(tmp_path)


def test_a_damaged_member_is_named_with_its_archive(cityscapes, tmp_path):
    labels = cityscapes[1]
    with zipfile.ZipFile(labels) as packed:
        info = packed.infolist()[-1]
    spoilt = bytearray(labels.read_bytes())
    at = info.header_offset + 30 + len(info.filename) + 20
    spoilt[at] ^= 0xFF
    labels.write_bytes(spoilt)
    with pytest.raises(
        DataError, match=rf"^{labels} is damaged at {info.filename} \(.*\); download it again, or remove"
    ):
        read_bytes(labels / info.filename)


@pytest.mark.parametrize(
    "name", ["../out.png", "/etc/out.png", "leftImg8bit/../../out.png", "C:/out.png", "leftImg8bit\\..\\out.png"]
)
def test_a_member_that_leads_out_of_the_archive_is_refused_and_nothing_is_written(cityscapes, tmp_path, name):
    with zipfile.ZipFile(cityscapes[0], "a") as packed:
        packed.writestr(zipfile.ZipInfo(name), b"x")
    before = sorted(tmp_path.rglob("*"))
    message = refused(tmp_path)
    assert message.startswith(f"{cityscapes[0]}: its member {name!r} leads out of the archive; do not use it, download")
    assert sorted(tmp_path.rglob("*")) == before


def test_hidden_files_of_a_mac_are_no_images(cityscapes, tmp_path):
    with zipfile.ZipFile(cityscapes[0], "a") as packed:
        packed.writestr("__MACOSX/leftImg8bit/train/town/._scene_0_leftImg8bit.png", b"\0\5\x16\7")
        packed.writestr("leftImg8bit/train/town/._scene_0_leftImg8bit.png", b"\0\5\x16\7")
    hidden = cityscapes[0].parent / "leftImg8bit/train/town/._scene_1_leftImg8bit.png"
    hidden.write_bytes(b"\0\5\x16\7")
    assert len(open_data("cityscapes:train", tmp_path)) == 2


def test_a_member_that_unpacks_to_more_than_any_picture_is_refused(cityscapes, tmp_path, monkeypatch):
    monkeypatch.setattr("segda.data.files.archives.MEGABYTES", 0)
    assert "0 megabytes unpacked, more than 0; download it again" in refused(tmp_path)


def test_an_archive_with_a_password_must_be_unpacked(cityscapes, tmp_path):
    content = bytearray(cityscapes[0].read_bytes())
    for signature, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):  # the flag of each member, in both places
        start = content.find(signature)
        while start >= 0:
            content[start + at] |= 1
            start = content.find(signature, start + 4)
    cityscapes[0].write_bytes(content)
    message = refused(tmp_path)
    assert message.startswith(
        f"{cityscapes[0]}: leftImg8bit/train/town/scene_0_leftImg8bit.png cannot be read in place"
    )
    assert message.endswith("; unpack the archive")


def test_paths_that_only_look_like_archives_are_files(tmp_path):
    folder = tmp_path / "a.zip"
    folder.mkdir()
    (folder / "x.bin").write_bytes(b"here")
    assert read_bytes(folder / "x.bin") == b"here" and state(folder / "x.bin")[0] == 4
    for absent in (folder / "y.bin", tmp_path / "b.zip" / "y.bin", tmp_path / "y.bin"):
        with pytest.raises(FileNotFoundError):
            read_bytes(absent)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as packed:
        packed.writestr("in/x.bin", b"there")
        packed.mkdir("in/none")
    assert members(tmp_path / "c.zip") == ("in/x.bin",) and read_bytes(tmp_path / "c.zip/in/x.bin") == b"there"
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "c.zip" / "in" / "y.bin")


# Archives that are missing.


def test_a_missing_archive_is_named_with_its_page(cityscapes, tmp_path):
    page = DATASETS["cityscapes"].page
    cityscapes[1].unlink()
    with pytest.raises(DataError, match=rf"have no label, .*; get gtFine_trainvaltest.zip from {page} and see docs"):
        open_data("cityscapes:train", tmp_path).check_pairs()
    report = check_data("cityscapes:train", tmp_path)
    assert report.usable and report.labels == 0
    assert f"labels of 0 of 2 images; for more, get gtFine_trainvaltest.zip from {page}" in "\n".join(report.notes)
    cityscapes[0].unlink()
    with pytest.raises(DataError, match=rf"no images match .*; get leftImg8bit_trainvaltest.zip from {page} and see"):
        open_data("cityscapes:train", tmp_path)


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if row.archives])
def test_every_row_says_which_archive_its_missing_images_are_in(name, tmp_path):
    row = DATASETS[name]
    for split in row.splits:
        with pytest.raises(DataError) as caught:
            open_data(f"{name}:{split}", tmp_path)
        files = [path for variant in row.variants() for path in variant.image_files(split)]
        due = {one.name for one in row.archives if any(path.startswith(one.holds) for path in files)}
        message = str(caught.value)
        assert due and message.endswith(f"from {row.page} and see docs/DATA.md, or give another root")
        assert {name for name in {one.name for one in row.archives} if name in message} == due
