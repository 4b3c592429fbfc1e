"""report.html: it stands alone, says what it must, escapes what it is given, and does without what is
missing.
"""

import base64
import io
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from conftest import write_camvid
from segda import run as runs
from segda.commands.evaluate import evaluate
from segda.commands.report import report
from segda.errors import DataError, RunError
from segda.evaluation.metrics import read_reports
from segda.reporting.charts import POINTS, _series, curves
from small_run import DUSK, SPACE, write_run


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    frames = tuple(f"0001TP_{index}" for index in range(101, 106))
    return write_camvid(tmp_path_factory.mktemp("data"), {"test": frames})


@pytest.fixture(scope="module")
def written(tmp_path_factory, root):
    """A folder of two runs: ebda with a teacher, scored twice in training and once after it, and plain."""
    folder = tmp_path_factory.mktemp("written")
    run = write_run(folder / "ebda", teacher=True, report_images=3)
    for step in (2, 4):
        runs.append_log(run, {"step": step, "evaluation": DUSK, "student": 0.4, "teacher": None})
    (run / "environment.json").write_text(json.dumps({"device": "cpu", "target_labels_read": False}))
    evaluate(run, [DUSK], root)
    evaluate(write_run(folder / "plain", seed=7), [DUSK], root)
    return folder


@pytest.fixture
def run(tmp_path, written):
    return shutil.copytree(written / "ebda", tmp_path / "ebda")


@pytest.fixture
def before(tmp_path, written):
    return shutil.copytree(written / "plain", tmp_path / "plain")


@pytest.fixture(scope="module")
def compared(tmp_path_factory, written, root):
    """The page of ebda against plain, to look at."""
    folder = shutil.copytree(written, tmp_path_factory.mktemp("compared") / "runs")
    return report(folder / "ebda", folder / "plain", root=root)


def test_the_page_needs_nothing_from_outside(compared):
    page = Page(compared)
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "xlink:href")]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    text = compared.read_text(encoding="utf-8")
    assert "@import" not in text and "url(http" not in text


def test_it_says_what_was_run_and_that_no_target_label_was_read(run, root):
    page = Page(report(run, root=root))
    for said in ("source_only: camvid:train:day → camvid:train:dusk", "4 of 4 steps", "seed 3", DUSK):
        assert said in page.text
    assert "No target label was read in training." in page.text


def test_it_does_not_claim_what_the_run_does_not_record(run, root):
    (run / "environment.json").unlink()
    page = Page(report(run, root=root))
    assert "No target label was read" not in page.text
    assert "is not recorded" in page.text


@pytest.mark.parametrize(("processes", "scenes"), [(3, 6), (None, 2), ("3", 2), (-1, 2)])
def test_a_steps_images_are_those_of_all_processes(run, root, processes, scenes):
    path = run / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processes": processes}))
    assert f"steps, {scenes} + {scenes} images each" in report(run, root=root).read_text()


def test_the_tables_hold_the_reports_numbers(written, compared):
    page = Page(compared)
    student, teacher = read_reports(written / "ebda")
    (plain,) = read_reports(written / "plain")
    for each in (student, teacher, plain):
        assert f"{100 * each.miou:.1f}" in page.text
        assert each.protocol.sentence() in page.text
    gain = f"{100 * (student.miou - plain.miou):+.1f}"
    assert f"mIoU (%) on {DUSK} (target) plain {100 * plain.miou:.1f} ebda {100 * student.miou:.1f}" in page.text
    assert f"against plain {gain} " in page.text and "ebda against plain: " in page.text
    (header, others) = [row.split() for row in page.text.split("IoU in % share ")[1:]]
    assert header[:3] == ["plain", "ebda", "difference"]
    assert others[:6] == ["plain", "ebda", "difference", "ebda,", "teacher", "difference"]
    for index, name in enumerate(SPACE.classes):
        known = not np.isnan(plain.iou[index])
        assert (f" {name} " in page.text) and (not known or f"{100 * plain.iou[index]:.1f}" in page.text)


def test_the_teacher_and_further_means_are_folded_up(compared):
    page = compared.read_text(encoding="utf-8")
    folded = page.index("<summary>Also measured: teacher, mean accuracy, pixel accuracy</summary>")
    assert "teacher" not in page[page.index("<main>") : page.index("<h2>Results")]
    assert "ebda, teacher" not in page[:folded] and "ebda, teacher" in page[folded:]
    assert 'class="chart wide"' in page[:folded] and "mean accuracy</th>" in page[folded:]


def test_each_picture_row_has_image_truth_both_predictions_and_entropy(compared, root):
    page = Page(compared)
    alts = [attrs["alt"] for attrs in page.all("img")]
    # Three of five images, spread evenly: the first, the middle one, the last.
    assert [alt.split(":")[0] for alt in alts[::5]] == ["0001TP_101", "0001TP_103", "0001TP_105"]
    kinds = [alt.split(": ")[1].split(",")[0] for alt in alts[:5]]
    assert kinds == ["image", "truth", "plain", "adapted", "entropy"]
    with Image.open(io.BytesIO(base64.b64decode(page.all("img")[1]["src"].partition(",")[2]))) as truth:
        ours = np.array(truth.convert("RGB"))
    with Image.open(root / "camvid" / "testannot" / "0001TP_101.png") as label:
        assert (ours == SPACE.palette()[np.where(np.array(label) == 11, 255, np.array(label))]).all()


def test_every_drawing_is_described_in_words(run, root):
    page = Page(report(run, root=root))
    drawings = [attrs["aria-label"] for tag, attrs in page.tags if attrs.get("role") == "img"]
    assert len(page.all("svg")) == len(drawings) - 1  # one more: the entropy's colour scale
    assert any("sky: ebda " in words and "teacher" not in words for words in drawings)
    assert any("source from 0.2 to 0.05" in words for words in drawings)
    assert any("student from 40.0 to 40.0" in words for words in drawings)


def test_it_works_without_teacher_log_environment_and_other_run(tmp_path, root):
    run = write_run(tmp_path / "bare")
    evaluate(run, [DUSK], root)
    (run / "log.jsonl").unlink()
    (run / "environment.json").unlink()
    page = Page(report(run, root=root))
    assert "teacher" not in page.text and "against" not in page.text and "Training" not in page.words
    assert [attrs["alt"].split(": ")[1].split(",")[0] for attrs in page.all("img")[:4]] == [
        "image", "truth", "prediction", "entropy",
    ]  # fmt: skip


def test_no_pictures_are_made_when_none_are_wanted(tmp_path, root):
    run = write_run(tmp_path / "bare", report_images=0)
    evaluate(run, [DUSK], root)
    assert not Page(report(run)).all("img")


def test_hostile_names_are_shown_and_not_obeyed(tmp_path, root):
    evil = "<script>alert(1)<\\script>"
    run, other = write_run(tmp_path / "<img src=x onerror=alert(1)>"), write_run(tmp_path / evil, seed=3)
    for each in (run, other):
        evaluate(each, [DUSK], root)
    runs.append_log(run, {"step": 5, "<script>": 1.0, "lr/<b>": 0.1, 'lr/"$\\frac$': 0.1, "seconds": 1})
    runs.append_log(run, {"step": 5, "draw": 9, "skipped": "a/<script>.png"})
    (run / "environment.json").write_text(json.dumps({"<script>": ["<script>", "</style>"], "host": {"<b>": "</pre>"}}))
    page = Page(report(run, other, root=root))
    assert not page.all("script") and not page.all("b")
    assert all(attrs["src"].startswith("data:") and "onerror" not in attrs for attrs in page.all("img"))
    assert evil in page.text and "<img src=x onerror=alert(1)>" in page.text


def test_the_same_run_gives_the_same_page(run, root):
    first = report(run, root=root).read_bytes()
    assert report(run, root=root).read_bytes() == first


def test_terms_of_one_kind_share_a_chart_and_equal_learning_rates_a_line():
    rates = {"lr/student/stem": 0.1, "lr/student/head": 1.0, "lr/student/blocks": 0.1}
    terms = {"source": 2.0, "fool/main": 0.5, "fool/aux": 0.1}
    halves = {"source": 0.3, "target": 0.4}
    domains = {f"discriminator/{head}/{name}": half for head in ("main", "aux") for name, half in halves.items()}
    pace = {"seconds": 1, "waiting": 0.1}
    skipped = {"step": 1, "draw": 1, "skipped": "a.png"}
    log = [skipped, {"step": 1, **pace, **rates, **terms, **domains}]
    drawn = {chart.title: chart for chart in curves(log)}
    assert list(drawn) == ["source", "fool", "discriminator/main", "discriminator/aux", "learning rate"]
    words = {title: [name for name, _ in chart.legend] for title, chart in drawn.items()}
    assert words["source"] == [] and words["fool"] == ["main", "aux"]
    assert words["discriminator/aux"] == ["source", "target"]
    assert words["learning rate"] == ["student/stem, student/blocks", "student/head"]
    assert "cannot tell them apart" in drawn["discriminator/main"].note
    assert "fool/aux from 0.1 to 0.1" in drawn["fool"].alt


def test_equal_terms_are_two_lines_if_they_differ_once():
    log = [{"step": step, "lr/a": 1.0, "lr/b": 1.0 + (step == 2)} for step in (1, 2, 3)]
    (chart,) = curves(log)
    assert [name for name, _ in chart.legend] == ["a", "b"]


def test_a_views_mean_is_in_the_table(run, root):
    (file,) = (run / "reports").iterdir()
    tables = json.loads(file.read_text())
    file.write_text(json.dumps([{**table, "views": {"mIoU 2": {"classes": ["sky", "road"]}}} for table in tables]))
    student = read_reports(run)[0]
    page = Page(report(run, root=root))
    assert f"mIoU 2 {100 * student.view('mIoU 2'):.1f}" in page.text


def test_long_logs_are_averaged_in_groups():
    lines = [{"step": step, "loss": float(step)} for step in range(1, 4 * POINTS + 1)] + [{"step": 0, "loss": None}]
    steps, values = _series(lines, "loss")
    assert len(steps) == POINTS
    assert steps[0] == values[0] == 2.5 and values.mean() == (4 * POINTS + 1) / 2


def test_a_run_without_reports_says_how_to_make_them(tmp_path, before, root):
    bare = write_run(tmp_path / "bare")
    page = Page(report(bare, root=root))
    assert "Nothing was measured. With labelled data, segda evaluate bare --data camvid:test:dusk does" in page.text
    (bare / "report.html").unlink()
    with pytest.raises(RunError, match=r"segda evaluate .*bare --data camvid:test:dusk"):
        report(before, bare, root=root)
    assert not (bare / "report.html").exists()


def test_another_run_measured_on_other_data_is_refused(run, before, root):
    (file,) = (before / "reports").iterdir()
    file.write_text(file.read_text().replace("test:dusk", "val:day"))
    with pytest.raises(RunError, match=r"not measured on camvid:test:dusk: segda evaluate .*plain"):
        report(run, before, root=root)


def test_numbers_of_a_step_before_the_last_are_said_to_be(run, root):
    assert "Older numbers" not in Page(report(run, root=root)).text
    (path,) = (run / "reports").iterdir()
    path.write_text(path.read_text().replace('"step": 4', '"step": 3'))
    assert (
        "its student was measured after step 3, and has been trained to step 4 since"
        in Page(report(run, root=root)).text
    )


def test_missing_images_leave_the_old_page_alone(run, root, tmp_path):
    page = report(run, root=root)
    old = page.read_bytes()
    with pytest.raises(DataError):
        report(run, root=tmp_path / "nowhere")
    assert page.read_bytes() == old
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
