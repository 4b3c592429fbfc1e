"""Processes that have imported already: forks of one that has, each in place of a start of python.

A start of a training imports for five seconds of a core, and torchrun's processes do again after each kill. Forks share
what python draws when it starts, like the order of a set's words, so each command is also started in earnest somewhere.

What torchrun starts, where it is a fork, are forks as well; of the same process, which has one thread and no signal
handlers, and not of torchrun.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from processes import HANGS, started

TESTS = Path(__file__).parent
NUMBER = 4
"""Bytes of a process's number, or of how it ended."""
CLONE_NEWNET = 0x40000000


class Fork:
    """As much of subprocess.Popen as is needed."""

    def __init__(self, pid: int, end: int):
        self.pid, self.returncode = pid, None
        self._end = end

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout)
            status = os.read(self._end, NUMBER)
            os.close(self._end)
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(status, "little"))
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def ask(to: socket.socket, words: list[str], out: int, err: int, cwd: str, env: dict[str, str], net: str) -> Fork:
    """A fork with these words after `python`, in the network namespace that is at `net`."""
    end, told = os.pipe()
    asked = {"words": words, "cwd": cwd, "env": env, "net": net, "by": os.getpid()}
    socket.send_fds(to, [json.dumps(asked).encode()], [told, out, err])
    os.close(told)
    return Fork(int.from_bytes(os.read(end, NUMBER), "little"), end)


def own_net() -> str:
    return f"/proc/{os.getpid()}/ns/net"


class Forks:
    """The process that forks, while the block lasts."""

    def __enter__(self) -> Forks:
        self._to, heard = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ends = (heard.fileno(), self._to.fileno())
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import forks; forks.serve{ends}"],
            stdin=subprocess.PIPE, pass_fds=ends, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        )  # fmt: skip
        heard.close()
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._to.close()

    def start(self, *words: object, cwd: Path, out: int, err: int, env: dict[str, str] | None = None, net: str = ""):
        """A fork in a session of its own."""
        env = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        return ask(self._to, [*map(str, words)], out, err, str(cwd), dict(env), net or own_net())

    def run(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
        """As subprocess.run, with what was said; leaves nothing of it."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            fork = self.start(*words, cwd=cwd or Path.cwd(), out=out.fileno(), err=err.fileno())
            try:
                code = fork.wait(HANGS)
            finally:
                self.end(fork)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(words, code, out.read(), err.read())

    def end(self, fork: Fork) -> None:
        """Kills what is left of a fork, and of those that it asked for."""
        for number in (*self.of(fork.pid), *([fork.pid] if fork.poll() is None else [])):
            with suppress(ProcessLookupError):
                os.killpg(number, signal.SIGKILL)

    def of(self, parent: int) -> list[int]:
        """The forks that another asked for and that have not ended."""
        end, told = os.pipe()
        socket.send_fds(self._to, [json.dumps({"of": parent}).encode()], [told])
        os.close(told)
        with open(end) as answer:
            return json.load(answer)


@contextmanager
def begun(
    forks: Forks | None, words: Sequence[str], cwd: Path, out: int, err: IO[str], env: dict[str, str]
) -> Iterator[Fork | subprocess.Popen]:
    """A process of python with these words: a fork where there are some, else started in earnest in the environment;
    nothing of it is left.
    """
    if forks is None:
        with started([sys.executable, *words], env=env, cwd=cwd, stdout=out, stderr=err) as process:
            yield process
        return
    process = forks.start(*words, cwd=cwd, out=out, err=err.fileno())
    try:
        yield process
    finally:
        forks.end(process)


# In the process that forks


def serve(heard: int, to: int) -> None:
    """Forks what is asked for, until standard input ends."""
    with socket.socket(fileno=heard) as asked, socket.socket(fileno=to) as asking:
        import_all(asking)
        words = fork_what_is_asked_for(asked)
        if words is not None:
            become(words)


def import_all(asking: socket.socket) -> None:
    """What a training and torchrun import, also what they import late; nothing is computed, since threads survive no
    fork.
    """
    import torch.distributed.run  # noqa: F401
    from torch.distributed.elastic.multiprocessing import subprocess_handler

    import segda.training.stages  # noqa: F401
    from conftest import METHOD_SETTINGS, small_recipe, write_camvid
    from segda.cli import main  # noqa: F401
    from segda.training import assembly

    def popen(handler, words: tuple[str, ...], env: dict[str, str]) -> Fork:
        out, err = (file.fileno() if file else k for k, file in ((1, handler._stdout), (2, handler._stderr)))
        return ask(asking, [*words[1:]], out, err, os.getcwd(), env, own_net())

    subprocess_handler.subprocess_handler.SubprocessHandler._popen = popen
    del sys.modules["torch.distributed.run"]  # which is to be run
    with tempfile.TemporaryDirectory() as folder:
        data = write_camvid(Path(folder))
        for method in METHOD_SETTINGS:
            if method != "esl":  # needs labels
                assembly.assemble(small_recipe(data, method), data, None)
    gc.freeze()


def fork_what_is_asked_for(heard: socket.socket) -> list[str] | None:
    """In a fork: its words."""
    living: dict[int, tuple[int, int, int]] = {}  # a descriptor of the process -> its number, its pipe, who asked
    while True:
        for ready in select.select([heard, sys.stdin, *living], [], [])[0]:
            if ready is sys.stdin:
                for child, *_ in living.values():
                    os.killpg(child, signal.SIGKILL)
                return None
            if ready is not heard:
                child, told, _ = living.pop(ready)
                os.close(ready)
                tell(told, os.waitpid(child, 0)[1])
                continue
            message, (told, *files), *_ = socket.recv_fds(heard, 2**20, 3)
            asked = json.loads(message)
            if "of" in asked:
                with open(told, "w") as answer:
                    json.dump([child for child, _, by in living.values() if by == asked["of"]], answer)
                continue
            child = os.fork()
            if child == 0:
                settle(asked, files)
                os.write(told, os.getpid().to_bytes(NUMBER, "little"))
                for other in (told, *living, *(pipe for _, pipe, _ in living.values())):
                    os.close(other)
                return asked["words"]
            for file in files:
                os.close(file)
            living[os.pidfd_open(child)] = child, told, asked["by"]


def tell(told: int, number: int) -> None:
    with suppress(BrokenPipeError):  # who asked may have ended itself
        os.write(told, number.to_bytes(NUMBER, "little"))
    os.close(told)


def settle(asked: dict, files: list[int]) -> None:
    """This process, as one that was started so."""
    from segda.distributed import group

    os.setsid()
    with open(os.devnull) as nothing:
        for number, file in enumerate((nothing.fileno(), *files)):
            os.dup2(file, number)
    for file in files:
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["env"])
    if not os.path.samefile(asked["net"], own_net()):
        with open(asked["net"]) as net:
            assert ctypes.CDLL(None).setns(net.fileno(), CLONE_NEWNET) == 0, "no right to enter the network"
    os.chdir(asked["cwd"])
    # What a process draws when it imports.
    random.seed()
    group._own = uuid4().hex


def become(words: list[str]) -> None:
    """What python does with these words."""
    if words[0] == "-u":
        words = words[1:]
        sys.stdout.reconfigure(write_through=True)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")
