"""What happened to one resource: each change, field by field, with who made it and why.

A version tells what it holds and which commit wrote it; a tombstone, or `closed_by` where compaction has folded it,
tells which commit ended the last one. The commits' records tell author and reason.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import Any

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import NotFoundError
from vxdata.lake import scd2
from vxdata.lake.records import commit_records
from vxdata.schemas.columns import INSTANT
from vxdata.sdk.session import Session

CHANGE_SCHEMA: dict[str, pl.DataType] = {
    "valid_from": INSTANT,
    "valid_to": INSTANT,
    **dict.fromkeys(
        ("operation", "field", "before", "after", "author", "reason", "commit_id"), pl.String()
    ),
}  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One change of a resource: from one state to the next, or to none.

    Attributes:
        at: when it became valid.
        until: when the state that it made ended; None if it holds.
        operation: created, updated or deleted.
        fields: name, text before and text after of what changed.
        commit_id: the commit; None if it is not known.
    """

    at: datetime
    until: datetime | None
    operation: str
    fields: tuple[tuple[str, str | None, str | None], ...]
    commit_id: str | None


def read_changes(session: Session, spec: TableSpec, identifier: str) -> pl.DataFrame:
    """Return the changes of a resource, oldest first; see `Resources.changes`."""
    snapshot = session.view.snapshot(spec)
    events = events_in(snapshot.history_of([identifier]), spec, session.instant)
    if not events:
        raise NotFoundError(f"{identifier!r} does not exist.")
    ids = {event.commit_id for event in events if event.commit_id is not None}
    known = commit_records(session.lake.table(spec), ids, snapshot.version)
    return pl.DataFrame(
        [row for event in events for row in _rows(event, known.get(event.commit_id or "", {}))],
        schema=CHANGE_SCHEMA,
        orient="row",
    )


def events_in(rows: pl.DataFrame, spec: TableSpec, instant: datetime | None = None) -> list[Event]:
    """Return what happened to one resource, from its physical rows, folded or not; pure.

    Args:
        rows: all physical rows of the resource.
        spec: its table.
        instant: as known then; None for all.
    """
    lazy = rows.lazy()
    versions = scd2.versions(lazy, scd2.closings_of(lazy), instant).sort("valid_from").collect().to_dicts()
    names = ("parent_identifier", "license", *spec.fields)
    return list(_events(versions, _deleters(rows), names)) if versions else []


def _deleters(rows: pl.DataFrame) -> dict[datetime, str | None]:
    """Return the commit of each tombstone by the `valid_from` of the version that it ends."""
    return dict(rows.filter("is_deleted").select("closes", "commit_id").iter_rows())


def _events(versions: list[Row], deleters: dict[datetime, str | None], names: tuple[str, ...]) -> Iterator[Event]:
    absent = dict.fromkeys(names)
    for before, version in pairwise([None, *versions]):
        assert version is not None, "only the first of the pairs has no version before it"
        follows = before is not None and before["valid_to"] == version["valid_from"]
        if before is not None and not follows:
            yield _deletion(before, version["valid_from"], deleters)
        yield Event(
            version["valid_from"],
            version["valid_to"],
            "updated" if follows else "created",
            tuple(_differences(before if follows and before else absent, version, names)),
            version["commit_id"],
        )
    if versions[-1]["valid_to"] is not None:
        yield _deletion(versions[-1], None, deleters)


def _deletion(last: Row, until: datetime | None, deleters: dict[datetime, str | None]) -> Event:
    commit_id = deleters.get(last["valid_from"]) or last["closed_by"]
    return Event(last["valid_to"], until, "deleted", (), commit_id)


def _differences(before: Row, after: Row, names: tuple[str, ...]) -> Iterator[tuple[str, str | None, str | None]]:
    for name in names:
        if before[name] != after[name]:
            yield name, _text(before[name]), _text(after[name])


def _rows(event: Event, record: Row) -> Iterator[tuple[Any, ...]]:
    for field in event.fields or ((None, None, None),):
        who_and_why = record.get("author"), record.get("reason"), event.commit_id
        yield event.at, event.until, event.operation, *field, *who_and_why


def _text(value: Any) -> str | None:
    """Return a value as text: a text as it is, instants in ISO 8601, lists and nested models as JSON."""
    match value:
        case None | str():
            return value
        case date():
            return value.isoformat()
        case bool() | list() | dict():
            return json.dumps(value, ensure_ascii=False, default=_text)
        case bytes():
            return value.hex()
    return str(value)
