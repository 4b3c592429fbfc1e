"""Two machines, drawn small: two network namespaces, joined by a bridge in a third, and a torchrun in each.

    unshare --user --map-root-user --net --mount --pid --fork --mount-proc --kill-child \\
        python tests/two_hosts.py FOLDER c10d

All that is made here, processes and networks, goes with the namespaces of `unshare`. In FOLDER, with mine.yaml: a run
of which the second machine's cable is pulled after the third step. When the first has given up, the cable is put back
and both go on with --resume; after the sixth step the second's process is killed, and started again. Writes
FOLDER/found.json. `static` in place of c10d: machines that are numbered by hand. Without FOLDER, it only tries whether
all of this is permitted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from forks import Forks
from processes import HANGS

HOSTS = ("first", "second")
ADDRESSES = ("10.9.0.1", "10.9.0.2")
PORT = 29400


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def lay_cables() -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    for name in ("switch", *HOSTS):
        ip("netns", "add", name)
    ip("-n", "switch", "link", "add", "bridge", "type", "bridge")
    ip("-n", "switch", "link", "set", "bridge", "up")
    for host, address in zip(HOSTS, ADDRESSES, strict=True):
        ip("link", "add", host, "netns", "switch", "type", "veth", "peer", "name", "eth0", "netns", host)
        ip("-n", "switch", "link", "set", host, "master", "bridge", "up")
        ip("-n", host, "link", "set", "lo", "up")
        ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", host, "link", "set", "eth0", "up")


class Node:
    """torchrun on one of the machines, as docs/CLUSTER.md says."""

    def __init__(self, forks: Forks, number: int, folder: Path, how: str, *more: str):
        place = {
            "c10d": [
                "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}", "--rdzv-id", "a job",
                "--rdzv-conf", f"is_host={int(number == 0)}", "--local-addr", ADDRESSES[number],
            ],
            "static": ["--node-rank", str(number), "--master-addr", ADDRESSES[0], "--master-port", str(PORT)],
        }[how]  # fmt: skip
        self.forks, self.said = forks, folder / f"{how}-{number}{len(more)}.txt"
        train = ["-m", "segda", "train", "mine.yaml", "--out", how, *more]
        several = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", str(int("--resume" in more))]
        command = ["-m", "torch.distributed.run", *several, *place, *train]
        there = {"net": f"/run/netns/{HOSTS[number]}", "env": {"GLOO_SOCKET_IFNAME": "eth0"}}
        with self.said.open("w") as file:
            self.process = forks.start(*command, cwd=folder, out=file.fileno(), err=file.fileno(), **there)

    def ours(self) -> list[str]:
        return [line for line in self.said.read_text().splitlines() if line.startswith("segda: ")]

    def training(self) -> list[int]:
        """Its process that trains, if that is there."""
        return self.forks.of(self.process.pid)

    def at(self, step: int) -> bool:
        """Whether it has come to a step, or to its end."""
        return f"step {step} of" in self.said.read_text() or self.process.poll() is not None


def command(process: str) -> str:
    """Of a process; empty of one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def until(true, what: str) -> None:
    end = time.monotonic() + HANGS
    while not true():
        assert time.monotonic() < end, f"{what}: not in {HANGS} s"
        time.sleep(0.02)


def cut_and_resumed(forks: Forks, folder: Path, how: str) -> dict:
    from segda import run as runs  # not to try what is permitted

    found: dict = {}
    nodes = [Node(forks, number, folder, how) for number in (0, 1)]
    until(lambda: nodes[0].at(3), "three steps")
    ip("-n", HOSTS[1], "link", "set", "eth0", "down")
    until(lambda: nodes[0].process.poll() is not None, "the reachable machine ends")
    found["code"], found["said"] = nodes[0].process.returncode, nodes[0].ours()
    until(lambda: not nodes[1].training(), "the other's training ends")
    found["other said"] = nodes[1].ours()
    found["step"] = runs.load_checkpoint(folder / how)["t"]
    found["partial"] = [str(path) for path in (folder / how).rglob(".*")]
    ip("-n", HOSTS[1], "link", "set", "eth0", "up")
    # That of the machine that was cut off asks its store, and waits for answers; whoever shares machines out ends it.
    nodes[1].process.kill()
    nodes[1].process.wait()

    nodes = [Node(forks, number, folder, how, "--resume", "--set", "patience=600") for number in (0, 1)]
    until(lambda: nodes[0].at(6), "six steps")
    # The first machine's torchrun may start its process again before it has failed, and does not count that.
    for process in nodes[1].training():
        os.kill(process, signal.SIGKILL)
    for node in nodes:
        until(lambda node=node: node.process.poll() is not None, "a resumed run")
    found["codes"] = [node.process.returncode for node in nodes]
    found["resumed"] = [node.said.read_text() for node in nodes]
    return found


def others(*known: int) -> list[str]:
    """The commands of all processes but these."""
    numbers = (path.name for path in Path("/proc").glob("[0-9]*") if int(path.name) not in known)
    return [line for line in map(command, numbers) if line]


if __name__ == "__main__":
    assert shutil.which("ip"), "no ip"
    lay_cables()
    if len(sys.argv) > 1:
        folder, how = Path(sys.argv[1]), sys.argv[2]
        with Forks() as forks:
            found = cut_and_resumed(forks, folder, how)
            found["left"] = others(os.getpid(), forks.pid)
        (folder / "found.json").write_text(json.dumps(found))
