"""A training, built from a recipe and ready at its first step."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from segda import run as runs
from segda.data.labels.pseudo_labels import PseudoLabels
from segda.data.labels.spaces import Space
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.dataset import DataSet, image_weights
from segda.data.sets.datasets import open_data
from segda.data.sets.labelled import measured_classes, open_labelled
from segda.data.sets.pairs import partners, refuse_other_shapes
from segda.data.sets.relabelled import made_for, relabelled
from segda.data.sets.translated import translated_data
from segda.data.stream.loading import loader
from segda.data.stream.stream import References, Stream
from segda.distributed import group, sharding, sync
from segda.errors import RecipeError, RunError, WeightsError
from segda.evaluation.statistics import learning_norms
from segda.ground.hardware import leave_cores, pick_device, pick_precision
from segda.ground.paths import expanded
from segda.ground.trust import trusting
from segda.methods import METHODS
from segda.methods.method import Method
from segda.networks import NETWORKS
from segda.networks.activation_checkpointing import checkpoint_activations
from segda.networks.network import Network
from segda.networks.weights.files import is_plain
from segda.parts import class_weights
from segda.parts.class_weights import weighted
from segda.parts.distillation import Frozen
from segda.parts.fourier import swap
from segda.parts.given import Absent, Given, given_in
from segda.recipes.build import build, from_scratch
from segda.recipes.facts import method_class, refuse_no_start
from segda.recipes.optimisers import Optim
from segda.recipes.recipe import Recipe
from segda.run_data import space_in, space_of
from segda.scene import Batch
from segda.training import checkpoint
from segda.training.compiling import compile_networks, refuse_compiling
from segda.training.loggers import Logger
from segda.training.optim import optimisers, set_lr
from segda.training.start import begin_with, given_network
from segda.training.step import counted, train_step
from segda.training.timing import Skips

log = logging.getLogger(__name__)


@dataclass
class Means:
    """The means of a step's terms since the last line of the log, each over the steps that had it: a method that begins
    one later has it in fewer.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        for name, term in terms.items():
            if (before := self.sums.get(name, term)).shape != term.shape:
                shapes = f"of shape {tuple(before.shape)}, the step's of {tuple(term.shape)}"
                raise WeightsError(f"last.pt: means.sums.{name} is {shapes}; train anew with --overwrite")
            self.sums[name] = self.sums.get(name, 0) + term
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float | list[float]]:
        """The means, and begins anew."""
        means = {name: plain(total / self.counts[name]) for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "counts": self.counts}

    @staticmethod
    def misfits(state: Mapping[str, Any]) -> Iterator[str]:
        """What in a state that was read can be none. Which terms a method has is known when it makes a step."""
        sums, counts = state.get("sums"), state.get("counts")
        if type(sums) is not dict or type(counts) is not dict or len(state) > 2 or sums.keys() != counts.keys():
            yield "means is not the sums and counts of the same terms"
            return
        for name, total in sums.items():
            if type(name) is not str or not name.isprintable() or name in runs.NO_TERMS:
                yield f"means has a term called {name!s:.100}"
            elif type(total) is not Tensor or not is_plain(total) or not total.isfinite().all():
                yield f"means.sums.{name:.100} is no number and no histogram"
            elif type(counts[name]) is not int or counts[name] < 1:
                yield f"means.counts.{name:.100} is no number of steps"

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        self.counts = dict(state["counts"])


@dataclass
class Training:
    """All that a run is made of, built and ready at step `t`."""

    recipe: Recipe
    method: Method
    optimisers: dict[str, torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    stream: Stream | None
    """None for steps on noise (max_batch.py)."""
    scored: list[DataSet]
    device: torch.device
    precision: torch.dtype
    t: int = 0
    means: Means = field(default_factory=Means)
    saved: int | None = None
    """The step after which it was last saved."""
    skips: Skips = field(default_factory=Skips)
    logger: Logger | None = None
    """Who else is told what the log says."""
    class_weights: Tensor | None = None
    """(C,) of the source's labels, see parts/class_weights.py; None: all weigh the same."""

    @cached_property
    def constants(self) -> dict[str, str]:
        """A hash of each part of the method that never changes."""
        return {name: checkpoint.digest(part) for name, part in checkpoint.constants(self.method).items()}

    @cached_property
    def given(self) -> dict[str, str]:
        """A hash of each network that the method was given, by its name in the recipe."""
        return {one.name: checkpoint.digest(one.network) for one in given_in(self.method).values()}

    @property
    def sharded(self) -> bool:
        """Whether this process has but a part of the weights."""
        return self.recipe.shard and group.world() > 1

    def products(self) -> dict[str, nn.Module]:
        """What a run saves, by name."""
        return {name: self.method.get_submodule(place) for name, place in self.method.products.items()}

    def sets(self) -> dict[str, DataSet]:
        """The data sets that it learns from and is measured on, by the keys that name them, see run_data.py."""
        stream = self.stream
        assert stream is not None
        references = None if stream.references is None else stream.references.data
        domains = {"source": stream.source, "target": stream.target, "reference": references}
        found = {f"data.{name}.set": data for name, data in domains.items() if data is not None}
        return found | {f"evaluate.data {data.spec}": data for data in self.scored}

    def segmenters(self) -> dict[runs.Which, Network]:
        """What a run scores: the student, and the teacher where the method has one."""
        products = self.products()
        return {which: network for which in get_args(runs.Which) if isinstance(network := products.get(which), Network)}

    def step(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """The optimisation step that is due, and on to the next; returns its terms, detached.

        batches: this process's, on the host; with `accumulate` several.
        """
        if self.sharded:
            sharding.rest(self.method)
        for player, optimiser in self.optimisers.items():
            set_lr(optimiser, self.t, self.recipe.steps, settings_of(self.recipe)[player])

        def seed() -> None:
            # Dropout draws from torch's generator: giving it an address makes step t the same after any resume.
            torch.manual_seed(step_seed(self.recipe.seed, self.t))

        ready = [self._restyled(self._weighted(batch.to(self.device))) for batch in counted(batches)]
        with group.others_are_asked():
            terms = train_step(
                self.method, ready, self.t, self.optimisers, self.scaler, self.precision, seed, self.saved
            )
        self.t += 1
        return terms

    def _weighted(self, batch: Batch) -> Batch:
        weights = self.class_weights
        return batch if weights is None else batch.replace(source=weighted(batch.source, weights))

    def _restyled(self, batch: Batch) -> Batch:
        """With the target's look on the source, where the recipe says so."""
        source = self.recipe.data.source
        if source is None or source.augment.swap is None:
            return batch
        image = swap(batch.source.image, batch.target.image, source.augment.swap)
        return batch.replace(source=batch.source.replace(image=image))

    def batches(self, stop: int, workers: int) -> Generator[tuple[Batch, ...], None, None]:
        """This process's batches of the steps until `stop`; to be closed."""
        assert self.stream is not None
        recipe, micro_batches = self.recipe, self.recipe.accumulate
        own = range(group.rank() * micro_batches, (group.rank() + 1) * micro_batches)
        shares = group.world() * micro_batches
        return loader(
            self.stream, recipe.data.batch, self.t, stop, workers, recipe.seed, shares, own,
            on_bad_image=recipe.data.on_bad_image, pin=self.device.type == "cuda", skipped=self.skips.untold.append,
        )  # fmt: skip

    def rates(self) -> dict[str, float]:
        """The learning rate of each player's parameter groups in the last step."""
        return {
            f"lr/{player}/{group['name']}": group["lr"]
            for player, optimiser in self.optimisers.items()
            for group in optimiser.param_groups
        }


def settings_of(recipe: Recipe) -> dict[str, Optim]:
    """The optimiser's settings of each player."""
    return {**({} if recipe.optim is None else {"student": recipe.optim}), **recipe.players}


@dataclass
class Parts:
    """What a process builds of a run without asking the others."""

    source: DataSet | None
    target: DataSet
    references: References | None
    scored: list[DataSet]
    pseudo_labels: PseudoLabels | None
    method: Method


def assemble(recipe: Recipe, root: Path, cache: Path | None, fresh: bool = True) -> Training:
    """Builds the whole run from a recipe, the cheap checks first. Class statistics are cached in the folder `cache`.

    fresh: whether the student begins with `start` or its pretrained weights; not where a checkpoint replaces them.
    """
    device = group.own_device(pick_device(recipe.device))
    precision = pick_precision(recipe.precision, device)
    if recipe.compile:
        refuse_compiling(device)
    leave_cores(recipe.data.workers)
    parts = group.all_succeed(lambda: build_parts(recipe, root, fresh))
    if recipe.shard and group.world() > 1:
        sharding.shard(parts.method, device)
    parts.method.to(device)
    if recipe.compile:
        compile_networks(parts.method)
    source, statistics = recipe.data.source, None
    augment, rare_class, balanced = (
        (None, None, None) if source is None else (source.augment, source.rare_class, source.balanced)
    )
    by_class = rare_class is not None or balanced is not None
    by_frequency = recipe.loss.class_weights in ("inverse", "median")
    if parts.source is not None and (by_class or by_frequency):
        skip = recipe.data.on_bad_image == "skip"
        statistics = class_statistics(parts.source, cache, leave_out=skip)
    weights = group.all_succeed(lambda: weights_of(recipe, parts.source, statistics))

    def ready() -> Training:
        stream = Stream(
            parts.source, parts.target, recipe.seed, augment, recipe.data.target.augment,
            rare_class, statistics if by_class else None, parts.method.fill, parts.pseudo_labels,
            parts.references, parts.method.style and parts.pseudo_labels is not None, balanced,
        )  # fmt: skip
        scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
        players = optimisers(parts.method, settings_of(recipe))
        training = Training(recipe, parts.method, players, scaler, stream, parts.scored, device, precision)
        training.class_weights = None if weights is None else weights.to(device)
        return training

    return group.all_succeed(ready)


def weights_of(recipe: Recipe, source: DataSet | None, statistics: np.ndarray | None) -> Tensor | None:
    """(C,) float32 what the classes of the source's labels weigh, as `loss.class_weights` says; None: all the same.

    statistics: of the source, see `class_statistics`, where they are counted. In a union, images count as often as they
    are drawn.
    """
    told = recipe.loss.class_weights
    if told == "none":
        return None
    assert source is not None, "refused with the recipe"
    classes = source.space.classes
    if isinstance(told, str):
        assert statistics is not None
        drawn = 1.0 if source.shares is None else len(source) * image_weights(source)[:, None]
        weights = class_weights.RULES[told](statistics * drawn)
    else:
        weights = class_weights.given_weights(told, classes)
    said = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(classes, weights, strict=True))
    log.info(f"class weights: {said}")
    return torch.tensor(weights, dtype=torch.float32)


def build_parts(recipe: Recipe, root: Path, fresh: bool) -> Parts:
    """Opens the data sets and builds the method."""
    space = space_of(recipe)
    target = open_data(recipe.data.target.set, root, space)
    source = source_of(recipe, root, space)
    references = references_of(recipe, source, target, root, space)
    scored = [open_labelled(spec, root, space) for spec in recipe.evaluate.data]
    for data in scored:
        measured_classes(data, recipe.evaluate.classes)  # at the end of a training it is too late to refuse
    pseudo_labels = target_labels(recipe, target, space)
    say_of([data for data in (source, target, *scored) if data is not None])
    method = build_method(recipe, space, fresh)
    if fresh and method.has_student():
        log.info(method.student.origin)
    if recipe.exact_statistics:
        learning_norms(method.student, "exact_statistics: the student", "leave them out")
    held = [module for module in method.modules() if isinstance(module, Frozen)]
    for network in (*given_in(method).values(), *held):
        log.info(network.origin)
    alone = group.world() > 1 and not recipe.sync_batchnorm
    if alone and any(isinstance(module, nn.BatchNorm2d) for module in method.modules()):
        log.info("batch norm sees each process's scenes alone; with sync_batchnorm: true it sees those of all")
    return Parts(source, target, references, scored, pseudo_labels, method)


def source_of(recipe: Recipe, root: Path, space: Space) -> DataSet | None:
    """The labelled domain, with its images in another style, and other labels, where the recipe names their folders."""
    told = recipe.data.source
    if told is None:
        return None
    data = open_data(told.set, root, space)
    labels = None if told.labels is None else expanded(told.labels)
    if told.images is not None:
        # What has labels of a network is of the target's kind already.
        of_network = None if labels is None else made_for(labels, data)
        data = translated_data(data, expanded(told.images), of_network)
    return data if labels is None else relabelled(data, labels, "data.source.labels")


def say_of(datasets: Sequence[DataSet]) -> None:
    """Says once of each data set how its images are read and what speaks against learning from it."""
    for part in {part.spec: part for data in datasets for part in data.parts}.values():
        for line in part.reading():
            log.info(line)
        for line in part.doubts():
            log.warning(line)


def build_method(recipe: Recipe, space: Space, fresh: bool = True, lent: bool = True) -> Method:
    """The network as the recipe starts it and the method around it, on the host and in training mode.

    lent: whether it is to learn, and so needs the networks that the recipe gives it; they may be gone by now.
    """
    torch.manual_seed(recipe.seed)
    networks = {"student": student_of(recipe, space, fresh)} if method_class(recipe.method).has_student() else {}
    for name, where in recipe.given.items():
        networks[name] = given_network(name, where, space.classes) if lent else Given(name, Absent(space.classes))
    method: Method = build(METHODS, recipe.method, "method", **networks)
    if group.world() > 1 and recipe.sync_batchnorm:
        sync.synchronise(method)
    if recipe.activation_checkpointing:
        checkpoint_activations(networks["student"])
    return method.train()


def student_of(recipe: Recipe, space: Space, fresh: bool) -> Network:
    """The student at its start. Unless `fresh`, other weights will come: nothing is read of what it starts from."""
    anew = fresh and recipe.start is None
    if anew:
        refuse_no_start(recipe, method_class(recipe.method))
    spec = recipe.network if anew else from_scratch(NETWORKS, recipe.network, "network")
    student: Network = build(NETWORKS, spec, "network", class_names=space.classes)
    if fresh and recipe.start is not None:
        student.origin = begin_with(student, recipe)
    return student


def load_product(
    run: str | Path,
    product: str,
    device: torch.device | str = "cpu",
    step: int | None = None,
    trust: Sequence[Path | str] = (),
) -> nn.Module:
    """What the method of a run folder made, by its name, in evaluation mode: a translator, for instance; the last, or
    the one after `step`.

    RunError where the method makes nothing of that name, WeightsError where its file is missing or does not fit. trust:
    as of `load_network`.
    """
    run = Path(run)
    with trusting(trust):
        recipe = runs.load_recipe_of(run)
    products = method_class(recipe.method).products
    if product not in products:
        raise RunError(f"{run}: method {recipe.method['name']} makes {', '.join(products)}, and no {product}")
    path = runs.network_path(run, product, step)
    module = build_method(recipe, space_in(run), fresh=False, lent=False).get_submodule(products[product])
    runs.fill(module, runs.read_tensors(path), path)
    return module.to(device).eval()


def references_of(
    recipe: Recipe, source: DataSet | None, target: DataSet, root: Path, space: Space
) -> References | None:
    """The references that the recipe names, each with its image; opens no image but for its header."""
    told = recipe.data.reference
    if told is None:
        return None
    images = target if told.of == "target" else source
    assert images is not None, "refused with the recipe"
    data = open_data(told.set, root, space)
    partner = partners(images, data, told.pairs)
    refuse_other_shapes(images, data, partner, leave_out=recipe.data.on_bad_image == "skip")
    return References(data, told.of, partner)


def target_labels(recipe: Recipe, target: DataSet, space: Space) -> PseudoLabels | None:
    """The pseudo-labels that the recipe names; RecipeError where the method must have some and it names none."""
    folder = recipe.data.target.labels
    if folder is None and method_class(recipe.method).target_labels == "must":
        raise RecipeError(
            f"data.target.labels: method {recipe.method['name']} learns from pseudo-labels; give the folder that "
            f"`segda pseudo-label` wrote for {recipe.data.target.set}, or stages that make them"
        )
    return None if folder is None else PseudoLabels.open(folder, target, space)


def step_seed(seed: int, t: int) -> int:
    """A different seed of torch's generator for each step of each run, 63 bits."""
    return int(np.random.SeedSequence([seed, t]).generate_state(1, np.uint64)[0] >> 1)


def plain(term: Tensor) -> float | list[float]:
    """A scalar, or a histogram, of which five digits are enough in a log."""
    value = term.tolist()
    return value if isinstance(value, float) else [round(share, 5) for share in value]
