"""docs/queries.md: its code runs, and its tables say what a query keeps."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

import duckdb
import polars as pl
import pytest

from tests.test_readme import ROOT, blocks
from vxdata.errors import InvalidInputError
from vxdata.schemas import Resource
from vxdata.sdk import ALL, ANY, Client, F
from vxdata.sdk.ingest import ingest

PAGE = "docs/queries.md"
TESTED = "datasource/tables"
STUDY_1, STUDY_2, STUDY_3 = "imagingstudy/BB00017/1", "imagingstudy/BB00018/1", "imagingstudy/DA1/1"
DERIVED = ["annotationsession/1", "volume/t2"]
VOLUMES = [
    # identifier, study, volume_type, image_plane, slice_thickness, modality, series_description, derived_from
    ("volume/t2", STUDY_1, "T2", "transversal", 3.0, "MR", "t2_tse_tra", None),
    ("volume/t2-thick", STUDY_1, "T2", "transversal", 4.0, "MR", "t2_tse_tra", None),
    ("volume/t2-sag", STUDY_2, "T2", "sagittal", 1.0, "MR", "t2 localizer", None),
    ("volume/adc", STUDY_3, "ADC", "transversal", 1.2, "MR", "ep2d", None),
    ("volume/t1", STUDY_1, "T1", "transversal", 1.0, "MR", None, None),
    ("volume/t1-thick", STUDY_2, "T1", "transversal", 1.5, "MR", None, None),
    ("volume/t1-unknown", STUDY_3, "T1", None, None, "MR", None, None),
    ("volume/mask", STUDY_1, "SEG", None, 3.0, "SEG", None, DERIVED),
    ("volume/mask-draft", STUDY_2, "SEG", None, 3.0, "SEG", None, ["annotationsession/2"]),
]
VOLUME_COLUMNS = (
    "identifier parent_identifier volume_type image_plane slice_thickness modality series_description derived_from"
)


def tables(page: str) -> list[list[list[str]]]:
    """The Markdown tables of a page, as cells: the code in backticks where a cell is code."""
    text = (ROOT / page).read_text()
    found = re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE)
    return [
        [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table.splitlines()]
        for table in found
    ]


def code(cell: str) -> str:
    return cell[cell.index("`") + 1 : cell.rindex("`")]


TABLES_OF_NULLS = [table for table in tables(PAGE) if table[0][0].startswith("when `F.")]
CASES = [
    pytest.param(code(table[0][0]).removeprefix("F."), table[0][1:], row, id=row[0])
    for table in TABLES_OF_NULLS
    for row in table[2:]
]
SPELLINGS = next(table[2:] for table in tables(PAGE) if table[0] == ["not so", "but so"])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    client = Client(tmp_path_factory.mktemp("queries") / "lake")
    volumes = pl.DataFrame(VOLUMES, orient="row", schema_overrides={"column_7": pl.List(pl.String)})
    volumes.columns = VOLUME_COLUMNS.split()
    ingest(client, {**ancestors(), "volumes": volumes}, valid_from="2023-06-01")
    client.volumes.update("volume/t2", {"b_value": 0.0})
    client.resources.create(values_of_the_tables())
    return client


def ancestors() -> dict[str, pl.DataFrame]:
    def frame(*rows: tuple[Any, ...], columns: str = "") -> pl.DataFrame:
        return pl.DataFrame(rows, orient="row", schema=["identifier", "parent_identifier", *columns.split()])

    times = ["2024-06-01T00:00:00+00:00", "2024-06-30T22:30:00+00:00", "2024-05-31T22:30:00+00:00"]
    patients = ["patient/BB00017", "patient/BB00018", "patient/DA1"]
    studies = zip([STUDY_1, STUDY_2, STUDY_3], patients, times, strict=True)
    rpe = "pathologyspecimen/BB00017/rpe"
    return {
        "datasources": pl.DataFrame({"identifier": ["datasource/bamberg", "datasource/dasa"]}),
        "patients": frame(*zip(patients, ["datasource/bamberg"] * 2 + ["datasource/dasa"], strict=True)),
        "imaging_studies": frame(*studies, columns="study_datetime").with_columns(
            pl.col("study_datetime").str.to_datetime(time_unit="us", time_zone="UTC")
        ),
        "pathology_specimens": frame((rpe, patients[0], "RPE"), (f"{rpe}/slice", rpe, "slice"), columns="type"),
        "pathology_assessments": frame(("pathologyassessment/1", f"{rpe}/slice", 2), columns="isup"),
        "annotation_sessions": frame(
            ("annotationsession/1", patients[0], "submitted"),
            ("annotationsession/2", patients[1], "draft"),
            columns="status",
        ),
    }


def values_of_the_tables() -> list[Resource]:
    """For each field of the tables a volume or a study with each of its values; all below a datasource of their own."""
    resources = [Resource(identifier=TESTED), Resource(identifier="patient/tested", parent_identifier=TESTED)]
    study = Resource(identifier="imagingstudy/tested", parent_identifier="patient/tested")
    resources.append(study)
    for field, values in {code(t[0][0]).removeprefix("F."): t[0][1:] for t in TABLES_OF_NULLS}.items():
        kind, parent = ("imagingstudy", "patient/tested") if field == "study_datetime" else ("volume", study.identifier)
        for n, value in enumerate(values):
            payload = {field: json.loads(code(value))} | ({"modality": "MR"} if kind == "volume" else {})
            name = f"{kind}/tested/{field}/{n}"
            resources.append(Resource(identifier=name, parent_identifier=parent, payload=payload))
    return resources


@pytest.fixture(scope="module")
def page(client: Client) -> dict[str, Any]:
    """The variables of the page's code, run from top to bottom."""
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VXDATA_URI", client.uri)
        for block in blocks(PAGE, "python"):
            exec(compile(block, PAGE, "exec"), names)
    return names


def identifiers(frame: pl.DataFrame) -> set[str]:
    """The identifiers of an answer, without those of the tables."""
    return {name.split("/", 1)[1] for name in frame["identifier"] if "/tested" not in name}


# ---- the tables


@pytest.mark.parametrize(("field", "values", "row"), CASES)
def test_a_query_keeps_what_the_table_says(
    client: Client, page: dict[str, Any], field: str, values: list[str], row: list[str]
) -> None:
    predicate = eval(code(row[0]), {"F": F, "ANY": ANY, "ALL": ALL, "t1": page["t1"], "nothing": page["nothing"]})
    namespace = client.imaging_studies if field == "study_datetime" else client.volumes
    found = namespace.query().filter(F.identifier.contains(f"/tested/{field}/"), predicate).collect()
    kept = [n for n, cell in enumerate(row[1:]) if {"kept": True, "-": False}[cell]]
    assert sorted(int(name.rsplit("/", 1)[1]) for name in found["identifier"]) == kept
    assert len(row) == len(values) + 1


def test_the_tables_of_nulls_are_found() -> None:
    assert len(TABLES_OF_NULLS) == 7
    assert len(CASES) >= 50


@pytest.mark.parametrize(("wrong", "right"), [(code(w), code(r)) for w, r in SPELLINGS])
def test_a_wrong_spelling_raises_and_the_right_one_does_not(client: Client, wrong: str, right: str) -> None:
    with pytest.raises(InvalidInputError):
        client.volumes.query().filter(eval(wrong, {"F": F}))
    client.volumes.query().filter(eval(right, {"F": F}))


def test_each_call_that_the_page_names_exists(client: Client) -> None:
    query = client.volumes.query()
    calls = [cell for table in tables(PAGE) if table[0][0] in ("call", "predicate") for cell, _ in table[2:]]
    named = {name for cell in calls for name in re.findall(r"\.([a-z_]{3,})\(", cell)}
    assert {name for name in named if not hasattr(query, name) and not hasattr(F.x, name)} == set()


# ---- the code


def test_the_chain(page: dict[str, Any]) -> None:
    assert page["t2"].rows() == [("volume/t2", 3.0), ("volume/t2-thick", 4.0)]
    assert identifiers(page["axial_adc"].collect()) == {"adc"}
    assert identifiers(page["thin"]) == {"t2", "adc"}


def test_days_and_months_in_two_time_zones(page: dict[str, Any]) -> None:
    assert identifiers(page["june"]) == {"BB00017/1", "BB00018/1"}
    assert identifiers(page["june_in_berlin"]) == {"BB00017/1", "DA1/1"}


def test_lineage(page: dict[str, Any]) -> None:
    of_17 = {"t2", "t2-thick", "t1", "mask"}
    of_bamberg = of_17 | {"t2-sag", "t1-thick", "mask-draft"}
    assert identifiers(page["of_patient"]) == identifiers(page["of_patient_too"]) == of_17
    assert [identifiers(page[name]) for name in ("of_trial", "of_some", "of_all_bb")] == [of_bamberg] * 3
    assert identifiers(page["below_rpe"]) == {"1"}
    assert identifiers(page["elsewhere"]) == {"adc", "t1-unknown"}


def test_another_type_in_a_lineage_filter_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="'volume'; a 'patient' is expected"):
        client.volumes.query().filter(F.patient_id == "volume/1")


def test_subqueries(page: dict[str, Any]) -> None:
    of_17 = {"t2", "t2-thick", "t1"}
    assert identifiers(page["mri_of_them"]) == of_17
    assert identifiers(page["mri_of_others"]) == {"t2-sag", "adc", "t1-thick", "t1-unknown"}
    assert identifiers(page["masks"]) == {"mask"}
    assert identifiers(page["thicker_than_some"]) == {"t2", "t2-thick", "adc", "t1-thick", "mask", "mask-draft"}
    assert identifiers(page["thinner_than_all"]) == set()


def test_the_sentence_on_the_t1_volumes_holds(page: dict[str, Any]) -> None:
    assert sorted(page["t1"].collect().to_series().to_list(), key=str) == [1.0, 1.5, None]


def test_time(page: dict[str, Any]) -> None:
    assert page["last_year"] == len(VOLUMES)
    assert page["changes"]["identifier"].to_list().count("volume/t2") == 2
    assert page["ended"] == 1


def test_lazy(page: dict[str, Any]) -> None:
    mri = [v for v in VOLUMES if v[5] == "MR"]
    expected = {f"patient/{v[1].split('/')[1]}" for v in mri}
    found = page["series_per_patient"].filter(pl.col("patient_id") != "patient/tested")
    assert set(found["patient_id"]) == expected
    assert found.row(0) == ("patient/BB00017", 3, 1.0)


def test_the_parts_of_an_explanation(page: dict[str, Any]) -> None:
    said = page["query"].explain()
    assert all(word in said for word in ("version", "files", "closings", "goes down   F.volume_type == 'T2'"))
    assert "afterwards" in page["axial"].versions().filter(F.valid_to.is_not_null()).explain()


def test_the_funnel_has_the_columns_that_the_page_lists(page: dict[str, Any]) -> None:
    listed = next(table[2:] for table in tables(PAGE) if table[0] == ["column", "meaning"])
    funnel = page["query"].funnel()
    assert funnel.columns == list(chain.from_iterable(re.findall(r"`(\w+)`", row[0]) for row in listed))
    assert funnel["resources"].to_list()[1:] == [7, 3, 2]
    for verb in ("funnel", "funnel_chart", "sort", "filter"):
        with pytest.raises(InvalidInputError):
            getattr(page["query"].limit(1), verb)(*["identifier"] * (verb == "sort"))


def test_the_sql_answers_as_the_query_does(client: Client, page: dict[str, Any]) -> None:
    query = page["query"].select("identifier")
    with duckdb.connect() as connection:
        volumes = client.volumes.query().collect().to_arrow(compat_level=pl.CompatLevel.oldest())
        connection.register("volumes", volumes)
        found = {row[0] for row in connection.sql(query.to_sql()).fetchall()}
    assert found == set(query.collect()["identifier"]) == {"volume/t2", "volume/t2-sag"}
