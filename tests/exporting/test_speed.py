"""`segda benchmark`: its rows and what it leaves out; no test looks at how long anything took."""

import pytest

from conftest import write_camvid
from segda.commands.benchmark import benchmark
from segda.errors import RecipeError
from segda.exporting import speed
from small_run import write_run

TRAIN = "camvid:train:dusk"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def test_each_way_is_called_as_often_and_the_table_has_it(run, root, monkeypatch):
    monkeypatch.setattr(speed, "ROWS", (("huggingface", "32"),))
    found = benchmark(run, size="64x48", batch=2, calls=3, data=TRAIN, root=root)
    names = [row.name for row in found.rows]
    assert names[0] == "PyTorch, float32" and names[-1] == "huggingface, float32"
    assert {len(row.seconds) for row in found.rows} == {3}
    lines = found.lines()
    assert lines[2].startswith("| PyTorch, float32 | ") and lines[2].endswith(" | 1.00 |")
    assert "3 calls each, in turn, of 2 x 64x48; " in lines[-1]


def test_a_format_whose_library_is_absent_is_said(run, root, monkeypatch):
    monkeypatch.setattr(speed, "ROWS", (("onnx", "32"),))
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    found = benchmark(run, size="64x48", calls=1, data=TRAIN, root=root)
    assert found.lines()[-1] == ("onnx, float32: left out, onnxscript is not installed; pip install 'segda[export]'")


def test_a_size_is_its_own_or_two_numbers(run, root):
    with pytest.raises(RecipeError, match="--size 0x3: give own, or width and height such as 640x480"):
        benchmark(run, size="0x3", data=TRAIN, root=root)


@pytest.mark.parametrize(("wrong", "message"), [({"batch": 0}, "--batch 0"), ({"calls": 0}, "--calls 0")])
def test_nothing_is_timed_of_nothing(run, root, wrong, message):
    with pytest.raises(RecipeError, match=f"{message}: give at least 1"):
        benchmark(run, data=TRAIN, root=root, **wrong)
