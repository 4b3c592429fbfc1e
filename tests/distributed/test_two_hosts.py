"""A training on two machines of which one is cut off; see two_hosts.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import processes
from conftest import small_recipe, write_camvid
from resuming import same

pytestmark = pytest.mark.long

TESTS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS), *sys.path]),
}
STEPS = 12


def apart(*arguments: object) -> subprocess.CompletedProcess:
    """two_hosts.py in namespaces of its own."""
    alone = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    command = [*alone, "--kill-child", sys.executable, TESTS / "two_hosts.py", *arguments]
    return processes.run(command, env=ENVIRONMENT)


@pytest.fixture
def place(tmp_path):
    """A folder with a recipe; skips where a machine cannot be drawn."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    if (tried := apart()).returncode:
        pytest.skip(f"needs the right to make network namespaces: {tried.stderr.splitlines()[-1:]}")
    write_camvid(tmp_path / "data")
    recipe = small_recipe(tmp_path / "data").override(
        "data.batch=1",
        f"steps={STEPS}",
        "save_every=2",
        "evaluate.data=[]",
        "evaluate.report_images=0",
        "patience=60",
    )
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    return tmp_path


def test_a_machine_that_is_cut_off_ends_the_job_which_goes_on_when_it_is_back_and_when_its_process_is_killed(
    place, forks
):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    whole = forks.run(*torchrun, "-m", "segda", "train", "mine.yaml", "--out", "whole", cwd=place)
    assert whole.returncode == 0, whole.stderr
    done = apart(place, "c10d")
    assert done.returncode == 0, done.stderr
    found = json.loads((place / "found.json").read_text())
    assert found["code"] != 0
    for number, lines in enumerate((found["said"], found["other said"])):
        (line,) = lines
        assert line.startswith(f"segda: process {number} of 2: the others do not answer (")
        assert line.endswith("a training goes on with --resume")
    assert 2 <= found["step"] < STEPS and found["partial"] == []
    assert found["codes"] == [0, 0], "\n".join(text[-2000:] for text in found["resumed"])
    steps = [line for line in found["resumed"][0].splitlines() if line.startswith("resumed after step ")]
    assert len(steps) == 2 and steps[0] == f"resumed after step {found['step']}"
    assert "exitcode: -9" in found["resumed"][1]
    assert "terminate called" not in "".join(found["resumed"])
    assert found["left"] == []
    assert same(place / "c10d", place / "whole")
