"""The snippets of the users' own description of the SDK run as written (tests/seed_snippets), and answer rightly.

Only `...` and `->` in them are elisions. Each snippet runs on its own; names that an earlier one had made are given.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from vxdata.schemas import Resource
from vxdata.schemas import response as responses
from vxdata.schemas.response import PathologyAssessmentResponse, PathologySpecimenResponse
from vxdata.sdk import Client, F, has_ancestor

SNIPPETS = Path(__file__).parent / "seed_snippets"
TRANSVERSAL, SAGITTAL = "transversal", "sagittal"

PARENTS = {
    "patient/BB00017": "datasource/bamberg",
    "patient/BB00018": "datasource/bamberg",
    "patient/DA00001": "datasource/dasa",
    "patient/DA00002": "datasource/dasa",
    "patient/DA001": "datasource/dasa",
    "patient/BS1": "datasource/basel",
    "imagingstudy/BB00017/001": "patient/BB00017",
    "imagingstudy/BB00017/002": "patient/BB00017",
    "imagingstudy/BB00018/001": "patient/BB00018",
    "imagingstudy/DA00001/study-1": "patient/DA00001",
    "imagingstudy/DA00002/study-1": "patient/DA00002",
    "imagingstudy/DA001/123": "patient/DA001",
    "imagingstudy/BS1/1": "patient/BS1",
}
# identifier without its type: (volume_type, image_plane, slice_thickness, series_description, acquisition_datetime)
VOLUMES: dict[str, tuple[str | None, str | None, float | None, str | None, str | None]] = {
    "BB00017/001/t2": ("T2", TRANSVERSAL, 3.0, "T2 tra", "2023-05-01T10:00"),
    "BB00017/001/adc": ("ADC", TRANSVERSAL, 5.0, "ADC map", "2024-01-01T00:00"),
    "BB00017/002/t2": ("T2", TRANSVERSAL, 2.5, None, "2024-03-01T10:00"),
    "BB00018/001/t2": ("T2", SAGITTAL, 2.0, "T2 sag", "2025-01-01T00:00"),
    "DA00001/study-1/series-1": ("T2", TRANSVERSAL, 4.0, "t2 tra", "2024-07-01T10:00"),
    "DA00001/study-1/series-2": ("T1", TRANSVERSAL, 1.5, "T1", None),
    "DA00002/study-1/series-1": ("ADC", TRANSVERSAL, 6.0, "ADC", "2025-02-01T10:00"),
    "DA001/123/t1": ("T1", None, 3.5, None, None),
    "BS1/1/t2": ("T2", SAGITTAL, None, "sT2", "2022-01-01T10:00"),
}
MASKS = {  # derived_from
    "BB00017/001/mask": ["annotationsession/submitted", "volume/BB00017/001/t2"],
    "BB00017/001/draft": ["annotationsession/draft"],
    "BB00018/001/mask": ["annotationsession/tool"],
    "BS1/1/mask": None,
}
OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("annotationsession/submitted", "patient/BB00017", {"source": "manual-masks", "status": "submitted"}),
    ("annotationsession/draft", "patient/BB00017", {"source": "manual-masks", "status": "draft"}),
    ("annotationsession/tool", "patient/BB00018", {"source": "tool", "status": "submitted"}),
    ("pathologyspecimen/BB00017/rpe", "patient/BB00017", {"type": "RPE", "is_event_root": True}),
    ("pathologyspecimen/BB00017/rpe/1", "pathologyspecimen/BB00017/rpe", {"type": "slice", "is_event_root": False}),
    ("pathologyspecimen/DA00001/1", "patient/DA00001", {"type": "biopsy", "is_event_root": True}),
    ("pathologyspecimen/DA00001/1/1", "pathologyspecimen/DA00001/1", {"type": "core", "is_event_root": False}),
    ("pathologyspecimen/BS1/1", "patient/BS1", {"type": "RPE", "is_event_root": None}),
    ("pathologyassessment/1", "pathologyspecimen/BB00017/rpe/1", {"isup": 2}),
    ("pathologyassessment/2", "patient/BB00017", {"isup": 4}),
    ("pathologyassessment/3", "pathologyspecimen/DA00001/1", {"isup": 5}),
    ("piradsassessment/1", "imagingstudy/BB00017/001", {"score": 3}),
    ("piradsassessment/2", "patient/BB00017", {"score": 5}),
    ("piradsassessment/3", "imagingstudy/BB00018/001", {"score": None}),
    ("piradsassessment/4", "patient/DA00001", {"score": 4}),
]


def resources() -> Iterable[Resource]:
    def parent(name: str) -> str:
        return f"imagingstudy/{name.rsplit('/', 1)[0]}"

    yield from (Resource(identifier=name) for name in sorted(set(PARENTS.values())) if name.startswith("datasource/"))
    yield from (Resource(identifier=name, parent_identifier=above) for name, above in PARENTS.items())
    fields = ("volume_type", "image_plane", "slice_thickness", "series_description", "acquisition_datetime")
    for name, values in VOLUMES.items():
        payload = dict(zip(fields, values, strict=True))
        yield Resource(identifier=f"volume/{name}", parent_identifier=parent(name), payload=payload)
    for name, derived_from in MASKS.items():
        payload = {"volume_type": "SEG", "derived_from": derived_from, "path_nii": f"s3://b/{name}.nii.gz"}
        yield Resource(identifier=f"volume/{name}", parent_identifier=parent(name), payload=payload)
    for name, above, payload in OTHERS:
        yield Resource(identifier=name, parent_identifier=above, payload=payload)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("seed") / "lake")
    Client(uri).resources.create(list(resources()))
    return uri


@pytest.fixture
def client(lake: str, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The lake's client, where a `Client()` finds it too."""
    monkeypatch.setenv("VXDATA_URI", lake)
    return Client()


def snippet(name: str) -> str:
    return (SNIPPETS / f"{name}.txt").read_text()


def run(code: str, client: Client) -> list[Any]:
    """Run a snippet; return what each of its statements assigned, or evaluated to, in order."""
    names: dict[str, Any] = {"client": client, "F": F, "has_ancestor": has_ancestor, "pl": pl}
    answers = []
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Expr):
            answers.append(eval(ast.unparse(statement), names))
            continue
        exec(ast.unparse(statement), names)
        if isinstance(statement, ast.Assign):
            answers.append(names[ast.unparse(statement.targets[0])])
    return answers


def short(rows: Any) -> set[str]:
    """The identifiers of a frame or of responses, without their type."""
    found = rows["identifier"].to_list() if isinstance(rows, pl.DataFrame) else [row.identifier for row in rows]
    assert len(found) == len(set(found))
    return {name.split("/", 1)[1] for name in found}


T2 = {name for name, values in VOLUMES.items() if values[0] == "T2"}
AXIAL_T2 = {"BB00017/001/t2", "BB00017/002/t2", "DA00001/study-1/series-1"}
OF_DASA = {"DA00001/study-1/series-1", "DA00001/study-1/series-2", "DA00002/study-1/series-1", "DA001/123/t1"}
OF_BASEL = {"BS1/1/t2", "BS1/1/mask"}


def test_retrieving(client: Client) -> None:
    code, said = [], []
    for line in snippet("retrieve").splitlines():
        call, _, kind = line.partition(" -> ")
        code.append(call.replace("(...)", '("pathologyassessment/3")'))
        said += [kind] if kind else []
    patient, studies, assessment, _ = run("\n".join(code), client)
    assert said == ["PatientResponse", "list[ImagingStudyResponse]", "PathologyAssessmentResponse"]
    assert type(patient) is responses.PatientResponse
    assert (patient.identifier, patient.datasource_id) == ("patient/BB00017", "datasource/bamberg")
    assert [type(study) for study in studies] == [responses.ImagingStudyResponse] * 2
    assert [study.identifier for study in studies] == ["imagingstudy/BB00017/001", "imagingstudy/BB00017/002"]
    assert (type(assessment), assessment.payload.isup) == (PathologyAssessmentResponse, 5)
    assert client.resources.retrieve("patient/BB00017") == patient


def test_querying(client: Client) -> None:
    _, patients, volumes, rpe = run(snippet("query"), client)
    assert short(patients) == {name.split("/")[1] for name in PARENTS if name.startswith("patient/")}
    assert short(volumes) == AXIAL_T2
    assert [type(specimen) for specimen in rpe] == [PathologySpecimenResponse] * 2
    assert short(rpe) == {"BB00017/rpe", "BS1/1"}


def test_the_chain(client: Client) -> None:
    volumes, patients, filtered = run(snippet("chain"), client)
    assert short(volumes) == set(VOLUMES) | set(MASKS)
    assert patients.height == 6
    assert short(filtered) == AXIAL_T2


FIELD_ACCESSOR = {
    'F.volume_type == "T2"': T2,
    'F.volume_type != "T1"': set(VOLUMES) - {"DA00001/study-1/series-2", "DA001/123/t1"},
    "F.slice_thickness > 2.5": {name for name, v in VOLUMES.items() if v[2] is not None and v[2] > 2.5},
    "F.slice_thickness >= 2.5": {name for name, v in VOLUMES.items() if v[2] is not None and v[2] >= 2.5},
    "F.slice_thickness < 5.0": {name for name, v in VOLUMES.items() if v[2] is not None and v[2] < 5},
    "F.slice_thickness <= 5.0": {name for name, v in VOLUMES.items() if v[2] is not None and v[2] <= 5},
    'F.series_description.contains("T2")': {"BB00017/001/t2", "BB00018/001/t2", "BS1/1/t2"},
    'F.patient_id.startswith("DA")': OF_DASA,
    'F.patient_id.is_in(["DA001", "DA002", "DA003"])': {"DA001/123/t1"},
    "F.slice_thickness.between(2.0, 4.0)": {
        "BB00017/001/t2",
        "BB00017/002/t2",
        "BB00018/001/t2",
        "DA00001/study-1/series-1",
        "DA001/123/t1",
    },
    'F.acquisition_datetime.after("2024-01-01")': {
        "BB00017/002/t2",
        "BB00018/001/t2",
        "DA00001/study-1/series-1",
        "DA00002/study-1/series-1",
    },
    'F.acquisition_datetime.before("2025-01-01")': {
        "BB00017/001/t2",
        "BB00017/001/adc",
        "BB00017/002/t2",
        "DA00001/study-1/series-1",
        "BS1/1/t2",
    },
}


def test_every_predicate_of_the_field_accessor(client: Client) -> None:
    lines = [line for line in snippet("field_accessor").splitlines() if line.startswith("F.")]
    predicates = run(snippet("field_accessor"), client)
    acquired = client.volumes.query().filter(F.volume_type != "SEG")
    found = [short(acquired.filter(predicate).collect()) for predicate in predicates]
    assert dict(zip([line.split(" #")[0] for line in lines], found, strict=True)) == FIELD_ACCESSOR


@pytest.mark.parametrize(
    "name", ["identifier", "parent_identifier", "valid_from", "valid_to", "created_at", "license", "datasource_id"]
)
def test_every_type_has_the_metadata_fields(client: Client, name: str) -> None:
    for namespace in (client.patients, client.volumes, client.pathology_assessments):
        rows = namespace.query().collect()
        assert rows.columns.index(name) < 10
        assert namespace.query().filter(F[name].is_null()).count() == rows[name].null_count()


def test_volumes_by_identifier(client: Client) -> None:
    (volumes,) = run(snippet("identifiers"), client)
    assert short(volumes) == {"DA00001/study-1/series-1", "DA00002/study-1/series-1"}


def test_the_parent_is_the_direct_one_alone(client: Client) -> None:
    assert client.volumes.query().filter(F.parent_identifier == "patient/DA00001").count() == 0
    assert client.volumes.query().filter(F.parent_identifier == "imagingstudy/DA00001/study-1").count() == 2


def test_lineage_filters(client: Client) -> None:
    _, of_one, of_two, of_patient, of_study, below = run(snippet("lineage"), client)
    assert short(of_one) == short(below) == OF_DASA
    assert short(of_two) == OF_DASA | OF_BASEL
    assert short(of_patient) == short(of_study) == {"DA00001/study-1/series-1", "DA00001/study-1/series-2"}


def test_lineage_filters_with_others(client: Client) -> None:
    (volumes,) = run(snippet("lineage_combined"), client)
    assert short(volumes) == {"DA00001/study-1/series-1"}


def test_the_examples_of_the_lineage_table(client: Client) -> None:
    found = [short(client.volumes.query().filter(p).collect()) for p in run(snippet("lineage_table"), client)]
    assert found == [OF_DASA, {"DA001/123/t1"}, {"DA001/123/t1"}, OF_DASA]


def test_and_and_or(client: Client) -> None:
    either, of_dasa, _, specimens = run(snippet("and_or"), client)
    assert short(either) == T2 | {"BB00017/001/adc", "DA00002/study-1/series-1"}
    assert short(of_dasa) == {"DA00001/study-1/series-1", "DA00002/study-1/series-1"}
    assert short(specimens) == {"DA00001/1"}


def test_nested_and_and_or(client: Client) -> None:
    comment, _, step = snippet("nested").partition("\n")
    assert comment.startswith("#")
    (query,) = run(f"(client.volumes.query()\n{step})", client)
    assert short(query.collect()) == {"DA00001/study-1/series-1", "DA00002/study-1/series-1", "BS1/1/t2"}


def test_masks_of_submitted_sessions(client: Client) -> None:
    sessions, masks = run(snippet("subquery"), client)
    assert sessions == ["annotationsession/submitted"]
    assert short(masks) == {"BB00017/001/mask"}


def test_the_same_as_one_query(client: Client) -> None:
    sessions = client.annotation_sessions.query().filter(F.source == "manual-masks", F.status == "submitted")
    masks = client.volumes.query().filter(F.volume_type == "SEG")
    found = masks.filter(F.derived_from.contains_any(sessions.select("identifier"))).collect()
    assert found.rows() == run(snippet("subquery"), client)[1].rows()
    of_patients = client.volumes.query().filter(F.patient_id.is_in(sessions.select("patient_id"))).collect()
    assert short(of_patients) == {name for name in [*VOLUMES, *MASKS] if name.startswith("BB00017/")}


def test_any_and_all(client: Client) -> None:
    thick, thin = run(snippet("any_all"), client)
    assert short(thick) == {name for name, v in VOLUMES.items() if v[2] is not None and v[2] > 1.5}
    assert short(thin) == {"DA00001/study-1/series-2"}


def test_selecting_columns(client: Client) -> None:
    (masks,) = run(snippet("select"), client)
    assert masks.columns == ["path_nii", "segmentation_reference_uid"]
    assert sorted(masks["path_nii"]) == sorted(f"s3://b/{name}.nii.gz" for name in MASKS)


def test_volumes_with_the_highest_isup_and_pirads(client: Client) -> None:
    *_, result = run(snippet("join"), client)
    assert result.columns == ["identifier", "patient_id", "max_isup", "max_pirads"]
    assert sorted(result.rows()) == [
        ("volume/BB00017/001/t2", "patient/BB00017", 4, 5),
        ("volume/BB00017/002/t2", "patient/BB00017", 4, 5),
    ]


def test_every_snippet_is_run_by_a_test() -> None:
    code = Path(__file__).read_text()
    assert [path.stem for path in SNIPPETS.iterdir() if f'snippet("{path.stem}")' not in code] == []
