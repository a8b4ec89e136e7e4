"""The lake against a plain model of it, side by side, under whatever Hypothesis thinks of.

Clients warm and cold, writers stopped between the steps of their commits, killed writers, answers that are lost before
and after the PUT, a clock that jumps, columns that appear, and history that is loaded late.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.schema import Field as DeltaField
from deltalake.schema import PrimitiveType
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support import stepping
from tests.support.model import FIELDS, PARENT_TYPES, Model, Refused, Row, Upsert, type_of
from tests.support.stepping import TICK, Clock, Puts, Step, Writer, open_client
from vxdata.errors import ConflictError, NotFoundError, VxDataError
from vxdata.lake import checkpoint
from vxdata.schemas import Resource
from vxdata.schemas.payload import PatientPayload
from vxdata.sdk import Client
from vxdata.sdk.namespace import Namespace

DATASOURCES = ("datasource/a", "datasource/b =#%2F")
PATIENTS = ("patient/p0", "patient/p 1", "patient/é=2")
SPECIMENS = ("pathologyspecimen/s0", "pathologyspecimen/s1", "pathologyspecimen/s2", "pathologyspecimen/s3")
NAMESPACES = {"datasource": "datasources", "patient": "patients", "pathologyspecimen": "pathology_specimens"}
IDENTIFIERS = {"datasource": DATASOURCES, "patient": PATIENTS, "pathologyspecimen": SPECIMENS}
METADATA = (
    *("identifier", "parent_identifier", "datasource_id", "patient_id", "study_id", "ancestors"),
    *("valid_from", "valid_to", "created_at", "license"),
)
VALUES: dict[str, tuple[Any, ...]] = {
    "license": ("CC0", None),
    "name": ("A", "", None),
    "birthyear": (1950, 1951, None),
    "sex": ("F", "", None),
    "scanner": ("X", None),
    "type": ("RPE", "biopsy", None),
    "is_event_root": (True, False, None),
}
COLUMN_TYPES = {"birthyear": pl.Int64(), "is_event_root": pl.Boolean()}
JUMPS = [timedelta(days=1), timedelta(milliseconds=1), TICK, -TICK, timedelta(seconds=-1), timedelta(days=-2)]


class WidePatient(PatientPayload, type="patient", namespace="patients", parents=("datasource",)):
    """Patients of a newer SDK, which knows one field more."""

    scanner: str | None = None


WIDE = "a newer SDK"
CLIENTS = (0, 1, 2)
clients = st.sampled_from(CLIENTS)
identifiers = st.sampled_from(DATASOURCES + PATIENTS + SPECIMENS)


def values_of(type_name: str) -> st.SearchStrategy[Row]:
    names = ["license", *(name for name in FIELDS[type_name] if name != "scanner")]
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(VALUES[name]) for name in names})


@st.composite
def resources(draw: st.DrawFn, identifier: str | None = None) -> Row:
    """A resource with a parent that fits; parents of specimens come before them, so that there are no rings."""
    chosen = draw(identifiers) if identifier is None else identifier
    allowed = [i for name in PARENT_TYPES[type_of(chosen)] for i in IDENTIFIERS[name] if name != type_of(chosen) or i < chosen]
    parent = draw(st.sampled_from(allowed)) if allowed else None
    return {"identifier": chosen, "parent_identifier": parent, **draw(values_of(type_of(chosen)))}


some_resources = st.lists(resources(), min_size=1, max_size=3, unique_by=lambda r: r["identifier"])


@st.composite
def upserts(draw: st.DrawFn, type_name: str, extra: tuple[str, ...] = ()) -> Upsert:
    """An upsert; its `valid_from` is an offset from the clock until `LakeMachine.dated` makes it an instant."""
    columns = ["license", *(name for name in FIELDS[type_name] if name != "scanner")]
    given = (*draw(st.lists(st.sampled_from(columns), unique=True)), *extra)
    chosen = draw(st.lists(st.sampled_from(IDENTIFIERS[type_name]), unique=True, max_size=3))
    has_parents = draw(st.booleans())
    rows = []
    for identifier in chosen:
        parent = draw(resources(identifier))["parent_identifier"] if has_parents else None
        rows.append({"identifier": identifier, "parent_identifier": parent} | {n: draw(st.sampled_from(VALUES[n])) for n in given})
    on_invalid = draw(st.sampled_from(["fail", "skip"]))
    missing = draw(st.sampled_from(["keep", "keep", "delete"]))
    return Upsert(type_name, rows, given, missing, draw(st.booleans()), None, on_invalid)


def to_frame(args: Upsert) -> pl.DataFrame:
    names = ["identifier", "parent_identifier", *args.given]
    return pl.DataFrame(args.rows, schema={name: COLUMN_TYPES.get(name, pl.String()) for name in names})


def to_resource(r: Row) -> Resource:
    payload = {name: value for name, value in r.items() if name in FIELDS[type_of(r["identifier"])]}
    known = {name: r[name] for name in ("identifier", "parent_identifier", "license") if name in r}
    return Resource(**known, payload=payload)


def update_with(client: Client, identifier: str, changes: Row, expected: datetime | None) -> Any:
    payload = {name: value for name, value in changes.items() if name != "license"}
    license = {name: changes[name] for name in ("license",) if name in changes}
    return client.resources.update(identifier, payload, **license, expected_valid_from=expected)


@dataclass
class Pending:
    """A writer under way, what it does in the model, and when it may have read the clock."""

    writer: Writer
    kind: str
    identifier: str
    verb: Callable[[Model, datetime], None]
    request: Row = field(default_factory=dict)
    readings: list[datetime] = field(default_factory=list)
    landed: bool = False
    planned_on: Model | None = None
    created_at: datetime | None = None


class LakeMachine(RuleBasedStateMachine):
    """The rules are what users and accidents do; the invariant compares all that can be seen."""

    make_uri: ClassVar[Callable[[], str]]
    puts: ClassVar[Puts]

    def __init__(self) -> None:
        super().__init__()
        self.uri, self.clock, self.model = type(self).make_uri(), Clock(), Model()
        self.clients = {index: self.reopened() for index in CLIENTS}
        self.wide = Namespace(self.reopened()._session, WidePatient)
        self.pending: list[Pending] = []
        self.snapshots: list[tuple[str, Model]] = []
        self.round = self.notes = 0
        self.puts.spare()
        self.agree(
            lambda: self.clients[0].datasources.create(Resource(identifier=DATASOURCES[0])),
            lambda model: model.create([{"identifier": DATASOURCES[0], "parent_identifier": None}], self.clock.now),
        )

    def reopened(self) -> Client:
        return open_client(self.uri, self.clock.patience())

    def agree(self, verb: Callable[[], Any], in_model: Callable[[Model], Any]) -> tuple[Any, Any] | None:
        """Do one thing in the lake and in the model: both do it, or both refuse."""
        draft, errors = self.model.copy(), ()
        try:
            expected = in_model(draft)
        except Refused as refused:
            errors = refused.errors
        try:
            result = verb()
        except VxDataError as error:
            assert type(error) in errors, f"{error!r}, where the model expects {errors or 'no error'}"
            return None
        assert not errors, f"done, where the model expects {errors}"
        self.model = draft
        return result, expected

    # -- what users do

    @rule(client=clients, rows=some_resources)
    def create(self, client: int, rows: list[Row]) -> None:
        self.agree(
            lambda: self.clients[client].resources.create([to_resource(r) for r in rows]),
            lambda model: model.create(rows, self.clock.now),
        )

    @rule(client=clients, identifier=identifiers, data=st.data(), expects=st.sampled_from(["nothing", "current", "past"]))
    def update(self, client: int, identifier: str, data: st.DataObject, expects: str) -> None:
        changes = data.draw(values_of(type_of(identifier)))
        expected = self.expectation(identifier, expects)
        self.agree(
            lambda: update_with(self.clients[client], identifier, changes, expected),
            lambda model: model.update(identifier, changes, self.clock.now, expected),
        )

    def expectation(self, identifier: str, expects: str) -> datetime | None:
        past = self.model.past.get(identifier)
        if expects == "nothing" or not past:
            return None
        return past[-1 if expects == "current" else 0].valid_from

    @rule(client=clients, identifier=identifiers, cascade=st.booleans())
    def delete(self, client: int, identifier: str, cascade: bool) -> None:
        self.agree(
            lambda: self.clients[client].resources.delete(identifier, cascade=cascade),
            lambda model: model.delete(identifier, self.clock.now, cascade),
        )

    @rule(client=clients, args=st.sampled_from(sorted(NAMESPACES)).flatmap(upserts), age=st.sampled_from([None, *JUMPS, 0, 1]))
    def upsert(self, client: int, args: Upsert, age: timedelta | int | None) -> None:
        self.do_upsert(getattr(self.clients[client], NAMESPACES[args.type_name]), self.dated(args, age))

    @rule(args=upserts("patient", ("scanner",)))
    def upsert_from_a_newer_sdk(self, args: Upsert) -> None:
        self.do_upsert(self.wide, args)

    def dated(self, args: Upsert, age: timedelta | int | None) -> Upsert:
        """Load history at an offset from the clock, or at an instant that the model knows."""
        if isinstance(age, timedelta):
            at: datetime | None = self.clock.now + age
        else:
            known = self.model.instants()
            at = None if age is None else known[age * (len(known) - 1)]
        if at is not None and args.cascade:
            return Upsert(args.type_name, args.rows, args.given, on_invalid=args.on_invalid, valid_from=at)
        return Upsert(args.type_name, args.rows, args.given, args.missing, args.cascade, at, args.on_invalid)

    def do_upsert(self, namespace: Namespace[Any], args: Upsert) -> None:
        frame, options = to_frame(args), {"missing": args.missing, "cascade": args.cascade, "on_invalid": args.on_invalid}
        done = self.agree(
            lambda: namespace.upsert(frame, **options, valid_from=args.valid_from),
            lambda model: model.upsert(args, self.clock.now),
        )
        if done is not None:
            report, counts = done
            assert {name: getattr(report, name) for name in ("created", "updated", "unchanged", "deleted")} == {
                name: getattr(counts, name) for name in ("created", "updated", "unchanged", "deleted")
            }
            assert set(report.rejected["identifier"]) == counts.rejected

    @rule(client=clients, type_name=st.sampled_from(sorted(NAMESPACES)))
    def write_back_what_was_read(self, client: int, type_name: str) -> None:
        namespace, entries = getattr(self.clients[client], NAMESPACES[type_name]), self.puts.entries
        report = namespace.upsert(namespace.query().collect(), missing="delete")
        assert report.unchanged == len(self.model.live_of(type_name))
        assert (report.created, report.updated, report.deleted, self.puts.entries) == (0, 0, 0, entries)

    @rule(client=clients)
    def take_a_snapshot(self, client: int) -> None:
        self.snapshots.append((self.clients[client].snapshot().token, self.model.copy()))

    # -- writers stepped by hand

    @precondition(lambda self: len(self.pending) < 2)
    @rule(client=clients, r=resources())
    def begin_create(self, client: int, r: Row) -> None:
        lake = self.clients[client]
        self.begin(
            "create", r["identifier"], lambda: lake.resources.create(to_resource(r)), lambda m, now: m.create([r], now), r
        )

    @precondition(lambda self: len(self.pending) < 2)
    @rule(client=clients, identifier=identifiers, data=st.data(), expects=st.sampled_from(["nothing", "current"]))
    def begin_update(self, client: int, identifier: str, data: st.DataObject, expects: str) -> None:
        lake, changes = self.clients[client], data.draw(values_of(type_of(identifier)))
        expected = self.expectation(identifier, expects)
        self.begin(
            "update",
            identifier,
            lambda: update_with(lake, identifier, changes, expected),
            lambda model, now: model.update(identifier, changes, now, expected),
        )

    @precondition(lambda self: len(self.pending) < 2)
    @rule(client=clients, identifier=identifiers)
    def begin_delete(self, client: int, identifier: str) -> None:
        lake = self.clients[client]
        self.begin("delete", identifier, lambda: lake.resources.delete(identifier), lambda m, now: m.delete(identifier, now))

    def begin(
        self, kind: str, identifier: str, call: Callable[[], Any], verb: Callable[[Model, datetime], None], request: Row | None = None
    ) -> None:
        self.pending.append(Pending(Writer(call), kind, identifier, verb, request or {}))
        self.move(self.pending[-1])

    @precondition(lambda self: self.pending)
    @rule(index=st.integers(0, 1))
    def step(self, index: int) -> None:
        self.move(self.pending[index % len(self.pending)])

    @precondition(lambda self: self.pending)
    @rule(index=st.integers(0, 1))
    def finish(self, index: int) -> None:
        pending = self.pending[index % len(self.pending)]
        while pending in self.pending:
            self.move(pending)

    @precondition(lambda self: self.pending)
    @rule(index=st.integers(0, 1))
    def kill(self, index: int) -> None:
        self.pending.pop(index % len(self.pending)).writer.kill()

    def move(self, pending: Pending) -> None:
        """Let a writer run to its next stop, and take over what landed meanwhile."""
        pending.readings.append(self.clock.now)
        stop = pending.writer.step()
        if pending.writer.landed and not pending.landed:
            pending.landed = True
            self.land(pending)
        if stop is Step.PLANNED:
            pending.planned_on = self.model.copy()
            live = self.model.live(pending.identifier)
            pending.created_at = pending.created_at or (live.created_at if live else None)
        if stop is None:
            self.pending.remove(pending)
            self.judge(pending)

    def land(self, pending: Pending) -> None:
        """Do in the model what has just become visible, at one of the instants at which the clock was read."""
        seen = open_client(self.uri).resources.history(pending.identifier)[-1]
        found = seen.valid_to if pending.kind == "delete" else seen.valid_from
        live = self.model.live(pending.identifier)
        assert pending.kind != "update" or (live and live.created_at == pending.created_at), "updated across a delete"
        drafts = []
        for now in pending.readings:
            draft = self.model.copy()
            if pending.kind == "create" and type_of(parent := pending.request["parent_identifier"]) != type_of(pending.identifier):
                draft.revive(parent)
            pending.verb(draft, now)
            drafts.append(draft)
        ends = [(d.past[pending.identifier][-1].valid_to or d.past[pending.identifier][-1].valid_from, d) for d in drafts]
        matching = [draft for at, draft in ends if at == found]
        assert matching, f"{found} is none of {[at for at, _ in ends]}"
        self.model = matching[0]
