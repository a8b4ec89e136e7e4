"""A lake: its store, its format, and its tables, opened once and kept warm."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from vxdata.catalog.table import TableSpec, all_specs
from vxdata.errors import InvalidInputError, NotFoundError, StorageError
from vxdata.lake.format import LakeFormat, find_place, make_lake, read_format, require_format
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.store import Store
from vxdata.lake.table import Table
from vxdata.lake.token import LakeState
from vxdata.lake.unregistered import unregistered_tables

if TYPE_CHECKING:
    from vxdata.lake.intent import Patience

_SETTLE_TRIES = 5
_forked = threading.Event()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked.set)


def refuse_fork() -> None:
    """Refuse to work in a forked process, where Polars would hang and deltalake panic.

    Raises:
        InvalidInputError: this process was forked from one that had loaded VxData.
    """
    if _forked.is_set():
        raise InvalidInputError(
            "this process was forked from one that uses VxData, and Polars hangs after a fork. Start workers with "
            "'spawn' or 'forkserver': multiprocessing.set_start_method('spawn'), or "
            "DataLoader(..., multiprocessing_context='spawn')."
        )


class View(Protocol):
    """Something that says which snapshot of each table a reader sees."""

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """Return the snapshot of a table."""


class Lake:
    """The tables of one lake.

    Args:
        store: where the lake is.
        patience: deadline and clocks of commits.
    """

    def __init__(self, store: Store, patience: "Patience | None" = None) -> None:
        self.store, self._patience = store, patience
        self._tables: dict[str, Table] = {}
        self._format: LakeFormat | None = None
        self._may_write = self._is_absent = False

    @cached_property
    def patience(self) -> "Patience":
        """Deadline and clocks of commits; what only reads does not load what commits."""
        from vxdata.lake.intent import Patience

        return self._patience or Patience()

    @property
    def lake_id(self) -> str:
        """The id of the lake, from `lake.json`.

        Raises:
            NotFoundError: no lake is there.
        """
        if self._format is None:
            self._format = require_format(self.store)
        return self._format.lake_id

    def prepare_write(self, *, needs_lake: bool) -> None:
        """Look at the lake before a write is planned; nothing is written.

        Args:
            needs_lake: whether the write changes something that is there, so that a lake has to be here.

        Raises:
            NotFoundError: no lake is here, and one is needed.
            StorageError: another lake was made at this address since this client opened it: a commit to a table that
                is not the one that was read would damage it.
        """
        refuse_fork()
        found = require_format(self.store) if needs_lake else read_format(self.store) or find_place(self.store)
        self._is_absent = found is None
        if found is not None:
            self._keep(found)

    def begin_write(self) -> None:
        """Make the lake where there is none; check, once, that the store honours conditional writes."""
        if not self._may_write:
            self._keep(make_lake(self.store))
            self._is_absent, self._may_write = False, True

    def _keep(self, found: LakeFormat) -> None:
        if self._format is not None and found.lake_id != self._format.lake_id:
            raise StorageError(
                "another lake was made at this address since this client opened it; make a new Client.",
                uri=self.store.uri,
                operation="write to",
                retryable=False,
            )
        self._format = found

    def table(self, spec: TableSpec) -> Table:
        """Return the warm table of a spec.

        Raises:
            NotFoundError: no lake is here.
            InvalidInputError: the process was forked.
        """
        refuse_fork()
        if not self._is_absent:
            _ = self.lake_id
        if spec.namespace not in self._tables:
            self._tables[spec.namespace] = Table(self.store, spec)
        return self._tables[spec.namespace]

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """Return the newest snapshot of a table: this lake is the view of the newest state."""
        return self.table(spec).snapshot()

    def state(self) -> LakeState:
        """Return one version of each table that exists: all read twice, until nothing moved in between."""
        versions = self._versions()
        for _ in range(_SETTLE_TRIES):
            again = self._versions()
            if again == versions:
                break
            versions = again
        there = tuple((name, version) for name, version in versions.items() if version >= 0)
        return LakeState(self.lake_id, there, unregistered=unregistered_tables(self.store))

    def _versions(self) -> dict[str, int]:
        return {spec.namespace: self.snapshot(spec).version for spec in all_specs()}


class FixedView:
    """The view of one state of the whole lake, as a snapshot token names it.

    Attributes:
        state: the versions of the tables.

    Raises:
        InvalidInputError: the state is one of another lake.
    """

    def __init__(self, lake: Lake, state: LakeState) -> None:
        if state.lake_id != lake.lake_id:
            raise InvalidInputError(f"the snapshot is one of another lake than {lake.store.uri}.")
        self._lake, self.state = lake, state
        self._versions: Mapping[str, int] = dict(state.versions)
        self._taken: dict[str, Snapshot] = {}

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """Return the table's snapshot in this state.

        Raises:
            NotFoundError: the state was taken by a process that did not know the table's type, or it is gone.
        """
        if spec.namespace in self.state.unregistered:
            raise NotFoundError(
                f"the snapshot does not hold {spec.namespace}: it was taken where the payload type "
                f"{spec.type_name!r} was not registered. Take a new one where it is."
            )
        if spec.namespace not in self._taken:
            self._taken[spec.namespace] = self._lake.table(spec).at(self._versions.get(spec.namespace, -1))
        return self._taken[spec.namespace]


class SteadyView:
    """A view that takes each table's snapshot once, so that everything asked of it sees one state of each table."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._taken: dict[str, Snapshot] = {}

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """Return the table's snapshot, the same each time."""
        if spec.namespace not in self._taken:
            self._taken[spec.namespace] = self._view.snapshot(spec)
        return self._taken[spec.namespace]

    def is_newest(self, spec: TableSpec) -> bool:
        """Whether this view took a snapshot of the table and it did not change since."""
        taken = self._taken.get(spec.namespace)
        return taken is not None and taken.version == self._view.snapshot(spec).version


@dataclass(frozen=True)
class BaseFirst:
    """The view of a planner: its own table at the base version of its commit, the others as they are now."""

    base: Snapshot
    others: View

    def snapshot(self, spec: TableSpec) -> Snapshot:
        """Return the base for the base's table, else the newest snapshot."""
        return self.base if spec == self.base.spec else self.others.snapshot(spec)
