"""The mapping pydantic -> Polars -> Arrow -> Delta: what goes in comes out, and any Delta reader can open the files."""

import hashlib
import json
import math
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field

from tests.support.registered import registered
from vxdata.catalog.table import table_spec
from vxdata.errors import InvalidInputError
from vxdata.schemas import Payload, Resource
from vxdata.schemas.payload import UtcDatetime
from vxdata.schemas.registry import registry
from vxdata.sdk import Client, F

INSTANT = pl.Datetime("us", "UTC")
PARENTS = [Resource(identifier="patient/1", parent_identifier="datasource/a"), Resource(identifier="datasource/a")]
LAST_INSTANT = datetime.max.replace(tzinfo=UTC)
FIRST_INSTANT = datetime.min.replace(tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"
    BLUE = ""


class Grade(IntEnum):
    LOW = 1
    HIGH = 2**40


class Side(Enum):
    LEFT = "left"
    RIGHT = "right"


class Point(BaseModel):
    label: str | None = None
    depth: float | None = None
    tags: list[str | None] | None = None


class Lesion(BaseModel):
    centre: Point | None = None
    outline: list[Point] | None = None
    seen_at: UtcDatetime | None = None


class Everything(Payload, type="everything", namespace="everythings", parents=("patient",)):
    text: str | None = None
    whole: int | None = None
    number: float | None = None
    flag: bool | None = None
    raw: bytes | None = None
    day: date | None = None
    instant: UtcDatetime | None = None
    naive: datetime | None = None
    aware: AwareDatetime | None = None
    amount: Decimal | None = Field(None, max_digits=38, decimal_places=10)
    choice: Literal["a", "", "c"] | None = None
    level: Literal[1, -2] | None = None
    colour: Colour | None = None
    grade: Grade | None = None
    side: Side | None = None
    texts: list[str | None] | None = None
    wholes: list[int] | None = None
    numbers: list[float | None] | None = None
    instants: list[UtcDatetime] | None = None
    sides: list[Side] | None = None
    grid: list[list[int] | None] | None = None
    point: Point | None = None
    lesion: Lesion | None = None
    lesions: list[Lesion | None] | None = None


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test register types; they are forgotten afterwards."""
    monkeypatch.setattr(registry(), "_by_type", dict(registry()._by_type))


@pytest.fixture(scope="module", autouse=True)
def everything() -> Iterator[None]:
    """Register `Everything` for this module."""
    with registered("everything", Everything):
        yield


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a local lake with a patient, shared by the tests that write things of their own into it."""
    client = Client(tmp_path_factory.mktemp("types") / "lake")
    client.resources.create(PARENTS)
    return client


def things(*payloads: Everything) -> list[Resource]:
    """Return new resources with these payloads."""
    name = uuid.uuid4().hex
    return [
        Resource(identifier=f"everything/{name}/{n}", parent_identifier="patient/1", payload=payload)
        for n, payload in enumerate(payloads)
    ]


def stored(value: Any) -> Any:
    """Return a dumped value as the lake promises to give it back: NaN is null, instants are UTC."""
    match value:
        case dict():
            return {name: stored(item) for name, item in value.items()}
        case list():
            return [stored(item) for item in value]
        case float() if math.isnan(value):
            return None
        case datetime():
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return value


# -- values


texts = st.text(max_size=8)
numbers = st.floats()
instants = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.none() | st.timezones())
points = st.builds(
    Point, label=st.none() | texts, depth=st.none() | numbers, tags=st.none() | st.lists(st.none() | texts, max_size=3)
)
lesions = st.builds(
    Lesion, centre=st.none() | points, outline=st.none() | st.lists(points, max_size=2), seen_at=st.none() | instants
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": texts,
    "whole": st.integers(-(2**63), 2**63 - 1),
    "number": numbers,
    "flag": st.booleans(),
    "raw": st.binary(max_size=8),
    "day": st.dates(),
    "instant": instants,
    "naive": st.datetimes(),
    "aware": st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones()),
    "amount": st.decimals(-(10**20), 10**20, places=10),
    "choice": st.sampled_from(["a", "", "c"]),
    "level": st.sampled_from([1, -2]),
    "colour": st.sampled_from(Colour),
    "grade": st.sampled_from(Grade),
    "side": st.sampled_from(Side),
    "texts": st.lists(st.none() | texts, max_size=3),
    "wholes": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    "numbers": st.lists(st.none() | numbers, max_size=3),
    "instants": st.lists(instants, max_size=2),
    "sides": st.lists(st.sampled_from(Side), max_size=3),
    "grid": st.lists(st.none() | st.lists(st.integers(-9, 9), max_size=2), max_size=3),
    "point": points,
    "lesion": lesions,
    "lesions": st.lists(st.none() | lesions, max_size=2),
}
payloads = st.builds(Everything, **{name: st.none() | values for name, values in VALUES.items()})
property_settings = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def test_the_strategies_cover_every_field() -> None:
    assert set(VALUES) == set(Everything.model_fields)


@property_settings
@given(given=st.lists(payloads, min_size=1, max_size=6))
def test_what_is_created_comes_back_and_is_unchanged_when_it_is_upserted(
    client: Client, given: list[Everything]
) -> None:
    resources = things(*given)
    made = client.everythings.create(resources)
    found = client.everythings.retrieve([resource.identifier for resource in resources])
    assert [response.payload.model_dump() for response in found] == [stored(p.model_dump()) for p in given]
    assert found == made
    ours = F.identifier.startswith(resources[0].identifier.removesuffix("0"))
    report = client.everythings.upsert(client.everythings.query().filter(ours).collect())
    assert (report.unchanged, report.created, report.updated, report.commit_id) == (len(given), 0, 0, None)


@property_settings
@given(before=payloads, after=payloads)
def test_an_update_sees_every_difference_and_no_other(client: Client, before: Everything, after: Everything) -> None:
    [thing] = things(before)
    made = client.everythings.create(thing)
    changed = client.everythings.update(thing.identifier, after.model_dump())
    assert changed.payload.model_dump() == stored(after.model_dump())
    is_same = stored(before.model_dump()) == stored(after.model_dump())
    assert (changed.valid_from == made.valid_from) == is_same


@pytest.mark.parametrize(
    ("field", "states"),
    [
        ("text", ["", None, " "]),
        ("texts", [[], [None], [""], None, ["", None]]),
        ("numbers", [[], [None], [0.0], None]),
        ("grid", [[], [None], [[]], [[0]], None]),
        ("point", [{}, {"tags": []}, {"tags": [None]}, {"label": ""}, None]),
        ("lesion", [{}, {"centre": {}}, {"outline": []}, {"outline": [{}]}, None]),
        ("lesions", [[], [None], [{}], [{"outline": [{}]}], None]),
    ],
)
def test_null_and_empty_differ_at_every_depth(client: Client, field: str, states: list[Any]) -> None:
    [thing] = things(Everything())
    client.everythings.create(thing)
    for state in states:
        client.everythings.update(thing.identifier, {field: state})
    history = [version.payload.model_dump()[field] for version in client.everythings.history(thing.identifier)]
    assert history == [Everything.model_validate({field: state}).model_dump()[field] for state in [None, *states]]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instant", LAST_INSTANT),
        ("instant", FIRST_INSTANT),
        ("day", date.max),
        ("day", date.min),
        ("amount", Decimal("9" * 28 + "." + "9" * 10)),
        ("amount", Decimal("-0.0000000001")),
        ("whole", -(2**63)),
        ("number", 5e-324),
        ("number", -math.inf),
        ("text", "\x00"),
        ("text", "\U0010ffff" * 100),
        ("raw", bytes(range(256)) * 10),
        ("wholes", list(range(1000))),
    ],
)
def test_extreme_values_come_back(client: Client, field: str, value: Any) -> None:
    [thing] = things(Everything.model_validate({field: value}))
    client.everythings.create(thing)
    assert client.everythings.retrieve(thing.identifier).payload.model_dump()[field] == value
    assert (
        client.everythings.upsert(
            client.everythings.query().filter(F.identifier == thing.identifier).collect()
        ).unchanged
        == 1
    )


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
def test_an_int_that_no_column_holds_is_refused_with_the_field(client: Client, value: int) -> None:
    [thing] = things(Everything(whole=value))
    with pytest.raises(InvalidInputError, match="whole"):
        client.everythings.create(thing)
    with pytest.raises(InvalidInputError, match="birthyear"):
        client.patients.update("patient/1", {"birthyear": value})


# -- columns


def column_of(annotation: Any, default: Any = None) -> pl.DataType:
    """Return the column type of a payload class's field with this annotation."""
    attributes = {"__module__": __name__, "__annotations__": {"field_x": annotation}, "field_x": default}
    cls = type(Payload)("Thing", (Payload,), attributes, type="thing", namespace="things", parents=("patient",))
    return table_spec(cls).fields["field_x"]


@pytest.mark.parametrize(
    ("annotation", "column"),
    [
        (str, pl.String()),
        (str | None, pl.String()),
        (Optional[str], pl.String()),  # noqa: UP045
        (Annotated[str, Field(max_length=3)], pl.String()),
        (Annotated[int | None, Field(ge=0)], pl.Int64()),
        (float, pl.Float64()),
        (bool, pl.Boolean()),
        (bytes, pl.Binary()),
        (date, pl.Date()),
        (datetime, INSTANT),
        (UtcDatetime, INSTANT),
        (AwareDatetime, INSTANT),
        (Annotated[Decimal, Field(max_digits=8, decimal_places=2)], pl.Decimal(8, 2)),
        (Annotated[Decimal, Field(max_digits=8, decimal_places=2)] | None, pl.Decimal(8, 2)),
        (list[Annotated[Decimal, Field(max_digits=8, decimal_places=2)]], pl.List(pl.Decimal(8, 2))),
        (Literal["a", "b"], pl.String()),
        (Literal[1, 2], pl.Int64()),
        (Literal["a", None], pl.String()),
        (Colour, pl.String()),
        (Grade, pl.Int64()),
        (list[list[Side]], pl.List(pl.List(pl.String()))),
        (list[str | None] | None, pl.List(pl.String())),
        (Point, pl.Struct({"label": pl.String(), "depth": pl.Float64(), "tags": pl.List(pl.String())})),
    ],
)
def test_an_annotation_has_one_column_type(annotation: Any, column: pl.DataType) -> None:
    assert column_of(annotation) == column


@pytest.mark.parametrize(("digits", "places"), [(38, 0), (10, 4), (38, 38)])
def test_a_decimal_field_needs_no_more_than_its_digits(digits: int, places: int) -> None:
    class Thing(Payload, type="thing", namespace="things", parents=("patient",)):
        amount: Decimal | None = Field(None, max_digits=digits, decimal_places=places)

    assert table_spec(Thing).fields == {"amount": pl.Decimal(digits, places)}


class Nothing(BaseModel):
    """A model without fields."""


class Tree(BaseModel):
    """A model inside itself."""

    branches: list["Tree"] | None = None


class Mixed(Enum):
    ONE = 1
    TWO = "two"


class Inner(BaseModel):
    deep: dict[str, int] | None = None


@pytest.mark.parametrize(
    "annotation",
    [
        dict[str, int],
        dict,
        set[str],
        tuple[int, ...],
        frozenset[str],
        list,
        Any,
        object,
        complex,
        uuid.UUID,
        Path,
        timedelta,
        int | str,
        str | list[str],
        Decimal,
        Literal["a", 1],
        Mixed,
        Nothing,
        Tree,
        Inner,
        list[Inner],
        list[Any],
        None,
        Annotated[Decimal, Field(max_digits=40, decimal_places=2)],
    ],
    ids=str,
)
def test_an_annotation_without_a_column_type_is_refused_with_the_field(annotation: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"Thing\.field_x"):
        column_of(annotation)


def test_a_refused_annotation_inside_a_nested_model_is_named_to_its_end() -> None:
    with pytest.raises(InvalidInputError, match=r"Inner\.deep"):
        column_of(list[Inner])


# -- files


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table that all verbs wrote to, one upsert of which was large."""
    client = Client(tmp_path_factory.mktemp("files") / "lake")
    client.resources.create([*PARENTS, Resource(identifier="datasource/b c=d#e%2F")])
    rich = Everything.model_validate(
        {"text": "x", "whole": 1, "texts": ["a"], "point": {"tags": [""]}, "lesions": [{"outline": [{}]}], "raw": b"1"}
    )
    made = client.everythings.create(things(rich, Everything(), rich))
    client.everythings.update(made[0].identifier, {"text": "y"})
    client.everythings.delete(made[1].identifier)
    client.patients.create(Resource(identifier="patient/2", parent_identifier="datasource/b c=d#e%2F"))
    names = pl.select(pl.format("everything/{}", pl.int_range(40_000).shuffle(seed=1))).to_series()
    parents = pl.select(pl.format("patient/{}", pl.int_range(40_000) // 20_000 + 1)).to_series()
    client.everythings.upsert(pl.DataFrame({"identifier": names, "parent_identifier": parents, "text": names}))
    return Path(client.uri) / "everythings"


def add_actions(table: Path) -> dict[Path, dict[str, Any]]:
    """Return the add action of each live file of a table that nothing was removed from."""
    lines = [line for entry in sorted((table / "_delta_log").glob("*.json")) for line in entry.read_text().splitlines()]
    actions = [json.loads(line) for line in lines]
    assert not any("remove" in action for action in actions)
    return {table / unquote(a["add"]["path"]): a["add"] for a in actions if "add" in a}


def plain_types() -> set[pa.DataType]:
    """Return the Arrow types of columns that every Delta reader can open; lists and structs are made of them."""
    scalars = {pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary(), pa.date32(), pa.timestamp("us", "UTC")}
    return scalars | {pa.decimal128(38, 10)}


def leaves(dtype: pa.DataType) -> Iterator[pa.DataType]:
    """Return the scalar types inside a type; large lists, views and dictionaries are none."""
    if pa.types.is_list(dtype):
        yield from leaves(dtype.value_type)
    elif pa.types.is_struct(dtype):
        for field in dtype:
            yield from leaves(field.type)
    else:
        yield dtype


def test_live_files_hold_plain_types_only(table: Path) -> None:
    for path in add_actions(table):
        schema = pq.read_schema(path)
        found = {leaf for field in schema for leaf in leaves(field.type)}
        assert found <= plain_types(), path
        assert not set(schema.names) & {"datasource_id"}


def test_live_files_have_the_columns_of_the_protocol_in_its_order(table: Path) -> None:
    standard = (
        "identifier parent_identifier patient_id study_id valid_from valid_to closes is_deleted created_at commit_id "
        "closed_by license ancestors"
    )
    for path in add_actions(table):
        assert pq.read_schema(path).names == [*standard.split(), *Everything.model_fields]


def test_a_file_name_ends_in_the_sha256_of_the_file(table: Path) -> None:
    for path, action in add_actions(table).items():
        data = path.read_bytes()
        assert path.stem.endswith(hashlib.sha256(data).hexdigest())
        assert len(data) == action["size"]


def test_files_are_sorted_by_identifier_in_small_row_groups_of_zstd(table: Path) -> None:
    files = {path: pq.ParquetFile(path).metadata for path in add_actions(table)}
    for path, metadata in files.items():
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        assert all(group.num_rows <= 16_384 for group in groups)
        assert {group.column(n).compression for group in groups for n in range(group.num_columns)} == {"ZSTD"}
        assert {group.sorting_columns[0].column_index for group in groups} == {0}
        assert pq.read_table(path, columns=["identifier"])["identifier"].to_pylist() == sorted(
            pq.read_table(path, columns=["identifier"])["identifier"].to_pylist()
        )
    assert max(metadata.num_row_groups for metadata in files.values()) > 1


def test_another_delta_reader_sees_the_same_rows(table: Path) -> None:
    columns = {field.name: field.type for field in DeltaTable(table).schema().fields}
    assert list(columns)[:5] == ["identifier", "parent_identifier", "datasource_id", "patient_id", "study_id"]
    rows = DeltaTable(table).to_pyarrow_dataset().to_table(columns=["identifier", "datasource_id"]).to_pylist()
    assert len(rows) == 40_005
    assert {row["datasource_id"] for row in rows} == {"datasource/a", "datasource/b c=d#e%2F"}


def test_the_delta_schema_says_the_same_types(table: Path) -> None:
    fields = {field["name"]: field["type"] for field in json.loads(DeltaTable(table).schema().to_json())["fields"]}
    simple = {"text": "string", "whole": "long", "number": "double", "flag": "boolean", "raw": "binary", "day": "date"}
    simple |= {
        "instant": "timestamp",
        "naive": "timestamp",
        "amount": "decimal(38,10)",
        "side": "string",
        "grade": "long",
    }
    assert {name: fields[name] for name in simple} == simple
    assert (fields["grid"]["type"], fields["grid"]["elementType"]["elementType"]) == ("array", "long")
    assert [field["name"] for field in fields["lesion"]["fields"]] == ["centre", "outline", "seen_at"]


# -- statistics


def bound(value: Any, dtype: pl.DataType) -> Any:
    """Return a bound of an add action as a value of its column."""
    match dtype:
        case pl.Datetime():
            return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        case pl.Date():
            return date.fromisoformat(value)
        case pl.Decimal():
            return Decimal(str(value))
    return value


AWKWARD: dict[str, list[list[Any]]] = {
    "text": [
        ["", "a"],
        ["x" * 64, "x" * 65],
        ["é" * 70, "z" * 63 + "\U0010ffff" * 9],
        ["\ud7ff" * 90],
        ["\U0010ffff" * 90],
    ],
    "whole": [[-(2**63), 2**63 - 1], [2**53 + 1]],
    "number": [
        [-0.0, 5e-324],
        [1e308, -1.7976931348623157e308],
        [math.inf, 1.0],
        [-math.inf, 2.0],
        [math.nan, 3.0],
        [0.1],
    ],
    "day": [[date(1, 1, 1), date(999, 12, 31)], [date.max]],
    "instant": [
        [datetime(2024, 1, 1, 0, 0, 0, 999_999), datetime(2024, 1, 1, 0, 0, 0, 1)],
        [datetime(1969, 12, 31, 23, 59, 59, 999_999)],
        [datetime(1, 1, 1, 0, 0, 0, 1), datetime(999, 12, 31, 23, 59, 59, 999_999)],
    ],
    "amount": [
        [Decimal("0.1"), Decimal("0.3")],
        [Decimal("12345678901234567890.1234567891"), Decimal("-12345678901234567890.1234567891")],
        [Decimal("0.1000000001")],
        [Decimal("1234567890123456.7891234567")],
        [Decimal("-1234567890123456.7891234567")],
    ],
}
CASES = [(field, values) for field, groups in AWKWARD.items() for values in groups]
each_case = pytest.mark.parametrize(("field", "values"), CASES, ids=lambda value: str(value)[:24])


@pytest.mark.parametrize(("field", "values"), [*CASES, ("instant", [LAST_INSTANT])], ids=lambda value: str(value)[:24])
def test_statistics_are_true_bounds_of_the_file(tmp_path: Path, field: str, values: list[Any]) -> None:
    client = Client(tmp_path / "lake")
    rows = [Everything.model_validate({field: value}) for value in values]
    client.resources.create([*things(*rows, Everything()), *PARENTS])
    [(path, action)] = add_actions(tmp_path / "lake" / "everythings").items()
    frame, said = pl.read_parquet(path, hive_partitioning=False), json.loads(action["stats"])
    assert said["numRecords"] == len(rows) + 1
    scalars = [name for name, dtype in frame.schema.items() if not dtype.is_nested()]
    assert {name: said["nullCount"][name] for name in scalars} == frame.select(scalars).null_count().row(0, named=True)
    for name in scalars:
        low, high = (bound_of(said, side, name, frame.schema[name]) for side in ("minValues", "maxValues"))
        inside = frame[name].drop_nulls().to_list()
        assert all((low is None or low <= value) and (high is None or value <= high) for value in inside), name


def bound_of(said: dict[str, Any], side: str, name: str, dtype: pl.DataType) -> Any:
    """Return a column's bound; None if the action does not say."""
    value = said[side].get(name)
    return None if value is None else bound(value, dtype)


@each_case
def test_a_filter_on_a_value_finds_its_row_among_many_files(tmp_path: Path, field: str, values: list[Any]) -> None:
    client = Client(tmp_path / "lake")
    client.resources.create(PARENTS)
    written = [stored(value) for group in AWKWARD[field] for value in group]
    for group in AWKWARD[field]:
        client.everythings.create(things(*(Everything.model_validate({field: value}) for value in group)))
    for value in values:
        wanted = stored(value)
        found = client.everythings.query().filter(F[field] == wanted).select(field).collect()[field].to_list()
        assert found == [other for other in written if (wanted is None and other is None) or other == wanted]
        if wanted is not None:
            at_least = client.everythings.query().filter(F[field] >= wanted).count()
            assert at_least == sum(other is not None and other >= wanted for other in written)


def test_every_scalar_column_has_bounds_unless_it_is_null_throughout(table: Path) -> None:
    unbounded = {"is_deleted", "flag", "raw"}
    for path, action in add_actions(table).items():
        frame, said = pl.read_parquet(path, hive_partitioning=False), json.loads(action["stats"])
        scalars = {n for n, dtype in frame.schema.items() if not dtype.is_nested()} - unbounded
        full = {name for name in scalars if frame[name].null_count() < frame.height}
        assert full == said["minValues"].keys() == said["maxValues"].keys(), path


def test_a_long_payload_text_is_cut_in_the_statistics_and_an_identifier_is_not(tmp_path: Path) -> None:
    client, name = Client(tmp_path / "lake"), "patient/" + "n" * 400
    patient = Resource(identifier=name, parent_identifier="datasource/a", payload={"ethnic_group": "d" * 4000})
    client.resources.create([patient, Resource(identifier="datasource/a")])
    [action] = add_actions(tmp_path / "lake" / "patients").values()
    said = json.loads(action["stats"])
    assert said["minValues"]["identifier"] == said["maxValues"]["identifier"] == name
    assert len(said["minValues"]["ethnic_group"]) == len(said["maxValues"]["ethnic_group"]) == 64
