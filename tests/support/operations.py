"""Every public operation on one small lake with a past: what it does, and all that can be seen before and after it.

The clocks stand still, so that an operation that is run again writes the same instants, and what a lake shows can be
compared to the microsecond. The lake is made once, in a folder, and copied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from tests.support.servers import aws_environment
from tests.support.stepping import Clock
from tests.support.upkeep import resource, spec_of
from vxdata.errors import AlreadyExistsError, NotFoundError
from vxdata.lake.aws import S3Settings, find_s3_settings
from vxdata.lake.checkpoint import settle_log
from vxdata.lake.intent import Patience
from vxdata.lake.lake import FixedView, Lake
from vxdata.lake.store import open_store
from vxdata.lake.token import LakeState, UnknownCommit
from vxdata.lake.trim import trim_log
from vxdata.sdk import Client, F
from vxdata.sdk.session import Session

TYPES = ("datasources", "patients", "pathology_specimens")
SOURCE = "datasource/a b=c"
DAY, MONTHS = timedelta(days=1), timedelta(days=90)
PAPER, OTHER = "paper", "other =#"
UPSERTED = pl.DataFrame(
    {"identifier": ["patient/1", "patient/new"], "parent_identifier": [SOURCE, SOURCE], "birthyear": [1970, 1971]}
)
NEW = (resource("patient/n", SOURCE, birthyear=1980), resource("pathologyspecimen/n", "patient/n", type="RPE"))
COPIERS = 8
MOST_WAIT_SECONDS = 0.2
"""An erasure waits a minute and a half for writers that are under way: here there are none."""

Picture = dict[str, Any]
"""What can be seen of a lake: all versions of each type, the rows of the kept snapshot, what is kept."""


@dataclass(frozen=True)
class Facts:
    """What operations need to know of the lake that they work on."""

    token: str
    commit_id: str
    version: int
    told_at: datetime


@dataclass(frozen=True)
class Operation:
    """One thing that a user asks for.

    Attributes:
        act: does it with a client; returns what can be compared.
        now: what the operation's clock shows.
        is_write: whether it may change objects.
        has_lake: whether it works on the lake with a past, or on an empty place.
        is_whole: whether each table is as before or as after at any time; else it may stop between two commits of one
            table.
        goes_root_first: whether it takes parents away before their children, so that a kill may leave orphans until it
            is run again.
        finish: brings it to its end after an error, by what a user would do; by default the same again.
    """

    act: Callable[[Client, Facts], Any]
    now: Callable[[], datetime]
    is_write: bool = True
    has_lake: bool = True
    is_whole: bool = True
    goes_root_first: bool = False
    finish: Callable[[Client, Facts], Any] | None = None


def tomorrow() -> datetime:
    """The instant after the story at which the operations are done."""
    return Clock().now + 10 * DAY


def in_months() -> datetime:
    """An instant at which all files of today are old."""
    return datetime.now(UTC) + MONTHS


def connect(uri: str, endpoint_url: str | None, now: Callable[[], datetime], deadline_seconds: float = 60.0) -> Client:
    """Return a client that has seen nothing, over an endpoint, with a clock of its own."""
    store = open_store(uri)
    if endpoint_url:
        store.__dict__["_settings"] = settings_of(endpoint_url)
    patience = Patience(deadline_seconds, now=now, sleep=lambda seconds: time.sleep(min(seconds, MOST_WAIT_SECONDS)))
    lake = Lake(store, patience)
    return Client._of(Session(lake, lake, "tester"))


@cache
def settings_of(endpoint_url: str) -> S3Settings:
    """Return how to reach a test server, found once: boto3 takes its time."""
    environment = aws_environment(endpoint_url)
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "ENDPOINT_URL")
    return find_s3_settings("s3://tests", {name.lower(): environment[f"AWS_{name}"] for name in names})


# -- the lake


def tell(folder: Path) -> Facts:
    """Make the lake: updates, deletes, a re-creation, a fold, checkpoints, a kept snapshot, files for vacuum."""
    clock = Clock()
    client = connect(str(folder), None, lambda: clock.now)
    client.resources.create(
        [
            resource(SOURCE, name="A"),
            *(resource(f"patient/{n}", SOURCE, birthyear=1950 + n) for n in range(4)),
            *(resource(f"pathologyspecimen/{n}", f"patient/{n}", type="RPE") for n in (1, 3)),
            resource("pathologyspecimen/1b", "pathologyspecimen/1"),
        ]
    )
    clock.turn(DAY)
    client.patients.update("patient/1", {"birthyear": 1960})
    client.patients.delete("patient/2")
    clock.turn(DAY)
    client.patients.create(resource("patient/2", SOURCE, birthyear=2000))
    client.pathology_specimens.update("pathologyspecimen/1", {"type": "biopsy"})
    token = client.snapshots.keep(PAPER).token
    client.compact("pathology_specimens")
    clock.turn(DAY)
    client.resources.delete("patient/3", cascade=True)
    frame = pl.DataFrame({"identifier": ["patient/0", "patient/9"], "parent_identifier": SOURCE, "birthyear": [1, 9]})
    commit_id = client.patients.upsert(frame).commit_id
    client.pathology_specimens.update("pathologyspecimen/1b", {"type": "core"})
    client.snapshots.keep(OTHER)
    assert commit_id is not None
    version = client._session.lake.snapshot(spec_of("patients")).version
    return Facts(token, commit_id, version, clock.now)


def copy_to_bucket(folder: Path, uri: str, endpoint_url: str) -> None:
    """Put the objects of a lake in a folder under an address in a bucket."""
    store = connect(uri, endpoint_url, tomorrow)._session.lake.store
    keys = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(COPIERS) as pool:
        list(pool.map(lambda key: store.put(key, (folder / key).read_bytes()), keys))


def picture(client: Client) -> Picture:
    """Return all that can be seen of a lake, the same for an empty place as for an empty lake."""
    kept: list[str] = []
    try:
        kept = sorted(client.snapshots.list()["name"])
    except NotFoundError:
        assert not [key for key in client._session.lake.store.list_keys() if key.endswith(".parquet")]
        return {name: [] for name in TYPES} | {"kept": kept, PAPER: None}
    seen = {name: _rows(client, name) for name in TYPES}
    return seen | {"kept": kept, PAPER: _paper(client) if PAPER in kept else None}


def _rows(client: Client, namespace: str) -> list[dict[str, Any]]:
    query = getattr(client, namespace).query().versions()
    return query.sort("identifier", "valid_from").collect().to_dicts()  # type: ignore[no-any-return]


def _paper(client: Client) -> Any:
    listed = client.snapshots.list()
    token = listed.filter(listed["name"] == PAPER)["token"].item()
    return [_rows(client_of(client, token), name) for name in TYPES]


def client_of(client: Client, token: str) -> Client:
    """Return the client of a snapshot over the same store."""
    lake, state = client._session.lake, LakeState.from_text(token)
    view = FixedView(lake, state)
    return Client._of(replace(client._session, view=view, instant=state.instant, read_only="a client of a snapshot"))


# -- the operations


def _create(client: Client, _: Facts) -> Any:
    return client.resources.create(list(NEW))


def _create_the_rest(client: Client, _: Facts) -> None:
    for new in NEW:
        try:
            client.resources.create(new)
        except AlreadyExistsError:
            continue


def _make(client: Client, _: Facts) -> Any:
    return client.datasources.create(resource(SOURCE, name="A"))


def _upsert(client: Client, _: Facts) -> Any:
    report = client.patients.upsert(UPSERTED, batch_id="night 1")
    return report.created, report.updated, report.unchanged


def _query(client: Client, _: Facts) -> Any:
    chosen = client.pathology_specimens.query().select("patient_id")
    return client.patients.query().filter(F.identifier.is_in(chosen)).sort("identifier").collect().to_dicts()


def _restore(client: Client, _: Facts) -> Any:
    report = client.resources.restore("patient/3")
    return report.restored, report.left_out.rows()


def _revert(client: Client, facts: Facts) -> Any:
    report = client.commits.revert(facts.commit_id, reason="wrong file")
    return report.created, report.updated, report.deleted


def _compact(client: Client, _: Facts) -> Any:
    return client.compact("patients", "pathology_specimens").rounds.drop("bytes_before", "bytes_after").rows()


def _vacuum(client: Client, _: Facts) -> Any:
    return sorted(client.vacuum(dry_run=False).taken["path"].to_list())


def _verify(client: Client, _: Facts) -> Any:
    report = client.verify()
    return report.findings.rows(), report.checked


def _erase(client: Client, _: Facts) -> Any:
    return client.erase("patient/1", reason="consent withdrawn", dry_run=False).left


def _keep(client: Client, _: Facts) -> Any:
    return client.snapshots.keep("new").tables


def _settle(client: Client, _: Facts) -> Any:
    return settle_log(client._session.lake.table(spec_of("patients")))


def _trim(client: Client, _: Facts) -> Any:
    table = client._session.lake.table(spec_of("pathology_specimens"))
    return trim_log(table, in_months())


def _resolve(client: Client, facts: Facts) -> Any:
    return client.resolve(UnknownCommit("patients", facts.version + 1, "of nobody").to_text())


def _commits(client: Client, _: Facts) -> Any:
    return client.commits.list().rows()


_Write = partial(Operation, now=tomorrow)
_Read = partial(Operation, now=tomorrow, is_write=False)
OPERATIONS: Mapping[str, Operation] = {
    "make lake": _Write(_make, has_lake=False),
    "create": _Write(_create, finish=_create_the_rest),
    "update": _Write(lambda client, _: client.patients.update("patient/1", {"birthyear": 1961})),
    "delete": _Write(lambda client, _: client.resources.delete("patient/1", cascade=True).deleted),
    "upsert": _Write(_upsert),
    "restore": _Write(_restore),
    "revert": _Write(_revert, is_whole=False),
    "compact": _Write(_compact),
    "vacuum": Operation(_vacuum, in_months),
    "erase": Operation(_erase, in_months, goes_root_first=True),
    "keep": _Write(_keep),
    "drop": _Write(lambda client, _: client.snapshots.drop(OTHER)),
    "settle": _Write(_settle),
    "trim": _Write(_trim),
    "resolve": _Write(_resolve),
    "retrieve": _Read(lambda client, _: client.resources.retrieve(["patient/1", "pathologyspecimen/1b"])),
    "history": _Read(lambda client, _: client.resources.history("patient/2")),
    "query": _Read(_query),
    "as of": _Read(lambda client, facts: _rows(client.as_of(facts.told_at - 2 * DAY), "patients")),
    "snapshot": _Read(lambda client, facts: _rows(client_of(client, facts.token), "pathology_specimens")),
    "list kept": _Read(lambda client, _: client.snapshots.list().rows()),
    "list commits": _Read(_commits),
    "verify": _Read(_verify),
}
