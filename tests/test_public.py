"""What `import segda` offers, and what it costs and needs."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import processes
import segda

PUBLIC = [
    "Batch",
    "DATASETS",
    "DataError",
    "Head",
    "IGNORE",
    "METHODS",
    "Method",
    "NETWORKS",
    "Network",
    "Output",
    "Recipe",
    "RecipeError",
    "Report",
    "RunError",
    "SPACES",
    "Scene",
    "SegdaError",
    "WeightsError",
    "adapt",
    "build",
    "compare",
    "convert",
    "draw",
    "evaluate",
    "export",
    "init",
    "load_network",
    "load_recipe",
    "open_data",
    "predict",
    "pseudo_label",
    "report",
    "select",
    "sweep",
    "train",
    "translate",
]
"""Whoever changes this list changes what others rely on: say so in CHANGELOG.md."""

WITHOUT_TORCHVISION = """
import importlib, pkgutil, sys, warnings

# Not to be found, and an error to import, whether it is installed or not.
sys.modules["torchvision"] = None
warnings.simplefilter("error")
import segda
names = [module.name for module in pkgutil.walk_packages(segda.__path__, "segda.")]
for name in names:
    if name != "segda.__main__":
        importlib.import_module(name)
network = segda.NETWORKS["mit_daformer"](
    ["a", "b"], encoder="tiny", weights="scratch", channels=8, dilations=[1], dropout=0.0, drop_path=0.0
)
assert sys.modules["torchvision"] is None
print(len(names))
"""


def test_the_public_names_are_these():
    assert sorted(segda.__all__) == PUBLIC
    assert dir(segda) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_leads_to_something_of_that_name(name):
    found = getattr(segda, name)
    assert getattr(found, "__name__", name) == name


def test_the_version_is_that_of_the_package():
    assert segda.__version__ == version("segda")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'segda' has no attribute 'trian'"):
        _ = segda.trian


def test_importing_segda_imports_neither_torch_nor_numpy():
    code = "import sys, segda; print(sorted({'torch', 'numpy', 'transformers', 'cv2'} & set(sys.modules)))"
    done = processes.run([sys.executable, "-c", code], check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_and_the_network_work_without_torchvision():
    done = processes.run([sys.executable, "-c", WITHOUT_TORCHVISION])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


def test_all_files_that_the_code_reads_are_in_the_wheel():
    package = Path(segda.__file__).parent
    told = tomllib.loads((package.parents[1] / "pyproject.toml").read_text())
    packed = {path for pattern in told["tool"]["setuptools"]["package-data"]["segda"] for path in package.glob(pattern)}
    ours = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in ours if path.suffix != ".py"} == packed
