"""metrics.jsonl: a line an event, dropped again where a resumed run writes it once more."""

import json

from pcam_ssl.records import read_metrics
from pcam_ssl.training.loggers import Metrics


def test_metrics_come_back_in_order(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.write(step=1, loss=0.5)
    metrics.write(step=2, loss=None)
    assert read_metrics(metrics.path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]


def test_rewind_drops_what_will_be_written_again_and_a_line_cut_short(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for step in (4, 8, 12):
        metrics.write(step=step)
    with open(metrics.path, "a") as handle:
        handle.write('{"step": 1')
    metrics.rewind(8)
    metrics.write(step=12, again=True)
    assert [json.loads(line) for line in metrics.path.read_text().splitlines()] == [
        {"step": 4},
        {"step": 8},
        {"step": 12, "again": True},
    ]


def test_no_metrics_yet(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
