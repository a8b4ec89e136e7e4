"""The story of a lake as plain dicts: what was written, and what a view of it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from vxdata_test_plugin import Biopsy

from vxdata.catalog.table import table_spec
from vxdata.schemas.payload import PathologySpecimenPayload, VolumePayload

Row = dict[str, Any]
Key = tuple[str, int]
TICK = timedelta(microseconds=1)

NAMESPACES = ("volumes", "pathology_specimens", "biopsies")
SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    payload.namespace: dict(table_spec(payload).visible)
    for payload in (VolumePayload, PathologySpecimenPayload, Biopsy)
}
LINEAGE = {"datasource_id": "datasource", "patient_id": "patient", "study_id": "imagingstudy"}


@dataclass(frozen=True)
class View:
    """What a query looks at: the current rows or those of an instant, or all versions (begun by an instant)."""

    instant: datetime | None = None
    versions: bool = False


@dataclass
class Story:
    """What was written, as plain dicts: the versions of each namespace with their ends."""

    versions: dict[str, list[Row]] = field(default_factory=lambda: {namespace: [] for namespace in NAMESPACES})

    def live(self, namespace: str) -> dict[str, Row]:
        return {row["identifier"]: row for row in self.versions[namespace] if row["valid_to"] is None}

    def close(self, namespace: str, identifier: str, at: datetime) -> Row:
        row = self.live(namespace)[identifier]
        row["valid_to"] = at
        return row

    def create(self, namespace: str, row: Mapping[str, Any], at: datetime) -> None:
        times = {"valid_from": at, "valid_to": None, "created_at": at}
        self.versions[namespace].append(dict.fromkeys(SCHEMAS[namespace]) | dict(row) | times)

    def change(self, namespace: str, identifier: str, values: Mapping[str, Any], at: datetime) -> None:
        old = self.live(namespace)[identifier]
        if any(old[name] != value for name, value in values.items()):
            self.close(namespace, identifier, at)
            self.versions[namespace].append({**old, **values, "valid_from": at, "valid_to": None})

    def seen(self, namespace: str, view: View) -> list[Row]:
        """Return the rows of a view, with their ends as the view knows them."""
        rows, at = self.versions[namespace], view.instant
        if at is None:
            return rows if view.versions else [row for row in rows if row["valid_to"] is None]
        begun = [row for row in rows if row["valid_from"] <= at]
        known = [{**row, "valid_to": _by(row["valid_to"], at)} for row in begun]
        return known if view.versions else [row for row in known if row["valid_to"] is None]

    def copy(self) -> Story:
        return Story({namespace: [dict(row) for row in rows] for namespace, rows in self.versions.items()})


def _by(end: datetime | None, at: datetime) -> datetime | None:
    return end if end is not None and end <= at else None


def instants_of(story: Story) -> list[datetime]:
    """Return the instants at which anything began or ended, with those just before, and two far away."""
    rows = [row for rows in story.versions.values() for row in rows]
    edges = {at for row in rows for at in (row["valid_from"], row["valid_to"]) if at is not None}
    return sorted(
        {datetime(2019, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)} | edges | {e - TICK for e in edges}
    )
