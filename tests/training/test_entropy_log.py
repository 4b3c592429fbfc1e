"""The entropy of the prediction in the log and in the report, and as weight of the mixed pixels (EBDA)."""

import math

import numpy as np
import pytest
import torch

from conftest import small_recipe
from segda.data.stream.loading import loader
from segda.errors import RecipeError
from segda.methods import ebda
from segda.parts import self_training
from segda.parts.entropy import BINS, QUANTILES, entropy_summary
from segda.parts.losses import supervised
from segda.parts.mixing import class_mix
from segda.reporting.charts import peaks
from segda.scene import IGNORE
from segda.training import assembly


def entropies(logits: torch.Tensor) -> np.ndarray:
    """Of every fourth pixel of every fourth row, in float64, pixel by pixel, sorted."""
    found = []
    for image in logits[:, :, ::4, ::4].double().numpy():
        for pixel in image.reshape(len(image), -1).T:
            p = np.exp(pixel - pixel.max()) / np.exp(pixel - pixel.max()).sum()
            found.append(-sum(share * math.log(share) for share in p if share > 0))
    return np.sort(found)


def test_the_census_is_that_of_a_plain_float64_count():
    logits = torch.randn(2, 7, 21, 34, generator=torch.Generator().manual_seed(1)) * 4
    found, theirs = entropy_summary("target", logits), entropies(logits)
    n = len(theirs)
    assert n == 2 * 6 * 9
    assert found["H/target"].item() == pytest.approx(theirs.mean(), rel=1e-6)
    for q in QUANTILES:
        k = math.ceil(q / 100 * n)
        below = (theirs <= found[f"H/target/q{q:02d}"].item() + 1e-6).sum()
        assert below >= k > (theirs < found[f"H/target/q{q:02d}"].item() - 1e-6).sum()
    counts, _ = np.histogram(theirs, BINS, (0, math.log(7)))
    np.testing.assert_allclose(found["histogram/target"] * n, counts, atol=1e-4)
    assert len(found) == 2 + len(QUANTILES)


def test_the_extremes_fall_into_the_first_and_the_last_bin():
    sure, lost = torch.zeros(1, 19, 4, 4), torch.zeros(1, 19, 4, 4)
    sure[:, 3] = 1e4
    assert entropy_summary("source", sure)["histogram/source"][0] == 1
    assert entropy_summary("source", lost)["histogram/source"][-1] == 1
    assert entropy_summary("source", lost)["H/source/q05"].item() == pytest.approx(math.log(19))


def test_the_census_has_no_gradient():
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    assert not any(value.requires_grad for value in entropy_summary("source", logits).values())


@pytest.mark.parametrize(
    ("method", "domains"),
    [
        ("source_only", {"source"}),
        ("mgcda", {"source"}),
        ("minent", {"source", "target"}),
        ("advent", {"source", "target"}),
        ("dacs", {"source", "target", "mixed"}),
        ("daformer", {"source", "target", "mixed"}),
        ("ebda", {"source", "target", "mixed"}),
        ("mic", {"source", "target", "mixed", "masked"}),
    ],
)
def test_every_method_logs_the_entropy_of_what_it_predicts(method, domains, camvid):
    training = assembly.assemble(small_recipe(camvid, method), camvid, None)
    ((batch,),) = loader(training.stream, 2, 0, 1, 0, 0)
    log = training.step([batch])
    assert {name.split("/")[1] for name in log if name.startswith("histogram/")} == domains
    assert {name for name in log if name.startswith("H/") and name.count("/") == 1} == {f"H/{d}" for d in domains}


def test_as_pixel_weight_the_balance_weighs_the_cross_entropy_of_the_mixed_pixels(camvid, monkeypatch):
    seen = {}

    def mixing(*arguments, **settings):
        seen["mixed"] = class_mix(*arguments, **settings)
        return seen["mixed"]

    def supervising(output, scene, **settings):
        seen["logits"], seen["scene"] = output.logits.detach(), scene
        return supervised(output, scene, **settings)

    monkeypatch.setattr(self_training, "class_mix", mixing)
    monkeypatch.setattr(ebda, "supervised", supervising)
    recipe = small_recipe(camvid, "ebda", balance_as="pixel_weight", balance_weight=0.05, level=2.0)
    training = assembly.assemble(recipe, camvid, None)
    ((batch,),) = loader(training.stream, 2, 0, 1, 0, 0)
    log = training.step([batch])

    log_prob = seen["logits"].double().log_softmax(1)
    unsure = -(log_prob.exp() * log_prob).sum(1)
    weight = seen["mixed"].weight.double() + 0.05 * (unsure - 2) ** 2
    torch.testing.assert_close(seen["scene"].weight.double(), weight, rtol=1e-5, atol=1e-6)
    assert not seen["scene"].weight.requires_grad
    label = seen["mixed"].label
    known = label != IGNORE
    losses = -log_prob.gather(1, torch.where(known, label, 0)[:, None])[:, 0] * weight
    assert log["mix"].item() == pytest.approx(losses[known].sum().item() / label.numel(), rel=1e-5)
    assert "balance" not in log


def test_a_second_pass_for_a_pixel_weight_is_refused(camvid):
    recipe = small_recipe(camvid, "ebda", balance_as="pixel_weight", second_pass=True)
    with pytest.raises(RecipeError, match="second_pass has no effect with balance_as: pixel_weight"):
        assembly.assemble(recipe, camvid, None)


def lines(domain: str, count: int = 3) -> list[dict]:
    histogram = [0.0] * BINS
    histogram[4] = 1.0
    quantiles = {f"H/{domain}/q{q:02d}": 0.25 for q in QUANTILES}
    return [{"step": 20 * n, f"H/{domain}": 0.26, f"histogram/{domain}": histogram} | quantiles for n in range(count)]


def test_each_domain_in_the_log_has_a_chart_and_the_level_is_drawn_on_the_mixed_one():
    log = [a | b for a, b in zip(lines("source"), lines("mixed"), strict=True)] + [{"step": 40, "evaluation": "x"}]
    source, mixed = peaks(log, 19, 0.4)
    assert (source.title, mixed.title) == ("entropy, source", "entropy, mixed")
    assert [name for name, _ in source.legend] == ["mean", "median, 5 % and 95 %"]
    assert [name for name, _ in mixed.legend][-1] == "level 0.4"
    assert "mean from 0.26 to 0.26" in source.alt and "median from 0.25 to 0.25" in source.alt
    assert "data:image/png;base64" in source.svg


def test_a_log_without_entropy_or_with_one_line_has_no_such_chart():
    assert peaks([{"step": 20, "source": 1.0}], 19, None) == []
    assert peaks(lines("source", 1), 19, None) == []
