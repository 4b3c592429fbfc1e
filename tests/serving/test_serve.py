"""`segda serve`: what the page is told, what is refused, and the page itself in a browser where there is one."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
import uvicorn
from PIL import Image

from segda.cli.main import main
from segda.commands.predict import predict
from segda.commands.serve import serve
from segda.data.labels.spaces import Space
from segda.errors import RecipeError, WeightsError
from segda.serving import app as apps
from segda.serving import viewer as viewers
from segda.serving.server import listening
from small_run import SPACE, write_run

MOST = 1_000_000


@contextmanager
def served(*runs: Path, hosts: tuple[str, ...] = ("127.0.0.1",)) -> Iterator[str]:
    """Where the page of these runs is."""
    seeing = viewers.viewers_of(runs, "student", "cpu", "32")
    with listening("127.0.0.1", 0) as heard:
        server = uvicorn.Server(uvicorn.Config(apps.app_of(seeing, MOST, hosts), log_level="error"))
        thread = threading.Thread(target=server.run, args=([heard],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{heard.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return write_run(folder / "ours", seed=3), write_run(folder / "theirs", seed=4)


@pytest.fixture(scope="module")
def place(runs) -> Iterator[str]:
    with served(*runs) as place:
        yield place


def asked(where: str, body: bytes | None = None, **headers: str) -> tuple[int, dict]:
    """The status, and what was said as JSON."""
    try:
        with urllib.request.urlopen(urllib.request.Request(where, body, headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read()
        return error.code, json.loads(said) if said.startswith(b"{") else {"error": said.decode()}


def picture(width: int, height: int, kind: str = "PNG", seed: int = 0) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((width, height)).save(content, kind)
    return content.getvalue()


def film(path: Path, frames: int) -> bytes:
    """Frames of 64 x 48, each greyer than the one before."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for number in range(frames):
        video.write(np.full((48, 64, 3), 255 * number // frames, np.uint8))
    video.release()
    return path.read_bytes()


def pixels(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_the_page_is_told_the_names_and_classes(place, runs):
    _, said = asked(f"{place}/about")
    assert said["names"] == ["ours", "theirs"] and said["entropy"]
    assert [one["name"] for one in said["classes"]] == list(SPACE.classes)
    assert said["limits"] == {"bytes": MOST, "megapixels": 25}


def test_an_image_is_labelled_as_segda_predict_labels_it(place, runs, tmp_path):
    content = picture(80, 64)
    (tmp_path / "a.png").write_bytes(content)
    status, said = asked(f"{place}/look?name=a.png", content)
    assert status == 200 and said["name"] == "a.png"
    (frame,) = said["frames"]
    assert (frame["width"], frame["height"], frame["second"]) == (80, 64, None)
    for run, seen in zip(runs, frame["seen"], strict=True):
        predict(run, [tmp_path / "a.png"], tmp_path / run.name, colour=True, device="cpu", precision="32")
        with Image.open(tmp_path / run.name / "a_colour.png") as drawn:
            assert (pixels(seen["label"]) == np.array(drawn)).all()
        with Image.open(tmp_path / run.name / "a.png") as ids:
            counts = np.bincount(np.array(ids).ravel(), minlength=len(SPACE.classes))
        assert seen["shares"] == (counts / (80 * 64)).tolist()
        assert 0 < seen["unsure"] <= 1 and pixels(seen["entropy"]).shape == (64, 80, 3)


def test_frames_of_a_video_are_spread_over_it(place, tmp_path, monkeypatch):
    monkeypatch.setattr(viewers, "FRAMES", 4)
    status, said = asked(f"{place}/look?name=drive.AVI", film(tmp_path / "drive.avi", 20))
    assert status == 200 and [frame["second"] for frame in said["frames"]] == [0.0, 0.5, 1.0, 1.5]
    greys = [pixels(frame["image"]).mean() for frame in said["frames"]]
    assert greys == sorted(greys) and greys[-1] > 150 > 50 > greys[0]


WRONG = {
    "a text": ("a.txt", b"hello", 415, "a.txt: give an image (PNG, JPEG"),
    "no name": ("", b"hello", 415, "give an image"),
    "nothing": ("a.png", b"", 422, "a.png: the file is empty"),
    "no image": ("a.png", b"hello", 422, "a.png: neither PNG, JPEG"),
    "cut off": ("a.png", picture(80, 64)[:-50], 422, "a.png: cut off after"),
    "too many bytes": ("a.png", bytes(MOST + 1), 413, "a.png: is more than 1 MB"),
    "too small": ("a.png", picture(16, 16), 422, "a.png: is 16x16 and would be shown to the network"),
    "a path for a name": ("../../etc/a.png", b"hello", 422, "../../etc/a.png: neither PNG"),
    "no video": ("a.mp4", b"hello" * 100, 422, "a.mp4: no video that can be read"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_in_one_line(place, wrong, capfd):
    name, content, expected, message = WRONG[wrong]
    status, said = asked(f"{place}/look?name={quote(name)}", content)
    assert status == expected and message in said["error"] and "\n" not in said["error"] and "/tmp" not in said["error"]
    assert "Traceback" not in capfd.readouterr().err


def test_an_image_of_many_pixels_is_refused_before_it_is_decoded(place, monkeypatch):
    monkeypatch.setattr(viewers, "MEGAPIXELS", 0.001)
    monkeypatch.setattr(viewers, "read_photo", lambda _: pytest.fail("it was decoded"))
    status, said = asked(f"{place}/look?name=a.png", picture(80, 64))
    assert status == 422 and "a.png: 80x64 is more than the 0.001 megapixels that this page takes" in said["error"]


def test_a_long_video_is_refused(place, tmp_path, monkeypatch):
    monkeypatch.setattr("segda.data.files.video.LONGEST", 9)
    status, said = asked(f"{place}/look?name=a.avi", film(tmp_path / "a.avi", 10))
    assert status == 422 and said["error"].startswith("a.avi: has more than 9 frames")


def test_other_pages_and_other_names_are_refused(place):
    assert asked(f"{place}/look?name=a.png", picture(80, 64), Origin="http://elsewhere.org")[0] == 403
    assert asked(f"{place}/look?name=a.png", picture(80, 64), Origin=place)[0] == 200
    assert asked(f"{place}/about", Host="elsewhere.org")[0] == 400


def test_the_browser_may_ask_nobody_else(place):
    for part in ("", "page.js", "page.css"):
        with urllib.request.urlopen(f"{place}/{part}") as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert b"http://" not in answer.read().replace(b"http://www.w3.org/2000/svg", b"")


def test_two_at_once_are_both_answered_and_too_many_are_sent_away(place, monkeypatch):
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(asked, f"{place}/look?name={n}.png", picture(80, 64, seed=n)) for n in range(2)]
        assert [(one.result()[0], one.result()[1]["name"]) for one in both] == [(200, "0.png"), (200, "1.png")]
    first, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> list:
        first.set()
        go_on.wait()
        return []

    monkeypatch.setattr(apps, "looked_at", slow)
    monkeypatch.setattr(apps, "WAITING", 0)
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(asked, f"{place}/look?name=a.png", b"one")
        first.wait()
        try:
            assert asked(f"{place}/look?name=b.png", b"other") == (
                503, {"error": "many files are waiting; try again in a minute"},
            )  # fmt: skip
        finally:
            go_on.set()
        assert served.result()[0] == 200


def test_want_of_memory_and_a_fault_of_ours_are_told_apart(place, monkeypatch, capfd):
    def fail(error: Exception) -> None:
        def shown(*_: object) -> None:
            raise error

        monkeypatch.setattr(apps, "shown", shown)

    fail(MemoryError())
    assert asked(f"{place}/look?name=a.png", b"x")[0] == 503
    fail(ZeroDivisionError())
    status, said = asked(f"{place}/look?name=a.png", b"x")
    assert status == 500 and "ZeroDivisionError" not in said["error"]
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_networks_of_other_classes_are_not_shown_together(place):
    fewer = Space("fewer", {name: SPACE.colours[name] for name in SPACE.classes[1:]})
    ours, theirs, same = (
        viewers.Viewer(name, space, None) for name, space in (("a", SPACE), ("b", fewer), ("c", SPACE))
    )
    viewers.refuse_other_classes([ours, same])
    with pytest.raises(RecipeError, match=rf"b and a have other classes \({SPACE.classes[0]}\); show two networks of"):
        viewers.refuse_other_classes([ours, theirs])


def test_a_mistake_on_the_command_line_is_one_line(runs, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(runs[0]), "--port", port]) == 2
    assert f"--port {port}: cannot be listened on (Address already in use)" in capsys.readouterr().err
    for words, message in (
        (["--port", "70000"], "--port 70000: give a number from 0"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid --port 8000: cannot be listened on"),
        (["--most-mb", "0"], "--most-mb 0: give a number above 0"),
    ):
        assert main(["serve", str(runs[0]), *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    with pytest.raises(WeightsError, match="no such file"):
        serve(tmp_path / "none.onnx", port=0)


def test_without_its_libraries_it_says_what_to_install(runs, monkeypatch):
    for name in ("segda.serving.server", "segda.serving.app"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(RecipeError, match=r"uvicorn is not installed; pip install 'segda\[serve\]'"):
        serve(runs[0])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_page_in_a_browser(place, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    (tmp_path / "street.png").write_bytes(picture(320, 240))
    (tmp_path / "other.png").write_bytes(picture(64, 64))
    (tmp_path / "text.png").write_bytes(b"hello")
    film(tmp_path / "drive.avi", 20)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        faults: list[str] = []
        one, two = browser.new_page(), browser.new_page()
        for page in (one, two):
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on(
                "request",
                lambda request: None if request.url.startswith((place, "data:")) else faults.append(request.url),
            )
            page.goto(place)
        one.set_input_files("#file", tmp_path / "street.png")
        two.set_input_files("#file", tmp_path / "other.png")
        for page, size in ((one, "320 x 240"), (two, "64 x 64")):
            page.wait_for_selector("#result:not([hidden])")
            assert size in page.inner_text("#state")
            assert page.locator("#shares tr").count() > 1
        one.screenshot(path=tmp_path / "page.png", full_page=True)
        # Of the line's right side the part that is not shown grows with it.
        shown = "getComputedStyle(document.getElementById('right')).clipPath"
        before = one.evaluate(shown)
        one.fill("#cut", "900")
        assert one.evaluate(shown) != before
        one.select_option("#view", "entropy")
        assert one.locator("#right .above").get_attribute("src") != one.locator("#right .below").get_attribute("src")
        one.set_input_files("#file", tmp_path / "text.png")
        one.wait_for_selector("#wrong:not([hidden])")
        assert "text.png: neither PNG" in one.inner_text("#wrong") and one.is_hidden("#result")
        one.set_input_files("#file", tmp_path / "drive.avi")
        one.wait_for_selector("#frames:not([hidden])")
        one.fill("#frame", "3")
        assert "s" in one.inner_text("#second") and one.is_hidden("#wrong")
        browser.close()
    assert faults == []
