"""Several sizes of an image as an evaluation setting: which, what their mean is, and that every command says so."""

from contextlib import nullcontext
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from conftest import write_camvid
from evaluation.test_inference import CPU, Coarse, Wide, bilinear, picture, settings_of, softmax
from segda.commands.evaluate import evaluate
from segda.commands.predict import predict
from segda.commands.pseudo_label import pseudo_label
from segda.data.files.images import read_ids, read_image
from segda.errors import RecipeError
from segda.evaluation.certainty import most_probable, probabilities
from segda.evaluation.inference import boxes, in_boxes, views
from segda.evaluation.metrics import read_reports
from segda.evaluation.protocol import Protocol
from segda.recipes.recipe import Recipe, load_recipe
from segda.run import load_network, load_recipe_of
from small_run import DUSK, write_run

THREE = (0.5, 1.0, 1.75)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("scales") / "data")


def unsure(network):
    """The network with smaller logits: no class is certain anywhere."""
    with torch.no_grad():
        network.conv.weight.mul_(0.2)
        network.conv.bias.mul_(0.2)
    return network


def theirs(network, image, sizes, flip):
    """(C, H, W) float64: the mean of softmaxes of views of (height, width), by OpenCV and bilinear's definition."""
    pixels, height, width = image.permute(1, 2, 0).numpy().copy(), *image.shape[1:]
    found = []
    for h, w in sizes:
        small = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_LINEAR)
        for mirrored in (False, True)[: 1 + flip]:
            shown = small[:, ::-1].copy() if mirrored else small
            with torch.no_grad():
                logits = network.low_res_logits(torch.from_numpy(shown).permute(2, 0, 1)[None].float() / 255)[
                    0
                ].double()
            logits = logits.numpy()[..., ::-1] if mirrored else logits.numpy()
            found.append(softmax(bilinear(logits, (height, width), network.align_corners)))
    return np.mean(found, 0)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("network", [unsure(Wide()), unsure(Coarse())], ids=["at the input's size", "low_res_logits"])
def test_the_mean_over_sizes_is_that_of_a_plain_loop(network, flip):
    image = picture(30, 42)
    asked = settings_of(resize=(40, 28), shape="stretch", scales=THREE, flip=flip)
    seen = views(network, image, asked, CPU, nullcontext())
    assert len(seen) == 3 * (1 + flip) and sum(view.weight for view in seen) == pytest.approx(1)
    ours = torch.stack(list(probabilities(seen, (30, 42))))
    expected = theirs(network, image, [(14, 20), (28, 40), (49, 70)], flip)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    # One size alone says something else: the mean is seen to matter.
    assert np.abs(theirs(network, image, [(28, 40)], flip) - expected).max() > 1e-2


def test_sizes_are_those_of_the_box_rounded_down():
    # By hand: 512 x 0.75 = 384; 511 x 0.5 = 255.5, 300 x 0.5 = 150.
    assert boxes((9, 9), settings_of(resize=(1024, 512), scales=(0.75, 1.0))) == [(768, 384), (1024, 512)]
    assert boxes((300, 511), settings_of(scales=(0.5, 1.0, 2.0))) == [(255, 150), None, (1022, 600)]
    assert boxes((1, 3), settings_of(scales=(0.25,))) == [(1, 1)]


@given(height=some.integers(2, 70), width=some.integers(2, 70), factor=some.floats(0.3, 2))
@settings(max_examples=100, deadline=None)
def test_an_image_without_box_is_shown_at_its_own_size_times_the_factor(height, width, factor):
    (small,) = in_boxes(picture(height, width), settings_of(scales=(factor,)))
    for shown, side in zip(small.shape[1:], (height, width), strict=True):
        # Rounded down in the box, into which the shape then fits: up to one pixel, and that of the other side's.
        assert abs(shown - side * factor) <= 1 + max(height, width) / min(height, width)


def test_the_image_itself_is_not_resampled_at_factor_one():
    image = picture(21, 33)
    (shown,) = in_boxes(image, settings_of(scales=(1.0,)))
    assert (shown == image).all()


def test_what_padding_covers_is_known_at_every_size():
    image = picture(30, 40)
    asked = settings_of(resize=(64, 32), shape="pad", kernel="bicubic", scales=(0.53, 2.0))
    small, large = views(Coarse(), image, asked, CPU, nullcontext())
    assert small.logits.shape[2:] == (2, 5) and large.logits.shape[2:] == (8, 16)
    # By hand: 33x16 is a little wider than 64x32: 30 * 33 / 16 = 61.9 columns to 30 rows.
    assert small.covers == (30, 61) and large.covers == (30, 60)


def test_windows_are_as_large_at_every_size():
    image = picture(32, 32)
    asked = settings_of(how="slide", window=(16, 16), stride=(16, 16), scales=(0.5, 1.0))
    small, large = views(Wide(), image, asked, CPU, nullcontext())
    (half,) = views(Wide(), image, settings_of(scales=(0.5,)), CPU, nullcontext())
    torch.testing.assert_close(small.logits, half.logits)  # one window takes it all
    assert large.logits.shape[2:] == (32, 32)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ([], "evaluate.scales.*at least 1"),
        ([0], "evaluate.scales.0.*greater than 0"),
        ([-1], "evaluate.scales.0.*greater than 0"),
        ([50, 100], "evaluate.scales.0.*less than or equal to 10"),
        ([1, 0.5, 1.0], "name it once"),
        ("twice", "evaluate.scales"),
        (0.5, "evaluate.scales"),
        ([".nan"], "evaluate.scales.0"),
    ],
)
def test_factors_that_mean_nothing_are_refused(recipe, scales, message):
    with pytest.raises(RecipeError, match=message) as caught:
        recipe.override(f"evaluate.scales={scales}")
    assert "\n" not in str(caught.value)


def test_a_recipe_from_before_there_was_a_choice_looks_at_one_size(recipe, tmp_path):
    text = recipe.to_yaml()
    assert "scales:" in text
    (tmp_path / "new.yaml").write_text(text)
    assert load_recipe(tmp_path / "new.yaml") == recipe
    tree = recipe.model_dump(mode="json")
    del tree["evaluate"]["scales"]
    assert Recipe.model_validate(tree).evaluate.scales == (1.0,)


def test_a_report_from_before_there_was_a_choice_is_of_one_size(root, tmp_path):
    run = write_run(tmp_path / "run")
    (report,) = evaluate(run, [DUSK], root)
    table = report.protocol.to_json()
    assert table.pop("scales") == (1.0,)
    assert Protocol.from_json(table) == report.protocol
    assert report.protocol.input() == "at their size, whole, no mirroring"


def test_the_protocol_of_a_number_names_the_sizes(root, tmp_path):
    run = write_run(tmp_path / "run", resize=[64, 48], scales=[0.75, 1, 1.75], flip=True)
    (report,) = evaluate(run, [DUSK], root)
    said = "fitted into 64x48 times 0.75, 1, 1.75 (their mean), whole, mean with mirrored"
    assert report.protocol.input() == said
    (back,) = read_reports(run)
    assert back.protocol == report.protocol and back.protocol.scales == (0.75, 1.0, 1.75)
    half = write_run(tmp_path / "half", scales=[0.75])
    assert evaluate(half, [DUSK], root)[0].protocol.input() == "at their size times 0.75, whole, no mirroring"


def test_evaluate_and_predict_count_the_mean_over_sizes(root, tmp_path):
    run = write_run(tmp_path / "run", scales=[0.75, 1.25], flip=True)
    (report,) = evaluate(run, [DUSK], root, precision="32")
    written = predict(run, (), tmp_path / "out", data=DUSK, root=root, precision="32")
    counts = np.zeros((11, 11), np.int64)
    for path in written:
        image = root / "camvid" / "test" / path.name
        with Image.open(root / "camvid" / "testannot" / path.name) as label:
            truth = np.array(label)
        network = load_network(run)
        prob = theirs(network, read_image(image), [(36, 48), (60, 80)], flip=True)
        predicted = read_ids(path)
        decided = np.diff(np.sort(prob, 0)[-2:], axis=0)[0] > 1e-5
        assert decided.mean() > 0.9 and (predicted == prob.argmax(0))[decided].all()
        np.add.at(counts, (truth[truth < 11], predicted[truth < 11]), 1)
    assert (report.counts[:11] == counts).all()


def test_pseudo_labels_are_of_the_mean_over_sizes(root, tmp_path):
    run = write_run(tmp_path / "run", scales=[0.75, 1.25])
    rule = {"name": "fixed", "level": 0.0}
    summary = pseudo_label([run], DUSK, rule, tmp_path / "labels", root=root, precision="32")
    assert "scales" in str(summary["runs"])
    network, look = load_network(run), load_recipe_of(run).evaluate
    for path in sorted((tmp_path / "labels").glob("*.png")):
        image = read_image(root / "camvid" / "test" / path.name)
        with torch.no_grad():
            shown = [small[None].float() / 255 for small in in_boxes(image, look)]
            prob = [network.infer(each).softmax(1)[0].double().numpy() for each in shown]
        expected = np.mean([bilinear(each, (48, 64), False) for each in prob], 0)
        decided = np.diff(np.sort(expected, 0)[-2:], axis=0)[0] > 1e-5
        assert decided.mean() > 0.9 and (read_ids(path) == expected.argmax(0))[decided].all()


def test_padded_pseudo_labels_of_several_sizes_lie_where_the_image_does():
    image = picture(30, 40)
    asked = settings_of(resize=(64, 32), shape="pad", kernel="bicubic", scales=(1.0, 2.0), softmax="before")
    seen = [replace(view, covers=(32, 64)) for view in views(Wide(), image, asked, CPU, nullcontext())]
    label, _ = most_probable(probabilities(seen, (32, 42)), "confidence")
    whole = [view.logits[0].softmax(0).double().numpy() for view in seen]
    mean = np.mean([bilinear(prob, (32, 64), False) for prob in whole], 0)[:, :, :42]
    decided = np.diff(np.sort(mean, 0)[-2:], axis=0)[0] > 1e-5
    assert (label.numpy() == mean.argmax(0))[decided].all()
