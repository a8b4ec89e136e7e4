"""A Hypothesis state machine that drives the real lake and the plain model side by side.

Clients warm and cold, writers stopped between the steps of their commits and killed there, answers that are lost before
and after the PUT, a clock that jumps, columns that appear, and history that is loaded late.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, ClassVar

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.schema import Field as DeltaField
from deltalake.schema import PrimitiveType
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support import stepping
from tests.support.autopsy import autopsy
from tests.support.comparison import compare, to_rows, without
from tests.support.model import Done, Model, Refused, Row, Upsert, type_of
from tests.support.stepping import TICK, Clock, Puts, Step, Writer, lost_answer, lost_request, open_client
from tests.support.wishes import (
    IDENTIFIERS,
    NAMESPACES,
    NEWER,
    NewerPatient,
    changes_to,
    children_of,
    known_to,
    parents_of,
    resources,
    some_resources,
    to_resource,
    type_names,
    update_with,
    upsert_with,
    upserts,
)
from vxdata.catalog.table import all_specs
from vxdata.errors import ConflictError, NotFoundError, VxDataError
from vxdata.lake.commit import rewrite
from vxdata.lake.compact import NO_CLOSINGS, as_chosen, rewrite_chosen
from vxdata.lake.datafile import checked_files
from vxdata.lake.foldable import FoldPolicy, file_facts
from vxdata.lake.intent import Rewrite, Stamp
from vxdata.lake.snapshot import Snapshot
from vxdata.sdk import Client
from vxdata.sdk.namespace import Namespace

CLIENTS = st.integers(0, 2)
SMALL_POLICIES = [FoldPolicy(file_rows=2, memory_rows=2, most_small=1, most_layers=1), FoldPolicy(file_rows=4)]
JUMPS = [timedelta(days=1), timedelta(milliseconds=1), TICK, -TICK, timedelta(seconds=-1), timedelta(days=-2)]
COUNTS = ("created", "updated", "unchanged", "deleted")
Rows = list[Row]
InModel = Callable[[Model, datetime], Done]


@dataclass
class Pending:
    """A writer that is under way.

    Attributes:
        writer: the call, stopped somewhere.
        identifier: what it writes (of an upsert, the first).
        verb: what a user may expect of it: changes the model, or raises `Refused`.
        land: what its log entry does to the model, whatever became of other tables since it was planned.
        parent: the parent that it names, of a create or an upsert.
        done: what it did, once it landed.
        readings: when it may have read the clock.
        planned_on: the model at its last plan.
        created_at: the incarnation that its first plan saw.
    """

    writer: Writer
    identifier: str
    verb: InModel
    land: InModel
    parent: str | None = None
    done: Done | None = None
    readings: list[datetime] = field(default_factory=list)
    planned_on: Model = field(default_factory=Model)
    created_at: datetime | None = None


class LakeMachine(RuleBasedStateMachine):
    """The rules are what users do and what befalls them; the invariants compare all that can be seen."""

    make_uri: ClassVar[Callable[[], str]]
    puts: ClassVar[Puts]
    taken: ClassVar[int] = 0
    """How many steps all machines of a class took."""

    def __init__(self) -> None:
        super().__init__()
        self.uri, self.clock, self.model = type(self).make_uri(), Clock(), Model()
        self.clients = [self.opened() for _ in range(3)]
        self.newer = Namespace(self.opened()._session, NewerPatient)
        self.pending: list[Pending] = []
        self.tokens: list[tuple[str, Model]] = []
        self.steps, self.compared = 0, Model()
        self.puts.spare()
        line = [None, *(some[0] for some in IDENTIFIERS.values())]
        self.do_create(0, [{"identifier": i, "parent_identifier": parent} for parent, i in pairwise(line)])

    def opened(self) -> Client:
        return open_client(self.uri, self.clock.patience())

    def agree(self, verb: Callable[[], Any], in_model: InModel) -> tuple[Any, Done] | None:
        """Do one thing in the lake and in the model: both do it and are handed back, or both refuse."""
        draft, answers, done = self.model.copy(), [], Done()
        expected: tuple[type[VxDataError] | None, ...] = (None,)
        try:
            done = in_model(draft, self.clock.now)
        except Refused as refused:
            draft, expected = self.model, refused.errors
        told = draft.orphans_of(done)
        assert error_of(lambda: answers.append(verb())) in ((ConflictError,) if told else expected)
        self.model = draft
        return (answers[0], done) if answers else None

    # -- what users do

    @rule(
        client=CLIENTS, data=st.data(), kind=st.sampled_from(["create", "update", "delete", "upsert", "load_history"])
    )
    def write(self, client: int, data: st.DataObject, kind: str) -> None:
        getattr(self, kind)(client, data)

    def create(self, client: int, data: st.DataObject) -> None:
        self.do_create(client, data.draw(some_resources(self.model)))

    def do_create(self, client: int, rows: Rows) -> None:
        self.agree(
            lambda: self.clients[client].resources.create([to_resource(r) for r in rows]),
            lambda model, now: model.create(rows, now),
        )

    def update(self, client: int, data: st.DataObject) -> None:
        self.do_update(client, data.draw(known_to(self.model)), data, data.draw(st.sampled_from([None, -1, 0])))

    def do_update(self, client: int, identifier: str, data: st.DataObject, version: int | None) -> None:
        changes, expected = data.draw(changes_to(identifier)), self.began(identifier, version)
        self.agree(
            lambda: update_with(self.clients[client], identifier, changes, expected),
            lambda model, now: model.update(identifier, changes, now, expected),
        )

    def began(self, identifier: str, version: int | None) -> datetime | None:
        past = self.model.past.get(identifier)
        return past[version].valid_from if past and version is not None else None

    def delete(self, client: int, data: st.DataObject) -> None:
        self.do_delete(client, data.draw(known_to(self.model)), data.draw(st.booleans()))

    def do_delete(self, client: int, identifier: str, cascade: bool) -> None:
        self.agree(
            lambda: self.clients[client].resources.delete(identifier, cascade=cascade),
            lambda model, now: model.delete(identifier, now, cascade),
        )

    def upsert(self, client: int, data: st.DataObject) -> None:
        if data.draw(st.integers(0, 3)) == 0:
            self.do_upsert(self.newer, data.draw(upserts(self.model, "patient", NEWER)))
        else:
            wish = data.draw(type_names.flatmap(lambda name: upserts(self.model, name)))
            self.do_upsert(self.namespace(client, wish.type_name), wish)

    def load_history(self, client: int, data: st.DataObject) -> None:
        wish = data.draw(type_names.flatmap(lambda name: upserts(self.model, name)))
        instants = [self.clock.now, *(self.clock.now + by for by in JUMPS), *self.model.instants()]
        dated = replace(wish, valid_from=data.draw(st.sampled_from(instants)), cascade=False)
        self.do_upsert(self.namespace(client, wish.type_name), dated)

    def namespace(self, client: int, type_name: str) -> Namespace[Any]:
        return getattr(self.clients[client], NAMESPACES[type_name])  # type: ignore[no-any-return]

    def do_upsert(self, namespace: Namespace[Any], wish: Upsert) -> None:
        both = self.agree(lambda: upsert_with(namespace, wish), lambda model, now: model.upsert(wish, now))
        if both is not None:
            report, done = both
            counts = [done.created, done.updated, done.unchanged, len(done.closed)]
            assert [getattr(report, name) for name in COUNTS] == counts
            assert set(report.rejected["identifier"]) == done.rejected

    @rule(client=CLIENTS, type_name=type_names, takes_snapshot=st.booleans())
    def read(self, client: int, type_name: str, takes_snapshot: bool) -> None:
        """Take a snapshot for later, or write back what was read, which changes nothing."""
        if takes_snapshot:
            self.tokens.append((self.clients[client].snapshot().token, self.model.copy()))
            return
        namespace, entries = self.namespace(client, type_name), self.puts.entries
        report = namespace.upsert(namespace.query().collect(), missing="delete")
        assert [getattr(report, name) for name in COUNTS] == [0, 0, len(self.model.live_of(type_name)), 0]
        assert self.puts.entries == entries

    # -- writers that are stepped by hand

    @rule(client=CLIENTS, data=st.data(), stops=st.integers(1, 3))
    def race(self, client: int, data: st.DataObject, stops: int) -> None:
        """Begin a write, let others do something to the same resource or its parent meanwhile, and perhaps go on."""
        if len(self.pending) > 1:
            self.finish(self.pending[0])
        kind = data.draw(st.sampled_from(["create", "update", "delete", "upsert"]))
        pending: Pending = getattr(self, f"begun_{kind}")(client, data)
        self.pending.append(pending)
        for _ in range(stops):
            if pending in self.pending:
                self.move(pending)
        self.rival(data.draw(CLIENTS), pending, data)
        if data.draw(st.booleans()):
            self.finish(pending)

    def rival(self, client: int, pending: Pending, data: st.DataObject) -> None:
        """Do what the writer may trip over: change, delete or remake its resource or the parent, or add a child."""
        live = self.model.live(pending.identifier)
        parent = live.parent if live else pending.parent
        target = data.draw(st.sampled_from([pending.identifier, parent or pending.identifier]))
        kind = data.draw(st.sampled_from(["update", "delete", "remake", "child"]))
        if kind == "update":
            self.do_update(client, target, data, None)
        elif kind == "child":
            self.do_create(client, data.draw(children_of(pending.identifier, self.model)))
        else:
            self.do_delete(client, target, cascade=data.draw(st.sampled_from([True, True, False])))
        if kind == "remake":
            new = {"identifier": target, "parent_identifier": data.draw(parents_of(target, self.model))}
            self.do_create(client, [new])

    def begun_create(self, client: int, data: st.DataObject) -> Pending:
        lake, r = self.clients[client], data.draw(resources(self.model))
        identifier = r["identifier"]

        def land(model: Model, now: datetime) -> Done:
            assert not model.live(identifier), "created twice"
            model.begin(r, model.earliest(identifier, now), under=pending.planned_on)
            return Done(made={identifier})

        writer = Writer(lambda: lake.resources.create(to_resource(r)))
        pending = Pending(
            writer, identifier, lambda model, now: model.create([r], now), land, parent=r["parent_identifier"]
        )
        return pending

    def begun_update(self, client: int, data: st.DataObject) -> Pending:
        lake, identifier = self.clients[client], data.draw(known_to(self.model))
        changes, version = data.draw(changes_to(identifier)), data.draw(st.sampled_from([None, -1]))
        expected = self.began(identifier, version)

        def verb(model: Model, now: datetime) -> Done:
            refuse_another_life(model, pending, *[ConflictError] * (expected is not None))
            return model.update(identifier, changes, now, expected)

        pending = Pending(Writer(lambda: update_with(lake, identifier, changes, expected)), identifier, verb, verb)
        return pending

    def begun_delete(self, client: int, data: st.DataObject) -> Pending:
        lake, identifier = self.clients[client], data.draw(known_to(self.model))

        def land(model: Model, now: datetime) -> Done:
            own = {child for child in model.children([identifier]) if type_of(child) == type_of(identifier)}
            assert not own, "deleted over children of the same table"
            assert model.live(identifier), "deleted twice"
            model.close(identifier, model.earliest(identifier, now))
            return Done(closed={identifier})

        def verb(model: Model, now: datetime) -> Done:
            refuse_another_life(model, pending)
            return model.delete(identifier, now)

        pending = Pending(Writer(lambda: lake.resources.delete(identifier)), identifier, verb, land)
        return pending

    def begun_upsert(self, client: int, data: st.DataObject) -> Pending:
        wish = data.draw(upserts(self.model, "pathologyspecimen"))
        namespace = self.namespace(client, wish.type_name)
        first = wish.rows[0] if wish.rows else {"identifier": IDENTIFIERS[wish.type_name][0], "parent_identifier": None}

        def land(model: Model, now: datetime) -> Done:
            return model.upsert(wish, now, under=pending.planned_on)

        writer = Writer(lambda: upsert_with(namespace, wish))
        pending = Pending(
            writer, first["identifier"], lambda model, now: model.upsert(wish, now), land, first["parent_identifier"]
        )
        return pending

    @precondition(lambda self: self.pending)
    @rule(index=st.integers(0, 1), how=st.sampled_from(["step", "step", "finish", "kill"]))
    def go_on(self, index: int, how: str) -> None:
        getattr(self, how)(self.pending[index % len(self.pending)])

    def step(self, pending: Pending) -> None:
        self.move(pending)

    def finish(self, pending: Pending) -> None:
        while pending in self.pending:
            self.move(pending)

    def kill(self, pending: Pending) -> None:
        self.pending.remove(pending)
        pending.writer.kill()

    def move(self, pending: Pending) -> None:
        """Let a writer run to its next stop, and take over into the model what landed meanwhile."""
        pending.readings.append(self.clock.now)
        stop = pending.writer.step()
        if pending.writer.landed and pending.done is None:
            self.land(pending)
        if stop is Step.PLANNED:
            pending.planned_on = self.model.copy()
            live = self.model.live(pending.identifier)
            pending.created_at = pending.created_at or (live and live.created_at)
        if stop is None:
            self.pending.remove(pending)
            self.judge(pending)

    def land(self, pending: Pending) -> None:
        """Take the new log entry over into the model, at one of the instants at which the clock was read."""
        type_name, outcomes = type_of(pending.identifier), []
        query = getattr(open_client(self.uri), NAMESPACES[type_name]).query()
        seen = to_rows(query.versions().collect())
        for now in pending.readings:
            draft = self.model.copy()
            pending.done = pending.land(draft, now)
            outcomes.append([without(r, NEWER) for r in draft.versions(type_name)])
            if outcomes[-1] == seen:
                self.model = draft
                return
        raise AssertionError(f"{seen} is none of {outcomes}")

    def judge(self, pending: Pending) -> None:
        """Compare what a finished writer says with what happened."""
        error = error_of(pending.writer.finish)
        if pending.done is not None:
            assert error is (ConflictError if self.model.orphans_of(pending.done) else None)
        elif error is not None:
            with pytest.raises(Refused) as refused:
                pending.verb(self.model.copy(), self.clock.now)
            assert error in refused.value.errors, f"the model expects {refused.value.errors}"
        else:
            replayed = pending.planned_on.copy()
            pending.verb(replayed, self.clock.now)
            assert replayed.past == pending.planned_on.past, "nothing was written, though there was a change"

    # -- upkeep: nothing that can be seen changes

    @rule(client=CLIENTS, type_name=type_names, policy=st.sampled_from(SMALL_POLICIES))
    def compact(self, client: int, type_name: str, policy: FoldPolicy) -> None:
        """Fold a table, into small files; once more is nothing to do."""
        namespace, lake = NAMESPACES[type_name], self.clients[client]
        self.puts.spare()
        lake.compact(namespace, policy=policy)
        entries = self.puts.entries
        assert not lake.compact(namespace, policy=policy).is_changed
        assert self.puts.entries == entries

    @rule(client=CLIENTS, type_name=type_names, data=st.data())
    def compact_some(self, client: int, type_name: str, data: st.DataObject) -> None:
        """Fold any files of one partition, which ones does not matter."""
        lake = self.clients[client]._session.lake
        spec = next(spec for spec in all_specs() if spec.namespace == NAMESPACES[type_name])

        def fold(base: Snapshot) -> Rewrite | None:
            facts = file_facts(base)
            if facts.is_empty():  # an erasure may leave none
                return None
            facts = facts.filter(pl.col("datasource_id") == data.draw(st.sampled_from(sorted(facts["datasource_id"]))))
            keys = data.draw(st.sets(st.sampled_from(by_content(base, facts["key"].to_list())), min_size=1))
            chosen = as_chosen(facts, keys, NO_CLOSINGS, data.draw(st.sampled_from(SMALL_POLICIES)))
            with checked_files(base.store, base.spec.namespace) as checked:
                return chosen and rewrite_chosen(base, chosen, checked)

        self.puts.spare()
        rewrite(lake.table(spec), fold, Stamp("compact", "tester"), self.clock.patience())

    @rule(client=CLIENTS, data=st.data(), stops=st.integers(1, 2), killed=st.booleans())
    def race_compaction(self, client: int, data: st.DataObject, stops: int, killed: bool) -> None:
        """Begin a compaction, let others write or compact meanwhile, and go on, or be killed."""
        lake, type_name = self.clients[client], data.draw(type_names)
        writer = Writer(lambda: lake.compact(NAMESPACES[type_name], policy=SMALL_POLICIES[0]))
        for _ in range(stops):
            if not writer.is_done:
                writer.step()
        kind = data.draw(st.sampled_from(["update", "delete", "upsert", "compact"]))
        if kind == "compact":
            self.compact(data.draw(CLIENTS), type_name, data.draw(st.sampled_from(SMALL_POLICIES)))
        else:
            getattr(self, kind)(data.draw(CLIENTS), data)
        writer.kill() if killed else writer.finish()

    # -- what befalls them

    @rule(by=st.sampled_from(JUMPS), fault=st.sampled_from([None, None, lost_answer, lost_request]))
    def disturb(self, by: timedelta, fault: stepping.Fault | None) -> None:
        """Turn the clock, and perhaps strike the next PUT."""
        self.clock.turn(by)
        if fault is not None:
            self.puts.strike(fault)

    @rule(client=CLIENTS, type_name=type_names, has_column=st.booleans())
    def reopen(self, client: int, type_name: str, has_column: bool) -> None:
        """Start a client anew, perhaps after somebody else gave a table a column of their own."""
        self.clients[client] = self.opened()
        if has_column:
            store = self.clients[0]._session.lake.store
            table = DeltaTable(store.url(NAMESPACES[type_name]), storage_options=store.delta_options())
            table.alter.add_columns(DeltaField(f"note_{table.version()}", PrimitiveType("string")))

    # -- what must always be true

    @invariant()
    def all_that_can_be_seen_is_as_in_the_model(self) -> None:
        self.steps += 1
        type(self).taken += 1
        instants = self.model.instants()
        if self.model is not self.compared or self.steps % 3 == 0:
            some = {instants[-1], instants[self.steps * 7 % len(instants)]}
            compare(self.clients[self.steps % 3], self.model, some)
            self.compared = self.model
        if self.tokens and self.steps % 3 == 0:
            self.look_back(self.steps // 3 % len(self.tokens), instants[-1:])

    def look_back(self, index: int, instants: Sequence[datetime]) -> None:
        """Compare what the client of a snapshot sees with the model of that time."""
        token, model = self.tokens[index]
        compare(Client(self.uri, snapshot=token), model, instants)

    @precondition(lambda self: self.steps % 2)
    @invariant()
    def single_resources_are_as_in_the_model(self) -> None:
        client, known = self.clients[self.steps // 2 % 3], sorted(self.model.past)
        live = [i for i in known if self.model.live(i)]
        assert [r.valid_from for r in client.resources.retrieve(live)] == [
            self.model.past[i][-1].valid_from for i in live
        ]
        chosen = known[self.steps // 2 % len(known)]
        ends = [(v.valid_from, v.valid_to) for v in self.model.past[chosen]]
        assert [(r.valid_from, r.valid_to) for r in client.resources.history(chosen)] == ends

    @precondition(lambda self: self.steps % 2 == 0)
    @invariant()
    def a_newer_sdk_sees_its_own_field(self) -> None:
        assert to_rows(self.newer.query().versions().collect()) == self.model.versions("patient")

    def has_failed(self) -> bool:
        """Whether a difference or an error ended the steps."""
        return isinstance(sys.exc_info()[1], (AssertionError, VxDataError))

    def teardown(self) -> None:
        """Kill the writers that are left, and look at everything once more, with a cold client; tell of a failure."""
        for pending in self.pending:
            pending.writer.kill()
        self.puts.spare()
        if self.has_failed():
            sys.stderr.write(autopsy(self.uri, {f"client {n}": client for n, client in enumerate(self.clients)}))
            return
        compare(self.opened(), self.model, self.model.instants())
        for index, (_, model) in enumerate(self.tokens):
            self.look_back(index, model.instants())


def refuse_another_life(model: Model, pending: Pending, *errors: type[VxDataError]) -> None:
    """Refuse what was planned on a resource that was deleted, and created again, since."""
    live = model.live(pending.identifier)
    if live and pending.created_at and live.created_at != pending.created_at:
        raise Refused(NotFoundError, *errors)


def by_content(base: Snapshot, keys: list[str]) -> list[str]:
    """Return files in an order by what they hold: their names are random, and a failure has to come about again."""
    told = ("identifier", "valid_from", "closes", "valid_to")
    rows = base.collect(base.rows_of(base.files.clone(), path_column="file")).sort(told, nulls_last=True)
    held = {file: str(part.select(told).rows()) for (file,), part in rows.partition_by("file", as_dict=True).items()}
    return sorted(keys, key=lambda key: held[base.file_url(key)])


def error_of(call: Callable[[], Any]) -> type[VxDataError] | None:
    """Call, and return the type of VxData's error; None if there is none."""
    try:
        call()
    except VxDataError as error:
        return type(error)
    return None
