"""What stands around a network's tensors in a file, and which of several is meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hostile import refused
from networks.test_weights import official
from segda.errors import WeightsError
from segda.networks.encoders.mit import MiT
from segda.networks.weights import hugging_face
from segda.networks.weights.load import load_encoder_weights, read
from segda.networks.weights.wrappers import is_averaged
from weight_files import prefixed

ONE, OTHER = {"a.weight": torch.ones(2)}, {"a.weight": torch.zeros(2)}
ADAM = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("name", ["model_state", "model_state_dict", "net", "network", "student", "ema", "my_network"])
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pth.tar"])
def test_the_one_mapping_of_tensors_in_a_file_is_its_network(tmp_path, name, suffix):
    file = tmp_path / f"theirs{suffix}"
    torch.save({name: ONE, "optimizer": ADAM, "cur_itrs": 3}, file)
    held = read(file)
    assert held.tensors.keys() == ONE.keys() and held.others == ["optimizer", "cur_itrs"]


@pytest.mark.parametrize(
    ("held", "student", "teacher"),
    [
        ({"state_dict": ONE, "state_dict_ema": OTHER, "optimizer": ADAM}, 1, 0),
        ({"model": {"state_dict": ONE}, "model_ema": {"state_dict": OTHER}}, 1, 0),
        ({"net": ONE, "criterion": {"weight": torch.ones(3)}, "EMA": OTHER}, 1, 0),
        ({"ema": ONE}, 1, 1),
        ({"epoch": 3, **ONE}, 1, 1),  # no mean: the names inside say whose they are
    ],
)
def test_a_mean_of_the_weights_is_taken_where_it_is_asked_for(tmp_path, held, student, teacher):
    torch.save(held, tmp_path / "theirs.pth")
    for which, value in (("student", student), ("teacher", teacher)):
        assert read(tmp_path / "theirs.pth", which).tensors["a.weight"].tolist() == [value] * 2, which


def test_several_mappings_that_nothing_tells_apart_are_named(tmp_path):
    torch.save({"generator": ONE, "discriminator": OTHER, "step": 3}, tmp_path / "gan.pth")
    said = refused(read, tmp_path / "gan.pth", kind=WeightsError)
    assert "generator (1), discriminator (1)" in said


def test_openmmlabs_names_for_the_mean_are_the_other_way_round(tmp_path):
    held = {"meta": {}, "message_hub": {}, "state_dict": ONE, "ema_state_dict": OTHER | {"steps": torch.tensor(3)}}
    torch.save(held, tmp_path / "mm.pth")
    assert read(tmp_path / "mm.pth").tensors["a.weight"].sum() == 2
    assert "leave --weights out" in refused(read, tmp_path / "mm.pth", "teacher", kind=WeightsError)


@pytest.mark.parametrize(
    ("name", "averaged"),
    [("state_dict_ema", True), ("modelEMA.x", True), ("ema_model.", True), ("Teacher", True), ("schema", False)],
)
def test_words_in_a_name_say_that_it_is_a_mean(name, averaged):
    assert is_averaged(name) == averaged


@pytest.mark.parametrize("before", ["net.", "module.model.", "_orig_mod.module.", "lit.segmenter.backbone.", "model."])
def test_an_encoder_starts_from_a_file_with_any_words_before_its_names(tmp_path, before):
    torch.manual_seed(3)
    theirs, ours = MiT("tiny", drop_path=0.0), MiT("tiny", drop_path=0.0)
    names = prefixed(before, official(theirs)) | {"criterion.weight": torch.ones(19)}
    torch.save({"state_dict": names}, tmp_path / "theirs.ckpt")
    load_encoder_weights(ours, str(tmp_path / "theirs.ckpt"))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_one_name_with_and_without_the_words_of_torch_compile_is_refused(tmp_path):
    torch.save({"_orig_mod.a": torch.ones(2), "a": torch.ones(2)}, tmp_path / "twice.pth")
    assert "a is there twice" in refused(read, tmp_path / "twice.pth", kind=WeightsError)


# Folders of Hugging Face's kind


def in_parts(folder: Path, **files: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")
    names = {key: f"{name}.safetensors" for name, tensors in files.items() for key in tensors}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": names}))
    return index


def test_weights_in_several_files_are_read_as_one(tmp_path):
    index = in_parts(tmp_path, one={"a": torch.ones(2)}, two={"b": torch.zeros(3)})
    assert {name: tensor.tolist() for name, tensor in read(index).tensors.items()} == {"a": [1, 1], "b": [0, 0, 0]}
    save_file({"c": torch.zeros(3)}, tmp_path / "two.safetensors")
    assert "2 tensors are in no part: b, c" in refused(read, index, kind=WeightsError)
    (tmp_path / "two.safetensors").unlink()
    assert "1 of 2 parts are missing, first two.safetensors" in refused(read, index, kind=WeightsError)


@pytest.mark.parametrize("place", ["../x.safetensors", "/etc/passwd", 3, "model.safetensors.index.json"])
def test_an_index_of_files_elsewhere_is_refused(tmp_path, place):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": place}}))
    assert "is no file of weights" in refused(read, index, kind=WeightsError)
    index.write_text("[]")
    assert "is no mapping" in refused(read, index, kind=WeightsError)


@pytest.mark.parametrize(
    ("told", "ours"),
    [
        ({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5]}, ((0.5, 0.5, 0.5), (0.5, 0.25, 0.5))),
        ({"do_rescale": False, "image_mean": [51, 102, 0], "image_std": [255] * 3}, ((0.2, 0.4, 0.0), (1.0,) * 3)),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}, ((0.5,) * 3, (0.5,) * 3)),
        ({"do_normalize": False}, ((0.0,) * 3, (1.0,) * 3)),
    ],
)
def test_what_a_processor_does_to_a_pixel_is_what_the_network_does(tmp_path, told, ours):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    found = hugging_face.normalisation(tmp_path / "model.safetensors")
    assert found is not None
    assert (found.mean, found.deviation) == (pytest.approx(ours[0]), pytest.approx(ours[1]))
    from transformers import SegformerImageProcessor

    pixels = torch.tensor([[[10]], [[100]], [[200]]], dtype=torch.uint8)
    settings = {"do_resize": False, "do_rescale": True, "do_normalize": True} | told
    theirs = SegformerImageProcessor(**settings)(
        pixels.numpy(), return_tensors="pt", input_data_format="channels_first"
    )
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (found.mean, found.deviation))
    torch.testing.assert_close(
        theirs["pixel_values"][0].float(), (pixels / 255 - mean) / deviation, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "told", [{"image_mean": [1, 2]}, {"image_std": [0, 1, 1]}, {"rescale_factor": "1"}, {"image_mean": [1, 2, None]}]
)
def test_a_processor_that_makes_no_sense_is_refused(tmp_path, told):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    refused(hugging_face.normalisation, tmp_path / "model.safetensors", kind=WeightsError)


def test_an_encoder_of_other_images_is_refused(tmp_path):
    torch.manual_seed(3)
    save_file(MiT("tiny", drop_path=0.0).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.485, 0.456, 0.406]}))
    load_encoder_weights(MiT("tiny", drop_path=0.0), str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
    said = refused(load_encoder_weights, MiT("tiny", drop_path=0.0), str(tmp_path), kind=WeightsError)
    assert "image_mean and image_std are not ImageNet's" in said
