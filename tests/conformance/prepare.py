"""Train ids and class statistics against recorded outputs of EB_DA's converters: see golden/README.md."""

import json

import numpy as np
import pytest
from PIL import Image

from golden import Golden
from segda.commands.prepare import prepare
from segda.data.labels.labellings import LABELLINGS
from segda.data.labels.spaces import SPACES, UNKNOWN
from segda.data.sets.prepared import statistics


@pytest.fixture(scope="module")
def golden():
    return Golden("daformer_ebda")


@pytest.fixture(scope="module")
def labels(golden):
    return golden.json("labels.json")


@pytest.mark.parametrize(("labelling", "recorded"), [("gta5", "gta_id_to_train"), ("synthia", "synthia_id_to_train")])
@pytest.mark.parametrize("space", ["cityscapes-19", "synthia-19"])
def test_every_id_that_a_labelling_names_becomes_the_authors_train_id(labels, labelling, recorded, space):
    ours, theirs = SPACES[space].lookup(labelling), np.array(labels[recorded])
    named = np.isin(np.arange(256), [*LABELLINGS[labelling], 255])
    assert np.array_equal(ours[named], theirs[named])
    # Where theirs ignores what the data set does not have, ours refuses it.
    assert (theirs[~named] == 255).all() and (ours[~named] == UNKNOWN).all()


def test_files_of_gta_hold_the_authors_ids_and_counts(labels, tmp_path):
    theirs = np.array(labels["gta_id_to_train"], np.uint8)
    ids = np.arange(35, dtype=np.uint8).reshape(5, 7)  # each once, as in the recording
    for folder, pixels in (("images", np.zeros((5, 7, 3), np.uint8)), ("labels", ids)):
        (tmp_path / "gta5" / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "gta5" / folder / "00001.png")
    prepare("gta5", tmp_path, tmp_path / "out")
    path = tmp_path / "out" / "labels" / "00001_labelTrainIds.png"
    assert np.array_equal(np.asarray(Image.open(path)), theirs[ids])
    counts = json.loads((tmp_path / "out" / "sample_class_stats_dict.json").read_text())
    assert counts == {str(path): labels["gta_stats"]}


def test_lists_of_a_recorded_data_set_give_the_authors_choice_of_images(golden):
    recorded = golden.json("rcs.json")
    entries = recorded["sample_class_stats"]
    files = [entry["file"] for entry in entries]
    counts = np.array([[entry.get(str(k), 0) for k in range(19)] + [5] for entry in entries])
    ours = json.loads(json.dumps(statistics(files, counts)))
    assert ours["sample_class_stats.json"] == entries
    # As their data set reads the file: the names of those that have more pixels than the least.
    chosen = {
        train_id: [file.split("/")[-1] for file, pixels in pairs if pixels > recorded["min_pixels"]]
        for train_id, pairs in ours["samples_with_class.json"].items()
    }
    assert {k: v for k, v in chosen.items() if v} == {k: v for k, v in recorded["samples_with_class"].items() if v}
