"""Which files younger states of a table still need: what the log took out within a time.

A file that an entry took out was live until then, so it belongs to a state that was the newest one at that moment. An
entry is as old as its writer's clock says, or as the store says, whichever is younger.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from vxdata.errors import StorageError
from vxdata.lake.log import LogEntry, read_sound_entry
from vxdata.lake.store import Store

_READERS = 8
_FAR = datetime.max.replace(tzinfo=UTC)


def recently_removed(
    store: Store, namespace: str, newest: int, modified: Mapping[int, datetime], cutoff: datetime
) -> set[str]:
    """Return the keys, below the table's folder, of the files that entries not older than the cutoff took out.

    Args:
        store: the lake's store.
        namespace: the table.
        newest: the version to walk back from.
        modified: when the store says that each entry was written.
        cutoff: entries that are older by both clocks end the walk: whatever lies below them is older still.

    Raises:
        StorageError: an entry is damaged, or missing although older ones are there: nobody knows what it took out.
    """
    removed: set[str] = set()
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(newest, -1, -_READERS):
            versions = range(start, max(start - _READERS, -1), -1)
            entries = list(pool.map(lambda version: read_sound_entry(store, namespace, version), versions))
            for version, entry in zip(versions, entries, strict=True):
                if entry is None:
                    _refuse_hole(store, namespace, version, modified)
                    return removed
                if written_at(entry, modified.get(version)) < cutoff:
                    return removed
                removed.update(entry.removed)
    return removed


def written_at(entry: LogEntry, modified: datetime | None) -> datetime:
    """Return when an entry was written, by the younger of two clocks; one of unknown age is as young as can be."""
    try:
        said = None if entry.timestamp is None else datetime.fromtimestamp(entry.timestamp / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        said = _FAR
    return max((instant for instant in (said, modified) if instant is not None), default=_FAR)


def _refuse_hole(store: Store, namespace: str, version: int, modified: Mapping[int, datetime]) -> None:
    """Raise if a missing entry is not one that was trimmed."""
    if any(older < version for older in modified):
        raise StorageError(
            f"log entry {version} of {namespace} is missing, though older ones are there; run 'vxdata verify'.",
            uri=store.uri,
            operation="read the log of",
            retryable=False,
        )
