"""The oracle of queries: predicate trees of its own, a lake's story kept as plain dicts, and DuckDB that judges both.

Nothing here reads `vxdata.expr`. A tree is turned into the SDK's predicate and, by other code, into SQL with
parameters over the rows that the story says are there. Subqueries are run first and their values stand in the SQL as
literals: `x > ANY(s)` is `x > v1 OR x > v2 ...`, which is its definition and not how the product computes it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from vxdata_test_plugin import Biopsy

from vxdata.catalog.table import table_spec
from vxdata.schemas.payload import PathologySpecimenPayload, VolumePayload
from vxdata.sdk import ALL, ANY, Client, F, has_ancestor

Row = dict[str, Any]
Key = tuple[str, int]
KEY = "identifier, epoch_us(valid_from)"
TICK = timedelta(microseconds=1)
DOCS = Path(__file__).resolve().parents[2] / "docs" / "sql.md"

NAMESPACES = ("volumes", "pathology_specimens", "biopsies")
SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    payload.namespace: dict(table_spec(payload).visible)
    for payload in (VolumePayload, PathologySpecimenPayload, Biopsy)
}
LINEAGE = {"datasource_id": "datasource", "patient_id": "patient", "study_id": "imagingstudy"}


# -- trees


@dataclass(frozen=True)
class Test:
    """A test of one column: an operator or the name of a method, and its arguments."""

    __test__ = False
    column: str
    verb: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class HasAncestor:
    identifier: str


@dataclass(frozen=True)
class Sub:
    """A subquery: one column of some rows, by identifier if there is a limit."""

    namespace: str
    column: str
    where: Tree | None = None
    versions: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class SubTest:
    """A test of one column against a subquery: is_in, contains_any, or an operator with ANY or ALL."""

    column: str
    verb: str
    sub: Sub
    quantifier: str = ""


@dataclass(frozen=True)
class Both:
    left: Tree
    right: Tree


@dataclass(frozen=True)
class Either:
    left: Tree
    right: Tree


@dataclass(frozen=True)
class Never:
    """The negation."""

    part: Tree


Tree = Test | HasAncestor | SubTest | Both | Either | Never

OPERATORS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_METHODS = {"==": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}


def to_predicate(tree: Tree, client: Client) -> Any:
    """Return the tree as the SDK takes it."""
    match tree:
        case Both(left, right):
            return to_predicate(left, client) & to_predicate(right, client)
        case Either(left, right):
            return to_predicate(left, client) | to_predicate(right, client)
        case Never(part):
            return ~to_predicate(part, client)
        case HasAncestor(identifier):
            return has_ancestor(identifier)
        case Test(column, verb, arguments):
            return getattr(F[column], _METHODS.get(verb, verb))(*arguments)
        case SubTest(column, verb, sub, quantifier):
            query = to_subquery(sub, client)
            value = {"ANY": ANY, "ALL": ALL}[quantifier](query) if quantifier else query
            return getattr(F[column], _METHODS.get(verb, verb))(value)


def to_subquery(sub: Sub, client: Client) -> Any:
    query = getattr(client, sub.namespace).query()
    query = query.versions() if sub.versions else query
    query = query if sub.where is None else query.filter(to_predicate(sub.where, client))
    if sub.limit is not None:
        query = query.sort("identifier", "valid_from").limit(sub.limit)
    return query.select(sub.column)


# -- what the trees mean


@dataclass(frozen=True)
class View:
    """What a query looks at: the current rows or those of an instant, or all versions (begun by an instant)."""

    instant: datetime | None = None
    versions: bool = False


@dataclass
class Sql:
    """A condition or a statement with `?` for its parameters."""

    text: str
    parameters: list[Any] = field(default_factory=list)

    def __and__(self, other: Sql) -> Sql:
        return Sql(f"({self.text} AND {other.text})", self.parameters + other.parameters)

    def __or__(self, other: Sql) -> Sql:
        return Sql(f"({self.text} OR {other.text})", self.parameters + other.parameters)


FALSE, TRUE = Sql("FALSE"), Sql("TRUE")


class Judge:
    """Answers trees over one chapter of the story, in DuckDB."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._connection = connect()
        self._made: set[str] = set()

    def keys(self, namespace: str, view: View, trees: Iterable[Tree]) -> list[Key]:
        """Return the keys of the rows for which all trees are true."""
        where = self.condition(namespace, view, trees)
        return self.run(f"SELECT {KEY} FROM {self.table(namespace, view)} WHERE {where.text}", where).rows()

    def run(self, statement: str, where: Sql = TRUE) -> pl.DataFrame:
        return pl.DataFrame(self._connection.sql(statement, params=where.parameters).to_arrow_table())

    def condition(self, namespace: str, view: View, trees: Iterable[Tree]) -> Sql:
        return reduce(and_, (self.sql(tree, namespace, view) for tree in trees), TRUE)

    def table(self, namespace: str, view: View) -> str:
        """Return the name of a table of what a view shows."""
        at = "now" if view.instant is None else f"{view.instant:%Y%m%dT%H%M%S%f}"
        name = f'"{namespace} {at} {view.versions}"'
        if name not in self._made:
            rows = pl.DataFrame(self._story.seen(namespace, view), SCHEMAS[namespace], orient="row")
            self._connection.register("given", rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
            self._connection.execute(f"CREATE TABLE {name} AS FROM given")
            self._made.add(name)
        return name

    def values(self, sub: Sub, view: View) -> list[Any]:
        """Return the values of a subquery, without nulls."""
        seen = View(view.instant, sub.versions)
        where = TRUE if sub.where is None else self.sql(sub.where, sub.namespace, seen)
        limit = "" if sub.limit is None else f" ORDER BY identifier, valid_from LIMIT {sub.limit}"
        statement = f'SELECT "{sub.column}" FROM {self.table(sub.namespace, seen)} WHERE {where.text}{limit}'
        return list(dict.fromkeys(self.run(statement, where).to_series().drop_nulls()))

    def sql(self, tree: Tree, namespace: str, view: View) -> Sql:
        """Return the condition that a tree means."""
        match tree:
            case Both(left, right):
                return self.sql(left, namespace, view) & self.sql(right, namespace, view)
            case Either(left, right):
                return self.sql(left, namespace, view) | self.sql(right, namespace, view)
            case Never(part):
                inner = self.sql(part, namespace, view)
                return Sql(f"(NOT {inner.text})", inner.parameters)
            case HasAncestor(identifier):
                return Sql("list_contains(ancestors, ?)", [identifier])
            case SubTest(column, verb, sub, ""):
                return _among(f'"{column}"', verb, self.values(sub, view))
            case SubTest(column, verb, sub, quantifier):
                each = [Sql(f'("{column}" {verb} ?)', [value]) for value in self.values(sub, view)]
                return reduce(or_, each, FALSE) if quantifier == "ANY" else reduce(and_, each, TRUE)
            case Test(column, verb, arguments):
                return _test(namespace, column, verb, arguments)


def _test(namespace: str, column: str, verb: str, arguments: Sequence[Any]) -> Sql:
    dtype = SCHEMAS[namespace][column]
    name = f'"{column}"'
    match verb, arguments:
        case ("==", [None]) | ("is_null", []):
            return Sql(f"({name} IS NULL)")
        case ("!=", [None]) | ("is_not_null", []):
            return Sql(f"({name} IS NOT NULL)")
        case (("eq_missing" | "ne_missing"), [value]):
            word = "NOT" if verb == "eq_missing" else ""
            typed = "NULL" if value is None else "?"
            return Sql(f"({name} IS {word} DISTINCT FROM {typed})", _given(column, dtype, [value]))
        case "between", [low, high]:
            return Sql(f"({name} BETWEEN ? AND ?)", _given(column, dtype, [low, high]))
        case (("after" | "before"), [value]):
            return Sql(f"({name} {'>' if verb == 'after' else '<'} ?)", _given(column, dtype, [value]))
        case "contains", [value] if isinstance(dtype, pl.List):
            return _among(name, "contains_any", [value])
        case (("contains_any" | "is_in"), [values]):
            return _among(name, verb, _given(column, dtype, values))
        case (("contains" | "startswith" | "endswith"), [text]):
            return Sql(f"({name} LIKE ? ESCAPE '!')", [_pattern(column, verb, text)])
        case operator, [value]:
            return Sql(f"({name} {OPERATORS[operator]} ?)", _given(column, dtype, [value]))
    raise ValueError((verb, arguments))


def _among(name: str, verb: str, values: list[Any]) -> Sql:
    """Return whether a column, or an element of a list column, is one of some values, none of them null."""
    marks = ", ".join("?" * len(values))
    if not values:
        return FALSE
    if verb == "is_in":
        return Sql(f"({name} IN ({marks}))", values)
    return Sql(f"(len(list_filter({name}, lambda x: x IN ({marks}))) > 0)", values)


def _pattern(column: str, verb: str, text: str) -> str:
    escaped = "".join(f"!{c}" if c in "!%_" else c for c in text)
    if verb == "startswith" and column in LINEAGE:
        return f"{typed(column, text)}%" if escaped == text else f"{typed(column, escaped)}%"
    return {"contains": f"%{escaped}%", "startswith": f"{escaped}%", "endswith": f"%{escaped}"}[verb]


def typed(column: str, text: str) -> str:
    """Return a text of a lineage column with the type before it."""
    return text if text.startswith(f"{LINEAGE[column]}/") else f"{LINEAGE[column]}/{text}"


def _given(column: str, dtype: pl.DataType, values: Iterable[Any]) -> list[Any]:
    """Return literals as DuckDB compares them with the column; nulls are ignored."""
    return [_one(column, dtype, value) for value in values if value is not None]


def _one(column: str, dtype: pl.DataType, value: Any) -> Any:
    if column in LINEAGE:
        return typed(column, value)
    if isinstance(dtype, pl.Datetime):
        return to_utc(value)
    if isinstance(dtype, pl.Date) and isinstance(value, str):
        return date.fromisoformat(value)
    return Decimal(str(value)) if isinstance(dtype, pl.Decimal) and not isinstance(value, Decimal) else value


def to_utc(value: str | date | datetime) -> datetime:
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    at = at if isinstance(at, datetime) else datetime(at.year, at.month, at.day)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


# -- DuckDB


def connect(*, careful: bool = True) -> duckdb.DuckDBPyConnection:
    """Return a connection; a careful one does without the optimizer by which DuckDB 2.0.0 loses a LIMIT.

    (It does where a LEFT JOIN is known to find nothing and a filter is known to be true.)
    """
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    if careful:
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection


def connect_to_files(uri: str, *, careful: bool = True) -> duckdb.DuckDBPyConnection:
    """Return a connection that has the rows of a lake's files, and the views of docs/sql.md over them."""
    connection = connect(careful=careful)
    for namespace in NAMESPACES:
        rows = pl.scan_delta(f"{uri}/{namespace}").collect()
        connection.register("given", rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
        connection.execute(f"CREATE TABLE {namespace}_rows AS FROM given")
        for view in documented_views(namespace):
            connection.execute(view)
    return connection


def documented_views(namespace: str) -> list[str]:
    """Return the statements of docs/sql.md, for a namespace."""
    statements = DOCS.read_text().split("```sql\n")[1:]
    return [part.partition("```")[0].replace("volumes", namespace) for part in statements]


# -- the story


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


def instants_of(story: Story) -> list[datetime]:
    """Return the instants at which anything began or ended, with those just before, and two far away."""
    rows = [row for rows in story.versions.values() for row in rows]
    edges = {at for row in rows for at in (row["valid_from"], row["valid_to"]) if at is not None}
    return sorted(
        {datetime(2019, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)} | edges | {e - TICK for e in edges}
    )
