"""Metrics as JSON lines: whole lines, each step once."""

import json

from dartok.train.records import Records, read_records


def test_each_report_is_a_line_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = Records(path)
    records.add(1, {"loss": 0.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 0.5}
    ]
    records.add(1, {"eval/top1": 0.25})
    assert read_records(path) == [{"step": 1, "loss": 0.5}, {"step": 1, "eval/top1": 0.25}]


def test_a_new_run_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    Records(path).add(1, {"loss": 0.5})
    Records(path)
    assert path.read_text() == ""


def test_a_resumed_run_keeps_what_it_will_not_do_again_and_drops_half_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = Records(path)
    for step in range(1, 6):
        records.add(step, {"loss": step / 10})
    with path.open("a") as file:
        file.write('{"step": 6, "lo')
    records = Records(path, first_step=4)
    records.add(5, {"loss": 9.0})
    assert [(line["step"], line["loss"]) for line in read_records(path)] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
        (4, 0.4),
        (5, 9.0),
    ]
