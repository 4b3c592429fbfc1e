"""`segda predict` of videos and cameras: what is in the videos that it writes, and that bad input leaves none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segda.commands.predict import predict
from segda.data.files import video
from segda.errors import DataError, RecipeError, RunError
from segda.ground.speaking import echo
from segda.reporting import films
from small_run import write_run

RATE, SIZE = 10.0, (64, 48)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")


def film(path, frames=6, size=SIZE):
    """Blocks of colours that change from frame to frame."""
    made = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, size)
    for number in range(frames):
        blocks = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        made.write(cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST))
    made.release()
    return path


def frames_in(path):
    with video.opened(path) as found:
        return found.rate, [frame.permute(1, 2, 0).numpy() for frame in found]


def test_frames_are_what_images_of_them_are(run, tmp_path, said):
    source = film(tmp_path / "drive.avi")
    (written,) = predict(run, [source], tmp_path / "out", overlay=True, precision="32")
    assert written == tmp_path / "out" / "drive_overlay.mp4" and list(written.parent.iterdir()) == [written]
    rate, found = frames_in(written)
    assert (rate, len(found)) == (RATE, 6)
    assert said[-1].startswith(f"{source}: 6 frames, ") and said[-1].endswith(" a second")
    for number, frame in enumerate(frames_in(source)[1]):
        image = tmp_path / f"{number}.png"
        cv2.imwrite(str(image), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        _, overlay = predict(run, [image], tmp_path / "images", overlay=True, precision="32")
        picture = cv2.cvtColor(cv2.imread(str(overlay)), cv2.COLOR_BGR2RGB).astype(int)
        # Video loses detail, and another frame's picture is far away.
        assert np.abs(found[number] - picture).mean() < 12 < np.abs(found[(number + 3) % 6] - picture).mean()


def test_an_overlay_unless_other_pictures_are_asked_for_and_as_long_as_asked_for(run, tmp_path):
    one, two = film(tmp_path / "a.avi"), film(tmp_path / "b.avi", frames=3)
    assert [path.name for path in predict(run, [one, two], tmp_path / "out", seconds=0.4)] == [
        "a_overlay.mp4", "b_overlay.mp4",
    ]  # fmt: skip
    assert [len(frames_in(tmp_path / "out" / f"{name}_overlay.mp4")[1]) for name in "ab"] == [4, 3]
    names = {path.name for path in predict(run, [one], tmp_path / "more", colour=True, entropy=True)}
    assert names == {"a_colour.mp4", "a_entropy.mp4"}


class Camera:
    """Ten frames, then whoever looks presses Ctrl-C."""

    def __init__(self, number):
        self.number, self.shown = number, 0

    def isOpened(self):
        return self.number == 0

    def get(self, what):
        return 0.0

    def grab(self):
        self.shown += 1
        if self.shown > 10:
            raise KeyboardInterrupt
        return True

    def retrieve(self):
        return True, np.full((48, 64, 3), 20 * self.shown, np.uint8)

    def release(self):
        echo("released")


def test_a_camera_is_kept_until_ctrl_c_and_its_video_lasts_as_long(run, tmp_path, monkeypatch, capsys):
    clock = iter(range(1000))
    monkeypatch.setattr(films.time, "monotonic", lambda: next(clock) / 5)  # five frames a second; the camera says 25
    monkeypatch.setattr(video.cv2, "VideoCapture", Camera)
    (written,) = predict(run, (), tmp_path / "out", camera=0)
    monkeypatch.undo()
    assert written.name == "camera0_overlay.mp4" and "released" in capsys.readouterr().out
    rate, found = frames_in(written)
    assert rate == video.USUAL and len(found) == 50  # ten frames in two seconds, of 25 each


def test_ctrl_c_in_a_file_leaves_nothing(run, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(films, "drawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(run, [film(tmp_path / "a.avi")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


WRONG = {
    "no file": (["none.mp4"], {}, DataError, "none.mp4: no such file"),
    "a text": (["text.mp4"], {}, DataError, "text.mp4: no video that can be read; convert it to one of mp4, "),
    "an image too": (["a.avi", "a.png"], {}, RecipeError, "give images, videos and a camera in a call each"),
    "a camera too": (["a.avi"], {"camera": 0}, RecipeError, "give images, videos and a camera in a call each"),
    "no camera": ([], {"camera": 99}, DataError, r"camera 99: cannot be opened; is it plugged in"),
    "too small": (["small.avi"], {}, DataError, "small.avi: is 16x16 and would be shown to the network"),
    "two of one name": (["a.avi", "other/a.avi"], {}, DataError, "would both be written to .*a_overlay.mp4"),
    "a legend": (["a.avi"], {"legend": True}, RecipeError, "--legend has no place with a video"),
    "a submission": (["a.avi"], {"submission": "acdc"}, RecipeError, "--submission has no place with a video"),
    "no time": (["a.avi"], {"seconds": 0}, RecipeError, "--seconds 0: give a number above 0"),
    "no opacity": (["a.avi"], {"opacity": 2}, RecipeError, "--opacity 2: give a number from 0"),
    "seconds of an image": (["a.png"], {"seconds": 1}, RecipeError, "--seconds 1 is of a video or a camera"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, wrong, capfd):
    names, options, kind, message = WRONG[wrong]
    (tmp_path / "other").mkdir()
    film(tmp_path / "a.avi", 2)
    film(tmp_path / "other" / "a.avi", 2)
    film(tmp_path / "small.avi", 2, (16, 16))
    (tmp_path / "text.mp4").write_text("hello")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(kind, match=message) as caught:
        predict(run, [tmp_path / name for name in names], tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert capfd.readouterr() == ("", "")  # of OpenCV's either


def test_what_is_there_is_replaced_on_demand_alone(run, tmp_path):
    source = film(tmp_path / "a.avi", 2)
    (written,) = predict(run, [source], tmp_path / "out")
    before = written.read_bytes()
    with pytest.raises(RunError, match=r"a_overlay.mp4 is there; use --overwrite"):
        predict(run, [source], tmp_path / "out")
    predict(run, [source], tmp_path / "out", opacity=0.1, overwrite=True)
    assert written.read_bytes() != before
