"""Values beside columns of another kind of number, numpy's scalars, long chains, and scripts that run."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from pydantic import Field as Bounds

from tests.support.registered import registered
from vxdata.errors import InvalidInputError
from vxdata.expr.parse import parse_predicate
from vxdata.expr.to_text import to_text
from vxdata.schemas import Payload, Resource
from vxdata.sdk import ALL, ANY, Client, F, Predicate

BIG = 2**53
ROWS: list[dict[str, Any]] = [
    {"whole": BIG, "number": 2.5, "amount": "123456789012345678.91", "wholes": [1, 2], "numbers": [1.0, 2.5]},
    {"whole": BIG + 1, "number": 2.0, "amount": "123456789012345678.92", "wholes": [BIG + 1], "numbers": [3.0]},
    {"whole": 2**63 - 1, "number": float("inf"), "text": "k1", "wholes": [], "numbers": []},
    {"whole": 2, "number": -1.5, "text": "k250", "wholes": [3], "numbers": [0.5]},
    {},
]


class Reading(Payload, type="reading", namespace="readings", parents=("patient",)):
    whole: int | None = None
    number: float | None = None
    amount: Decimal | None = Bounds(None, max_digits=20, decimal_places=2)
    text: str | None = None
    wholes: list[int] | None = None
    numbers: list[float] | None = None
    inf: int | None = None


@pytest.fixture(scope="module", autouse=True)
def reading_type() -> Iterator[None]:
    """Register `Reading` for this module."""
    with registered("reading", Reading):
        yield


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a lake with five readings; the tests only read it."""
    client = Client(tmp_path_factory.mktemp("values") / "lake")
    readings = [
        Resource(identifier=f"reading/{n}", parent_identifier="patient/p", payload=row) for n, row in enumerate(ROWS)
    ]
    patient = Resource(identifier="patient/p", parent_identifier="datasource/d", payload={"birthyear": 2})
    client.resources.create([Resource(identifier="datasource/d"), patient, *readings])
    return client


def kept(client: Client, predicate: Predicate) -> list[int]:
    """Return the numbers of the readings that a predicate keeps; DuckDB has to keep the same ones."""
    query = client.readings.query().filter(predicate).select("identifier").sort("identifier")
    found = query.collect()["identifier"]
    judge = duckdb.connect()
    judge.register("frame", client.readings.query().collect())
    judge.execute('CREATE VIEW "readings" AS SELECT * FROM frame')
    judge.register("people", client.patients.query().collect())
    judge.execute('CREATE VIEW "patients" AS SELECT * FROM people')
    assert [row[0] for row in judge.execute(query.to_sql()).fetchall()] == found.to_list()
    return [int(name.removeprefix("reading/")) for name in found]


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (F.whole.is_in([BIG + 1]), [1]),
        (F.whole.is_in([BIG + 1, 0.5]), [1]),
        (~F.whole.is_in([BIG + 1, 0.5, 1e300]), [0, 2, 3]),
        (F.whole.is_in([0.5, 1e300, float("inf")]), []),
        (~F.whole.is_in([0.5]), [0, 1, 2, 3]),
        (F.whole.is_in([float(BIG), 2.0]), [0, 3]),
        (F.whole == float(BIG), [0]),
        (F.whole > float(BIG), [1, 2]),
        (F.whole == 2.0**63, []),
        (F.whole < 2.0**63, [0, 1, 2, 3]),
        (F.whole.eq_missing(2.0**63), []),
        (F.whole > 1.5, [0, 1, 2, 3]),
        (F.number < 10**30, [0, 1, 3]),
        (F.number == BIG + 1, []),
        (F.number.is_in([2, 10**30]), [1]),
        (F.amount.is_in([Decimal("123456789012345678.91"), 1e300]), [0]),
        (~F.amount.is_in([Decimal("123456789012345678.91"), 1e300]), [1]),
        (~F.amount.is_in([1e300]), [0, 1]),
        (F.wholes.contains_any([BIG + 1, 0.5]), [1]),
        (F.wholes.contains_any([BIG, 0.5]), []),
    ],
)
def test_a_value_that_equals_nothing_makes_nothing_else_equal(
    client: Client, predicate: Predicate, expected: list[int]
) -> None:
    assert kept(client, predicate) == expected


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (F.number <= np.float64(2.5), [0, 1, 3]),
        (F.number <= np.float32(2.5), [0, 1, 3]),
        (F.whole == np.int64(2), [3]),
        (F.whole.is_in(np.array([2, BIG])), [0, 3]),
        (F.text == np.str_("k1"), [2]),
    ],
)
def test_scalars_of_numpy_are_plain_values(client: Client, predicate: Predicate, expected: list[int]) -> None:
    assert kept(client, predicate) == expected
    query = client.readings.query().filter(predicate)
    assert "np." not in query.to_python() + query.funnel()["filter"][1] + query.explain()


def test_a_bool_of_numpy_is_no_number(client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"F\.whole is an int: True \(bool\)"):
        client.readings.query().filter(F.whole == np.True_)


def test_numbers_of_other_kinds_are_compared_in_any_number_of_subqueries(client: Client) -> None:
    years, wholes = client.patients.query().select("birthyear"), client.readings.query().select("whole")
    three = F.number.is_in(years) | F.number.is_in(wholes) | F.number.is_in(wholes.filter(F.whole == 2))
    assert kept(client, three) == [1]
    long = [n + 0.5 for n in range(150)]
    lists = functools.reduce(operator.or_, [F.number.is_in([*long, more]) for more in (-1, 2, 200)])
    assert kept(client, lists) == [0, 1]
    funnel = (
        client.readings.query().filter(F.number.is_in(years), ~F.number.is_in(long), F.number.is_in(wholes)).funnel()
    )
    assert funnel["resources"].to_list() == [5, 1, 1, 1]


def test_a_list_of_numbers_is_held_against_a_subquery_of_the_other_kind(client: Client) -> None:
    numbers, wholes = (client.readings.query().select(name) for name in ("number", "whole"))
    assert kept(client, F.wholes.contains_any(numbers)) == [0]
    assert kept(client, F.numbers.contains_any(wholes)) == []
    assert kept(client, F.numbers.contains_any(numbers) | F.wholes.contains_any(numbers)) == [0]


def test_a_chain_of_hundreds_is_flat(client: Client) -> None:
    chain = functools.reduce(operator.or_, [F.text.startswith(f"k{n}") for n in range(2, 800)])
    assert kept(client, chain) == [3]
    query = client.readings.query().filter(*[~F.text.startswith(f"k{n}") for n in range(2, 200)])
    assert query.count() == 1
    assert parse_predicate(to_text(chain)) == chain


def test_a_range_stays_one_part_of_a_chain(client: Client) -> None:
    predicate = F.whole.between(1, 3) & (F.text == "k250") & F.number.is_not_null()
    query = client.readings.query().filter(predicate)
    assert to_text(query.as_select().filters[0]) == "(whole between 1 and 3) and text == 'k250' and number is not null"
    assert kept(client, predicate) == [3]


def test_what_nests_too_deep_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    tower = F.whole == 1
    for _ in range(2_000):
        tower = ~(tower & (F.whole == 2))
    with pytest.raises(InvalidInputError, match="nests more than 64"):
        Client(tmp_path / "no").readings.query().filter(tower)


@pytest.mark.parametrize("text", ["a\ud800", "\udfff"])
@pytest.mark.parametrize("test", [F.text.contains, F.text.startswith, F.text.endswith])
def test_half_a_character_is_refused_in_every_test_of_text(client: Client, text: str, test: Any) -> None:
    with pytest.raises(InvalidInputError, match="half a character"):
        client.readings.query().filter(test(text))


@pytest.mark.parametrize(("power", "words"), [(64, r"float\('inf'\)"), (16_609, "16,610 bits"), (63, "64 bits")])
def test_an_int_beyond_64_bits_is_refused_with_what_to_write(client: Client, power: int, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        client.readings.query().filter(F.whole < 2**power)


def test_an_int_beyond_all_floats_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="beyond all floats"):
        client.readings.query().filter(F.number < 10**5000)


@pytest.mark.parametrize("descending", [1, "yes", [1], None])
def test_descending_is_true_or_false(client: Client, descending: Any) -> None:
    with pytest.raises(InvalidInputError, match="True, False, or a list"):
        client.readings.query().sort("whole", descending=descending)


def test_a_field_is_named_like_a_number(client: Client) -> None:
    assert to_text(F.inf == 1) == "`inf` == 1"  # type: ignore[arg-type]  # every predicate is a node
    assert parse_predicate("`inf` == 1") == (F.inf == 1)


@pytest.mark.parametrize("text", ["inf > 1", "whole > 2024-01-01", "whole > 2024-1-1 and number < 1"])
def test_what_people_write_first_is_told_apart(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"a field|a date stands in quotes"):
        parse_predicate(text)


def run(script: str) -> pl.DataFrame:
    """Return what a script leaves in `frame`."""
    names: dict[str, Any] = {}
    exec(script, names)
    frame: pl.DataFrame = names["frame"]
    return frame


def test_the_script_of_a_query_names_all_that_it_needs(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    years = client.patients.query().select("birthyear")
    query = client.readings.query().filter((F.number > ANY(years)) | (F.number >= ALL(years))).select("identifier")
    assert run(query.to_python()).equals(query.collect())
    assert capsys.readouterr().out


def test_the_script_of_a_snapshot_s_query_asks_the_snapshot(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.create(Resource(identifier="datasource/d", payload={"name": "before"}))
    snapshot = client.snapshot()
    client.datasources.update("datasource/d", {"name": "after"})
    query = snapshot.datasources.query().filter(F.name == "before").select("name")
    assert run(query.to_python()).rows() == [("before",)]


def test_one_lake_has_one_address(tmp_path: Path) -> None:
    assert Client(tmp_path / "x" / ".." / "lake").uri == Client(tmp_path / "lake").uri
