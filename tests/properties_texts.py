"""Recipes, sweeps, folders, specs, reports, logs: read with finite numbers and names that can be shown, or refused."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

from conftest import METHOD_SETTINGS, small_recipe
from drawn import LEAVES, REFUSED, TREES, as_yaml, attempt, changed, damaged, named, place, put
from properties_files import small_labels
from segda.data.labels.pseudo_labels import FORMAT, SUMMARY, PseudoLabels
from segda.data.labels.spaces import SPACES, UNKNOWN
from segda.data.rows import DATASETS
from segda.data.sets.folders import folder_row
from segda.data.sets.specs import data_sets, file_name, own_space, parse, parts_of
from segda.errors import visible
from segda.evaluation.metrics import Report, read_list
from segda.evaluation.protocol import Protocol
from segda.evaluation.snapshots import Snapshot, Snapshots, read_snapshots
from segda.ground.safe_yaml import json_values, yaml_values
from segda.ground.sealed import with_digest
from segda.recipes.blocks import shipped
from segda.recipes.recipe import load_recipe, not_finite
from segda.recipes.sweeps import load_sweep
from segda.reporting.comparison import beside
from segda.run import read_log
from segda.scene import IGNORE

# Recipes, sweeps, folders, specs


@cache
def recipe_trees() -> list[Any]:
    small = [
        json.loads(json.dumps(small_recipe(Path("data"), name).model_dump(mode="json"))) for name in METHOD_SETTINGS
    ]
    named = [load_recipe(name) for name in (*list(shipped())[:3], "esl_streets")]
    return small + [yaml.safe_load(recipe.to_yaml(defaults=False)) for recipe in named]


def a_recipe_is_read_finite_and_reads_itself_back_or_is_refused(tree: Any) -> None:
    recipe = attempt(load_recipe, put("recipe.yaml", as_yaml(tree)))
    if recipe is not REFUSED:
        assert [*not_finite(recipe.model_dump())] in ([], ["data.source.rare_class.temperature"])
        assert load_recipe(put("again.yaml", recipe.to_yaml())) == recipe


KEYS = st.sampled_from(
    ("steps", "optim.lr", "data.batch", "data", "method.name", "network.encoder", "method", "evaluate.scales", "", ".",
     "a..b", "data.source.augment.resize.0", "paper.title", "players.discriminators.lr", "optim", "evaluate.data")
)  # fmt: skip


def a_setting_is_taken_or_refused(tree: Any, key: str, value: str) -> None:
    recipe = attempt(load_recipe, put("recipe.yaml", as_yaml(tree)))
    assert recipe is not REFUSED
    attempt(recipe.override, f"{key}={value}")


SWEEPS = [
    {"recipe": "ebda_streets", "set": {"steps": 3}, "axes": {"seed": [0, 1], "method.level": [0.1, 0.2]}},
    {"axes": {"recipe": ["ebda_streets", "advent_streets"], "set": {"a": {}, "b": {"optim.lr": 1e-3}}, "seed": [0, 1]},
     "exclude": [{"seed": 1, "set": ["a"]}], "runs": "runs/x"},
]  # fmt: skip


def a_sweep_is_a_number_of_runs_or_refused(tree: Any) -> None:
    matrix = attempt(load_sweep, put("sweep.yaml", as_yaml(tree)))
    if matrix is not REFUSED:
        names = [one.name for one in matrix.combinations]
        assert 0 < len(names) == len(set(names)) and not any("/" in name for name in names)


FOLDERS = [
    {"root": ".", "splits": {"train": {"images": "i", "labels": "l/{key}_m.png"}, "dusk": {"images": "d/*/{key}.jpg"}},
     "classes": {"water": {"id": 0, "colour": [0, 0, 255]}, "ship": {"id": [1, 2], "colour": [255, 0, 0]}},
     "ignored": [7]},
    {"splits": {"train": {"images": "i", "labels": "l"}}, "classes": {"ship": {"id": 3}, "road": {"id": 4}},
     "space": "cityscapes-19", "becomes": {"ship": "car"}},
    {"splits": {"train": {"images": "i", "labels": "l"}}, "classes": {"a": {"colour": [1, 2, 3]}},
     "labels_are": "colours", "ignored": [[0, 0, 0]]},
]  # fmt: skip


def a_folder_is_told_or_refused(tree: Any) -> None:
    folder_row.__globals__["_read"].cache_clear()  # files that follow each other this fast may have one time
    path = put("folder.yaml", as_yaml(tree))
    row = attempt(folder_row, str(path), "train")
    if row is not REFUSED:
        space = own_space(f"folder:{path}:{row.splits[0]}")
        table = space.lookup("own", row.names("own"))
        assert set(table) <= {*range(len(space.classes)), UNKNOWN, IGNORE}
        for template, _ in row.labels:
            assert template.format(key="x")


PARTS = st.tuples(
    st.sampled_from([*DATASETS]),
    st.sampled_from((":train", ":val", ":test")),
    st.sampled_from(("", "", ":night", ":fog", ":day")),
    st.sampled_from(("", "", "*2", "*0.5")),
).map("".join)

SPECS = st.lists(PARTS, min_size=1, max_size=3).map("+".join) | st.lists(
    st.sampled_from((*DATASETS, ":", "+", "*", ",", "train", "val", "night", "fog", "folder:", "x.yaml", "~", "2",
                     "nan", "-1", "\0", "\n", "..", "/"))
    | st.text(max_size=3),
    max_size=8,
).map("".join)  # fmt: skip


def a_spec_is_parsed_or_refused(spec: str) -> None:
    parts = attempt(parts_of, spec)
    if parts is not REFUSED:
        assert all(weight is None or 0 < weight < math.inf for _, weight in parts)
        assert "/" not in file_name(spec) and data_sets(spec)
        attempt(own_space, spec)
        for part, _ in parts:
            found = attempt(parse, part)
            assert found is REFUSED or found[0] in DATASETS or found[0].startswith("folder:")


PIECES = (
    ["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", "&x ", "*x", "<<: ", "? ", "'", '"', "|\n", "~", ",", "=",
     "!!python/object/apply:os.system ", *(f"!!{kind} " for kind in ("int", "float", "timestamp", "set", "omap")),
     "!!binary ", "!!bool ", "2001-99-99", "0x_", "0b", "1:99", "---\n", "...\n", "%YAML 9.9\n", "9" * 30, ".inf"]
)  # fmt: skip
YAML_PIECES = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join)


def a_yaml_text_holds_plain_values_or_is_refused(text: str) -> None:
    found = attempt(yaml_values, text, also=(ValueError,))
    if found is not REFUSED:
        assert type(found).__module__ in ("builtins", "datetime")


# Reports, logs, summaries


@cache
def reports() -> list[Any]:
    protocol = Protocol(
        "camvid:test:dusk", 3, "student", 40, "ebda", (480, 360), "slide", (64, 96), (42, 48), True, "float32"
    )
    counts = np.array([[5, 1], [2, 7], [0, 0]])
    return [Report(protocol, ("road", "sky"), counts, {"mIoU 1": ("road", ("road", "sky"))}).to_json()]


def a_report_is_read_and_has_rates_or_is_refused(tree: Any) -> None:
    found = attempt(read_list, put("reports/x.json", json.dumps([tree])))
    if found is not REFUSED:
        for report in found:
            rates = [*report.rates().values(), *report.iou, *report.accuracy, *report.share]
            assert all(math.isnan(rate) or 0 <= rate <= 1 for rate in rates)
            json.dumps(report.to_json(), allow_nan=False)
            assert report.protocol.sentence() == visible(report.protocol.sentence())
        if found:
            comparison = beside({"run": found}, {})
            assert set(comparison.domains) == {report.protocol.data for report in found}
            assert all(text in comparison.markdown(everything=True, classes=True) for text in ("mIoU", "accuracy"))


def snapshot_trees() -> list[Any]:
    (table,) = reports()
    snapshots = {step: Snapshot("00", Report.from_json(table)) for step in (10, 20)}
    return [Snapshots("camvid:test:dusk", snapshots, 20).to_json()]


def snapshots_are_read_or_refused(tree: Any) -> None:
    put("run/reports/x-snapshots.json", json.dumps(tree))
    found = attempt(read_snapshots, place() / "run")
    if found is not REFUSED:
        assert all(each.best in each.by_step and each.data.isprintable() for each in found)


LOG = [
    {"step": 20, "seconds": 0.5, "source": 0.25, "lr/student": 1e-5, "histogram/target": [0.5, 0.5]},
    {"step": 20, "evaluation": "camvid:val", "student": 0.5, "teacher": None},
    {"step": 3, "draw": 5, "skipped": "data/camvid/train/a.png"},
]


def a_log_is_of_finite_numbers_or_refused(trees: list[Any], end: bytes) -> None:
    put("run/log.jsonl", b"".join(json.dumps(tree).encode() + b"\n" for tree in trees) + end)
    found = attempt(lambda: list(read_log(place() / "run")))
    if found is not REFUSED:
        assert all(type(line["step"]) is int and not [*not_finite(line)] for line in found)


class _Data:
    """As much of a data set as PseudoLabels looks at."""

    spec, names = "camvid:train:dusk", ("a",)

    def __len__(self) -> int:
        return 1


def summaries() -> list[Any]:
    classes = SPACES["camvid-11"].classes
    return [
        {
            "format": FORMAT,
            "data": "camvid:train:dusk",
            "class_names": classes,
            "input": {"resize": box, "shape": "keep"},
        }
        for box in (None, [12, 9])
    ]


def pseudo_labels_are_opened_and_read_or_refused(tree: Any, content: bytes) -> None:
    put(f"labels/{SUMMARY}", json.dumps(with_digest(tree) if isinstance(tree, dict) else tree))
    put("labels/a.png", content)
    found = attempt(PseudoLabels.open, place() / "labels", _Data(), SPACES["camvid-11"])
    if found is not REFUSED:
        label = attempt(found.read, 0, (9, 12))
        assert label is REFUSED or ((label < 11) | (label == IGNORE)).all()


def a_json_text_is_read_or_refused(text: str) -> None:
    attempt(json_values, text, also=(ValueError,))


TEXTS = named(
    (a_recipe_is_read_finite_and_reads_itself_back_or_is_refused, changed(recipe_trees) | TREES),
    (
        a_setting_is_taken_or_refused,
        st.deferred(lambda: st.sampled_from(recipe_trees())),
        KEYS | st.text(max_size=6),
        LEAVES.map(str) | YAML_PIECES,
    ),
    (a_sweep_is_a_number_of_runs_or_refused, changed(lambda: SWEEPS)),
    (a_folder_is_told_or_refused, changed(lambda: FOLDERS)),
    (a_spec_is_parsed_or_refused, SPECS),
    (a_yaml_text_holds_plain_values_or_is_refused, YAML_PIECES),
    (a_json_text_is_read_or_refused, st.text(max_size=40) | TREES.map(json.dumps)),
    (a_report_is_read_and_has_rates_or_is_refused, changed(reports)),
    (snapshots_are_read_or_refused, changed(snapshot_trees)),
    (a_log_is_of_finite_numbers_or_refused, st.lists(changed(lambda: LOG), max_size=3), st.binary(max_size=8)),
    (
        pseudo_labels_are_opened_and_read_or_refused,
        changed(summaries),
        damaged(small_labels),
    ),
)
