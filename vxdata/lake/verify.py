"""`verify`: checks a whole lake, and says of each thing that is wrong what to do.

One damaged file never stops the rest. Nothing of a warm handle is trusted: the lake is opened anew. Children are looked
at in an older state than their parents, and what looks like an orphan is looked at again in the newest state, so that
writers beside it are not taken for damage.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl

from vxdata.catalog.table import TableSpec, all_specs, child_specs
from vxdata.errors import StorageError, VxDataError
from vxdata.lake.checkpoints import LogFiles, to_log_files
from vxdata.lake.faults import refuse_unanswered
from vxdata.lake.findings import Finding, found, found_each, to_frame
from vxdata.lake.format import FORMAT_KEY, require_format
from vxdata.lake.intent import Patience
from vxdata.lake.lake import refuse_fork
from vxdata.lake.log import LOG_FOLDER
from vxdata.lake.lookup import read_current, read_lineages
from vxdata.lake.snapshot import NO_TABLE, Snapshot
from vxdata.lake.store import Store, StoredObject
from vxdata.lake.table import Table
from vxdata.lake.unregistered import unregistered_tables
from vxdata.lake.vacuum import DEFAULT_RETENTION, Folder, needed_files, plan_vacuum
from vxdata.lake.verify_archive import check_archive, check_erasures, check_kept
from vxdata.lake.verify_files import check_files
from vxdata.lake.verify_log import check_log
from vxdata.lake.verify_rows import check_rows, current_rows, find_orphans, read_rows

Progress = Callable[[str], None]
"""Told what is being done from now on."""


@dataclass(frozen=True)
class VerifyReport:
    """What a check of a lake found.

    Attributes:
        findings: severity (error, warning, info), kind, namespace, subject (file or identifier), detail, remedy.
        checked: how much was looked at: tables, log entries, files, bytes, rows, kept snapshots.
    """

    findings: pl.DataFrame
    checked: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether the lake is whole: nothing that was found is an error."""
        return not (self.findings["severity"] == "error").any()


def verify(store: Store, patience: Patience, progress: Progress) -> VerifyReport:
    """Check the whole lake as it is now.

    Args:
        store: the lake's store.
        patience: the clock.
        progress: told what is being done.

    Raises:
        NotFoundError: no lake is here.
        StorageError: the store fails.
    """
    refuse_fork()
    check = _Check(store, patience, progress)
    return VerifyReport(to_frame(check.run()), dict(check.checked))


@dataclass(frozen=True)
class _Opened:
    """One table: what the store lists of it, and its newest state (None if the log gives none)."""

    objects: tuple[StoredObject, ...]
    log: LogFiles
    newest: Snapshot | None


@dataclass
class _Newest:
    """The view of the newest state, by handles of its own."""

    store: Store

    def snapshot(self, spec: TableSpec) -> Snapshot:
        return Table(self.store, spec).listed_snapshot()


@dataclass
class _Check:
    """One run over a lake: what was counted, and what later tables need to know of earlier ones."""

    store: Store
    patience: Patience
    progress: Progress
    checked: Counter[str] = field(default_factory=Counter)
    live: dict[str, pl.DataFrame] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)

    def run(self) -> list[Finding]:
        """Check the lake, then table by table, root first."""
        findings = list(self._check_format())
        tables: dict[str, _Opened] = {}
        for spec in reversed(all_specs()):
            self.progress(f"open the tables: {spec.namespace}")
            tables[spec.namespace] = self._open(spec, findings)
        for spec in all_specs():
            findings += self._check_table(spec, tables[spec.namespace])
        for name in unregistered_tables(self.store):
            words = "the payload type of this table is not registered here, so nothing of it was looked at"
            findings.append(found("table-unregistered", name, name, words))
        self.progress("look at kept snapshots and the archive")
        listed = {o.key for opened in tables.values() for o in opened.objects}
        findings += check_kept(self.store, listed, self.checked)
        findings += check_erasures(self.store)
        for spec in all_specs():
            findings += check_archive(self.store, spec.namespace, tables[spec.namespace].log)
        return findings

    def _check_format(self) -> Iterator[Finding]:
        try:
            require_format(self.store)
        except StorageError as error:
            refuse_unanswered(error)
            yield found("lake-format-damaged", None, FORMAT_KEY, str(error))

    def _open(self, spec: TableSpec, findings: list[Finding]) -> _Opened:
        objects = tuple(self.store.list_objects(spec.namespace))
        log, newest = to_log_files(objects), None
        try:
            newest = Table(self.store, spec).listed_snapshot()
        except VxDataError as error:
            refuse_unanswered(error)
            findings.append(found("log-unreadable", spec.namespace, f"{spec.namespace}/{LOG_FOLDER}", str(error)))
        if newest is not None and newest.version == NO_TABLE:
            newest = None
            if any(f"/{LOG_FOLDER}/" in o.key for o in objects):
                words = "there are files of a log, but no table can be read from them"
                findings.append(found("log-unreadable", spec.namespace, f"{spec.namespace}/{LOG_FOLDER}", words))
        return _Opened(objects, log, newest)

    def _check_table(self, spec: TableSpec, opened: _Opened) -> Iterator[Finding]:
        if not any(f"/{LOG_FOLDER}/" in o.key for o in opened.objects):
            self._remember(spec, None)
            return
        self.progress(f"check {spec.namespace}: its log")
        self.checked.update({"tables": 1, "log_entries": len(opened.log.entries)})
        yield from check_log(self.store, spec.namespace, opened.log, opened.newest)
        if opened.newest is None:
            self.unsure.add(spec.type_name)
            self._remember(spec, None)
            return
        good: list[str] = []
        yield from self._check_files(opened.newest, opened.objects, good)
        yield from self._check_rows(opened.newest, good)
        yield from self._orphaned_files(opened)

    def _check_files(self, newest: Snapshot, objects: Iterable[StoredObject], good: list[str]) -> Iterator[Finding]:
        """Check each file; those that can be read are appended to `good`."""
        self.progress(f"check {newest.spec.namespace}: its files, {newest.files.height:,}")
        self.checked.update({"files": newest.files.height, "bytes": int(newest.files["size"].sum())})
        for checked in check_files(newest, {o.key: o.size for o in objects}):
            yield from checked.findings
            if checked.is_readable:
                good.append(checked.key)

    def _check_rows(self, newest: Snapshot, good: list[str]) -> Iterator[Finding]:
        spec, is_sure = newest.spec, len(good) == newest.files.height
        self.progress(f"check {spec.namespace}: its rows")
        try:
            rows = read_rows(newest, newest.files.filter(pl.col("key").is_in(good)))
        except StorageError as error:
            refuse_unanswered(error)
            yield found("file-unreadable", spec.namespace, spec.namespace, str(error))
            self.unsure.add(spec.type_name)
            self._remember(spec, None)
            return
        self.checked["rows"] += rows.height
        yield from check_rows(spec, rows, is_sure=is_sure)
        if not is_sure:
            self.unsure.add(spec.type_name)
        current = current_rows(rows)
        yield from self._check_parents(newest, current)
        self._remember(spec, current)

    def _remember(self, spec: TableSpec, current: pl.DataFrame | None) -> None:
        """Keep what the tables of child types need to know."""
        if child_specs(spec.type_name):
            nothing = pl.DataFrame(schema={"identifier": pl.String(), "line": pl.UInt64()})
            self.live[spec.type_name] = nothing if current is None else current.select("identifier", "line")

    def _check_parents(self, newest: Snapshot, current: pl.DataFrame) -> Iterator[Finding]:
        spec, parent_types = newest.spec, newest.spec.payload.parent_types
        live = self.live | {spec.type_name: current.select("identifier", "line")}
        orphans = find_orphans(spec, current, {name: live[name] for name in parent_types})
        if orphans.is_empty():
            return
        is_sure = not {spec.type_name, *parent_types} & self.unsure
        lost = self._still_orphans(newest, orphans.filter("is_absent"))
        yield from found_each("orphaned-resource", spec.namespace, lost, "its parent is not live", is_sure=is_sure)
        moved = self._still_astray(newest, orphans.filter(~pl.col("is_absent")))
        words = "its ancestors are not its parent's and the parent"
        yield from found_each("lineage-wrong", spec.namespace, moved, words, is_sure=is_sure)

    def _still_orphans(self, newest: Snapshot, absent: pl.DataFrame) -> pl.Series:
        """Return those whose parent is not live in the newest state either, and that are live in it themselves."""
        if absent.is_empty() or self.unsure:
            return absent["identifier"]
        view = _Newest(self.store)
        live = read_lineages(view, absent["parent_identifier"].unique())["identifier"]
        left = absent.filter(~pl.col("parent_identifier").is_in(live.implode()))["identifier"]
        return read_current(view.snapshot(newest.spec), left)["identifier"].sort()

    def _still_astray(self, newest: Snapshot, moved: pl.DataFrame) -> pl.Series:
        """Return those that are live in the newest state, too, with another lineage than their parent's of then."""
        if moved.is_empty() or self.unsure:
            return moved["identifier"].sort()
        view = _Newest(self.store)
        current = read_current(view.snapshot(newest.spec), moved["identifier"])  # children first: parents are newer
        lines = read_lineages(view, current["parent_identifier"].drop_nulls().unique())
        due = lines.select(parent_identifier="identifier", line=pl.concat_list("ancestors", "identifier"))
        both = current.join(due, on="parent_identifier")  # else a writer under way has taken the parent away
        return both.filter(pl.col("line") != pl.col("ancestors"))["identifier"].sort()

    def _orphaned_files(self, opened: _Opened) -> Iterator[Finding]:
        assert opened.newest is not None, "only called for a table that can be read"
        folder = Folder(opened.newest.spec.namespace, opened.objects, True)
        cutoff = self.patience.now() - DEFAULT_RETENTION
        try:
            kept = needed_files(folder, opened.newest, cutoff)
        except StorageError as error:
            refuse_unanswered(error)
            return  # a damaged entry, reported by the check of the log if it matters
        old = [str(row[1]) for row in plan_vacuum(folder, kept, cutoff)]
        yield from found_each("file-orphaned", folder.name, old, "no state of the last seven days has it")
