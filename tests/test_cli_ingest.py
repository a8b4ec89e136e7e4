"""`vxdata ingest idc` on two small releases; the rows of the releases themselves are the oracle."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.cli import (
    BLANKS,
    DATES,
    EQUALS,
    NEW,
    PROSTATE,
    first_release,
    plain,
    run,
    run_on_terminal,
    second_release,
    write_release,
)
from vxdata.schemas import Resource
from vxdata.schemas.payload import (
    AnnotationSessionPayload,
    DatasourcePayload,
    ImagingStudyPayload,
    PatientPayload,
    VolumePayload,
)
from vxdata.sdk import Client, F
from vxdata.sdk.ingest import ingest
from vxdata.sources.idc import find_release, read_release

MICROSECOND = timedelta(microseconds=1)
FIRST, SECOND = (datetime.fromisoformat(DATES[version]).replace(tzinfo=UTC) for version in (7, 8))
Rows = dict[str, tuple[Any, ...]]
State = dict[str, Rows]
COLUMNS = {
    "datasources": ("parent_identifier", "license", "origin"),
    "patients": ("parent_identifier", "license", "sex"),
    "imaging_studies": ("parent_identifier", "license", "study_instance_uid", "study_description", "study_datetime"),
    "volumes": (
        "parent_identifier", "license", "series_instance_uid", "series_description", "modality", "manufacturer",
        "path_dicom", "number_of_series_related_instances", "size_mb",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "7", first_release(), 7)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "8", second_release(), 8)


@pytest.fixture(scope="module")
def loaded_once(tmp_path_factory: pytest.TempPathFactory, old: Path) -> Client:
    """A lake with the first release; not to be written to."""
    client = Client(tmp_path_factory.mktemp("lakes") / "once")
    load(client.uri, old)
    return client


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, loaded_once: Client, new: Path) -> Client:
    """A lake with both releases; not to be written to."""
    client = copy(loaded_once, tmp_path_factory.mktemp("lakes") / "both")
    load(client.uri, new)
    return client


def copy(client: Client, folder: Path) -> Client:
    return Client(shutil.copytree(client.uri, folder))


def load(uri: str, release: Path, *options: str) -> Any:
    done = run("ingest", "idc", "--uri", uri, "--index", release, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fold(rows: Iterable[dict[str, Any]], column: str) -> str | None:
    """The most frequent value of a column; nulls do not count, ties go to the smallest."""
    counts = Counter(row[column] for row in rows if row[column])
    return min(counts, key=lambda value: (-counts[value], value)) if counts else None


def source_state(release: Path) -> State:
    """What a lake must hold, computed row by row from the release's file."""
    state: State = {namespace: {} for namespace in COLUMNS}
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in pl.read_parquet(release / "idc_index.parquet").iter_rows(named=True):
        path = tuple(row[name] for name in ("collection_id", "PatientID", "StudyInstanceUID"))
        for depth in (1, 2, 3):
            groups.setdefault(path[:depth], []).append(row)
        uid = row["SeriesInstanceUID"]
        state["volumes"]["/".join(("volume", *path, uid))] = (
            "/".join(("imagingstudy", *path)), row["license_short_name"], uid,
            row["SeriesDescription"] or None, row["Modality"], row["Manufacturer"] or None,
            row["series_aws_url"].removesuffix("*"), row["instanceCount"], row["series_size_MB"],
        )  # fmt: skip
    for path, rows in groups.items():
        licenses = {row["license_short_name"] for row in rows}
        license = licenses.pop() if len(licenses) == 1 else None
        match path:
            case (c,):
                state["datasources"][f"datasource/{c}"] = (None, license, "NCI Imaging Data Commons")
            case (c, p):
                state["patients"][f"patient/{c}/{p}"] = (f"datasource/{c}", license, fold(rows, "PatientSex"))
            case (c, p, s):
                text, day = fold(rows, "StudyDescription"), fold(rows, "StudyDate")
                when = day and datetime.fromisoformat(day).replace(tzinfo=UTC)
                state["imaging_studies"][f"imagingstudy/{c}/{p}/{s}"] = (f"patient/{c}/{p}", license, s, text, when)
    return state


def lake_state(client: Client) -> State:
    return {
        namespace: {
            row[0]: row[1:]
            for row in getattr(client, namespace).query().select("identifier", *columns).collect().iter_rows()
        }
        for namespace, columns in COLUMNS.items()
    }


def orphans(client: Client) -> set[str]:
    state = lake_state(client)
    live = {identifier for rows in state.values() for identifier in rows}
    return {i for rows in state.values() for i, row in rows.items() if row[0] is not None and row[0] not in live}


def files(client: Client) -> set[Path]:
    return {path for path in Path(client.uri).rglob("*") if path.is_file()}


def make_own(client: Client, name: str) -> None:
    """Make a lineage of a team's own."""
    payloads = {
        f"datasource/{name}": DatasourcePayload(name="ours"),
        f"patient/{name}/1": PatientPayload(),
        f"imagingstudy/{name}/1/1": ImagingStudyPayload(),
        f"volume/{name}/1/1/1": VolumePayload(modality="MR"),
    }
    parents = [None, *payloads][:-1]
    client.resources.create(
        [
            Resource(identifier=identifier, parent_identifier=parent, payload=payload)
            for (identifier, payload), parent in zip(payloads.items(), parents, strict=True)
        ]
    )


# ---- what a lake holds


def test_each_release_can_be_seen_row_by_row_until_the_next_one(both: Client, old: Path, new: Path) -> None:
    assert lake_state(both.as_of(FIRST - MICROSECOND)) == {namespace: {} for namespace in COLUMNS}
    for instant in (FIRST, SECOND - MICROSECOND):
        assert lake_state(both.as_of(instant)) == source_state(old)
    for client in (both.as_of(SECOND), both):
        assert lake_state(client) == source_state(new)


def test_the_same_on_each_store(lake_uri: str, old: Path, new: Path) -> None:
    for release in (old, new):
        load(lake_uri, release)
    client = Client(lake_uri)
    assert lake_state(client.as_of(SECOND - MICROSECOND)) == source_state(old)
    assert lake_state(client) == source_state(new)


def test_a_live_child_always_has_a_live_parent(both: Client) -> None:
    instants = (FIRST, SECOND - MICROSECOND, SECOND)
    assert [orphans(client) for client in (*map(both.as_of, instants), both)] == [set()] * 4


def test_identifiers_keep_blanks_and_equals_signs(both: Client) -> None:
    patients = lake_state(both.as_of(FIRST))["patients"]
    assert f"patient/{BLANKS}/ZZ RIDER MR8 1" in patients
    assert f"patient/{EQUALS}/GBM_DSC_MRI_DRO_Bo=3T" in patients


def test_a_withdrawn_collection_is_closed_whole_and_keeps_its_history(both: Client) -> None:
    collection = f"datasource/{BLANKS}"
    assert [version.valid_to for version in both.datasources.history(collection)] == [SECOND]
    for namespace in ("patients", "imaging_studies", "volumes"):
        rows = getattr(both, namespace).query().filter(F.datasource_id == collection).versions().collect()
        assert set(rows["valid_to"]) == {SECOND}


def test_the_report_counts_what_the_files_say(tmp_path: Path, loaded_once: Client, old: Path, new: Path) -> None:
    report = load(copy(loaded_once, tmp_path / "lake").uri, new)["namespaces"]
    before, after = source_state(old), source_state(new)
    for namespace in COLUMNS:
        then, now = before[namespace], after[namespace]
        assert report[namespace] == {
            "created": len(now.keys() - then.keys()),
            "updated": sum(then[name] != now[name] for name in then.keys() & now.keys()),
            "unchanged": sum(then[name] == now[name] for name in then.keys() & now.keys()),
            "deleted": len(then.keys() - now.keys()),
        }


# ---- running it again


def test_running_it_again_writes_nothing_and_says_so(both: Client, new: Path) -> None:
    before, token = files(both), both.snapshot().token
    code, written = run_on_terminal("ingest", "idc", "--uri", both.uri, "--index", new)
    assert code == 0
    assert "Nothing to write" in plain(written)
    assert files(both) == before
    assert both.snapshot().token == token


def test_an_interrupted_first_load_goes_on(tmp_path: Path, old: Path) -> None:
    client = Client(tmp_path / "lake")
    frames = read_release(find_release(old))
    ingest(client, {"datasources": frames["datasources"]}, valid_from=FIRST)
    load(client.uri, old)
    assert lake_state(client) == source_state(old)


def test_an_older_release_after_a_newer_one_is_refused_with_the_reason(both: Client, old: Path) -> None:
    before = files(both)
    done = run("ingest", "idc", "--uri", both.uri, "--index", old)
    assert done.returncode == 2
    for words in ("IDC 7", "2021-03-04", "newer release", "client.as_of", "oldest release first", "--valid-from now"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert files(both) == before


def test_an_older_release_that_was_never_loaded_leaves_nothing_behind(tmp_path: Path, old: Path, new: Path) -> None:
    client = Client(tmp_path / "lake")
    load(client.uri, new)
    before = files(client)
    done = run("ingest", "idc", "--uri", client.uri, "--index", old)
    assert done.returncode == 2
    assert "oldest release first" in done.stderr
    assert files(client) == before


def test_valid_from_now_loads_an_older_release_on_purpose(tmp_path: Path, both: Client, old: Path, new: Path) -> None:
    client = copy(both, tmp_path / "lake")
    assert load(client.uri, old, "--valid-from", "now")["valid_from"] is None
    assert lake_state(client) == source_state(old)
    assert lake_state(client.as_of(SECOND)) == source_state(new)


# ---- what may be touched


def test_datasources_of_a_team_are_never_touched(tmp_path: Path, loaded_once: Client, new: Path) -> None:
    client = copy(loaded_once, tmp_path / "lake")
    make_own(client, "ours")
    before = lake_state(client)
    load(client.uri, new)
    for namespace, rows in lake_state(client).items():
        assert _of(rows, {"ours"}) == _of(before[namespace], {"ours"}) != {}


def test_a_datasource_of_a_team_with_a_collections_name_is_refused(tmp_path: Path, old: Path) -> None:
    client = Client(tmp_path / "lake")
    make_own(client, PROSTATE)
    before = files(client)
    done = run("ingest", "idc", "--uri", client.uri, "--index", old)
    assert done.returncode == 2
    assert f"datasource/{PROSTATE}" in done.stderr
    assert files(client) == before


def test_data_of_a_team_on_a_withdrawn_study_is_kept_and_named(tmp_path: Path, loaded_once: Client, new: Path) -> None:
    client = copy(loaded_once, tmp_path / "lake")
    study = client.imaging_studies.query().filter(F.datasource_id == BLANKS).limit(1).collect()["identifier"].item()
    reading = Resource(identifier="annotationsession/1", parent_identifier=study, payload=AnnotationSessionPayload())
    client.resources.create(reading)
    done = run("ingest", "idc", "--uri", client.uri, "--index", new)
    assert done.returncode == 2
    assert [words for words in (study, "1 annotation_sessions", "Delete") if words not in done.stderr] == []
    client.resources.delete(reading.identifier)
    load(client.uri, new)
    assert lake_state(client) == source_state(new)


def test_with_a_collection_named_only_that_one_changes(
    tmp_path: Path, loaded_once: Client, old: Path, new: Path
) -> None:
    client, named = copy(loaded_once, tmp_path / "lake"), {PROSTATE, NEW}
    report = load(client.uri, new, "--collection", PROSTATE, "--collection", NEW)
    assert report["namespaces"]["datasources"]["deleted"] == 0
    for namespace, rows in lake_state(client).items():
        before, after = source_state(old)[namespace], source_state(new)[namespace]
        assert _of(rows, named) == _of(after, named)
        assert _of(rows, named, other=True) == _of(before, named, other=True)


def _of(rows: Rows, collections: set[str], other: bool = False) -> Rows:
    return {name: row for name, row in rows.items() if (name.split("/")[1] in collections) != other}


# ---- what it says


def test_the_json_has_a_stable_form(tmp_path: Path, old: Path) -> None:
    document = load(str(tmp_path / "lake"), old, "--valid-from", "2020-02-03")
    created = {"created": 4, "updated": 0, "unchanged": 0, "deleted": 0}
    assert document["namespaces"].pop("datasources") == created
    assert list(document.pop("namespaces")) == ["patients", "imaging_studies", "volumes"]
    assert document == {
        "lake": str(tmp_path / "lake"),
        "release": {"version": "7", "released": "2021-03-04T00:00:00+00:00", "index": str(old / "idc_index.parquet")},
        "valid_from": "2020-02-03T00:00:00+00:00",
        "changed": True,
        "already_committed": False,
    }


def test_a_terminal_shows_each_step_and_the_summary(tmp_path: Path, old: Path) -> None:
    code, written = run_on_terminal("ingest", "idc", "--uri", tmp_path / "lake", "--index", old)
    assert code == 0
    for words in (
        "read the index of IDC 7",
        "load 4 datasources",
        "volumes",
        "created",
        "unchanged",
        "IDC 7 (2021-03-04)",
    ):
        assert words in plain(written)
    assert max(map(len, plain(written).splitlines())) <= 80


@pytest.mark.parametrize(("option", "expected"), [("--quiet", ""), ("--no-progress", "IDC 7 (2021-03-04)")])
def test_a_terminal_shows_no_steps_if_asked_not_to(tmp_path: Path, old: Path, option: str, expected: str) -> None:
    _, written = run_on_terminal("ingest", "idc", "--uri", tmp_path / "lake", "--index", old, option)
    assert plain(written).startswith(expected)
    assert "read the index" not in written
    assert bool(written) == bool(expected)
