from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import pytest

from pointlift.core.errors import PointLiftError, UsageError
from pointlift.engine.logs import MetricsLog, Progress, TensorBoard, describe, read_metrics, without_times

LINE = {
    "event": "epoch",
    "epoch": 2,
    "lr": 0.1,
    "train": {"loss": 0.5},
    "val": {"loss": 0.25, "overall_accuracy": 0.75},
    "seconds": 1.0,
}


def test_one_object_per_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write("start", epochs=3)
    log.write("epoch", epoch=0, train={"loss": math.nan, "norm": math.inf}, list=[1.5, -math.inf])
    log.close()
    lines = [json.loads(text) for text in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert lines == [
        {"event": "start", "epochs": 3},
        {"event": "epoch", "epoch": 0, "train": {"loss": None, "norm": None}, "list": [1.5, None]},
    ]


def test_resuming_cuts_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    log = MetricsLog(path)
    log.write("epoch", epoch=0)
    position = log.sync()
    log.write("epoch", epoch=1)
    log.close()
    path.write_bytes(path.read_bytes() + b'{"event": "ep')
    log = MetricsLog(path, position=position)
    log.write("epoch", epoch=1, again=True)
    log.close()
    assert read_metrics(path) == [{"event": "epoch", "epoch": 0}, {"event": "epoch", "epoch": 1, "again": True}]


def test_a_log_that_lost_lines_is_kept_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"event": "start"}\n')
    log = MetricsLog(path, position=1000)
    log.close()
    assert "curves have a gap" in caplog.text
    assert read_metrics(path) == [{"event": "start"}]


def test_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"event": "start"}\n{"event": "epo')
    assert read_metrics(tmp_path / "m.jsonl") == [{"event": "start"}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").symlink_to("/dev/full")
    log = MetricsLog.__new__(MetricsLog)  # /dev/full cannot be truncated: only the write is of interest
    log.path, log._file = tmp_path / "m.jsonl", open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(PointLiftError, match="No space left on device"):
        log.write("start")
    log.close()


def test_times_are_what_two_equal_runs_may_differ_in() -> None:
    assert without_times(LINE) == {k: v for k, v in LINE.items() if k != "seconds"}


def test_an_epoch_in_words() -> None:
    assert describe(LINE, 20) == "epoch 3/20  train loss 0.500  val loss 0.250  val overall_accuracy 0.750"
    assert "val loss not finite" in describe({**LINE, "val": {"loss": None}}, 20)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "show", "seen"), [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)]
)
def test_progress_is_for_terminals_and_the_main_process(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], show: bool, seen: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream())
    with Progress(4, show=show) as progress:
        progress.step()
        progress.epoch(LINE, 20)
    written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("epoch 3/20" in written) is seen
    assert bool(written) is seen


def test_missing_tensorboard_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pointlift\[log\]"):
        TensorBoard(tmp_path)


def test_tensorboard_gets_the_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            seen.append((folder, purge_step))

        def add_scalar(self, *values: object) -> None:
            seen.append(values)

        def close(self) -> None:
            seen.append(("closed",))

    fake = type(sys)("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    board = TensorBoard(tmp_path, first_epoch=2)
    board.epoch(LINE)
    board.close()
    assert seen == [
        (str(tmp_path / "tensorboard"), 2),
        ("train/loss", 0.5, 2),
        ("val/loss", 0.25, 2),
        ("val/overall_accuracy", 0.75, 2),
        ("lr", 0.1, 2),
        ("closed",),
    ]
