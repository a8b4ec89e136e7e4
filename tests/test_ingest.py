"""`ingest`: frames of several types at once; what they lack is closed, or all is refused and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata.sdk.ingest import ingest

LINES = {
    "datasources": [("datasource/a", None)],
    "patients": [("patient/1", "datasource/a"), ("patient/2", "datasource/a")],
    "imaging_studies": [("imagingstudy/1", "patient/1"), ("imagingstudy/2", "patient/2")],
    "volumes": [("volume/1", "imagingstudy/1"), ("volume/2", "imagingstudy/2")],
}


def frames(*without: str, **more: list[tuple[str, str]]) -> dict[str, pl.DataFrame]:
    """The frames of `LINES` without some resources, and with more."""
    return {
        name: pl.DataFrame(
            [line for line in [*lines, *more.get(name, [])] if line[0] not in without],
            schema={"identifier": pl.String, "parent_identifier": pl.String},
            orient="row",
        )
        for name, lines in LINES.items()
    }


@pytest.fixture
def client(tmp_path: Path) -> Client:
    client = Client(tmp_path / "lake")
    ingest(client, frames())
    return client


def state(client: Client) -> list[Any]:
    """The version of each table, so that a commit is seen even if it changed nothing."""
    lake = client._session.lake
    return [lake.snapshot(getattr(client, name)._spec).version for name in (*LINES, "psa_measurements")]


def delete(client: Client, frames: dict[str, pl.DataFrame], **options: Any) -> dict[str, int]:
    reports = ingest(client, frames, missing="delete", **options)
    return {name: report.deleted for name, report in reports.items() if report.deleted}


def test_a_parent_goes_with_its_children_though_other_types_stay(client: Client) -> None:
    second = frames("patient/2", "imagingstudy/2", "volume/2", imaging_studies=[("imagingstudy/3", "patient/1")])
    assert delete(client, second) == {"patients": 1, "imaging_studies": 1, "volumes": 1}
    assert delete(client, second) == {}


def test_a_type_that_the_frames_do_not_name_keeps_a_parent_and_nothing_is_written(client: Client) -> None:
    client.resources.create(Resource(identifier="psameasurement/1", parent_identifier="patient/2"))
    before = state(client)
    gone = frames("patient/2", "imagingstudy/2", "volume/2", patients=[("patient/3", "datasource/a")])
    for dry_run in (True, False):
        with pytest.raises(InvalidInputError, match=r"'patient/2': live children are left \(1 psa_measurements\)"):
            ingest(client, gone, missing="delete", dry_run=dry_run)
    assert state(client) == before


@pytest.mark.parametrize("kept", ["imagingstudy/2", "imagingstudy/9"], ids=["a live child", "a new child"])
def test_a_child_that_the_frames_hold_keeps_its_parent_and_nothing_is_written(client: Client, kept: str) -> None:
    before = state(client)
    new = [("imagingstudy/9", "patient/2")] if kept == "imagingstudy/9" else []
    without = {"patient/2", "imagingstudy/2", "volume/2"} - {kept}
    with pytest.raises(InvalidInputError, match=r"'patient/2': live children are left \(1 imaging_studies\)"):
        ingest(client, frames(*without, imaging_studies=new), missing="delete")
    assert state(client) == before


@pytest.mark.parametrize("kept", ["imagingstudy/2", "imagingstudy/9", "volume/2"], ids=["child", "new", "grandchild"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_cascade_takes_nothing_that_the_frames_hold(client: Client, kept: str, dry_run: bool) -> None:
    before = state(client)
    new = [("imagingstudy/9", "patient/2")] if kept == "imagingstudy/9" else []
    wanted = frames(*{"patient/2", "imagingstudy/2", "volume/2"} - {kept}, imaging_studies=new)
    if kept == "volume/2":
        del wanted["imaging_studies"]  # so that only the cascade would close its study
    with pytest.raises(InvalidInputError, match=f"hold '{kept}' but lack an ancestor of the namespace patients"):
        ingest(client, wanted, missing="delete", cascade=True, dry_run=dry_run)
    assert state(client) == before


def test_what_a_cascade_takes_is_foreseen_and_told(client: Client) -> None:
    client.resources.create(Resource(identifier="psameasurement/1", parent_identifier="patient/2"))
    client.resources.create(Resource(identifier="psameasurement/2", parent_identifier="patient/1"))
    wanted = frames("patient/2", "imagingstudy/2")
    del wanted["volumes"]
    told = [ingest(client, wanted, missing="delete", cascade=True, dry_run=dry_run) for dry_run in (True, False)]
    for reports in told:
        assert {name: report.deleted for name, report in reports.items() if report.deleted} == {
            "patients": 1, "imaging_studies": 1
        }  # fmt: skip
        assert reports["imaging_studies"].cascaded == {"volumes": 1}
        assert reports["patients"].cascaded == {"psa_measurements": 1}
    with pytest.raises(NotFoundError):
        client.volumes.retrieve("volume/2")
    assert client.psa_measurements.query().count() == 1


def test_a_closing_that_comes_too_early_is_refused_before_anything_is_written(client: Client) -> None:
    client.resources.create(Resource(identifier="patient/9", parent_identifier="datasource/a"))
    before = state(client)
    second = frames(patients=[("patient/3", "datasource/a")])
    with pytest.raises(InvalidInputError, match="valid_from is not later"):
        ingest(client, second, missing="delete", valid_from="2001-01-01")
    assert state(client) == before


def test_a_dry_run_counts_what_the_run_then_closes(client: Client) -> None:
    second = frames("patient/2", "imagingstudy/2", "volume/2", patients=[("patient/3", "datasource/a")])
    second["imaging_studies"] = second["imaging_studies"].vstack(
        pl.DataFrame({"identifier": ["imagingstudy/3"], "parent_identifier": ["patient/3"]})
    )
    planned, done = (
        {name: (r.created, r.deleted) for name, r in ingest(client, second, missing="delete", dry_run=dry).items()}
        for dry in (True, False)
    )
    assert planned == done == {"datasources": (0, 0), "patients": (1, 1), "imaging_studies": (1, 1), "volumes": (0, 1)}
