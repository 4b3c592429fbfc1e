"""Pixels of each class: counted by several processes, kept between runs, counted again when something has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data.test_stream import corner, write_source
from layouts import save
from segda.data.labels.spaces import SPACES
from segda.data.sets import class_statistics as counting
from segda.data.sets import files as file_sets
from segda.data.sets import streets as street_sets
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.dataset import DataSet
from segda.data.sets.datasets import open_data
from segda.data.sets.streets import Streets
from segda.data.streets import streets
from segda.data.streets.conditions import SPLITS
from segda.distributed import group
from segda.errors import DataError
from segda.ground import progress
from segda.ground.pool import Pool

# More processes than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "data", {"a": corner(10, 10), "b": corner(3, 7, "car")})


def counted(monkeypatch) -> list[Path]:
    """The label files that are opened from now on."""
    opened = []
    plain = file_sets.read_ids
    monkeypatch.setattr(file_sets, "read_ids", lambda path, decoder: (opened.append(path), plain(path, decoder))[1])
    return opened


def test_pixels_of_each_class_are_counted_and_kept(source, tmp_path, monkeypatch):
    opened = counted(monkeypatch)
    road, pole, car = (source.space.classes.index(name) for name in ("road", "pole", "car"))
    theirs = np.zeros((2, 12), np.int64)
    theirs[0, [road, pole]] = 3100, 100
    theirs[1, [road, car]] = 3179, 21
    assert class_statistics(source, tmp_path / "kept").tolist() == theirs.tolist()
    assert len(opened) == 2
    assert class_statistics(source, tmp_path / "kept").tolist() == theirs.tolist()
    assert len(opened) == 2, "counted again"
    assert class_statistics(source, None).tolist() == theirs.tolist()
    assert len(opened) == 4
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["camvid-train-camvid-11.npz"]


def test_ignored_pixels_are_counted_last(tmp_path):
    label = corner(10, 10)
    label[0, :3], label[1, :4] = 11, 255
    assert class_statistics(write_source(tmp_path, {"a": label}), None)[0, -1] == 7


def test_a_label_that_changed_is_counted_again(source, tmp_path, monkeypatch):
    before = class_statistics(source, tmp_path / "kept")
    path = source.label_path(1)
    size, opened = path.stat().st_size, counted(monkeypatch)
    os.utime(path, ns=(10**18, 10**18))  # another time
    assert class_statistics(source, tmp_path / "kept").tolist() == before.tolist()
    assert len(opened) == 2
    noise = np.random.default_rng(0).integers(0, 2, (40, 80)).astype(np.uint8)
    Image.fromarray(noise).save(path)  # another size
    os.utime(path, ns=(10**18, 10**18))
    assert path.stat().st_size != size
    assert class_statistics(source, tmp_path / "kept")[1, :2].tolist() == [(noise == 0).sum(), (noise == 1).sum()]


def test_colours_that_change_their_class_are_counted_again(tmp_path):
    save(tmp_path / "images" / "a.png", np.zeros((1, 3, 3), np.uint8))
    save(tmp_path / "masks" / "a.png", np.array([[[9, 0, 0], [9, 0, 0], [0, 9, 0]]], np.uint8))

    def count(first: str, second: str) -> list[list[int]]:
        (tmp_path / "mine.yaml").write_text(
            "splits: {train: {images: images, labels: masks}}\nlabels_are: colours\n"
            f"classes: {{field: {{colour: {first}}}, track: {{colour: {second}}}}}\n"
        )
        return class_statistics(open_data(f"folder:{tmp_path / 'mine.yaml'}:train"), tmp_path / "cache").tolist()

    assert count("[9, 0, 0]", "[0, 9, 0]") == [[2, 1, 0]]
    assert count("[0, 9, 0]", "[9, 0, 0]") == [[1, 2, 0]]


def test_another_space_has_statistics_of_its_own(source, tmp_path):
    class_statistics(source, tmp_path)
    other = open_data(source.spec, tmp_path / "data", SPACES["cityscapes-19"])
    ours = class_statistics(other, tmp_path)
    assert ours.shape == (2, 20) and ours[1, 13] == 21 and ours[1, 0] == 3179
    assert len(list(tmp_path.glob("*.npz"))) == 2


@pytest.mark.parametrize("content", [b"", b"not an archive", "cut"])
def test_a_broken_file_of_statistics_is_said_and_made_again(source, tmp_path, warned, content):
    before = class_statistics(source, tmp_path)
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-30] if content == "cut" else content)
    assert class_statistics(source, tmp_path).tolist() == before.tolist()
    assert "cannot be read" in (text := "".join(warned)) and "counted again" in text
    warned.clear()
    assert class_statistics(source, tmp_path).tolist() == before.tolist()
    assert not warned


def test_a_source_without_a_label_cannot_be_counted(source, tmp_path):
    source.label_path(0).unlink()
    with pytest.raises(DataError, match=r"^camvid:train: 1 of 2 images have no label"):
        class_statistics(source, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_label_that_cannot_be_read_stops_the_count_and_leaves_nothing(source, tmp_path):
    source.label_path(1).write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        class_statistics(source, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def write_labels(root: Path, count: int) -> DataSet:
    rng = np.random.default_rng(count)
    return write_source(root, {f"i{i:02d}": rng.integers(0, 12, (16, 16)).astype(np.uint8) for i in range(count)})


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_any_number_of_processes_counts_the_same(tmp_path, workers):
    source = write_labels(tmp_path, 11)
    theirs = [np.bincount(np.asarray(Image.open(source.label_path(i))).ravel(), minlength=12) for i in range(11)]
    assert class_statistics(source, None, workers=workers).tolist() == np.array(theirs).tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("seconds", "end"), [(0.0, MemoryError), (30.0, KeyboardInterrupt)])
def test_an_interrupted_count_goes_on_where_it_was(tmp_path, monkeypatch, workers, seconds, end):
    source = write_labels(tmp_path, 11)
    theirs = class_statistics(source, None)
    monkeypatch.setattr(counting, "SAVE_SECONDS", seconds)

    def interrupted(items, title, *, lines=True):
        for number, item in enumerate(items):
            if number == 7:
                raise end
            yield item

    with monkeypatch.context() as patch, pytest.raises(end):
        patch.setattr(counting, "track", interrupted)
        class_statistics(source, tmp_path / "kept", workers)
    monkeypatch.setattr(counting, "SAVE_SECONDS", 30.0)
    opened = counted(monkeypatch)
    assert class_statistics(source, tmp_path / "kept").tolist() == theirs.tolist()
    assert [path.stem for path in opened] == [f"i{i:02d}" for i in range(7, 11)]
    assert class_statistics(source, tmp_path / "kept").tolist() == theirs.tolist()
    assert len(opened) == 4, "counted again"


def test_drawn_scenes_are_counted_again_when_their_drawing_changes(monkeypatch, tmp_path):
    monkeypatch.setitem(SPLITS, "val", (SPLITS["val"][0], 2))
    monkeypatch.setattr(street_sets, "SIZE", (32, 64))
    data = open_data("streets:val")
    statistics = class_statistics(data, tmp_path)
    assert statistics.sum(1).tolist() == [32 * 64] * 2
    monkeypatch.setattr(Streets, "class_counts", lambda self, i: pytest.fail("counted again"))
    assert class_statistics(data, tmp_path).tolist() == statistics.tolist()
    copy = Path(shutil.copytree(Path(streets.__file__).parent, tmp_path / "drawing"))
    monkeypatch.setattr(streets, "__file__", str(copy / "streets.py"))
    assert class_statistics(data, tmp_path).tolist() == statistics.tolist()
    for marker, changed in enumerate(sorted(copy.glob("*.py"))):
        monkeypatch.setattr(Streets, "class_counts", lambda self, i, marker=marker: np.full(20, marker + 1))
        changed.write_text(changed.read_text() + "\n# other wheels\n")
        assert class_statistics(data, tmp_path).tolist() == [[marker + 1] * 20] * 2
    assert marker > 8, "all files of the drawing"


@pytest.fixture
def one_of_several(monkeypatch):
    """Makes this process one of several, as if the others had counted nothing."""

    def become(rank: int, world: int) -> None:
        for name, value in (("RANK", rank), ("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", world)):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(group, "dist", SimpleNamespace(is_initialized=lambda: True))
        monkeypatch.setattr(group, "all_reduce_sum", lambda counts: counts)

    return become


def test_the_first_of_several_processes_keeps_what_it_has_counted(tmp_path, monkeypatch, one_of_several):
    source = write_labels(tmp_path, 11)
    theirs = class_statistics(source, None)
    with monkeypatch.context() as patch:
        opened = counted(patch)
        one_of_several(0, 3)
        ours = class_statistics(source, tmp_path / "kept")
    assert [path.stem for path in opened] == ["i00", "i03", "i06", "i09"]
    assert ours[::3].tolist() == theirs[::3].tolist() and not ours[1::3].any() and not ours[2::3].any()
    shutil.rmtree(tmp_path / "kept")

    def interrupted(items, title, *, lines=True):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(counting, "track", interrupted)
        class_statistics(source, tmp_path / "kept")
    monkeypatch.setenv("WORLD_SIZE", "1")
    opened = counted(monkeypatch)
    assert class_statistics(source, tmp_path / "kept", workers=0).tolist() == theirs.tolist()
    assert [path.stem for path in opened] == [f"i{i:02d}" for i in range(11) if i not in (0, 3)]


def test_another_of_several_processes_keeps_no_file(tmp_path, monkeypatch, one_of_several):
    source = write_labels(tmp_path, 2)
    one_of_several(2, 3)
    shown = []
    monkeypatch.setattr(progress, "_lines", lambda *given: shown.append(given))
    with progress.shown():
        ours = class_statistics(source, tmp_path / "kept")
    assert ours.shape == (2, 12) and not ours.any() and not shown
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(("cores", "neighbours", "workers"), [(8, 4, 2), (8, 3, 2), (4, 4, 0), (2, 8, 0), (8, 1, 8)])
def test_several_processes_share_the_cores_of_their_machine(
    tmp_path, monkeypatch, one_of_several, cores, neighbours, workers
):
    source, asked = write_labels(tmp_path, 18), []

    def jobs(work, count, given):
        asked.append(Pool(work, count, given).workers)
        return Pool(work, count, 0)

    one_of_several(0, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(neighbours))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(counting, "Pool", jobs)
    class_statistics(source, None)
    assert asked == [workers]
