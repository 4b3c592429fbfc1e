"""`segda pseudo-label --refine references`: its labels against numpy; what goes on, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import small_recipe
from segda import run as runs
from segda.cli.main import main
from segda.data.labels.spaces import space_named
from segda.data.sets.datasets import open_data
from segda.data.stream.augment import resized
from segda.data.stream.settings import Augment
from segda.errors import DataError, RecipeError
from segda.evaluation import look
from segda.networks import NETWORKS
from segda.pseudo_labelling import refine as refining
from segda.pseudo_labelling.refine import refine_spec
from segda.recipes.build import build
from segda.run import load_network
from small_labels import DUSK, NAMES, Stop, content, label, stopping, write_place
from small_run import SPACE

DAY = "camvid:train:day"
DAYS = dict(zip(NAMES, ("0006R0_f01", "0006R0_f02", "0006R0_f02"), strict=True))
THINGS = ["pedestrian", "car", "bicyclist"]
KEEP_ALL = {"name": "fixed", "level": 0}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs, a small CamVid, a list that says which day belongs to which dusk, and depths of the days."""
    place = write_place(tmp_path_factory.mktemp("place"))
    (place / "pairs.csv").write_text("".join(f"{dusk},{day}\n" for dusk, day in DAYS.items()))
    (place / "depth").mkdir()
    for day in set(DAYS.values()):
        disparity = np.random.default_rng(0).integers(2000, 9000, (48, 64)).astype(np.uint16)
        cv2.imwrite(str(place / "depth" / f"{day}.png"), disparity)
    return place


def refined(place: Path, out: Path, *settings: str, **given):
    """Labels of the dusk, refined with the day; all pixels are kept."""
    things = json.dumps(THINGS)
    told = [f"references={DAY}", f"pairs={place / 'pairs.csv'}", f"things={things}", "alignment=none", *settings]
    given = {"data": DUSK, "rule": KEEP_ALL, "refine": "references", "refine_settings": told} | given
    return label(place, out, **given)


def enlarged(prob: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, h, w): by torch, whose own test is tests/pseudo_labelling/test_fusion.py."""
    logs = torch.from_numpy(np.log(prob)).clamp_min(-20)[None]
    large = torch.nn.functional.interpolate(logs, size, mode="bicubic", antialias=True)[0].exp().numpy()
    return large / large.sum(0)


def seen(place: Path, run: str, spec: str, name: str) -> np.ndarray:
    """(C, 36, 48) float64 probabilities of an image, as the run's network sees it."""
    data = open_data(spec, place / "data", SPACE)
    box = Augment(resize=(48, 36), crop=None, max_class_share=None, flip=0)
    image = resized(data.read(data.names.index(name)), box).image.float()[None] / 255
    network = load_network(place / run)
    with torch.no_grad():
        return enlarged(network.low_res_logits(image)[0].double().softmax(0).numpy(), (36, 48))


def by_hand(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(C, H, W) fused, pixel by pixel, in the spec's words."""
    result = np.zeros_like(own)
    things = {SPACE.classes.index(name) for name in THINGS}
    for y, x in np.ndindex(own.shape[1:]):
        o, e = own[:, y, x], other[:, y, x]
        mine, theirs = int(o.argmax()), int(e.argmax())
        moved = (mine in things and e[mine] <= 0.2) or (theirs in things and o[theirs] <= 0.2)
        share = (0.3 if moved else 0.6) * e.max()
        result[:, y, x] = (o.max() * o + share * e) / (o.max() + share)
    return result


def ids_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.mark.parametrize("run", ["run", "other"])
def test_labels_are_those_of_both_predictions(place, tmp_path, run):
    settings = [] if run == "run" else [f"run={place / run}"]
    summary = refined(place, tmp_path / "out", *settings)
    changed = 0
    for dusk, day in DAYS.items():
        own = seen(place, "run", DUSK, dusk)
        other = seen(place, run, DAY, day)
        if run == "other":  # its recipe also looks at the mirrored image
            data = open_data(DAY, place / "data", SPACE)
            box = Augment(resize=(48, 36), crop=None, max_class_share=None, flip=0)
            image = resized(data.read(data.names.index(day)), box).image.float()[None] / 255
            with torch.no_grad():
                mirrored = load_network(place / run).low_res_logits(image.flip(-1)).flip(-1)[0].double()
            other = (other + enlarged(mirrored.softmax(0).numpy(), (36, 48))) / 2
        both = by_hand(own, other)
        best = np.sort(both, 0)
        close = best[-1] - best[-2] < 1e-6
        ours = ids_of(tmp_path / "out" / f"{dusk}.png")
        assert np.array_equal(ours[~close], both.argmax(0)[~close]) and close.mean() < 0.05
        changed += int((both.argmax(0) != own.argmax(0)).sum())
    assert changed > 100 and summary["kept"] == summary["pixels"]
    told = summary["refinement"]
    assert told["aligned"] == {"none": 3} and told["settings"]["references"] == DAY
    assert told["network"]["run"] == str(place / run) and len(told["network"]["sha256"]) == 64


def test_the_filter_and_the_failed_geometry_are_the_same(place, tmp_path):
    """Of noise no motion is found: then the filter takes its place, and the summary says so."""
    filtered = refined(place, tmp_path / "filter", "alignment=filter", "space=8", "space_cell=2")
    moved = refined(
        place, tmp_path / "moved", "alignment=geometry", f"depth={place / 'depth'}", "space=8", "space_cell=2"
    )
    assert filtered["refinement"]["aligned"] == {"filter": 3}
    assert moved["refinement"]["aligned"] == {"filter": 3}
    plain = refined(place, tmp_path / "plain")
    for name in NAMES:
        ours, theirs = (ids_of(tmp_path / out / f"{name}.png") for out in ("moved", "filter"))
        assert np.array_equal(ours, theirs)
    assert plain["refinement"]["aligned"] == {"none": 3}
    assert any(
        not np.array_equal(ids_of(tmp_path / "plain" / f"{name}.png"), ids_of(tmp_path / "filter" / f"{name}.png"))
        for name in NAMES
    )


def test_a_reference_that_is_the_picture_is_aligned_by_geometry(place, tmp_path):
    """A textured picture as its own reference: its camera has not moved, so that geometry changes next to nothing."""
    root = tmp_path / "data"
    shutil.copytree(place / "data", root)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    picture = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    shifted = np.roll(picture, 6, 1)
    for name, pixels in ((NAMES[0], shifted), (DAYS[NAMES[0]], picture)):
        for old in root.rglob(f"{name}.png"):
            (Image.fromarray(pixels) if "annot" not in str(old) else Image.new("L", (320, 240))).save(old)
    (tmp_path / "depth").mkdir()
    near = np.full((240, 320), 6000, np.uint16)
    near[:, 150:] = 12000
    for day in set(DAYS.values()):
        size = (240, 320) if day == DAYS[NAMES[0]] else (48, 64)
        cv2.imwrite(str(tmp_path / "depth" / f"{day}.png"), near[: size[0], : size[1]])
    settings = ["alignment=geometry", f"depth={tmp_path / 'depth'}", "space=8", "space_cell=2"]
    summary = refined(place, tmp_path / "out", *settings, root=root)
    assert summary["refinement"]["aligned"]["geometry"] >= 1


def test_an_interrupted_call_goes_on_and_another_refinement_is_refused(place, tmp_path, monkeypatch):
    whole = refined(place, tmp_path / "whole", "alignment=filter", "space=8", "space_cell=2")
    with monkeypatch.context() as patch:
        stopping(patch, look, "views", 2)
        with pytest.raises(Stop):
            refined(place, tmp_path / "out", "alignment=filter", "space=8", "space_cell=2")
    with pytest.raises(ValueError, match="interrupted call with other refinement"):
        refined(place, tmp_path / "out")
    calls = stopping(monkeypatch, refining, "cross_bilateral", 1)
    again = refined(place, tmp_path / "out", "alignment=filter", "space=8", "space_cell=2")
    assert len(calls) == 1 and again["refinement"] == whole["refinement"]
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_two_processes_write_the_bytes_of_one(place, tmp_path, forks):
    refined(place, tmp_path / "one")
    settings = [f"references={DAY}", f"pairs={place / 'pairs.csv'}", f"things={json.dumps(THINGS)}", "alignment=none"]
    arguments = ["pseudo-label", place / "run", "--data", DUSK, "--rule", "fixed", "--set", "level=0", "--root"]
    arguments += [place / "data", "--precision", "32", "--refine", "references"]
    arguments += [part for setting in settings for part in ("--refine-set", setting)]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = forks.run(*torchrun, "-m", "segda", *arguments, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "two") == content(tmp_path / "one")


# Bad input


def refused(place, tmp_path, *settings, **given) -> str:
    with pytest.raises((RecipeError, DataError)) as error:
        refined(place, tmp_path / "out", *settings, **given)
    assert not (tmp_path / "out").exists() and "\n" not in str(error.value)
    return str(error.value)


def test_references_that_lack_are_named_at_once(place, tmp_path):
    (tmp_path / "pairs.csv").write_text(f"{NAMES[0]},0006R0_f77\n{NAMES[1]},0006R0_f01\n")
    said = refused(place, tmp_path, f"pairs={tmp_path / 'pairs.csv'}")
    assert said.startswith("refine: 2 of 3 images of camvid:train:dusk have no reference in camvid:train:day")
    assert "no 0006R0_f77 there" in said and NAMES[2] in said and "refine.pairs" in said
    said = refused(place, tmp_path, "pairs=null")
    assert "3 of 3" in said and "looked for the same name" in said and "refine.references" in said


def test_a_reference_of_another_shape_is_refused_and_of_another_size_resized(place, tmp_path):
    for size, fits in (((128, 96), True), ((64, 64), False)):
        root = tmp_path / f"{size}"
        shutil.copytree(place / "data", root)
        for path in (root / "camvid" / "train").glob("0006R0_f02.png"):
            with Image.open(path) as picture:
                large = picture.resize(size)
            large.save(path)
        if fits:
            assert refined(place, tmp_path / "fits", root=root)["refinement"]["aligned"] == {"none": 3}
        else:
            said = refused(place, tmp_path, root=root)
            assert "is 64x64, of another shape than the 64x48" in said and "2 of 3 pairs" in said


def test_depths_that_lack_or_do_not_fit_are_named(place, tmp_path):
    assert "refine.depth: missing" in refused(place, tmp_path, "alignment=geometry")
    assert "no effect with alignment filter" in refused(place, tmp_path, "alignment=filter", "depth=somewhere")
    said = refused(place, tmp_path, "alignment=geometry", f"depth={tmp_path / 'none'}")
    assert "2 of 2 disparities are missing: 0006R0_f01.png, 0006R0_f02.png" in said
    shutil.copytree(place / "depth", tmp_path / "depth")
    cv2.imwrite(str(tmp_path / "depth" / "0006R0_f02.png"), np.zeros((24, 32), np.uint16))
    said = refused(place, tmp_path, "alignment=geometry", f"depth={tmp_path / 'depth'}")
    assert "0006R0_f02.png is 32x24" in said and "is 64x48" in said
    (tmp_path / "depth" / "0006R0_f02.png").write_bytes(b"no picture")
    assert "is no PNG" in refused(place, tmp_path, "alignment=geometry", f"depth={tmp_path / 'depth'}")


def test_depths_of_eight_bits_are_refused(place, tmp_path):
    shutil.copytree(place / "depth", tmp_path / "depth")
    cv2.imwrite(str(tmp_path / "depth" / "0006R0_f01.png"), np.zeros((48, 64), np.uint8))
    with pytest.raises(DataError, match="greyscale with 8 bits a channel; disparities are 16-bit"):
        refined(place, tmp_path / "out", "alignment=geometry", f"depth={tmp_path / 'depth'}")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("alignment=flow", "refine.alignment: Input should be 'none', 'filter' or 'geometry'"),
        ("weight=1.5", "refine.weight: 1.5 is not between 0 and 1"),
        ("space=0", "refine.space: 0.0 is not above 0"),
        ("colour=.inf", "refine.colour: Input should be a valid number"),
        ("things=[lorry]", "refine.things: unknown class 'lorry'"),
        ("wieght=0.5", "refine references has no setting 'wieght'"),
        ("references=camvid:train:day*2", "a weight has no effect on a data set alone"),
        ("weight", "--refine-set 'weight': write KEY=VALUE"),
        ("run=nowhere", "nowhere"),
    ],
)
def test_a_bad_setting_is_refused(place, tmp_path, setting, said):
    try:
        assert said in refused(place, tmp_path, setting)
    except ValueError as error:  # a run that is none
        assert setting.startswith("run=") and said in str(error)


def test_a_run_of_other_classes_is_refused(place, tmp_path):
    recipe = small_recipe(Path("data")).override("data.space=cityscapes-19", "evaluate.resize=[48,36]")
    runs.begin(tmp_path / "streets", recipe)
    network = build(NETWORKS, recipe.network, "network", class_names=space_named("cityscapes-19").classes)
    runs.save_network(runs.product_path(tmp_path / "streets", "student"), network, recipe.network, recipe.steps)
    said = refused(place, tmp_path, f"run={tmp_path / 'streets'}")
    assert "predict different classes" in said


def test_settings_without_a_refinement_are_refused(place, tmp_path):
    with pytest.raises(RecipeError, match="has no effect without --refine"):
        label(place, tmp_path / "out", data=DUSK, refine_settings=["alignment=none"])


def test_the_command_says_bad_input_in_one_line(place, tmp_path, capsys):
    arguments = ["pseudo-label", place / "run", "--data", DUSK, "--rule", "fixed", "--root", place / "data"]
    code = main([*map(str, arguments), "--refine", "neighbours", "--out", str(tmp_path / "out")])
    assert code == 2 and "refine.name: unknown 'neighbours'" in capsys.readouterr().err


def test_the_shipped_numbers_are_the_authors():
    spec = refine_spec("references", ["references=dark-zurich:train:day", "alignment=filter"])
    numbers = {key: spec[key] for key in ("weight", "low", "doubt", "space", "space_cell", "colour", "colour_cell")}
    assert list(numbers.values()) == [0.6, 0.3, 0.2, 80, 20, 0.1, 0.1]
    assert len(spec["things"]) == 8 and spec["things"][0] == "person"
