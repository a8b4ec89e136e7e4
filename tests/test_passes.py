"""Passes over rows: every row and column is seen, whatever fits into one batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from vxdata.lake import passes
from vxdata.lake.mentions import Mentions
from vxdata.lake.passes import distinct_texts, pass_over
from vxdata.lake.texts import rows_naming

ROWS, GROUP = 1_000, 100
COLUMNS = {f"c{n}": [f"{n} {row % 70}" if row % 3 else None for row in range(ROWS)] for n in range(7)}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.LazyFrame:
    """Rows of many batches, and of more columns than are looked at at once."""
    monkeypatch.setattr(passes, "_COLUMNS_AT_ONCE", 3)
    pl.DataFrame(COLUMNS).write_parquet(tmp_path / "rows.parquet", row_group_size=GROUP)
    return pl.scan_parquet(tmp_path / "rows.parquet")


def test_each_column_is_seen_once_in_each_row(rows: pl.LazyFrame) -> None:
    seen: Counter[str] = Counter()
    batches: list[pl.DataFrame] = []

    def look(batch: pl.DataFrame) -> None:
        seen.update(dict.fromkeys(batch.columns, batch.height))
        batches.append(batch)

    pass_over(rows, COLUMNS, look)
    assert seen == dict.fromkeys(COLUMNS, ROWS)
    assert len(batches) > len(COLUMNS)
    assert max(batch.width for batch in batches) == 3


def test_what_goes_wrong_in_a_look_is_not_swallowed(rows: pl.LazyFrame) -> None:
    def look(batch: pl.DataFrame) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pass_over(rows, COLUMNS, look)


def test_distinct_texts_are_those_of_all_batches(rows: pl.LazyFrame) -> None:
    wanted = pl.Series(["1 5", "1 69", "0 1", "elsewhere"])
    found = distinct_texts(rows, {**dict.fromkeys(COLUMNS), "c1": wanted})
    every = {name: {text for text in texts if text is not None} for name, texts in COLUMNS.items()}
    assert {name: sorted(texts) for name, texts in found.items()} == {
        name: sorted(texts & set(wanted) if name == "c1" else texts) for name, texts in every.items()
    }


def test_rows_that_name_it_are_numbered_through_all_batches(rows: pl.LazyFrame) -> None:
    mentions = Mentions(frozenset({"5 11"}), {})
    found = rows_naming(rows, rows.collect_schema(), mentions)
    assert {name: texts["row"].to_list() for name, texts in found.items()} == {
        "c5": [row for row, text in enumerate(COLUMNS["c5"]) if text == "5 11"]
    }
