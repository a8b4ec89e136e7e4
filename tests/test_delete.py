"""`delete`: closes the current version, refuses to leave orphans, and forgets nothing."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.conftest import BUCKETS_IN_LONG_RUNS
from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.schemas import Resource
from vxdata.sdk import Client

PARENTS = {
    "datasource/a": None,
    "patient/1": "datasource/a",
    "patient/2": "datasource/a",
    "imagingstudy/1": "patient/1",
    "imagingstudy/2": "patient/1",
    "volume/1": "imagingstudy/1",
    "volume/2": "imagingstudy/2",
    "psameasurement/1": "patient/1",
    "psameasurement/2": "patient/2",
    "pathologyspecimen/1": "patient/1",
    "pathologyspecimen/1a": "pathologyspecimen/1",
    "pathologyspecimen/1aa": "pathologyspecimen/1a",
    "pathologyassessment/1": "pathologyspecimen/1aa",
}
TREE = [Resource(identifier=i, parent_identifier=p) for i, p in PARENTS.items()]
OUTSIDE = {"datasource/a", "patient/2", "psameasurement/2"}
"""What is neither the first patient nor below it."""

NAMESPACES = (
    "patients",
    "imaging_studies",
    "volumes",
    "psa_measurements",
    "pathology_specimens",
    "pathology_assessments",
)


def make(uri: str | Path) -> Client:
    """Return a client of a new lake that holds the tree."""
    client = Client(uri)
    client.resources.create(TREE)
    return client


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake as `make` leaves it; the tests get copies."""
    return Path(make(tmp_path_factory.mktemp("template") / "lake").uri)


@pytest.fixture
def client(template: Path, tmp_path: Path) -> Client:
    return Client(shutil.copytree(template, tmp_path / "lake"))


def files_of(client: Client) -> dict[str, int]:
    """Return every file of a local lake, with its size."""
    root = Path(client.uri)
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def live(client: Client) -> set[str]:
    """Return the identifiers of all live resources."""
    names = ("datasources", *NAMESPACES)
    return {name for n in names for name in getattr(client, n).query().select("identifier").collect()["identifier"]}


@BUCKETS_IN_LONG_RUNS
def test_a_leaf_is_closed_and_its_history_stays(lake_uri: str) -> None:
    client = make(lake_uri)
    before = client.volumes.retrieve("volume/1")
    report = client.volumes.delete("volume/1", reason="withdrawn")
    assert report.deleted == {"volumes": 1}
    assert live(Client(lake_uri)) == PARENTS.keys() - {"volume/1"}
    [version] = Client(lake_uri).volumes.history("volume/1")
    assert version.valid_to is not None
    assert version == before.model_copy(update={"valid_to": version.valid_to})
    assert client.as_of(version.valid_from).volumes.retrieve("volume/1") == before


def test_a_report_is_frozen_and_says_which_commit(client: Client) -> None:
    report: Any = client.resources.delete("volume/1")
    assert report.commit_id
    with pytest.raises((AttributeError, ValidationError)):
        report.deleted = {}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("datasource/a", ["2 patients"]),
        ("patient/1", ["2 imaging_studies", "1 psa_measurements", "1 pathology_specimens"]),
        ("imagingstudy/1", ["1 volumes"]),
        ("pathologyspecimen/1", ["1 pathology_specimens"]),
        ("pathologyspecimen/1aa", ["1 pathology_assessments"]),
    ],
)
def test_live_children_are_counted_and_the_delete_is_refused(client: Client, name: str, counts: list[str]) -> None:
    files = files_of(client)
    with pytest.raises(InvalidInputError, match="cascade=True") as raised:
        client.resources.delete(name)
    assert all(count in str(raised.value) for count in [name, *counts])
    assert files_of(client) == files


def test_children_that_were_deleted_do_not_hinder(client: Client) -> None:
    client.volumes.delete("volume/1")
    assert client.imaging_studies.delete("imagingstudy/1").deleted == {"imaging_studies": 1}


def test_a_cascade_closes_all_descendants_and_nothing_else(lake_uri: str) -> None:
    client = make(lake_uri)
    report = client.patients.delete("patient/1", cascade=True)
    assert report.deleted == {
        "pathology_assessments": 1,
        "psa_measurements": 1,
        "pathology_specimens": 3,
        "volumes": 2,
        "imaging_studies": 2,
        "patients": 1,
    }
    assert live(Client(lake_uri)) == OUTSIDE


def test_a_cascade_goes_from_the_deepest_to_the_root(client: Client) -> None:
    order = list(client.patients.delete("patient/1", cascade=True).deleted)
    assert order.index("volumes") < order.index("imaging_studies") < order.index("patients")
    assert order.index("pathology_assessments") < order.index("pathology_specimens") < order.index("patients")
    logs = [max(Path(client.uri, name, "_delta_log").glob("*.json")) for name in order]
    assert all(one.stat().st_mtime_ns <= other.stat().st_mtime_ns for one, other in pairwise(logs))


def test_a_cascade_inside_one_type_takes_what_hangs_below_it_only(client: Client) -> None:
    report = client.pathology_specimens.delete("pathologyspecimen/1a", cascade=True)
    assert report.deleted == {"pathology_assessments": 1, "pathology_specimens": 2}
    assert "pathologyspecimen/1" in live(client)


def test_a_cascade_over_everything_leaves_nothing(client: Client) -> None:
    client.datasources.delete("datasource/a", cascade=True)
    assert live(client) == set()
    assert all(client.resources.history(name)[0].valid_to is not None for name in PARENTS)


def test_a_cascade_without_descendants_is_a_plain_delete(client: Client) -> None:
    assert client.volumes.delete("volume/1", cascade=True).deleted == {"volumes": 1}


@pytest.mark.parametrize("name", ["volume/9", "volume/1"])
def test_what_is_not_live_cannot_be_deleted_and_a_second_delete_adds_nothing(client: Client, name: str) -> None:
    client.volumes.delete("volume/1")
    files = files_of(client)
    for cascade in (False, True):
        with pytest.raises(NotFoundError, match=name):
            client.volumes.delete(name, cascade=cascade)
    assert files_of(client) == files
    assert len(client.volumes.history("volume/1")) == 1


@BUCKETS_IN_LONG_RUNS
def test_a_deleted_resource_is_created_again_with_the_gap_between(lake_uri: str) -> None:
    client = make(lake_uri)
    client.volumes.delete("volume/1")
    again = client.volumes.create(Resource(identifier="volume/1", parent_identifier="imagingstudy/2"))
    first, second = Client(lake_uri).volumes.history("volume/1")
    assert first.valid_to is not None
    assert first.valid_to < second.valid_from
    assert second == again
    assert (first.study_id, second.study_id) == ("imagingstudy/1", "imagingstudy/2")
    assert client.imaging_studies.delete("imagingstudy/1").deleted == {"imaging_studies": 1}


def test_a_family_can_be_deleted_and_created_again_and_again(client: Client) -> None:
    for _ in range(3):
        client.patients.delete("patient/1", cascade=True)
        client.resources.create([resource for resource in TREE if resource.identifier not in OUTSIDE])
    assert live(client) == PARENTS.keys()
    assert len(client.patients.history("patient/1")) == 4


def test_a_namespace_deletes_its_own_type_only(client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"use client\.volumes"):
        client.patients.delete("volume/1")
    assert "volume/1" in live(client)


@pytest.mark.parametrize("name", [None, 7, ["volume/1"], "volume", "volume/..", "volumes/1"])
def test_what_is_no_identifier_is_refused(client: Client, name: Any) -> None:
    with pytest.raises(InvalidInputError):
        client.resources.delete(name)
    assert live(client) == PARENTS.keys()


def test_the_answer_of_the_past_does_not_change(client: Client) -> None:
    instant = client.volumes.retrieve("volume/1").valid_from
    before = client.as_of(instant).volumes.query().sort("identifier").collect()
    client.datasources.delete("datasource/a", cascade=True)
    assert client.as_of(instant).volumes.query().sort("identifier").collect().equals(before)
    assert client.volumes.query().count() == 0
