"""Trimming: deletes old log entries and checkpoints that no one needs to open the table.

A checkpoint C stands for all entries up to its own. Entries and checkpoints below C go if they are old, C itself is
old, the archive has the metadata of every entry that goes, and the table was opened at C. What stays: C's own entry
(Delta needs it for the next commit), C's files, and everything later. Old states below C can then be opened only if
they were kept.

A client that has been running all the time asks only for the entry that follows the version it knows (decision 002).
That entry may be trimmed only when it is 30 days old, and a client lists the log anew after an hour: see `Table`.

Source: design of record, section 5 (the log).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vxdata.errors import InvalidInputError, StorageError
from vxdata.lake import doomed
from vxdata.lake.archive import archive_commits, unarchived
from vxdata.lake.checkpoints import LogFiles, list_log, read_hint
from vxdata.lake.log import read_entry
from vxdata.lake.recent import written_at
from vxdata.lake.seals import drop_seals, refuse_unsealed
from vxdata.lake.store import StoredObject
from vxdata.lake.table import Table

LEAST_DAYS = 30
MOST_DAYS = 36_500


@dataclass(frozen=True)
class TrimReport:
    """What a trimming deleted.

    Attributes:
        entries: how many log entries.
        checkpoint: the version from which the table opens now; None if nothing was trimmed.
    """

    entries: int
    checkpoint: int | None


@dataclass(frozen=True)
class Trimming:
    """What may be deleted of one log: in this order, so that a kill on the way leaves no gap that matters.

    Attributes:
        checkpoint: the version of the checkpoint that stands for it.
        entries: the versions of the log entries.
        keys: the keys of all files, oldest first.
    """

    checkpoint: int
    entries: tuple[int, ...]
    keys: tuple[str, ...]


def plan_trimming(log: LogFiles, checkpoint: int, cutoff: datetime) -> Trimming:
    """Return what lies below a checkpoint and is older than the cutoff; the first entry that is not ends it."""
    entries, keys = [], []
    for version in sorted({*log.entries, *log.others}):
        files = list(_files_of(log, version))
        if version >= checkpoint or any(found.modified >= cutoff for found in files):
            break
        if version in log.entries:
            entries.append(version)
        keys += [found.key for found in files]
    return Trimming(checkpoint, tuple(entries), tuple(keys))


def _files_of(log: LogFiles, version: int) -> Iterator[StoredObject]:
    if version in log.entries:
        yield log.entries[version]
    yield from log.others.get(version, ())


def check_keep_days(days: int) -> None:
    """Refuse a number of days for which no log is kept.

    Raises:
        InvalidInputError: less than 30 days, or more than a hundred years.
    """
    if not LEAST_DAYS <= days <= MOST_DAYS:
        raise InvalidInputError(f"keep_log_days={days}: a log is kept for {LEAST_DAYS} to {MOST_DAYS:,} days.")


def trim_log(table: Table, now: datetime, keep_days: int = LEAST_DAYS) -> TrimReport:
    """Delete the log entries and checkpoints that are older than some days and that a checkpoint stands for.

    Args:
        table: the table.
        now: the clock, UTC.
        keep_days: at least 30, at most 36,500.

    Raises:
        InvalidInputError: fewer or more days.
        StorageError: the archive has a gap, the table does not open at the checkpoint, or this machine's clock is
            ahead of the store's; nothing was deleted.
    """
    check_keep_days(keep_days)
    judged_at, cutoff = datetime.now(UTC), now - timedelta(days=keep_days)
    log = list_log(table.store, table.spec.namespace)
    checkpoint = _old_checkpoint(table, log, cutoff)
    planned = None if checkpoint is None else plan_trimming(log, checkpoint, cutoff)
    if planned is None or not planned.keys:
        return TrimReport(0, None)
    refuse_unsealed(table.store, table.spec.namespace, planned.checkpoint, "trim the log of")
    _archive(table, planned)
    _open_at(table, planned.checkpoint)
    with doomed.announced(table.store, planned.keys) as announcement:
        doomed.refuse_clock_ahead(table.store, announcement, judged_at, "trim the log of")
        for key in planned.keys:
            table.store.delete(key)
    drop_seals(table.store, table.spec.namespace, planned.checkpoint)
    return TrimReport(len(planned.entries), planned.checkpoint)


def _old_checkpoint(table: Table, log: LogFiles, cutoff: datetime) -> int | None:
    """Return the newest whole checkpoint that readers know of and whose own entry is old by both clocks."""
    known = read_hint(table.store, table.spec.namespace)
    for version in sorted(log.checkpoints, reverse=True):
        if version > known or version not in log.entries or log.entries[version].modified >= cutoff:
            continue
        entry = read_entry(table.store, table.spec.namespace, version)
        if entry is not None and written_at(entry, log.entries[version].modified) < cutoff:
            return version
    return None


def _archive(table: Table, planned: Trimming) -> None:
    """Make sure that who committed what and why outlives the entries."""
    archive_commits(table, planned.checkpoint)
    missing = unarchived(table, planned.entries)
    if missing:
        raise StorageError(
            f"the archive of commits lacks version {missing[0]} ({len(missing)} in all), so that nothing was trimmed; "
            "run 'vxdata verify'.",
            uri=table.uri,
            operation="trim the log of",
            retryable=False,
        )


def _open_at(table: Table, checkpoint: int) -> None:
    """Open the table at a checkpoint, by a handle that knows nothing yet."""
    if Table(table.store, table.spec).open_from_log(checkpoint) is None:
        raise StorageError(
            f"the checkpoint of version {checkpoint} cannot be read, so that nothing was trimmed; run 'vxdata verify'.",
            uri=table.uri,
            operation="trim the log of",
            retryable=False,
        )
