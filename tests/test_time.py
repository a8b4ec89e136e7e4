"""Time: clients of the past, snapshots and their tokens, and what stays the same whatever is written later."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import BUCKETS_IN_LONG_RUNS
from vxdata.errors import InvalidInputError, NotFoundError, VxDataError
from vxdata.schemas import Resource
from vxdata.sdk import Client, F

TICK = timedelta(microseconds=1)
SOURCE = Resource(identifier="datasource/a")
Verb = Callable[[Client], Any]


def patient(name: str = "1", **payload: Any) -> Resource:
    return Resource(identifier=f"patient/{name}", parent_identifier="datasource/a", payload=payload)


def tell(uri: str | Path) -> tuple[Client, list[datetime]]:
    """Tell a story in a new lake: a patient is made, changed, deleted, made again.

    Returns:
        The client, and the instants of the four chapters.
    """
    client = Client(uri)
    made = client.resources.create([patient(birthyear=1), SOURCE])[0].valid_from
    changed = client.patients.update("patient/1", {"birthyear": 2}).valid_from
    client.patients.delete("patient/1")
    deleted = client.patients.history("patient/1")[-1].valid_to
    again = client.patients.create(patient(birthyear=3)).valid_from
    assert deleted is not None
    return client, [made, changed, deleted, again]


def seen(client: Client) -> list[int | None]:
    """Return the birth years of the patients that a client sees."""
    return client.patients.query().sort("identifier").collect()["birthyear"].to_list()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Client, list[datetime]]:
    """The story in a lake that the tests only read (or fail to write)."""
    return tell(tmp_path_factory.mktemp("told") / "lake")


@pytest.fixture
def story(told: tuple[Client, list[datetime]], tmp_path: Path) -> tuple[Client, list[datetime]]:
    """The story in a lake of the test's own."""
    return Client(shutil.copytree(told[0].uri, tmp_path / "lake")), told[1]


# -- the past


@BUCKETS_IN_LONG_RUNS
def test_a_version_is_seen_from_its_start_until_just_before_its_end(lake_uri: str) -> None:
    client, (made, changed, deleted, again) = tell(lake_uri)
    answers = {
        made - TICK: [],
        made: [1],
        changed - TICK: [1],
        changed: [2],
        deleted - TICK: [2],
        deleted: [],
        again - TICK: [],
        again: [3],
        datetime(9999, 1, 1, tzinfo=UTC): [3],
    }
    reader = Client(lake_uri)
    assert {instant: seen(reader.as_of(instant)) for instant in answers} == answers
    queries = {instant: reader.patients.query().as_of(instant).collect()["birthyear"].to_list() for instant in answers}
    assert queries == answers
    assert seen(client) == [3]


def test_retrieve_and_history_see_the_past_too(story: tuple[Client, list[datetime]]) -> None:
    client, (made, changed, deleted, again) = story
    assert client.as_of(changed - TICK).patients.retrieve("patient/1").payload.birthyear == 1
    assert client.as_of(deleted - TICK).patients.retrieve("patient/1").valid_to is None
    assert [version.valid_to for version in client.as_of(deleted - TICK).patients.history("patient/1")] == [
        changed,
        None,
    ]
    assert [version.valid_to for version in client.as_of(deleted).patients.history("patient/1")] == [changed, deleted]
    assert len(client.as_of(again).patients.history("patient/1")) == 3
    for instant in (made - TICK, deleted, again - TICK):
        with pytest.raises(NotFoundError, match="patient/1"):
            client.as_of(instant).patients.retrieve("patient/1")
    with pytest.raises(NotFoundError):
        client.as_of(made - TICK).patients.history("patient/1")


def test_what_was_deleted_later_is_not_called_deleted(story: tuple[Client, list[datetime]]) -> None:
    client, (made, _, deleted, _) = story
    with pytest.raises(NotFoundError, match="does not exist"):
        client.as_of(made - TICK).patients.retrieve("patient/1")
    with pytest.raises(NotFoundError, match=re.escape(f"was deleted at {deleted.isoformat()}")):
        client.as_of(deleted).patients.retrieve("patient/1")


def test_created_at_is_the_start_of_the_first_version_since_the_last_delete(
    story: tuple[Client, list[datetime]],
) -> None:
    client, (made, changed, _, again) = story
    assert [version.created_at for version in client.patients.history("patient/1")] == [made, made, again]
    changed_again = client.patients.update("patient/1", {"sex": "M"})
    assert changed_again.created_at == again < changed_again.valid_from
    assert client.as_of(changed).patients.retrieve("patient/1").created_at == made


@pytest.mark.parametrize(
    "write",
    [
        lambda instant: instant.isoformat(),
        lambda instant: instant.replace(tzinfo=None),
        lambda instant: instant.astimezone(timezone(timedelta(hours=5, minutes=30))),
        lambda instant: instant.astimezone(timezone(timedelta(hours=-8))).isoformat(),
        lambda instant: f" {instant.replace(tzinfo=None).isoformat(' ')} ",
    ],
)
def test_an_instant_may_be_written_in_any_form(
    story: tuple[Client, list[datetime]], write: Callable[[datetime], Any]
) -> None:
    client, (_, changed, _, _) = story
    assert seen(client.as_of(write(changed))) == [2]
    assert client.patients.query().as_of(write(changed - TICK)).collect()["birthyear"].to_list() == [1]


def test_a_day_means_its_first_instant(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/a"]}), valid_from="2020-02-02T00:00:00Z")
    assert client.as_of("2020-02-02").datasources.query().count() == 1
    assert client.as_of(date(2020, 2, 2)).datasources.query().count() == 1
    assert client.as_of(date(2020, 2, 1)).datasources.query().count() == 0


@pytest.mark.parametrize(
    "instant", ["then", "", None, 7, True, "2024-13-01", ["2024-01-01"], "9999-12-31T23:59:59-01:00"]
)
def test_what_is_no_instant_is_refused(tmp_path: Path, instant: Any) -> None:
    client = Client(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="instant"):
        client.as_of(instant)
    with pytest.raises(InvalidInputError, match="instant"):
        client.patients.query().as_of(instant)


def test_a_client_of_the_past_looks_no_further(story: tuple[Client, list[datetime]]) -> None:
    client, (made, changed, _, _) = story
    past = client.as_of(changed)
    assert past.patients.query().as_of(made).collect()["birthyear"].to_list() == [1]
    with pytest.raises(InvalidInputError, match="as of"):
        past.patients.query().as_of(changed + TICK)
    assert seen(past.as_of(made)) == [1]
    with pytest.raises(InvalidInputError, match="as of"):
        past.as_of(changed + TICK)


def test_loading_history_changes_the_past_and_nothing_else(story: tuple[Client, list[datetime]]) -> None:
    client, (made, *_) = story
    assert seen(client.as_of("2005-06-01")) == []
    frame = pl.DataFrame({"identifier": ["patient/old"], "parent_identifier": ["datasource/a"], "birthyear": [9]})
    client.patients.upsert(frame, valid_from="2005-01-01")
    assert seen(client.as_of("2005-06-01")) == [9]
    assert seen(client.as_of(made)) == [1, 9]


def test_the_present_moves_on_and_the_past_does_not(story: tuple[Client, list[datetime]]) -> None:
    client, (_, changed, _, _) = story
    past = client.as_of(changed)
    before = past.patients.query().collect()
    client.patients.update("patient/1", {"birthyear": 4})
    client.resources.delete("datasource/a", cascade=True)
    assert past.patients.query().collect().equals(before)
    assert Client(client.uri).as_of(changed).patients.query().collect().equals(before)


# -- snapshots


@BUCKETS_IN_LONG_RUNS
def test_a_snapshot_gives_the_same_rows_whatever_is_written_later(lake_uri: str) -> None:
    client, _ = tell(lake_uri)
    fixed = client.snapshot()
    before = (seen(fixed), fixed.patients.history("patient/1"), fixed.volumes.query().count())
    client.patients.update("patient/1", {"birthyear": 4})
    client.patients.create(patient("2", birthyear=5))
    client.resources.create([Resource(identifier="imagingstudy/1", parent_identifier="patient/2")])
    assert (seen(fixed), fixed.patients.history("patient/1"), fixed.volumes.query().count()) == before
    assert fixed.imaging_studies.query().count() == 0
    assert seen(client) == [4, 5]


def test_a_token_opens_the_same_state_in_another_client(lake_uri: str) -> None:
    client, (_, changed, _, _) = tell(lake_uri)
    token = client.snapshot().token
    client.resources.delete("datasource/a", cascade=True)
    again = Client(lake_uri, snapshot=token)
    assert seen(again) == [3]
    assert again.patients.retrieve("patient/1").payload.birthyear == 3
    assert seen(again.as_of(changed)) == [2]
    assert again.token == token
    assert seen(Client(lake_uri)) == []


def test_a_token_is_a_short_text_that_fits_anywhere(story: tuple[Client, list[datetime]]) -> None:
    client, _ = story
    for n in range(20):
        client.patients.update("patient/1", {"birthyear": n})
    token = client.snapshot().token
    assert re.fullmatch(r"[A-Za-z0-9._-]+", token)
    assert len(token) < 200
    assert client.snapshot().token == token


def test_a_snapshot_does_not_see_loaded_history(story: tuple[Client, list[datetime]]) -> None:
    client, _ = story
    fixed = client.snapshot()
    frame = pl.DataFrame({"identifier": ["patient/old"], "parent_identifier": ["datasource/a"], "birthyear": [9]})
    client.patients.upsert(frame, valid_from="2005-01-01")
    assert seen(fixed.as_of("2005-06-01")) == []
    assert seen(client.as_of("2005-06-01")) == [9]


def test_a_snapshot_of_a_lake_with_one_table_has_no_others(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.create(SOURCE)
    token = client.snapshot().token
    client.patients.create(patient())
    again = Client(client.uri, snapshot=token)
    assert (again.datasources.query().count(), again.patients.query().count()) == (1, 0)
    with pytest.raises(NotFoundError, match="patient/1"):
        again.patients.retrieve("patient/1")


def test_an_ordinary_client_has_no_token(story: tuple[Client, list[datetime]]) -> None:
    with pytest.raises(InvalidInputError, match="snapshot"):
        story[0].token  # noqa: B018


def test_a_token_of_another_lake_is_refused(make_lake_uri: Callable[[], str]) -> None:
    one, other = Client(make_lake_uri()), Client(make_lake_uri())
    one.datasources.create(SOURCE)
    other.datasources.create(SOURCE)
    with pytest.raises(InvalidInputError, match="another lake"):
        Client(other.uri, snapshot=one.snapshot().token)


def test_a_token_where_no_lake_is_finds_nothing(story: tuple[Client, list[datetime]], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no lake"):
        Client(tmp_path / "none", snapshot=story[0].snapshot().token)


@pytest.mark.parametrize(
    "token", ["", "vxs1.", "vxs1.AAAA", "garbage", "vxs1.eJwrSS0uAQAEXQHB", "é", 7, b"vxs1.", "vxs1." + "A" * 10_000]
)
def test_garbage_is_no_token(story: tuple[Client, list[datetime]], token: Any) -> None:
    with pytest.raises(InvalidInputError, match="token"):
        Client(story[0].uri, snapshot=token)


@pytest.mark.parametrize("cut", range(4))
def test_a_damaged_token_is_refused(story: tuple[Client, list[datetime]], cut: int) -> None:
    token = story[0].snapshot().token
    middle = len(token) // 2 + cut
    for damaged in (token[:-3], token[:middle] + token[middle + 1 :], token.swapcase(), token[5:]):
        with pytest.raises(VxDataError):
            Client(story[0].uri, snapshot=damaged).patients.query().collect()


def test_a_state_that_is_gone_is_not_found(story: tuple[Client, list[datetime]]) -> None:
    client, _ = story
    token = client.snapshot().token
    client.patients.update("patient/1", {"birthyear": 4})
    log = sorted(Path(client.uri, "patients", "_delta_log").glob("*.json"))
    for entry in log[1:-1]:
        entry.unlink()
    with pytest.raises(NotFoundError, match="patients"):
        Client(client.uri, snapshot=token).patients.query().collect()


def test_a_state_of_which_a_file_is_gone_is_an_error_of_ours(story: tuple[Client, list[datetime]]) -> None:
    client, _ = story
    token = client.snapshot().token
    for file in Path(client.uri, "patients").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(VxDataError, match=r"verify|not there any more"):
        Client(client.uri, snapshot=token).patients.query().collect()


# -- read-only

WRITES: dict[str, Verb] = {
    "create": lambda client: client.patients.create(patient("2")),
    "create nothing": lambda client: client.resources.create([]),
    "update": lambda client: client.patients.update("patient/1", {"sex": "M"}),
    "update nothing": lambda client: client.patients.update("patient/1", {}),
    "delete": lambda client: client.patients.delete("patient/1"),
    "upsert": lambda client: client.patients.upsert(pl.DataFrame({"identifier": ["patient/1"], "sex": ["M"]})),
    "upsert nothing": lambda client: client.patients.upsert(pl.DataFrame(schema={"identifier": pl.String})),
}
VIEWS: dict[str, Callable[[Client], Client]] = {
    "as_of": lambda client: client.as_of(datetime.now(UTC)),
    "snapshot": Client.snapshot,
    "token": lambda client: Client(client.uri, snapshot=client.snapshot().token),
    "snapshot as_of": lambda client: client.snapshot().as_of(datetime.now(UTC)),
    "as_of snapshot": lambda client: client.as_of(datetime.now(UTC)).snapshot(),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("write", WRITES)
def test_a_client_of_a_fixed_state_refuses_to_write(told: tuple[Client, list[datetime]], view: str, write: str) -> None:
    client, _ = told
    fixed, before = VIEWS[view](client), sorted(Path(client.uri).rglob("*"))
    with pytest.raises(InvalidInputError, match="read-only"):
        WRITES[write](fixed)
    assert sorted(Path(client.uri).rglob("*")) == before
    assert fixed.patients.query().filter(F.birthyear == 3).count() == 1


def test_a_snapshot_of_a_client_of_the_past_stays_in_the_past(story: tuple[Client, list[datetime]]) -> None:
    client, (_, changed, _, _) = story
    fixed = client.as_of(changed).snapshot()
    assert seen(fixed) == [2]
    assert seen(Client(client.uri, snapshot=fixed.token)) == [2]


def test_the_past_of_a_snapshot_opens_again_as_it_was(story: tuple[Client, list[datetime]]) -> None:
    client, (_, changed, _, _) = story
    fixed = client.snapshot().as_of(changed)
    assert seen(Client(client.uri, snapshot=fixed.token)) == seen(fixed) == [2]


def test_a_snapshot_of_a_snapshot_is_the_same_state(story: tuple[Client, list[datetime]]) -> None:
    client, _ = story
    fixed = client.snapshot()
    client.patients.update("patient/1", {"birthyear": 4})
    assert fixed.snapshot().token == fixed.token
    assert seen(fixed.snapshot()) == [3]
