"""The archive of commit metadata: the audit log that outlives the trimming of the Delta log.

Checkpoints hold no commit metadata, so before old entries are trimmed, who committed what and why goes to
`_vxdata/commits/<namespace>/<first>-<last>.ndjson`, one line for each commit. A file is written once, for a range of
versions; a range may be there twice, from two writers, with the same content.

Source: design of record, section 5 (the log).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from vxdata.errors import StorageError
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.log import LogEntry, json_lines, read_sound_entry
from vxdata.lake.store import Store
from vxdata.lake.table import Table

_RANGE = re.compile(r"(\d{20})-(\d{20})\.ndjson$")


def archive_commits(table: Table, upto: int, read: Mapping[int, LogEntry] = MappingProxyType({})) -> int:
    """Write the metadata of the commits that are not archived yet.

    Args:
        table: the table.
        upto: the last version to archive.
        read: entries that were read before.

    Returns:
        How many commits were archived.

    Raises:
        StorageError: a log entry in between is missing, so that the archive would have a gap.
    """
    first = max((last for _, last, _ in archived_ranges(table.store, table.spec.namespace)), default=-1) + 1
    if first > upto:
        return 0
    entries = [read.get(version) or _entry(table, version) for version in range(first, upto + 1)]
    text = "".join(json.dumps(to_record(table.spec.namespace, e), ensure_ascii=False) + "\n" for e in entries)
    table.store.put_new(f"{_folder(table.spec.namespace)}/{first:020d}-{upto:020d}.ndjson", text.encode())
    return len(entries)


def archived_commits(table: Table) -> Iterator[dict[str, Any]]:
    """Return the archived records of a table, oldest first, each version once."""
    seen = -1
    for _, _, key in archived_ranges(table.store, table.spec.namespace):
        for record in json_lines(table.store.get(key) or b""):
            if record["version"] > seen:
                seen = record["version"]
                yield record


def newest_archived(table: Table, newest: int) -> Iterator[dict[str, Any]]:
    """Return the archived records of a table up to a version, newest first, each version once; files as needed."""
    ranges = sorted(
        ((last, first, key) for first, last, key in archived_ranges(table.store, table.spec.namespace)), reverse=True
    )
    for _, first, key in ranges:
        if first > newest:
            continue
        for record in reversed(json_lines(table.store.get(key) or b"")):
            if record["version"] <= newest:
                newest = record["version"] - 1
                yield record


def find_archived(table: Table, commit_id: str) -> int | None:
    """Return the version of an archived commit; None if the archive does not have it."""
    return next((r["version"] for r in archived_commits(table) if r.get("commit_id") == commit_id), None)


def unarchived(table: Table, versions: Iterable[int]) -> list[int]:
    """Return which of some versions the archive does not hold, by its records and not by its files' names."""
    missing = set(versions)
    for first, last, key in archived_ranges(table.store, table.spec.namespace):
        if missing and first <= max(missing) and last >= min(missing):
            missing.difference_update(record["version"] for record in json_lines(table.store.get(key) or b""))
    return sorted(missing)


def to_record(namespace: str, entry: LogEntry) -> dict[str, Any]:
    """Return a log entry as one record of the audit log."""
    return {
        "namespace": namespace,
        "version": entry.version,
        "timestamp": entry.timestamp,
        "delta_operation": entry.operation,
        **entry.metadata,
    }


def _entry(table: Table, version: int) -> LogEntry:
    entry = read_sound_entry(table.store, table.spec.namespace, version)
    if entry is None:
        raise StorageError(
            f"log entry {version} is missing and was never archived.",
            uri=table.uri,
            operation="archive the log of",
            retryable=False,
        )
    return entry


def _folder(namespace: str) -> str:
    return f"{OWN_FOLDER}/commits/{namespace}"


def archived_ranges(store: Store, namespace: str) -> list[tuple[int, int, str]]:
    """Return the archive's files of a table: the first and the last version of each, and its key."""
    found = ((_RANGE.search(key), key) for key in store.list_keys(_folder(namespace)))
    return sorted((int(match[1]), int(match[2]), key) for match, key in found if match)
