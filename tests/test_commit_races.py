"""Races between writers, stepped by hand: each rule of the commit primitive, and what comes of it if the rule is gone.

Source: design of record, section 5 (one commit primitive, across tables), section 3 (valid_from).
"""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable
from deltalake.schema import Field, PrimitiveType
from deltalake.transaction import RemoveAction

from tests.support import stepping
from tests.support.broken import RULES
from tests.support.proxy import Fault, Match, Proxy
from tests.support.servers import make_bucket
from tests.support.stepping import TICK, Clock, Put, Puts, Step, Writer, lost_answer, lost_request, open_client
from tests.support.upkeep import write_checkpoint
from tests.support.wishes import NewerPatient
from vxdata.catalog.table import table_spec
from vxdata.errors import (
    AlreadyExistsError,
    CommitUnknownError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from vxdata.lake import checkpoint, commit
from vxdata.lake.log import entry_key, read_entry
from vxdata.lake.store import Store
from vxdata.lake.table import Table
from vxdata.lake.token import UnknownCommit
from vxdata.schemas import Resource
from vxdata.schemas.payload import PatientPayload
from vxdata.sdk import Client
from vxdata.sdk.ingest import ingest
from vxdata.sdk.namespace import Namespace

P, Q, S = "patient/p", "patient/q", "pathologyspecimen/s"
Without = Callable[[str], None]


def resource(identifier: str, parent: str | None = None, **payload: Any) -> Resource:
    return Resource(identifier=identifier, parent_identifier=parent, payload=payload)


@dataclass
class Scene:
    """A lake with two clients, a clock and PUTs that can be struck."""

    uri: str
    clock: Clock
    puts: Puts
    a: Client
    b: Client

    @property
    def store(self) -> Store:
        return self.a._session.lake.store

    def years(self, identifier: str = P) -> list[int | None]:
        """What a new client says of a patient's versions, oldest first."""
        return [v.payload.birthyear for v in open_client(self.uri).patients.history(identifier)]

    def live(self, namespace: str = "patients") -> list[str]:
        """The identifiers of all current rows, as a new client sees them: one that is there twice is named twice."""
        return sorted(getattr(open_client(self.uri), namespace).query().collect()["identifier"])

    def update(self, client: Client, identifier: str = P, **changes: Any) -> Writer:
        return Writer(lambda: client.patients.update(identifier, changes))

    def data_files(self, namespace: str = "patients") -> int:
        return sum("/datasource_id=" in key for key in self.store.list_keys(namespace))

    def table(self, namespace: str = "patients") -> DeltaTable:
        return DeltaTable(self.store.url(namespace), storage_options=self.store.delta_options())


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> Puts:
    return stepping.install(monkeypatch)


@pytest.fixture
def scene(tmp_path: Path, puts: Puts) -> Scene:
    return make_scene(str(tmp_path / "lake"), puts, resource(S, P), resource("pathologyassessment/x", S))


def make_scene(uri: str, puts: Puts, *more: Resource) -> Scene:
    """Two patients of one datasource, another datasource, and more."""
    clock = Clock()
    a, b = (open_client(uri, clock.patience(deadline_seconds=2)) for _ in "ab")
    datasources = [resource("datasource/d"), resource("datasource/e")]
    patients = [resource(identifier, "datasource/d", birthyear=0) for identifier in (P, Q)]
    a.resources.create([*datasources, *patients, *more])
    clock.turn(timedelta(seconds=1))
    puts.tried.clear()
    return Scene(uri, clock, puts, a, b)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Without:
    """Take a rule out of the product."""
    return lambda rule: RULES[rule](monkeypatch)


# (a) is one of the new entries our own?


def test_an_update_whose_answer_is_lost_is_done_once(scene: Scene) -> None:
    scene.puts.strike(lost_answer)
    assert scene.a.patients.update(P, {"birthyear": 1}).payload.birthyear == 1
    assert scene.years() == [0, 1]
    assert len(scene.puts.tried) == 1


def test_a_create_whose_answer_is_lost_is_done_once(scene: Scene) -> None:
    scene.puts.strike(lost_answer)
    scene.a.patients.create(resource("patient/new", "datasource/d"))
    assert scene.live() == ["patient/new", P, Q]


def test_a_delete_whose_answer_is_lost_is_done_once(scene: Scene) -> None:
    scene.puts.strike(lost_answer)
    assert scene.a.patients.delete(Q).deleted == {"patients": 1}
    assert scene.live() == [P]


def test_a_lost_request_is_tried_again(scene: Scene) -> None:
    scene.puts.strike(lost_request, lost_request)
    scene.a.patients.update(P, {"birthyear": 1})
    assert scene.years() == [0, 1]
    assert len(set(scene.puts.tried)) == 1


def test_without_looking_for_its_own_commit_a_create_that_landed_is_reported_as_failed(
    scene: Scene, without: Without
) -> None:
    without("own commit")
    scene.puts.strike(lost_answer)
    with pytest.raises(AlreadyExistsError):
        scene.a.patients.create(resource("patient/new", "datasource/d"))
    assert "patient/new" in scene.live()


def lose_the_answer_below_a_commit_of_another(scene: Scene) -> list[int | None]:
    scene.puts.strike(lost_answer)
    writer = scene.update(scene.a, birthyear=1).run_to(Step.FAILED)
    scene.b.patients.update(P, {"birthyear": 2})
    writer.finish()
    return scene.years()


def test_its_own_commit_is_found_below_that_of_another(scene: Scene) -> None:
    assert lose_the_answer_below_a_commit_of_another(scene) == [0, 1, 2]


def test_without_looking_for_its_own_commit_an_update_lands_twice_and_undoes_another(
    scene: Scene, without: Without
) -> None:
    without("own commit")
    assert lose_the_answer_below_a_commit_of_another(scene) == [0, 1, 2, 1]


# (b) do the premises still hold?


def update_both_at_once(scene: Scene) -> tuple[int | None, str | None]:
    writer = scene.update(scene.a, birthyear=1).run_to(Step.WRITTEN)
    scene.b.patients.update(P, {"sex": "F"})
    writer.finish()
    found = open_client(scene.uri).patients.query().collect().filter(identifier=P).sort("valid_from")
    return found["birthyear"].to_list(), found["sex"].to_list()


def test_two_updates_at_once_are_both_applied(scene: Scene) -> None:
    assert update_both_at_once(scene) == ([1], ["F"])
    assert scene.years() == [0, 0, 1]


@pytest.mark.parametrize("rule", ["premises", "no retries"])
def test_without_the_rule_a_resource_has_two_current_versions(scene: Scene, without: Without, rule: str) -> None:
    without(rule)
    years, sexes = update_both_at_once(scene)
    assert (sorted(years), sexes.count("F")) == ([0, 1], 1)


def test_three_writers_that_always_collide_lose_nothing(scene: Scene) -> None:
    writers = [scene.update(open_client(scene.uri, scene.clock.patience()), birthyear=n) for n in (1, 2, 3)]
    while open_writers := [w for w in writers if not w.is_done]:
        for writer in open_writers:
            writer.step()
    assert scene.years()[0] == 0
    assert sorted(scene.years()) == [0, 1, 2, 3]
    assert scene.live() == [P, Q]


def create_both_at_once(scene: Scene) -> list[str]:
    writer = Writer(lambda: scene.a.patients.create(resource("patient/new", "datasource/d"))).run_to(Step.WRITTEN)
    scene.b.patients.create(resource("patient/new", "datasource/d"))
    writer.finish()
    return scene.live()


def test_of_two_creates_at_once_the_loser_is_told(scene: Scene) -> None:
    with pytest.raises(AlreadyExistsError, match="patient/new"):
        create_both_at_once(scene)
    assert scene.live() == ["patient/new", P, Q]


def test_without_premises_a_resource_is_created_twice(scene: Scene, without: Without) -> None:
    without("premises")
    assert create_both_at_once(scene) == ["patient/new", "patient/new", P, Q]


def update_across_a_delete(scene: Scene) -> list[str]:
    writer = scene.update(scene.a, Q, birthyear=1).run_to(Step.WRITTEN)
    scene.b.patients.delete(Q)
    writer.finish()
    return scene.live()


def test_an_update_is_not_replayed_across_a_delete(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match=f"{Q}' was deleted at"):
        update_across_a_delete(scene)
    assert scene.live() == [P]


def test_without_premises_an_update_raises_the_dead(scene: Scene, without: Without) -> None:
    without("premises")
    assert update_across_a_delete(scene) == [P, Q]


def update_across_a_second_life(scene: Scene) -> list[int | None]:
    writer = scene.update(scene.a, Q, birthyear=1).run_to(Step.WRITTEN)
    scene.b.patients.delete(Q)
    scene.b.patients.create(resource(Q, "datasource/d", birthyear=7))
    writer.finish()
    return scene.years(Q)


def test_an_update_is_not_replayed_on_a_resource_that_was_made_anew(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match="created again"):
        update_across_a_second_life(scene)
    assert scene.years(Q) == [0, 7]


def test_without_looking_at_its_life_an_update_hits_another_resource(scene: Scene, without: Without) -> None:
    without("incarnation")
    assert update_across_a_second_life(scene) == [0, 7, 1]


def test_an_update_that_expects_a_version_is_not_replayed(scene: Scene) -> None:
    expected = scene.a.patients.retrieve(P).valid_from
    late = Writer(lambda: scene.a.patients.update(P, {"birthyear": 1}, expected_valid_from=expected))
    late.run_to(Step.WRITTEN)
    scene.b.patients.update(P, {"birthyear": 2}, expected_valid_from=expected)
    with pytest.raises(ConflictError, match="Nothing was written"):
        late.finish()
    assert scene.years() == [0, 2]


def delete_across_an_update(scene: Scene) -> list[str]:
    writer = Writer(lambda: scene.a.patients.delete(Q)).run_to(Step.WRITTEN)
    scene.b.patients.update(Q, {"birthyear": 1})
    writer.finish()
    return scene.live()


def test_a_delete_closes_the_version_that_came_meanwhile(scene: Scene) -> None:
    assert delete_across_an_update(scene) == [P]
    assert scene.years(Q) == [0, 1]


def test_a_delete_is_not_replayed_on_a_resource_that_was_made_anew(scene: Scene) -> None:
    writer = Writer(lambda: scene.a.patients.delete(Q)).run_to(Step.WRITTEN)
    scene.b.patients.delete(Q)
    scene.b.patients.create(resource(Q, "datasource/d", birthyear=7))
    with pytest.raises(NotFoundError, match="created again"):
        writer.finish()
    assert scene.years(Q) == [0, 7]
    assert Q in scene.live()


def test_without_premises_a_deleted_resource_lives_on(scene: Scene, without: Without) -> None:
    without("premises")
    assert delete_across_an_update(scene) == [P, Q]


def create_below_a_parent_that_goes(scene: Scene) -> list[str]:
    scene.a.pathology_specimens.create(resource("pathologyspecimen/parent", P))
    child = resource("pathologyspecimen/child", "pathologyspecimen/parent")
    writer = Writer(lambda: scene.a.pathology_specimens.create(child)).run_to(Step.WRITTEN)
    scene.b.pathology_specimens.delete("pathologyspecimen/parent")
    writer.finish()
    return scene.live("pathology_specimens")


def test_a_child_is_not_created_below_a_parent_that_went_in_the_same_table(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match="pathologyspecimen/parent' was deleted"):
        create_below_a_parent_that_goes(scene)
    assert scene.live("pathology_specimens") == [S]


def test_without_premises_a_child_outlives_its_parent(scene: Scene, without: Without) -> None:
    without("premises")
    assert create_below_a_parent_that_goes(scene) == ["pathologyspecimen/child", S]


def delete_a_parent_whose_child_comes(scene: Scene, cascade: bool) -> list[str]:
    scene.a.pathology_specimens.create(resource("pathologyspecimen/parent", P))
    writer = Writer(lambda: scene.a.pathology_specimens.delete("pathologyspecimen/parent", cascade=cascade))
    writer.run_to(Step.WRITTEN)
    scene.b.pathology_specimens.create(resource("pathologyspecimen/child", "pathologyspecimen/parent"))
    writer.finish()
    return scene.live("pathology_specimens")


def test_a_parent_whose_child_came_meanwhile_in_the_same_table_is_not_deleted(scene: Scene) -> None:
    with pytest.raises(InvalidInputError, match="live children"):
        delete_a_parent_whose_child_comes(scene, cascade=False)
    assert scene.live("pathology_specimens") == ["pathologyspecimen/child", "pathologyspecimen/parent", S]


def test_a_cascade_takes_the_child_that_came_meanwhile_in_the_same_table(scene: Scene) -> None:
    assert delete_a_parent_whose_child_comes(scene, cascade=True) == [S]


def test_an_upsert_sees_what_came_meanwhile(scene: Scene) -> None:
    frame = pl.DataFrame({"identifier": [P, Q], "birthyear": [1, 0]})
    writer = Writer(lambda: scene.a.patients.upsert(frame, missing="delete")).run_to(Step.WRITTEN)
    scene.b.patients.update(Q, {"birthyear": 5})
    report = writer.finish()
    assert (report.updated, report.unchanged, report.deleted) == (2, 0, 0)
    assert (scene.years(P), scene.years(Q)) == ([0, 1], [0, 5, 0])


# (d) the same data files, at the new version


def commit_past_a_disjoint_one(scene: Scene) -> tuple[int, int]:
    files = scene.data_files()
    writer = scene.update(scene.a, P, birthyear=1).run_to(Step.WRITTEN)
    scene.b.patients.update(Q, {"birthyear": 2})
    writer.finish()
    assert (scene.years(P), scene.years(Q)) == ([0, 1], [0, 2])
    return writer.stops.count(Step.PLANNED), scene.data_files() - files


def test_a_disjoint_commit_costs_neither_a_plan_nor_files(scene: Scene) -> None:
    assert commit_past_a_disjoint_one(scene) == (1, 2)
    base = scene.puts.tried[0] - 1
    assert scene.puts.tried == [base + 1, base + 1, base + 2]


def test_without_the_rule_a_disjoint_commit_costs_a_plan_and_files(scene: Scene, without: Without) -> None:
    without("same files")
    assert commit_past_a_disjoint_one(scene) == (2, 3)


def lose_a_log_entry(scene: Scene) -> list[int | None]:
    """While a writer waits, others update the same resource, and that entry is trimmed behind a checkpoint."""
    writer = scene.update(scene.a, sex="F").run_to(Step.WRITTEN)
    scene.b.patients.update(Q, {"birthyear": 1})
    scene.b.patients.update(P, {"birthyear": 1})
    scene.b.patients.update(Q, {"birthyear": 2})
    assert writer.step() is Step.FAILED
    write_checkpoint(scene.b._session.lake.table(table_spec(PatientPayload)))
    scene.store.delete(entry_key("patients", scene.table().version() - 1))
    writer.finish()
    rows = open_client(scene.uri).patients.query().collect().filter(identifier=P)
    return sorted(rows["birthyear"].to_list())


def test_a_log_entry_that_is_missing_means_a_new_plan(scene: Scene) -> None:
    assert lose_a_log_entry(scene) == [1]


def test_without_the_rule_a_missing_log_entry_costs_an_update(scene: Scene, without: Without) -> None:
    without("missing entry")
    assert lose_a_log_entry(scene) == [0, 1]


def test_the_first_log_entry_since_the_base_may_be_missing_too(scene: Scene) -> None:
    writer = scene.update(scene.a, sex="F").run_to(Step.WRITTEN)
    scene.b.patients.update(P, {"birthyear": 1})
    scene.b.patients.update(Q, {"birthyear": 1})
    assert writer.step() is Step.FAILED
    write_checkpoint(scene.b._session.lake.table(table_spec(PatientPayload)))
    scene.store.delete(entry_key("patients", scene.table().version() - 1))
    writer.finish()
    found = open_client(scene.uri).patients.retrieve(P)
    assert (found.payload.birthyear, found.payload.sex) == (1, "F")


def test_columns_that_others_add_meanwhile_are_accepted(scene: Scene) -> None:
    writer = scene.update(scene.a, birthyear=1).run_to(Step.WRITTEN)
    scene.table().alter.add_columns([Field("note", PrimitiveType("string"))])
    assert writer.finish().payload.birthyear == 1
    assert scene.years() == [0, 1]
    assert scene.table().schema().fields[-1].name == "note"


def test_a_file_that_others_remove_meanwhile_means_a_new_plan(scene: Scene) -> None:
    writer = scene.update(scene.a, P, birthyear=1).run_to(Step.WRITTEN)
    scene.b.patients.create(resource("patient/new", "datasource/e"))
    remove_the_files_of(scene, "datasource/e")
    writer.finish()
    assert writer.stops.count(Step.PLANNED) == 2
    assert scene.live() == [P, Q]


def remove_the_files_of(scene: Scene, datasource_id: str) -> None:
    """Erase a partition, as an erasure does: with a commit that removes files."""
    files = scene.b._session.lake.snapshot(table_spec(PatientPayload)).files.filter(datasource_id=datasource_id)
    now = int(time.time() * 1000)
    removed = [RemoveAction(f["key"], True, now, f["size"], {"datasource_id": datasource_id}) for f in files.to_dicts()]
    table = scene.table()
    table.create_write_transaction(
        removed, mode="append", schema=table.schema(), partition_by=["datasource_id"],
        commit_properties=CommitProperties(max_commit_retries=0),
    )  # fmt: skip


# the deadline, and what nobody knows


@dataclass
class Late:
    """PUTs that were sent, have no answer, and may be carried out at any later time."""

    puts: list[Put]

    def __call__(self, put: Put) -> None:
        self.puts.append(put)
        raise OSError("timed out")


def update_in_vain(scene: Scene) -> tuple[str, Late]:
    late = Late([])
    scene.puts.strike(*[late] * 1000)
    with pytest.raises(CommitUnknownError) as raised:
        scene.a.patients.update(P, {"birthyear": 1})
    scene.puts.spare()
    return raised.value.token, late


def test_no_answer_until_the_deadline_is_an_unknown_outcome_with_a_token(scene: Scene) -> None:
    token, late = update_in_vain(scene)
    assert UnknownCommit.from_text(token).namespace == "patients"
    assert len(late.puts) > 1
    assert scene.years() == [0]


def test_what_did_not_land_when_it_is_resolved_never_lands(scene: Scene) -> None:
    token, late = update_in_vain(scene)
    assert scene.b.resolve(token) is False
    for put in late.puts:
        with pytest.raises(Exception, match="commit"):
            put()
    assert scene.years() == [0]
    assert scene.b.resolve(token) is False


def test_merely_looking_would_not_be_final(scene: Scene) -> None:
    token, late = update_in_vain(scene)
    unknown = UnknownCommit.from_text(token)
    assert read_entry(scene.store, unknown.namespace, unknown.version) is None  # "not landed", it would say
    late.puts[0]()
    assert scene.years() == [0, 1]


def test_a_late_put_that_lands_before_it_is_resolved_counts(scene: Scene) -> None:
    token, late = update_in_vain(scene)
    late.puts[0]()
    scene.b.patients.update(Q, {"birthyear": 1})
    assert scene.b.resolve(token) is True
    assert scene.years() == [0, 1]


def test_the_version_of_an_unknown_commit_may_be_taken_by_another(scene: Scene) -> None:
    token, late = update_in_vain(scene)
    scene.b.patients.update(P, {"birthyear": 2})
    assert scene.b.resolve(token) is False
    with pytest.raises(Exception, match="commit"):
        late.puts[0]()
    assert scene.years() == [0, 2]


def damage_newest_entry(scene: Scene) -> None:
    """Let the newest entry of the patients say something else than was written, in words that nobody needs."""
    key = entry_key("patients", scene.b._session.lake.table(table_spec(PatientPayload)).snapshot().version)
    data = scene.store.get(key) or b""
    assert b'"author":"' in data
    scene.store.put(key, data.replace(b'"author":"', b'"author":"x'))


def test_a_race_that_was_lost_to_an_entry_that_is_damaged_since_is_planned_again(scene: Scene) -> None:
    late = scene.update(scene.a, Q, birthyear=1).run_to(Step.WRITTEN)
    scene.b.patients.update(P, {"birthyear": 2})
    damage_newest_entry(scene)
    late.finish()
    assert late.stops.count(Step.PLANNED) == 2
    assert (scene.years(P), scene.years(Q)) == ([0, 2], [0, 1])


def test_whether_a_damaged_entry_is_an_unknown_commit_is_not_guessed(scene: Scene) -> None:
    token, _ = update_in_vain(scene)
    scene.b.patients.update(P, {"birthyear": 2})
    damage_newest_entry(scene)
    with pytest.raises(StorageError, match=r"the log entry is damaged.*restore it from a backup"):
        scene.a.resolve(token)


def test_a_log_that_cannot_be_read_settles_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: Any) -> None:
        raise StorageError("no answer", uri=scene.uri, operation="read", retryable=True)

    scene.puts.strike(lost_answer)
    with monkeypatch.context() as patch:
        patch.setattr(commit, "read_entry", unreadable)
        with pytest.raises(CommitUnknownError) as raised:
            scene.a.patients.update(P, {"birthyear": 1})
    assert scene.a.resolve(raised.value.token) is True
    assert scene.years() == [0, 1]


def test_a_disk_that_is_full_fails_at_once_and_leaves_nothing_visible(scene: Scene) -> None:
    def full(put: Put) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    scene.puts.strike(full)
    with pytest.raises(StorageError, match="disk is full") as raised:
        scene.a.patients.update(P, {"birthyear": 1})
    assert not raised.value.retryable
    assert len(scene.puts.tried) == 1
    assert scene.years() == [0]


def test_an_error_that_is_permanent_does_not_hide_an_earlier_try_that_may_land(scene: Scene) -> None:
    late = Late([])

    def denied(put: Put) -> None:
        raise OSError("403 Forbidden")

    scene.puts.strike(late, *[denied] * 1000)
    with pytest.raises(CommitUnknownError):
        scene.a.patients.update(P, {"birthyear": 1})


def test_writing_that_takes_longer_than_the_deadline_is_no_failure(scene: Scene) -> None:
    """Ten million rows take minutes to plan and to write; the deadline counts from the first PUT."""
    writer = scene.update(scene.a, birthyear=1950).run_to(Step.PLANNED)
    scene.clock.elapsed += 10
    writer.run_to(Step.WRITTEN)
    scene.clock.elapsed += 10
    writer.finish()
    assert scene.years() == [0, 1950]


def test_others_that_win_until_the_deadline_are_a_conflict(scene: Scene) -> None:
    years = iter(range(1, 1000))

    def beaten(put: Put) -> None:
        scene.b.patients.update(Q, {"birthyear": next(years)})
        put()

    def undisturbed(put: Put) -> None:
        put()

    scene.puts.strike(*[beaten, undisturbed] * 1000)
    with pytest.raises(ConflictError, match="Nothing was written"):
        scene.a.patients.update(P, {"birthyear": 1})
    assert scene.years() == [0]


# across tables


def create_while_the_parent_goes(scene: Scene) -> list[str]:
    new = resource("pathologyspecimen/new", Q)
    writer = Writer(lambda: scene.a.pathology_specimens.create(new)).run_to(Step.WRITTEN)
    scene.b.patients.delete(Q)
    writer.finish()
    return scene.live("pathology_specimens")


def test_the_creator_of_an_orphan_is_told(scene: Scene) -> None:
    with pytest.raises(ConflictError, match=r"pathologyspecimen/new.*written, but the parent was deleted"):
        create_while_the_parent_goes(scene)


def test_a_child_that_went_with_its_parent_is_no_orphan(scene: Scene) -> None:
    scene.puts.strike(lost_answer)
    new = resource("pathologyspecimen/new", Q)
    writer = Writer(lambda: scene.a.pathology_specimens.create(new)).run_to(Step.FAILED)
    scene.b.patients.delete(Q, cascade=True)
    assert writer.finish().identifier == "pathologyspecimen/new"
    assert scene.live("pathology_specimens") == [S]


def upsert_while_the_parent_goes(scene: Scene) -> list[str]:
    frame = pl.DataFrame({"identifier": ["pathologyspecimen/new"], "parent_identifier": [Q]})
    writer = Writer(lambda: scene.a.pathology_specimens.upsert(frame)).run_to(Step.WRITTEN)
    scene.b.patients.delete(Q)
    writer.finish()
    return scene.live("pathology_specimens")


def test_who_upserts_an_orphan_is_told(scene: Scene) -> None:
    with pytest.raises(ConflictError, match=r"pathologyspecimen/new.*written, but the parent was deleted"):
        upsert_while_the_parent_goes(scene)


def delete_while_a_child_comes(scene: Scene) -> list[str]:
    writer = Writer(lambda: scene.a.patients.delete(Q)).run_to(Step.WRITTEN)
    scene.b.pathology_specimens.create(resource("pathologyspecimen/new", Q))
    writer.finish()
    return scene.live("pathology_specimens")


def test_who_deletes_the_parent_of_an_orphan_is_told(scene: Scene) -> None:
    with pytest.raises(ConflictError, match=r"deleted, but .* came .*: 'pathologyspecimen/new'"):
        delete_while_a_child_comes(scene)


@pytest.mark.parametrize(
    "race", [create_while_the_parent_goes, upsert_while_the_parent_goes, delete_while_a_child_comes]
)
def test_without_looking_an_orphan_is_left_in_silence(
    scene: Scene, without: Without, race: Callable[[Scene], list[str]]
) -> None:
    without("orphans")
    assert race(scene) == ["pathologyspecimen/new", S]
    assert scene.live() == [P]


def test_who_deletes_with_a_cascade_is_told_of_an_orphan_further_down(scene: Scene) -> None:
    writer = Writer(lambda: scene.a.patients.delete(P, cascade=True))
    writer.run_to(Step.WRITTEN)  # of the assessments
    writer.run_to(Step.PLANNED)  # of the specimens
    scene.b.pathology_assessments.create(resource("pathologyassessment/new", S))
    with pytest.raises(ConflictError, match="pathologyassessment/new"):
        writer.finish()


def test_what_was_made_anew_elsewhere_is_not_left_behind_by_a_cascade(scene: Scene) -> None:
    def undisturbed(put: Put) -> None:
        put()

    scene.puts.strike(undisturbed, undisturbed, lost_answer)  # the last one is the patient's
    writer = Writer(lambda: scene.a.patients.delete(P, cascade=True)).run_to(Step.FAILED)
    scene.b.resources.create([resource(P, "datasource/e"), resource(S, P)])
    assert set(writer.finish().deleted.values()) == {1}
    assert (scene.live(), scene.live("pathology_specimens")) == ([P, Q], [S])


def test_who_creates_parent_and_child_is_told_if_the_parent_is_deleted_in_between(scene: Scene) -> None:
    pair = [resource("patient/new", "datasource/d"), resource("pathologyspecimen/new", "patient/new")]
    writer = Writer(lambda: scene.a.resources.create(pair))
    writer.run_to(Step.WRITTEN)  # of the patient
    writer.run_to(Step.PLANNED)  # of the specimen
    scene.b.patients.delete("patient/new")
    with pytest.raises(ConflictError, match="pathologyspecimen/new"):
        writer.finish()


def test_who_ingests_parent_and_child_is_told_if_the_parent_is_deleted_in_between(scene: Scene) -> None:
    parents = pl.DataFrame({"identifier": ["patient/new"], "parent_identifier": ["datasource/d"]})
    children = pl.DataFrame({"identifier": ["pathologyspecimen/new"], "parent_identifier": ["patient/new"]})
    writer = Writer(lambda: ingest(scene.a, {"patients": parents, "pathology_specimens": children}))
    writer.run_to(Step.WRITTEN)  # of the patient
    writer.run_to(Step.PLANNED)  # of the specimen
    scene.b.patients.delete("patient/new")
    with pytest.raises(ConflictError, match="pathologyspecimen/new"):
        writer.finish()


def test_who_creates_a_child_is_told_if_the_parent_is_made_anew_elsewhere(scene: Scene) -> None:
    new = resource("pathologyspecimen/new", Q)
    writer = Writer(lambda: scene.a.pathology_specimens.create(new)).run_to(Step.WRITTEN)
    scene.b.patients.delete(Q)
    scene.b.patients.create(resource(Q, "datasource/e"))
    with pytest.raises(ConflictError, match="pathologyspecimen/new"):
        writer.finish()


def test_a_history_that_is_loaded_late_leaves_no_orphan(scene: Scene) -> None:
    loaded = scene.clock.now + timedelta(days=1)
    scene.clock.turn(timedelta(days=2))
    scene.a.pathology_specimens.create(resource("pathologyspecimen/child", S))
    nothing = pl.DataFrame(schema={"identifier": pl.String})
    options: dict[str, Any] = {"datasources": ["datasource/d"], "on_invalid": "skip", "valid_from": loaded}
    report = scene.a.pathology_specimens.upsert(nothing, missing="delete", cascade=True, **options)
    assert "pathologyspecimen/child" in report.rejected["identifier"]
    assert scene.live("pathology_specimens") == ["pathologyspecimen/child", S]


# valid_from


def live_through_clocks_that_go_back(scene: Scene) -> list[tuple[Any, Any]]:
    for year in (1, 2):
        scene.clock.turn(-timedelta(days=1))
        scene.a.patients.update(Q, {"birthyear": year})
    scene.clock.turn(-timedelta(days=1))
    scene.b.patients.delete(Q)
    scene.clock.turn(-timedelta(days=1))
    scene.a.patients.create(resource(Q, "datasource/d", birthyear=3))
    return [(v.valid_from, v.valid_to) for v in scene.a.patients.history(Q)]


def test_a_clock_that_goes_back_never_makes_a_version_earlier(scene: Scene) -> None:
    (a, b), (c, d), (e, f), (g, h) = live_through_clocks_that_go_back(scene)
    assert [b - a, d - c, f - e, c - b, e - d] == [TICK, TICK, TICK, 0 * TICK, 0 * TICK]
    assert (g - f, h) == (TICK, None)
    assert scene.a.patients.retrieve(Q).created_at == g


def test_without_the_rule_versions_end_before_they_begin(scene: Scene, without: Without) -> None:
    without("later valid_from")
    assert any(end and end <= begin for begin, end in live_through_clocks_that_go_back(scene))


def test_a_replayed_update_is_later_than_the_one_it_lost_to(scene: Scene) -> None:
    writer = scene.update(scene.a, birthyear=1).run_to(Step.WRITTEN)
    scene.clock.turn(timedelta(days=1))
    won = scene.b.patients.update(P, {"birthyear": 2})
    scene.clock.turn(-timedelta(days=2))
    assert writer.finish().valid_from == won.valid_from + TICK


@pytest.mark.parametrize("is_deleted", [False, True])
def test_history_is_not_loaded_over_what_is_known(scene: Scene, is_deleted: bool) -> None:
    began = scene.a.patients.update(Q, {"birthyear": 1}).valid_from
    if is_deleted:
        scene.clock.turn(timedelta(seconds=1))
        scene.a.patients.delete(Q)
        began = scene.clock.now
    frame = pl.DataFrame({"identifier": [Q], "parent_identifier": ["datasource/d"], "birthyear": [5]})
    scene.clock.turn(timedelta(days=1))
    for at in (began - TICK, began):
        report = scene.a.patients.upsert(frame, valid_from=at, on_invalid="skip")
        assert report.rejected["identifier"].to_list() == [Q]
    assert scene.a.patients.upsert(frame, valid_from=began + TICK).rejected.is_empty()
    assert scene.a.patients.retrieve(Q).valid_from == began + TICK


# after the commit


def test_a_checkpoint_that_fails_is_no_failed_write(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(table: Table, version: int) -> None:
        raise StorageError("No space left on device", uri=table.uri, operation="write to", retryable=False)

    monkeypatch.setattr(checkpoint, "CHECKPOINT_COMMITS", 1)
    monkeypatch.setattr(Table, "write_checkpoint", full)
    assert scene.a.patients.update(P, {"birthyear": 1}).payload.birthyear == 1
    assert "no checkpoint was written" in caplog.text


@pytest.mark.parametrize("hint", [b"", b"{", b"{}", b'{"version": "x"}'])
def test_a_checkpoint_hint_that_is_damaged_is_no_failed_write(scene: Scene, hint: bytes) -> None:
    scene.store.put("patients/_delta_log/_last_checkpoint", hint)
    assert open_client(scene.uri).patients.update(P, {"birthyear": 1}).payload.birthyear == 1
    assert scene.years() == [0, 1]


# the same on S3, where the faults strike the requests themselves


ENTRY = r"/_delta_log/\d{20}\.json$"


@pytest.fixture(scope="module", params=[pytest.param("moto", marks=pytest.mark.slow), "ministack"])
def proxy_process(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with Proxy(request.getfixturevalue(f"{request.param}_url")) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_process: Proxy) -> Proxy:
    proxy_process.reset()
    return proxy_process


@pytest.fixture
def on_s3(proxy: Proxy, use_endpoint: Callable[[str], None], puts: Puts) -> Scene:
    use_endpoint(proxy.endpoint_url)
    bucket = f"bucket-{uuid.uuid4()}"
    make_bucket(proxy.endpoint_url, bucket)
    scene = make_scene(f"s3://{bucket}/lake", puts)
    proxy.reset()
    return scene


@pytest.mark.parametrize("times", [1, 3])
def test_on_s3_an_update_whose_answer_is_lost_is_done_once(on_s3: Scene, proxy: Proxy, times: int) -> None:
    proxy.inject("lost_answer", Match("PUT", ENTRY, times=times))
    on_s3.a.patients.update(P, {"birthyear": 1})
    assert on_s3.years() == [0, 1]


def test_on_s3_a_create_whose_answer_is_lost_is_done_once(on_s3: Scene, proxy: Proxy) -> None:
    proxy.inject("lost_answer", Match("PUT", ENTRY))
    on_s3.a.patients.create(resource("patient/new", "datasource/d"))
    assert on_s3.live() == ["patient/new", P, Q]


def test_on_s3_a_table_whose_making_is_not_answered_is_made_once(on_s3: Scene, proxy: Proxy) -> None:
    proxy.inject("lost_answer", Match("PUT", "psa_measurements/_delta_log/0{20}.json$"))
    on_s3.a.psa_measurements.create(resource("psameasurement/m", P, value=4.5))
    assert on_s3.live("psa_measurements") == ["psameasurement/m"]


def test_on_s3_a_column_whose_adding_is_not_answered_is_added_once(on_s3: Scene, proxy: Proxy) -> None:
    proxy.inject("lost_answer", Match("PUT", ENTRY))
    newer = Namespace(open_client(on_s3.uri)._session, NewerPatient)
    newer.upsert(pl.DataFrame({"identifier": [P], "scanner": ["X"]}))
    assert newer.query().collect().filter(identifier=P)["scanner"].to_list() == ["X"]
    assert [f.name for f in on_s3.table().schema().fields].count("scanner") == 1


@pytest.mark.parametrize("fault", ["reset", 500, 503])
def test_on_s3_a_request_that_fails_is_tried_again(on_s3: Scene, proxy: Proxy, fault: Fault) -> None:
    proxy.inject(fault, Match("PUT", "patients/", times=2))
    on_s3.a.patients.update(P, {"birthyear": 1})
    assert on_s3.years() == [0, 1]


@pytest.mark.parametrize("path", [ENTRY, "datasource_id="])
def test_on_s3_a_write_that_is_denied_fails_within_seconds(on_s3: Scene, proxy: Proxy, path: str) -> None:
    proxy.inject(403, Match("PUT", path, times=None))
    began = time.monotonic()
    with pytest.raises(StorageError, match="access was denied") as raised:
        on_s3.a.patients.update(P, {"birthyear": 1})
    assert (raised.value.retryable, time.monotonic() - began < 5) == (False, True)
    proxy.reset()
    assert on_s3.years() == [0]


def test_on_s3_two_updates_at_once_are_both_applied(on_s3: Scene) -> None:
    assert update_both_at_once(on_s3) == ([1], ["F"])


def test_on_s3_a_disjoint_commit_costs_neither_a_plan_nor_files(on_s3: Scene) -> None:
    assert commit_past_a_disjoint_one(on_s3) == (1, 2)


def test_on_s3_what_did_not_land_when_it_is_resolved_never_lands(on_s3: Scene) -> None:
    token, late = update_in_vain(on_s3)
    assert on_s3.b.resolve(token) is False
    with pytest.raises(Exception, match="commit"):
        late.puts[-1]()
    assert on_s3.years() == [0]
