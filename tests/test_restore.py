"""`restore` brings back what one delete closed, whole, before and after a fold."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.schema import Field, PrimitiveType

from tests.support import stepping
from tests.support.broken import RULES
from tests.support.stepping import Puts, Step, Writer, lost_answer, open_client
from tests.test_delete import NAMESPACES, PARENTS, TREE, live
from vxdata.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from vxdata.lake import effects, restore
from vxdata.lake.datafile import write_data_files
from vxdata.schemas import Resource
from vxdata.schemas.columns import INSTANT
from vxdata.sdk import Client

BELOW = sorted(PARENTS.keys() - {"datasource/a", "patient/2", "psameasurement/2"})
Fold = Callable[[Client], None]
TABLES = ("datasources", *NAMESPACES)


def compact(client: Client) -> None:
    """Fold all tables, and see that it was done."""
    report = client.compact()
    assert report.rounds["folded"].sum() > 0


@pytest.fixture(params=[pytest.param("tail", marks=pytest.mark.slow), "folded"])
def fold(request: pytest.FixtureRequest) -> Fold:
    """Fold the lake, or leave it as it is: what comes after must not differ."""
    return compact if request.param == "folded" else lambda client: None


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake that holds the tree; the tests get copies."""
    client = Client(tmp_path_factory.mktemp("template") / "lake")
    client.resources.create(TREE)
    client.volumes.update("volume/1", {"volume_type": "T2", "derived_from": ["volume/2"]}, license="CC0")
    return Path(client.uri)


@pytest.fixture
def client(template: Path, tmp_path: Path) -> Client:
    return open_client(shutil.copytree(template, tmp_path / "lake"))


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> Puts:
    return stepping.install(monkeypatch)


def contents(client: Client) -> dict[str, Any]:
    """What a new client sees of each resource, without its instants."""
    lake = open_client(client.uri)
    frames = [getattr(lake, name).query().collect().drop("valid_from", "created_at") for name in TABLES]
    return {row["identifier"]: row for frame in frames for row in frame.rows(named=True)}


@pytest.mark.parametrize(
    ("make_lake_uri", "fold"),
    [("local", "tail"), pytest.param("ministack", "folded", marks=pytest.mark.slow)],
    indirect=True,
)
def test_a_cascade_is_undone_with_all_content_root_first(lake_uri: str, fold: Fold) -> None:
    client = open_client(lake_uri)
    client.resources.create(TREE)
    before = contents(client)
    client.patients.delete("patient/1", cascade=True)
    fold(client)
    report = open_client(lake_uri).resources.restore("patient/1", reason="a mistake")
    assert sum(report.restored.values()) == len(BELOW)
    assert next(iter(report.restored)) == "patients"
    assert report.left_out.is_empty()
    assert contents(client) == before


def test_a_dry_run_says_what_would_come_back_and_writes_nothing(client: Client, fold: Fold) -> None:
    client.patients.delete("patient/1", cascade=True)
    fold(client)
    before, commits = contents(client), client.commits.list().height
    planned = client.resources.restore("patient/1", dry_run=True)
    assert (contents(client), client.commits.list().height, planned.commit_id) == (before, commits, None)
    assert planned.restored == client.resources.restore("patient/1").restored
    with pytest.raises(AlreadyExistsError):
        client.resources.restore("patient/1", dry_run=True)


def test_a_restored_resource_is_a_new_version_with_the_gap_before_it(client: Client, fold: Fold) -> None:
    client.volumes.delete("volume/1")
    fold(client)
    report = client.volumes.restore("volume/1")
    *_, last, again = open_client(client.uri).volumes.history("volume/1")
    assert report.restored == {"volumes": 1}
    assert last.valid_to < again.valid_from == again.created_at
    assert again.payload == last.payload
    assert (again.license, again.payload.derived_from) == ("CC0", ["volume/2"])


def test_only_what_the_same_delete_closed_comes_back(client: Client, fold: Fold) -> None:
    client.volumes.delete("volume/1")
    client.patients.delete("patient/1", cascade=True)
    fold(client)
    assert client.resources.restore("patient/1").restored["volumes"] == 1
    assert live(client) == PARENTS.keys() - {"volume/1"}


def test_a_part_of_a_cascade_comes_back_alone_below_a_live_parent(client: Client, fold: Fold) -> None:
    client.datasources.delete("datasource/a", cascade=True)
    fold(client)
    client.datasources.create(Resource(identifier="datasource/a"))
    client.resources.restore("patient/2")
    assert live(client) == {"datasource/a", "patient/2", "psameasurement/2"}


def test_tail_and_folded_rows_side_by_side_are_one_delete(client: Client) -> None:
    client.patients.delete("patient/1", cascade=True)
    assert client.compact("volumes").is_changed
    before = len(BELOW)
    assert sum(client.resources.restore("patient/1").restored.values()) == before


def test_what_was_created_again_elsewhere_stays_and_what_hangs_on_it_is_left_out(client: Client, fold: Fold) -> None:
    client.patients.delete("patient/1", cascade=True)
    client.resources.create(Resource(identifier="pathologyspecimen/1a", parent_identifier="patient/2"))
    fold(client)
    report = client.resources.restore("patient/1")
    left = {"pathologyspecimen/1a", "pathologyspecimen/1aa", "pathologyassessment/1"}
    assert set(report.left_out["identifier"]) == left
    assert live(client) == PARENTS.keys() - (left - {"pathologyspecimen/1a"})
    assert client.resources.retrieve("pathologyspecimen/1a").parent_identifier == "patient/2"


def test_what_was_created_again_and_deleted_since_is_left_out(client: Client, fold: Fold) -> None:
    client.patients.delete("patient/1", cascade=True)
    client.resources.create(Resource(identifier="psameasurement/1", parent_identifier="patient/2"))
    commit_id = client.resources.delete("psameasurement/1").commit_id
    fold(client)
    report = client.resources.restore("patient/1")
    assert report.left_out["identifier"].to_list() == ["psameasurement/1"]
    assert commit_id in report.left_out["reason"].item()
    assert "psameasurement/1" not in live(client)


def test_the_lineage_is_that_of_the_parent_of_now(client: Client, fold: Fold) -> None:
    client.imaging_studies.delete("imagingstudy/1", cascade=True)
    client.resources.restore("imagingstudy/1")
    client.patients.delete("patient/1", cascade=True)
    client.resources.create(
        [
            Resource(identifier="datasource/b"),
            Resource(identifier="patient/1", parent_identifier="datasource/b"),
        ]
    )
    fold(client)
    client.resources.restore("imagingstudy/1")
    volume = open_client(client.uri).volumes.retrieve("volume/1")
    assert (volume.datasource_id, volume.ancestors[0]) == ("datasource/b", "datasource/b")


def test_a_deleted_datasource_comes_back(client: Client, fold: Fold) -> None:
    before = contents(client)
    client.datasources.delete("datasource/a", cascade=True)
    fold(client)
    client.datasources.restore("datasource/a")
    assert contents(client) == before


def test_a_column_that_this_sdk_does_not_know_comes_back(client: Client) -> None:
    lake = client._session.lake
    url = lake.store.url("volumes")
    DeltaTable(url).alter.add_columns([Field("of_tomorrow", PrimitiveType("string"))])
    table = lake.table(client.volumes._spec)
    row = table.snapshot().current_of(["volume/2"]).with_columns(of_tomorrow=pl.lit("kept"))
    moved = row.with_columns(closes="valid_from", valid_from=pl.col("valid_from") + pl.duration(microseconds=1))
    base = table.snapshot()
    table.put_commit(base, write_data_files(table.store, "volumes", moved), (), {"operation": "update"})
    client.volumes.delete("volume/2")
    client.volumes.restore("volume/2")
    assert table.snapshot().current_of(["volume/2"])["of_tomorrow"].to_list() == ["kept"]


# refusals


def test_a_live_resource_is_refused(client: Client) -> None:
    with pytest.raises(AlreadyExistsError, match="volume/1"):
        client.volumes.restore("volume/1")
    client.volumes.delete("volume/1")
    client.volumes.restore("volume/1")
    with pytest.raises(AlreadyExistsError, match="volume/1"):
        client.volumes.restore("volume/1")


def test_what_never_was_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError, match="volume/9"):
        client.volumes.restore("volume/9")
    with pytest.raises(NotFoundError):
        Client(client.uri + "2").volumes.restore("volume/9")
    with pytest.raises(InvalidInputError, match=r"client\.volumes"):
        client.patients.restore("volume/1")


def test_a_parent_that_is_gone_is_named_with_the_instant_of_its_deletion(client: Client, fold: Fold) -> None:
    client.patients.delete("patient/1", cascade=True)
    fold(client)
    with pytest.raises(NotFoundError, match=r"'patient/1' was deleted at 20.*Restore the parent first"):
        client.imaging_studies.restore("imagingstudy/1")
    assert live(client) == PARENTS.keys() - set(BELOW)


def test_a_read_only_client_does_not_restore(client: Client) -> None:
    client.volumes.delete("volume/1")
    with pytest.raises(InvalidInputError, match="read-only"):
        client.snapshot().volumes.restore("volume/1")


# kills, lost answers, races


@pytest.mark.parametrize("stops", [2, 7])
def test_a_restore_that_was_killed_is_finished_by_running_it_again(client: Client, puts: Puts, stops: int) -> None:
    before = contents(client)
    client.patients.delete("patient/1", cascade=True)
    writer = Writer(lambda: open_client(client.uri).resources.restore("patient/1"))
    for _ in range(stops):
        writer.step()
    writer.kill()
    open_client(client.uri).resources.restore("patient/1")
    assert contents(client) == before
    restores = client.commits.list().filter(pl.col("operation") == "restore")
    assert restores.filter(pl.col("created") > 0)["commit_id"].n_unique() == 1


def test_an_edit_between_a_kill_and_the_second_run_is_kept(client: Client, puts: Puts) -> None:
    client.patients.delete("patient/1", cascade=True)
    writer = Writer(lambda: open_client(client.uri).resources.restore("patient/1"))
    writer.run_to(Step.WRITTEN).run_to(Step.PLANNED)  # the patient is committed, its studies are planned
    writer.kill()
    client.patients.update("patient/1", {"sex": "F"})
    client.resources.restore("patient/1")
    assert client.patients.retrieve("patient/1").payload.sex == "F"
    assert live(client) == PARENTS.keys()


def test_a_restore_whose_answers_are_lost_is_done_once(client: Client, puts: Puts) -> None:
    before = contents(client)
    client.patients.delete("patient/1", cascade=True)
    puts.strike(*[lost_answer] * 6)
    client.resources.restore("patient/1")
    assert contents(client) == before


def test_of_two_restores_at_once_one_wins(client: Client, puts: Puts) -> None:
    client.volumes.delete("volume/1")
    writer = Writer(lambda: open_client(client.uri).volumes.restore("volume/1")).run_to(Step.WRITTEN)
    client.volumes.restore("volume/1")
    with pytest.raises(AlreadyExistsError):
        writer.finish()
    assert client.volumes.query().collect()["identifier"].to_list().count("volume/1") == 1


def test_a_parent_that_goes_meanwhile_is_named(client: Client, puts: Puts) -> None:
    client.volumes.delete("volume/1")
    writer = Writer(lambda: open_client(client.uri).volumes.restore("volume/1")).run_to(Step.WRITTEN)
    client.imaging_studies.delete("imagingstudy/1")
    with pytest.raises(ConflictError, match="volume/1"):
        writer.finish()


def test_what_is_made_again_elsewhere_meanwhile_is_left_out_with_what_hangs_on_it(client: Client, puts: Puts) -> None:
    client.patients.delete("patient/1", cascade=True)
    writer = Writer(lambda: open_client(client.uri).resources.restore("patient/1"))
    writer.run_to(Step.WRITTEN).run_to(Step.WRITTEN)  # the patient is committed, its studies are written
    client.imaging_studies.create(Resource(identifier="imagingstudy/1", parent_identifier="patient/2"))
    report = writer.finish()
    assert {"imagingstudy/1", "volume/1"} <= set(report.left_out["identifier"])
    assert client.verify().ok


# the tests can fail


@pytest.mark.parametrize("rule", ["premises", "orphans"])
def test_without_the_rule_a_race_does_harm(
    client: Client, puts: Puts, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    RULES[rule](monkeypatch)
    client.volumes.delete("volume/1")
    writer = Writer(lambda: open_client(client.uri).volumes.restore("volume/1")).run_to(Step.WRITTEN)
    if rule == "premises":
        client.volumes.restore("volume/1")
    else:
        client.imaging_studies.delete("imagingstudy/1")
    writer.finish()
    volumes = open_client(client.uri).volumes.query().collect()["identifier"].to_list()
    assert volumes.count("volume/1") == (2 if rule == "premises" else 1)


def test_without_looking_at_closings_a_delete_in_the_tail_is_not_found(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = effects.lifetimes

    def blind(rows: pl.LazyFrame) -> pl.LazyFrame:
        return original(rows.with_columns(closes=pl.lit(None, INSTANT)))

    monkeypatch.setattr(restore, "lifetimes", blind)
    client.volumes.delete("volume/1")
    with pytest.raises(AlreadyExistsError):
        client.volumes.restore("volume/1")
