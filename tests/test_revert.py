"""`commits.revert` undoes one operation in all its tables, before and after a fold, or refuses and says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support import stepping
from tests.support.stepping import Puts, Step, Writer, lost_answer, open_client
from tests.test_delete import NAMESPACES, TREE, live
from vxdata.errors import ConflictError, InvalidInputError, NotFoundError
from vxdata.lake import effects, revert
from vxdata.lake.intent import Patience
from vxdata.lake.lookup import touched_by
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata.sdk.ingest import ingest

FRAMES = {
    "patients": pl.DataFrame(
        {
            "identifier": ["patient/1", "patient/new"],
            "parent_identifier": "datasource/a",
            "birthyear": [1950, 1960],
            "license": "CC0",
        }
    ),
    "imaging_studies": pl.DataFrame(
        {
            "identifier": ["imagingstudy/1", "imagingstudy/2", "imagingstudy/new"],
            "parent_identifier": ["patient/1", "patient/1", "patient/new"],
            "study_description": ["prostate", None, "new"],
        }
    ),
    "volumes": pl.DataFrame(
        {
            "identifier": ["volume/2", "volume/new"],
            "parent_identifier": ["imagingstudy/2", "imagingstudy/new"],
            "derived_from": [["volume/1"], []],
        }
    ),
}
"""What makes and updates a patient, a study and a volume, and (with "delete") closes a patient and a volume."""

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


def change(client: Client) -> str:
    """Ingest what creates, updates and deletes; return the commit's id."""
    reports = ingest(client, FRAMES, missing="delete", cascade=True)
    assert sum(r.created for r in reports.values()) == sum(r.updated for r in reports.values()) == 3
    assert reports["volumes"].deleted == reports["patients"].deleted == 1
    (commit_id,) = {r.commit_id for r in reports.values()}
    assert commit_id is not None
    return commit_id


@pytest.mark.parametrize(
    ("make_lake_uri", "fold"),
    [("local", "tail"), pytest.param("ministack", "folded", marks=pytest.mark.slow)],
    indirect=True,
)
def test_an_ingest_is_undone_in_all_its_tables(lake_uri: str, fold: Fold) -> None:
    client = open_client(lake_uri)
    client.resources.create(TREE)
    before = contents(client)
    commit_id = change(client)
    fold(client)
    report = open_client(lake_uri).commits.revert(commit_id, reason="wrong file")
    assert report.deleted == {"volumes": 1, "imaging_studies": 1, "patients": 1}
    assert report.updated == {"patients": 1, "imaging_studies": 1, "volumes": 1}
    assert report.created == {"patients": 1, "volumes": 1, "psa_measurements": 1}
    assert report.refused.is_empty()
    assert contents(client) == before


def test_the_past_keeps_what_was_undone(client: Client, fold: Fold) -> None:
    commit_id = change(client)
    fold(client)
    during = client.patients.retrieve("patient/1")
    client.commits.revert(commit_id)
    assert client.as_of(during.valid_from).patients.retrieve("patient/1") == during
    assert [v.payload.birthyear for v in client.patients.history("patient/1")] == [None, 1950, None]
    assert "patient/new" not in live(client)


def test_a_revert_can_be_reverted(client: Client, fold: Fold) -> None:
    commit_id = change(client)
    after = contents(client)
    first = client.commits.revert(commit_id)
    fold(client)
    assert first.commit_id is not None
    client.commits.revert(first.commit_id)
    assert contents(client) == after


def test_later_commits_are_reverted_first_newest_first(client: Client, fold: Fold) -> None:
    states, commits = [contents(client)], []
    for n in range(3):
        frame = FRAMES["volumes"].with_columns(b_value=pl.lit(float(n)), parent_identifier=pl.lit("imagingstudy/2"))
        commits.append(client.volumes.upsert(frame, missing="delete" if n == 1 else "keep").commit_id)
        states.append(contents(client))
    with pytest.raises(InvalidInputError, match=f"changed since by commit {commits[2]}"):
        client.commits.revert(commits[1])
    fold(client)
    for n in (2, 1, 0):
        client.commits.revert(commits[n])
        assert contents(client) == states[n]
    assert client.verify().ok


def test_a_commit_whose_revert_was_reverted_is_reverted_anew(client: Client, fold: Fold) -> None:
    before, commit_id = contents(client), change(client)
    first = client.commits.revert(commit_id).commit_id
    client.commits.revert(first)
    fold(client)
    second = client.commits.revert(commit_id).commit_id
    assert (contents(client), second == first) == (before, False)
    with pytest.raises(InvalidInputError, match=f"reverted already, by '{second}'"):
        client.commits.revert(commit_id)


def test_a_revert_that_did_not_reach_a_resource_undoes_nothing_of_it(client: Client, puts: Puts) -> None:
    first = client.volumes.upsert(FRAMES["volumes"].head(1)).commit_id
    edits = {
        "volumes": FRAMES["volumes"].head(1).with_columns(b_value=pl.lit(1.0)),
        "patients": FRAMES["patients"].head(1),
    }
    second = ingest(client, {name: edits[name].lazy() for name in edits})["volumes"].commit_id
    writer = Writer(lambda: open_client(client.uri).commits.revert(second))
    writer.run_to(Step.WRITTEN).run_to(Step.WRITTEN)  # the patient is as before, the volume is not
    writer.kill()
    with pytest.raises(InvalidInputError, match="'volume/2' was changed since"):
        client.commits.revert(first)
    client.commits.revert(second)
    client.commits.revert(first)
    assert client.volumes.retrieve("volume/2").payload.derived_from is None


@pytest.mark.parametrize("verb", ["create", "update", "delete", "restore"])
def test_each_verb_is_undone(client: Client, fold: Fold, verb: str) -> None:
    client.volumes.delete("volume/2")
    before = contents(client)
    match verb:
        case "create":
            client.volumes.create(Resource(identifier="volume/3", parent_identifier="imagingstudy/1"))
        case "update":
            client.volumes.update("volume/1", {"volume_type": "T2"}, license="CC0")
        case "delete":
            client.patients.delete("patient/1", cascade=True)
        case "restore":
            client.volumes.restore("volume/2")
    fold(client)
    client.commits.revert(client.commits.list(limit=20).filter(operation=verb)["commit_id"][0])
    assert contents(client) == before


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(client: Client) -> None:
    commit_id = change(client)
    commits = client.commits.list().height
    planned = client.commits.revert(commit_id, dry_run=True)
    assert client.commits.list().height == commits
    assert planned.commit_id is None
    done = client.commits.revert(commit_id)
    assert (planned.created, planned.updated, planned.deleted) == (done.created, done.updated, done.deleted)


# refusals


def test_what_was_edited_since_is_listed_and_nothing_is_written(client: Client, fold: Fold) -> None:
    commit_id = change(client)
    client.patients.update("patient/1", {"sex": "F"})
    client.volumes.delete("volume/new")
    client.resources.create(Resource(identifier="patient/2", parent_identifier="datasource/a"))
    fold(client)
    before, commits = contents(client), client.commits.list().height
    listed = client.commits.revert(commit_id, dry_run=True).refused
    assert set(listed["identifier"]) == {"patient/1", "volume/new", "patient/2"}
    with pytest.raises(InvalidInputError, match="3 resources stand in the way") as raised:
        client.commits.revert(commit_id)
    assert all(name in str(raised.value) for name in listed["identifier"])
    assert (contents(client), client.commits.list().height) == (before, commits)


def test_an_edit_that_was_taken_back_by_hand_is_an_edit(client: Client, fold: Fold) -> None:
    commit_id = client.volumes.upsert(FRAMES["volumes"].head(1)).commit_id
    client.volumes.update("volume/2", {"derived_from": None})
    client.volumes.update("volume/2", {"derived_from": ["volume/1"]})
    fold(client)
    with pytest.raises(InvalidInputError, match="'volume/2' was changed since by commit"):
        client.commits.revert(commit_id)


def test_a_commit_of_which_all_was_erased_is_refused(client: Client) -> None:
    client.patients.create(Resource(identifier="patient/gone", parent_identifier="datasource/a"))
    commit_id = client.commits.list("patients", limit=1)["commit_id"].item()
    hasty = open_client(client.uri, Patience(deadline_seconds=0.2, grace_seconds=0.1))
    hasty.erase("patient/gone", reason="consent withdrawn", dry_run=False)
    with pytest.raises(InvalidInputError, match="was erased"):
        client.commits.revert(commit_id)


def test_children_that_the_commit_did_not_make_stand_in_the_way(client: Client, fold: Fold) -> None:
    commit_id = change(client)
    client.volumes.create(Resource(identifier="volume/late", parent_identifier="imagingstudy/new"))
    fold(client)
    with pytest.raises(InvalidInputError, match="'imagingstudy/new' has 1 live children"):
        client.commits.revert(commit_id)
    client.volumes.delete("volume/late")
    client.commits.revert(commit_id)
    assert "imagingstudy/new" not in live(client)


def test_a_deleted_child_whose_parent_is_gone_stands_in_the_way(client: Client, fold: Fold) -> None:
    commit_id = client.volumes.delete("volume/1").commit_id
    client.imaging_studies.delete("imagingstudy/1")
    fold(client)
    with pytest.raises(InvalidInputError, match="its parent imagingstudy/1 is not live"):
        client.commits.revert(commit_id)


def test_a_commit_is_reverted_once(client: Client) -> None:
    commit_id = change(client)
    first = client.commits.revert(commit_id).commit_id
    with pytest.raises(InvalidInputError, match=f"reverted already, by '{first}'"):
        client.commits.revert(commit_id)


@pytest.mark.parametrize("commit_id", ["nobody", "0" * 32])
def test_an_unknown_commit_is_not_found(client: Client, commit_id: str) -> None:
    with pytest.raises(NotFoundError, match=commit_id):
        client.commits.revert(commit_id)


@pytest.mark.parametrize("commit_id", [None, 7, ""])
def test_what_is_no_commit_id_is_refused(client: Client, commit_id: Any) -> None:
    with pytest.raises(InvalidInputError, match="commit_id"):
        client.commits.revert(commit_id)


def test_a_commit_that_changed_nothing_has_nothing_to_revert(client: Client) -> None:
    client.volumes.update("volume/1", {"volume_type": "T2"})
    compaction = client.compact().commit_id
    assert compaction is not None
    with pytest.raises(InvalidInputError, match=r"\(compact\) changed no resource"):
        client.commits.revert(compaction)
    same = client.volumes.upsert(pl.DataFrame({"identifier": ["volume/1"]}), batch_id="empty").commit_id
    with pytest.raises(InvalidInputError, match="changed no resource"):
        client.commits.revert(same)


# kills, lost answers, races


@pytest.mark.parametrize("stops", [2, 5, 11])
def test_a_revert_that_was_killed_is_finished_by_running_it_again(client: Client, puts: Puts, stops: int) -> None:
    before, commit_id = contents(client), change(client)
    writer = Writer(lambda: open_client(client.uri).commits.revert(commit_id))
    for _ in range(stops):
        writer.step()
    writer.kill()
    report = open_client(client.uri).commits.revert(commit_id)
    assert contents(client) == before
    ids = client.commits.list().filter(pl.col("operation") == "revert")["commit_id"].unique().to_list()
    assert ids == [report.commit_id]


def test_a_revert_whose_answers_are_lost_is_done_once(client: Client, puts: Puts) -> None:
    before, commit_id = contents(client), change(client)
    puts.strike(*[lost_answer] * 7)
    client.commits.revert(commit_id)
    assert contents(client) == before


def test_an_edit_that_comes_meanwhile_is_not_undone(client: Client, puts: Puts) -> None:
    commit_id = client.volumes.upsert(FRAMES["volumes"].head(1)).commit_id
    writer = Writer(lambda: open_client(client.uri).commits.revert(commit_id)).run_to(Step.WRITTEN)
    client.volumes.update("volume/2", {"volume_type": "T2"})
    with pytest.raises(InvalidInputError, match="'volume/2' was changed since"):
        writer.finish()
    assert client.volumes.retrieve("volume/2").payload.derived_from == ["volume/1"]


@pytest.mark.parametrize("kind", ["edited", "deleted", "made again elsewhere"])
def test_what_becomes_of_a_new_resource_meanwhile_stands_in_the_way_of_all(
    client: Client, puts: Puts, kind: str
) -> None:
    made = [("imagingstudy/n", "patient/1"), ("volume/n1", "imagingstudy/n"), ("volume/n2", "imagingstudy/n")]
    client.resources.create([Resource(identifier=i, parent_identifier=p) for i, p in made])
    commit_id = client.commits.list("volumes", limit=1)["commit_id"].item()
    writer = Writer(lambda: open_client(client.uri).commits.revert(commit_id)).run_to(Step.WRITTEN)
    if kind == "edited":
        client.volumes.update("volume/n1", {"b_value": 1.0})
    else:
        client.volumes.delete("volume/n1")
    if kind == "made again elsewhere":
        client.volumes.create(Resource(identifier="volume/n1", parent_identifier="imagingstudy/2"))
    before = contents(client)
    with pytest.raises(InvalidInputError, match="'volume/n1' was changed since"):
        writer.finish()
    assert contents(client) == before
    assert client.verify().ok


def test_a_child_that_comes_meanwhile_is_named(client: Client, puts: Puts) -> None:
    new = Resource(identifier="imagingstudy/9", parent_identifier="patient/1")
    client.imaging_studies.create(new)
    commit_id = client.commits.list("imaging_studies", limit=1)["commit_id"].item()
    writer = Writer(lambda: open_client(client.uri).commits.revert(commit_id)).run_to(Step.WRITTEN)
    client.volumes.create(Resource(identifier="volume/9", parent_identifier="imagingstudy/9"))
    with pytest.raises(ConflictError, match="volume/9"):
        writer.finish()


# statistics


def test_only_files_that_may_hold_the_commit_are_read(client: Client) -> None:
    for year in range(6):
        client.patients.update("patient/1", {"birthyear": year})
    commit_id = client.commits.list("patients", limit=3)["commit_id"][2]
    base = client._session.lake.table(client.patients._spec).snapshot()
    for key in base.files["key"].to_list():
        path = Path(client.uri, "patients", key)
        if commit_id.encode() not in path.read_bytes():
            path.unlink()
    assert touched_by(base, commit_id).to_list() == ["patient/1"]


# the tests can fail


def test_without_the_rule_an_edit_is_lost(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_id = client.volumes.upsert(FRAMES["volumes"].head(1)).commit_id
    client.volumes.update("volume/2", {"volume_type": "T2"})
    original = effects.effects_of

    def blind(*args: Any) -> pl.LazyFrame:
        return original(*args).with_columns(state=pl.lit(effects.OPEN))

    monkeypatch.setattr(revert, "effects_of", blind)
    client.commits.revert(commit_id)
    assert client.volumes.retrieve("volume/2").payload.volume_type is None
