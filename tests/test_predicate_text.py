"""The query text: what it says is what F says, what is printed is read back, and errors point at the place."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vxdata.catalog.table import table_spec
from vxdata.errors import InvalidInputError
from vxdata.expr.bind import bind
from vxdata.expr.parse import MOST_NESTED, parse_predicate
from vxdata.expr.select import Select
from vxdata.expr.to_text import to_text
from vxdata.expr.tree import (
    And,
    Compare,
    EqMissing,
    HasAncestor,
    InSelect,
    IsIn,
    IsNull,
    Node,
    Not,
    Or,
    Overlaps,
    Predicate,
    Text,
)
from vxdata.schemas.payload import VolumePayload
from vxdata.sdk import F, has_ancestor

DOC = Path(__file__).resolve().parents[1] / "docs" / "query-text.md"
VOLUMES = table_spec(VolumePayload)


def rows_of_doc() -> list[tuple[str, str]]:
    """The table of conditions: text, and the same in Python."""
    section = DOC.read_text().split("## Conditions")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?`) \| `(.+)` \|$", section, re.M)
    return [(re.sub(r"^`+ ?| ?`+$", "", text), python.replace("\\|", "|")) for text, python in cells]


def test_the_doc_has_its_table() -> None:
    assert len(rows_of_doc()) == 28


@pytest.mark.parametrize(("text", "python"), rows_of_doc())
def test_the_doc_s_text_is_the_doc_s_python(text: str, python: str) -> None:
    expected = eval(python, {"F": F, "has_ancestor": has_ancestor})
    assert parse_predicate(text) == expected
    assert parse_predicate(to_text(expected)) == expected


# ---- what is printed is read back

NAMES = st.one_of(st.sampled_from(["a", "volume_type", "not", "NULL", "has_ancestor", "in", "odd `name`"]), st.text())
VALUES = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
)
ANY_VALUES = st.lists(VALUES | st.none(), max_size=4).map(tuple)
LEAVES = st.one_of(
    st.builds(Compare, NAMES, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "after", "before"]), VALUES),
    st.builds(EqMissing, NAMES, VALUES | st.none()),
    st.builds(IsNull, NAMES),
    st.builds(IsIn, NAMES, ANY_VALUES),
    st.builds(Text, NAMES, st.sampled_from(["contains", "startswith", "endswith"]), st.text()),
    st.builds(Overlaps, NAMES, ANY_VALUES),
    st.builds(HasAncestor, st.text()),
    st.builds(lambda name, low, high: F[name].between(low, high), st.just("a"), VALUES, VALUES),
)


def joined(trees: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    parts = st.lists(trees, min_size=2, max_size=4).map(tuple)
    return st.one_of(st.builds(Not, trees), st.builds(And, parts), st.builds(Or, parts))


TREES = st.recursive(LEAVES, joined, max_leaves=12)


def as_printed(value: Any) -> Any:
    """A tree with the types of its values beside them: 1, 1.0, True and Decimal(1) are equal, and not the same."""
    if isinstance(value, tuple):
        return tuple(map(as_printed, value))
    if isinstance(value, Predicate):
        return type(value), *(as_printed(getattr(value, name)) for name in value.__slots__)  # type: ignore[attr-defined]
    return type(value), str(value)


@given(TREES)
@example(~(F.a == 1) & ((F.b == 2) | (F.c == 3)) & ~((F.d == 4) | ~F.e.is_null()))
@example(F.a.between(-1, 1e300) | (F.a >= 1) & (F.b <= 2))
@example((F.a == float("-inf")) & F.b.is_in([]) & (F.c == 'it\'s\n\\n `odd` "one"'))
def test_every_tree_printed_as_text_is_read_back_to_itself(tree: Predicate) -> None:
    again = parse_predicate(to_text(cast("Node", tree)))
    assert again == tree
    assert as_printed(again) == as_printed(tree)


class Kind(Enum):
    T2 = "T2"


@pytest.mark.parametrize(
    "predicate",
    [
        F.volume_type == Kind.T2,
        F.acquisition_datetime >= datetime(2024, 1, 2, 3, 4, 5, 6, UTC),
        F.acquisition_datetime.is_in([date(2024, 1, 2), "2024-01-03"]),
        F.acquisition_datetime.after("2024-01-01"),
        F.derived_from.contains("volume/1"),
        F.patient_id.startswith("DA") & has_ancestor("datasource/a"),
    ],
    ids=str,
)
def test_values_that_are_spelt_in_two_ways_mean_the_same_to_the_table(predicate: Predicate) -> None:
    bound = bind(predicate, VOLUMES)
    assert bind(parse_predicate(to_text(cast("Node", predicate))), VOLUMES) == bound
    assert bind(parse_predicate(to_text(bound)), VOLUMES) == bound


def test_a_subquery_has_no_text() -> None:
    with pytest.raises(InvalidInputError, match="subquery on 'patient_id' has no text"):
        to_text(InSelect("patient_id", Select("x", VOLUMES)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a == 1 AND b IS NOT NULL", (F.a == 1) & F.b.is_not_null()),
        ("a>-3", F.a > -3),
        ("a == .5 or a == 5.", (F.a == 0.5) | (F.a == 5.0)),
        ("a in ('x', null, 3,)", F.a.is_in(["x", None, 3])),
        ("a contains_any ()", F.a.contains_any([])),
        ("a contains 3", F.a.contains(3)),
        ("a == 'C:\\new' ", F.a == "C:\\new"),
        ("a == 'it''s' and b == \"\"\"\"", (F.a == "it's") & (F.b == '"')),
        ("a not between 1 and 2 and b == 3", ~F.a.between(1, 2) & (F.b == 3)),
        ("not not (a == 1)", ~~(F.a == 1)),
        ("größe == 'ß'", F["größe"] == "ß"),
        ("contains contains 'contains'", F.contains.contains("contains")),
        ("a == decimal '0.10'", F.a == Decimal("0.10")),
        ("a == hex '00ff'", F.a == b"\x00\xff"),
    ],
)
def test_other_spellings(text: str, expected: Predicate) -> None:
    assert parse_predicate(text) == expected


def test_a_chain_is_flat_so_that_a_long_one_is_no_deep_one() -> None:
    tree = parse_predicate(" or ".join(f"b_value == {n}" for n in range(3000)))
    assert isinstance(tree, Or)
    assert len(tree.parts) == 3000
    assert bind(tree, VOLUMES) == tree


# ---- errors


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("volume_type = 'T2'", "= 'T2'", "write =="),
        ("volume_type == T2", "T2", "a text stands in quotes: 'T2'"),
        ("volume_type == 'T2", "'T2", "no closing '"),
        ("`volume_type == 1", "`volume", "no closing `"),
        ("a == 1 && b == 2", "&& b", "write and"),
        ("a <> 1", "<> 1", "write !="),
        ("a == 1 | b == 2", "| b", "write or"),
        ("!(a == 1)", "!(a", "write not"),
        ("a in ['x']", "['x']", "parentheses"),
        ("a in 'x'", "'x'", "a list in parentheses"),
        ("a in ('x' 'y')", "'y'", "a comma or )"),
        ("a like 'x%'", "like", "contains, startswith or endswith"),
        ("a stratswith 'x'", "stratswith", "'startswith'"),
        ("a startswith 3", "3", "a text in quotes"),
        ("a contains ('x')", "('x')", "contains any"),
        ("F.a == 1", ".a == 1", "name alone"),
        ("'T2' == a", "'T2'", "a field; a value stands on the right"),
        ("a and b == 1", "and b", "a comparison after a"),
        ("a == 1 b == 2", "b == 2", "and, or, or the end"),
        ("a == 1)", ")", "and, or, or the end"),
        ("a > null", "null", "is null"),
        ("a is 3", "3", "expected null"),
        ("a not 3", "3", "after not"),
        ("a == 3mm", "3mm", "no number"),
        ("a == ‘x’", "‘x’", "curly quotes"),
        ("a == 1\nand b = 2", "= 2", "write =="),
        ("a == decimal 'x'", "'x'", "no decimal"),
        ("a between 1 or 2", "or 2", "expected and"),
        ("has_ancestor 'a'", "'a'", "expected ("),
        ("日本語 = 1", "= 1", "write =="),
        ("a == 1" + " and a == 1" * 50 + " and b = 2 " + "and c == 3" * 20, "= 2", "write =="),
    ],
)
def test_an_error_shows_the_place(text: str, place: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_predicate(text)
    message, line, caret = str(raised.value).split("\n")
    assert words in message
    shown = line.replace("日本語", "日本語   ")  # wide characters take two columns each
    assert shown[caret.index("^") :].startswith(place[:6])
    assert max(map(len, (line, caret))) <= 76


@pytest.mark.parametrize("text", ["", "  ", "a", "a ==", "(a == 1", "not", "a in (", "a == 1 and", "a between 1 and"])
def test_a_text_that_ends_too_early_says_so_at_its_end(text: str) -> None:
    with pytest.raises(InvalidInputError, match="found the end of the text") as raised:
        parse_predicate(text)
    _, line, caret = str(raised.value).split("\n")
    assert caret.index("^") == len(line.rstrip()) or not text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "(" * (MOST_NESTED + 1) + "a == 1" + ")" * (MOST_NESTED + 1),
        "not " * 100_000 + "a == 1",
        "(" * 100_000,
        "a == " + "9" * 100_000,
        "a == 'x" * 10_000,
        "\0" * 1000,
    ],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)
def test_hostile_text_is_an_error_like_others(text: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_predicate(text)
    assert len(str(raised.value)) < 400
    assert "\0" not in str(raised.value)


def test_the_deepest_nesting_can_be_used() -> None:
    tree = parse_predicate("(" * MOST_NESTED + "b_value == 1" + ")" * MOST_NESTED)
    negated = parse_predicate("not " * MOST_NESTED + "b_value == 1")
    assert bind(negated, VOLUMES) == negated
    assert tree == Compare("b_value", "==", 1)


def test_no_text_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="a text is expected"):
        parse_predicate(cast("str", None))


def test_what_the_table_refuses_is_shown_at_its_place() -> None:
    with pytest.raises(InvalidInputError, match="Did you mean 'volume_type'") as raised:
        parse_predicate("b_value > 0 and volume_typ == 'T2'", check=lambda leaf: bind(leaf, VOLUMES))
    _, line, caret = str(raised.value).split("\n")
    assert line[caret.index("^") :] == "volume_typ == 'T2'"
