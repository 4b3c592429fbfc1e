"""The benchmarks measure nothing here, but each takes one tiny step."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"

SMALL = '["data.batch=1", "data.workers=0", "data.source.augment.crop=[64,64]", "data.target.augment.crop=[64,64]"]'

STEPS = {
    "activation_checkpointing": "it.memory('b0', 32, 1, True); it.seconds('b0', 32, 1, 1)",
    "advent_step": """
        it.SOURCE = it.TARGET = (64, 64)
        assert all(sum(it.Way(*way, "small").step(it.noise(0)).values()) > 0 for way in it.WAYS.values())
        """,
    "all": """
        sys.argv = ["all.py", "--table", "--tiny", "--steps", "1", "--only", "768", "n, MiT-B0, 4", "item", "101, f"]
        it.main()
        """,
    "class_statistics": "it.DRAWN = 1; it.main(Path.cwd(), 1)",
    "convolutions": """
        lines = it.table("EfficientNet-Lite0", 1, tiny=True)
        assert any("5x5 depthwise strided" in line for line in lines) and "GFLOP/s" in " ".join(lines)
        """,
    "device_memory": """
        it.ROWS = {"tiny": ("vfm_plus_dinov2_gta5_cityscapes", (it.AGAIN,))}
        steps = it.measured(it.recipe_of("tiny", True))
        assert 0 < steps[0].memory < steps[1].memory
        """,
    "ebda_step": """
        it.SIDE = 64
        spent = it.Iteration("ebda", "tiny", it.Way()).step(0)
        assert {"balance", "teacher", "mixed backward"} <= set(spent)
        """,
    "evaluate": """
        tiny = dict(it.ROWS["mit_daformer b0"][0], encoder="tiny", channels=8, dilations=[1])
        it.ROWS = {"tiny": (tiny, {})}
        it.main(1, "32")
        """,
    "fuzz": "assert it.main(0.1, 0) == 0",
    "hrda_step": """
        it.WAYS = {name: way for name, way in it.WAYS.items() if name in (it.FIRST, it.SHIPPED) or way.method == "mic"}
        assert len(it.table(it.measured(1, "tiny", 64))) == 5
        """,
    "kept_memory": f"it.WARM = 0; it.measured('ebda_streets', 1, {SMALL})",
    "make_fog": "it.SIZE = (128, 256); it.main(Path('out'))",
    "operations": """
        it.WARM = 0
        peaks = {"convolution, bf16": 1.0, "convolution, 32": 1.0}
        rows = ("EBDA, MiT-B0, one pass", "evaluation, MiT-B0")
        told = [" ".join(it.report(row, peaks, tiny=True)) for row in rows]
        assert all("| convolutions |" in one and "aten::" in one for one in told)
        """,
    "pseudo_label": """
        it.write_run(Path("run"), "small")
        it.write_images(Path("data1"), 1, (64, 32))
        it.child(Path.cwd(), 1)
        """,
    "readers": "it.SIZE = (64, 128); it.listing = it.statistics = print; it.main(0.01, 1)",
    "train_step": "it.main('streets', 1)",
}
"""Benchmark -> a step of it, as small as it can be."""

ELSEWHERE = {
    "damage": "tests/test_damage.py",
    "gpu": "Makefile",  # .ci/run makes it on the processor
    "kills": "tests/training/test_resume.py",
    "sweep_kills": "tests/commands/test_sweep.py",
    "write_failures": "tests/training/test_write_failures.py",
}
"""Benchmark -> what runs it."""

PARTS = {"parts", "steps", "killing", "failing_files", "two_convolutions"}
"""What others are made of."""

OF_RUNS = {"growth", "picture", "picture_entropy", "picture_labels", "picture_translations", "runs", "select_table"}
"""What draws or lists runs of hours."""

LONG = {"export_table", "memory_failures", "processes", "soak", "stream", "torchrun_kills"}
"""Whose least step takes minutes, since it starts processes or exports; their parts have tests of their own."""


def there() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", there())
def test_a_benchmark_finds_all_that_it_imports(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)


@pytest.mark.parametrize("name", STEPS)
def test_a_benchmark_takes_a_tiny_step(name, tmp_path, forks):
    lines = [line.strip() for line in STEPS[name].strip().splitlines()]
    head = ["import sys", "from pathlib import Path", f"sys.path.insert(0, {str(FOLDER)!r})", f"import {name} as it"]
    if name == "all":  # a function's name as well
        head[-1] = "import importlib; it = importlib.import_module('all')"
    script = tmp_path / "step.py"
    script.write_text("\n".join([*head, *lines]))
    done = forks.run(script, cwd=tmp_path)
    assert done.returncode in (0, None), done.stdout + done.stderr


def test_operations_are_counted_as_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    flops = importlib.import_module("steps").flops
    tokens = torch.rand(1, 2, 4, 8, requires_grad=True)  # two heads of 4 tokens in 8 numbers
    each = 2 * 2 * 4 * 4 * 8  # a product of two matrices
    assert flops(lambda: F.scaled_dot_product_attention(tokens, tokens, tokens)) == 2 * each
    # Backwards five: the scores once more, and the gradients of weights, values, queries and keys.
    assert flops(lambda: F.scaled_dot_product_attention(tokens, tokens, tokens).sum().backward()) == 7 * each
    assert flops(lambda: F.conv2d(torch.rand(1, 3, 6, 6), torch.rand(5, 3, 3, 3))) == 2 * 5 * 4 * 4 * 3 * 3 * 3
    # Of each output of a depthwise convolution 9 products, and as many for each gradient: image's and weight's.
    image, weight = torch.rand(1, 8, 6, 6), torch.rand(8, 1, 3, 3, requires_grad=True)
    each = 2 * 8 * 4 * 4 * 9
    assert flops(lambda: F.conv2d(image, weight, groups=8).sum().backward()) == 2 * each
    image.requires_grad_()
    assert flops(lambda: F.conv2d(image, weight, groups=8).sum().backward()) == 3 * each


def test_what_tensors_hold_is_counted_as_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    with importlib.import_module("device_memory").Held() as held:
        one = torch.zeros(256)  # of four bytes
        assert held.now == 1024
        half, other = one[:128], one.double()  # a view of it holds nothing more
        assert held.now == 3072
        del one
        assert held.now == 3072
        del half
        assert held.now == 2048
        other += 1
    device = torch.device("cpu")
    assert (held.peak(device), held.peak(device)) == (3072, 2048)


def test_every_benchmark_is_run_by_somebody():
    assert sorted([*STEPS, *ELSEWHERE, *PARTS, *OF_RUNS, *LONG]) == there()
    assert all(re.search(rf"\b{name}\b", (ROOT / file).read_text()) for name, file in ELSEWHERE.items())


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "results").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_results_says_on_what_it_was_measured(page):
    said = page.read_text()
    assert re.search(r"AMD EPYC|Intel|not recorded|Not run: ", said), "name the processor, or say that nobody did"
    assert re.search(r"`python benchmarks/|segda (train|sweep|select|adapt) |make gpu", said), "name the command"
