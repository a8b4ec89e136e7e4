"""The state machine of a lake that is tended: checkpoints, trimming, vacuum, kept snapshots, verify, erasure, batches.

Months pass between one step and the next where vacuum and trimming want old files: they get a clock that is far ahead,
and what no client can live through (a write under way, a listing that is months old) has ended by then.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from tests.support.comparison import compare
from tests.support.machine import CLIENTS, COUNTS, LakeMachine
from tests.support.model import Done, Model, type_of
from tests.support.stepping import Clock, open_client
from tests.support.wishes import NAMESPACES, type_names, upsert_with, upserts
from vxdata.errors import NotFoundError
from vxdata.lake.checkpoint import settle_log
from vxdata.lake.snapshot import NO_TABLE
from vxdata.lake.table import Table
from vxdata.lake.trim import trim_log
from vxdata.sdk import Client

MONTHS = timedelta(days=90)
NAMES = st.sampled_from(["paper", "a b=#%2F"])
BATCHES = st.sampled_from(["night 1", "night #2"])


class TendedMachine(LakeMachine):
    """The rules of upkeep; nothing that can be seen changes, except that old states which nobody kept may be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, tuple[str, Model]] = {}
        self.batches: set[tuple[str, str]] = set()
        self.forgotten = 0  # so many tokens may be of states that are gone

    # -- upkeep

    @rule(client=CLIENTS, type_name=type_names, trims=st.booleans())
    def settle(self, client: int, type_name: str, trims: bool) -> None:
        """Write a checkpoint and the archive, and perhaps let months go by and trim the log."""
        table = self.table(self.clients[client], type_name)
        if table.snapshot().version == NO_TABLE:
            return
        settle_log(table)
        if trims:
            self.months_pass()
            trim_log(table, datetime.now(UTC) + MONTHS)

    @rule(deletes=st.sampled_from([True, True, False]))
    def vacuum(self, deletes: bool) -> None:
        """Let months go by, and take what no state needs; once more takes nothing."""
        self.months_pass() if deletes else None
        sweeper = self.client_ahead()
        planned = sweeper.vacuum(dry_run=True)
        if deletes:
            assert sweeper.vacuum(dry_run=False).taken.select("path").equals(planned.taken.select("path"))
            assert sweeper.vacuum(dry_run=True).count == 0

    def client_ahead(self) -> Client:
        """Return a client for which months have passed."""
        ahead = Clock()
        ahead.now = datetime.now(UTC) + MONTHS
        return open_client(self.uri, ahead.patience())

    def months_pass(self) -> None:
        """End what does not live for months."""
        while self.pending:
            self.kill(self.pending[0])
        for client in (*self.clients, self.newer):
            for table in client._session.lake._tables.values():
                table._listed_at = (0.0, 0.0)
        self.forgotten = len(self.tokens)

    @rule(client=CLIENTS, name=NAMES, drops=st.booleans())
    def keep(self, client: int, name: str, drops: bool) -> None:
        """Keep a snapshot, or drop the one that has the name."""
        snapshots = self.clients[client].snapshots
        if name not in self.kept:
            self.kept[name] = (snapshots.keep(name).token, self.model.copy())
        elif drops:
            snapshots.drop(name)
            del self.kept[name]

    @precondition(lambda self: self.steps % 3 == 0)
    @rule(type_name=st.sampled_from(["patient", "pathologyspecimen"]), data=st.data())
    def erase(self, type_name: str, data: st.DataObject) -> None:
        """Erase a resource that the lake knows; kept snapshots that need its files open no more, and are named."""
        known = sorted(identifier for identifier in self.model.past if type_of(identifier) == type_name)
        if not known:
            return
        identifier = data.draw(st.sampled_from(known))
        self.months_pass()
        self.puts.spare()
        eraser, reason = self.client_ahead(), "consent withdrawn"
        planned, done = (eraser.erase(identifier, reason=reason, dry_run=is_dry) for is_dry in (True, False))
        assert done.left == (), done.left
        assert done.tables.equals(planned.tables)
        self.kept = {name: kept for name, kept in self.kept.items() if name not in done.kept_snapshots}
        assert set(eraser.snapshots.list()["name"]) == self.kept.keys()
        self.model = self.model.copy()
        self.model.erase(identifier)
        assert eraser.erase(identifier, reason=reason).tables.is_empty()

    @precondition(lambda self: self.steps % 4 == 0)
    @rule(client=CLIENTS)
    def verify(self, client: int) -> None:
        """The only errors are the orphans that their writers were told of."""
        report = self.clients[client].verify()
        errors = report.findings.filter(report.findings["severity"] == "error")
        assert set(errors["kind"]) <= {"orphaned-resource", "lineage-wrong"}, errors
        assert set(errors["subject"]) <= self.model.orphans(), errors

    # -- batches

    @rule(client=CLIENTS, data=st.data(), batch=BATCHES, type_name=type_names)
    def batch(self, client: int, data: st.DataObject, batch: str, type_name: str) -> None:
        """Upsert under an id; under one that is taken nothing is done, whatever the frame says."""
        wish = replace(data.draw(upserts(self.model, type_name)), missing="keep", cascade=False)
        namespace, is_done = self.namespace(client, type_name), (batch, type_name) in self.batches

        def in_model(model: Model, now: datetime) -> Done:
            return Done() if is_done else model.upsert(wish, now)

        both = self.agree(lambda: upsert_with(namespace, wish, batch_id=batch), in_model)
        if both is not None:
            report, done = both
            assert report.already_committed == is_done
            assert is_done or [getattr(report, name) for name in COUNTS[:3]] == [
                done.created,
                done.updated,
                done.unchanged,
            ]
            self.batches.add((batch, type_name))

    # -- what must always be true

    @precondition(lambda self: self.kept and self.steps % 2)
    @invariant()
    def kept_snapshots_are_as_in_the_model(self) -> None:
        names = sorted(self.kept)
        token, model = self.kept[names[self.steps // 2 % len(names)]]
        compare(Client(self.uri, snapshot=token), model, model.instants()[-1:])

    def look_back(self, index: int, instants: list[datetime]) -> None:
        """A state that nobody kept may be gone, once there was a vacuum or a trimming after it; else it is whole."""
        try:
            super().look_back(index, instants)
        except NotFoundError:
            if index >= self.forgotten:
                raise

    def teardown(self) -> None:
        super().teardown()
        if self.has_failed():
            return
        for token, model in self.kept.values():
            compare(Client(self.uri, snapshot=token), model, model.instants())

    def table(self, client: Client, type_name: str) -> Table:
        return client._session.lake.table(getattr(client, NAMESPACES[type_name])._spec)
