"""The page: numbers of the record, names made harmless, nothing fetched, missing parts said to be missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from pointlift.core.errors import UsageError
from pointlift.data.resample import resample_stage
from pointlift.report import write_report
from pointlift.report.gallery import gallery
from pointlift.report.page import render
from pointlift.report.run import read_run
from pointlift.report.scores import softmax

EVIL = [
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=1>',
    "'); window.pwned=1; ('",
    "{{ 7*7 }}{% raw %}",
    "<!--<script>",
    "\u202egnp.exe & co",
]
VOID = {"meta", "link", "br", "hr", "img", "input", "path", "rect", "circle"}


class Reader(HTMLParser):
    """Collects tags, visible text, text per id and per class, and the content of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data):
        if "script" in self._open:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif "style" not in self._open:
            self.words.append(data)
            if self._open and self.rows and ({"td", "th"} & set(self._open)):
                self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u202f", " "))

    def json(self, name: str):
        return next(json.loads(text) for attrs, text in self.scripts if attrs.get("id") == name)


@pytest.fixture(scope="module")
def demo(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("demo")
    record = write_run(folder, clouds=24)
    page = write_report(folder).read_text("utf-8")
    return folder, record, page, Reader(page)


def test_page_goes_into_the_run_folder_or_where_asked(demo, tmp_path):
    folder, _, page, _ = demo
    assert (folder / "report.html").read_text("utf-8") == page
    elsewhere = write_report(folder, out=tmp_path / "new" / "page.html")
    assert elsewhere.read_text("utf-8") == page, "the same run gives the same bytes"
    assert [p.name for p in elsewhere.parent.iterdir()] == ["page.html"]


def test_score_and_record_stand_side_by_side(demo):
    _, record, _, reader = demo
    text = reader.text
    assert f"{record['metrics']['overall_accuracy'] * 100:.1f} %" in text
    assert f"{record['metrics']['mean_class_accuracy'] * 100:.1f} %" in text
    for shown in (
        "shapes · everyday-16",
        record["dataset"]["content_hash"],
        "train 3,200 · val 400 · test 800",
        "1,024",
        "best on validation",
        "27 of 30",
        "2,913,744",
        "2,748,112",
        "96,000",
        "CPU (AVX2), 2 threads, float32",
        "4 min 45 s training",
        "torch 2.13.0+cpu",
        record["checkpoint_sha256"],
        record["command"],
        "A comparison needs at least three seeds",
        record["dataset"]["note"],
    ):
        assert shown in text, shown
    assert "Warning." not in text


def test_validation_beside_test(demo):
    _, record, _, reader = demo
    row = next(r for r in reader.rows if r[0] == "overall accuracy")
    gap = (record["metrics"]["overall_accuracy"] - 0.8925) * 100
    shown = [cell.replace("\u202f", " ") for cell in row[1:]]
    assert shown == [f"{89.25:.1f} %", f"{record['metrics']['overall_accuracy'] * 100:.1f} %", f"−{abs(gap):.1f}"]


def test_confusion_counts_are_those_of_the_predictions(demo):
    folder, record, page, reader = demo
    with np.load(folder / "predictions.npz") as saved:
        predicted, label = saved["logits"].argmax(1), saved["label"]
    expected = np.zeros((16, 16), int)
    np.add.at(expected, (label, predicted), 1)
    shown = np.zeros((16, 16), int)
    for row, column, count in reader.json("page-data")["matrix"]["cells"]:
        shown[row, column] = count
    np.testing.assert_array_equal(shown, expected)
    table = {row[0]: row for row in reader_rows(page)}
    for index, name in enumerate(record["dataset"]["classes"]):
        assert table[name][1] == str(expected[index].sum())
        assert table[name][2].startswith(f"{100 * expected[index, index] / expected[index].sum():.1f}")


def test_page_needs_nothing_from_outside(demo):
    _, _, page, reader = demo
    assert len(page.encode()) < 500_000
    for tag, attrs in reader.tags:
        for key in ("src", "href", "action", "data", "srcset"):
            value = attrs.get(key)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style


def test_only_our_script_may_run(demo):
    _, _, page, reader = demo
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page).group(1)
    (script,) = [text for attrs, text in reader.scripts if "type" not in attrs]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_evil_names_are_harmless(tmp_path, write_run):
    names = (EVIL * 12)[:80]
    record = {"command": EVIL[1], "recipe": EVIL[0], "task": EVIL[2], "split": EVIL[0], "notes": [EVIL[1]]}
    write_run(tmp_path, classes=EVIL, count=80, names=names, accuracy=0.5, clouds=6, record=record)
    (tmp_path / "config.yaml").write_text(EVIL[1])
    reader = Reader(write_report(tmp_path).read_text("utf-8"))
    assert sum(tag == "script" for tag, _ in reader.tags) == 3, "two blocks of data and our script"
    assert not [tag for tag, attrs in reader.tags if tag == "img" or any(k.startswith("on") for k in attrs)]
    assert reader.json("page-data")["matrix"]["classes"] == EVIL
    for name in EVIL:
        assert re.sub(r"\s+", " ", name) in reader.text


def test_missing_files_leave_their_sections_out(tmp_path, write_run):
    write_run(tmp_path)
    for name in ("predictions.npz", "metrics.jsonl", "config.yaml"):
        (tmp_path / name).unlink()
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert "this run folder has no predictions (predictions.npz)" in text
    assert "this run folder has no epoch lines (metrics.jsonl)" in text
    assert "This run folder has no config.yaml" in text
    assert "Most frequent confusions" not in text
    assert "Clouds" not in text


def test_an_empty_record_still_makes_a_page(tmp_path):
    (tmp_path / "record.json").write_text("{}")
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert text.count("not recorded") > 10
    assert "No content hash was recorded" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epoch_rule": "best on test"}, "chosen on the split it is scored on"),
        ({"voting": {"rounds": 10, "pool": "mean"}, "points": 2048}, "Voting resampled nothing"),
        ({"metrics": {"overall_accuracy": 0.99}}, "the two files do not belong together"),
        ({"dataset": {"name": "x", "classes": None}}, "No content hash was recorded"),
    ],
)
def test_warnings(tmp_path, write_run, change, expected):
    write_run(tmp_path, count=60, record=change)
    page = Reader(write_report(tmp_path).read_text("utf-8"))
    assert expected in page.text
    assert any(attrs.get("class") == "warning" for tag, attrs in page.tags if tag == "li")


def test_voting_is_no_warning_where_points_can_be_resampled(tmp_path, write_run):
    write_run(tmp_path, count=60, record={"voting": {"rounds": 10, "pool": "max"}, "points": 1024})
    assert "Voting resampled nothing" not in Reader(write_report(tmp_path).read_text("utf-8")).text


def test_frozen_and_learned_parameters(tmp_path, write_run):
    model = {"arch": "m", "adaptation": "linear", "parameters": 22_000_000, "trainable": 500_000}
    write_run(tmp_path, count=60, record={"model": {**model, "trainable_without_head": 0}})
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert "frozen 21.5 M 97.7 %" in text
    assert "learned, head 500 k 2.3 %" in text


def paths(value, path=()):
    """Every path of keys into a record, inner ones too."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*path, key))


@pytest.mark.parametrize("odd", [None, "x", -1, 0.5, True, [], {}, [[1], None], {"a": {"b": 1}}], ids=repr)
def test_odd_values_in_a_record_still_make_a_page(tmp_path, write_run, odd):
    record = write_run(tmp_path, classes=3, count=12, epochs=2)
    (tmp_path / "predictions.npz").unlink()
    for path in paths(record):
        changed = json.loads(json.dumps(record))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = odd
        (tmp_path / "record.json").write_text(json.dumps(changed))
        assert "</html>" in render(read_run(tmp_path)), path


@pytest.mark.parametrize("classes", [2, 3, 40, 69])
def test_any_number_of_classes(tmp_path, write_run, classes):
    write_run(tmp_path, classes=classes, count=6 * classes, epochs=1)
    page = write_report(tmp_path).read_text("utf-8")
    assert len(reader_rows(page)) == classes


def reader_rows(page: str) -> list[list[str]]:
    """Rows of the class table."""
    table = re.search(r'<section id="classes".*?</section>', page, re.S).group(0)
    return [row for row in Reader(table).rows if row[0] != "class"]


def test_gallery_shows_sure_mistakes_first_then_every_class(tmp_path, write_run):
    write_run(tmp_path, clouds=30)
    predictions = read_run(tmp_path).predictions
    tiles = gallery(predictions, softmax(predictions.logits))
    assert len(tiles) == 24
    wrong = [t for t in tiles if not t.right]
    assert tiles[: len(wrong)] == wrong
    assert wrong == sorted(wrong, key=lambda t: -t.probability)
    packed = tiles[0].points
    assert (packed["n"], packed["of"]) == (1024, 1024)
    xyz = np.frombuffer(base64.b64decode(packed["xyz"]), "<i2").reshape(1024, 3) / 32767
    assert len(base64.b64decode(packed["normal"])) == 1024 * 3
    assert np.linalg.norm(xyz, axis=1).max() == pytest.approx(1, abs=1e-3)


def test_large_clouds_are_thinned_to_keep_the_page_small(tmp_path, write_run):
    write_run(tmp_path, count=60)
    with np.load(tmp_path / "predictions.npz") as saved:
        arrays = dict(saved)
    xyz = np.random.default_rng(0).integers(-32767, 32767, (10, 20_000, 3)).astype(np.int16)
    np.savez(tmp_path / "predictions.npz", **arrays, xyz_i16=xyz, xyz_index=np.arange(10))
    assert write_report(tmp_path).stat().st_size < 500_000


def test_a_page_that_cannot_be_written(tmp_path, write_run):
    write_run(tmp_path / "run", count=60)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="is a file"):
        write_report(tmp_path / "run", out=tmp_path / "file" / "report.html")


def test_importing_the_room_imports_nothing_heavy():
    code = "import sys, pointlift.report; print({'jinja2', 'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("quirks", "said"),
    [({}, False), ({"skip_near_origin": True}, True)],
)
def test_quirks_are_said_only_where_there_are_any(tmp_path, write_run, quirks, said):
    write_run(tmp_path / "run", count=60, record={"quirks": quirks})
    page = write_report(tmp_path / "run").read_text()
    assert ("Quirks of the released code are switched on" in page) is said


@pytest.mark.parametrize(
    ("record", "warning"),
    [
        ({"split": "val", "epoch_rule": "best on validation"}, "chose the epoch"),
        ({"split": "train", "epoch_rule": "last"}, "trained on"),
    ],
)
def test_a_score_that_is_not_on_test_clouds_is_said_to_be_so(tmp_path, write_run, record, warning):
    write_run(tmp_path / "run", count=60, record=record)
    assert warning in write_report(tmp_path / "run").read_text()


def modelnet(**dataset):
    """A record of ModelNet40 as papers use it, with what is changed."""
    data = {"name": "modelnet40", "content_hash": "c0", "up_axis": "y", "classes": None, "native_points": 8192}
    return {"dataset": data | {"splits": {"train": 9843, "test": 2468}} | dataset}


def test_reported_scores_stand_beside_the_own_one(tmp_path, write_run):
    record = write_run(tmp_path, count=60, record=modelnet())
    rows = reported(tmp_path)
    own = next(row for row in rows if "this run" in row[2])
    assert own[1].strip() == f"{100 * record['metrics']['overall_accuracy']:.1f} %"
    mae = next(row for row in rows if row[0] == "Point-MAE, 1,024 points")
    assert mae[1].strip() == "93.20 %"
    assert "2203.06604" in mae[3]
    assert not any("not the same data" in row[2] for row in rows)
    values = [float(row[1].split()[0]) for row in rows]
    assert values == sorted(values, reverse=True), "the run has its place among them"


def test_another_edition_is_said_not_to_be_the_same_data(tmp_path, write_run):
    write_run(tmp_path, count=60, record=modelnet(splits={"train": 900, "test": 60}, up_axis="z"))
    rows = reported(tmp_path)
    assert "this run" in rows[0][2], "apart from the others, whatever its score"
    assert all("not the same data" in row[2] for row in rows[1:])
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert "In all of them: 2,468 test clouds, here 60" in text
    assert "y up, here z up" in text


def reported(folder):
    """Rows of the table of reported scores: system, value, what differs, source."""
    page = write_report(folder).read_text("utf-8")
    table = re.search(r'<section id="reported".*?</section>', page, re.S).group(0)
    return [[cell.replace("\u202f", " ") for cell in row] for row in Reader(table).rows[1:]]


def test_data_that_no_paper_speaks_of_have_no_such_table(demo):
    assert "Beside reported scores" not in demo[3].text


def test_parts_of_the_model_from_input_to_output(tmp_path, write_run):
    parts = {"embedding": {"parameters": 1000, "trainable": 0}, "head": {"parameters": 500, "trainable": 500}, "odd": 3}
    model = {"arch": "m", "parameters": 1500, "trainable": 500, "trainable_without_head": 0, "parts": parts}
    write_run(tmp_path, count=60, record={"model": model})
    rows = Reader(write_report(tmp_path).read_text("utf-8")).rows
    shown = [[cell.replace("\u202f", " ") for cell in row] for row in rows if row[0] in ("embedding", "head", "odd")]
    assert shown == [["embedding", "1 k", "0 %"], ["head", "500", "100 %"]]


def test_full_clouds_that_cannot_be_resampled_are_no_warning(tmp_path, write_run):
    note = resample_stage(1024, 1024).note
    write_run(tmp_path, count=60, record={"notes": [note]})
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert note
    assert text.count(note) == 2, "in the notes as the record has it, and in record.json"
    assert "Warning." not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "train"}, "Scored on the clouds it was trained on."),
        ({"split": "all"}, "those it was trained on among them"),
        ({"split": "all", "epoch_rule": None, "training": {"dataset": {"content_hash": "c0"}}}, "among them"),
        ({"split": "all", "epoch_rule": None, "training": None}, None),
        ({"split": "all", "training": {"dataset": {"content_hash": "of other data"}}}, None),
        ({"split": "train", "training": {"dataset": {"content_hash": "of other data"}}}, None),
        ({"split": "test"}, None),
    ],
)
def test_scores_on_training_clouds_are_warned_of(tmp_path, write_run, change, said):
    record = write_run(tmp_path, count=60, record={"dataset": {"name": "shapes", "content_hash": "c0"}} | change)
    assert record["split"] == change["split"]
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert ("it was trained on" in text) == (said is not None)
    assert said is None or said in text


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("plain", "Papers choose the best epoch on the test split and report one run."),
        ("few-shot", "report mean and standard deviation."),
        ("svm", None),
    ],
)
def test_what_papers_do_is_said_where_they_do_it(tmp_path, write_run, protocol, said):
    """Few-shot scores are means of folds, and a linear SVM has no epochs."""
    write_run(tmp_path, count=60, record=modelnet() | {"protocol": protocol})
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert "Beside reported scores" in text
    assert ("Papers choose" in text) == (said is not None)
    assert said is None or said in text


def test_votes_show_their_mean_and_their_best_round(tmp_path, write_run):
    metrics = {"overall_accuracy": 0.8, "mean_class_accuracy": 0.7, "overall_accuracy_max": 0.83, "loss": 0.5}
    write_run(tmp_path, count=60, record={"metrics": metrics, "voting": {"rounds": 10, "pool": "mean"}})
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert re.search(r"Overall accuracy on test\s+80\.0 %", text)
    assert re.search(r"overall accuracy, best round\s+83\.0 %", text)


def test_part_segmentation_leads_with_the_mean_iou_that_papers_report(tmp_path, write_run):
    write_run(
        tmp_path,
        record={"task": "part_segmentation", "metrics": {"instance_miou": 0.851, "class_miou": 0.832, "loss": 0.2}}
        | modelnet(name="shapenetpart", splits={"train": 14007, "test": 2874}),
    )
    (tmp_path / "predictions.npz").unlink()
    text = Reader(write_report(tmp_path).read_text("utf-8")).text
    assert re.search(r"Instance mIoU on test\s+85\.1", text)
    assert re.search(r"class mIoU\s+83\.2", text)
    rows = reported(tmp_path)
    assert [row[0] for row in rows][:2] == ["Point-M2AE, 2,048 points", "Point-MAE, 2,048 points"]
