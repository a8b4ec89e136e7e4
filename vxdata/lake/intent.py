"""What the commit primitive is told: rows or files with their premises, who and why, how long it may try. Values alone.

Source: design of record, section 5 (one commit primitive).
"""

import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from vxdata.lake.datafile import DataFile
from vxdata.lake.scratch import read_kept
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.spilled import SpilledRows

DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Patience:
    """How long a commit tries, and by which clocks.

    Attributes:
        deadline_seconds: no PUT starts later than this after the first try.
        grace_seconds: how long a PUT may take that starts at the deadline, tries again included.
        now: the clock that `valid_from` comes from, UTC.
        monotonic: the clock of the deadline, seconds.
        sleep: waits for some seconds.
    """

    deadline_seconds: float = DEADLINE_SECONDS
    grace_seconds: float = 61.0
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


Planner = Callable[[Snapshot], Plan]
Rewriter = Callable[[Snapshot], Rewrite | None]
"""Writes the new files on a base snapshot; None if nothing is to be rewritten."""
