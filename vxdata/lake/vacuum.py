"""Vacuum: deletes files that no state needs which can still be asked for.

A data file goes if all of this is true: it is not in the newest state, no kept snapshot needs it, it is older than the
retention by the store's clock, and no log entry that is younger than the retention took it out. A writer uploads files
before it commits them, so that age alone tells its files from left-overs: hence the least retention. What was
superseded since an erasure began that is not done is young, too: its second run reads there what it has to make the
lake forget. With them go what probes, temporary files and killed vacuums left behind. Nothing else is ever deleted;
what we do not know is listed.

Planning is pure (`plan_vacuum`); `vacuum` reads, announces, reads the protected files again, and deletes.

Source: design of record, sections 3 (upkeep) and 5 (the commit primitive: least retention).
"""

import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN, all_specs
from vxdata.errors import InvalidInputError
from vxdata.lake import doomed
from vxdata.lake.erasure_record import begun_and_not_done
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.kept import kept_files
from vxdata.lake.lake import Lake
from vxdata.lake.log import LOG_FOLDER, entry_version
from vxdata.lake.recent import recently_removed
from vxdata.lake.seals import refuse_damaged_state
from vxdata.lake.snapshot import NO_TABLE, Snapshot
from vxdata.lake.store import StoredObject
from vxdata.lake.temporary import is_temporary
from vxdata.schemas.columns import INSTANT

DEFAULT_RETENTION = timedelta(days=7)
LEAST_RETENTION = timedelta(hours=24)
_LEAST_DEADLINES = 10
_DELETERS = 8
_BATCH = 1_000

_DATA_FILE = re.compile(rf"{PARTITION_COLUMN}=[^/]+/[^/]+\.parquet")
_LEFT_BEHIND = ((re.compile(r"probe-[^/]+"), "left by a probe"), (re.compile(r"vacuum/[^/]+\.txt"), "left by a vacuum"))
FILE_COLUMNS = {
    "namespace": pl.String(),
    "path": pl.String(),
    "bytes": pl.Int64(),
    "modified": INSTANT,
    "why": pl.String(),
    "action": pl.String(),
}

Progress = Callable[[str], None]
"""Told what is being done from now on."""


@dataclass(frozen=True)
class VacuumReport:
    """What a vacuum deleted, or would delete.

    Attributes:
        files: namespace, path (in the lake), bytes, modified (UTC), why, action: "delete", or "leave" for files of
            others that VxData does not know.
        retention: how old a file must be.
        is_dry_run: whether nothing was deleted.
    """

    files: pl.DataFrame
    retention: timedelta
    is_dry_run: bool

    @property
    def taken(self) -> pl.DataFrame:
        """The files that were deleted, or would be."""
        return self.files.filter(pl.col("action") == "delete")

    @property
    def count(self) -> int:
        """How many files were deleted, or would be."""
        return self.taken.height

    @property
    def bytes(self) -> int:
        """How many bytes they hold."""
        return int(self.taken["bytes"].sum())


@dataclass(frozen=True)
class Folder:
    """One folder of a lake as a vacuum finds it.

    Attributes:
        name: a namespace, or the lake's own folder.
        objects: what the store lists.
        is_table: whether it is the folder of a table that exists.
    """

    name: str
    objects: tuple[StoredObject, ...]
    is_table: bool


def least_retention(deadline_seconds: float) -> timedelta:
    """Return the least retention: a slow writer may commit until its deadline what it uploaded long before."""
    return max(LEAST_RETENTION, timedelta(seconds=_LEAST_DEADLINES * deadline_seconds))


def plan_vacuum(folder: Folder, protected: Collection[str], cutoff: datetime) -> list[tuple[object, ...]]:
    """Return the files of a folder that may go, and those that nobody knows, as rows of a report.

    Args:
        folder: what is there.
        protected: the keys, in the lake, of files that some state still needs.
        cutoff: only files that were written before it may go.
    """
    rows = []
    for found in folder.objects:
        word = _word_for(folder, found.key.removeprefix(f"{folder.name}/"))
        if word is not None and found.key not in protected and found.modified < cutoff:
            action = "leave" if word == "not known to VxData" else "delete"
            rows.append((folder.name, found.key, found.size, found.modified, word, action))
    return sorted(rows)


def _word_for(folder: Folder, path: str) -> str | None:
    """Say why a file may go, if it is old and nothing needs it; None for what is never looked at."""
    if is_temporary(path):
        return "temporary"
    if folder.name == OWN_FOLDER:
        return next((word for pattern, word in _LEFT_BEHIND if pattern.fullmatch(path)), None)
    if path.startswith(f"{LOG_FOLDER}/"):
        return None
    return "in no state" if folder.is_table and _DATA_FILE.fullmatch(path) else "not known to VxData"


def vacuum(
    lake: Lake, retention: timedelta | None, dry_run: bool, progress: Progress = lambda text: None
) -> VacuumReport:
    """Delete files that no state needs which can still be asked for.

    Args:
        lake: the lake.
        retention: how long states stay readable that were superseded; None for seven days.
        dry_run: only say what would be deleted.
        progress: told what is being done.

    Raises:
        InvalidInputError: the retention is shorter than the least one.
        NotFoundError: no lake is here.
        StorageError: a log, the manifest of a kept snapshot or the record of an erasure cannot be read; nothing was
            deleted.
    """
    retention = _checked(retention, lake)
    lake.prepare_write(needs_lake=True)
    judged_at = datetime.now(UTC)
    cutoff = _spare_for_erasures(lake, _cutoff(lake.patience.now(), retention))
    rows = []
    for folder in _folders(lake):
        progress(f"look for files: {folder.name}")
        rows += _plan(lake, folder, cutoff)
    files = pl.DataFrame(rows, schema=FILE_COLUMNS, orient="row")
    report = VacuumReport(files, retention, dry_run)
    return report if dry_run or not report.count else _delete(lake, report, judged_at, cutoff, progress)


def _checked(retention: timedelta | None, lake: Lake) -> timedelta:
    if retention is None:
        return max(DEFAULT_RETENTION, least_retention(lake.patience.deadline_seconds))
    if not isinstance(retention, timedelta):
        raise InvalidInputError(f"retention={retention!r}: a timedelta is expected, such as timedelta(days=7).")
    least = least_retention(lake.patience.deadline_seconds)
    if retention < least:
        raise InvalidInputError(
            f"retention={retention}: the least is {least / timedelta(hours=1):g} hours, because a writer may have "
            "uploaded files that it has not committed yet."
        )
    return retention


def _cutoff(now: datetime, retention: timedelta) -> datetime:
    try:
        return now - retention
    except OverflowError:
        raise InvalidInputError(f"retention={retention} reaches back before the year 1.") from None


def _spare_for_erasures(lake: Lake, cutoff: datetime) -> datetime:
    """Return a cutoff that spares what an erasure superseded that is not done: it reads there what has to go."""
    return min((cutoff, *(begun - doomed.MOST_CLOCK_DIFFERENCE for begun in begun_and_not_done(lake.store))))


def _folders(lake: Lake) -> Iterator[Folder]:
    """Return what is there, folder by folder. A table's state is read after its files were listed, never before."""
    yield Folder(OWN_FOLDER, tuple(lake.store.list_objects(OWN_FOLDER)), False)
    for spec in all_specs():
        found = tuple(lake.store.list_objects(spec.namespace))
        yield Folder(spec.namespace, found, lake.snapshot(spec).version != NO_TABLE)


def _plan(lake: Lake, folder: Folder, cutoff: datetime) -> list[tuple[object, ...]]:
    """Plan one folder; the log is walked only if something may go."""
    if not plan_vacuum(folder, (), cutoff):
        return []
    needed = _needed_now(lake, folder, cutoff) if folder.is_table else set()
    return plan_vacuum(folder, needed | kept_files(lake.store), cutoff)


def _needed_now(lake: Lake, folder: Folder, cutoff: datetime) -> set[str]:
    spec = next(spec for spec in all_specs() if spec.namespace == folder.name)
    newest = lake.table(spec).listed_snapshot()
    refuse_damaged_state(lake.store, folder.name, newest.version, "vacuum")  # else a live file could seem to be none
    return needed_files(folder, newest, cutoff)


def needed_files(folder: Folder, newest: Snapshot, cutoff: datetime) -> set[str]:
    """Return the keys, in the lake, of the files that a table's newest state has, or one that is young enough.

    Args:
        folder: the table's folder; its log at least.
        newest: the newest state, taken after the folder was listed.
        cutoff: states that were superseded before it are not asked for.
    """
    versions = ((entry_version(found.key), found.modified) for found in folder.objects)
    modified = {version: instant for version, instant in versions if version is not None}
    removed = recently_removed(newest.store, folder.name, newest.version, modified, cutoff)
    return {f"{folder.name}/{key}" for key in (*newest.files["key"], *removed)}


# -- deleting


def _delete(
    lake: Lake, report: VacuumReport, judged_at: datetime, cutoff: datetime, progress: Progress
) -> VacuumReport:
    """Delete what was planned, without what has come to be needed since; look again before each thousand files."""
    spared: set[str] = set()
    paths = report.taken["path"].to_list()
    tables = [spec for spec in all_specs() if spec.namespace in set(report.taken["namespace"])]
    with doomed.announced(lake.store, paths) as announcement, ThreadPoolExecutor(_DELETERS) as pool:
        doomed.refuse_clock_ahead(lake.store, announcement, judged_at, "vacuum")
        for start in range(0, len(paths), _BATCH):
            progress(f"delete {len(paths):,} files, {start:,} done")
            needed = kept_files(lake.store)
            for spec in tables:
                log = tuple(lake.store.list_objects(f"{spec.namespace}/{LOG_FOLDER}"))
                needed |= _needed_now(lake, Folder(spec.namespace, log, True), cutoff)
            batch = paths[start : start + _BATCH]
            list(pool.map(lake.store.delete, [path for path in batch if path not in needed]))
            spared |= needed.intersection(batch)
    return replace(report, files=report.files.filter(~pl.col("path").is_in(list(spared))))
