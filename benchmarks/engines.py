"""The same questions to us, bare Polars, deltalake's own engine, DuckDB and `idc-index`, over the same files."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from deltalake import DeltaTable, QueryBuilder

from benchmarks.measure import Race, Row, paired, raced
from vxdata.expr.tree import Predicate
from vxdata.sdk import Client, F

COLUMNS = ("identifier", "patient_id", "modality", "series_description")
IDC_COLUMNS = ("SeriesInstanceUID", "PatientID", "Modality", "SeriesDescription")
AS_IDC = ("series_instance_uid", *COLUMNS[1:])
"""The same as idc-index answers: an identifier of ours is more than twice as long as the UID that it ends in."""
FILTER_GOAL, SUBQUERY_GOAL, PLANNING_GOAL = 1.15, 1.3, 10.0
MANY = 80_000


@dataclass(frozen=True)
class Question:
    """One filter in the words of each engine; `idc` is None where idc-index cannot answer it."""

    words: str
    ours: Predicate
    polars: pl.Expr
    sql: str
    idc: str | None = None


@dataclass(frozen=True)
class Questions:
    """What is asked of one lake: filters, and the studies of a subquery."""

    filters: tuple[Question, ...]
    studies: tuple[Predicate, pl.Expr]


def _of(datasource: str, patient: str, text: str, low: int, high: int, *, in_idc: bool) -> tuple[Question, ...]:
    number = pl.col("series_number")
    questions = (
        Question("modality", F.modality == "MR", pl.col("modality") == "MR", "modality = 'MR'", "Modality = 'MR'"),
        Question(
            "one datasource",
            F.datasource_id == datasource,
            pl.col("datasource_id") == f"datasource/{datasource}",
            f"datasource_id = 'datasource/{datasource}'",
            f"collection_id = '{datasource}'",
        ),
        Question(
            "one patient",
            F.patient_id == patient,
            pl.col("patient_id") == f"patient/{patient}",
            f"patient_id = 'patient/{patient}'",
            f"collection_id = '{datasource}' AND PatientID = '{patient.partition('/')[2]}'",
        ),
        Question(
            "manufacturer and modality",
            (F.manufacturer == "SIEMENS") & (F.modality == "MR"),
            (pl.col("manufacturer") == "SIEMENS") & (pl.col("modality") == "MR"),
            "manufacturer = 'SIEMENS' AND modality = 'MR'",
            "Manufacturer = 'SIEMENS' AND Modality = 'MR'",
        ),
        Question(
            "number range",
            F.series_number.between(low, high),
            number.is_between(low, high),
            f"series_number BETWEEN {low} AND {high}",
        ),
        Question(
            "text contains",
            F.series_description.contains(text),
            pl.col("series_description").str.contains(text, literal=True),
            f"contains(series_description, '{text}')",
            f"contains(SeriesDescription, '{text}')",
        ),
        Question(
            "text starts with",
            F.series_description.startswith(text),
            pl.col("series_description").str.starts_with(text),
            f"starts_with(series_description, '{text}')",
            f"starts_with(SeriesDescription, '{text}')",
        ),
    )
    return questions if in_idc else tuple(Question(q.words, q.ours, q.polars, q.sql) for q in questions)


IDC = Questions(
    _of("prostatex", "prostatex/ProstateX-0017", "t2", 100, 110, in_idc=True),
    (F.study_description.startswith("MR"), pl.col("study_description").str.starts_with("MR")),
)
LARGE = Questions(
    _of("g07", "g07/00000123", "T2", 100, 110, in_idc=False),
    (F.study_description == "PROSTATE", pl.col("study_description") == "PROSTATE"),
)


def filters(lake: Path, questions: Questions, runs: int) -> Iterator[Race]:
    """Race each filter on a warm client against handles that are open already; each engine plans each question anew."""
    client, table = Client(lake), DeltaTable(str(lake / "volumes"))
    ask_idc = _idc() if any(q.idc for q in questions.filters) else None
    for question in questions.filters:
        where = f"valid_to IS NULL AND {question.sql}"
        query = client.volumes.query().filter(question.ours).select(*COLUMNS)
        peers: dict[str, Callable[[], Any]] = {
            "Polars": lambda question=question: _polars(table, question).collect(),
            "deltalake": _deltalake(table, where),
            "DuckDB": _duckdb(table, lake, where),
        }
        yield raced(question.words, query.collect, peers, FILTER_GOAL, runs)
        if ask_idc and question.idc:
            statement = f"SELECT {', '.join(IDC_COLUMNS)} FROM index WHERE {question.idc}"
            peer = {"idc-index": lambda statement=statement: ask_idc(statement)}
            same = client.volumes.query().filter(question.ours).select(*AS_IDC)
            yield raced(f"{question.words}, as idc-index answers", same.collect, peer, FILTER_GOAL, runs)


def scans(lake: Path, questions: Questions, runs: int) -> Iterator[Race]:
    """Race the scans alone: both sides run a plan that was made before, and run before."""
    client, table = Client(lake), DeltaTable(str(lake / "volumes"))
    for question in questions.filters:
        mine, theirs = client.volumes.query().filter(question.ours).select(*COLUMNS).lazy(), _polars(table, question)
        yield raced(question.words, mine.collect, {"Polars": theirs.collect}, FILTER_GOAL, runs)


def _polars(table: DeltaTable, question: Question) -> pl.LazyFrame:
    return pl.scan_delta(table).filter(_is_current() & question.polars).select(COLUMNS)


def subqueries(lake: Path, questions: Questions, runs: int) -> Iterator[Race]:
    """Race joins against the same in hand-written Polars."""
    client, ours = Client(lake), _joins(Client(lake), lake, questions)
    volumes, studies = (
        pl.scan_delta(str(lake / name)).filter(_is_current()) for name in ("volumes", "imaging_studies")
    )
    wanted = studies.filter(questions.studies[1]).select("identifier")
    listed = pl.LazyFrame({"identifier": _some_identifiers(client)})
    study = {"left_on": "study_id", "right_on": "identifier"}
    known = volumes.filter(pl.col("identifier").is_not_null())
    theirs: Mapping[str, pl.LazyFrame] = {
        "is_in a subquery": volumes.join(wanted, how="semi", **study),  # type: ignore[arg-type]
        "not is_in a subquery": volumes.join(wanted, how="anti", **study),  # type: ignore[arg-type]
        f"is_in {MANY:,} values": volumes.join(listed, on="identifier", how="semi"),
        f"not is_in {MANY:,} values": known.join(listed, on="identifier", how="anti"),
    }
    for words, query in ours.items():
        peer = theirs[words].select(COLUMNS)
        yield raced(words, query.collect, {"Polars by hand": peer.collect}, SUBQUERY_GOAL, runs)


def planning(lake: Path, questions: Questions) -> list[Row]:
    """Time all that comes before the scan, building included, on a warm client, against the goal in milliseconds."""
    client = Client(lake)
    client.volumes.query().count()
    client.imaging_studies.query().count()
    one = questions.filters[3]
    values = _some_identifiers(client).to_list()
    plans: dict[str, Callable[[], Any]] = {
        f"plan a filter: {one.words}": lambda: client.volumes.query().filter(one.ours).select(*COLUMNS).lazy(),
        "plan a subquery": lambda: _joins(client, lake, questions, values[:1])["is_in a subquery"].lazy(),
        "plan is_in of 1,000 values": lambda: client.volumes.query().filter(F.identifier.is_in(values[:1000])).lazy(),
        f"plan is_in of {MANY:,} values": lambda: client.volumes.query().filter(F.identifier.is_in(values)).lazy(),
    }
    rows = [paired(f"{words} / 10 ms", plan, lambda: None, None, 50) for words, plan in plans.items()]
    return [Row(r.question, r.ours, PLANNING_GOAL, r.ours / PLANNING_GOAL, 1.0) for r in rows]


def _joins(client: Client, lake: Path, questions: Questions, values: Any = None) -> dict[str, Any]:
    volumes = client.volumes.query()
    studies = client.imaging_studies.query().filter(questions.studies[0]).select("identifier")
    listed = F.identifier.is_in(_some_identifiers(client) if values is None else values)
    asked = {
        "is_in a subquery": F.study_id.is_in(studies),
        "not is_in a subquery": ~F.study_id.is_in(studies),
        f"is_in {MANY:,} values": listed,
        f"not is_in {MANY:,} values": ~listed,
    }
    return {words: volumes.filter(predicate).select(*COLUMNS) for words, predicate in asked.items()}


def _is_current() -> pl.Expr:
    return pl.col("valid_to").is_null()


def _some_identifiers(client: Client) -> pl.Series:
    return client.volumes.query().select("identifier").collect()["identifier"].sort().sample(MANY, seed=1)


def _deltalake(table: DeltaTable, where: str) -> Callable[[], Any]:
    builder = QueryBuilder().register("volumes", table)
    statement = f"SELECT {', '.join(COLUMNS)} FROM volumes WHERE {where}"
    return lambda: pl.DataFrame(builder.execute(statement).read_all())


def _duckdb(table: DeltaTable, lake: Path, where: str) -> Callable[[], Any]:
    files = [f"{lake}/volumes/{action}" for action in pl.DataFrame(table.get_add_actions())["path"]]
    connection = duckdb.connect()
    connection.read_parquet(_on_disk(files), hive_partitioning=True).create_view("volumes")  # type: ignore[arg-type]
    statement = f"SELECT {', '.join(COLUMNS)} FROM volumes WHERE {where}"
    return lambda: connection.sql(statement).pl()


def _on_disk(files: list[str]) -> list[str]:
    """Return the paths of files whose names the log holds URL-encoded."""
    return [file.replace("%25", "%") for file in files]


def _idc() -> Callable[[str], Any]:
    from idc_index import IDCClient

    return IDCClient().sql_query  # type: ignore[no-any-return]
