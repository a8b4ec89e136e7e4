"""What VxData relies on in the libraries below it, for the pinned versions: if one changes, look up why it is here.

Source: docs of the traps (commits, reading); decision 001 (files are skipped by statistics that are handed to Polars).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from tests.support.servers import REGION, aws_environment, make_bucket

MakeLakeUri = Callable[[], str]
NOTHING_AFTER_COMMITS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@pytest.fixture
def table_uri(make_lake_uri: MakeLakeUri) -> str:
    """A Delta table of two files with three rows each."""
    uri = make_lake_uri()
    for first in (0, 3):
        rows = pl.DataFrame({"x": range(first, first + 3)}).to_arrow()
        write_deltalake(uri, rows, mode="append", storage_options=options(uri))
    return uri


def options(uri: str) -> dict[str, str] | None:
    named = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return {"allow_http": "true", **named} if uri.startswith("s3://") else None


def append(table: DeltaTable, path: str, retries: int | None) -> None:
    """Commit one more file of three rows, as VxData does; the file itself is not needed."""
    statistics = json.dumps({"numRecords": 3, "minValues": {"x": 6}, "maxValues": {"x": 8}, "nullCount": {"x": 0}})
    properties = CommitProperties() if retries is None else CommitProperties(max_commit_retries=retries)
    table.create_write_transaction(
        [AddAction(path, 1, {}, 0, True, statistics)],
        mode="append",
        schema=table.schema(),
        commit_properties=properties,
        post_commithook_properties=NOTHING_AFTER_COMMITS,
    )


def rows_in(uri: str) -> int:
    counts = pl.DataFrame(DeltaTable(uri, storage_options=options(uri)).get_add_actions())["num_records"]
    return int(counts.sum())


def test_the_pinned_versions_are_those_that_were_looked_at() -> None:
    assert deltalake.__version__.startswith("1.6.")
    assert pl.__version__.startswith("2.")


def test_without_retries_one_of_two_commits_on_one_base_wins(table_uri: str) -> None:
    one, other = (DeltaTable(table_uri, storage_options=options(table_uri)) for _ in "ab")
    append(one, "a.parquet", retries=0)
    with pytest.raises(CommitFailedError):
        append(other, "b.parquet", retries=0)
    assert rows_in(table_uri) == 9


@pytest.mark.parametrize("make_lake_uri", ["local"], indirect=True)
def test_with_its_own_retries_deltalake_lets_both_win(table_uri: str) -> None:
    one, other = (DeltaTable(table_uri) for _ in "ab")
    append(one, "a.parquet", retries=None)
    append(other, "b.parquet", retries=None)
    assert rows_in(table_uri) == 12


def test_without_retries_one_of_many_threads_wins_each_version(table_uri: str) -> None:
    handles = [DeltaTable(table_uri, storage_options=options(table_uri)) for _ in range(8)]

    def wins(handle: DeltaTable) -> bool:
        try:
            append(handle, f"{uuid.uuid4()}.parquet", retries=0)
        except CommitFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wins, handles)) == 1
    assert rows_in(table_uri) == 9


@pytest.mark.parametrize("make_lake_uri", ["local"], indirect=True)
def test_two_compactions_of_deltalake_at_once_double_every_row(table_uri: str) -> None:
    """Why VxData never calls `optimize`. If this fails, deltalake was mended, and the trap is one no more."""
    one, other = (DeltaTable(table_uri) for _ in "ab")
    for handle in (one, other):
        handle.optimize.compact(commit_properties=CommitProperties(max_commit_retries=0))
    assert rows_in(table_uri) == 12


@pytest.mark.parametrize("server", ["moto", "ministack"])
def test_of_many_conditional_puts_of_one_key_one_wins(request: pytest.FixtureRequest, server: str) -> None:
    from obstore.exceptions import AlreadyExistsError
    from obstore.store import S3Store

    url = request.getfixturevalue(f"{server}_url")
    make_bucket(url, bucket := f"bucket-{uuid.uuid4()}")
    keys = {name.lower(): value for name, value in aws_environment(url).items() if "KEY" in name}
    store = S3Store(bucket, endpoint=url, region=REGION, client_options={"allow_http": True}, **keys)

    def wins(attempt: int) -> bool:
        try:
            store.put(f"contested-{attempt // 8}", str(attempt).encode(), mode="create")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(wins, range(160)))
    assert [sum(outcomes[first : first + 8]) for first in range(0, 160, 8)] == [1] * 20


# Polars skips files by the statistics that it is handed


@pytest.fixture
def scan(tmp_path: Path) -> Callable[[bool], pl.LazyFrame]:
    """A scan of three files, of which only the middle one is still there when it runs."""
    frames = [pl.DataFrame({"x": [n, n + 1], "y": y}) for n, y in ((0, [1, 2]), (10, [None, 3]), (20, [4, 5]))]
    paths = [tmp_path / f"{n}.parquet" for n in range(3)]
    for frame, path in zip(frames, paths, strict=True):
        frame.write_parquet(path)
    statistics = pl.DataFrame(
        {
            "len": [2, 2, 2],
            "x_nc": [0, 0, 0],
            "x_min": [0, 10, 20],
            "x_max": [1, 11, 21],
            "y_nc": [0, 1, 0],
            "y_min": [1, 3, 4],
            "y_max": [2, 3, 5],
        },
        schema_overrides={"len": pl.UInt32, "x_nc": pl.UInt32, "y_nc": pl.UInt32},
    )
    paths[0].unlink()
    paths[2].unlink()

    def open_scan(with_statistics: bool = True) -> pl.LazyFrame:
        return pl.scan_parquet(
            paths, schema={"x": pl.Int64, "y": pl.Int64}, _table_statistics=statistics if with_statistics else None
        )

    return open_scan


@pytest.mark.parametrize(
    ("predicate", "rows"),
    [
        (pl.col("x") == 10, 1),
        (pl.col("x").is_between(5, 15), 2),
        (pl.col("x").is_in([10, 11, 12]), 2),
        ((pl.col("x") > 5) & (pl.col("x") < 15), 2),
        (pl.col("y").is_null(), 1),
        (pl.col("y").is_null() & (pl.col("x") == 10), 1),
    ],
)
def test_a_file_that_cannot_match_is_not_opened(
    scan: Callable[[bool], pl.LazyFrame], predicate: pl.Expr, rows: int
) -> None:
    assert scan(True).filter(predicate).collect().height == rows
    with pytest.raises((FileNotFoundError, pl.exceptions.ComputeError)):
        scan(False).filter(predicate).collect()


def test_a_file_that_holds_only_nulls_is_not_opened_for_a_value(tmp_path: Path) -> None:
    pl.DataFrame({"closes": [None, 1]}, schema={"closes": pl.Int64}).write_parquet(tmp_path / "tail.parquet")
    statistics = pl.DataFrame(
        {"len": [2, 9], "closes_nc": [1, 9], "closes_min": [1, None], "closes_max": [1, None]},
        schema_overrides={"len": pl.UInt32, "closes_nc": pl.UInt32},
    )
    paths = [tmp_path / "tail.parquet", tmp_path / "head.parquet"]
    scan = pl.scan_parquet(paths, schema={"closes": pl.Int64}, _table_statistics=statistics)
    assert scan.filter(pl.col("closes").is_not_null()).collect().height == 1


def test_a_filter_goes_down_through_an_anti_join(scan: Callable[[bool], pl.LazyFrame]) -> None:
    closings = pl.LazyFrame({"x": [11]})
    middle = pl.col("x").is_between(10, 19)
    assert scan(True).filter(middle).join(closings, on="x", how="anti").collect()["x"].to_list() == [10]
    assert scan(True).join(closings, on="x", how="anti").filter(middle).collect()["x"].to_list() == [10]
    with pytest.raises((FileNotFoundError, pl.exceptions.ComputeError)):
        scan(True).join(closings, on="x", how="anti").collect()
