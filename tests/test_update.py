"""`update`: what is not given stays, what is given as None is cleared, and nothing is written in vain."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType

from vxdata.errors import ConflictError, InvalidInputError, NotFoundError
from vxdata.schemas import Payload, Resource, register
from vxdata.schemas.payload import PatientPayload, VolumePayload
from vxdata.schemas.registry import registry
from vxdata.sdk import Client, F

FULL = {"birthyear": 1950, "sex": "M", "species": "", "ethnic_group": None}
PATIENT = Resource(identifier="patient/1", parent_identifier="datasource/a", license="CC0", payload=FULL)


def make(uri: str | Path) -> Client:
    """Return a client of a new lake that holds a patient."""
    client = Client(uri)
    client.resources.create([PATIENT, Resource(identifier="datasource/a")])
    return client


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake as `make` leaves it; the tests get copies."""
    return Path(make(tmp_path_factory.mktemp("template") / "lake").uri)


@pytest.fixture
def client(template: Path, tmp_path: Path) -> Client:
    return Client(shutil.copytree(template, tmp_path / "lake"))


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test register types; they are forgotten afterwards."""
    monkeypatch.setattr(registry(), "_by_type", dict(registry()._by_type))


def files_of(client: Client) -> dict[str, int]:
    """Return every file of a local lake, with its size."""
    root = Path(client.uri)
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def commits_of(client: Client, namespace: str = "patients") -> int:
    """Return how many entries the log of a local table has."""
    return len(list(Path(client.uri, namespace, "_delta_log").glob("*.json")))


def test_an_update_makes_the_next_version(lake_uri: str) -> None:
    client = make(lake_uri)
    first = client.patients.retrieve("patient/1")
    second = client.patients.update("patient/1", {"sex": "F"}, reason="a typing error")
    assert second.payload == PatientPayload(birthyear=1950, sex="F", species="")
    assert (second.created_at, second.license, second.ancestors) == (first.created_at, "CC0", ("datasource/a",))
    assert second.valid_from > first.valid_from
    assert Client(lake_uri).patients.retrieve("patient/1") == second
    assert [version.payload.sex for version in client.patients.history("patient/1")] == ["M", "F"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"birthyear": 1951}, {"birthyear": 1951}),
        ({"sex": None}, {"sex": None}),
        ({"sex": ""}, {"sex": ""}),
        ({"species": None, "ethnic_group": "x"}, {"species": None, "ethnic_group": "x"}),
        (PatientPayload(sex="F"), {"sex": "F"}),
        (PatientPayload(sex=None), {"sex": None}),
        (PatientPayload(birthyear=1951, sex="M"), {"birthyear": 1951}),
        ({"birthyear": "1951"}, {"birthyear": 1951}),
    ],
)
def test_only_what_is_given_changes(client: Client, changes: Any, expected: dict[str, Any]) -> None:
    changed = client.patients.update("patient/1", changes)
    assert changed.payload.model_dump() == FULL | expected
    assert client.patients.retrieve("patient/1") == changed
    assert len(client.patients.history("patient/1")) == 2


@pytest.mark.parametrize(
    "changes",
    [
        None,
        {},
        FULL,
        {"sex": "M"},
        {"ethnic_group": None},
        PatientPayload(),
        PatientPayload(species=""),
        {"birthyear": 1950.0},
    ],
)
def test_an_update_without_effect_writes_nothing(client: Client, changes: Any) -> None:
    before, files = client.patients.retrieve("patient/1"), files_of(client)
    assert client.patients.update("patient/1", changes) == before
    assert client.patients.update("patient/1", changes, license="CC0") == before
    assert files_of(client) == files


def test_each_effective_update_is_one_commit(client: Client) -> None:
    before = commits_of(client)
    for n in range(5):
        client.patients.update("patient/1", {"birthyear": n, "sex": str(n)})
    assert commits_of(client) == before + 5
    assert commits_of(client, "datasources") == 2


@pytest.mark.parametrize(("license", "sex"), [("CC-BY", "M"), (None, "M"), ("", "F")])
def test_the_license_changes_like_a_field(client: Client, license: str | None, sex: str) -> None:
    changed = client.patients.update("patient/1", {"sex": sex}, license=license)
    assert (changed.license, changed.payload.sex) == (license, sex)
    assert client.patients.retrieve("patient/1").license == license
    assert client.patients.update("patient/1", {"birthyear": 1}).license == license


def test_nan_clears_and_is_no_change_to_null(client: Client) -> None:
    psa = Resource(identifier="psameasurement/1", parent_identifier="patient/1", payload={"value": 4.0})
    client.psa_measurements.create(psa)
    cleared = client.psa_measurements.update("psameasurement/1", {"value": float("nan")})
    assert cleared.payload.value is None
    assert client.psa_measurements.update("psameasurement/1", {"value": float("nan")}) == cleared


def test_any_type_is_updated_through_resources(client: Client) -> None:
    assert client.resources.update("patient/1", {"sex": "F"}) == client.patients.retrieve("patient/1")


# -- optimistic locking


def test_the_expected_version_lets_the_update_through(lake_uri: str) -> None:
    client = make(lake_uri)
    first = client.patients.retrieve("patient/1")
    second = client.patients.update("patient/1", {"sex": "F"}, expected_valid_from=first.valid_from)
    third = client.patients.update("patient/1", {"sex": "O"}, expected_valid_from=second.valid_from.isoformat())
    assert third.payload.sex == "O"
    with pytest.raises(ConflictError, match="patient/1") as raised:
        client.patients.update("patient/1", {"sex": "X"}, expected_valid_from=second.valid_from)
    assert raised.value.retryable
    assert client.patients.retrieve("patient/1") == third


@pytest.mark.parametrize("changes", [{"sex": "X"}, {"sex": "M"}, {}])
@pytest.mark.parametrize("off", [timedelta(microseconds=1), timedelta(microseconds=-1), timedelta(hours=1)])
def test_another_current_version_is_a_conflict_and_nothing_is_written(
    client: Client, changes: dict[str, Any], off: timedelta
) -> None:
    current, files = client.patients.retrieve("patient/1"), files_of(client)
    with pytest.raises(ConflictError, match="Nothing was written"):
        client.patients.update("patient/1", changes, expected_valid_from=current.valid_from + off)
    assert files_of(client) == files


@pytest.mark.parametrize("expected", ["then", 7, True, ["2024-01-01"]])
def test_an_expected_version_that_is_no_instant_is_refused(client: Client, expected: Any) -> None:
    with pytest.raises(InvalidInputError, match="instant"):
        client.patients.update("patient/1", {"sex": "X"}, expected_valid_from=expected)


def test_no_update_is_lost_when_many_clients_write_at_once(lake_uri: str) -> None:
    make(lake_uri)
    start, fields = threading.Barrier(4), ["birthyear", "sex", "species", "ethnic_group"]

    def write(field: str) -> None:
        client = Client(lake_uri)
        start.wait()
        for n in range(2):
            client.patients.update("patient/1", {field: n if field == "birthyear" else str(n)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, fields))
    found = Client(lake_uri).patients.retrieve("patient/1").payload
    assert found.model_dump() == {"birthyear": 1, "sex": "1", "species": "1", "ethnic_group": "1"}
    assert Client(lake_uri).patients.query().count() == 1


# -- refused


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"birthyer": 1}, "Did you mean 'birthyear'"),
        ({"license": "CC0"}, "license"),
        ({"identifier": "patient/2"}, "identifier"),
        ({"valid_from": "2024-01-01"}, "valid_from"),
        ({"birthyear": "old"}, "'old'"),
        ({"birthyear": 1.5}, "birthyear"),
        ({"sex": 3}, "sex"),
        ({"sex": ["M"]}, "sex"),
        (VolumePayload(b_value=3), "PatientPayload"),
        (PATIENT, "PatientPayload|mapping"),
        ("sex", "mapping"),
        ([("sex", "F")], "mapping"),
        (7, "mapping"),
        ({7: "F"}, "7"),
    ],
    ids=str,
)
def test_wrong_changes_are_refused_with_the_value(client: Client, changes: Any, word: str) -> None:
    files = files_of(client)
    with pytest.raises(InvalidInputError, match=word):
        client.patients.update("patient/1", changes)
    assert files_of(client) == files


@pytest.mark.parametrize("license", [7, ["CC0"], b"CC0", True])
def test_a_license_that_is_no_text_is_refused(client: Client, license: Any) -> None:
    with pytest.raises(InvalidInputError, match="license"):
        client.patients.update("patient/1", license=license)
    assert client.patients.retrieve("patient/1").license == "CC0"


def test_what_is_not_live_cannot_be_updated(client: Client) -> None:
    with pytest.raises(NotFoundError, match="'patient/2' does not exist"):
        client.patients.update("patient/2", {"sex": "F"})
    client.patients.delete("patient/1")
    files = files_of(client)
    with pytest.raises(NotFoundError, match="'patient/1' was deleted at"):
        client.patients.update("patient/1", {"sex": "F"})
    with pytest.raises(NotFoundError, match="'patient/1' was deleted at"):
        client.patients.update("patient/1", {})
    assert files_of(client) == files


def test_a_namespace_updates_its_own_type_only(client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"use client\.patients"):
        client.volumes.update("patient/1", {"b_value": 1})


# -- columns of others


def test_an_unknown_physical_column_is_carried_over(client: Client, types: None) -> None:
    class Wider(Payload, type="patient", namespace="patients", parents=("datasource",)):
        birthyear: int | None = None
        sex: str | None = None
        species: str | None = None
        ethnic_group: str | None = None
        blood_group: str | None = None

    known = registry()._by_type["patient"]
    registry()._by_type["patient"] = Wider
    Client(client.uri).patients.update("patient/1", {"blood_group": "0-"})
    registry()._by_type["patient"] = known
    assert client.patients.update("patient/1", {"sex": "F"}).payload == PatientPayload(**FULL | {"sex": "F"})
    client.patients.upsert(pl.DataFrame({"identifier": ["patient/1"], "birthyear": [1]}))
    registry()._by_type["patient"] = Wider
    groups = [version.payload.blood_group for version in Client(client.uri).patients.history("patient/1")]
    assert groups == [None, "0-", "0-", "0-"]


def test_a_column_that_another_delta_writer_added_does_not_hinder(client: Client) -> None:
    table = DeltaTable(Path(client.uri, "patients"))
    table.alter.add_columns(Field("theirs", PrimitiveType("double")), commit_properties=CommitProperties())
    assert client.patients.update("patient/1", {"sex": "F"}).payload.sex == "F"
    assert client.patients.query().filter(F.sex == "F").count() == 1
    assert "theirs" not in client.patients.query().collect().columns
    schema: Schema = DeltaTable(Path(client.uri, "patients")).schema()
    assert schema.fields[-1].name == "theirs"


def test_a_type_that_gains_a_field_keeps_its_old_rows(client: Client, types: None) -> None:
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        body: str | None = None

    register(Scan)
    client.scans.create(Resource(identifier="scan/1", parent_identifier="patient/1", payload={"body": "arm"}))

    class Scan2(Payload, type="scan", namespace="scans", parents=("patient",)):
        dose: float | None = None
        body: str | None = None
        parts: list[str] | None = None

    registry()._by_type["scan"] = Scan2
    newer = Client(client.uri)
    assert newer.scans.retrieve("scan/1").payload == Scan2(body="arm")
    assert newer.scans.query().filter(F.dose.is_null(), F.parts.is_null()).count() == 1
    assert newer.scans.update("scan/1", {"dose": 1.5, "parts": ["a"]}).payload.body == "arm"
    assert newer.scans.query().filter(F.dose > 1).select("parts").collect()["parts"].to_list() == [["a"]]


def test_one_name_with_two_types_is_refused(client: Client, types: None) -> None:
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        dose: float | None = None

    class Scan2(Payload, type="scan", namespace="scans", parents=("patient",)):
        dose: str | None = None

    register(Scan)
    client.scans.create(Resource(identifier="scan/1", parent_identifier="patient/1", payload={"dose": 1}))
    registry()._by_type["scan"] = Scan2
    other = Client(client.uri)
    with pytest.raises(InvalidInputError, match=r"scans\.dose"):
        other.scans.update("scan/1", {"dose": "high"})
    with pytest.raises(InvalidInputError, match=r"scans\.dose"):
        other.scans.retrieve("scan/1")
