"""The formats of exported files: how each is written, and how it is run again.

A format is one row of FORMATS. What it needs beyond segda's own libraries is imported when it is used.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

from segda.conversion.to_theirs import WEIGHTS
from segda.errors import RecipeError, RunError, WeightsError
from segda.exporting.about import NAME, About, Runner, about_from
from segda.exporting.graph import INPUT, OUTPUT, traced
from segda.exporting.huggingface import open_folder, told_folder, write_folder
from segda.ground.choices import ExportPrecision
from segda.ground.trust import permit_pickle, read_from
from segda.networks.network import Network
from segda.networks.weights.hugging_face import CONFIG, PREPROCESSOR

GRAPH = "network.xml"
"""The file of an OpenVINO folder that says it is one; its weights are beside it, network.bin."""

DIMENSIONS = ("batch", "height", "width")


@dataclass(frozen=True)
class Format:
    """One way to keep a graph.

    suffix: of its file; none for a folder. precisions: that it is written in. write: into a file or an empty folder,
    with images as they go in, for int8. open: what the file says of itself, and how it is run. runs_code: whether a
    stranger's file can make its reader run code. told: the JSON under our name, found without running anything; None
    where there is none. holds: the names of the files of a folder.
    """

    suffix: str
    precisions: tuple[ExportPrecision, ...]
    write: Callable[[Network, About, Path, Sequence[np.ndarray]], None]
    open: Callable[[Path], tuple[About, Runner]]
    told: Callable[[Path], str | None]
    holds: tuple[str, ...] = ()
    runs_code: bool = False


def required(name: str, extra: str) -> Any:
    """A module of an extra; RecipeError that says how to install it."""
    try:
        with quiet():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        raise RecipeError(f"{name} is not installed; pip install 'segda[{extra}]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without what these libraries print of torchvision and of their progress. OpenVINO and NNCF send their makers what
    they are used for, unless they believe that they run in CI: here they do.
    """
    before, ci = logging.root.manager.disable, os.environ.get("CI")
    logging.disable(logging.WARNING)
    os.environ["CI"] = "true"
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        os.environ.pop("CI")
        os.environ.update({} if ci is None else {"CI": ci})


# torch


def write_torch(network: Network, about: About, path: Path, _: Sequence[np.ndarray]) -> None:
    with quiet():
        program = traced(network, about)
    torch_of(program, about, path)


def torch_of(program: torch.export.ExportedProgram, about: About, path: Path) -> None:
    """Of a network that is traced already."""
    with quiet():
        torch.export.save(program, path, extra_files={NAME: about.to_json()})


def told_torch(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(f"/extra/{NAME}")]
        return archive.read(members[0]).decode() if members else None


def open_torch(path: Path) -> tuple[About, Runner]:
    told = {NAME: ""}
    with quiet():
        program = torch.export.load(path, extra_files=told)
        # Its guards are of how torch traced it, as whether a part of an image is all of it; not of what it computes.
        module = program.module(check_guards=False)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return about_from(told[NAME] or None, path), run


# ONNX


def write_onnx(network: Network, about: About, path: Path, _: Sequence[np.ndarray]) -> None:
    required("onnxscript", "export")  # before the tracing, which takes long
    with quiet():
        program = traced(network, about)
    onnx_of(program, about, path)


def onnx_of(program: torch.export.ExportedProgram, about: About, path: Path) -> None:
    """Of a network that is traced already."""
    required("onnxscript", "export")
    onnx = required("onnx", "export")
    with quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False, output_names=[OUTPUT])
    assert made is not None
    model = made.model_proto
    named(model.graph)
    onnx.helper.set_model_props(model, {NAME: about.to_json()})
    try:
        path.write_bytes(model.SerializeToString())
    except ValueError as error:
        raise WeightsError(
            f"{path.name}: is more than the 2 GB that one file of ONNX holds; use --precision 16 or --to torch"
        ) from error


def named(graph: Any) -> None:
    """Gives the sizes of input and output names that a reader knows, in place of the tracer's s77."""
    shape = graph.input[0].type.tensor_type.shape.dim
    names = [(shape[place].dim_param, name) for place, name in zip((0, 2, 3), DIMENSIONS, strict=True)]
    values = (*graph.input, *graph.output, *graph.value_info)
    for one in (one for value in values for one in value.type.tensor_type.shape.dim if one.dim_param):
        for symbol, name in names:
            one.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", name, one.dim_param) if symbol else one.dim_param


def told_onnx(path: Path) -> str | None:
    model = required("onnx", "export").load(path, load_external_data=False)
    return next((each.value for each in model.metadata_props if each.key == NAME), None)


def open_onnx(path: Path) -> tuple[About, Runner]:
    runtime = required("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        return session.run([OUTPUT], {INPUT: images})[0]

    return about_from(session.get_modelmeta().custom_metadata_map.get(NAME), path), run


# OpenVINO


def write_openvino(network: Network, about: About, folder: Path, calibration: Sequence[np.ndarray]) -> None:
    required("openvino", "openvino")
    # By ONNX: of torch's own graphs it does not know all that is computed of an image's sides.
    graph = folder / "graph.onnx"
    write_onnx(network, replace(about, precision="32"), graph, ())
    openvino_of(graph, about, folder, calibration)
    graph.unlink()


def openvino_of(graph: Path, about: About, folder: Path, calibration: Sequence[np.ndarray]) -> None:
    """Of a network's file of ONNX in 32 bits."""
    openvino = required("openvino", "openvino")
    with quiet():
        model = openvino.convert_model(graph)
    if about.precision == "int8":
        model = quantised(model, calibration)
    model.set_rt_info(about.to_json(), NAME)
    openvino.save_model(model, folder / GRAPH, compress_to_fp16=about.precision == "16")


def quantised(model: Any, calibration: Sequence[np.ndarray]) -> Any:
    """With weights and maps of eight bits, by what the maps hold for these images."""
    nncf = required("nncf", "openvino")
    with quiet():
        nncf.set_log_level(logging.ERROR)
        return with_common_ranges(nncf.quantize(model, nncf.Dataset(list(calibration)), subset_size=len(calibration)))


def with_common_ranges(model: Any) -> Any:
    """One range for all of an axis whose length depends on the image.

    NNCF gives each channel of a depthwise convolution's input its own range, and may move that in front of a transpose
    (MiT's feed-forward parts): there it is one for each of the calibration images' pixels, so that an image of another
    size is refused, or its output has the wrong size (seen with NNCF 3.4 and OpenVINO 2026.4).
    """
    constant = required("openvino.opset13", "openvino").constant
    for node in model.get_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        given = node.input(0).get_partial_shape()
        for place, widest in ((1, np.min), (2, np.max), (3, np.min), (4, np.max)):
            known = node.input_value(place).get_node()
            if known.get_type_name() != "Constant":
                continue
            ends = known.get_data()
            axes = tuple(
                axis
                for axis in range(ends.ndim)
                if ends.shape[axis] > 1 and given[len(given) - ends.ndim + axis].is_dynamic
            )
            if axes:
                common = constant(widest(ends, axis=axes, keepdims=True))
                node.input(place).replace_source_output(common.output(0))
    model.validate_nodes_and_infer_types()
    return model


def told_openvino(folder: Path) -> str | None:
    found = ElementTree.parse(folder / GRAPH).getroot().find(f"rt_info/{NAME}")
    return None if found is None else found.get("value")


@functools.cache
def openvino_core() -> Any:
    """The one of this process, kept until it ends.

    While a core has its CPU plugin, that one's memory is where signals are handled; each puts back what was there
    before it. Two that end in the order in which they began leave the memory of the first, which is gone: the next
    signal ends the process (seen with OpenVINO 2026.4).
    """
    return required("openvino", "openvino").Core()


def open_openvino(folder: Path) -> tuple[About, Runner]:
    core = openvino_core()
    model = core.read_model(folder / GRAPH)
    told = model.get_rt_info(NAME).value if model.has_rt_info([NAME]) else None
    about = about_from(told if told is None or isinstance(told, str) else json.dumps(told), folder)
    # On processors that have bfloat16 OpenVINO would compute in it unasked.
    precision = {"INFERENCE_PRECISION_HINT": "f32"} if about.precision != "16" else {}
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads(), **precision})

    def run(images: np.ndarray) -> np.ndarray:
        return compiled(images)[0]

    return about, run


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", ("32", "16"), write_onnx, open_onnx, told_onnx),
    # torch.export.load unpickles parts of it.
    "torch": Format(".pt2", ("32", "16"), write_torch, open_torch, told_torch, runs_code=True),
    "openvino": Format("", ("32", "16", "int8"), write_openvino, open_openvino, told_openvino, (GRAPH, "network.bin")),
    "huggingface": Format("", ("32",), write_folder, open_folder, told_folder, (CONFIG, WEIGHTS, PREPROCESSOR)),
}


def format_of(path: Path) -> Format | None:
    """The format of a file or folder that segda may have exported; None where it is none."""
    if path.is_dir():
        if (path / GRAPH).is_file():
            return FORMATS["openvino"]
        return FORMATS["huggingface"] if (path / CONFIG).is_file() and not (path / "recipe.yaml").exists() else None
    return next((row for row in FORMATS.values() if row.suffix and path.suffix == row.suffix), None)


def is_ours(path: Path, row: Format) -> bool:
    """Whether segda has exported a file or folder in this format, and nothing else lies in it: it may be replaced."""
    if path.is_dir() == bool(row.suffix) or (
        path.is_dir() and not {one.name for one in path.iterdir()} <= {*row.holds}
    ):
        return False
    try:
        return isinstance(row.told(path), str)
    except RecipeError:
        raise
    # Every Exception: each reader has its own for a file of another kind.
    except Exception:
        return False


def opened(path: Path) -> tuple[About, Runner]:
    """What an exported file says of itself, and how it is run. WeightsError for one that cannot be read; RunError for
    one that would run code, which nobody trusts.
    """
    row = format_of(path)
    assert row is not None
    if not path.exists():
        raise WeightsError(f"{path}: no such file; export it: segda export RUN --out {path}")
    if row.runs_code:
        permit_pickle(path)
    try:
        with read_from(path):
            return row.open(path)
    except (WeightsError, RecipeError, RunError):
        raise
    # Every Exception: each library has its own for a damaged file.
    except Exception as error:
        lines = (str(error) or type(error).__name__).strip().splitlines()
        # OpenVINO says first where in its source it stopped, in lines that end so.
        reason = next((line for line in lines if not line.endswith(":")), lines[0])
        raise WeightsError(f"{path}: cannot be read ({reason}); export or copy it again") from error
