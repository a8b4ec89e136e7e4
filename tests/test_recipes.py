"""docs/recipes.md: each recipe runs on a generated lake, and answers as plain Python over the same values does."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from tests.test_readme import ROOT
from vxdata.sdk import Client, F
from vxdata.sdk.ingest import ingest

PAGE = "docs/recipes.md"
WAVES = ("2021-06-01", "2022-06-01", "2023-06-01")
"""When a third of the patients was loaded, each with all that belongs to it."""

DISTANCES = [timedelta(days=n) for n in (-1, 0, 1, 30, 30, 90, 91, 200)] + [timedelta(days=90, microseconds=1)]
"""How long before a study PSA was measured."""

Rows = dict[str, list[dict[str, Any]]]
Recipe = Callable[..., dict[str, Any]]


def instant(rng: random.Random) -> datetime:
    """Some instant of three years; often a whole day, so that instants are equal, and near midnight."""
    day = datetime(2022, 1, 1, tzinfo=UTC) + timedelta(days=rng.randrange(3 * 365))
    return day + rng.choice([timedelta(0), timedelta(hours=12), timedelta(hours=22, minutes=30)])


def some(rng: random.Random, value: Any) -> Any:
    """The value, or None now and then."""
    return None if rng.random() < 0.15 else value


def generate(patients: int = 45) -> Rows:
    """Patients with all that belongs to them, by namespace."""
    rng, rows = random.Random(17), Rows()
    for p in range(patients):
        add = partial(add_row, rows, p % len(WAVES))
        if p == 0:
            add("datasources", "datasource/bamberg", None)
            add("datasources", "datasource/dasa", None)
        patient = add("patients", f"patient/{p}", rng.choice(["datasource/bamberg", "datasource/dasa"]))
        for n in range(rng.randrange(3)):
            add("pathology_assessments", f"pathologyassessment/{p}/{n}", patient, isup=some(rng, rng.randrange(6)))
            add("pirads_assessments", f"piradsassessment/{p}/{n}", patient, score=some(rng, rng.randrange(1, 6)))
        for s in range(rng.randrange(4)):
            add_study(rng, add, f"{p}/{s}", patient)
    return rows


def add_row(rows: Rows, wave: int, namespace: str, identifier: str, parent: str | None, **payload: Any) -> str:
    row = {"identifier": identifier, "parent_identifier": parent, **payload, "wave": wave}
    rows.setdefault(namespace, []).append(row)
    return identifier


def add_study(rng: random.Random, add: Callable[..., str], name: str, patient: str) -> None:
    """Add a study with its sessions, volumes and masks, and PSA of about that time."""
    at = instant(rng)
    study = add("imaging_studies", f"imagingstudy/{name}", patient, study_datetime=some(rng, at))
    for n, before in enumerate(rng.sample(DISTANCES, rng.randrange(len(DISTANCES)))):
        value = some(rng, round(rng.uniform(0.1, 20), 2))
        psa = {"value": value, "measured_at": some(rng, at - before)}
        add("psa_measurements", f"psameasurement/{name}/{n}", patient, **psa)
    sessions, volumes = [], []
    for n in range(rng.randrange(4)):
        session = {"status": rng.choice(["submitted", "submitted", "draft"]), "reader": f"reader {n}"}
        session["submitted_at"] = some(rng, instant(rng))
        parent = rng.choice([study, study, patient])
        sessions.append(add("annotation_sessions", f"annotationsession/{name}/{n}", parent, **session))
    for n in range(rng.randrange(4)):
        volume = {"volume_type": rng.choice(["T2", "T1", None]), "modality": rng.choice(["MR", "MR", "CT"])}
        volume |= {"slice_thickness": some(rng, rng.choice([1.0, 3.0, 5.0])), "size_mb": some(rng, rng.uniform(1, 99))}
        volumes.append(add("volumes", f"volume/{name}/{n}", study, **volume, derived_from=None))
    for n in range(2 if volumes else 0):
        parts = [rng.choice(volumes), *rng.sample(sessions, min(len(sessions), rng.randrange(3)))]
        mask = {"volume_type": "SEG", "modality": "SEG", "derived_from": rng.choice([parts, parts, [], None])}
        add("volumes", f"volume/{name}/mask {n}", study, **mask)


ROWS = generate()
OF_STUDY = {study["identifier"]: study["parent_identifier"] for study in ROWS["imaging_studies"]}
OF_PATIENT = {patient["identifier"]: patient["parent_identifier"] for patient in ROWS["patients"]}
PATIENTS_WITH_MRI = {OF_STUDY[v["parent_identifier"]] for v in ROWS["volumes"] if v["modality"] == "MR"}


def fill(uri: Path) -> Client:
    client = Client(uri)
    for wave, loaded in enumerate(WAVES):
        frames = {
            namespace: pl.DataFrame(rows, infer_schema_length=None).filter(wave=wave).drop("wave")
            for namespace, rows in ROWS.items()
        }
        ingest(client, {name: frame for name, frame in frames.items() if frame.height}, valid_from=loaded)
    return client


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fill(tmp_path_factory.mktemp("recipes") / "lake").uri


def recipes() -> dict[str, list[str]]:
    """The Python blocks of the page by heading; those before the first heading under an empty one."""
    sections = re.split(r"^## (.*)\n", "\n" + (ROOT / PAGE).read_text(), flags=re.MULTILINE)
    found = dict(zip(["", *sections[1::2]], sections[0::2], strict=True))
    return {heading: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for heading, text in found.items()}


RECIPES = recipes()


@pytest.fixture
def recipe(lake: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recipe:
    """Run the blocks of a recipe, after those that the page starts with; return the variables."""
    monkeypatch.setenv("VXDATA_URI", lake)
    monkeypatch.chdir(tmp_path)

    def run(heading: str, blocks: slice = slice(None), names: dict[str, Any] | None = None) -> dict[str, Any]:
        names = {} if names is None else names
        for block in [*(RECIPES[""] if not names else []), *RECIPES[heading][blocks]]:
            exec(compile(block, f"{PAGE}: {heading}", "exec"), names)
        return names

    return run


# ---- one test for each recipe


def test_nearest_psa_before_each_mri(recipe: Recipe) -> None:
    found = recipe("The nearest PSA within 90 days before each MRI")["psa_before_mri"]
    with_mri = {v["parent_identifier"] for v in ROWS["volumes"] if v["modality"] == "MR"}
    expected = {}
    for study in ROWS["imaging_studies"]:
        at = study["study_datetime"]
        if at is None or study["identifier"] not in with_mri:
            continue
        before = [
            (psa["measured_at"], psa["identifier"], psa["value"])
            for psa in ROWS["psa_measurements"]
            if psa["parent_identifier"] == study["parent_identifier"]
            and None not in (psa["value"], psa["measured_at"])
            and timedelta(0) <= at - psa["measured_at"] <= timedelta(days=90)
        ]
        last = max(before, default=(None, None, None))
        expected[study["identifier"]] = (last[2], last[0])
    assert {row["identifier"]: (row["value"], row["measured_at"]) for row in found.iter_rows(named=True)} == expected
    assert found.height == len(expected) > found["value"].count() > 5


def test_highest_isup_and_pirads(recipe: Recipe) -> None:
    found = recipe("The highest ISUP and PI-RADS of each patient")["highest"]

    def highest(namespace: str, field: str, patient: str) -> int | None:
        values = [row[field] for row in ROWS[namespace] if row["parent_identifier"] == patient]
        return max((value for value in values if value is not None), default=None)

    assert found.rows() == [
        (p, highest("pathology_assessments", "isup", p), highest("pirads_assessments", "score", p))
        for p in sorted(OF_PATIENT)
    ]


def submitted_sessions() -> list[dict[str, Any]]:
    """The submitted sessions, the last one first."""
    known = [s for s in ROWS["annotation_sessions"] if s["status"] == "submitted" and s["submitted_at"]]
    return sorted(known, key=lambda s: (s["submitted_at"], s["identifier"]), reverse=True)


def test_last_session_of_each_study(recipe: Recipe) -> None:
    found = recipe("The last annotation session of each study")["last_sessions"]
    expected: dict[str, str] = {}
    for session in submitted_sessions():
        if session["parent_identifier"] in OF_STUDY:
            expected.setdefault(session["parent_identifier"], session["identifier"])
    assert dict(found.select("study_id", "identifier").rows()) == expected
    assert found.height == len(expected) > 10


def test_last_session_of_each_volume(recipe: Recipe) -> None:
    found = recipe("The last annotation session of each volume")["last_of_volumes"]
    expected: dict[str, str] = {}
    for session in submitted_sessions():
        for parts in (mask["derived_from"] or [] for mask in ROWS["volumes"]):
            if session["identifier"] in parts:
                expected.setdefault(parts[0], session["identifier"])
    assert dict(found.select("volume", "session").rows()) == expected
    assert found.height == len(expected) > 5


def test_patients_with_mri_but_without_pathology(recipe: Recipe) -> None:
    found = recipe("Patients with MRI but without pathology")["to_chase"]
    with_isup = {row["parent_identifier"] for row in ROWS["pathology_assessments"] if row["isup"] is not None}
    assert found["identifier"].to_list() == sorted(PATIENTS_WITH_MRI - with_isup)
    assert 0 < found.height < len(PATIENTS_WITH_MRI)


def test_studies_per_year_and_month(recipe: Recipe) -> None:
    names = recipe("Studies per year and month")
    years: dict[tuple[str, int], list[str]] = {}
    months: dict[str, int] = {}
    for study in ROWS["imaging_studies"]:
        if at := study["study_datetime"]:
            patient = study["parent_identifier"]
            years.setdefault((OF_PATIENT[patient], at.year), []).append(patient)
            month = at.astimezone(ZoneInfo("Europe/Berlin")).strftime("%Y-%m")
            months[month] = months.get(month, 0) + 1
    assert names["per_year"].rows() == [(*key, len(p), len(set(p))) for key, p in sorted(years.items())]
    assert names["per_month"].rows() == sorted(months.items())


def test_growth_of_the_lake(recipe: Recipe) -> None:
    found = recipe("How the lake grew")["growth"]
    counts = {
        at: [sum(WAVES[row["wave"]] <= at for row in ROWS[namespace]) for namespace in ("patients", "volumes")]
        for at in ("2022-01-01", "2023-01-01", "2024-01-01")
    }
    assert found.rows() == [(at, *count) for at, count in counts.items()]


def test_what_a_model_was_trained_on(
    recipe: Recipe, lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heading = "Which rows did model X train on?"
    monkeypatch.setenv("VXDATA_URI", str(shutil.copytree(lake, tmp_path / "copy")))
    names = recipe(heading, slice(0, 1))
    thin = [v for v in ROWS["volumes"] if v["volume_type"] == "T2" and (v["slice_thickness"] or 9) <= 3]
    assert names["train_on"]["identifier"].to_list() == sorted(volume["identifier"] for volume in thin)
    mended, deleted, *_ = names["train_on"]["identifier"]
    names["client"].volumes.update(mended, {"slice_thickness": 5.0})
    names["client"].volumes.delete(deleted)
    recipe(heading, slice(1, None), names)
    assert names["trained_on"].equals(names["train_on"])
    assert set(names["changed_since"]["identifier"]) == {mended, deleted}
    assert names["deleted_since"]["identifier"].to_list() == [deleted]
    assert names["training"].count() == len(thin)  # a query of the snapshot


def test_results_larger_than_memory(recipe: Recipe, tmp_path: Path) -> None:
    names = recipe("Results larger than memory")
    mri = {v["identifier"]: v["size_mb"] for v in ROWS["volumes"] if v["modality"] == "MR"}
    written = pl.read_parquet(tmp_path / "mri.parquet")
    assert dict(written.select("identifier", "size_mb").rows()) == mri
    parts = pl.read_parquet(tmp_path / "mri")
    assert written.sort("identifier").equals(parts.select(written.columns).sort("identifier"))
    assert len(list((tmp_path / "mri").iterdir())) == 2
    assert names["seen"] == len(mri)
    assert names["total_mb"] == pytest.approx(sum(size or 0 for size in mri.values()))


def test_batches_have_the_size_that_was_asked_for(lake: str) -> None:
    query = Client(lake).volumes.query().filter(F.modality == "MR")
    batches = list(query.select("identifier").lazy().collect_batches(chunk_size=10))
    assert max(batch.height for batch in batches) == 10
    assert sum(batch.height for batch in batches) == query.count()


def test_every_recipe_has_a_test() -> None:
    code = Path(__file__).read_text()
    assert [heading for heading in RECIPES if f'"{heading}"' not in code] == []
    assert all(RECIPES.values())
