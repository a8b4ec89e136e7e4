"""Long lists of values: joined like a subquery, and right with nulls as a short list is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from pydantic import Field

from tests.support.registered import registered
from vxdata.errors import InvalidInputError
from vxdata.expr.tree import LONG
from vxdata.schemas import Payload
from vxdata.schemas.payload import UtcDatetime
from vxdata.sdk import Client, F

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
MANY = range(1000, 1000 + 2 * LONG)


class Reading(Payload, type="reading", namespace="readings", parents=("patient",)):
    text: str | None = None
    whole: int | None = None
    number: float | None = None
    exact: Decimal | None = Field(default=None, max_digits=8, decimal_places=2)
    day: date | None = None
    instant: UtcDatetime | None = None
    raw: bytes | None = None
    tags: list[str | None] | None = None
    wholes: list[int] | None = None


ROWS: list[dict[str, Any]] = [
    {"text": "", "whole": 0, "number": -0.0, "exact": Decimal("0.50"), "day": date(2024, 1, 1), "tags": [], "raw": b""},
    {"text": "é'%", "whole": 1, "number": 1.0, "exact": Decimal(1), "instant": NOON, "tags": ["a", None], "wholes": []},
    {"text": "b", "whole": 2, "number": 2.5, "exact": Decimal("2.25"), "day": date(2024, 1, 3), "tags": ["b", "c"]},
    {
        "text": "c",
        "whole": 3,
        "number": 1e300,
        "instant": NOON + timedelta(seconds=1),
        "raw": b"\x00",
        "wholes": [1, 7],
    },
    {},
]
"""The first two of the wanted values of each column are in some row; the last row is null throughout."""


@pytest.fixture(scope="module", autouse=True)
def reading_type() -> Iterator[None]:
    with registered("reading", Reading):
        yield


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a lake with the rows, two of them updated since: it has closings."""
    client = Client(tmp_path_factory.mktemp("long") / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/d"]}))
    names = [f"patient/{n}" for n in range(len(ROWS))]
    client.patients.upsert(pl.DataFrame({"identifier": names, "parent_identifier": "datasource/d"}))
    frame = pl.DataFrame({"identifier": [f"reading/{n}" for n in range(len(ROWS))], "parent_identifier": names})
    payload = pl.DataFrame(ROWS, schema={n: client.readings.query().collect().schema[n] for n in Reading.model_fields})
    client.readings.upsert(frame.with_columns(text=pl.lit("b"), whole=pl.lit(1)))
    client.readings.upsert(pl.concat([frame, payload], how="horizontal"))
    return client


def found(client: Client, predicate: Any) -> list[int]:
    frame = client.readings.query().filter(predicate).select("identifier").collect()
    return sorted(int(name.partition("/")[2]) for name in frame["identifier"])


def expected(column: str, values: Sequence[Any], keep: Callable[[bool | None], bool | None]) -> list[int]:
    """Return the rows for which something of `value in values` is true; it is null for a null."""
    answers = [None if row.get(column) is None else row[column] in values for row in ROWS]
    return [n for n, answer in enumerate(answers) if keep(answer) is True]


LISTS: dict[str, tuple[str, Sequence[Any]]] = {
    "ints": ("whole", [1, 3, *MANY]),
    "floats on an int column": ("whole", [1.0, 2.5, *(n + 0.5 for n in MANY)]),
    "ints and floats on an int column": ("whole", [1, 2.0, *MANY, 0.5]),
    "floats": ("number", [0.0, 2.5, *(n / 7 for n in MANY)]),
    "ints on a float column": ("number", [0, 1, *MANY]),
    "decimals": ("exact", [Decimal("0.5"), Decimal("2.250"), Decimal("1.001"), *map(Decimal, MANY)]),
    "numbers on a decimal column": ("exact", [1, 2.25, 1e300, float("inf"), *MANY]),
    "dates": ("day", [date(2024, 1, 3), *(date(1900, 1, 1) + timedelta(days=n) for n in MANY)]),
    "instants": ("instant", [NOON, *(NOON + timedelta(days=n) for n in MANY)]),
    "texts": ("text", ["", "é'%", *map(str, MANY)]),
    "bytes": ("raw", [b"\x00", *(str(n).encode() for n in MANY)]),
}
FORMS: dict[str, tuple[Callable[[Any], Any], Callable[[bool | None], bool | None]]] = {
    "alone": (lambda p: p, lambda a: a),
    "not": (lambda p: ~p, lambda a: None if a is None else not a),
    "not not": (lambda p: ~~p, lambda a: a),
    "or": (lambda p: p | (F.identifier == "none"), lambda a: a or (None if a is None else False)),
    "or null": (lambda p: p | F.text.is_in(["no"]) | p, lambda a: a),
    "not or": (lambda p: ~(p | (F.identifier == "none")), lambda a: None if a is None else not a),
    "not and": (lambda p: ~(p & (F.identifier != "none")), lambda a: None if a is None else not a),
    "and": (lambda p: (F.identifier != "none") & p, lambda a: a),
}


@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("nulls", [False, True], ids=["", "with a null"])
def test_a_long_list_keeps_the_rows_that_are_in_it(client: Client, case: str, nulls: bool) -> None:
    column, values = LISTS[case]
    assert len(values) > LONG
    for form, (build, keep) in FORMS.items():
        predicate = build(F[column].is_in([*values, None] if nulls else values))
        assert found(client, predicate) == expected(column, values, keep), form


def test_a_long_list_takes_identifiers_with_and_without_their_type(client: Client) -> None:
    names = ["1", "patient/3", *map(str, MANY)]
    assert found(client, F.patient_id.is_in(names)) == [1, 3]
    assert found(client, ~F.patient_id.is_in(names)) == [0, 2, 4]
    with pytest.raises(InvalidInputError, match="'volume'"):
        client.readings.query().filter(F.patient_id.is_in([*names, "volume/1"]))


ELEMENTS: dict[str, tuple[Any, list[int], list[int]]] = {
    "texts": (F.tags.contains_any(["a", "c", None, *map(str, MANY)]), [1, 2], [0]),
    "ints": (F.wholes.contains_any([7, *MANY]), [3], [1]),
    "floats": (F.wholes.contains_any([1.0, 0.5, *MANY]), [3], [1]),
}


@pytest.mark.parametrize("case", ELEMENTS)
def test_a_long_list_is_compared_with_elements(client: Client, case: str) -> None:
    predicate, inside, outside = ELEMENTS[case]
    assert found(client, predicate) == inside
    assert found(client, ~predicate) == outside


@pytest.mark.parametrize("kind", ["versions", "as_of"])
def test_a_long_list_is_asked_of_the_past_and_of_derived_ends(client: Client, kind: str) -> None:
    ends = client.readings.query().versions().collect()["valid_to"].drop_nulls().unique()
    query = client.readings.query().versions() if kind == "versions" else client.readings.query().as_of(ends[0])
    far = [*ends, *(NOON + timedelta(days=n) for n in MANY)]
    assert query.filter(F.valid_to.is_in(far)).count() == (len(ROWS) if kind == "versions" else 0)
    assert query.filter(F.whole.is_in([2, *MANY])).count() == 1


def test_sql_and_python_hold_every_value_and_explain_a_few(client: Client) -> None:
    query = client.readings.query().filter(F.whole.is_in([1, 3, *MANY]))
    assert "1, 3, 1000, 1001, 1002, 1003, 1004, 1005, ... 194 more]" in query.explain().split("\n\n")[0]
    assert str(MANY[-1]) not in query.funnel_chart()
    assert str(MANY[-1]) in query.funnel()["filter"][1]
    rows = pl.DataFrame({"whole": [0, 1, 2, 3, None]}).to_arrow()
    views = duckdb.connect()
    views.register("readings", rows)
    assert views.execute(query.select("whole").to_sql()).fetchall() == [(1,), (3,)]


def joins(query: Any) -> Mapping[str, int]:
    plan = query.lazy().explain()
    return {kind: plan.count(f"END {kind} JOIN") for kind in ("SEMI", "ANTI", "LEFT") if f"END {kind} JOIN" in plan}


def test_a_long_list_is_a_join_of_the_plan_and_a_short_one_is_not(tmp_path: Path) -> None:
    query, values = Client(tmp_path).readings.query, list(range(LONG + 1))
    Client(tmp_path).datasources.upsert(pl.DataFrame({"identifier": ["datasource/d"]}))
    assert joins(query().filter(F.whole.is_in(values))) == {"SEMI": 1}
    assert joins(query().filter(~F.whole.is_in(values))) == {"ANTI": 1}
    assert joins(query().filter(F.whole.is_in(values) | F.text.is_null())) == {"LEFT": 1}
    assert joins(query().filter(F.whole.is_in(values[1:]))) == {}
    assert joins(query().filter(F.whole.is_in([1] * 2 * LONG))) == {}
