"""The one commit primitive: how rows get into a table's log.

A commit adds data files, and takes files out, at exactly one base version. On *any* exception the log is read from the
base version on, in this order:

    (a) one of the new entries is our own: it landed and only the answer was lost. Done.
    (b) the plan's premises do not hold any more: plan again on the new state.
    (c) a file that the commit takes out is not live any more: drop the work and plan again.
    (d) otherwise put the same data files, written once, at the new version.

An entry since the base that is missing means plan again, never (d). The loop is a generator that stops between its
steps, so that a test can interleave writers by hand; `commit` runs it to its end.

Source: design of record, section 5 (one commit primitive).
"""

import random
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any, TypeVar

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN
from vxdata.errors import CommitUnknownError, ConflictError, StorageError, VxDataError
from vxdata.lake.datafile import DataFile, write_data_files, write_parts
from vxdata.lake.faults import is_lower_layer, to_storage_error
from vxdata.lake.log import LogEntry, read_entry
from vxdata.lake.scratch import read_kept
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.spilled import SpilledRows
from vxdata.lake.table import Table
from vxdata.lake.token import UnknownCommit

DEADLINE_SECONDS = 60.0
_SPILLED_WRITERS = 2  # each holds a file's rows twice; who spills is short of memory
_LOST_RACE_SECONDS = 0.1  # somebody made progress: who waits longer than the others starves
_NO_ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Patience:
    """How long a commit tries, and by which clocks.

    Attributes:
        deadline_seconds: no PUT starts later than this after the first try.
        grace_seconds: how long a PUT may take that starts at the deadline.
        now: the clock that `valid_from` comes from, UTC.
        monotonic: the clock of the deadline, seconds.
        sleep: waits for some seconds.
    """

    deadline_seconds: float = DEADLINE_SECONDS
    grace_seconds: float = 30.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @property
    def settled_after(self) -> timedelta:
        """How long after a moment no writer can commit any more that had begun to commit by then."""
        return timedelta(seconds=self.deadline_seconds + self.grace_seconds)

    def wait(self, tries: int, most_seconds: float) -> None:
        """Wait a little, with jitter, longer after each try up to a limit."""
        self.sleep(random.uniform(0, min(most_seconds, 0.02 * 2 ** min(tries, 10))))  # noqa: S311  # jitter, no secret


@dataclass(frozen=True)
class Premises:
    """What must still be true for a plan's rows to be right.

    Attributes:
        identifiers: whose state in this table the plan read: what it writes, and parents in the same table.
        childless: what the plan closes, so that no new child in this table may name it as its parent.
        kept: further identifiers, in files of this machine: there may be more than fit into memory.
    """

    identifiers: pl.Series
    childless: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.String))
    kept: pl.LazyFrame | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing that others append can break them."""
        return self.identifiers.is_empty() and self.childless.is_empty() and self.kept is None

    def are_broken_by(self, rows: pl.DataFrame) -> bool:
        """Whether rows that others appended (identifier, parent_identifier) break them."""
        names = rows["identifier"].unique()
        touched = names.is_in(self.identifiers.implode()).any()
        if touched or rows["parent_identifier"].is_in(self.childless.implode()).any():
            return True
        found = None if self.kept is None else self.kept.filter(pl.col("identifier").is_in(names.implode())).head(1)
        return found is not None and read_kept(found).height > 0


@dataclass(frozen=True)
class Plan:
    """The rows that an operation appends to one table, computed on one base version.

    Attributes:
        rows: physical rows; none if the operation changes nothing, or if they are spilled.
        premises: what must still be true when they are committed.
        report: whatever the operation tells its caller.
        app_ids: the parts of a batch that the commit completes; none of them may be committed yet, and they are
            remembered even if there are no rows.
        spilled: the rows, where they exceed memory.
    """

    rows: pl.DataFrame
    premises: Premises
    report: Any = None
    app_ids: tuple[str, ...] = ()
    spilled: SpilledRows | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows to append."""
        return self.rows.is_empty() and (self.spilled is None or self.spilled.is_empty)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many resources the rows create, update and delete."""
        return counts_of(self.rows) if self.spilled is None else self.spilled.counts


@dataclass(frozen=True)
class Stamp:
    """Who commits what and why; it stands in each log entry of the operation, and is the audit log.

    Attributes:
        operation: create, update, delete, upsert, ...
        author: a person or a job.
        reason: free text, or None.
        commit_id: the operation's id, shared by its commits in all tables.
        batch_id: the caller's own id of what is written; see `batch`.
        undoes: the id of the commit that this operation undoes.
    """

    operation: str
    author: str
    reason: str | None = None
    commit_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    batch_id: str | None = None
    undoes: str | None = None

    def metadata(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """Return the commit metadata."""
        from vxdata import __version__

        return {
            "commit_id": self.commit_id,
            "operation": self.operation,
            "author": self.author,
            "reason": self.reason,
            "counts": dict(counts),
            "batch_id": self.batch_id,
            "undoes": self.undoes,
            "vxdata_version": __version__,
        }


def counts_of(rows: pl.DataFrame) -> dict[str, int]:
    """Return how many resources appended rows create, update and delete."""
    deleted = int(rows["is_deleted"].sum())
    superseding = rows["closes"].count()
    return {"created": rows.height - superseding, "updated": superseding - deleted, "deleted": deleted}


@dataclass(frozen=True)
class Committed:
    """The end of a commit: its version (None if there was nothing to write) and its plan."""

    version: int | None
    plan: Plan


NO_PREMISES = Premises(pl.Series(dtype=pl.String))


@dataclass(frozen=True)
class Rewrite:
    """Files that take the place of others of the same table, already written, computed on one base version.

    Attributes:
        added: the new files.
        removed: the rows of the base's files that they stand for.
        counts: what the audit log says of it.
        premises: what must still be true; a compaction has none but that its files are still live.
        report: whatever the operation tells its caller.
    """

    added: Sequence[DataFile]
    removed: pl.DataFrame
    counts: Mapping[str, int]
    premises: Premises = NO_PREMISES
    report: Any = None


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


Planner = Callable[[Snapshot], Plan]
Rewriter = Callable[[Snapshot], Rewrite | None]
"""Writes the new files on a base snapshot; None if nothing is to be rewritten."""

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
            if len(entries) < len(versions) or self._is_stale(newest, entries, premises):
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
            return token.version if entry.commit_id == token.commit_id else None
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
