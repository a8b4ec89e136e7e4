"""Updates against the usual SCD2 recipe on a plain Delta table: MERGE ends what was, an append adds the new.

The peer is handed the whole new versions for nothing; we look up the current ones and compare.
"""

import os
import shutil
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable, write_deltalake
from rich.table import Table

from benchmarks.generated import make_partition
from benchmarks.measure import Row
from benchmarks.requests import KINDS, count
from benchmarks.upkeep import MILLION, SOURCE, VOLUMES, linked, live_files
from tests.support.proxy import Proxy
from tests.support.servers import aws_environment, make_bucket, start_ministack
from vxdata.sdk import Client

SMALL, CHANGED, UPDATES = 100_000, 100_000, 30
UPDATE_GOAL, UPSERT_GOAL, SAME = 0.1, 0.5, 1.05


def measure(work: Path) -> list[Row]:
    """Take the measures that need a million rows; `upkeep.measure` made them."""
    return [upsert(work / "million", work)]


def measure_large(work: Path) -> list[Row]:
    """Take the measures that need a partition of 10 million rows; `upkeep.measure_large` made it."""
    make_partition(work / "small", SMALL, SOURCE)
    large = work / "partition"
    return [one_update(large, work), *bytes_written(large, work / "small", work)]


def plain_copy(lake: Path, table: Path) -> None:
    """Write the volumes of a lake as a plain Delta table, file by file, so that it has the same order and ranges."""
    shutil.rmtree(table, ignore_errors=True)
    hidden = ("closes", "is_deleted", "commit_id", "closed_by")
    (datasource,) = Client(lake).datasources.query().collect()["identifier"]
    for file in sorted(live_files(lake)):
        rows = pl.read_parquet(file, hive_partitioning=False).drop(hidden)
        with_partition = rows.with_columns(pl.lit(datasource).alias("datasource_id"))
        write_deltalake(str(table), with_partition, mode="append", partition_by=["datasource_id"])


def merge(table: DeltaTable, versions: pl.DataFrame) -> None:
    """End the current versions of what changed, and append the new ones.

    MERGE streams its source unless told otherwise, and then skips no file by the source's bounds: slower by far.
    """
    matching = "t.datasource_id = s.datasource_id AND t.identifier = s.identifier AND t.valid_to IS NULL"
    ended = versions.select("datasource_id", "identifier", "valid_from")
    merger = table.merge(ended, matching, source_alias="s", target_alias="t", streamed_exec=False)
    found = merger.when_matched_update({"valid_to": "s.valid_from"}).execute()
    assert found["num_target_rows_updated"] == versions.height, found
    write_deltalake(table, versions, mode="append")
    table.update_incremental()


def one_update(lake: Path, work: Path, runs: int = 5) -> Row:
    """Update single resources on a warm client, in turn with the recipe on an open handle."""
    copy, plain = work / "updated", work / "plain"
    linked(lake, copy)
    plain_copy(lake, plain)
    client, table = Client(copy), DeltaTable(str(plain))
    names = client.volumes.query().select("identifier").collect()["identifier"]
    rows, picked = names.len(), names.sample(2 * runs + 1, seed=1).to_list()
    client.volumes.update(picked[-1], {"b_value": 1.0})
    ours, theirs = [], []
    for mine, other in zip(picked[:runs], picked[runs:-1], strict=True):
        ours.append(_seconds(partial(client.volumes.update, mine, {"b_value": 2.0})))
        theirs.append(_seconds(partial(merge, table, _next_versions(table, [other]))))
    shutil.rmtree(copy)
    shutil.rmtree(plain)
    return _ratio(f"update of one in {rows:,} / MERGE and append", ours, theirs, UPDATE_GOAL)


def upsert(lake: Path, work: Path, runs: int = 3) -> Row:
    """Upsert the new states of a tenth of a million, in turn with the recipe for the same frame."""
    plain, copy, merged = work / "plain", work / "upserted", work / "merged"
    plain_copy(lake, plain)
    names = Client(lake).volumes.query().select("identifier").collect()["identifier"].sample(CHANGED, seed=1)
    versions = _next_versions(DeltaTable(str(plain)), names.to_list())
    states = versions.select("identifier", "parent_identifier", "license", *VOLUMES.fields)
    ours, theirs = [], []
    for _ in range(runs):
        linked(lake, copy)
        linked(plain, merged)
        ours.append(_seconds(partial(_upsert, copy, states)))
        theirs.append(_seconds(lambda: merge(DeltaTable(str(merged)), versions)))
    return _ratio(f"upsert that changes {CHANGED:,} of a million / MERGE and append", ours, theirs, UPSERT_GOAL)


def _upsert(lake: Path, states: pl.DataFrame) -> None:
    report = Client(lake).volumes.upsert(states)
    assert report.updated == states.height, report


def bytes_written(large: Path, small: Path, work: Path) -> list[Row]:
    """Compare the bytes that updates add to a large and a small lake, each update by itself, checkpoints apart."""
    found = [_written(lake, work) for lake in (large, small)]
    rows = []
    for words, goal in (("data and log", SAME), ("checkpoints and archive, a share", None)):
        ours, peer = (written[words] / 1024 for written in found)
        rows.append(
            Row(f"{words}, written by one update: of a large table / a small one", ours, peer, ours / peer, goal, "KiB")
        )
    return rows


def _written(lake: Path, work: Path) -> dict[str, float]:
    copy = work / "written"
    linked(lake, copy)
    client = Client(copy)
    names = client.volumes.query().select("identifier").collect()["identifier"].sample(UPDATES, seed=2)
    before = set(copy.rglob("*"))
    for identifier in names:
        client.volumes.update(identifier, {"b_value": 3.0})
    new = [file for file in copy.rglob("*") if file not in before and file.is_file()]
    is_entry = [".checkpoint." not in file.name and "_vxdata" not in file.parts for file in new]
    own = sum(file.stat().st_size for file, counts in zip(new, is_entry, strict=True) if counts)
    total = sum(file.stat().st_size for file in new)
    shutil.rmtree(copy)
    return {"data and log": own / UPDATES, "checkpoints and archive, a share": (total - own) / UPDATES}


def requests(sizes: tuple[int, ...] = (SMALL, MILLION)) -> Table:
    """Count the S3 requests and bytes of one update, in tables of different sizes, on a warm client."""
    table = Table("update of one in", *KINDS, "KiB read", "KiB written", title="S3 requests by the table's size")
    with start_ministack() as server, Proxy(server.endpoint_url) as proxy:
        os.environ.update(aws_environment(proxy.endpoint_url))
        make_bucket(server.endpoint_url, "benchmark")
        for size in sizes:
            uri = f"s3://benchmark/{size}"
            make_partition(uri, size, SOURCE)
            client = Client(uri)
            names = client.volumes.query().select("identifier").collect()["identifier"].sample(2, seed=1)
            client.volumes.update(names[0], {"b_value": 1.0})
            table.add_row(f"{size:,}", *count(proxy, lambda: client.volumes.update(names[1], {"b_value": 2.0})))  # noqa: B023
    return table


def _next_versions(table: DeltaTable, identifiers: list[str]) -> pl.DataFrame:
    """Return new versions of some current rows, with one value changed."""
    is_current = pl.col("valid_to").is_null() & pl.col("identifier").is_in(identifiers)
    rows = pl.scan_delta(table).filter(is_current).collect()
    return rows.with_columns(
        pl.lit(2.0).alias("b_value"), pl.lit(datetime.now(UTC)).cast(rows.schema["valid_from"]).alias("valid_from")
    )


def _ratio(question: str, ours: list[float], peer: list[float], target: float | None) -> Row:
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    return Row(question, statistics.median(ours), statistics.median(peer), ratio, target, "s")


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
