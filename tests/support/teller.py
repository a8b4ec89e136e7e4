"""Tells a story to a lake by chance: nulls everywhere, borders, quotes and wildcards in every text."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from tests.support.oracle import Judge, connect_to_files
from tests.support.story import LINEAGE, SCHEMAS, TICK, Row, Story
from vxdata.sdk import Client, F


@dataclass(frozen=True)
class Chapter:
    """A lake as it was at one point of the story, and who judges it."""

    name: str
    client: Client
    story: Story
    judge: Judge
    files: duckdb.DuckDBPyConnection


TEXTS = (
    *("", "T2", "t2", "T2 tra", "T%", "T_", "100%", "a_b", "[T2]", "it's", 'say "x"', "back\\slash", "\\d", "!", "é"),
    *("e\u0301", "日本", "😀", "\U0010ffff", "a" * 63, "a" * 64, "a" * 65, "a" * 63 + "\U0010ffff" * 2, "two\nlines"),
    *(" T2 ", "\ud7ff", "patient/DA001", "NULL", "?", "$1"),
)
FLOATS = (0.0, -0.0, 1.0, 1.5, 3.0, -2.25, 0.1 + 0.2, 0.3, 1e-300, 1e300, 2.0**53)
INFINITE = (*FLOATS, float("inf"), float("-inf"))
INTS = (0, 1, 3, -1, -2, 7, 2**53 + 1, 2**63 - 1, -(2**63))
INSTANTS = (
    *(datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC) - TICK, datetime(2024, 1, 1, tzinfo=UTC)),
    *(datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC), datetime(2024, 3, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    *(datetime(2023, 12, 31, 23, 59, 59, 999_999, UTC), datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)),
)
DATES = (date(1, 1, 1), date(1969, 12, 31), date(2024, 2, 29), date(2024, 3, 1), date(9999, 12, 31))
DECIMALS = tuple(map(Decimal, ("0.00", "-0.01", "41.50", "41.51", "9999.99", "-9999.99", "0.30")))
BYTES = (b"", b"\x00", b"\x89PNG\x00", b"'")

DATASOURCES = ("datasource/a", "datasource/b =#%2F", "datasource/é'")
PATIENTS = {
    "patient/DA001": DATASOURCES[0],
    "patient/DA 002%": DATASOURCES[0],
    "patient/it's [_]": DATASOURCES[1],
    "patient/da/001": DATASOURCES[1],
    "patient/é": DATASOURCES[2],
}
STUDIES = {f"imagingstudy/{n}": patient for n, patient in enumerate([*PATIENTS, "patient/DA001"])}
VOLUMES = tuple(f"volume/{name}" for name in [*"abcdefghijklmnop", "q'", "r%", "s_", "t/1", "t/2", "é"])
SPECIMENS = tuple(f"pathologyspecimen/{n}" for n in range(14))
BIOPSIES = tuple(f"biopsy/{n}" for n in range(10))
IDENTIFIERS = (*DATASOURCES, *PATIENTS, *STUDIES, *VOLUMES, *SPECIMENS, *BIOPSIES)

LISTS = ([], [None], ["volume/a", None], ["volume/a", "volume/b", "é"], ["", "it's"], ["T2"], ["volume/c"], [None, "%"])
POOLS: dict[str, dict[str, Sequence[Any]]] = {
    "volumes": {
        **dict.fromkeys(("volume_type", "series_description", "license"), TEXTS),
        "slice_thickness": FLOATS,
        "b_value": INFINITE,
        "series_number": INTS,
        "acquisition_datetime": INSTANTS,
        "derived_from": LISTS,
        "image_plane": ("sagittal",),
    },
    "pathology_specimens": {
        "license": TEXTS,
        "type": TEXTS,
        "is_event_root": (True, False),
        "collected_at": INSTANTS,
    },
    "biopsies": {
        "technique": ("transrectal", "transperineal"),
        "taken_on": DATES,
        "reported_at": INSTANTS,
        "is_targeted": (True, False),
        "prostate_volume": DECIMALS,
        "thumbnail": BYTES,
        "remarks": LISTS,
        "needle": ({"maker": "", "gauge": None}, {"maker": None, "gauge": None}),
        "license": ("CC0",),
        "cores": ([], [None], [{"location": "PZ", "length_mm": 1.5, "gleason": [3, None]}]),
    },
}
ALWAYS_NULL = {"volumes": "path_nii", "pathology_specimens": "anatomic_location"}


class Teller:
    """Writes a lake and the story of it, side by side."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._random = folder, random.Random(seed)
        self.client, self.story = Client(folder / "lake", author="teller"), Story()
        self.instants: list[datetime] = []

    def tell(self) -> list[Chapter]:
        """Tell the story; return its chapters, each a lake of its own."""
        self._ancestors(at := datetime(2020, 1, 1, tzinfo=UTC))
        self._create("volumes", VOLUMES[:18], at)
        self._create("biopsies", BIOPSIES[:8], at)
        for depth in (SPECIMENS[:4], SPECIMENS[4:8], SPECIMENS[8:12]):
            self._create("pathology_specimens", depth, at)
        chapters = [self._chapter("created")]
        self._change("volumes", VOLUMES[3:12], datetime(2020, 2, 1, tzinfo=UTC))
        self._change("pathology_specimens", SPECIMENS[:6], datetime(2020, 2, 1, tzinfo=UTC))
        self._change("volumes", VOLUMES[8:15], datetime(2020, 3, 1, tzinfo=UTC))
        chapters.append(self._chapter("changed"))
        self._delete("volumes", VOLUMES[10:14], datetime(2020, 4, 1, tzinfo=UTC))
        self._delete("pathology_specimens", SPECIMENS[9:12], datetime(2020, 4, 1, tzinfo=UTC))
        self._create("volumes", VOLUMES[12:16:3] + VOLUMES[18:20], datetime(2020, 5, 1, tzinfo=UTC))
        self._create("pathology_specimens", SPECIMENS[10:13], datetime(2020, 5, 1, tzinfo=UTC))
        chapters.append(self._chapter("deleted and made again"))
        self._one_by_one()
        return [*chapters, self._chapter("one by one")]

    def _chapter(self, name: str) -> Chapter:
        folder = self._folder / name.replace(" ", "-")
        shutil.copytree(self._folder / "lake", folder)
        story = self.story.copy()
        return Chapter(name, Client(folder), story, Judge(story), connect_to_files(str(folder)))

    def _ancestors(self, at: datetime) -> None:
        self.client.datasources.upsert(pl.DataFrame({"identifier": DATASOURCES}), valid_from=at)
        for namespace, parents in ((self.client.patients, PATIENTS), (self.client.imaging_studies, STUDIES)):
            frame = pl.DataFrame({"identifier": list(parents), "parent_identifier": list(parents.values())})
            namespace.upsert(frame, valid_from=at)

    def _payload(self, namespace: str, share: float = 1.0) -> Row:
        """Return values of a share of the fields; a third of them null."""
        return {
            name: None if self._random.random() < 0.3 else self._random.choice(pool)
            for name, pool in POOLS[namespace].items()
            if self._random.random() < share
        }

    def _lineage(self, namespace: str, identifier: str) -> Row:
        """Return the columns of a parent picked by chance."""
        if namespace == "volumes":
            study = self._random.choice(list(STUDIES))
            chain = [PATIENTS[STUDIES[study]], STUDIES[study], study]
        else:
            patient = self._random.choice(list(PATIENTS))
            chain = [PATIENTS[patient], patient]
            above = [row for name, row in self.story.live("pathology_specimens").items() if name < identifier]
            if namespace == "pathology_specimens" and above and self._random.random() < 0.8:
                parent = self._random.choice(above)
                chain = [*parent["ancestors"], parent["identifier"]]
        by_type = {name.partition("/")[0]: name for name in chain}
        known = {column: by_type.get(type_name) for column, type_name in LINEAGE.items()}
        return {"identifier": identifier, "parent_identifier": chain[-1], "ancestors": chain, **known}

    def _create(self, namespace: str, identifiers: Iterable[str], at: datetime) -> None:
        fresh = [i for i in identifiers if i not in self.story.live(namespace)]
        rows = [self._lineage(namespace, i) | self._payload(namespace) for i in fresh]
        self._upsert(namespace, rows, ("parent_identifier",), at)
        for row in rows:
            self.story.create(namespace, row, at)

    def _change(self, namespace: str, identifiers: Iterable[str], at: datetime) -> None:
        live = self.story.live(namespace)
        rows = [{**live[i], **self._payload(namespace, 0.5)} for i in identifiers if i in live]
        self._upsert(namespace, rows, (), at)
        for row in rows:
            changes = {name: row[name] for name in POOLS[namespace]}
            self.story.change(namespace, row["identifier"], changes, at)

    def _upsert(self, namespace: str, rows: list[Row], further: tuple[str, ...], at: datetime) -> None:
        names = ["identifier", *further, *POOLS[namespace]]
        frame = pl.DataFrame([{n: row[n] for n in names} for row in rows], {n: SCHEMAS[namespace][n] for n in names})
        report = getattr(self.client, namespace).upsert(frame, valid_from=at)
        assert report.rejected.is_empty(), report
        self.instants.append(at)

    def _delete(self, namespace: str, identifiers: Iterable[str], at: datetime) -> None:
        live = self.story.live(namespace)
        parents = {row["parent_identifier"] for row in self.story.live("pathology_specimens").values()}
        doomed = {i for i in identifiers if i in live and i not in parents}
        kept = pl.DataFrame({"identifier": [i for i in live if i not in doomed]})
        report = getattr(self.client, namespace).upsert(
            kept, missing="delete", datasources=list(DATASOURCES), valid_from=at
        )
        assert report.deleted == len(doomed)
        for identifier in doomed:
            self.story.close(namespace, identifier, at)
        self.instants.append(at)

    def _one_by_one(self) -> None:
        """Use the verbs on single resources, whose instants are the clock's."""
        for identifier in (*VOLUMES[:3], *VOLUMES[1:3]):
            changes = self._payload("volumes", 0.4) | {"volume_type": self._random.choice(TEXTS)}
            self._update_one("volumes", identifier, changes)
        self._update_one("pathology_specimens", SPECIMENS[2], {"is_event_root": None, "type": "RPE"})
        self._delete_one("volumes", VOLUMES[2])
        self._delete_one("volumes", VOLUMES[4])
        self._delete_one("biopsies", BIOPSIES[1])
        self._create("volumes", [VOLUMES[2], VOLUMES[20], VOLUMES[21]], self._now())
        self._update_one("volumes", VOLUMES[2], {"volume_type": "T2", "slice_thickness": 3.0})

    def _now(self) -> datetime:
        return datetime.now(UTC)

    def _update_one(self, namespace: str, identifier: str, changes: Row) -> None:
        values = {name: value for name, value in changes.items() if name != "license"}
        at = getattr(self.client, namespace).update(identifier, values).valid_from
        self.story.change(namespace, identifier, values, at)
        self.instants.append(at)

    def _delete_one(self, namespace: str, identifier: str) -> None:
        verbs = getattr(self.client, namespace)
        verbs.delete(identifier)
        at = verbs.query().versions().filter(F.identifier == identifier).collect()["valid_to"].max()
        self.story.close(namespace, identifier, at)
        self.instants.append(at)
