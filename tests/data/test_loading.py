"""The batches of a training: processes that die, images that cannot be read, shares of a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import processes
from segda.data.sets import files as file_sets
from segda.data.stream.loading import TRIES, Skip, loader
from segda.data.stream.stream import SOURCE, TARGET, Stream
from segda.errors import DataError, ImageError, RunFailure
from segda.scene import Batch, Scene
from streams import SEED, cut_off, make_deadly, pairs_of, path_of

WORKERS = pytest.mark.parametrize("workers", [0, 1, 2])


@pytest.fixture
def pairs(camvid: Path) -> Stream:
    """Four source images, three target images."""
    return pairs_of(camvid)


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch):
    return partial(make_deadly, marks=tmp_path / "deaths", monkeypatch=monkeypatch)


def stream(pairs: Stream, start: int = 0, stop: int = 6, workers: int = 0, **given) -> Iterator[Batch]:
    return chain.from_iterable(loader(pairs, 2, start, stop, workers, SEED, **given))


def same(ours: Iterator[Batch], theirs: Iterator[Batch]) -> bool:
    def equal(one: Scene, other: Scene) -> bool:
        labels = one.label, other.label
        return (
            torch.equal(one.image, other.image)
            and one.names == other.names
            and (labels == (None, None) or torch.equal(*labels))
        )

    return all(
        equal(one.source, other.source) and equal(one.target, other.target) and one.share == other.share
        for one, other in zip(ours, theirs, strict=True)
    )


def no_process_is_left() -> bool:
    return multiprocessing.active_children() == []


# Processes that die


@pytest.mark.parametrize(("workers", "domain"), [(1, SOURCE), (2, SOURCE), (2, TARGET)])
def test_a_process_that_is_killed_while_it_reads_changes_no_batch_and_the_image_is_named(
    pairs, deadly, said, workers, domain
):
    path = path_of(pairs, 5, domain)
    whole, skipped = list(stream(pairs)), []
    deaths = deadly(path, times=1)
    ours = list(stream(pairs, workers=workers, skipped=skipped.append))
    assert same(ours, whole) and len(list(deaths.iterdir())) == 1 and skipped == []
    (line,) = said
    assert line.startswith(f"a process that reads images died (SIGKILL) while it read {path} for draw ")
    assert line.endswith(f" of the {('source', 'target')[domain]}; it is read once more")
    assert no_process_is_left()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_an_image_that_kills_each_process_stops_the_stream_by_its_name_after_the_batches_before_it(
    pairs, deadly, said, number
):
    path = path_of(pairs, 2)
    draws = [n for n in range(12) if path_of(pairs, n) == path]
    whole, done = list(stream(pairs)), []
    deaths = deadly(path, number=number)
    with pytest.raises(RunFailure) as caught:
        for batch in stream(pairs, workers=1):
            done.append(batch)
    message = str(caught.value)
    assert message.startswith(f"{path}: two processes died ({signal.Signals(number).name}) while it read {path}")
    assert "data.on_bad_image=skip" in message and "\n" not in message
    assert same(done, whole[: draws[0] // 2]) and len(said) == 1 and len(list(deaths.iterdir())) == 2
    assert no_process_is_left()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_kills_each_process_is_left_out_as_one_that_cannot_be_read(pairs, deadly, said, workers):
    path = path_of(pairs, 2)
    whole, expected = cut_off(path), []
    broken = list(stream(pairs, on_bad_image="skip", skipped=expected.append))
    path.write_bytes(whole)
    skipped = []
    deadly(path)
    ours = list(stream(pairs, workers=workers, on_bad_image="skip", skipped=skipped.append))
    assert same(ours, broken)
    assert [(one.step, one.draw, one.path) for one in skipped] == [(one.step, one.draw, one.path) for one in expected]
    assert {one.reason for one in skipped} == {f"{path}: each process that read it died; look at it, or replace it"}
    # The first death at a draw, of each process that was asked for the image before anybody knew.
    assert 1 <= len(said) <= workers and all("died (SIGKILL) while it read" in line for line in said)


def test_a_process_that_dies_between_two_images_changes_no_batch(pairs, said):
    whole = list(stream(pairs, stop=20))
    batches = stream(pairs, stop=20, workers=2)
    ours = [next(batches)]
    for number in (signal.SIGKILL, signal.SIGTERM):  # whoever ends a job may send the second to all of it
        until_idle()
        for child in multiprocessing.active_children():
            os.kill(child.pid, number)
            child.join()
        ours += [next(batches) for _ in range(4)]
    assert same(ours + list(batches), whole)
    lines = "a process that reads images died (SIGKILL) while it read none; its batches are made again"
    assert said == [lines, lines] and no_process_is_left()


def test_a_process_that_dies_twice_without_an_image_stops_the_stream(pairs, monkeypatch):
    monkeypatch.setattr("segda.data.stream.loading._stacked", lambda *_: os._exit(9))
    with pytest.raises(RunFailure, match=r"died twice \(exit code 9\) while it read none; give the job more memory"):
        list(stream(pairs, workers=1, on_bad_image="skip"))
    assert no_process_is_left()


def test_a_fault_of_ours_in_a_process_comes_with_its_trace(pairs, monkeypatch):
    monkeypatch.setattr(file_sets, "read_image", lambda path: 1 // 0)
    with pytest.raises(RuntimeError, match="in a process that reads images:\n(.|\n)*ZeroDivisionError"):
        list(stream(pairs, workers=1, on_bad_image="skip"))
    with pytest.raises(ZeroDivisionError):
        list(stream(pairs))
    assert no_process_is_left()


def test_no_process_is_left_behind_when_the_stream_is_given_up(pairs):
    batches = loader(pairs, 2, 0, 1000, 2, SEED)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert no_process_is_left()


def test_a_training_that_is_killed_takes_its_processes_with_it(pairs):
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        batches = loader(pairs, 2, 0, 1000, 2, SEED)
        next(batches)
        os.write(told, " ".join(str(one.pid) for one in multiprocessing.active_children()).encode())
        signal.pause()
        os._exit(1)
    pids = [int(pid) for pid in os.read(heard, 100).split()]
    assert len(pids) == 2 and all(map(alive, pids))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + processes.HANGS
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, pids))
    os.close(heard)
    os.close(told)


def until_idle() -> None:
    """Until all readers have made what they were asked for, and sleep each time that one looks."""
    quiet = 0
    while quiet < 20:
        quiet = quiet + 1 if {state(child.pid) for child in multiprocessing.active_children()} == {"S"} else 0
        time.sleep(0.01)


def state(pid: int) -> str:
    """A letter, as of ps: R runs or would, S sleeps, Z has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def alive(pid: int) -> bool:
    return state(pid) != "Z"


# Images that cannot be read


@WORKERS
def test_a_broken_image_stops_the_stream_unless_it_may_be_left_out(pairs, workers):
    path = path_of(pairs, 3)
    cut_off(path)
    with pytest.raises(ImageError, match="cut off after") as caught:
        list(stream(pairs, workers=workers))
    assert caught.value.path == str(path)
    skipped = []
    ours = list(stream(pairs, workers=workers, on_bad_image="skip", skipped=skipped.append))
    assert {one.reason for one in skipped} == {str(caught.value)}
    assert len(ours) == 6 and path.stem not in {name for batch in ours for name in batch.source.names}
    # Twelve draws of four images: each is drawn three times.
    assert len(skipped) == 3 and {one.path for one in skipped} == {str(path)}
    assert all(one.step == one.draw // 2 for one in skipped) and 3 in [one.draw for one in skipped]


def test_only_the_scene_that_cannot_be_read_is_replaced_and_its_place_is_a_function_of_its_number(pairs):
    whole = list(stream(pairs))
    path = path_of(pairs, 3)
    content = cut_off(path)
    skipped: list[Skip] = []
    ours = list(stream(pairs, on_bad_image="skip", skipped=skipped.append))
    changed = {one.draw for one in skipped}
    for step, (one, other) in enumerate(zip(ours, whole, strict=True)):
        assert torch.equal(one.target.image, other.target.image)
        for k in range(2):
            kept = torch.equal(one.source.image[k], other.source.image[k])
            assert kept == (2 * step + k not in changed)
    # The whole stream again, in another order and by other processes.
    for start, workers in ((0, 1), (0, 2), (1, 0), (2, 2), (5, 1)):
        assert same(stream(pairs, start, workers=workers, on_bad_image="skip"), ours[start:])
    path.write_bytes(content)
    assert same(stream(pairs, on_bad_image="skip"), whole), "skip changes nothing where all can be read"


@pytest.mark.parametrize("fault", ["label", "missing", "target", "empty"])
def test_labels_and_targets_are_left_out_too(pairs, fault):
    domain = TARGET if fault == "target" else SOURCE
    path = path_of(pairs, 1, domain)
    if fault == "label":
        path = pairs.source.label_path(pairs.source.names.index(path.stem))
    path.unlink() if fault == "missing" else path.write_bytes(b"" if fault == "empty" else path.read_bytes()[:-9])
    skipped = []
    ours = list(stream(pairs, on_bad_image="skip", skipped=skipped.append))
    assert {one.path for one in skipped} == {str(path)} and 1 in [one.draw for one in skipped]
    scenes = [batch.source if domain == SOURCE else batch.target for batch in ours]
    assert path.stem not in {name for scene in scenes for name in scene.names}


@WORKERS
def test_a_domain_of_which_nothing_can_be_read_stops_the_stream(pairs, workers):
    for name in pairs.target.images:
        cut_off(pairs.target.folder / name)
    with pytest.raises(DataError) as caught:
        list(stream(pairs, workers=workers, on_bad_image="skip"))
    message = str(caught.value)
    assert message.startswith(f"data.target: {TRIES + 1} images drawn in a row cannot be read") and "\n" not in message
    assert "too many are bad for data.on_bad_image: skip" in message and no_process_is_left()


@pytest.mark.parametrize("fault", ["grey image", "ids of no class", "label of another size", "label in colours"])
def test_what_can_be_read_and_is_of_a_wrong_kind_is_never_left_out(pairs, fault):
    i = pairs.source.names.index(path_of(pairs, 3).stem)
    image, label = pairs.source.image_path(i), pairs.source.label_path(i)
    if fault == "grey image":
        Image.open(image).convert("L").save(image)
    elif fault == "ids of no class":
        Image.fromarray(np.full((48, 64), 77, np.uint8)).save(label)
    elif fault == "label of another size":
        Image.fromarray(np.zeros((48, 60), np.uint8)).save(label)
    else:
        Image.open(image).save(label)
    with pytest.raises(DataError) as caught:
        list(stream(pairs, on_bad_image="skip"))
    assert not isinstance(caught.value, ImageError) and str(image.stem) in str(caught.value)


# Shares of a step


@pytest.mark.parametrize("workers", [0, 2])
def test_the_shares_of_a_step_together_are_the_undivided_step(pairs, workers):
    # Four shares of two scenes are a step of eight: two processes with two passes each.
    whole = list(loader(pairs, 8, 1, 4, 0, SEED))
    parts = [list(loader(pairs, 2, 1, 4, workers, SEED, 4, own)) for own in (range(2), range(2, 4))]
    for step, (undivided,) in enumerate(whole):
        passes = [batch for part in parts for batch in part[step]]
        assert len(passes) == 4
        for domain in ("source", "target"):
            scenes = [getattr(batch, domain) for batch in passes]
            assert torch.equal(torch.cat([scene.image for scene in scenes]), getattr(undivided, domain).image)
            assert sum((scene.names for scene in scenes), ()) == getattr(undivided, domain).names
        shares = [batch.share for batch in passes]
        assert [share.count for share in shares] == [4] * 4
        drawn = {int(share.rng("gate").integers(0, 2**60)) for share in shares}
        assert drawn == {int(undivided.share.rng("gate").integers(0, 2**60))}, "each has the step's numbers"
        each = [int(share.rng("amount", scene=k).integers(0, 2**60)) for share in shares for k in range(2)]
        assert each == [int(undivided.share.rng("amount", scene=k).integers(0, 2**60)) for k in range(8)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_skip_is_told_with_its_step_whatever_the_shares(pairs, workers):
    cut_off(path_of(pairs, 3))
    every, parts = [], []
    list(loader(pairs, 4, 0, 3, 0, SEED, on_bad_image="skip", skipped=every.append))
    for own in (range(1), range(1, 2)):
        list(loader(pairs, 2, 0, 3, workers, SEED, 2, own, on_bad_image="skip", skipped=parts.append))
    assert sorted(parts, key=lambda one: one.draw) == every and every


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a cuda device")
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_for_a_cuda_device_lie_in_memory_that_it_reads_by_itself(pairs, workers):
    pinned = list(stream(pairs, workers=workers, pin=True))
    assert same(pinned, list(stream(pairs)))
    assert all(
        tensor.is_pinned() for one in pinned for tensor in (one.source.image, one.source.label, one.target.image)
    )
