"""The audit log: who committed what and why, from the archive and from the log entries that are not archived yet.

Source: design of record, section 5 (the log).
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.lake.archive import newest_archived, to_record
from vxdata.lake.lake import Lake, View
from vxdata.lake.log import LogEntry, read_entry
from vxdata.lake.snapshot import NO_TABLE
from vxdata.lake.table import Table

COMMIT_COLUMNS = {
    "committed_at": pl.Datetime("us", "UTC"),
    "commit_id": pl.String(),
    "operation": pl.String(),
    "author": pl.String(),
    "reason": pl.String(),
    "namespace": pl.String(),
    "version": pl.Int64(),
    "created": pl.Int64(),
    "updated": pl.Int64(),
    "deleted": pl.Int64(),
    "batch_id": pl.String(),
    "vxdata_version": pl.String(),
}
_READERS = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_commits(lake: Lake, view: View, specs: Iterable[TableSpec], limit: int | None = None) -> pl.DataFrame:
    """Return the commits of some tables, newest first: one row for each commit of each table, `COMMIT_COLUMNS`.

    Args:
        lake: the lake.
        view: up to which version of each table.
        specs: the tables.
        limit: at most so many; then only so many log entries of each table are read.
    """
    rows = [
        _row(record)
        for spec in specs
        for record in islice(records_of(lake.table(spec), view.snapshot(spec).version), limit)
    ]
    newest_first = ["committed_at", "version", "namespace"]
    frame = pl.DataFrame(rows, schema=COMMIT_COLUMNS, orient="row")
    frame = frame.sort(newest_first, descending=[True, True, False], nulls_last=True)
    return frame if limit is None else frame.head(limit)


def records_of(table: Table, newest: int) -> Iterator[dict[str, Any]]:
    """Return the records of a table's commits, newest first, each version once.

    Args:
        table: the table.
        newest: the version to begin with; -1 for a table that does not exist.
    """
    if newest == NO_TABLE:
        return
    archive = newest_archived(table, newest)
    first = next(archive, None)
    last_archived = -1 if first is None else first["version"]
    for entry in _entries(table, range(newest, last_archived, -1)):
        yield to_record(table.spec.namespace, entry)
    yield from () if first is None else chain([first], archive)


def all_records(lake: Lake, specs: Iterable[TableSpec]) -> Iterator[dict[str, Any]]:
    """Return the records of the commits of some tables, newest first in each table."""
    for spec in specs:
        yield from records_of(lake.table(spec), lake.snapshot(spec).version)


def commit_id_at(table: Table, version: int) -> str | None:
    """Return the commit id of one version; None if it is a commit of others, or forgotten."""
    entry = read_entry(table.store, table.spec.namespace, version)
    if entry is not None:
        return entry.commit_id
    found: dict[str, Any] = next((r for r in newest_archived(table, version) if r["version"] == version), {})
    return found.get("commit_id")


def _entries(table: Table, versions: range) -> Iterator[LogEntry]:
    """Read log entries, a few at once and no more than are asked for."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(versions), _READERS):
            some = versions[start : start + _READERS]
            found = pool.map(lambda version: read_entry(table.store, table.spec.namespace, version), some)
            yield from (entry for entry in found if entry is not None)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    counts = record.get("counts") or {}
    milliseconds = record.get("timestamp")
    return {
        **{name: record.get(name) for name in COMMIT_COLUMNS},
        "committed_at": None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds),
        "operation": record.get("operation") or record.get("delta_operation"),
        **{name: counts.get(name) for name in ("created", "updated", "deleted")},
    }
