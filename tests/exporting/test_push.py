"""`segda push`, against a hub on this machine that keeps what it is sent."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from huggingface_hub import constants

from conftest import write_camvid
from segda.cli.main import main
from segda.commands.evaluate import evaluate
from segda.commands.predict import predict
from segda.commands.push import push
from segda.errors import RecipeError, RunFailure
from small_run import DUSK, SPACE, write_run

TRAIN = "camvid:train:dusk"


class Hub(BaseHTTPRequestHandler):
    """Of huggingface.co as much as an upload of small files asks for."""

    def answer(self, told: object, status: int = 200) -> None:
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def known(self) -> bool:
        if self.headers.get("Authorization") == "Bearer right":
            return True
        self.answer({"error": "Invalid credentials"}, 401)
        return False

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.known():
            self.answer({"name": "me", "type": "user", "auth": {}} if "whoami" in self.path else {"siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        if not self.known():
            return
        place = f"http://127.0.0.1:{self.server.server_port}/me/night"
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self.answer({"url": place, "id": "me/night"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.answer(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/commit/" in self.path and self.server.takes:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": place + "/commit/1", "commitOid": "1", "pullRequestUrl": None})
        else:
            self.answer({"error": "the disk is full"}, 400)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.files, server.made, server.asked, server.takes = {}, [], [], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", "right")
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, root):
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", seed=3)
    evaluate(folder, [DUSK], root=root, precision="32")
    return folder


def test_what_is_on_the_hub_says_what_the_run_says(hub, run, root, tmp_path):
    (line,) = push(run, "night", private=True, data=TRAIN, root=root).lines()
    assert line.endswith("/me/night: README.md, config.json, model.safetensors")
    assert [(made["name"], made["visibility"] if "visibility" in made else made["private"]) for made in hub.made] in (
        [("night", "private")], [("night", True)],
    )  # fmt: skip
    model = tmp_path / "model"
    model.mkdir()
    for name, content in hub.files.items():
        (model / name).write_bytes(content)
    told = {name: predict(place, (), tmp_path / name, data=DUSK, root=root, **more)
            for name, place, more in (("run", run, {"precision": "32"}), ("hub", model, {}))}  # fmt: skip
    for ours, theirs in zip(told["run"], told["hub"], strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_card_says_what_it_is_and_what_it_scored(hub, run, root):
    push(run, "night", data=TRAIN, root=root)
    card = hub.files["README.md"].decode()
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "segda", "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "domain-adaptation", "segda"],
    }  # fmt: skip
    (report, *_) = evaluate(run, [DUSK], root=root, precision="32")
    assert f"{100 * report.miou:.1f} |" in text and DUSK in text and ", ".join(SPACE.classes) in text
    assert str(run) not in card and str(root) not in card


def test_who_is_not_known_is_told_so_before_anything_is_exported(hub, run, root, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    monkeypatch.setattr("segda.exporting.push.export_run", lambda _: pytest.fail("it was exported"))
    with pytest.raises(RecipeError, match=r"does not know who you are .*; log in with hf auth login") as caught:
        push(run, "night", data=TRAIN, root=root)
    assert "\n" not in str(caught.value) and hub.made == []


def test_a_hub_that_takes_nothing_is_one_line(hub, run, root, capsys):
    hub.takes = False
    assert main(["push", str(run), "night", "--data", TRAIN, "--root", str(root)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("segda: night: not pushed to http://127.0.0.1") and line.endswith("; call it again")
    with pytest.raises(RunFailure):
        push(run, "night", data=TRAIN, root=root)


@pytest.mark.parametrize("name", ["a/b/c", "with space", "..", ""])
def test_an_impossible_name_is_refused_before_anybody_is_asked(hub, run, name):
    with pytest.raises(RecipeError, match="no name of a model") as caught:
        push(run, name)
    assert "\n" not in str(caught.value) and hub.asked == []
