"""What users ask of a lake, as Hypothesis strategies over a few identifiers, and the same as the SDK takes it.

The pools are small on purpose: identifiers are hit again and again, deleted, and made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import polars as pl
from hypothesis import strategies as st

from tests.support.model import FIELDS, PARENT_TYPES, Model, Row, Upsert, type_of
from vxdata.lake.upsert import UpsertReport
from vxdata.schemas import Resource
from vxdata.schemas.payload import PatientPayload
from vxdata.sdk import Client
from vxdata.sdk.namespace import Namespace

IDENTIFIERS = {
    "datasource": ("datasource/a", "datasource/b =#%2F"),
    "patient": ("patient/p0", "patient/p 1", "patient/é=2"),
    "pathologyspecimen": tuple(f"pathologyspecimen/s{n}" for n in range(4)),
}
NAMESPACES = {"datasource": "datasources", "patient": "patients", "pathologyspecimen": "pathology_specimens"}
VALUES: dict[str, tuple[Any, ...]] = {
    "license": ("CC0", None),
    "name": ("A", "", None),
    "birthyear": (1950, 1951, None),
    "sex": ("F", "", None),
    "scanner": ("X", "", None),
    "type": ("RPE", "biopsy", None),
    "is_event_root": (True, False, None),
}
COLUMN_TYPES = {"birthyear": pl.Int64(), "is_event_root": pl.Boolean()}
NEWER = ("scanner",)
"""The fields that only a newer SDK knows."""


class NewerPatient(PatientPayload, type="patient", namespace="patients", parents=("datasource",)):
    """Patients of a newer SDK, which knows one field more. It is not registered."""

    scanner: str | None = None


ALL = tuple(identifier for some in IDENTIFIERS.values() for identifier in some)
type_names = st.sampled_from(sorted(IDENTIFIERS))


def mostly(likely: Iterable[str], possible: Sequence[str]) -> st.SearchStrategy[str]:
    """One of the likely ones, three times out of four."""
    chosen = sorted(set(likely) & set(possible))
    anything = st.sampled_from(possible)
    return st.one_of(*[st.sampled_from(chosen)] * 3, anything) if chosen else anything


def known_to(model: Model) -> st.SearchStrategy[str]:
    """An identifier, mostly of a live resource."""
    return mostly((i for i in ALL if model.live(i)), ALL)


def columns_of(type_name: str) -> list[str]:
    """Return the columns of a type that this SDK can set."""
    return ["license", *(name for name in FIELDS[type_name] if name not in NEWER)]


def changes_to(identifier: str) -> st.SearchStrategy[Row]:
    """Some of a resource's columns, with values."""
    columns = st.lists(st.sampled_from(columns_of(type_of(identifier))), unique=True, min_size=1)
    return columns.flatmap(lambda names: st.fixed_dictionaries({name: st.sampled_from(VALUES[name]) for name in names}))


def parents_of(identifier: str, model: Model) -> st.SearchStrategy[str | None]:
    """A parent of a fitting type; one of the same type comes earlier in the alphabet, so that there are no rings."""
    own, old = type_of(identifier), model.live(identifier)
    fitting = [i for name in PARENT_TYPES[own] for i in IDENTIFIERS[name] if name != own or i < identifier]
    likely = [old.parent] if old and old.parent else [i for i in fitting if model.live(i)]
    return mostly(likely, fitting) if fitting else st.none()


@st.composite
def children_of(draw: st.DrawFn, parent: str, model: Model) -> list[Row]:
    """A new child of a resource, if there is an identifier left that fits."""
    fitting = [i for i in ALL if type_of(parent) in PARENT_TYPES[type_of(i)] and i != parent and not model.live(i)]
    fitting = [i for i in fitting if type_of(i) != type_of(parent) or parent < i]
    return [{"identifier": draw(st.sampled_from(fitting)), "parent_identifier": parent}] if fitting else []


@st.composite
def resources(draw: st.DrawFn, model: Model) -> Row:
    """A resource to create, mostly one that is not live."""
    chosen = draw(mostly((i for i in ALL if not model.live(i)), ALL))
    return {"identifier": chosen, "parent_identifier": draw(parents_of(chosen, model)), **draw(changes_to(chosen))}


def some_resources(model: Model) -> st.SearchStrategy[list[Row]]:
    """A list of resources of any types, children before or after their parents."""
    return st.lists(resources(model), min_size=1, max_size=3, unique_by=lambda r: str(r["identifier"]))


@st.composite
def upserts(draw: st.DrawFn, model: Model, type_name: str, newer: tuple[str, ...] = ()) -> Upsert:
    """An upsert of now."""
    given = (*draw(st.lists(st.sampled_from(columns_of(type_name)), unique=True)), *newer)
    has_parents = draw(st.booleans())
    rows = []
    for identifier in draw(st.lists(st.sampled_from(IDENTIFIERS[type_name]), unique=True, max_size=3)):
        parent = draw(parents_of(identifier, model)) if has_parents else None
        values = {name: draw(st.sampled_from(VALUES[name])) for name in given}
        rows.append({"identifier": identifier, "parent_identifier": parent, **values})
    missing = draw(st.sampled_from(["keep", "keep", "delete"]))
    on_invalid = draw(st.sampled_from(["fail", "skip"]))
    cascade = missing == "delete" and draw(st.booleans())
    return Upsert(type_name, rows, given, missing, cascade, None, on_invalid)


def to_frame(wish: Upsert) -> pl.DataFrame:
    """Return the frame of an upsert."""
    names = ["identifier", "parent_identifier", *wish.given]
    return pl.DataFrame(wish.rows, schema={name: COLUMN_TYPES.get(name, pl.String()) for name in names})


def to_resource(r: Row) -> Resource:
    """Return the resource that the SDK creates."""
    payload = {name: r[name] for name in FIELDS[type_of(r["identifier"])] if name in r}
    return Resource(**{name: value for name, value in r.items() if name not in payload}, payload=payload)


def update_with(client: Client, identifier: str, changes: Row, expected: datetime | None) -> Any:
    """Call the SDK's update."""
    payload = {name: value for name, value in changes.items() if name != "license"}
    license = {name: changes[name] for name in ("license",) if name in changes}
    return client.resources.update(identifier, payload, **license, expected_valid_from=expected)


def upsert_with(namespace: Namespace[Any], wish: Upsert, batch_id: str | None = None) -> UpsertReport:
    """Call the SDK's upsert."""
    options: dict[str, Any] = {name: getattr(wish, name) for name in ("missing", "cascade", "valid_from", "on_invalid")}
    return namespace.upsert(to_frame(wish), **options, batch_id=batch_id)
