"""The one commit primitive: how rows get into a table's log.

A commit adds data files, and takes files out, at exactly one base version. On *any* exception the log is read from the
base version on, in this order:

    (a) one of the new entries is our own: it landed and only the answer was lost. Done.
    (b) the plan's premises do not hold any more: plan again on the new state.
    (c) a file that the commit takes out is not live any more: drop the work and plan again.
    (d) otherwise put the same data files, written once, at the new version.

An entry since the base that is missing or damaged means plan again, never (d). The loop is a generator that stops
between its steps, so that a test can interleave writers by hand; `commit` runs it to its end.

Source: design of record, section 5 (one commit primitive).
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN
from vxdata.errors import CommitUnknownError, ConflictError, StorageError, VxDataError
from vxdata.lake.datafile import DataFile, write_data_files, write_parts
from vxdata.lake.faults import is_lower_layer, to_storage_error
from vxdata.lake.intent import Patience, Plan, Planner, Premises, Rewrite, Rewriter, Stamp
from vxdata.lake.log import LogEntry, read_entry, refuse_damaged
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.table import Table
from vxdata.lake.token import UnknownCommit

_SPILLED_WRITERS = 2  # each holds a file's rows twice; who spills is short of memory
_LOST_RACE_SECONDS = 0.1  # somebody made progress: who waits longer than the others starves
_NO_ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Committed:
    """The end of a commit: its version (None if there was nothing to write) and its plan."""

    version: int | None
    plan: Plan


@dataclass(frozen=True)
class Rewritten:
    """A rewrite that landed, and the version that it made."""

    version: int
    rewrite: Rewrite


class Step(Enum):
    """Where the commit loop stops between its steps."""

    PLANNED = auto()
    WRITTEN = auto()
    FAILED = auto()


class _Verdict(Enum):
    """What the log says after a PUT that raised."""

    LANDED = auto()
    REPLAN = auto()
    PUT_AGAIN = auto()
    STILL_FREE = auto()


@dataclass(frozen=True)
class _Finding:
    """A verdict, the newest snapshot, and the version of our own entry if it landed."""

    verdict: _Verdict
    newest: Snapshot
    version: int | None = None


Ended = TypeVar("Ended")


def commit(table: Table, planner: Planner, stamp: Stamp, patience: Patience) -> Committed:
    """Plan and commit rows to one table; see `commit_steps`."""
    return _run(commit_steps(table, planner, stamp, patience))


def rewrite(table: Table, rewriter: Rewriter, stamp: Stamp, patience: Patience) -> Rewritten | None:
    """Put files in the place of others of one table; see `rewrite_steps`."""
    return _run(rewrite_steps(table, rewriter, stamp, patience))


def _run(steps: Generator[Step, None, Ended]) -> Ended:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def commit_steps(table: Table, planner: Planner, stamp: Stamp, patience: Patience) -> Generator[Step, None, Committed]:
    """Plan and commit rows to one table, stopping between the steps.

    Args:
        table: the table.
        planner: computes the rows on a base snapshot; called again when its premises broke. It raises
            `ConflictError`, `AlreadyExistsError` or `NotFoundError` where the new state forbids the operation.
        stamp: the commit's metadata.
        patience: deadline and clocks.

    Raises:
        ConflictError: other writers were first until the deadline; nothing was written.
        CommitUnknownError: the store gave no answer until the deadline.
        StorageError: the store refused; nothing was written.
    """
    deadline: float | None = None  # counts from the first PUT: to plan and write much takes long
    base = table.ensure()
    while True:
        plan = planner(base)
        yield Step.PLANNED
        if plan.is_empty and not plan.app_ids:
            return Committed(None, plan)
        files = _write_rows(table, plan)
        yield Step.WRITTEN
        deadline = patience.monotonic() + patience.deadline_seconds if deadline is None else deadline
        metadata = stamp.metadata(plan.counts)
        put = _Put(table, stamp.commit_id, files, (), metadata, patience, deadline, plan.app_ids)
        landed = yield from put.steps(base, plan.premises)
        if landed is not None:
            return Committed(landed, plan)
        base = table.ensure()


def _write_rows(table: Table, plan: Plan) -> list[DataFile]:
    if plan.spilled is None:
        return write_data_files(table.store, table.spec.namespace, plan.rows)
    return write_parts(table.store, table.spec.namespace, plan.spilled.parts(), _SPILLED_WRITERS)


def rewrite_steps(
    table: Table, rewriter: Rewriter, stamp: Stamp, patience: Patience
) -> Generator[Step, None, Rewritten | None]:
    """Put files in the place of others of one table, stopping between the steps.

    Args:
        table: the table.
        rewriter: writes the new files on a base snapshot; called again when other writers broke its premises or took
            its files, and the files that it wrote before are left to vacuum.
        stamp: the commit's metadata.
        patience: deadline and clocks; the deadline counts from the first PUT of each try, because writing takes long.

    Returns:
        What landed; None if there was nothing to rewrite.

    Raises:
        CommitUnknownError: the store gave no answer until the deadline.
        ConflictError: other writers were first until the deadline; nothing was changed.
        StorageError: the store refused; nothing was changed.
    """
    while True:
        base = table.snapshot()
        work = rewriter(base)
        yield Step.PLANNED
        if work is None:
            return None
        yield Step.WRITTEN
        deadline = patience.monotonic() + patience.deadline_seconds
        removed = [{**row, "deleted_at": int(patience.now().timestamp() * 1000)} for row in _keys(work.removed)]
        put = _Put(table, stamp.commit_id, work.added, removed, stamp.metadata(work.counts), patience, deadline)
        landed = yield from put.steps(base, work.premises)
        if landed is not None:
            return Rewritten(landed, work)


def _keys(files: pl.DataFrame) -> list[dict[str, Any]]:
    return files.select("key", "size", PARTITION_COLUMN).to_dicts()


@dataclass
class _Put:
    """The inner loop: the same data files, put at one version after another until the log settles it."""

    table: Table
    commit_id: str
    files: Sequence[DataFile]
    removed: Sequence[Mapping[str, Any]]
    metadata: Mapping[str, Any]
    patience: Patience
    deadline: float
    app_ids: tuple[str, ...] = ()

    def steps(self, base: Snapshot, premises: Premises) -> Generator[Step, None, int | None]:
        """Return the version that landed; None if the operation has to be planned again."""
        tries, may_be_under_way = 0, False
        while True:
            if self.patience.monotonic() > self.deadline:
                raise self._out_of_time(base, may_be_under_way)
            try:
                self.table.put_commit(base, self.files, self.removed, self.metadata, self.app_ids)
                return base.version + 1
            except BaseException as raised:  # any of them can come from a commit that landed: the log decides
                if not (isinstance(raised, StorageError) or is_lower_layer(raised)):
                    raise
                error = raised
            yield Step.FAILED
            found = self._read_log(base, premises)
            match found.verdict:
                case _Verdict.LANDED:
                    return found.version
                case _Verdict.REPLAN:
                    return None
                case _Verdict.PUT_AGAIN:
                    base, may_be_under_way, most_wait = found.newest, False, _LOST_RACE_SECONDS
                case _Verdict.STILL_FREE:
                    self._refuse_permanent(error, may_be_under_way)
                    may_be_under_way, most_wait = True, _NO_ANSWER_SECONDS
            tries += 1
            self.patience.wait(tries, most_wait)

    def _read_log(self, base: Snapshot, premises: Premises) -> "_Finding":
        """Apply (a) to (d) to the entries since the base; a log that cannot be read settles nothing."""
        try:
            newest = self.table.listed_snapshot()
            versions = range(base.version + 1, newest.version + 1)
            read = [read_entry(self.table.store, self.table.spec.namespace, v) for v in versions]
            entries = [entry for entry in read if entry is not None]
            own = next((entry.version for entry in entries if entry.commit_id == self.commit_id), None)
            if own is not None:
                return _Finding(_Verdict.LANDED, newest, own)
            if newest.version == base.version:
                return _Finding(_Verdict.STILL_FREE, newest)
            is_known = len(entries) == len(versions) and all(entry.is_as_written for entry in entries)
            if not is_known or self._is_stale(newest, entries, premises):
                return _Finding(_Verdict.REPLAN, newest)
            return _Finding(_Verdict.PUT_AGAIN, newest)
        except StorageError:
            return _Finding(_Verdict.STILL_FREE, base)

    def _is_stale(self, newest: Snapshot, entries: Sequence[LogEntry], premises: Premises) -> bool:
        """Whether (b) or (c) forbids to put the same files again."""
        live = set(newest.files["key"])
        if any(e.changes_table for e in entries) or not all(f["key"] in live for f in self.removed):
            return True
        if any(app_id in e.app_ids for e in entries for app_id in self.app_ids):
            return True  # the same batch, from another process
        changing = [e for e in entries if not e.moves_rows_only]
        if any(e.removed for e in changing):
            return True  # an erasure
        added = {key for e in changing for key in e.added}
        return bool(added) and not premises.is_empty and _breaks(newest, added, premises)

    def _refuse_permanent(self, error: BaseException, may_be_under_way: bool) -> None:
        """Fail at once where trying again cannot help, unless an earlier try may still land."""
        fault = (
            error
            if isinstance(error, StorageError)
            else to_storage_error(error, uri=self.table.uri, operation="commit to")
        )
        if not fault.retryable and not may_be_under_way:
            raise fault from error

    def _out_of_time(self, base: Snapshot, may_be_under_way: bool) -> VxDataError:
        if not may_be_under_way:
            return ConflictError(
                f"{self.table.spec.namespace}: other writers were first for {self.patience.deadline_seconds:.0f} s. "
                "Nothing was written; try again, and write more rows in fewer commits."
            )
        token = UnknownCommit(self.table.spec.namespace, base.version + 1, self.commit_id).to_text()
        return CommitUnknownError(
            f"{self.table.spec.namespace}: the store at {self.table.uri} gave no answer for "
            f"{self.patience.deadline_seconds:.0f} s, so it is unknown whether the commit landed. "
            f"client.resolve({token!r}) finds out for good.",
            token,
        )


def _breaks(newest: Snapshot, added: set[str], premises: Premises) -> bool:
    """Whether rows of newly added files touch what a plan relied on."""
    files = newest.files.filter(pl.col("key").is_in(list(added)))
    if files.height < len(added):
        return True  # one was rewritten since: look again on the new state
    rows = newest.collect(newest.rows_of(files).select("identifier", "parent_identifier"))
    return premises.are_broken_by(rows)


def resolve(table: Table, token: UnknownCommit, stamp: Stamp) -> int | None:
    """Find out for good whether a commit of unknown outcome landed.

    Its version, if still free, is occupied with an empty commit first: then "not landed" is final.

    Args:
        table: the token's table.
        token: from `CommitUnknownError`.
        stamp: the metadata of the empty commit.

    Returns:
        The version that landed; None if the commit did not and never will.

    Raises:
        StorageError: the store gives no answer still, or the log was trimmed since.
    """
    from vxdata.lake.archive import find_archived

    while True:
        base = table.snapshot()
        if base.version >= token.version:
            entry = read_entry(table.store, table.spec.namespace, token.version)
            if entry is None:
                return find_archived(table, token.commit_id)
            if entry.commit_id == token.commit_id:
                return token.version
            refuse_damaged(entry, f"{table.uri}: version {token.version}")
            return None
        if base.version < token.version - 1:
            raise StorageError(
                "the log ends before the commit's base version.",
                uri=table.uri,
                operation="resolve a commit of",
                retryable=False,
            )
        try:
            table.put_commit(
                base, (), (), {"commit_id": stamp.commit_id, "operation": "resolve", "author": stamp.author}
            )
        except BaseException as error:
            if not (isinstance(error, StorageError) or is_lower_layer(error)):
                raise
            if table.snapshot().version == base.version:
                raise to_storage_error(error, uri=table.uri, operation="resolve a commit of") from error
