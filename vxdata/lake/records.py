"""Who committed some rows and why: the records of the audit log that some commit ids name."""

from collections.abc import Iterable, Iterator
from typing import Any

from vxdata.lake.archive import archived_commits, to_record
from vxdata.lake.log import read_entry
from vxdata.lake.table import Table


def commit_records(table: Table, commit_ids: Iterable[str], upto: int) -> dict[str, dict[str, Any]]:
    """Return the audit records of some commits of a table by their ids; those that nobody knows any more are left out.

    Args:
        table: the table.
        commit_ids: ids as they stand in rows (`commit_id`, `closed_by`).
        upto: the last version to look at.
    """
    wanted, found = set(commit_ids), {}
    for record in _records(table, upto) if wanted else ():
        if record.get("commit_id") in wanted:
            found[record["commit_id"]] = record
            if len(found) == len(wanted):
                break
    return found


def _records(table: Table, upto: int) -> Iterator[dict[str, Any]]:
    """Return the records of the archive, then of the log entries that are not archived yet."""
    last = -1
    for record in archived_commits(table):
        last = record["version"]
        yield record
    for version in range(last + 1, upto + 1):
        entry = read_entry(table.store, table.spec.namespace, version)
        if entry is not None:
            yield to_record(table.spec.namespace, entry)
