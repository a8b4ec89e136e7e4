"""`history`: all versions of a resource, oldest first, ends filled, gaps visible."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.schemas import Resource
from vxdata.schemas.response import PatientResponse
from vxdata.sdk import Client, F

PATIENT = Resource(identifier="patient/1", parent_identifier="datasource/a", payload={"birthyear": 0})


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


def test_versions_come_oldest_first_with_their_ends(lake_uri: str) -> None:
    client = make(lake_uri)
    for n in range(1, 5):
        client.patients.update("patient/1", {"birthyear": n})
    history = Client(lake_uri).patients.history("patient/1")
    assert [version.payload.birthyear for version in history] == [0, 1, 2, 3, 4]
    assert {type(version) for version in history} == {PatientResponse}
    assert all(before.valid_to == after.valid_from for before, after in pairwise(history))
    assert {version.created_at for version in history} == {history[0].valid_from}
    assert history[-1] == client.patients.retrieve("patient/1")
    assert history[-1].valid_to is None


def test_a_new_resource_has_one_version(client: Client) -> None:
    assert client.patients.history("patient/1") == [client.patients.retrieve("patient/1")]


def test_a_delete_ends_the_history_without_a_version_of_its_own(client: Client) -> None:
    client.patients.update("patient/1", {"sex": "M"})
    client.patients.delete("patient/1")
    history = client.patients.history("patient/1")
    assert [version.payload.sex for version in history] == [None, "M"]
    assert history[1].valid_to is not None
    assert client.resources.history("patient/1") == history


def test_a_gap_shows_where_the_resource_was_deleted(client: Client) -> None:
    client.patients.delete("patient/1")
    again = client.patients.create(PATIENT)
    changed = client.patients.update("patient/1", {"sex": "F"})
    first, second, third = client.patients.history("patient/1")
    assert first.valid_to is not None
    assert first.valid_to < second.valid_from == again.valid_from
    assert second.valid_to == third.valid_from
    assert [v.created_at for v in (first, second, third)] == [first.valid_from, again.valid_from, again.valid_from]
    assert third == changed


def test_every_valid_from_is_later_than_all_before(client: Client) -> None:
    for n in range(1, 30):
        if n % 7:
            client.patients.update("patient/1", {"birthyear": n})
        else:
            client.patients.delete("patient/1")
            client.patients.create(PATIENT)
    instants = [i for v in client.patients.history("patient/1") for i in (v.valid_from, v.valid_to) if i is not None]
    assert instants == sorted(instants)
    starts = [version.valid_from for version in client.patients.history("patient/1")]
    assert all(after - before >= timedelta(microseconds=1) for before, after in pairwise(starts))


def test_a_clock_that_goes_back_or_stands_still_reorders_nothing(client: Client) -> None:
    lake = client._session.lake
    lake.patience = replace(lake.patience, now=lambda: datetime(2001, 1, 1, tzinfo=UTC))
    client.patients.update("patient/1", {"birthyear": 1})
    client.patients.delete("patient/1")
    client.patients.create(PATIENT)
    client.patients.upsert(pl.DataFrame({"identifier": ["patient/1"], "birthyear": [2]}))
    instants = [i for v in client.patients.history("patient/1") for i in (v.valid_from, v.valid_to) if i is not None]
    first = instants[0]
    assert [(instant - first) / timedelta(microseconds=1) for instant in instants] == [0, 1, 1, 2, 3, 4, 4]
    assert client.patients.retrieve("patient/1").payload.birthyear == 2


def test_the_history_is_what_a_query_over_all_versions_says(client: Client) -> None:
    client.patients.update("patient/1", {"sex": "M"})
    client.patients.delete("patient/1")
    client.patients.create(PATIENT)
    query = client.patients.query().versions().filter(F.identifier == "patient/1").sort("valid_from")
    assert query.collect_as_pydantic() == client.patients.history("patient/1")


def test_other_resources_do_not_show(client: Client) -> None:
    names = ["patient/10", "patient/1/1", "patient/01", "patient/é"]
    client.patients.create([Resource(identifier=name, parent_identifier="datasource/a") for name in names])
    client.patients.upsert(pl.DataFrame({"identifier": names, "sex": ["F"] * 4}))
    assert len(client.patients.history("patient/1")) == 1
    assert [len(client.patients.history(name)) for name in names] == [2] * 4


def test_loaded_history_stands_where_it_was_dated(client: Client) -> None:
    frame = pl.DataFrame({"identifier": ["patient/2"], "parent_identifier": ["datasource/a"], "birthyear": [1]})
    for year, value in ((2001, 1), (2005, 2), (2009, 3)):
        client.patients.upsert(frame.with_columns(birthyear=pl.lit(value)), valid_from=f"{year}-01-01")
    history = client.patients.history("patient/2")
    assert [(v.valid_from.year, v.valid_to and v.valid_to.year) for v in history] == [
        (2001, 2005),
        (2005, 2009),
        (2009, None),
    ]


def test_what_never_existed_has_no_history(client: Client) -> None:
    with pytest.raises(NotFoundError, match="patient/2"):
        client.patients.history("patient/2")
    with pytest.raises(NotFoundError, match="volume/2"):
        client.volumes.history("volume/2")


def test_a_namespace_has_the_history_of_its_own_type_only(client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"use client\.patients"):
        client.volumes.history("patient/1")


@pytest.mark.parametrize("asked", [None, 7, ["patient/1"], "patient", ""])
def test_what_is_no_identifier_is_refused(client: Client, asked: str) -> None:
    with pytest.raises(InvalidInputError, match="no identifier"):
        client.patients.history(asked)


def test_the_history_of_a_past_client_ends_where_it_stands(client: Client) -> None:
    first = client.patients.retrieve("patient/1")
    second = client.patients.update("patient/1", {"sex": "M"})
    client.patients.delete("patient/1")
    assert client.as_of(first.valid_from).patients.history("patient/1") == [first]
    seen = client.as_of(second.valid_from).patients.history("patient/1")
    assert [(version.valid_from, version.valid_to) for version in seen] == [
        (first.valid_from, second.valid_from),
        (second.valid_from, None),
    ]
