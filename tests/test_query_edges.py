"""A slip is refused in words before anything is read; plans of subqueries stay small; responses hold what is stored."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from pydantic import Field as Bounds
from pydantic import field_validator

from tests.support.registered import registered
from vxdata.errors import InvalidInputError
from vxdata.expr.tree import Predicate
from vxdata.schemas import Payload, Resource
from vxdata.sdk import ALL, ANY, Client, F


class Table:
    """What a data frame of another library looks like: it iterates over the names of its columns."""

    ndim = 2

    def __iter__(self) -> Iterator[str]:
        return iter(["text"])


class Stamp(datetime):
    """A datetime of another library."""


DAY = datetime(2024, 1, 1, tzinfo=UTC)


class Word(enum.Enum):
    START = "T"


class Note(Payload, type="note", namespace="notes", parents=("patient",)):
    text: str | None = None
    whole: int | None = None
    instant: datetime | None = None
    amount: Decimal | None = Bounds(None, max_digits=38, decimal_places=10)
    others: list[str] | None = None
    weight: float | None = None

    @field_validator("weight", mode="before")
    @classmethod
    def _from_grams(cls, value: Any) -> Any:
        return None if value is None else float(value) / 1000


ROWS: list[dict[str, Any]] = [
    {"text": "T2", "whole": 1, "instant": DAY, "others": ["note/0"], "amount": "123456789012345678.9100000000"},
    {"text": "ADC", "whole": 2**53 + 1, "instant": DAY.replace(day=2), "others": [], "weight": 70_000},
    {"whole": 3, "amount": "123456789012345678.9100000001"},
    {"text": "x", "instant": DAY.replace(day=3), "others": ["note/1", "note/2"]},
]


@pytest.fixture(scope="module", autouse=True)
def note_type() -> Iterator[None]:
    with registered("note", Note):
        yield


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    client = Client(tmp_path_factory.mktemp("edges") / "lake")
    notes = [Resource(identifier=f"note/{n}", parent_identifier="patient/p", payload=row) for n, row in enumerate(ROWS)]
    patient = Resource(identifier="patient/p", parent_identifier="datasource/d")
    client.resources.create([Resource(identifier="datasource/d"), patient, *notes])
    return client


def kept(client: Client, predicate: Predicate) -> list[int]:
    """Return the numbers of the notes that a predicate keeps; DuckDB has to keep the same ones."""
    query = client.notes.query().filter(predicate).select("identifier").sort("identifier")
    found = query.collect()["identifier"].to_list()
    judge = duckdb.connect()
    judge.register("frame", client.notes.query().collect())
    judge.execute('CREATE VIEW "notes" AS SELECT * FROM frame')
    assert [row[0] for row in judge.execute(query.to_sql()).fetchall()] == found
    return [int(name.removeprefix("note/")) for name in found]


def test_after_and_before_take_any_and_all(client: Client) -> None:
    instants = client.notes.query().select("instant")
    assert kept(client, F.instant.after(ANY(instants))) == [1, 3]
    assert kept(client, F.instant.before(ANY(instants))) == [0, 1]
    assert kept(client, F.instant.after(ALL(instants.filter(F.whole > 0)))) == [3]
    with pytest.raises(InvalidInputError, match=r"F\.whole\.after: the field is Int64, no instant"):
        client.notes.query().filter(F.whole.after(ANY(client.notes.query().select("whole"))))


SLIPS: dict[str, tuple[Callable[[Client], Any], str]] = {
    "another frame": (lambda c: F.text.is_in(Table()), "a list, tuple, set or Series"),
    "frame": (lambda c: F.others.contains_any(pl.DataFrame({"text": ["T2"]})), "a list, tuple, set or Series"),
    "table of numpy": (lambda c: F.whole.is_in(np.array([[1, 2], [3, 4]])), "a list, tuple, set or Series"),
    "scalar array": (lambda c: F.whole.is_in(np.array(3)), "a list, tuple, set or Series"),
    "array": (lambda c: c.notes.query().filter(F.whole == np.array([1])), r"F\.whole is an int: array"),
    "duration": (lambda c: c.notes.query().filter(F.whole == np.timedelta64(5, "ns")), r"F\.whole is an int"),
    "no time": (lambda c: c.notes.query().filter(F.instant == np.datetime64("NaT")), r"write \.is_null\(\)"),
    "no limit": (lambda c: c.notes.query().limit(2**63), r"0 or more \(and below 2\^63\)"),
    "true limit": (lambda c: c.notes.query().limit(True), "a number of rows"),
    "preview": (lambda c: c.notes.query().preview(-1), r"preview\(-1\): a number of rows"),
    "in a set": (lambda c: F.text in {"T2", "ADC"}, r"write F\.text\.is_in\(\[\.\.\.\]\)"),
    "in a query": (lambda c: F.text in c.notes.query(), r"\.is_in\(query\)"),
    "no parentheses": (lambda c: F.whole == 1 & (F.text == "a"), "1 is no predicate"),
    "true and": (lambda c: True | (F.text == "a"), "True is no predicate"),
    "arithmetic": (lambda c: F.whole / 2 > 1, r"F\.whole takes no arithmetic"),
    "negative": (lambda c: -F.whole == 1, r"F\.whole takes no arithmetic"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_refused_in_words(client: Client, name: str) -> None:
    slip, words = SLIPS[name]
    with pytest.raises(InvalidInputError, match=words):
        slip(client)


def test_values_of_other_libraries_are_plain_ones(client: Client) -> None:
    assert kept(client, F.instant == np.datetime64("2024-01-01", "ns")) == [0]
    assert kept(client, F.instant.is_in(np.array(["2024-01-01", "2024-01-03"], "datetime64[ns]"))) == [0, 3]
    assert kept(client, F.instant == Stamp(2024, 1, 1)) == [0]
    assert "Stamp" not in client.notes.query().filter(F.instant == Stamp(2024, 1, 1)).to_python()
    assert kept(client, F.text.startswith(Word.START) | F.text.contains(Word.START)) == [0]
    assert client.notes.query().limit(np.int64(2)).count() == 2


@pytest.mark.parametrize("limit", [2**32 - 1, 2**32, 2**62])
def test_a_limit_beyond_all_rows_limits_nothing(client: Client, limit: int) -> None:
    assert client.notes.query().limit(limit).count() == len(ROWS)


def test_decimals_stay_exact_in_sql_and_beside_ints_of_any_length(client: Client) -> None:
    assert kept(client, F.amount.is_in([Decimal("1E+5"), Decimal("123456789012345678.91")])) == [0]
    assert kept(client, F.amount < 10**5000) == [0, 2]


def test_numbers_of_two_kinds_are_compared_as_floats_in_sql_too(client: Client) -> None:
    near = client.notes.query().filter(F.whole > 3).select("whole")
    assert kept(client, F.amount <= ANY(near)) == []
    assert kept(client, ~F.amount.is_in(near)) == [0, 2]


def test_a_response_holds_what_is_stored(client: Client) -> None:
    row = client.notes.query().filter(F.identifier == "note/1")
    stored = row.collect()["weight"].item()
    assert stored == 70.0
    assert client.notes.retrieve("note/1").payload.weight == stored
    assert row.collect_as_pydantic()[0].payload.weight == stored


def test_a_subquery_is_explained_at_the_instant_of_its_query(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/d"], "name": ["old"]}), valid_from="2020-01-01")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/d"], "name": ["new"]}), valid_from="2021-01-01")
    client.patients.upsert(
        pl.DataFrame({"identifier": ["patient/p"], "parent_identifier": ["datasource/d"]}), valid_from="2020-01-01"
    )
    client.compact()

    def asked(of: Client) -> Any:
        old = of.datasources.query().filter(F.name == "old").select("identifier")
        return of.patients.query().filter(F.datasource_id.is_in(old))

    assert asked(client).as_of("2020-01-05").count() == 1
    assert asked(client).as_of("2020-01-05").explain() == asked(client.as_of("2020-01-05")).explain()


@pytest.mark.parametrize("kind", ["and", "or", "nested", "nested not"])
def test_a_plan_grows_no_faster_than_its_subqueries(client: Client, kind: str) -> None:
    query, names = client.notes.query(), client.notes.query().select("identifier")
    overlaps = [F.others.contains_any(query.filter(F.whole <= n).select("identifier")) for n in range(16)]
    either = overlaps[0]
    for overlap in overlaps[1:]:
        either |= overlap
    nested, without = names, query.select("text")
    for _ in range(12):
        nested = query.filter(F.identifier.is_in(nested) | (F.whole == 1)).select("identifier")
        without = query.filter(~F.text.is_in(without)).select("text")
    asked = {"and": query.filter(*overlaps), "or": query.filter(either), "nested": nested, "nested not": without}[kind]
    began = time.process_time()
    assert asked.count() == {"and": 0, "or": 2, "nested": 4, "nested not": 4}[kind]
    assert asked.lazy().explain().count("Parquet SCAN") <= 70
    assert time.process_time() - began < 10  # a plan that doubled with each took minutes


def test_of_nothing_a_null_is_not_unknown(client: Client) -> None:
    nothing = client.notes.query().filter(F.text == "nothing")
    texts, names = nothing.select("text"), nothing.select("identifier")
    for predicate in (F.text.is_in(texts), F.others.contains_any(names)):
        assert kept(client, predicate) == []
        assert kept(client, ~predicate) == [0, 1, 2, 3]
        assert kept(client, ~predicate | (F.whole == 77)) == [0, 1, 2, 3]
    some = client.notes.query().filter(F.whole == 1)
    assert kept(client, ~F.text.is_in(some.select("text"))) == [1, 3]
    assert kept(client, ~F.others.contains_any(some.select("identifier"))) == [1, 3]
    assert kept(client, ~F.others.contains_any(some.select("identifier")) | (F.whole == 77)) == [1, 3]


class Core(Payload, type="core", namespace="cores", parents=("patient",)):
    length: float | None = None

    @field_validator("length", mode="before")
    @classmethod
    def _without_unit(cls, value: Any) -> Any:
        return value.removesuffix(" mm")


def test_a_validator_that_takes_only_text_does_not_stop_a_read(tmp_path: Path) -> None:
    with registered("core", Core):
        client: Any = Client(tmp_path / "lake")
        client.datasources.create(Resource(identifier="datasource/d"))
        client.patients.create(Resource(identifier="patient/p", parent_identifier="datasource/d"))
        client.cores.create(Resource(identifier="core/1", parent_identifier="patient/p", payload={"length": "3 mm"}))
        assert client.cores.retrieve("core/1").payload.length == 3.0
