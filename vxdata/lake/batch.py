"""Batches: what is written under an id of the caller's is written once, however often its job is started.

A commit of a batch notes its id as a Delta transaction in the same log entry as its rows, so that there is no instant
at which one is there without the other. Checkpoints keep transactions, and so does the trimming of the log. A batch has
two parts in each table, its changes and its closings, because children are closed before parents.

Source: design of record, section 5 (a batch id is a Delta `txn` action); Delta protocol, "Transaction Identifiers".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vxdata.catalog.table import TableSpec
from vxdata.errors import InvalidInputError
from vxdata.lake.audit import commit_id_at
from vxdata.lake.lake import Lake
from vxdata.lake.snapshot import NO_TABLE, Snapshot

MAX_LENGTH = 256


def check_batch_id(batch_id: Any) -> str:
    """Return the id of a batch as it is.

    Raises:
        InvalidInputError: it is empty, too long, or holds characters that cannot be printed.
    """
    if isinstance(batch_id, str) and batch_id.strip() and batch_id.isprintable() and len(batch_id) <= MAX_LENGTH:
        return batch_id
    raise InvalidInputError(
        f"batch_id={batch_id!r}: a text of 1 to {MAX_LENGTH} printable characters is expected, such as "
        "'pacs-2026-07-01'."
    )


@dataclass(frozen=True)
class Batch:
    """The parts of a batch in a table, as application ids of Delta transactions."""

    batch_id: str

    @property
    def changes(self) -> str:
        """What the batch creates and updates."""
        return f"vxdata.batch:{self.batch_id}"

    @property
    def closings(self) -> str:
        """What it closes because it is missing; noted too if there is nothing to close."""
        return f"vxdata.batch.closings:{self.batch_id}"


def is_committed(base: Snapshot, app_id: str) -> bool:
    """Whether a part of a batch is in a version of a table."""
    return base.version != NO_TABLE and base.read_transaction(base, app_id) is not None


def first_commit_id(lake: Lake, specs: Iterable[TableSpec], batch: Batch) -> str | None:
    """Return the commit id of the run that began a batch; None if none did, or if the log and the archive forgot it."""
    for spec in specs:
        base = lake.snapshot(spec)
        version = base.read_transaction(base, batch.changes) if is_committed(base, batch.changes) else None
        if version is not None and (found := commit_id_at(lake.table(spec), version)):
            return found
    return None


def is_complete(lake: Lake, specs: Iterable[TableSpec], batch: Batch) -> bool:
    """Whether all parts of a batch are committed in some tables."""
    return all(is_committed(lake.snapshot(spec), part) for spec in specs for part in (batch.changes, batch.closings))
