"""Predictions as Parquet parts: nothing is lost or said twice, whatever the size of a part."""

import pytest
from pyarrow import concat_tables, parquet
from refusals import refused

from dartok.data.samples import BadSample
from dartok.train.prediction import Prediction
from dartok.train.prediction_parts import PredictionParts, predictions_of, table_of

FOUND = [
    BadSample("0.png", "it is truncated"),
    *(Prediction(f"{number}.png", ("b", "a"), (0.75, 0.25)) for number in range(1, 5)),
]


def test_a_table_gives_back_what_it_was_made_of():
    assert predictions_of(table_of(FOUND)) == FOUND
    assert table_of(FOUND[:1]).schema == table_of(FOUND[1:]).schema
    assert table_of(FOUND[1:2]).to_pylist() == [
        {"image": "1.png", "class": "b", "top": ["b", "a"], "shares": [0.75, 0.25], "error": None}
    ]


@pytest.mark.parametrize(("rows", "sizes"), [(2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_the_parts_in_order_are_all_that_was_added(tmp_path, rows, sizes):
    parts = PredictionParts(tmp_path / "found", rows=rows)
    for each in FOUND:
        parts.add(each)
    parts.close()
    parts.close()
    paths = sorted((tmp_path / "found").iterdir())
    tables = [parquet.read_table(path) for path in paths]
    assert [path.name for path in paths] == [f"part-{n:05}.parquet" for n in range(len(sizes))]
    assert [table.num_rows for table in tables] == sizes
    assert predictions_of(concat_tables(tables)) == FOUND


@pytest.mark.refuses
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "found").touch()
    with refused(f"out-parquet {tmp_path}/found must be a new or empty folder; choose another"):
        PredictionParts(tmp_path / "found")
