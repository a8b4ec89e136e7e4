"""A frame larger than memory is planned slice by slice: the same reports, the same lake, one commit."""

import random
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from vxdata.catalog.table import table_spec
from vxdata.errors import InvalidInputError, StorageError
from vxdata.lake import commit, planning, slices, upsert_plan
from vxdata.lake.scratch import Scratch
from vxdata.lake.slices import SlicePolicy, to_slices
from vxdata.schemas import Resource
from vxdata.schemas.payload import PatientPayload
from vxdata.sdk import Client, F
from vxdata.sdk.ingest import ingest

TINY = SlicePolicy(held_bytes=3_000, slice_bytes=4_000, run_bytes=5_000, sample_rows=1, batch_rows=3)
SEARCHED = SlicePolicy(table_rows=5, sample_rows=1)
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
TABLES = ("datasources", "patients", "imaging_studies", "volumes", "pathology_specimens")
Frames = dict[str, pl.DataFrame]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "POLICY", TINY)


def name(type_name: str, number: int) -> str:
    return f"{type_name}/{number:02} x"


def children(rng: random.Random, type_name: str, parent_type: str, most: int, **fields: list[Any]) -> pl.DataFrame:
    """Return resources in any order: some twice, some with other values, some that no table takes."""
    rows = []
    for number in rng.sample(range(most), rng.randrange(most // 2, most)):
        parent = name(parent_type, number % (most // 2 + 1))
        row = {"identifier": name(type_name, number), "parent_identifier": rng.choice([parent] * 9 + [None])}
        row |= {key: rng.choice(values) for key, values in fields.items()}
        rows += [row] * rng.choice([1, 1, 1, 2])
        if rng.random() < 0.1:
            rows.append({**row, "parent_identifier": name(parent_type, number % 3)})
    rows += [{**rows[0], "identifier": wrong} for wrong in (None, "patient", f"{type_name}/a//b") if rng.random() < 0.3]
    rng.shuffle(rows)
    schema: dict[str, Any] = {"identifier": pl.String, "parent_identifier": pl.String}
    return pl.DataFrame(rows, schema_overrides=schema)


def release(rng: random.Random) -> Frames:
    """Return frames of several types, each as a random release would hold it."""
    specimens = children(rng, "pathologyspecimen", "patient", 12, type=["a", "b"])
    inside = pl.when(pl.col("identifier") > "pathologyspecimen/06").then(pl.lit(name("pathologyspecimen", 2)))
    frames = {
        "patients": children(rng, "patient", "datasource", 24, birthyear=[1950, 1960, None], sex=["M", ""]),
        "imaging_studies": children(rng, "imagingstudy", "patient", 30, study_description=["a", "b", None]),
        "volumes": children(
            rng, "volume", "imagingstudy", 60, slice_thickness=[1.0, 2.5, None], derived_from=[[], ["x"]]
        ),
        "pathology_specimens": specimens.with_columns(parent_identifier=pl.coalesce(inside, "parent_identifier")),
    }
    sources = pl.DataFrame({"identifier": [name("datasource", n) for n in range(16)]})
    return {"datasources": sources, **{key: frame for key, frame in frames.items() if rng.random() < 0.8}}


def outcome(client: Client, frames: Frames, **options: Any) -> Any:
    """Return what an ingest reports, or how it is refused."""
    lazy = {key: frame.lazy() for key, frame in frames.items()}
    try:
        reports = ingest(client, lazy, on_invalid="skip", **options)
    except InvalidInputError as error:
        return str(error)
    return {
        key: (r.created, r.updated, r.unchanged, r.deleted, sorted(map(repr, r.rejected.rows())))
        for key, r in reports.items()
    }


def assert_same_lake(one: Client, other: Client) -> None:
    for table in TABLES:
        rows = [getattr(client, table).query().versions().collect() for client in (one, other)]
        assert_frame_equal(*(frame.sort("identifier", "valid_from") for frame in rows))


@pytest.mark.parametrize("policy", [TINY, SEARCHED], ids=["frames", "tables"])
@pytest.mark.parametrize(("seed", "steps"), [(0, 2), *(pytest.param(n, 4, marks=pytest.mark.slow) for n in range(8))])
def test_slices_report_and_write_what_the_whole_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, steps: int, policy: SlicePolicy
) -> None:
    rng = random.Random(seed)
    whole, sliced = Client(tmp_path / "whole"), Client(tmp_path / "sliced")
    for step in range(steps):
        frames, instant = release(rng), BEGIN + timedelta(days=step)
        cascade = rng.random() < 0.5
        for missing in ("keep", "delete") if step % 2 else ("keep",):
            options = {
                "missing": missing,
                "cascade": cascade,
                "valid_from": instant + (missing == "delete") * timedelta(1),
            }
            if missing == "delete":  # which is refused beside rows that nobody can name
                named = pl.col("identifier").str.contains(r"^\w+/[^/]+$")
                frames = {key: frame.filter(named) for key, frame in frames.items()}
            expected = [outcome(whole, frames, dry_run=dry, **options) for dry in (True, False)]
            with monkeypatch.context() as patch:
                patch.setattr(slices, "POLICY", policy)
                assert [outcome(sliced, frames, dry_run=dry, **options) for dry in (True, False)] == expected
    assert_same_lake(whole, sliced)
    assert sliced.verify().ok


def patients(rows: int, **columns: Any) -> pl.LazyFrame:
    n = pl.int_range(rows)
    source = pl.format("datasource/{}", n % 2)
    return pl.select(identifier=pl.format("patient/{}", n), parent_identifier=source, **columns).lazy()


@pytest.fixture
def client(tmp_path: Path, tiny: None) -> Client:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/0", "datasource/1"]}))
    return client


def files_of(client: Client) -> set[str]:
    return {str(path) for path in Path(client.uri).rglob("*.parquet")}


def test_slices_hold_all_rows_of_an_identifier_and_no_more_than_they_may(tiny: None) -> None:
    frame = pl.concat([patients(200).collect()] * 3).sample(fraction=1.0, shuffle=True, seed=1)
    with Scratch() as scratch:
        made = to_slices(table_spec(PatientPayload), frame, scratch)
        read = [made.read(within).rows for within in made.ranges]
    assert len(read) > 20
    assert max(rows.height for rows in read) <= 10
    held = [rows["identifier"].sort().to_list() for rows in read]
    assert [one for part in held for one in part] == sorted(patients(200).collect()["identifier"])


def test_slices_become_one_commit_of_full_files(client: Client) -> None:
    before = files_of(client)
    report = client.patients.upsert(patients(100), batch_id="b")
    entry = client.commits.list().row(by_predicate=pl.col("commit_id") == report.commit_id, named=True)
    assert (report.created, entry["created"]) == (100, 100)
    assert len(files_of(client) - before) == 2  # one for each datasource, however many slices there were
    assert client.patients.upsert(patients(100), batch_id="b").already_committed
    assert client.patients.upsert(patients(100)).unchanged == 100


def test_a_small_frame_closes_a_large_table_range_by_range(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setattr(slices, "POLICY", SEARCHED)
    for start in range(0, 60, 10):
        client.patients.upsert(patients(60).slice(start, 10))
    looked, lacking = [], upsert_plan.lacking
    monkeypatch.setattr(upsert_plan, "lacking", lambda *args: looked.append(args[1]) or lacking(*args))
    before, kept = files_of(client), patients(2, sex=pl.lit("F"))
    foreseen = ingest(client, {"patients": kept}, missing="delete", dry_run=True)["patients"]
    report = client.patients.upsert(kept, missing="delete")
    assert (report.created, report.updated, report.deleted) == (0, 2, 58)
    assert replace(foreseen, commit_id=report.commit_id) == report
    assert len(set(looked)) > 3
    assert len(files_of(client) - before) == 2  # one for each datasource, however many ranges there were
    assert client.patients.query().select("identifier", "sex").collect().rows() == [
        ("patient/0", "F"),
        ("patient/1", "F"),
    ]
    assert client.verify().ok


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_more_rejected_rows_than_a_report_holds_refuse_the_frame(
    client: Client, monkeypatch: pytest.MonkeyPatch, on_invalid: Any
) -> None:
    monkeypatch.setattr(planning, "MOST_REJECTED", 10)
    orphans = patients(100).with_columns(parent_identifier=pl.lit("datasource/none"))
    with pytest.raises(InvalidInputError, match=r"more than 10 rows of patients cannot be written.*'patient/.*parts"):
        client.patients.upsert(orphans, on_invalid=on_invalid)
    assert client.patients.query().count() == 0


def test_a_bad_row_in_the_last_slice_leaves_not_even_a_file(client: Client) -> None:
    before = files_of(client)
    bad = pl.LazyFrame({"identifier": ["patient/zz"], "parent_identifier": ["datasource/none"]})
    with pytest.raises(InvalidInputError, match=r"1 rows of patients cannot be written.*datasource/none"):
        client.patients.upsert(pl.concat([patients(100), bad]))
    assert files_of(client) == before


def race(client: Client, monkeypatch: pytest.MonkeyPatch, identifier: str) -> list[int]:
    """Upsert while another writer updates a patient before the commit; return how many files each try wrote."""
    client.patients.upsert(patients(100))
    client.patients.create(Resource(identifier="patient/other", parent_identifier="datasource/0"))
    other, write, written = Client(client.uri), commit.write_parts, []

    def write_late(*arguments: Any) -> Any:
        files = write(*arguments)
        if not written:
            other.patients.update(identifier, {"sex": "F"})
        written.append(len(files))
        return files

    monkeypatch.setattr(commit, "write_parts", write_late)
    client.patients.upsert(patients(100, birthyear=pl.lit(1950)))
    return written


def test_a_race_for_an_identifier_is_planned_again_and_nothing_is_lost(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert race(client, monkeypatch, "patient/7") == [2, 2]
    payload = client.patients.retrieve("patient/7").payload
    assert (payload.sex, payload.birthyear) == ("F", 1950)
    assert client.patients.query().count() == 101


def test_a_race_with_a_disjoint_commit_writes_each_file_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert race(client, monkeypatch, "patient/other") == [2]
    assert client.patients.query().filter(F.birthyear == 1950).count() == 100


KILLED = """
import os, signal, sys, threading
from tests.test_upsert_slices import TINY, patients
from vxdata.lake import datafile, slices
from vxdata.sdk import Client
write, slices.POLICY = datafile.write_data_file, TINY
done, one_at_a_time = [], threading.Lock()
def killed(*arguments):
    with one_at_a_time:
        if done:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(write(*arguments))
        return done[-1]
datafile.write_data_file = killed
Client(sys.argv[1]).patients.upsert(patients(100))
"""


def test_a_kill_between_two_files_leaves_nothing_visible(client: Client) -> None:
    before = files_of(client)
    killed = subprocess.run([sys.executable, "-c", KILLED, client.uri], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(files_of(client) - before) == 1
    assert client.patients.query().count() == 0
    assert client.patients.upsert(patients(100)).created == 100


def test_a_full_disk_is_named_with_its_remedy(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match="TMPDIR"):
        client.patients.upsert(patients(100))
