"""Tables are read whole or refused, whatever is wrong with a file or the machine."""

import pandas as pd
import pyarrow as pa
import pytest

from itda_core.tables import read_frame, read_table, write_frame, write_table


def test_columns_come_in_the_order_that_was_asked_for(tmp_path):
    path = tmp_path / "table.parquet"
    frame = pd.DataFrame({"a": [1, 2], "b": [[1], [2, 3]], "c": ["x", None]})
    write_frame(frame, path)
    pd.testing.assert_frame_equal(read_frame(path), pd.read_parquet(path))
    expected = pd.read_parquet(path, columns=["c", "b"])
    pd.testing.assert_frame_equal(read_frame(path, ["c", "b"]), expected)


def test_a_column_that_is_missing_or_there_twice_is_refused(tmp_path):
    path = tmp_path / "table.parquet"
    numbers = pa.array([1, 2])
    write_table(pa.Table.from_arrays([numbers] * 3, names=["a", "b", "b"]), path)
    assert read_table(path, ["a"]).column_names == ["a"]
    for name in ("b", "c"):
        with pytest.raises(ValueError, match=name):
            read_table(path, [name])
