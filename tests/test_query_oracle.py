"""Random predicates over a lake with a past: the SDK, its SQL and an oracle of the test's own give the same rows.

Failures print a small tree (`tests/support/oracle.py` has its words); `to_predicate` turns it into the SDK's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.oracle import (
    FALSE,
    KEY,
    Both,
    Either,
    HasAncestor,
    Never,
    Sql,
    Sub,
    SubTest,
    Test,
    Tree,
    connect_to_files,
    to_predicate,
)
from tests.support.story import LINEAGE, NAMESPACES, SCHEMAS, Key, View, instants_of
from tests.support.teller import (
    BYTES,
    DATES,
    DECIMALS,
    IDENTIFIERS,
    INFINITE,
    INSTANTS,
    INTS,
    POOLS,
    TEXTS,
    Chapter,
    Teller,
)
from vxdata.catalog.table import METADATA_COLUMNS
from vxdata.sdk import F

KEYS = (pl.col("identifier"), pl.col("valid_from").to_physical())
QUESTIONS = {"volumes": 300, "pathology_specimens": 150, "biopsies": 150}
"""A question has one tree, or (a third of them) two."""
MORE = 20
EACH = {"subquery": 4, "contains": 4, "startswith": 2, "endswith": 2, "is_in": 2}
"""How many tests of each verb on each column; of others one, and of all 20 times as many in the longer runs."""
EAST = timezone(timedelta(hours=5, minutes=30))


@pytest.fixture(scope="module")
def chapters(tmp_path_factory: pytest.TempPathFactory) -> list[Chapter]:
    return Teller(tmp_path_factory.mktemp("story"), seed=1).tell()


# -- literals

FRAGMENTS = (
    "T",
    "2",
    "",
    "%",
    "_",
    "'",
    '"',
    "\\",
    "a" * 62,
    "a" * 64,
    "\U0010ffff",
    "e",
    "\n",
    "[",
    "DA",
    "DA001",
    "/",
)
NAMES = (*IDENTIFIERS, "volume/none", "patient/DA", "datasource/")
SCALARS: dict[type, st.SearchStrategy[Any]] = {
    pl.Int64: st.sampled_from((*INTS, *INFINITE, 0.5, 2**53)),
    pl.Float64: st.sampled_from((*INFINITE, *INTS, 2)),
    pl.Boolean: st.booleans(),
    pl.Date: st.sampled_from((*DATES, date(2024, 1, 1), "2024-02-29", "1969-12-31")),
    pl.Decimal: st.sampled_from((*DECIMALS, 0, 41.5, 0.3, 7, Decimal("41.5"), Decimal("3"))),
    pl.Binary: st.sampled_from((*BYTES, b"\x89")),
}


def an_instant() -> st.SearchStrategy[Any]:
    """An instant in any of the forms that a user may write."""
    forms: tuple[Callable[[datetime], Any], ...] = (
        lambda at: at,
        datetime.isoformat,
        lambda at: at.replace(tzinfo=None),
        lambda at: at.replace(tzinfo=None).isoformat(" "),
        lambda at: at.date(),
        lambda at: at.astimezone(EAST) if 1 < at.year < 9999 else at,
    )
    known = (*INSTANTS, datetime.fromisoformat("2020-02-01T00:00:00Z"), datetime.fromisoformat("2020-04-01T00:00:00Z"))
    return st.builds(lambda form, at: form(at), st.sampled_from(forms), st.sampled_from(known))


def literal(column: str, dtype: pl.DataType) -> st.SearchStrategy[Any]:
    if column in LINEAGE:
        own = [name for name in NAMES if name.startswith(LINEAGE[column] + "/")]
        return st.sampled_from([*own, *(name.partition("/")[2] for name in own), "none", "%"])
    if isinstance(dtype, pl.String):
        return st.sampled_from(NAMES if column.endswith("identifier") else (*TEXTS, *FRAGMENTS))
    return an_instant() if isinstance(dtype, pl.Datetime) else SCALARS[dtype.base_type()]


def text(column: str) -> st.SearchStrategy[str]:
    if column in LINEAGE:
        return st.sampled_from(
            ("", "DA", "DA001", "DA 002%", "it's", "é", "da/", f"{LINEAGE[column]}/", "none", "%", "b =")
        )
    tricky = st.sampled_from(("[T2]", ".", "\\d", "T.", "T%", "_2", "%", "^T", "2$", "t2", "T2"))
    names = st.sampled_from(("volume/", "volume/t/", "o", "%", "'", "/1", "é", "pathologyspecimen/1"))
    return st.one_of(tricky, names, st.sampled_from((*TEXTS, *FRAGMENTS)))


# -- trees

Draw = Callable[[st.SearchStrategy[Any]], Any]
ORDERED, EQUAL = ("==", "!=", "<", "<=", ">", ">="), ("==", "!=")
UNUSED = {"volumes": 12, "pathology_specimens": 0, "biopsies": 0}
"""How many of the last columns are always null and not worth a question."""
COLUMNS = {
    namespace: {c: d for c, d in list(schema.items())[: len(schema) - UNUSED[namespace]] if c != "ancestors"}
    for namespace, schema in SCHEMAS.items()
}


def is_told(namespace: str, column: str) -> bool:
    """Whether the story gives the column values."""
    return column in POOLS[namespace] or column in METADATA_COLUMNS


def is_scalar(dtype: pl.DataType) -> bool:
    return not isinstance(dtype, (pl.List, pl.Struct))


def is_ordered(dtype: pl.DataType) -> bool:
    return is_scalar(dtype) and not isinstance(dtype, (pl.Boolean, pl.Binary))


def is_texts(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.String)


def draw_test(draw: Draw, column: str, dtype: pl.DataType, verb: str) -> Test:
    """Draw the literals of a test of a column."""
    value = ELEMENTS if is_texts(dtype) else literal(column, dtype) if is_scalar(dtype) else st.none()
    match verb:
        case "is_null" | "is_not_null":
            return Test(column, verb)
        case "is None" | "is missing":
            return Test(column, draw(st.sampled_from(EQUAL if verb == "is None" else MISSING)), (None,))
        case "is_in" | "contains_any":
            return Test(column, verb, (draw(st.lists(st.none() | value, max_size=4)),))
        case "between":
            return Test(column, verb, (draw(value), draw(value)))
        case "contains" | "startswith" | "endswith" if is_scalar(dtype):
            return Test(column, verb, (draw(text(column)),))
    return Test(column, verb, (draw(value),))


ELEMENTS = st.sampled_from((*NAMES, *TEXTS[:12], "%", "volume/a", "volume/b", "é", "it's"))
MISSING = ("eq_missing", "ne_missing")


def verbs_of(dtype: pl.DataType) -> list[str]:
    verbs = ["is_null", "is_not_null", "is None", "is missing"]
    if is_texts(dtype):
        verbs += ["contains", "contains_any"] * 3
    if is_scalar(dtype):
        verbs += [*EQUAL, *MISSING, "is_in", "is_in"]
    if is_ordered(dtype):
        verbs += [*ORDERED, "between"]
    if isinstance(dtype, pl.Datetime):
        verbs += ["after", "before"]
    if isinstance(dtype, pl.String):
        verbs += ["contains", "startswith", "endswith"]
    return verbs


def draw_subquery(draw: Draw, accepts: Callable[[pl.DataType], bool], depth: int) -> Sub:
    """Draw a subquery of a column of a fitting type; no values, some or only nulls may come of it."""
    namespace = draw(st.sampled_from([n for n in NAMESPACES if any(map(accepts, COLUMNS[n].values()))]))
    column = draw(st.sampled_from([c for c, dtype in COLUMNS[namespace].items() if accepts(dtype)]))
    where = draw_tree(draw, namespace, 1, depth - 1) if draw(st.booleans()) else None
    return Sub(namespace, column, where, draw(st.booleans()), draw(st.sampled_from((None, None, None, 0, 1, 5))))


def draw_subquery_test(draw: Draw, column: str, dtype: pl.DataType, depth: int) -> SubTest:
    if is_texts(dtype):
        return SubTest(column, "contains_any", draw_subquery(draw, lambda other: other == pl.String(), depth))
    sub = draw_subquery(draw, lambda other: other == dtype or (other.is_numeric() and dtype.is_numeric()), depth)
    if is_ordered(dtype) and draw(st.booleans()):
        return SubTest(column, draw(st.sampled_from(ORDERED[2:])), sub, draw(st.sampled_from(("ANY", "ALL"))))
    return SubTest(column, "is_in", sub)


def draw_leaf(draw: Draw, namespace: str, depth: int) -> Tree:
    """Draw a test of any column; `depth` says how deep subqueries may nest."""
    column, dtype = draw(st.sampled_from(list(COLUMNS[namespace].items())))
    kind = draw(st.sampled_from(("literal", "literal", "literal", "subquery", "ancestor")[: 5 if depth else 3]))
    if kind == "subquery" and (is_scalar(dtype) or is_texts(dtype)):
        return draw_subquery_test(draw, column, dtype, depth)
    if kind == "ancestor":
        return HasAncestor(draw(st.sampled_from(IDENTIFIERS)))
    return draw_test(draw, column, dtype, draw(st.sampled_from(verbs_of(dtype))))


def draw_tree(draw: Draw, namespace: str, height: int, depth: int) -> Tree:
    """Draw a tree of `&`, `|` and `~` up to a height."""
    kind = draw(st.sampled_from(("leaf", Both, Either, Either, Never, Never))) if height else "leaf"
    if kind == "leaf":
        return draw_leaf(draw, namespace, depth)
    parts = [draw_tree(draw, namespace, height - 1, depth) for _ in range(1 if kind is Never else 2)]
    return kind(*parts)  # type: ignore[operator, no-any-return]


@dataclass(frozen=True)
class Question:
    """A query in the test's own words; the chapter and the instant are picked by their numbers."""

    chapter: int
    namespace: str
    instant: int | None
    versions: bool
    trees: tuple[Tree, ...]
    past_client: bool = False

    def view(self, chapters: Sequence[Chapter]) -> View:
        instants = instants_of(chapters[self.chapter].story)
        return View(None if self.instant is None else instants[self.instant % len(instants)], self.versions)

    def query(self, chapters: Sequence[Chapter]) -> Any:
        at, client = self.view(chapters).instant, chapters[self.chapter].client
        client = client.as_of(at) if at is not None and self.past_client else client
        query = getattr(client, self.namespace).query()
        query = query.as_of(at) if at is not None and not self.past_client else query
        query = query.versions() if self.versions else query
        return query.filter(*(to_predicate(tree, client) for tree in self.trees))


@st.composite
def questions(draw: Draw, namespace: str) -> Question:
    chapter, at = draw(st.sampled_from((3, 2, 3, 1, 0))), draw(st.none() | st.integers(0, 40))
    some = tuple(draw_tree(draw, namespace, 3, 2) for _ in range(draw(st.sampled_from((1, 1, 2)))))
    return Question(chapter, namespace, at, draw(st.booleans()), some, draw(st.booleans()))


@st.composite
def single_tests(draw: Draw, column: str, dtype: pl.DataType, verb: str) -> Tree:
    if verb == "subquery":
        return draw_subquery_test(draw, column, dtype, 1)
    return draw_test(draw, column, dtype, verb)


def hypothesis(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    )


def by_files(question: Question, chapters: Sequence[Chapter]) -> list[Key]:
    sql = question.query(chapters).to_sql()
    return chapters[question.chapter].files.execute(f"SELECT {KEY} FROM ({sql})").fetchall()


def check(question: Question, chapters: Sequence[Chapter]) -> None:
    judge = chapters[question.chapter].judge
    expected = sorted(judge.keys(question.namespace, question.view(chapters), question.trees))
    found = question.query(chapters).select("identifier", "valid_from").collect()
    assert sorted(found.select(KEYS).rows()) == expected, "the SDK differs from the oracle"
    assert sorted(by_files(question, chapters)) == expected, question.query(chapters).to_sql()


def run_questions(namespace: str, chapters: Sequence[Chapter], examples: int) -> None:
    @hypothesis(examples)
    @given(question=questions(namespace))
    def ask(question: Question) -> None:
        check(question, chapters)

    ask()


# -- tests


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_random_predicate_keeps_the_rows_that_duckdb_keeps(namespace: str, chapters: list[Chapter]) -> None:
    run_questions(namespace, chapters, QUESTIONS[namespace])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_many_random_predicates_keep_the_rows_that_duckdb_keeps(namespace: str, chapters: list[Chapter]) -> None:
    run_questions(namespace, chapters, MORE * QUESTIONS[namespace])


TIMES = [1, pytest.param(MORE, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_verb_on_every_column_is_true_false_or_null_as_in_duckdb(
    namespace: str, times: int, chapters: list[Chapter]
) -> None:
    for column, dtype in COLUMNS[namespace].items():
        further = ("subquery",) if is_scalar(dtype) or is_texts(dtype) else ()
        for verb in (*dict.fromkeys(verbs_of(dtype)), *further) if is_told(namespace, column) else ():

            @hypothesis(times * EACH.get(verb, 1))
            @given(tree=single_tests(column, dtype, verb), negated=st.booleans())
            def ask(tree: Tree, negated: bool) -> None:
                check(Question(3, namespace, None, True, (Never(tree) if negated else tree,)), chapters)

            ask()


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_view_shows_the_rows_of_the_story(namespace: str, chapters: list[Chapter]) -> None:
    for number, chapter in enumerate(chapters):
        for instant in (None, *range(len(instants_of(chapter.story)))):
            for versions in (False, True):
                question = Question(number, namespace, instant, versions, ())
                told = chapter.story.seen(namespace, question.view(chapters))
                found = question.query(chapters).sort("identifier", "valid_from").collect()
                assert found.to_dicts() == sorted(told, key=lambda row: (row["identifier"], row["valid_from"])), (
                    question
                )


@st.composite
def orders(draw: Draw, namespace: str) -> list[tuple[str, bool]]:
    """Draw columns to sort by, each with its direction; the key comes last, so that one order is right."""
    scalars = [c for c, dtype in COLUMNS[namespace].items() if is_scalar(dtype)]
    chosen = draw(st.lists(st.sampled_from(scalars), max_size=3, unique=True))
    columns = dict.fromkeys([*chosen, "identifier", "valid_from"])
    return [(column, draw(st.booleans())) for column in columns]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_sort_puts_nulls_last_and_limit_keeps_the_first(namespace: str, chapters: list[Chapter]) -> None:
    @hypothesis(30)
    @given(question=questions(namespace), order=orders(namespace), n=st.none() | st.integers(0, 30))
    def ask(question: Question, order: list[tuple[str, bool]], n: int | None) -> None:
        chapter, view = chapters[question.chapter], question.view(chapters)
        where = chapter.judge.condition(namespace, view, question.trees[:1])
        terms = ", ".join(f'"{column}" {"DESC" if down else "ASC"} NULLS LAST' for column, down in order)
        statement = f"SELECT {KEY} FROM {chapter.judge.table(namespace, view)} WHERE {where.text} ORDER BY {terms}"
        expected = chapter.judge.run(statement, where).rows()[:n]
        first = Question(question.chapter, namespace, question.instant, question.versions, question.trees[:1])
        query = first.query(chapters).sort(*(c for c, _ in order), descending=[down for _, down in order])
        query = query if n is None else query.limit(n)
        assert query.collect().select(KEYS).rows() == expected
        assert chapter.files.execute(f"SELECT {KEY} FROM ({query.to_sql()})").fetchall() == expected
        assert query.count() == len(expected)

    ask()


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_funnel_counts_what_duckdb_counts(namespace: str, chapters: list[Chapter]) -> None:
    @hypothesis(30)
    @given(question=questions(namespace))
    def ask(question: Question) -> None:
        funnel = question.query(chapters).funnel()
        expected = list(counts(question, chapters))
        assert funnel.drop("filter").rows() == expected
        assert funnel["filter"][0] == "all"

    ask()


def counts(question: Question, chapters: Sequence[Chapter]) -> Iterator[tuple[int, ...]]:
    """Yield resources, patients, studies, removed and removed_null of each step, counted by DuckDB."""
    judge, view = chapters[question.chapter].judge, question.view(chapters)
    for n in range(len(question.trees) + 1):
        kept = judge.condition(question.namespace, view, question.trees[:n])
        before = judge.condition(question.namespace, view, question.trees[: n - 1]) if n else FALSE
        last = judge.condition(question.namespace, view, question.trees[n - 1 : n]) if n else FALSE
        removed = Sql(f"{before.text} AND {last.text} IS NOT TRUE", before.parameters + last.parameters)
        unknown = Sql(f"{before.text} AND {last.text} IS NULL", before.parameters + last.parameters)
        found = [("count(*)", kept), ("count(DISTINCT patient_id)", kept), ("count(DISTINCT study_id)", kept)]
        found += [("count(*)", removed), ("count(*)", unknown)]
        statement = "SELECT {} FROM {} WHERE {}"
        table = judge.table(question.namespace, view)
        yield tuple(judge.run(statement.format(what, table, where.text), where).item() for what, where in found)


@pytest.mark.parametrize("chapter", range(4))
def test_sql_as_of_an_instant_keeps_its_limit(chapter: int, chapters: list[Chapter]) -> None:
    told = chapters[chapter]
    query = told.client.volumes.query().as_of("2021-01-01").sort("identifier").limit(1)
    with connect_to_files(told.client.uri, careful=False) as connection:
        assert len(connection.execute(f"SELECT {KEY} FROM ({query.to_sql()})").fetchall()) == 1


DECIMAL_LITERALS = (Decimal("41.504"), 41.496, 41.505, 1e-7, 10**4, 1e9, -(10**30), Decimal("1E+3"), 0.1 + 0.2)


@pytest.mark.parametrize("value", DECIMAL_LITERALS, ids=repr)
def test_a_decimal_compares_with_numbers_of_any_size_and_scale(value: Any, chapters: list[Chapter]) -> None:
    for verb in ("==", "!=", "<", "<=", ">", ">=", "eq_missing", "ne_missing"):
        check(Question(3, "biopsies", None, True, (Test("prostate_volume", verb, (value,)),)), chapters)
    for verb, arguments in (("is_in", ([value, Decimal("41.50")],)), ("between", (-value, value))):
        check(Question(3, "biopsies", None, True, (Test("prostate_volume", verb, arguments),)), chapters)


@pytest.mark.parametrize("bound", [float("inf"), float("-inf")])
def test_a_decimal_is_less_than_infinity(bound: float, chapters: list[Chapter]) -> None:
    query = chapters[3].client.biopsies.query().versions()
    known = query.filter(F.prostate_volume.is_not_null()).count()
    assert query.filter(F.prostate_volume < bound).count() == (known if bound > 0 else 0)
