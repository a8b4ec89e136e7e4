"""`retrieve`: the current version of one resource or of many, in the order asked for."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.schemas import Resource, ResourceResponse
from vxdata.schemas.payload import PatientPayload, VolumePayload
from vxdata.schemas.response import (
    DatasourceResponse,
    ImagingStudyResponse,
    PatientResponse,
    VolumeResponse,
)
from vxdata.sdk import Client

CHAIN = ["datasource/a", "patient/1", "imagingstudy/1", "volume/1"]
FIELDS = (
    "identifier parent_identifier datasource_id patient_id study_id ancestors valid_from valid_to created_at license "
    "payload"
)


def family() -> list[Resource]:
    payloads: list[dict[str, Any]] = [{"name": "A"}, {"birthyear": 1950}, {}, {"b_value": 800.0, "derived_from": []}]
    return [
        Resource(identifier=i, parent_identifier=p, license="CC0", payload=payload)
        for i, p, payload in zip(CHAIN, [None, *CHAIN], payloads, strict=False)
    ]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a local lake with a family, and a patient that was deleted; the tests only read it."""
    client = Client(tmp_path_factory.mktemp("retrieve") / "lake")
    client.resources.create([*family(), Resource(identifier="patient/gone", parent_identifier="datasource/a")])
    client.patients.delete("patient/gone")
    return client


def test_one_identifier_gives_one_typed_response(lake_uri: str) -> None:
    Client(lake_uri).resources.create(family())
    found = Client(lake_uri).volumes.retrieve("volume/1")
    assert type(found) is VolumeResponse
    assert found.payload == VolumePayload(b_value=800.0, derived_from=[])
    assert (found.parent_identifier, found.ancestors) == ("imagingstudy/1", tuple(CHAIN[:3]))
    assert (found.datasource_id, found.patient_id, found.study_id) == tuple(CHAIN[:3])
    assert (found.license, found.valid_to, found.created_at) == ("CC0", None, found.valid_from)


def test_a_response_has_the_promised_fields_in_order(shared: Client) -> None:
    found = shared.patients.retrieve("patient/1")
    assert list(found.model_dump()) == FIELDS.split()
    assert isinstance(found, ResourceResponse)
    assert type(found.payload) is PatientPayload


@pytest.mark.parametrize("order", [CHAIN, CHAIN[::-1], [CHAIN[2], CHAIN[0], CHAIN[2]]])
def test_a_list_gives_a_list_in_the_same_order(shared: Client, order: list[str]) -> None:
    assert [found.identifier for found in shared.resources.retrieve(order)] == order


def test_resources_of_mixed_types_come_as_responses_of_their_types(shared: Client) -> None:
    kinds = [type(found) for found in shared.resources.retrieve(CHAIN)]
    assert kinds == [DatasourceResponse, PatientResponse, ImagingStudyResponse, VolumeResponse]


def test_a_list_of_one_is_a_list_and_of_none_is_empty(shared: Client) -> None:
    assert [found.identifier for found in shared.patients.retrieve(["patient/1"])] == ["patient/1"]
    assert shared.patients.retrieve([]) == []


@pytest.mark.parametrize("make", [tuple, iter, pl.Series, dict.fromkeys], ids=["tuple", "iterator", "series", "keys"])
def test_any_iterable_of_identifiers_will_do(shared: Client, make: Any) -> None:
    assert [found.identifier for found in shared.resources.retrieve(make(CHAIN))] == CHAIN


def test_many_identifiers_are_found_at_once(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    names = [f"patient/{n:05}" for n in range(3_000)]
    client.resources.create([*family()[:1], *(Resource(identifier=n, parent_identifier=CHAIN[0]) for n in names)])
    assert [found.identifier for found in client.patients.retrieve(names[::-1])] == names[::-1]


def test_the_newest_version_is_returned(lake_uri: str) -> None:
    client, reader = Client(lake_uri), Client(lake_uri)
    client.resources.create(family())
    assert reader.patients.retrieve("patient/1").payload.birthyear == 1950
    client.patients.update("patient/1", {"birthyear": 1951})
    found = reader.patients.retrieve("patient/1")
    assert (found.payload.birthyear, found.valid_to) == (1951, None)
    assert found.created_at < found.valid_from


def test_all_the_missing_ones_are_named_and_none_that_is_there(shared: Client) -> None:
    with pytest.raises(NotFoundError) as raised:
        shared.resources.retrieve(["patient/1", "patient/2", "volume/3", "imagingstudy/1"])
    message = str(raised.value)
    assert "'patient/2' does not exist" in message
    assert "'volume/3' does not exist" in message
    assert "'patient/1'" not in message
    assert "'imagingstudy/1'" not in message


def test_a_message_names_a_hundred_missing_ones(shared: Client) -> None:
    missing = [f"patient/none{n}" for n in range(100)]
    with pytest.raises(NotFoundError) as raised:
        shared.patients.retrieve(missing)
    assert all(repr(name) in str(raised.value) for name in missing)


def test_a_deleted_one_is_named_with_the_time_of_its_end(shared: Client) -> None:
    ended = shared.patients.history("patient/gone")[-1].valid_to
    assert ended is not None
    with pytest.raises(NotFoundError) as raised:
        shared.patients.retrieve(["patient/gone", "patient/none"])
    assert f"'patient/gone' was deleted at {ended.isoformat()}" in str(raised.value)
    assert "'patient/none' does not exist" in str(raised.value)


def test_a_type_whose_table_is_not_there_yet_holds_nothing(shared: Client) -> None:
    with pytest.raises(NotFoundError, match="diagnosticreport/1"):
        shared.diagnostic_reports.retrieve("diagnosticreport/1")


@pytest.mark.parametrize("asked", ["volume/1", ["patient/1", "volume/1"]])
def test_a_namespace_returns_its_own_type_only(shared: Client, asked: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"'volume/1' is a 'volume'; use client\.volumes"):
        shared.patients.retrieve(asked)


def test_an_unknown_type_names_the_nearest(shared: Client) -> None:
    with pytest.raises(InvalidInputError, match="Did you mean 'volume'"):
        shared.resources.retrieve("volum/1")


@pytest.mark.parametrize("asked", [None, 7, 1.5, [None], [7], b"patient/1", [["patient/1"]], object()])
def test_what_is_no_identifier_is_refused(shared: Client, asked: Any) -> None:
    with pytest.raises(InvalidInputError, match="identifier"):
        shared.patients.retrieve(asked)


def test_a_response_is_frozen(shared: Client) -> None:
    found: Any = shared.patients.retrieve("patient/1")
    with pytest.raises(ValidationError, match="frozen"):
        found.license = "mine"
    with pytest.raises(ValidationError, match="frozen"):
        found.payload.sex = "M"
    with pytest.raises(ValidationError, match="frozen"):
        del found.license
    assert isinstance(found.ancestors, tuple)


def test_responses_compare_and_hash_by_value(shared: Client) -> None:
    one, other = (shared.patients.retrieve("patient/1") for _ in range(2))
    assert one == other
    assert len({one, other}) == 1


def test_a_response_survives_json(shared: Client) -> None:
    found = shared.volumes.retrieve("volume/1")
    assert VolumeResponse.model_validate_json(found.model_dump_json()) == found
