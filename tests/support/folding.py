"""A fold by hand: all of a table as the rules of `scd2` say that compaction leaves it.

Ends stand in `valid_to` and `closed_by`, `closes` is null everywhere and tombstones are gone. It is written from the
design's words, so that what reads folded tables is tested against another hand than compaction's.
"""

from __future__ import annotations

import time

import polars as pl

from vxdata.catalog.table import all_specs
from vxdata.lake.datafile import write_data_files
from vxdata.lake.table import Table
from vxdata.sdk import Client


def fold_lake(client: Client) -> None:
    """Fold every table of a lake that holds something."""
    for spec in all_specs():
        table = client._session.lake.table(spec)
        if table.snapshot().files.height:
            fold(table)


def fold(table: Table) -> None:
    """Fold a table whole."""
    base = table.snapshot()
    rows = base.rows.collect()
    closings = rows.filter(pl.col("closes").is_not_null())
    ends = closings.select("identifier", valid_from="closes", _end="valid_from", _by="commit_id")
    versions = rows.filter(~pl.col("is_deleted")).join(ends, on=["identifier", "valid_from"], how="left")
    folded = versions.with_columns(
        valid_to=pl.coalesce("valid_to", "_end"),
        closed_by=pl.coalesce("closed_by", "_by"),
        closes=pl.lit(None, rows.schema["closes"]),
    ).select(rows.columns)
    files = write_data_files(table.store, table.spec.namespace, folded)
    gone = base.files.with_columns(deleted_at=pl.lit(int(time.time() * 1000))).rows(named=True)
    table.put_commit(base, files, gone, {"operation": "compact", "commit_id": "fold", "author": "a test"})
    assert table.snapshot().files.height == len(files)
