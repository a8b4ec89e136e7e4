"""Erasure: nothing below the lake tells of the resource any more, nothing else is lost, and nobody brings it back.

Source: design of record, section 5 (b: an erasure changes premises); the order of its steps stands in `lake/erase.py`.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel, Field

from tests.conftest import BUCKETS_IN_LONG_RUNS
from tests.support import stepping
from tests.support.registered import registered
from tests.support.stepping import Puts, Step, Writer, open_client
from vxdata.catalog.table import all_specs, table_spec
from vxdata.errors import ConflictError, InvalidInputError, NotFoundError, StorageError
from vxdata.lake import aws, remains, soundness
from vxdata.lake import erase as erasing
from vxdata.lake import forget as forgetting
from vxdata.lake.checkpoint import settle_log
from vxdata.lake.datafile import write_data_files
from vxdata.lake.intent import Patience
from vxdata.lake.local_store import LocalStore
from vxdata.lake.mentions import Mentions
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.table import Table
from vxdata.lake.traces import find_traces
from vxdata.schemas import Resource
from vxdata.schemas.payload import PatientPayload, Payload, VolumePayload
from vxdata.sdk import Client, F, has_ancestor

X, OTHER = "patient/X 1=a#", "patient/X 1=a#b"
STUDY, VOLUME = "imagingstudy/X 1=a#/s", "volume/X 1=a#/s/0"
SECRET = "only this patient's words"
REASON = "consent withdrawn"
HASTE = Patience(deadline_seconds=0.2, grace_seconds=0.1)


def resource(identifier: str, parent: str | None = None, **payload: Any) -> Resource:
    return Resource(identifier=identifier, parent_identifier=parent, payload=payload)


def fill(client: Client) -> None:
    """Two patients whose names begin alike, each with a study and volumes; changes, a delete, a compaction, a keep."""
    tree = [resource("datasource/d")]
    for name in ("X 1=a#", "X 1=a#b"):
        tree += [resource(f"patient/{name}", "datasource/d", sex="M")]
        tree += [resource(f"imagingstudy/{name}/s", f"patient/{name}", study_description="prostate")]
        for n in range(2):
            near = [f"volume/X 1=a#/s/{n}", f"volume/X 1=a#b/s/{n}"]
            path = f"s3://blobs/{name}/{n}.nii.gz"
            tree.append(resource(f"volume/{name}/s/{n}", f"imagingstudy/{name}/s", path_nii=path, derived_from=near))
    client.resources.create(tree)
    client.volumes.update(VOLUME, {"series_description": SECRET}, reason=f"seen with {X}, not with {OTHER}")
    client.snapshots.keep("before")
    client.compact()
    client.volumes.update(VOLUME, {"b_value": 1.0})
    client.volumes.update(f"volume/{OTHER.removeprefix('patient/')}/s/0", {"b_value": 2.0})
    client.volumes.delete("volume/X 1=a#/s/1")
    client.snapshots.keep("after")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled lake, for tests to copy."""
    folder = tmp_path_factory.mktemp("filled") / "lake"
    fill(open_client(str(folder), HASTE))
    return folder


@pytest.fixture
def client(filled: Path, tmp_path: Path) -> Client:
    return open_client(str(shutil.copytree(filled, tmp_path / "lake")), HASTE)


def erased(client: Client, identifier: str = X) -> Any:
    return client.erase(identifier, reason=REASON, dry_run=False)


def bytes_of(client: Client) -> Iterator[tuple[str, bytes]]:
    """Everything below the lake, data files decoded: their pages are compressed."""
    store = client._session.lake.store
    for key in store.list_keys():
        data = store.get(key)
        assert data is not None
        if key.endswith(".parquet"):
            data = json.dumps(pl.read_parquet(data).to_dicts(), default=str, ensure_ascii=False).encode()
        yield key, data


def places_of(client: Client, text: str) -> list[str]:
    """Where a text stands, but for the other patient, whose name begins with this one's."""
    other = OTHER.removeprefix("patient/").encode()
    return [key for key, data in bytes_of(client) if text.encode() in data.replace(other, b"")]


@BUCKETS_IN_LONG_RUNS
def test_nothing_below_the_lake_tells_of_it(lake_uri: str) -> None:
    client = open_client(lake_uri, HASTE)
    fill(client)
    assert places_of(client, "X 1=a#")
    assert erased(client).left == ()
    assert places_of(client, "X 1=a#") == []
    assert places_of(client, SECRET) == []
    assert client.verify().ok


def test_every_version_and_every_descendant_is_gone(client: Client) -> None:
    erased(client)
    for identifier in (X, STUDY, VOLUME, "volume/X 1=a#/s/1"):
        with pytest.raises(NotFoundError, match="does not exist"):
            client.resources.history(identifier)
    assert client.volumes.query().versions().filter(has_ancestor(X)).count() == 0


def test_all_others_keep_every_version(client: Client) -> None:
    def others() -> list[pl.DataFrame]:
        queries = (client.patients.query(), client.imaging_studies.query(), client.volumes.query())
        frames = (
            q.versions().filter(~F.identifier.startswith(f"{q.as_select().spec.type_name}/X 1=a#/")) for q in queries
        )
        return [q.filter(F.identifier != X).sort("identifier", "valid_from").collect() for q in frames]

    before = others()
    erased(client)
    pointing = pl.col("derived_from").list.set_difference([VOLUME, "volume/X 1=a#/s/1"])
    for one, other in zip(before, others(), strict=True):
        expected = one.with_columns(pointing) if "derived_from" in one.columns else one
        assert expected.equals(other)


def test_a_dry_run_says_what_would_go_and_changes_nothing(client: Client) -> None:
    before = dict(bytes_of(client))
    plan = client.erase(X, reason=REASON)
    counts = {row["namespace"]: (row["resources"], row["versions"], row["rows"]) for row in plan.tables.to_dicts()}
    assert counts == {"patients": (1, 1, 1), "imaging_studies": (1, 1, 1), "volumes": (2, 4, 5)}
    assert plan.kept_snapshots == ("after", "before")
    assert plan.pointing["identifier"].to_list() == ["volume/X 1=a#b/s/0", "volume/X 1=a#b/s/1"]
    assert plan.blobs == ("s3://blobs/X 1=a#/0.nii.gz", "s3://blobs/X 1=a#/1.nii.gz")
    assert (plan.is_dry_run, plan.record_id) == (True, None)
    assert dict(bytes_of(client)) == before


def test_kept_snapshots_that_need_its_files_are_dropped_and_do_not_open(client: Client) -> None:
    token = client.snapshots.list().filter(name="before")["token"].item()
    erased(client)
    assert client.snapshots.list().is_empty()
    with pytest.raises(NotFoundError):
        Client(client.uri, snapshot=token).patients.query().collect()


def test_a_record_without_personal_data_stays(client: Client) -> None:
    report = erased(client)
    (key,) = client._session.lake.store.list_keys("_vxdata/erasures")
    record = json.loads(client._session.lake.store.get(key) or b"")
    assert record["record_id"] == report.record_id
    assert (record["author"], record["reason"], record["is_done"]) == ("tester", REASON, True)
    assert record["counts"] == {"resources": 4, "versions": 6, "rows": 7}


def test_what_was_said_of_others_in_the_audit_log_stays(client: Client) -> None:
    erased(client)
    reasons = client.commits.list("volumes")["reason"].drop_nulls().to_list()
    assert reasons == [REASON, f"seen with [erased], not with {OTHER}"]


def test_running_it_again_finds_that_it_is_done(client: Client) -> None:
    first, before = erased(client), dict(bytes_of(client))
    again = erased(client)
    assert (again.record_id, again.tables.height) == (first.record_id, 0)
    assert dict(bytes_of(client)) == before


def test_it_can_be_created_again(client: Client) -> None:
    erased(client)
    client.patients.create(resource(X, "datasource/d"))
    assert len(client.patients.history(X)) == 1
    assert erased(client).tables["resources"].to_list() == [1]


def test_a_deleted_resource_is_erased_too(client: Client) -> None:
    client.patients.delete(X, cascade=True)
    assert erased(client).left == ()
    assert places_of(client, "X 1=a#") == []


def test_what_lay_elsewhere_at_another_time_stays_as_it_was_there(client: Client) -> None:
    moved, other_study = "volume/moved", "imagingstudy/X 1=a#b/s"
    client.volumes.create(resource(moved, other_study, b_value=1.0))
    client.volumes.create(resource("volume/near", other_study, derived_from=[moved]))
    client.volumes.update(moved, {"b_value": 2.0})
    client.volumes.delete(moved)
    elsewhere = client.volumes.history(moved)
    client.volumes.create(resource(moved, STUDY))
    report = erased(client)
    assert report.left == ()
    assert report.tables.filter(pl.col("namespace") == "volumes")["resources"].item() == 3
    assert client.volumes.history(moved) == elsewhere
    assert client.volumes.retrieve("volume/near").payload.derived_from == [moved]
    assert places_of(client, "X 1=a#") == []
    assert erased(client).tables.is_empty()
    assert client.verify().ok


def test_a_file_that_no_commit_names_is_no_other_place(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    other = resource("volume/X 1=a#/new", "imagingstudy/X 1=a#b/s")
    with monkeypatch.context() as patch:
        patch.setattr(Table, "put_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            open_client(client.uri).volumes.create(other)
    client.volumes.create(resource("volume/X 1=a#/new", STUDY))
    near = resource("volume/near", "imagingstudy/X 1=a#b/s", derived_from=["volume/X 1=a#/new"])
    client.volumes.create(near, reason="made from volume/X 1=a#/new by hand")
    assert erased(client).left == ()
    assert client.volumes.retrieve("volume/near").payload.derived_from == []
    assert places_of(client, "X 1=a#") == []


def test_addresses_that_others_need_are_not_listed(client: Client) -> None:
    shared = client.volumes.retrieve(VOLUME).payload.path_nii
    client.volumes.create(resource("volume/near", "imagingstudy/X 1=a#b/s", path_nii=shared))
    blobs = erased(client).blobs
    assert shared not in blobs
    assert len(blobs) == 1


def test_a_look_never_holds_whole_rows(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    collect, widths = Snapshot.collect, []

    def counted(snapshot: Snapshot, plan: pl.LazyFrame) -> pl.DataFrame:
        found = collect(snapshot, plan)
        widths.append(found.width)
        return found

    monkeypatch.setattr(Snapshot, "collect", counted)
    assert client.erase("datasource/d", reason=REASON).tables["rows"].sum() == 13
    assert max(widths) == 3


def test_a_young_file_is_waited_for_without_reading_the_lake_each_second(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, looks = client._session.lake, []
    rows = lake.snapshot(table_spec(VolumePayload)).history_of([VOLUME]).head(1)
    (left,) = write_data_files(lake.store, "volumes", rows)
    waits: list[float] = []
    patience = Patience(now=lambda: datetime.now(UTC) + timedelta(seconds=sum(waits[1:])), sleep=waits.append)
    monkeypatch.setattr(erasing, "find_traces", lambda *args: (looks.append(1), find_traces(*args))[1])
    erased(open_client(client.uri, patience))
    assert not lake.store.exists(f"volumes/{left.key}")
    assert len(waits) > 100
    assert len(looks) < 7


def test_a_whole_datasource_leaves_no_row(client: Client) -> None:
    report = erased(client, "datasource/d")
    assert any("paths" in word for word in report.out_of_reach)
    assert report.left == ()
    for namespace in (client.datasources, client.patients, client.imaging_studies, client.volumes):
        assert namespace.query().versions().count() == 0


def places(left: tuple[str, ...]) -> list[str]:
    return [words.partition(": ")[0] for words in left]


def test_free_text_that_names_it_is_left_to_a_person(client: Client) -> None:
    client.datasources.update("datasource/d", {"description": f"without {X}."})
    client.datasources.update("datasource/d", {"description": f"also without {X}."})
    (words,) = erased(client).left
    assert words.startswith(
        "datasources.description: 2 rows of other resources name it, 1 of them current: edit these."
    )


def test_a_second_run_looks_anew_at_what_was_left(client: Client) -> None:
    near = resource("volume/near", "imagingstudy/X 1=a#b/s", series_description=f"like {X}")
    client.volumes.create(near)
    client.datasources.update("datasource/d", {"description": f"beside {VOLUME}"})
    log = Path(client.uri, "patients", "_delta_log", "notes.json")
    log.write_text(f'{{"of": "{X}"}}')
    left = ["datasources.description", "patients/_delta_log/notes.json", "volumes.series_description"]
    assert sorted(places(erased(client).left)) == left
    log.unlink()
    assert sorted(places(erased(client).left)) == [left[0], left[2]]
    erased(client, "volume/near")
    again = erased(client)
    assert places(again.left) == left[:1], "a later run cannot look for a descendant's name"
    record = json.loads(client._session.lake.store.get(f"_vxdata/erasures/{again.record_id}.json") or b"")
    assert record["left"] == list(again.left)


def test_a_second_run_makes_what_was_said_meanwhile_forgotten(client: Client) -> None:
    erased(client)
    client.volumes.update("volume/X 1=a#b/s/0", {"b_value": 9.0}, reason=f"{X} is gone")
    assert places_of(client, X)
    assert erased(client).left == ()
    assert places_of(client, X) == []


def test_a_descendant_named_in_the_log_meanwhile_is_told_until_that_is_trimmed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*args: Any) -> tuple[str, ...]:
        client.volumes.update("volume/X 1=a#b/s/0", {"b_value": 9.0}, reason=f"unlike {VOLUME}")
        return remains.find_remains(*args)

    with monkeypatch.context() as patch:
        patch.setattr(erasing, "find_remains", late)
        (words,) = erased(client).left
    assert "names no later run knows); take that out by hand" in words
    assert erased(client).left == (words,)
    assert list(remains.handed_on(client._session.lake.store, [words.replace(".json", ".gone")])) == []


def test_the_id_of_a_batch_that_names_it_stays_and_is_told_once(client: Client) -> None:
    frame = pl.DataFrame({"identifier": [X], "parent_identifier": ["datasource/d"], "birthyear": [1950]})
    client.patients.upsert(frame, batch_id=f"load of {X}")
    for _ in range(2):
        (words,) = erased(client).left
        assert words.startswith("patients: the id of a batch names it. It stays in the log")
    assert client.patients.upsert(frame, batch_id=f"load of {X}").created == 0


class Ref(BaseModel):
    who: str | None = None
    also: list[str] | None = None


class Cohort(Payload, type="cohort", namespace="cohorts", parents=("datasource",)):
    """A type with texts at any depth."""

    lead: Ref | None = Field(default=None, description="One.")
    members: list[Ref] | None = Field(default=None, description="Some.")
    notes: list[str] | None = Field(default=None, description="Texts.")


DEEP = {
    "cohorts.lead": {"lead": {"who": X}},
    "cohorts.members": {"members": [{}, {"who": "x", "also": ["y", f"with {X}"]}]},
    "cohorts.notes": {"notes": ["x", f"see {X} too"]},
}


@pytest.mark.parametrize("place", DEEP)
def test_texts_at_any_depth_are_looked_at(client: Client, place: str) -> None:
    with registered("cohort", Cohort):
        client.resources.create(resource("cohort/1", "datasource/d", **DEEP[place]))
        assert places(erased(client).left) == [place]


def test_a_license_that_names_it_is_told(client: Client) -> None:
    other = {"identifier": "patient/other", "parent_identifier": "datasource/d", "license": f"as of {X}"}
    client.patients.create(Resource(**other, payload={}))
    assert places(erased(client).left) == ["patients.license"]


def test_files_of_others_that_name_it_are_told(client: Client) -> None:
    lake, row = Path(client.uri), {"who": [f"of {X}"], "n": [1]}
    files = {
        "patients/export 1.parquet": parquet(**row),
        "patients/nested.parquet": parquet(refs=[[{"who": VOLUME}]]),
        "volumes/datasource_id=datasource%2Fd/notes/list.csv": f"name\n{X},1\n".encode(),
        "patients/export.json": json.dumps([{"ä": f"ä {X}"}]).encode(),
        "_vxdata/mine.txt": f"{X}".encode(),
        "patients/image.png": b"\x89PNG\xff",
        "patients/none.parquet": parquet(who=[OTHER]),
        "patients/none.txt": OTHER.encode(),
    }
    for name, data in files.items():
        (lake / name).parent.mkdir(exist_ok=True)
        (lake / name).write_bytes(data)
    left = erased(client).left
    assert sorted(places(left)) == sorted(list(files)[:-2])
    assert next(words for words in left if "cannot be read" in words).startswith("patients/image.png: ")
    assert all((lake / name).exists() for name in files)
    for name in list(files)[:-2]:
        (lake / name).unlink()
    assert erased(client).left == ()


def test_the_reason_of_a_kept_snapshot_is_looked_at(client: Client) -> None:
    erased(client)
    client.patients.create(resource("patient/other", "datasource/d"))
    kept = client.snapshots.keep("paper", reason=f"without {X}")
    (words,) = erased(client).left
    assert words.startswith(f"the snapshot kept at {kept.kept_at}: its name or reason names it")
    client.snapshots.keep("paper again", token=kept.token)
    client.snapshots.drop("paper")
    assert erased(client).left == ()


def test_a_writer_that_was_killed_in_a_partition_leaves_nothing(client: Client) -> None:
    for file in Path(client.uri, "patients").glob("datasource_id=*/*.parquet"):
        file.with_name(f".{'0' * 32}.tmp").write_bytes(file.read_bytes()[:-9])
    assert erased(client).left == ()
    assert not list(Path(client.uri).glob("**/*.tmp"))


# Beside others


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> Puts:
    monkeypatch.setattr(erasing, "rewrite", stepping._stepped_rewrite)
    return stepping.install(monkeypatch)


def test_a_writer_that_raced_it_does_not_bring_a_row_back(client: Client, puts: Puts) -> None:
    other = open_client(client.uri, HASTE)
    writer = Writer(lambda: other.volumes.update(VOLUME, {"b_value": 5.0})).run_to(Step.WRITTEN)
    eraser = Writer(lambda: erased(client))
    while "volumes" not in told(eraser, client):
        eraser.step()
    with pytest.raises(NotFoundError):
        writer.finish()
    assert eraser.finish().left == ()
    assert places_of(client, "X 1=a#") == []


def told(eraser: Writer, client: Client) -> str:
    """What was erased so far: the namespaces whose newest commit is of the erasure."""
    newest = client.commits.list().filter(operation="erase")
    return " ".join(newest["namespace"])


def test_without_premises_a_row_comes_back(client: Client, puts: Puts, monkeypatch: pytest.MonkeyPatch) -> None:
    from vxdata.lake import commit

    monkeypatch.setattr(commit, "_breaks", lambda *_: False)
    monkeypatch.setattr(commit._Put, "_is_stale", lambda *_: False)
    other = open_client(client.uri)
    writer = Writer(lambda: other.volumes.update(VOLUME, {"b_value": 5.0})).run_to(Step.WRITTEN)
    eraser = Writer(lambda: erased(client))
    while "volumes" not in told(eraser, client):
        eraser.step()
    writer.finish()
    assert writer.landed, "a row of the erased resource is in the log again"


def test_rows_that_come_between_plan_and_commit_are_taken_too(client: Client, puts: Puts) -> None:
    eraser = Writer(lambda: erased(client))
    eraser.run_to(Step.WRITTEN)  # the patients
    late = resource("volume/X 1=a#/s/late", STUDY)
    open_client(client.uri, HASTE).volumes.create(late)
    assert eraser.finish().left == ()
    assert places_of(client, "X 1=a#") == []


def test_a_child_that_was_planned_before_and_lands_late_is_taken_too(client: Client, puts: Puts) -> None:
    other = open_client(client.uri, HASTE)
    writer = Writer(lambda: other.psa_measurements.create(resource("psameasurement/late", X, value=1.0)))
    writer.run_to(Step.WRITTEN)
    patient = lambda wait: writer.finish()  # noqa: E731  # while the erasure waits for writers under way
    slow = Patience(0.2, 0.1, sleep=lambda seconds: swallow(patient, seconds))
    assert erased(open_client(client.uri, slow)).left == ()
    assert other.psa_measurements.query().versions().count() == 0


def swallow(call: Callable[[float], Any], seconds: float) -> None:
    """The writer is told that its parent is gone: that is its own affair."""
    try:
        call(seconds)
    except ConflictError as error:
        assert "parent was deleted" in str(error)  # noqa: PT017  # it may be called more than once


@pytest.mark.parametrize("stage", ["before the log", "before the files"])
def test_a_keep_beside_it_never_ends_with_files_missing(
    client: Client, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    token, (module, name) = client.snapshot().token, STAGES[stage]
    step = getattr(module, name)

    def keep_before(*args: Any, **options: Any) -> Any:
        with pytest.raises(ConflictError, match="a vacuum or an erasure is deleting 1 files of this state of patients"):
            open_client(client.uri).snapshots.keep("late", token=token)
        return step(*args, **options)

    monkeypatch.setattr(module, name, keep_before)
    assert erased(client).left == ()
    assert client.snapshots.list().is_empty()
    assert not list(client._session.lake.store.list_keys("_vxdata/vacuum"))
    assert client.verify().ok


def test_the_wait_for_writers_is_as_long_as_a_put_can_take() -> None:
    assert Patience().grace_seconds >= 2 * aws._TIMEOUT_SECONDS + aws._RETRY_SECONDS


def test_uncommitted_files_are_deleted_once_their_writers_cannot_commit_them(client: Client) -> None:
    lake = client._session.lake
    base = lake.snapshot(table_spec(VolumePayload))
    rows = base.history_of([VOLUME]).head(1)
    (left,) = write_data_files(lake.store, "volumes", rows)
    erased(client)
    assert not lake.store.exists(f"volumes/{left.key}")


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pl.DataFrame(columns).write_parquet(sink)
    return sink.getvalue()


UNREADABLE = {"empty": b"", "garbage": b"hello", "wrong_types": parquet(identifier=[1, 2])}


def test_dead_files_that_cannot_be_read_are_named_and_stop_nothing(client: Client) -> None:
    folder = next(Path(client.uri, "patients").glob("datasource_id=*"))
    junk = [folder / f"{name}.parquet" for name in UNREADABLE]
    for path, data in zip(junk, UNREADABLE.values(), strict=True):
        path.write_bytes(data)
    keys = sorted(path.relative_to(client.uri).as_posix() for path in junk)
    told = [words for words in client.erase(X, reason=REASON).out_of_reach if "cannot be read" in words]
    assert sorted(words.partition(": it cannot be read")[0] for words in told) == keys
    assert sorted(places(erased(client).left)) == keys
    for path in junk:
        path.unlink()  # it was there until now
    assert places_of(client, "X 1=a#") == []


def test_a_dead_file_that_is_cut_is_named_once(client: Client) -> None:
    whole = next(Path(client.uri, "patients").glob("datasource_id=*/*.parquet"))
    cut = whole.with_name(f"abc-{'0' * 64}.parquet")
    cut.write_bytes(whole.read_bytes()[:500])
    assert places(erased(client).left) == [cut.relative_to(client.uri).as_posix()]


def test_a_live_file_that_cannot_be_read_is_named_and_nothing_is_changed(client: Client) -> None:
    (key,) = client._session.lake.snapshot(table_spec(PatientPayload)).files["key"].to_list()[:1]
    Path(client.uri, "patients", key).write_bytes(b"hello")
    with pytest.raises(StorageError, match=r"patients/datasource_id=.* cannot be read"):
        erased(client)
    assert not list(client._session.lake.store.list_keys("_vxdata/erasures"))


def test_what_killed_commits_left_half_written_goes(client: Client) -> None:
    log = Path(client.uri, "volumes", "_delta_log")
    version, entry = max(int(entry.stem) for entry in log.glob("*.json")), next(log.glob("*1.json")).read_bytes()
    for name in (f"{version + 1:020d}.json#{{}}", "_commit_{}.json.tmp", ".{}.tmp"):
        (log / name.format(1)).write_bytes(entry)
        (log / name.format(2)).write_bytes(entry[:30])
    assert len(temporary_files(log)) == 6
    assert erased(client).left == ()
    assert temporary_files(log) == []


def temporary_files(log: Path) -> list[str]:
    return [path.name for path in log.iterdir() if path.name.endswith(".tmp") or "#" in path.name]


def test_older_checkpoints_go_with_their_checksums(client: Client) -> None:
    client.patients.update(X, {"birthyear": 1950})
    before = settle_log(client._session.lake.table(table_spec(PatientPayload)))
    assert before is not None
    assert erased(client).left == ()
    kept = {path.name[:20] for path in Path(client.uri, "patients", "_delta_log").glob("*.checkpoint.parquet")}
    assert {path.stem for path in Path(client.uri, "_vxdata", "checkpoints", "patients").iterdir()} == kept
    assert f"{before:020d}" not in kept


def test_a_commit_that_lands_while_the_log_forgets_keeps_its_statistics(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, forget_entries, list_keys = Client(client.uri), forgetting._forget_entries, LocalStore.list_keys
    landed: list[str] = []

    def list_then_commit(store: LocalStore, prefix: str = "") -> Iterator[str]:
        yield from list(list_keys(store, prefix))
        if prefix == "patients" and not landed:
            landed.append("patient/late")
            other.patients.create(Resource(identifier="patient/late", parent_identifier="datasource/d"))

    def forget(*arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "list_keys", list_then_commit)
            forget_entries(*arguments)

    monkeypatch.setattr(forgetting, "_forget_entries", forget)
    assert erased(client).left == ()
    entry = sorted(Path(client.uri, "patients", "_delta_log").glob("*.json"))[-1].read_text()
    assert landed == ["patient/late"]
    assert "patient/late" in entry


def test_what_nobody_can_read_in_a_log_is_told(client: Client) -> None:
    log = Path(client.uri, "volumes", "_delta_log")
    for name, data in {".DS_Store": b"\0\xff", "notes.json": b"[1]", "x.parquet": b"PAR1", "y.txt": b"{"}.items():
        (log / name).write_bytes(data)
    told = sorted(words.partition(": it cannot be read")[0] for words in erased(client).left)
    assert told == [f"volumes/_delta_log/{name}" for name in (".DS_Store", "x.parquet", "y.txt")]


STAGES = {
    "after the record": (erasing, "_take_out"),
    "before waiting": (erasing, "_settle"),
    "before forgetting": (erasing, "forget"),
    "before the log": (forgetting, "_forget_entries"),
    "before kept snapshots": (forgetting, "drop"),
    "before the files": (erasing, "_delete_files"),
    "before the last look": (erasing, "find_remains"),
}


SHORT = ("before waiting", "before the log", "before the files")


@pytest.mark.parametrize("stage", [s if s in SHORT else pytest.param(s, marks=pytest.mark.slow) for s in STAGES])
def test_a_kill_anywhere_is_mended_by_running_it_again(
    client: Client, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    killed_before(client, monkeypatch, stage)
    again = open_client(client.uri, HASTE)
    assert erased(again).left == ()
    assert (places_of(again, "X 1=a#"), places_of(again, SECRET)) == ([], [])
    assert again.verify().ok


def killed_before(client: Client, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*STAGES[stage], killed)
        with pytest.raises(KeyboardInterrupt):
            erased(client)


def test_a_vacuum_spares_what_a_killed_erasure_has_to_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_before(client, monkeypatch, "before waiting")
    later = open_client(client.uri, Patience(now=lambda: datetime.now(UTC) + timedelta(days=9)))
    later.vacuum(dry_run=False)
    assert later.verify().findings.filter(kind="erasure-not-done").height == 1
    assert erased(client).kept_snapshots == ("after", "before")
    assert (places_of(client, "X 1=a#"), places_of(client, SECRET)) == ([], [])
    later.vacuum(dry_run=False)
    assert later.verify().findings.is_empty()


def test_a_second_run_whose_files_are_gone_still_makes_all_checkpoints_forget(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.snapshots.drop("before")
    client.snapshots.drop("after")
    killed_before(client, monkeypatch, "before waiting")
    assert [key for key in places_of(client, SECRET) if key.endswith(".checkpoint.parquet")]
    for found in (found for table in erasing._find(client._session.lake, X).tables for found in table.dead):
        client._session.lake.store.delete(found.key)
    erased(client)
    assert places_of(client, SECRET) == []


def test_a_warm_client_goes_on(client: Client) -> None:
    warm = open_client(client.uri, HASTE)
    warm.volumes.query().collect()
    erased(client)
    assert warm.volumes.query().filter(has_ancestor(X)).count() == 0
    warm.patients.create(resource("patient/new", "datasource/d"))
    assert client.patients.retrieve("patient/new").identifier == "patient/new"


def test_a_damaged_file_stops_it_and_nothing_is_lost(client: Client) -> None:
    (key,) = [k for k in client._session.lake.store.list_keys("patients") if "datasource_id" in k][:1]
    path = Path(client.uri, key)
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(StorageError):
        erased(client)


# What it says, and refuses


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        (X, True),
        (f"of {X}.", True),
        (f"({X})", True),
        (OTHER, False),
        (f"my{X}", False),
        (f"{X}/1", False),
        ("patient/X", False),
    ],
)
def test_a_text_tells_of_a_resource_if_it_names_it_and_no_longer_name(text: str, tells: bool) -> None:
    assert Mentions(frozenset({X}), {}).are_in(text) is tells


def test_what_cannot_be_erased_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file of the lake tells of it"):
        client.erase("patient/unknown", reason=REASON)
    with pytest.raises(InvalidInputError, match="must not name the resource"):
        client.erase(X, reason=f"{X} wants it", dry_run=False)
    with pytest.raises(InvalidInputError, match="a reason is kept"):
        client.erase(X, reason=" ")
    with pytest.raises(InvalidInputError, match="no identifier"):
        client.erase("patient", reason=REASON)
    with pytest.raises(InvalidInputError, match="read-only"):
        client.snapshot().erase(X, reason=REASON)
    with pytest.raises(NotFoundError, match="no lake"):
        Client(tmp_path / "nothing").erase(X, reason=REASON)


def test_what_others_delete_while_the_logs_are_checked_is_no_damage(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, original, gone = client._session.lake.store, soundness.to_log_files, []

    def listed_before(objects: Any) -> Any:
        log = original(objects)
        if not gone and log.entries:
            gone.append(min(log.entries.values(), key=lambda entry: entry.key))
            store.delete(gone[0].key)
        return log

    for spec in all_specs():
        if client._session.lake.snapshot(spec).files.height:
            settle_log(client._session.lake.table(spec))
    monkeypatch.setattr(soundness, "to_log_files", listed_before)
    assert not erased(client).left
    assert gone
