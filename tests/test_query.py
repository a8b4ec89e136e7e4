"""Queries: an immutable builder, refusals before any I/O, three-valued logic, and DuckDB as the judge of all of it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.no_time import NAT
from tests.support.registered import registered
from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.schemas import Payload, Resource
from vxdata.schemas.payload import UtcDatetime, VolumePayload
from vxdata.schemas.response import VolumeResponse
from vxdata.sdk import ALL, ANY, Client, F, has_ancestor

METADATA = (
    "identifier parent_identifier datasource_id patient_id study_id ancestors valid_from valid_to created_at license"
)


class Sample(Payload, type="sample", namespace="samples", parents=("patient", "sample")):
    text: str | None = None
    whole: int | None = None
    number: float | None = None
    flag: bool | None = None
    day: date | None = None
    instant: UtcDatetime | None = None
    raw: bytes | None = None
    tags: list[str | None] | None = None
    wholes: list[int] | None = None
    numbers: list[float] | None = None


@pytest.fixture(scope="module", autouse=True)
def sample_type() -> Iterator[None]:
    """Register `Sample` for this module."""
    with registered("sample", Sample):
        yield


def names(frame: pl.DataFrame) -> list[str]:
    """Return the last words of the identifiers, sorted."""
    return sorted(name.rpartition("/")[2] for name in frame["identifier"])


# -- the builder


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[Client]:
    """A client of a path where no lake is; building a query must not look there."""
    yield Client(tmp_path / "no" / "lake")
    assert not (tmp_path / "no").exists()


@pytest.fixture
def unreachable() -> Client:
    """A client of a bucket that nobody can sign in to."""
    return Client("s3://no-such-bucket/lake")


def test_building_a_query_asks_nobody(unreachable: Client) -> None:
    query = unreachable.volumes.query().filter(F.volume_type == "T2", has_ancestor("patient/1")).sort("b_value")
    assert query.as_of("2024-01-01").versions().limit(3).select("identifier") is not None
    with pytest.raises(InvalidInputError, match="Did you mean 'volume_type'"):
        query.filter(F.volume_typ == "T2")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a lake with four volumes; the tests only read it."""
    client = Client(tmp_path_factory.mktemp("query") / "lake")
    chain = ["datasource/dasa", "patient/DA001", "imagingstudy/DA001/1"]
    parents = [Resource(identifier=i, parent_identifier=p) for i, p in zip(chain, [None, *chain], strict=False)]
    payloads = [{"b_value": 800.0}, {"b_value": 50.0}, {}, {"b_value": float("inf"), "volume_type": "ADC"}]
    children = [
        Resource(identifier=f"volume/DA001/1/{n}", parent_identifier=chain[2], payload=payload)
        for n, payload in enumerate(payloads)
    ]
    client.resources.create([*children, *parents])
    return client


@pytest.mark.parametrize(
    "step",
    [
        lambda query: query.filter(F.b_value > 100),
        lambda query: query.sort("b_value"),
        lambda query: query.limit(1),
        lambda query: query.select("identifier"),
        lambda query: query.as_of("2001-01-01"),
        lambda query: query.versions(),
    ],
)
def test_a_step_returns_a_new_query_and_leaves_the_old(volumes: Client, step: Callable[[Any], Any]) -> None:
    query = volumes.volumes.query()
    before = query.collect()
    assert step(query) is not query
    assert query.collect().equals(before)
    assert query == volumes.volumes.query()


def test_a_query_cannot_be_changed(volumes: Client) -> None:
    query: Any = volumes.volumes.query()
    with pytest.raises(AttributeError):
        query._select = None


def test_filters_add_up_and_one_base_serves_many(volumes: Client) -> None:
    base = volumes.volumes.query().filter(F.b_value > 60)
    assert base.count() == 2
    assert base.filter(F.volume_type == "ADC").count() == base.filter(F.b_value < 1000).count() == 1
    assert base.filter(F.volume_type == "ADC").filter(F.b_value < 1000).count() == 0
    assert base.filter().count() == base.count()


def test_without_select_the_columns_are_the_metadata_and_then_the_payload(volumes: Client) -> None:
    expected = [*METADATA.split(), *VolumePayload.model_fields]
    assert volumes.volumes.query().collect().columns == expected
    assert volumes.volumes.query().as_of("2001-01-01").collect().columns == expected
    assert volumes.volumes.query().versions().collect().columns == expected
    assert volumes.volumes.query().lazy().collect_schema().names() == expected


def test_an_empty_table_answers_with_all_columns_and_their_types(volumes: Client) -> None:
    none, some = volumes.psa_measurements.query().collect(), volumes.volumes.query().collect()
    assert none.height == 0
    assert [none.schema[name] for name in METADATA.split()] == [some.schema[name] for name in METADATA.split()]
    assert none.schema["value"] == pl.Float64
    assert volumes.psa_measurements.query().filter(F.value > 3, F.valid_to.is_null()).versions().count() == 0


def test_select_returns_the_columns_in_the_order_asked_for(volumes: Client) -> None:
    query = volumes.volumes.query().select("b_value", "identifier")
    assert query.collect().columns == ["b_value", "identifier"]
    assert query.select("valid_from").collect().columns == ["valid_from"]
    assert volumes.volumes.query().select("identifier").filter(F.volume_type == "ADC").count() == 1
    assert not hasattr(query, "collect_as_pydantic")


def test_sort_puts_nulls_last_in_both_directions(volumes: Client) -> None:
    query = volumes.volumes.query().select("b_value")
    up, down = query.sort("b_value").collect(), query.sort("b_value", descending=True).collect()
    assert up["b_value"].to_list() == [50.0, 800.0, float("inf"), None]
    assert down["b_value"].to_list() == [float("inf"), 800.0, 50.0, None]


def test_sort_takes_many_columns_and_a_direction_for_each(volumes: Client) -> None:
    query = volumes.volumes.query().sort("volume_type", "b_value", descending=[False, True]).collect()
    assert names(query.head(1)) == ["3"]
    assert query["b_value"].to_list() == [float("inf"), 800.0, 50.0, None]


def test_limit_takes_the_first_rows_after_sorting_and_filtering(volumes: Client) -> None:
    query = volumes.volumes.query().filter(F.b_value.is_not_null()).sort("b_value", descending=True)
    assert query.limit(2).collect()["b_value"].to_list() == [float("inf"), 800.0]
    assert [query.limit(n).count() for n in (0, 1, 99)] == [0, 1, 3]
    assert query.limit(2).limit(99).count() == query.limit(99).limit(2).count() == 2


def test_count_is_the_number_of_rows(volumes: Client) -> None:
    assert volumes.volumes.query().count() == volumes.volumes.query().collect().height == 4
    assert volumes.volumes.query().select("volume_type").count() == 4
    assert isinstance(volumes.volumes.query().count(), int)


def test_collect_as_pydantic_gives_typed_responses(volumes: Client) -> None:
    found = volumes.volumes.query().sort("identifier").collect_as_pydantic()
    assert {type(response) for response in found} == {VolumeResponse}
    assert found == volumes.volumes.retrieve([response.identifier for response in found])


def test_lazy_hands_the_rest_to_polars(volumes: Client) -> None:
    plan = volumes.volumes.query().filter(F.b_value > 0).lazy()
    assert isinstance(plan, pl.LazyFrame)
    assert plan.group_by("patient_id").agg(pl.len()).collect().rows() == [("patient/DA001", 3)]


def test_a_query_sees_what_was_written_just_before(lake_uri: str) -> None:
    client, reader = Client(lake_uri), Client(lake_uri)
    client.datasources.create(Resource(identifier="datasource/a", payload={"name": "old"}))
    query = reader.datasources.query().filter(F.name == "old")
    assert query.count() == 1
    client.datasources.update("datasource/a", {"name": "new"})
    assert query.count() == 0
    assert reader.datasources.query().collect()["name"].to_list() == ["new"]
    assert reader.datasources.query().versions().sort("valid_from").collect()["name"].to_list() == ["old", "new"]


def test_a_query_where_no_lake_is_finds_none(nowhere: Client) -> None:
    with pytest.raises(NotFoundError, match="no lake at"):
        nowhere.volumes.query().collect()
    with pytest.raises(NotFoundError, match="no lake at"):
        nowhere.volumes.query().count()


# -- refused before any I/O


class Word(StrEnum):
    AB = "A_B'"


class Plain(Enum):
    AB = "A_B'"


class Number(IntEnum):
    TWO = 2


Build = Callable[[Any], Any]
REFUSED: dict[str, tuple[Build, str]] = {
    "unknown field": (lambda q: q.filter(F.volume_typ == "T2"), "Did you mean 'volume_type'"),
    "unknown field, negated": (lambda q: q.filter(~F.volume_typ.is_null()), "volume_typ"),
    "unknown field, inside": (lambda q: q.filter((F.b_value > 1) | (F.nothing == 1)), "nothing"),
    "protocol's own field": (lambda q: q.filter(F.closes.is_null()), "closes"),
    "unknown column": (lambda q: q.select("identifer"), "Did you mean 'identifier'"),
    "protocol's own column": (lambda q: q.select("commit_id"), "commit_id"),
    "no column": (lambda q: q.select(), "at least one"),
    "a column that is no text": (lambda q: q.select(F.identifier), "as a string"),
    "a list of columns": (lambda q: q.select(["identifier"]), "as a string"),
    "unknown sort": (lambda q: q.sort("b_val"), "Did you mean 'b_value'"),
    "no sort": (lambda q: q.sort(), "name"),
    "sort by a list": (lambda q: q.sort("derived_from"), "scalar"),
    "sort by too many directions": (lambda q: q.sort("b_value", descending=[True, False]), "descending"),
    "filter after limit": (lambda q: q.limit(3).filter(F.b_value > 1), "limit"),
    "sort after limit": (lambda q: q.limit(3).sort("b_value"), "limit"),
    "filter after limit and select": (lambda q: q.limit(3).select("b_value").filter(F.b_value > 1), "limit"),
    "limit below 0": (lambda q: q.limit(-1), "-1"),
    "limit of a bool": (lambda q: q.limit(True), "True"),
    "limit of a float": (lambda q: q.limit(3.0), "3.0"),
    "limit of a text": (lambda q: q.limit("3"), "'3'"),
    "as_of": (lambda q: q.as_of("then"), "instant"),
    "text against a number": (lambda q: q.filter(F.b_value == "800"), "'800'"),
    "number against a text": (lambda q: q.filter(F.volume_type == 2), "text"),
    "bool against a float": (lambda q: q.filter(F.b_value == True), "bool"),  # noqa: E712
    "bool against an int": (lambda q: q.filter(F.series_number > False), "bool"),
    "NaN": (lambda q: q.filter(F.b_value == float("nan")), "NaN"),
    "NaN among others": (lambda q: q.filter(F.b_value.is_in([1.0, float("nan")])), "NaN"),
    "NaT": (lambda q: q.filter(F.acquisition_datetime == NAT), ".is_null()"),
    "after NaT": (lambda q: q.filter(F.acquisition_datetime.after(NAT)), ".is_null()"),
    "NaT among others": (lambda q: q.filter(F.acquisition_datetime.is_in(["2024-01-31", NAT])), ".is_null()"),
    "as_of NaT": (lambda q: q.as_of(NAT), "no instant"),
    "too large an int": (lambda q: q.filter(F.series_number == 2**63), "64 bits"),
    "decimal against a text": (lambda q: q.filter(F.volume_type == Decimal(1)), "text"),
    "no instant": (lambda q: q.filter(F.acquisition_datetime > "yesterday"), "'yesterday'"),
    "number against an instant": (lambda q: q.filter(F.acquisition_datetime > 2024), "2024"),
    "an instant without a year in UTC": (
        lambda q: q.filter(F.acquisition_datetime < "9999-12-31T23:59:59-01:00"),
        "9999",
    ),
    "a field among others": (lambda q: q.filter(F.b_value.is_in([F.license])), "does not compare"),
    "an expression among others": (lambda q: q.filter(F.b_value.is_in([pl.col("license")])), "does not compare"),
    "wrong one of is_in": (lambda q: q.filter(F.b_value.is_in([1.0, "2"])), "'2'"),
    "wrong between": (lambda q: q.filter(F.b_value.between(1, "2")), "'2'"),
    "wrong eq_missing": (lambda q: q.filter(F.b_value.eq_missing("2")), "'2'"),
    "contains on a number": (lambda q: q.filter(F.b_value.contains("8")), "text"),
    "startswith on a list": (lambda q: q.filter(F.derived_from.startswith("v")), "text"),
    "is_in on a list": (lambda q: q.filter(F.derived_from.is_in(["v"])), "contains_any"),
    "== on a list": (lambda q: q.filter(F.derived_from == ["v"]), "contains"),
    "contains_any on a text": (lambda q: q.filter(F.volume_type.contains_any(["v"])), "is_in"),
    "number in a list of texts": (lambda q: q.filter(F.derived_from.contains_any([3])), "3"),
    "lineage of another type": (lambda q: q.filter(F.patient_id == "volume/1"), "'patient'"),
    "lineage prefix of another type": (lambda q: q.filter(F.patient_id.startswith("volume/D")), "'patient'"),
    "lineage among others": (lambda q: q.filter(F.study_id.is_in(["imagingstudy/1", "patient/1"])), "'imagingstudy'"),
    "malformed ancestor": (lambda q: q.filter(has_ancestor("dasa")), "no identifier"),
    "ancestor of an unknown type": (lambda q: q.filter(has_ancestor("patiant/1")), "Did you mean 'patient'"),
    "no ancestor": (lambda q: q.filter(has_ancestor(None)), "no identifier"),  # type: ignore[arg-type]
    "bare field": (lambda q: q.filter(F.is_event_root), "== True"),
    "no predicate": (lambda q: q.filter(True), "no predicate"),
    "a Polars expression": (lambda q: q.filter(pl.col("b_value") > 3), "no predicate"),
    "a text": (lambda q: q.filter("b_value > 3"), "no predicate"),
    "a list of predicates": (lambda q: q.filter([F.b_value > 3]), "no predicate"),
    "after on a number": (lambda q: q.filter(F.b_value.after(3)), "no instant"),
    "before on a text": (lambda q: q.filter(F.volume_type.before("2024-01-01")), "no instant"),
    "a late one of a long is_in": (lambda q: q.filter(F.volume_type.is_in([*map(str, range(200)), 3])), "3"),
    "half a character in a long is_in": (
        lambda q: q.filter(F.volume_type.is_in([*map(str, range(200)), "\ud800"])),
        "surrogate",
    ),
    "too large an int in a long is_in": (lambda q: q.filter(F.series_number.is_in(range(2**63 - 9, 2**63 + 9))), "64"),
    "a bool in a long is_in": (lambda q: q.filter(F.series_number.is_in([*range(200), True])), "bool"),
    "funnel after limit": (lambda q: q.limit(3).funnel(), "limit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_step_is_refused_before_any_io(nowhere: Client, case: str) -> None:
    build, word = REFUSED[case]
    with pytest.raises(InvalidInputError) as raised:
        build(nowhere.volumes.query())
    assert word in str(raised.value)


def sub(client: Client, column: str = "b_value") -> Any:
    return client.volumes.query().select(column)


Predicated = Callable[[Client], Any]
REFUSED_SUBQUERIES: dict[str, tuple[Predicated, str]] = {
    "without select": (lambda c: F.b_value.is_in(c.volumes.query()), "exactly one column"),
    "of two columns": (lambda c: F.b_value.is_in(c.volumes.query().select("b_value", "license")), "exactly one column"),
    "ANY of a list": (lambda c: F.b_value > ANY([1, 2]), "a subquery is expected"),  # type: ignore[arg-type]
    "ALL without select": (lambda c: F.b_value > ALL(c.volumes.query()), "exactly one column"),
    "== ANY": (lambda c: F.b_value == ANY(sub(c)), "is_in"),
    "!= ALL": (lambda c: F.b_value != ALL(sub(c)), "is_in"),
    "== a query": (lambda c: F.b_value == sub(c), "ANY"),
    "> a query": (lambda c: F.b_value > sub(c), "ANY"),
    "text in numbers": (lambda c: F.volume_type.is_in(sub(c)), "Float64"),
    "number in texts": (lambda c: F.b_value.is_in(sub(c, "volume_type")), "String"),
    "instant > ANY number": (lambda c: F.acquisition_datetime > ANY(sub(c)), "Float64"),
    "list is_in": (lambda c: F.derived_from.is_in(sub(c, "identifier")), "contains_any"),
    "list > ANY": (lambda c: F.derived_from > ANY(sub(c, "derived_from")), "no order"),
    "bool > ALL": (lambda c: F.is_event_root > ALL(sub(c)), "is_event_root"),
    "text contains_any": (lambda c: F.volume_type.contains_any(sub(c, "volume_type")), "is_in"),
    "contains_any of numbers": (lambda c: F.derived_from.contains_any(sub(c)), "Float64"),
    "unknown field": (lambda c: F.b_val.is_in(sub(c)), "Did you mean 'b_value'"),
    "unknown field inside": (
        lambda c: F.b_value.is_in(c.volumes.query().filter(F.b_val > 1).select("b_value")),
        "b_val",
    ),
    "as_of of its own": (lambda c: F.b_value.is_in(c.volumes.query().as_of("2024-01-01").select("b_value")), "as_of"),
    "as_of of its own, inside or": (
        lambda c: (F.b_value > 1) | ~(F.b_value > ANY(c.volumes.query().as_of("2024-01-01").select("b_value"))),
        "as_of",
    ),
    "of a client of the past": (lambda c: F.b_value.is_in(sub(c.as_of("2024-01-01"))), "as of 2024-01-01"),
    "of another lake": (lambda c: F.b_value.is_in(sub(Client(f"{c.uri}2"))), "another lake"),
}


@pytest.mark.parametrize("case", REFUSED_SUBQUERIES)
def test_a_wrong_subquery_is_refused_before_any_io(nowhere: Client, case: str) -> None:
    build, word = REFUSED_SUBQUERIES[case]
    with pytest.raises(InvalidInputError) as raised:
        nowhere.volumes.query().filter(build(nowhere))
    assert word in str(raised.value)


def test_a_subquery_sees_the_state_of_the_outer_query_or_is_refused(volumes: Client) -> None:
    now, past, snapshot = volumes, volumes.as_of("2024-01-01"), volumes.snapshot()
    for outer, inner in ((now, now), (past, past), (past, now), (snapshot, snapshot), (snapshot, now)):
        found = outer.volumes.query().filter(F.b_value.is_in(sub(inner))).count()
        assert found == (0 if outer is past else 3)
    for outer, inner in ((now, past), (now, snapshot), (past, snapshot), (past, volumes.as_of("2023-01-01"))):
        with pytest.raises(InvalidInputError, match="build both from one client"):
            outer.volumes.query().filter(F.b_value.is_in(sub(inner)))


SPELLING: dict[str, tuple[Callable[[], Any], str]] = {
    "and": (lambda: (F.a == 1) and (F.b == 2), "&"),
    "or": (lambda: (F.a == 1) or (F.b == 2), "|"),
    "not": (lambda: not (F.a == 1), "~"),  # noqa: SIM201
    "not field": (lambda: not F.a, "F.a == True"),
    "if": (lambda: 1 if F.a == 1 else 2, "&"),
    "chain": (lambda: 1 < F.a < 3, "between"),
    "in": (lambda: "x" in F.a, "contains"),
    "field in list": (lambda: F.a in [1, 2], "is_in"),
    "field == field": (lambda: F.a == F.b, "not with another field"),
    "field < field": (lambda: F.a < F.b, "not with another field"),
    "bare & predicate": (lambda: F.a & (F.b == 2), "F.a == True"),
    "predicate | bare": (lambda: (F.b == 2) | F.a, "F.a == True"),
    "not bare": (lambda: ~F.a, "F.a == True"),
    "predicate & value": (lambda: (F.a == 1) & 2, "no predicate"),
    "value | predicate": (lambda: (F.a == 1) | None, "no predicate"),
    "precedence": (lambda: F.a == 1 & F.b == 2, "F.b"),
    "< None": (lambda: F.a < None, "is_null"),
    "between None": (lambda: F.a.between(None, 3), "is_null"),
    "is_in text": (lambda: F.a.is_in("abc"), "['abc']"),
    "is_in bytes": (lambda: F.a.is_in(b"abc"), "list"),
    "is_in number": (lambda: F.a.is_in(3), "[3]"),
    "is_in mapping": (lambda: F.a.is_in({"a": 1}), "list"),
    "contains_any text": (lambda: F.a.contains_any("abc"), "['abc']"),
    "startswith number": (lambda: F.a.startswith(3), "text"),
    "startswith tuple": (lambda: F.a.startswith(("a", "b")), "text"),
    "loop": (lambda: list(F.a), "collect"),
    "underscore": (lambda: F._a, "underscore"),
    "underscore item": (lambda: F["_a"], "underscore"),
    "number item": (lambda: F[3], "no field"),
    "assignment": (lambda: setattr(F, "a", 1), "=="),
}


@pytest.mark.parametrize("case", SPELLING)
def test_a_wrong_spelling_is_refused_with_the_right_one(case: str) -> None:
    build, word = SPELLING[case]
    with pytest.raises(InvalidInputError) as raised:
        build()
    assert word in str(raised.value)


def test_introspection_of_f_is_harmless() -> None:
    assert not hasattr(F, "__wrapped__")
    assert repr(F) == "F"
    assert repr(F.b_value) == "F['b_value']"


def test_predicates_are_values() -> None:
    one, other = ((F.a == 1) & ~F["b"].is_in([1, 2]) for _ in range(2))
    assert hash(one) == hash(other)
    assert {one: "found"}[other] == "found"


# -- three-valued logic

ROWS: dict[str, dict[str, Any]] = {
    "one": {"text": "a%b", "whole": 1, "number": 1.0, "flag": True, "day": date(2024, 1, 31), "tags": ["x", "y"]},
    "two": {"text": "A_B'", "whole": 2, "number": 2.5, "flag": False, "day": date(2024, 2, 29), "tags": ["y", None]},
    "empty": {"text": "", "whole": 0, "number": -0.0, "tags": [], "wholes": [], "instant": "2024-01-31T12:00:00+01:00"},
    "null": {},
    "lists": {"wholes": [1, 2], "numbers": [1.0, 2.5], "raw": b"\x00", "instant": datetime(2024, 1, 31, 11, 0, 0, 1)},
}
TEXTS, NUMBERS = ["one", "two", "empty"], ["one", "two", "empty"]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a lake with one sample for each of ROWS, and one inside another; the tests only read it."""
    client = Client(tmp_path_factory.mktemp("logic") / "lake")
    rows = [
        Resource(identifier=f"sample/{name}", parent_identifier="patient/DA001", payload=row)
        for name, row in ROWS.items()
    ]
    parents = [
        Resource(identifier="patient/DA001", parent_identifier="datasource/dasa"),
        Resource(identifier="datasource/dasa"),
    ]
    client.resources.create([*rows, *parents])
    return client


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (F.whole == 1, ["one"]),
        (F.whole != 1, ["two", "empty"]),
        (~(F.whole == 1), ["two", "empty"]),
        (~(F.whole != 1), ["one"]),
        (F.whole == None, ["null", "lists"]),  # noqa: E711
        (F.whole != None, NUMBERS),  # noqa: E711
        (~(F.whole == None), NUMBERS),  # noqa: E711
        (F.whole.is_null(), ["null", "lists"]),
        (~F.whole.is_not_null(), ["null", "lists"]),
        (F.whole.is_in([1, 2]), ["one", "two"]),
        (~F.whole.is_in([1, 2]), ["empty"]),
        (F.whole.is_in([1, None]), ["one"]),
        (~F.whole.is_in([1, None]), ["two", "empty"]),
        (F.whole.is_in([]), []),
        (~F.whole.is_in([]), list(ROWS)),
        (F.whole.is_in([None]), []),
        (~F.whole.is_in([None]), list(ROWS)),
        (~~F.whole.is_in([]), []),
        (F.whole.eq_missing(1), ["one"]),
        (~F.whole.eq_missing(1), ["two", "empty", "null", "lists"]),
        (F.whole.ne_missing(1), ["two", "empty", "null", "lists"]),
        (F.whole.eq_missing(None), ["null", "lists"]),
        (F.whole.ne_missing(None), NUMBERS),
        (F.tags.eq_missing(None), ["null", "lists"]),
        (F.tags.is_null(), ["null", "lists"]),
        ((F.whole == 1) | (F.text == ""), ["one", "empty"]),
        ((F.whole == 1) | (F.whole != 1), NUMBERS),
        ((F.whole == 1) | F.whole.is_null(), ["one", "null", "lists"]),
        (~((F.whole == 1) & (F.text == "a%b")), ["two", "empty"]),
        (~((F.whole == 9) & (F.flag == True)), NUMBERS),  # noqa: E712
        (F.whole.between(1, 2), ["one", "two"]),
        (~F.whole.between(1, 2), ["empty"]),
        (F.whole.between(2, 1), []),
        (F.flag == True, ["one"]),  # noqa: E712
        (F.flag == False, ["two"]),  # noqa: E712
        (~(F.flag == True), ["two"]),  # noqa: E712
        (F.flag.is_in([True, None]), ["one"]),
        (F.flag.ne_missing(True), ["two", "empty", "null", "lists"]),
    ],
    ids=repr,
)
def test_null_is_not_true_and_neither_is_its_negation(samples: Client, predicate: Any, expected: list[str]) -> None:
    query = samples.samples.query().filter(predicate)
    assert names(query.collect()) == sorted(expected)
    assert query.count() == len(expected)


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (F.text == "", ["empty"]),
        (F.text.contains("%"), ["one"]),
        (F.text.contains("_"), ["two"]),
        (F.text.contains("."), []),
        (F.text.contains("a"), ["one"]),
        (F.text.contains("A"), ["two"]),
        (F.text.contains(""), TEXTS),
        (~F.text.contains("a"), ["two", "empty"]),
        (F.text.startswith("a%"), ["one"]),
        (F.text.startswith("A%"), []),
        (F.text.endswith("'"), ["two"]),
        (~F.text.endswith("'"), ["one", "empty"]),
        (F.text > "A", ["one", "two"]),
        (F.text.is_in({"", "a%b"}), ["one", "empty"]),
        (F.text.is_in(("A_B'",)), ["two"]),
        (F.text.is_in(pl.Series(["A_B'", None])), ["two"]),
        (F.whole == 1.0, ["one"]),
        (F.whole > 0.5, ["one", "two"]),
        (F.whole < float("inf"), NUMBERS),
        (F.whole.is_in([1.0, 1.5]), ["one"]),
        (2 > F.whole, ["one", "empty"]),  # noqa: SIM300
        (F.number == 1, ["one"]),
        (F.number.is_in([1, 2]), ["one"]),
        (F.number >= 0, NUMBERS),
        (F.number > -(2**60), NUMBERS),
        (F.number.between(1, 2.5), ["one", "two"]),
        (F.day == "2024-01-31", ["one"]),
        (F.day > date(2024, 1, 31), ["two"]),
        (F.day.between("2024-01-31", "2024-02-29"), ["one", "two"]),
        (F.instant == "2024-01-31T11:00:00", ["empty"]),
        (F.instant == datetime(2024, 1, 31, 11, tzinfo=UTC), ["empty"]),
        (F.instant.after("2024-01-31T11:00:00Z"), ["lists"]),
        (F.instant.before("2024-01-31T12:00:00.000001+01:00"), ["empty"]),
        (F.instant.after("2024-01-31"), ["empty", "lists"]),
        (F.instant >= date(2024, 2, 1), []),
        (F.instant.between("2024-01-31T11:00:00", "2024-01-31T11:00:00.000001"), ["empty", "lists"]),
        (F.instant.is_in(["2024-01-31T11:00:00", date(2024, 1, 31)]), ["empty"]),
        (F.raw == b"\x00", ["lists"]),
    ],
    ids=repr,
)
def test_literals_are_taken_literally(samples: Client, predicate: Any, expected: list[str]) -> None:
    assert names(samples.samples.query().filter(predicate).collect()) == sorted(expected)


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (F.tags.contains("y"), ["one", "two"]),
        (F.tags.contains("Y"), []),
        (~F.tags.contains("y"), ["empty"]),
        (~F.tags.contains("x"), ["two", "empty"]),
        (F.tags.contains_any(["x", "nothing"]), ["one"]),
        (~F.tags.contains_any(["x", "nothing"]), ["two", "empty"]),
        (F.tags.contains_any([None]), []),
        (F.tags.contains_any([None, "y"]), ["one", "two"]),
        (F.tags.contains_any([]), []),
        (~F.tags.contains_any([]), list(ROWS)),
        (F.tags.contains_any(pl.Series(["x"])), ["one"]),
        (F.wholes.contains_any([2, 9]), ["lists"]),
        (F.wholes.contains_any([2.0, 9.5]), ["lists"]),
        (F.numbers.contains_any([1, 7]), ["lists"]),
        (F.ancestors.contains("patient/DA001"), list(ROWS)),
        (F.ancestors.contains_any(["datasource/other", "sample/one"]), []),
    ],
    ids=repr,
)
def test_lists_are_tested_for_their_elements(samples: Client, predicate: Any, expected: list[str]) -> None:
    assert names(samples.samples.query().filter(predicate).collect()) == sorted(expected)


@pytest.mark.parametrize(("column", "element"), [("wholes", 2), ("wholes", 2.0), ("numbers", 2.5), ("numbers", 1)])
def test_a_list_of_numbers_is_tested_for_a_number(samples: Client, column: str, element: float) -> None:
    assert names(samples.samples.query().filter(F[column].contains(element)).collect()) == ["lists"]
    assert names(samples.samples.query().filter(F[column].contains_any([element])).collect()) == ["lists"]


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (F.whole == Number.TWO, ["two"]),
        (F.whole.is_in([Number.TWO]), ["two"]),
        (F.text == Word.AB, ["two"]),
        (F.text == Plain.AB, ["two"]),
        (F.text.is_in([Plain.AB]), ["two"]),
    ],
    ids=repr,
)
def test_an_enum_member_is_its_value(samples: Client, predicate: Any, expected: list[str]) -> None:
    assert names(samples.samples.query().filter(predicate).collect()) == expected


# -- lineage


@pytest.mark.parametrize(
    ("predicate", "count"),
    [
        (F.patient_id == "DA001", 4),
        (F.patient_id == "patient/DA001", 4),
        (F.patient_id != "DA001", 0),
        (F.patient_id.is_in(["DA001", "DA002", "patient/DA003"]), 4),
        (F.patient_id.startswith("DA"), 4),
        (F.patient_id.startswith("patient/DA"), 4),
        (F.patient_id.startswith("001"), 0),
        (F.patient_id.contains("patient/DA0"), 4),
        (F.patient_id.contains("DA"), 4),
        (F.patient_id.endswith("/DA001"), 4),
        (F.patient_id.between("DA000", "DA002"), 4),
        (F.patient_id.eq_missing("DA001"), 4),
        (F.datasource_id == "dasa", 4),
        (F.datasource_id.is_in(["datasource/dasa", "basel"]), 4),
        (F.study_id == "DA001/1", 4),
        (F.study_id == "imagingstudy/DA001/1", 4),
        (F.parent_identifier == "imagingstudy/DA001/1", 4),
        (F.parent_identifier == "DA001/1", 0),
        (F.identifier.startswith("volume/DA001"), 4),
        (has_ancestor("datasource/dasa"), 4),
        (has_ancestor("patient/DA001"), 4),
        (has_ancestor("imagingstudy/DA001/1"), 4),
        (has_ancestor("imagingstudy/DA001"), 0),
        (has_ancestor("volume/DA001/1/0"), 0),
        (has_ancestor("pathologyspecimen/1"), 0),
        (~has_ancestor("datasource/basel"), 4),
    ],
    ids=repr,
)
def test_lineage_columns_take_identifiers_with_and_without_their_type(
    volumes: Client, predicate: Any, count: int
) -> None:
    assert volumes.volumes.query().filter(predicate).count() == count


def test_has_ancestor_is_never_null_and_never_true_of_the_resource_itself(volumes: Client) -> None:
    for namespace, itself in ((volumes.datasources, "datasource/dasa"), (volumes.patients, "patient/DA001")):
        for ancestor in ("datasource/dasa", "patient/DA001", "imagingstudy/DA001/1", "volume/DA001/1/0"):
            is_above = ancestor == "datasource/dasa" and itself != ancestor
            assert namespace.query().filter(has_ancestor(ancestor)).count() == is_above
            assert namespace.query().filter(~has_ancestor(ancestor)).count() == (not is_above)


def test_has_ancestor_reaches_any_depth_inside_one_type(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    chain = ["datasource/a", "patient/1", "sample/1", "sample/2", "sample/3"]
    client.resources.create(
        [Resource(identifier=i, parent_identifier=p) for i, p in zip(chain, [None, *chain], strict=False)]
    )
    assert names(client.samples.query().filter(has_ancestor("sample/1")).collect()) == ["2", "3"]
    assert names(client.samples.query().filter(~has_ancestor("sample/2")).collect()) == ["1", "2"]
    assert client.samples.query().filter(F.parent_identifier == "sample/1").count() == 1


# -- the judge

SOURCES, PATIENTS = ["datasource/a", "datasource/b'c"], ["patient/1", "patient/2 =#", "patient/é"]
PARENT_OF = dict(zip(PATIENTS, [SOURCES[0], SOURCES[0], SOURCES[1]], strict=True))
ROUNDS = [datetime(2020, 1, 1) + timedelta(days=n, microseconds=n) for n in range(8)]
WORDS = ["", "a", "A", "a%", "%", "_", "a_b", "it's", '"', "é", "e\u0301", "病人", "\\", "a\nb", " a ", "🧬", "zz"]
POOLS: dict[str, list[Any]] = {
    "text": [*WORDS, None, None, None],
    "whole": [None, -1, 0, 1, 2, 3, 2**63 - 1, -(2**63)],
    "number": [None, -0.0, 0.0, 1.5, 2.0, 1e300, float("inf"), float("-inf")],
    "flag": [None, True, False],
    "day": [None, date(1969, 12, 31), date(2024, 2, 29), date(2024, 3, 1)],
    "instant": [None, datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 0, 1), datetime(1960, 1, 1, 12)],
    "tags": [None, [], ["a"], ["a", "%"], [None], [None, "é"], [""]],
}
State = dict[str, dict[str, Any]]


def random_states(seed: int) -> list[State]:
    """Return the wanted state of a table in each round: resources come, change, go, and come again."""
    chance, state, states = random.Random(seed), {}, []
    for _ in ROUNDS:
        for n in range(70):
            name = f"sample/{n:02}"
            if chance.random() < (0.8 if not states else 0.25):
                state[name] = {column: chance.choice(pool) for column, pool in POOLS.items()}
            if name in state and chance.random() < 0.08:
                del state[name]
        states.append(dict(state))
    return states


def versions_of(states: list[State]) -> list[dict[str, Any]]:
    """Return what the table has to hold: one row for each version, with its interval."""
    rows = []
    for name in sorted({name for state in states for name in state}):
        for n, at in enumerate(ROUNDS):
            now = states[n].get(name)
            if now is not None and (n == 0 or not same(states[n - 1].get(name), now)):
                ends = (m for m in range(n + 1, len(ROUNDS)) if not same(now, states[m].get(name)))
                end = next(ends, None)
                patient = PATIENTS[int(name[-2:]) % 3]
                lineage = {"patient_id": patient, "datasource_id": PARENT_OF[patient]}
                interval = {"valid_from": at, "valid_to": None if end is None else ROUNDS[end]}
                rows.append(
                    {"identifier": name, **lineage, "ancestors": [PARENT_OF[patient], patient], **interval, **now}
                )
    return rows


def same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    return one == other


@dataclass(frozen=True)
class Judged:
    """A lake, and the same rows in DuckDB."""

    client: Client
    oracle: Any

    def ask(self, sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        return self.oracle.execute(sql, parameters).fetchall()


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    client, states = Client(tmp_path_factory.mktemp("judged") / "lake"), random_states(seed=7)
    sources = pl.DataFrame({"identifier": SOURCES})
    patients = pl.DataFrame({"identifier": PATIENTS, "parent_identifier": list(PARENT_OF.values())})
    client.datasources.upsert(sources, valid_from=ROUNDS[0] - timedelta(days=1))
    client.patients.upsert(patients, valid_from=ROUNDS[0] - timedelta(days=1))
    schema = {"identifier": pl.String, "parent_identifier": pl.String, "text": pl.String, "whole": pl.Int64}
    schema |= {"number": pl.Float64, "flag": pl.Boolean, "day": pl.Date, "instant": pl.Datetime("us")}
    schema |= {"tags": pl.List(pl.String)}
    for at, state in zip(ROUNDS, states, strict=True):
        rows = [{"identifier": n, "parent_identifier": PATIENTS[int(n[-2:]) % 3], **row} for n, row in state.items()]
        frame = pl.DataFrame(rows, schema=schema)
        client.samples.upsert(frame, missing="delete", datasources=SOURCES, valid_from=at)
    columns = {
        **schema,
        "valid_from": pl.Datetime("us"),
        "valid_to": pl.Datetime("us"),
        "ancestors": pl.List(pl.String),
    }
    columns |= {"patient_id": pl.String, "datasource_id": pl.String}
    table = pl.DataFrame(versions_of(states), schema=columns)
    with duckdb.connect() as oracle:
        oracle.register("loaded", table.to_arrow())
        oracle.execute("CREATE TABLE versions AS SELECT * FROM loaded")
        oracle.unregister("loaded")
        yield Judged(client, oracle)


@dataclass(frozen=True)
class Leaf:
    """A test of one column; the leaf of a tree."""

    column: str
    operator: str
    value: Any = None


@dataclass(frozen=True)
class Tree:
    """Tests joined by &, | or ~."""

    join: str
    parts: tuple[Any, ...]


def to_f(tree: Any) -> Any:
    """Compile a tree to a predicate of ours."""
    match tree:
        case Tree("~", (part,)):
            return ~to_f(part)
        case Tree("&", (one, other)):
            return to_f(one) & to_f(other)
        case Tree("|", (one, other)):
            return to_f(one) | to_f(other)
        case Leaf(_, "has_ancestor", value):
            return has_ancestor(value)
        case Leaf(column, "between", (low, high)):
            return F[column].between(low, high)
        case Leaf(column, ("is_null" | "is_not_null") as method):
            return getattr(F[column], method)()
        case Leaf(column, operator, value) if operator in METHODS:
            return getattr(F[column], METHODS[operator])(value)
    raise AssertionError(tree)


METHODS = {"==": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
METHODS |= {m: m for m in ("is_in", "contains", "startswith", "endswith", "eq_missing", "ne_missing", "contains_any")}


def to_sql(tree: Any) -> tuple[str, list[Any]]:
    """Compile a tree to SQL and its parameters."""
    match tree:
        case Tree("~", (part,)):
            sql, parameters = to_sql(part)
            return f"(NOT {sql})", parameters
        case Tree(join, (one, other)):
            (left, first), (right, second) = to_sql(one), to_sql(other)
            return f"({left} {'AND' if join == '&' else 'OR'} {right})", [*first, *second]
        case Leaf(_, "has_ancestor", value):
            return "list_contains(ancestors, ?)", [value]
        case Leaf(column, "is_null"):
            return f"({column} IS NULL)", []
        case Leaf(column, "is_not_null"):
            return f"({column} IS NOT NULL)", []
        case Leaf(column, "between", (low, high)):
            return f"({column} BETWEEN ? AND ?)", [low, high]
        case Leaf(column, ("is_in" | "contains_any") as operator, values):
            return _any_of(column, operator, [value for value in values if value is not None])
        case Leaf(column, operator, value):
            return SQL[operator].format(column), [value]
    raise AssertionError(tree)


def _any_of(column: str, operator: str, values: list[Any]) -> tuple[str, list[Any]]:
    if not values:
        return "FALSE", []
    marks = ", ".join("?" * len(values))
    if operator == "is_in":
        return f"({column} IN ({marks}))", values
    return f"(CASE WHEN {column} IS NOT NULL THEN len(list_filter({column}, lambda x: x IN ({marks}))) > 0 END)", values


SQL = {operator: f"({{}} {operator} ?)" for operator in ("==", "!=", "<", "<=", ">", ">=")}
SQL |= {"contains": "contains({}, ?)", "startswith": "starts_with({}, ?)", "endswith": "suffix({}, ?)"}
SQL |= {"eq_missing": "({} IS NOT DISTINCT FROM ?)", "ne_missing": "({} IS DISTINCT FROM ?)"}
ORDER = ("==", "!=", "<", "<=", ">", ">=")


def leaves_of(column: str) -> st.SearchStrategy[Leaf]:
    """Return tests of a scalar column, with values of its pool and near it."""
    known = [value for value in POOLS[column] if value is not None]
    more = {"text": [*WORDS, "b", "人"], "whole": [1.5, -0.5, 7], "number": [1, 0, 5, -7.25]}
    values = st.sampled_from(known + more.get(column, []))
    orders = ("==", "!=") if column == "flag" else ORDER
    kinds = [
        st.builds(Leaf, st.just(column), st.sampled_from(orders), values),
        st.builds(Leaf, st.just(column), st.sampled_from(["is_null", "is_not_null"])),
        st.builds(Leaf, st.just(column), st.just("is_in"), st.lists(values | st.none(), max_size=4)),
        st.builds(
            Leaf, st.just(column), st.sampled_from(["eq_missing", "ne_missing"]), st.sampled_from([*known, None])
        ),
    ]
    if column == "text":
        kinds.append(st.builds(Leaf, st.just(column), st.sampled_from(["contains", "startswith", "endswith"]), values))
    if column != "flag":
        kinds.append(st.builds(Leaf, st.just(column), st.just("between"), st.tuples(values, values)))
    return st.one_of(kinds)


tag_words = st.sampled_from(["a", "%", "é", "", "nothing"])
names_of_type = {"patient_id": [*PATIENTS, "patient/none"], "datasource_id": SOURCES, "identifier": ["sample/07", "x"]}
moments = st.sampled_from([*ROUNDS, ROUNDS[3] + timedelta(hours=1)])
leaves = st.one_of(
    *(leaves_of(column) for column in POOLS if column != "tags"),
    st.builds(Leaf, st.just("tags"), st.just("contains_any"), st.lists(tag_words | st.none(), max_size=3)),
    st.builds(Leaf, st.just("tags"), st.just("is_null")),
    st.sampled_from(sorted(names_of_type)).flatmap(
        lambda column: st.builds(Leaf, st.just(column), st.sampled_from(ORDER), st.sampled_from(names_of_type[column]))
    ),
    st.builds(
        Leaf, st.just("-"), st.just("has_ancestor"), st.sampled_from([*SOURCES, *PATIENTS, "patient/x", "sample/01"])
    ),
    st.builds(Leaf, st.sampled_from(["valid_from", "valid_to"]), st.sampled_from(ORDER), moments),
    st.builds(Leaf, st.just("valid_to"), st.sampled_from(["is_null", "is_not_null"])),
)
trees = st.recursive(
    leaves,
    lambda parts: (
        st.builds(Tree, st.just("~"), st.tuples(parts))
        | st.builds(Tree, st.sampled_from("&|"), st.tuples(parts, parts))
    ),
    max_leaves=6,
)
MODES = {
    "current": "(SELECT * REPLACE (NULL::TIMESTAMP AS valid_to) FROM versions WHERE valid_to IS NULL)",
    "as_of": "(SELECT * REPLACE (NULL::TIMESTAMP AS valid_to) FROM versions "
    "WHERE valid_from <= $at AND (valid_to IS NULL OR valid_to > $at))",
    "versions": "versions",
    "versions as_of": "(SELECT * REPLACE (CASE WHEN valid_to <= $at THEN valid_to END AS valid_to) FROM versions "
    "WHERE valid_from <= $at)",
}
instants = st.sampled_from([at + timedelta(microseconds=off) for at in ROUNDS for off in (-1, 0, 1)])
judge_settings = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def ours(client: Client, mode: str, at: datetime) -> Any:
    """Return a query over the samples in a mode."""
    query = client.samples.query()
    query = query.as_of(at) if "as_of" in mode else query
    return query.versions() if "versions" in mode else query


def theirs(mode: str, at: datetime) -> str:
    """Return the FROM clause of a mode."""
    return MODES[mode].replace("$at", f"TIMESTAMP '{at.isoformat(' ')}'")


@settings(judge_settings, max_examples=60)
@given(tree=trees, mode=st.sampled_from(sorted(MODES)), at=instants)
def test_duckdb_finds_the_same_rows_for_any_predicate(judged: Judged, tree: Any, mode: str, at: datetime) -> None:
    sql, parameters = to_sql(tree)
    query = ours(judged.client, mode, at).filter(to_f(tree))
    shown = query.select("identifier", "valid_from", "valid_to").collect()
    found = shown.with_columns(pl.col("valid_from", "valid_to").dt.replace_time_zone(None)).rows()
    expected = judged.ask(f"SELECT identifier, valid_from, valid_to FROM {theirs(mode, at)} WHERE {sql}", parameters)
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert query.count() == len(expected)


@settings(judge_settings, max_examples=40)
@given(
    order=st.lists(st.tuples(st.sampled_from(sorted(POOLS.keys() - {"tags"})), st.booleans()), min_size=1, max_size=3),
    limit=st.integers(0, 30),
    at=instants,
)
def test_duckdb_sorts_the_same_way(judged: Judged, order: list[tuple[str, bool]], limit: int, at: datetime) -> None:
    columns = dict(order)
    query = ours(judged.client, "as_of", at).sort(*columns, "identifier", descending=[*columns.values(), False])
    words = [f"{name} {'DESC' if down else 'ASC'} NULLS LAST" for name, down in columns.items()]
    sql = f"SELECT identifier FROM {theirs('as_of', at)} ORDER BY {', '.join([*words, 'identifier'])} LIMIT {limit}"
    assert query.limit(limit).select("identifier").collect().rows() == judged.ask(sql, [])


@pytest.mark.parametrize("mode", MODES)
def test_duckdb_holds_the_same_values(judged: Judged, mode: str) -> None:
    columns = ["identifier", *POOLS, "patient_id", "datasource_id", "ancestors"]
    query = ours(judged.client, mode, ROUNDS[4]).sort("identifier", "valid_from").select(*columns).collect()
    found = query.with_columns(pl.col("instant").dt.replace_time_zone(None)).rows()
    sql = f"SELECT {', '.join(columns)} FROM {theirs(mode, ROUNDS[4])} ORDER BY identifier, valid_from"
    assert found == judged.ask(sql, [])
