"""Erasure: every version of a resource and of its descendants leaves the lake, its past included.

In this order, so that a kill at any instant is mended by running it again:

    0  a log that is damaged is refused: what could tell of the damage is removed below
    1  a record is put: when, why, who, a salted hash of the identifier, no personal data
    2  every table that holds such rows gets a commit that replaces their files, root first; a writer of such rows that
       is under way finds its premises broken and plans again, on a state without them
    3  writers that planned before, in other tables, may still commit until their deadline: wait for it, look again
    4  what still tells of the rows is made to forget them (`forget`): checkpoints, statistics of superseded files in
       the log, the archive of commits, kept snapshots that need their files; who keeps one meanwhile is told that
       these are about to go (`doomed`)
    5  the superseded and uncommitted files that hold such rows are deleted, last, because they say what there was; with
       them what killed writers left half written
    6  all that is left is looked through (`remains`), and the record says that it is done

Source: design of record, sections 5 (b: an erasure changes premises; the log) and 8.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import polars as pl

from vxdata.catalog.table import TableSpec, table_spec
from vxdata.errors import InvalidInputError, NotFoundError, StorageError
from vxdata.lake.commit import rewrite
from vxdata.lake.datafile import DataFile, checked_files, write_data_files
from vxdata.lake.doomed import announced
from vxdata.lake.erasure_record import Record, begin_record, find_record, finish_record
from vxdata.lake.faults import translated
from vxdata.lake.forget import forget, kept_of, named_by_log
from vxdata.lake.intent import Premises, Rewrite, Stamp
from vxdata.lake.lake import Lake
from vxdata.lake.remains import UNREADABLE, find_remains, handed_on
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.soundness import refuse_damaged_logs
from vxdata.lake.store import StoredObject
from vxdata.lake.temporary import temporary_files
from vxdata.lake.traces import TableTraces, Traces, find_in_table, find_traces, is_of, list_columns, points_to
from vxdata.lake.unregistered import refuse_unregistered
from vxdata.schemas.identifiers import type_of
from vxdata.schemas.registry import registry

Progress = Callable[[str], None]
"""Told what is being done from now on."""


@dataclass(frozen=True)
class Erasure:
    """What an erasure removed, or would remove.

    Attributes:
        tables: namespace, resources, versions, rows, live_files, old_files (superseded and uncommitted).
        kept_snapshots: names of kept snapshots that do not open any more.
        pointing: namespace, identifier: resources that stay and point there; they lose the reference, in all versions.
        blobs: addresses of blobs of the erased resources; they are not deleted.
        out_of_reach: what an erasure does not reach, in words.
        left: what still tells of the resource after it, in words, and what to do; empty if nothing does.
        is_dry_run: whether nothing was changed.
        record_id: the record of the erasure, `_vxdata/erasures/<id>.json`; None in a dry run.
    """

    tables: pl.DataFrame
    kept_snapshots: tuple[str, ...]
    pointing: pl.DataFrame
    blobs: tuple[str, ...]
    out_of_reach: tuple[str, ...]
    is_dry_run: bool
    left: tuple[str, ...] = ()
    record_id: str | None = None


def plan_erasure(lake: Lake, identifier: str) -> Erasure:
    """Say what an erasure would remove; nothing is changed.

    Raises:
        NotFoundError: no lake is here, or nothing in it tells of the resource.
        InvalidInputError: there is a table whose type is not registered here.
    """
    lake.prepare_write(needs_lake=True)
    refuse_damaged_logs(lake)
    traces = _find(lake, identifier)
    if traces.is_empty and find_record(lake.store, identifier) is None:
        raise NotFoundError(f"{identifier!r}: no file of the lake tells of it.")
    return _described(lake, traces, is_dry_run=True)


def erase(lake: Lake, identifier: str, stamp: Stamp, progress: Progress = lambda _: None) -> Erasure:
    """Erase a resource and all its descendants; see the module.

    Args:
        lake: the lake.
        identifier: the resource.
        stamp: who and why; the reason is kept.
        progress: told what is being done.

    Raises:
        NotFoundError: no lake is here, or nothing in it tells of the resource.
        InvalidInputError: the reason names the resource, and would be kept; or there is a table whose type is not
            registered here, which nobody could look through.
        ConflictError, CommitUnknownError, StorageError: it stopped on the way; run it again.
    """
    _refuse_telling_reason(identifier, stamp.reason)
    lake.prepare_write(needs_lake=True)
    progress("look through all files")
    refuse_damaged_logs(lake)
    traces = _find(lake, identifier)
    record = find_record(lake.store, identifier)
    if traces.is_empty and record is None:
        raise NotFoundError(f"{identifier!r}: no file of the lake tells of it.")
    planned = _described(lake, traces, is_dry_run=False)
    if record is not None and record.is_done and traces.is_empty:
        return replace(planned, left=_look_again(lake, record, traces, progress), record_id=record.record_id)
    lake.begin_write()
    is_first_run = record is None or record.is_done
    if record is None or record.is_done:
        record = begin_record(lake.store, identifier, stamp, lake)
    known = traces
    while traces.is_live or not record.is_settled:
        for table in traces.tables:
            if table.live:
                progress(f"take rows out of {table.spec.namespace}")
                _take_out(lake, table.spec, traces, stamp)
        record = _settle(lake, record, progress)
        traces = _find(lake, identifier)
        known = _together(known, traces)
    going = (f"{table.spec.namespace}/{key}" for table in known.tables for key in table.doomed)
    with announced(lake.store, going):  # so that nobody keeps a state of them from now on
        progress("make the log forget")
        forget(lake, known, is_first_run=is_first_run)
        _delete_files(lake, identifier, progress)
    progress("look through all that is left")
    remains = find_remains(lake, known, _find(lake, identifier))
    counts = {name: int(planned.tables[name].sum()) for name in ("resources", "versions", "rows")}
    finish_record(lake.store, record, counts, remains)
    return replace(planned, left=remains, record_id=record.record_id)


def _look_again(lake: Lake, record: Record, traces: Traces, progress: Progress) -> tuple[str, ...]:
    """Look anew for what is left of an erasure that is done, and take away what can be: a person may have mended it."""

    def look() -> tuple[str, ...]:
        progress("look through all that is left")
        return find_remains(lake, traces, _find(lake, traces.identifier))

    remains = look()
    if remains or record.left:
        lake.begin_write()
        progress("make the log forget")
        forget(lake, traces, is_first_run=False)
        _delete_files(lake, traces.identifier, progress)
        remains = look()
    left = (*remains, *handed_on(lake.store, record.left))
    if left != record.left:
        finish_record(lake.store, record, record.counts or {}, left)
    return left


def _find(lake: Lake, identifier: str) -> Traces:
    refuse_unregistered(lake.store, f"erase {identifier!r}")  # each time: such a table may be made meanwhile
    return find_traces(lake, table_spec(registry().of_type(type_of(identifier))), identifier)


def _together(one: Traces, other: Traces) -> Traces:
    """Return what two looks found, for what has to be forgotten."""
    before = {table.spec: table for table in one.tables}
    return replace(other, tables=tuple(_joined(before.get(table.spec, table), table) for table in other.tables))


def _joined(one: TableTraces, other: TableTraces) -> TableTraces:
    dead = {found.key: found for found in (*one.dead, *other.dead)}
    both = {name: (one.values.get(name), other.values.get(name)) for name in {**one.values, **other.values}}
    return replace(
        other,
        dead=tuple(dead.values()),
        identifiers=one.identifiers | other.identifiers,
        staying=one.staying | other.staying,
        values={name: pl.concat(v for v in values if v is not None) for name, values in both.items()},
    )


def _refuse_telling_reason(identifier: str, reason: str | None) -> None:
    if reason is not None and identifier in reason:
        raise InvalidInputError(
            "the reason is kept for ever, so it must not name the resource; write, for example, 'consent withdrawn'."
        )


# -- 2: taking rows out


def _take_out(lake: Lake, spec: TableSpec, traces: Traces, stamp: Stamp) -> None:
    def take_out(base: Snapshot) -> Rewrite | None:
        table = find_in_table(base, traces.identifier, traces.identifiers)
        files = base.files.filter(pl.col("key").is_in(list(table.live)))
        if files.is_empty():
            return None
        names = (traces.identifiers | table.gone) - table.staying
        added = [new for key in files["key"] for new in _rewritten(base, key, traces.identifier, names)]
        touched = pl.Series(sorted(names | table.identifiers), dtype=pl.String)
        return Rewrite(added, files, {"erased": table.rows}, Premises(touched, childless=touched))

    rewrite(lake.table(spec), take_out, stamp, lake.patience)


def _rewritten(base: Snapshot, key: str, identifier: str, names: frozenset[str]) -> list[DataFile]:
    """Write the rows of a file that stay, without what points to those that do not; none if none stays."""
    with checked_files(base.store, base.spec.namespace) as checked, translated(base.store.uri, "erase from"):
        rows = base.rows_of(base.files.filter(pl.col("key") == key), root=checked.root([key])).filter(
            ~is_of(identifier)
        )
        cleaned = rows.with_columns(_without(name, names) for name in list_columns(base))
        staying = cleaned.select(list(base.columns)).collect()
    return write_data_files(base.store, base.spec.namespace, staying)


def _without(name: str, names: frozenset[str]) -> pl.Expr:
    """Return a list column without some elements; lists that hold none of them stay as they are."""
    erased = pl.Series(sorted(names), dtype=pl.String).implode()
    kept = pl.col(name).list.eval(pl.element().filter(~pl.element().is_in(erased).fill_null(False)))
    return pl.when(points_to([name], names)).then(kept).otherwise(pl.col(name)).alias(name)


# -- 3: writers that were under way


def _settle(lake: Lake, record: Record, progress: Progress) -> Record:
    """Wait until no writer can commit any more that planned before the rows were taken out."""
    if not record.is_settled:
        wait = lake.patience.settled_after.total_seconds()
        progress(f"wait {wait:.0f} s for writers that were under way")
        lake.patience.sleep(wait)
    return replace(record, is_settled=True)


# -- 5: deleting files


def _delete_files(lake: Lake, identifier: str, progress: Progress) -> None:
    """Delete the superseded and the uncommitted files that hold rows, and what killed writers left half written.

    Of the latter nobody knows what it holds. What is young may still be committed: it is waited for.
    """
    half_written = {found.key for found in temporary_files(lake.store)}
    while True:
        traces = _find(lake, identifier)
        if traces.is_live:
            raise StorageError(
                "rows of the resource came back while they were erased; run it again.",
                uri=lake.store.uri, operation="erase from", retryable=True,
            )  # fmt: skip
        waiting = [found for table in traces.tables for found in _undeleted(lake, table)]
        temporary = (found for found in temporary_files(lake.store) if found.key in half_written)
        waiting += _without_old(lake, temporary)
        if not waiting:
            return
        progress(f"wait for writers that may still commit {len(waiting)} files")
        _wait_for(lake, waiting)


def _undeleted(lake: Lake, table: TableTraces) -> Iterator[StoredObject]:
    """Delete the files of one table that no writer can commit any more, and return the others."""
    namespace = table.spec.namespace
    done = {f"{namespace}/{key}" for key in named_by_log(lake.store, namespace)} if table.dead else set()
    for found in table.dead:
        if found.key in done:
            lake.store.delete(found.key)
    yield from _without_old(lake, (found for found in table.dead if found.key not in done))


def _without_old(lake: Lake, files: Iterable[StoredObject]) -> Iterator[StoredObject]:
    """Delete the files that no writer can commit any more by their age, and return the others."""
    for found in files:
        if _is_old(lake, found):
            lake.store.delete(found.key)
        else:
            yield found


def _is_old(lake: Lake, found: StoredObject) -> bool:
    return lake.patience.now() - found.modified > lake.patience.settled_after


def _wait_for(lake: Lake, files: Iterable[StoredObject]) -> None:
    """Wait until each file is old or gone, the youngest first: once it is old, all are."""
    for found in sorted(files, key=lambda found: found.modified, reverse=True):
        while not _is_old(lake, found) and lake.store.exists(found.key):
            lake.patience.sleep(1.0)


# -- the report


def _described(lake: Lake, traces: Traces, *, is_dry_run: bool) -> Erasure:
    held = [table for table in traces.tables if table.doomed]
    rows = [(t.spec.namespace, len(t.identifiers), t.versions, t.rows, len(t.live), len(t.dead)) for t in held]
    schema = {"namespace": pl.String(), **dict.fromkeys(("resources", "versions", "rows"), pl.Int64())}
    schema |= dict.fromkeys(("live_files", "old_files"), pl.Int64())
    pointing = [(t.spec.namespace, name) for t in held for name in t.pointing]
    return Erasure(
        pl.DataFrame(rows, schema=schema, orient="row"),
        kept_of(lake.store, traces),
        pl.DataFrame(pointing, schema={"namespace": pl.String(), "identifier": pl.String()}, orient="row"),
        tuple(sorted({address for t in held for address in t.blobs})),
        _out_of_reach(lake, traces),
        is_dry_run,
    )


def _out_of_reach(lake: Lake, traces: Traces) -> tuple[str, ...]:
    words = []
    if lake.store.keeps_old_objects():
        words.append(
            "the bucket keeps old versions of its objects: those of the erased files stay until its own rules, or its "
            "administrator, remove them"
        )
    if type_of(traces.identifier) == "datasource":
        words.append("the datasource's name stands in the paths of its old files, in the log, until it is trimmed")
    if any(table.blobs for table in traces.tables):
        words.append("blobs are listed, not deleted")
    return (*words, *(f"{key}: {UNREADABLE}" for table in traces.tables for key in table.unreadable))
