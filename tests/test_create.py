"""`create`: one resource or a list in any order, validated as a whole before anything is written."""

import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from vxdata.errors import AlreadyExistsError, InvalidInputError, NotFoundError, VxDataError
from vxdata.schemas import Resource
from vxdata.schemas.payload import PatientPayload, VolumePayload
from vxdata.schemas.response import ImagingStudyResponse, PatientResponse, VolumeResponse
from vxdata.sdk import Client

CHAIN = ["datasource/a", "patient/1", "imagingstudy/1/s", "volume/1/s/v"]
FAMILY = [Resource(identifier=i, parent_identifier=p) for i, p in zip(CHAIN, [None, *CHAIN], strict=False)]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """A client of a new local lake."""
    return Client(tmp_path / "lake")


def patient(name: str = "1", parent: str | None = "datasource/a", **payload: Any) -> Resource:
    return Resource(identifier=f"patient/{name}", parent_identifier=parent, payload=payload)


def files_of(client: Client) -> dict[str, int]:
    """Return every file of a local lake, with its size."""
    root = Path(client.uri)
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def commits_of(client: Client, namespace: str) -> int:
    """Return how many commits a table of a local lake has, its making not counted."""
    return max(0, len(list(Path(client.uri, namespace, "_delta_log").glob("*.json"))) - 1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake that holds the family; the tests get copies."""
    client = Client(tmp_path_factory.mktemp("template") / "lake")
    client.resources.create(FAMILY)
    return Path(client.uri)


@pytest.fixture
def untouched(client: Client, template: Path) -> Iterator[None]:
    """Put the family into the lake, and check that what the test does then writes nothing at all."""
    shutil.copytree(template, client.uri)
    before = files_of(client)
    yield
    assert files_of(client) == before


def test_one_resource_gives_one_typed_response_that_every_client_sees(lake_uri: str) -> None:
    client, before = Client(lake_uri), datetime.now(UTC)
    client.datasources.create(FAMILY[0])
    made = client.patients.create(patient(birthyear=1950, sex="M"), reason="the trial began")
    assert type(made) is PatientResponse
    assert made.payload == PatientPayload(birthyear=1950, sex="M")
    assert before <= made.valid_from == made.created_at <= datetime.now(UTC)
    assert made.valid_to is None
    assert Client(lake_uri).patients.retrieve("patient/1") == made


def test_a_list_may_mix_types_and_hold_children_before_parents(lake_uri: str) -> None:
    client = Client(lake_uri)
    shuffled = random.Random(7).sample(FAMILY, len(FAMILY))
    made = client.resources.create(shuffled)
    assert [response.identifier for response in made] == [resource.identifier for resource in shuffled]
    by_name = {response.identifier: response for response in made}
    volume = by_name["volume/1/s/v"]
    assert isinstance(volume, VolumeResponse)
    assert volume.ancestors == tuple(CHAIN[:3])
    assert (volume.datasource_id, volume.patient_id, volume.study_id) == tuple(CHAIN[:3])
    assert len({response.valid_from for response in made}) == 1
    assert Client(lake_uri).resources.retrieve(CHAIN) == [by_name[name] for name in CHAIN]


def test_a_resource_carries_its_own_identifier_in_its_own_lineage_column(client: Client) -> None:
    source, subject, study, _ = client.resources.create(FAMILY)
    assert (source.datasource_id, source.patient_id, source.study_id) == ("datasource/a", None, None)
    assert (subject.datasource_id, subject.patient_id, subject.study_id) == ("datasource/a", "patient/1", None)
    assert isinstance(study, ImagingStudyResponse)
    assert (study.study_id, study.ancestors) == ("imagingstudy/1/s", ("datasource/a", "patient/1"))


@pytest.mark.parametrize("seed", range(4))
def test_specimens_inside_specimens_come_in_any_order(client: Client, seed: int) -> None:
    names = [f"pathologyspecimen/{depth}" for depth in range(6)]
    nested = [Resource(identifier=i, parent_identifier=p) for i, p in zip(names, ["patient/1", *names], strict=False)]
    client.resources.create(random.Random(seed).sample([*nested, *FAMILY[:2]], len(nested) + 2))
    deepest = client.pathology_specimens.retrieve(names[-1])
    assert deepest.ancestors == ("datasource/a", "patient/1", *names[:-1])
    assert commits_of(client, "pathology_specimens") == 1


@pytest.mark.parametrize("parent", ["patient/1", "imagingstudy/1/s"])
def test_a_type_with_two_parent_types_takes_either(client: Client, parent: str) -> None:
    session = Resource(identifier="annotationsession/1", parent_identifier=parent)
    made = client.resources.create([session, *FAMILY])[0]
    assert made.ancestors == tuple(CHAIN[: CHAIN.index(parent) + 1])
    assert made.study_id == ("imagingstudy/1/s" if parent.startswith("imagingstudy") else None)


def test_equal_resources_in_a_list_count_once(client: Client) -> None:
    made = client.resources.create([patient(sex="F"), FAMILY[0], patient(sex="F")])
    assert made[0] == made[2]
    assert client.patients.query().count() == 1


def test_each_table_gets_one_commit(client: Client) -> None:
    client.resources.create([*FAMILY, *(patient(str(n)) for n in range(2, 40))])
    assert [commits_of(client, name) for name in ("datasources", "patients", "imaging_studies", "volumes")] == [1] * 4
    assert client.patients.query().count() == 39


def test_an_empty_list_creates_nothing(client: Client) -> None:
    assert client.resources.create([]) == []
    assert not Path(client.uri).exists()


def test_any_iterable_of_resources_is_written_whole(client: Client) -> None:
    assert len(client.resources.create(tuple(FAMILY[:2]))) == 2
    made = client.patients.create(patient(str(n)) for n in range(2, 5))  # type: ignore[call-overload]
    assert [response.identifier for response in made] == ["patient/2", "patient/3", "patient/4"]
    assert client.patients.query().count() == 4


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.0])
def test_the_response_shows_what_is_stored(client: Client, number: float) -> None:
    client.resources.create(FAMILY)
    psa = Resource(identifier="psameasurement/1", parent_identifier="patient/1", payload={"value": number})
    made = client.psa_measurements.create(psa)
    assert made.payload.value == (None if number != number else number)
    assert client.psa_measurements.retrieve("psameasurement/1") == made


# -- refused, and nothing written


@pytest.mark.parametrize("word", ["patient/1", "volume/1/s/v", "datasource/a"])
def test_a_live_identifier_exists_already(client: Client, untouched: None, word: str) -> None:
    resource = next(resource for resource in FAMILY if resource.identifier == word)
    with pytest.raises(AlreadyExistsError, match=word):
        client.resources.create(resource)


def test_one_live_identifier_stops_the_whole_list(client: Client, untouched: None) -> None:
    with pytest.raises(AlreadyExistsError, match="volume/1/s/v"):
        client.resources.create([patient("2"), Resource(identifier="datasource/b"), FAMILY[3]])
    assert client.patients.query().count() == client.datasources.query().count() == 1


def test_all_live_identifiers_are_named_and_no_other(client: Client) -> None:
    client.resources.create([*FAMILY, patient("2")])
    with pytest.raises(AlreadyExistsError) as raised:
        client.resources.create([patient("3"), patient("2"), patient("1")])
    assert "'patient/1', 'patient/2'" in str(raised.value)
    assert "patient/3" not in str(raised.value)


def test_parents_that_are_not_live_are_all_named(client: Client, untouched: None) -> None:
    with pytest.raises(NotFoundError) as raised:
        client.patients.create([patient("2", "datasource/x"), patient("3", "datasource/y"), patient("4")])
    assert "datasource/x" in str(raised.value)
    assert "datasource/y" in str(raised.value)
    assert "datasource/a'" not in str(raised.value)


def test_a_deleted_parent_is_named_with_the_time_of_its_end(client: Client) -> None:
    client.resources.create(FAMILY[:1])
    client.datasources.delete("datasource/a")
    ended = client.datasources.history("datasource/a")[-1].valid_to
    assert ended is not None
    with pytest.raises(NotFoundError, match=f"deleted at {ended.isoformat()}".replace("+", r"\+")):
        client.patients.create(patient())
    assert commits_of(client, "patients") == 0


@pytest.mark.parametrize(
    ("identifier", "parent"),
    [
        ("patient/2", "patient/1"),
        ("patient/2", "volume/1/s/v"),
        ("volume/2", "patient/1"),
        ("datasource/b", "datasource/a"),
        ("pathologyspecimen/1", "imagingstudy/1/s"),
        ("patient/2", "patient/nothing"),
        ("patient/2", "nothing/1"),
        ("patient/2", None),
        ("volume/2", None),
        ("pathologyspecimen/1", "pathologyspecimen/1"),
    ],
)
def test_a_parent_of_a_wrong_type_or_none_is_refused(
    client: Client, untouched: None, identifier: str, parent: str | None
) -> None:
    with pytest.raises(InvalidInputError, match=identifier):
        client.resources.create(Resource(identifier=identifier, parent_identifier=parent))


def test_specimens_that_hold_each_other_are_refused(client: Client, untouched: None) -> None:
    one, two = "pathologyspecimen/1", "pathologyspecimen/2"
    circle = [Resource(identifier=i, parent_identifier=p) for i, p in ((one, two), (two, one))]
    with pytest.raises(VxDataError, match=one):
        client.resources.create(circle)


def test_two_states_of_one_identifier_in_a_list_are_refused(client: Client, untouched: None) -> None:
    with pytest.raises(InvalidInputError, match="patient/2"):
        client.resources.create([patient("2", sex="M"), patient("2", sex="F")])
    with pytest.raises(InvalidInputError, match="patient/2"):
        client.resources.create([patient("2"), Resource(identifier="datasource/b"), patient("2", "datasource/b")])


def test_a_namespace_creates_its_own_type_only(client: Client, untouched: None) -> None:
    with pytest.raises(InvalidInputError, match=r"use client\.patients"):
        client.volumes.create([Resource(identifier="volume/2", parent_identifier=CHAIN[2]), patient("2")])


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        "patient/2",
        {"identifier": "patient/2"},
        ["patient/2"],
        [patient("2"), {"identifier": "patient/3"}],
        pl.DataFrame({"identifier": ["patient/2"]}),
        VolumePayload(),
        [None],
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_is_no_resource_is_refused(client: Client, untouched: None, given: Any) -> None:
    with pytest.raises(InvalidInputError, match="Resource"):
        client.resources.create(given)


@pytest.mark.parametrize("reason", [object(), b"why", {1}])
def test_a_reason_that_is_no_text_is_refused(client: Client, untouched: None, reason: Any) -> None:
    with pytest.raises(InvalidInputError, match="reason"):
        client.resources.create(patient("2"), reason=reason)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_a_text_that_utf8_cannot_hold_is_refused(client: Client, untouched: None, text: str) -> None:
    with pytest.raises((VxDataError, ValidationError)):
        client.resources.create(patient("2", sex=text))


# -- again


def test_a_deleted_identifier_can_be_created_again(lake_uri: str) -> None:
    client = Client(lake_uri)
    first = client.resources.create(FAMILY[:2])[1]
    client.patients.update("patient/1", {"sex": "M"})
    client.patients.delete("patient/1")
    again = client.patients.create(patient(sex="F"))
    assert first.created_at < again.created_at == again.valid_from
    ended = client.patients.history("patient/1")[1].valid_to
    assert ended is not None
    assert ended < again.valid_from
    assert client.patients.retrieve("patient/1") == again


def test_a_resource_created_again_may_have_another_parent(client: Client) -> None:
    client.resources.create([*FAMILY[:2], Resource(identifier="datasource/b")])
    client.patients.delete("patient/1")
    moved = client.patients.create(patient(parent="datasource/b"))
    assert (moved.datasource_id, moved.ancestors) == ("datasource/b", ("datasource/b",))
    assert [version.datasource_id for version in client.patients.history("patient/1")] == [
        "datasource/a",
        "datasource/b",
    ]
    assert client.patients.query().collect()["datasource_id"].to_list() == ["datasource/b"]
