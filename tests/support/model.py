"""What a lake promises, as plain Python: a dict of lists of versions. Nothing of it is shared with the product.

Each verb changes the model or raises `Refused` with the errors that the lake may answer; then nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

from vxdata.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError, VxDataError

TICK = timedelta(microseconds=1)
PARENT_TYPES = {
    "datasource": (),
    "patient": ("datasource",),
    "pathologyspecimen": ("patient", "pathologyspecimen"),
}
FIELDS = {
    "datasource": ("name",),
    "patient": ("birthyear", "sex", "scanner"),
    "pathologyspecimen": ("type", "is_event_root"),
}
Row = dict[str, Any]


class Refused(Exception):
    """The lake must refuse, with one of these errors."""

    def __init__(self, *errors: type[VxDataError]) -> None:
        super().__init__(*errors)
        self.errors = errors


@dataclass(frozen=True)
class Version:
    """One state of one resource; `valid_to` is None while it is current."""

    valid_from: datetime
    created_at: datetime
    parent: str | None
    ancestors: tuple[str, ...]
    values: Mapping[str, Any]
    valid_to: datetime | None = None


@dataclass(frozen=True)
class Upsert:
    """The arguments of an upsert: `rows` are the frame's, `given` its columns besides the two identifiers."""

    type_name: str
    rows: Sequence[Row]
    given: tuple[str, ...]
    missing: str = "keep"
    cascade: bool = False
    valid_from: datetime | None = None
    on_invalid: str = "fail"


@dataclass
class Done:
    """What a verb did: what an upsert has to report, and whose orphans, if any, the writer has to tell of."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)


def type_of(identifier: str) -> str:
    return identifier.partition("/")[0]


class Model:
    """All versions of all resources."""

    def __init__(self) -> None:
        self.past: dict[str, list[Version]] = {}

    def copy(self) -> Self:
        model = type(self)()
        model.past = {identifier: list(versions) for identifier, versions in self.past.items()}
        return model

    # -- reading

    def live(self, identifier: str | None) -> Version | None:
        past = self.past.get(identifier or "", [])
        return past[-1] if past and past[-1].valid_to is None else None

    def live_of(self, type_name: str) -> dict[str, Version]:
        found = {i: self.live(i) for i in self.past if type_of(i) == type_name}
        return {i: v for i, v in found.items() if v is not None}

    def children(self, identifiers: Iterable[str]) -> set[str]:
        parents = set(identifiers)
        return {i for i in self.past if (v := self.live(i)) and v.parent in parents}

    def descendants(self, identifiers: Iterable[str]) -> set[str]:
        roots = set(identifiers)
        return {i for i in self.past if (v := self.live(i)) and roots & set(v.ancestors)}

    def orphans(self) -> set[str]:
        """The live resources whose parent is not live, or not the one any more under which they were created."""
        found = {i: v for i in self.past if (v := self.live(i)) and v.parent}
        return {
            i for i, v in found.items() if not (p := self.live(v.parent)) or v.ancestors != (*p.ancestors, v.parent)
        }

    def orphans_of(self, done: Done) -> set[str]:
        """The orphans that a writer has to tell of: those that it made, and whatever is left below what it closed."""
        return (self.orphans() & done.made) | self.descendants(done.closed)

    def instants(self) -> list[datetime]:
        """Every instant at which something changed, and the last one before each begin."""
        versions = [v for past in self.past.values() for v in past]
        found = {v.valid_from for v in versions} | {v.valid_from - TICK for v in versions}
        return sorted(found | {v.valid_to for v in versions if v.valid_to})

    def current(self, type_name: str) -> list[Row]:
        return [self.row(i, v) for i, v in sorted(self.live_of(type_name).items())]

    def versions(self, type_name: str) -> list[Row]:
        chosen = sorted(i for i in self.past if type_of(i) == type_name)
        return [self.row(i, v) for i in chosen for v in self.past[i]]

    def as_of(self, type_name: str, at: datetime) -> list[Row]:
        """The versions valid at an instant, as known then: they have no end yet."""
        rows = self.versions(type_name)
        seen = [r for r in rows if r["valid_from"] <= at and (r["valid_to"] is None or at < r["valid_to"])]
        return [r | {"valid_to": None} for r in seen]

    def row(self, identifier: str, version: Version) -> Row:
        line = [*version.ancestors, identifier]
        nearest = {name: next((i for i in line if type_of(i) == name), None) for name in ("datasource", "patient")}
        return {
            "identifier": identifier,
            "parent_identifier": version.parent,
            "datasource_id": nearest["datasource"],
            "patient_id": nearest["patient"],
            "study_id": None,
            "ancestors": list(version.ancestors),
            "valid_from": version.valid_from,
            "valid_to": version.valid_to,
            "created_at": version.created_at,
            **version.values,
        }

    # -- writing

    def earliest(self, identifier: str, now: datetime) -> datetime:
        """When a new version may begin: now, but later than all that the identifier ever had."""
        return max(
            [now, *(max(v.valid_from, v.valid_to or v.valid_from) + TICK for v in self.past.get(identifier, []))]
        )

    def create(self, resources: Sequence[Row], now: datetime) -> Done:
        there = {i for i in self.past if self.live(i)} | {r["identifier"] for r in resources}
        errors: list[type[VxDataError]] = []
        for r in resources:
            wrong = not is_parent_type(r["identifier"], r["parent_identifier"])
            errors += [InvalidInputError] * wrong
            errors += [AlreadyExistsError] * (self.live(r["identifier"]) is not None)
            errors += [NotFoundError] * (not wrong and r["parent_identifier"] not in {None, *there})
        if errors:
            raise Refused(*errors)
        waiting = {r["identifier"]: r for r in resources}
        while ready := [r for r in waiting.values() if r["parent_identifier"] not in waiting]:
            for r in ready:
                self.begin(r, self.earliest(r["identifier"], now))
                del waiting[r["identifier"]]
        assert not waiting, "the test handed in a ring of parents"
        return Done(made={r["identifier"] for r in resources})

    def begin(self, r: Row, at: datetime, under: Model | None = None) -> None:
        """Start the history of a resource, or start it again; its lineage is that of its parent (in another model)."""
        identifier, parent = r["identifier"], r["parent_identifier"]
        above = (under or self).live(parent)
        ancestors = (*above.ancestors, parent) if above else ()
        values = {name: r.get(name) for name in ("license", *FIELDS[type_of(identifier)])}
        self.past.setdefault(identifier, []).append(Version(at, at, parent, ancestors, values))

    def update(self, identifier: str, changes: Row, now: datetime, expected: datetime | None = None) -> Done:
        old = self.live(identifier)
        if old is None:
            raise Refused(NotFoundError)
        if expected is not None and old.valid_from != expected:
            raise Refused(ConflictError)
        if any(old.values.get(name) != value for name, value in changes.items()):
            self.supersede(identifier, changes, self.earliest(identifier, now))
        return Done()

    def supersede(self, identifier: str, changes: Row, at: datetime) -> None:
        old = self.past[identifier][-1]
        self.close(identifier, at)
        self.past[identifier].append(replace(old, valid_from=at, values={**old.values, **changes}))

    def delete(self, identifier: str, now: datetime, cascade: bool = False) -> Done:
        if self.live(identifier) is None:
            raise Refused(NotFoundError)
        if self.children([identifier]) and not cascade:
            raise Refused(InvalidInputError)
        closed = {identifier} | (self.descendants([identifier]) if cascade else set())
        for doomed in closed:
            self.close(doomed, self.earliest(doomed, now))
        return Done(closed=closed)

    def close(self, identifier: str, at: datetime) -> None:
        self.past[identifier][-1] = replace(self.past[identifier][-1], valid_to=at)

    def erase(self, identifier: str) -> None:
        """Forget a resource, and whatever lay below it, as long as it lay there."""
        kept = {i: [v for v in past if identifier not in v.ancestors] for i, past in self.past.items()}
        self.past = {i: past for i, past in kept.items() if past and i != identifier}

    def upsert(self, args: Upsert, now: datetime, under: Model | None = None) -> Done:
        """Do the rows one by one on a copy, and take it over if nothing forbids it.

        Parents in other tables, and what the frame lacks, are looked up in another model, if one is given: the one
        that was planned on.
        """
        at, draft, done = args.valid_from or now, self.copy(), Done()
        if at > now:
            raise Refused(InvalidInputError)
        datasources = {self.datasource_of(r["identifier"]) for r in args.rows if not self._is_elsewhere(r)}
        for r in _parents_first(args.rows):
            is_elsewhere = under is not None and type_of(r["parent_identifier"] or "") != args.type_name
            draft._upsert_row(r, args, at, done, under if is_elsewhere else draft)
            if r["identifier"] not in done.rejected:
                datasources.add(draft.datasource_of(r["identifier"]))
        if args.missing == "delete":
            draft._close_lacking(under or self, args, datasources, at, done)  # what came after the plan stays
        if done.rejected and args.on_invalid == "fail":
            raise Refused(InvalidInputError)
        self.past = draft.past
        return done

    def datasource_of(self, identifier: str) -> str | None:
        version = self.live(identifier)
        return None if version is None else self.row(identifier, version)["datasource_id"]

    def _is_elsewhere(self, r: Row) -> bool:
        """Whether a row names another parent than the live resource has: it does not name the datasource there."""
        live = self.live(r["identifier"])
        return live is not None and r["parent_identifier"] not in (None, live.parent)

    def _upsert_row(self, r: Row, args: Upsert, at: datetime, done: Done, parents: Model | None) -> None:
        identifier, parent, old = r["identifier"], r["parent_identifier"], self.live(r["identifier"])
        values = {name: r[name] for name in args.given}
        is_late = args.valid_from is not None and self.earliest(identifier, at) > at
        has_place = is_parent_type(identifier, parent) and (parent is None or bool((parents or self).live(parent)))
        is_same = old is not None and all(old.values[name] == value for name, value in values.items())
        if (old is None and not has_place) or (old is not None and parent not in (None, old.parent)):
            done.rejected.add(identifier)
        elif is_same:
            done.unchanged += 1
        elif is_late:
            done.rejected.add(identifier)
        elif old is None:
            self.begin(r, self.earliest(identifier, at), parents)
            done.created += 1
            done.made.add(identifier)
        else:
            self.supersede(identifier, values, self.earliest(identifier, at))
            done.updated += 1

    def _close_lacking(
        self, before: Model, args: Upsert, datasources: set[str | None], at: datetime, done: Done
    ) -> None:
        held = {r["identifier"] for r in args.rows}
        parents = {r["parent_identifier"] for r in args.rows} | {v.parent for i in held if (v := before.live(i))}
        lacking = {i for i in before.live_of(args.type_name) if before.datasource_of(i) in datasources} - held
        if args.cascade:
            lacking |= {i for i in before.descendants(lacking) if type_of(i) == args.type_name}
        if lacking & (held | parents):
            raise Refused(InvalidInputError)
        late = {i for i in lacking if args.valid_from is not None and before.earliest(i, at) > at}
        late |= {above for i in late for above in before.past[i][-1].ancestors if above in lacking}  # they stay too
        done.rejected |= late
        done.closed = lacking - late
        below = before.descendants(done.closed) - done.closed if args.cascade else set()
        if before.children(done.closed) - done.closed - below:
            raise Refused(InvalidInputError)
        for identifier in done.closed | below:
            self.close(identifier, self.earliest(identifier, at))


def is_parent_type(identifier: str, parent: str | None) -> bool:
    allowed = PARENT_TYPES[type_of(identifier)]
    return type_of(parent) in allowed if parent is not None else not allowed


def _parents_first(rows: Sequence[Row]) -> list[Row]:
    held = {r["identifier"]: r for r in rows}

    def depth(r: Row) -> int:
        parent = held.get(r.get("parent_identifier") or "")
        return 0 if parent is None else 1 + depth(parent)

    return sorted(rows, key=depth)
