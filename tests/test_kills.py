"""Kill -9 before and after each request: the next process finds the old or the new state, finishes, and writes."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import TellFigures
from tests.support.operations import OPERATIONS, SOURCE, Facts, tell, tomorrow
from tests.support.points import LocalRange, Range
from tests.support.proxy import Fault, Match, Proxy
from tests.support.servers import Server
from tests.support.victim import Victim

MINUTES = float(os.environ.get("VXDATA_TORTURE_MINUTES", "30"))
WRITES = [name for name, operation in OPERATIONS.items() if operation.is_write]
STOPS: dict[str, Fault] = {"before": "hang", "after": "withhold"}
Told = tuple[Path, Facts]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("kills") / "lake"
    return folder, tell(folder)


@pytest.fixture(scope="module")
def proxy(ministack_server: Server) -> Iterator[Proxy]:
    with Proxy(ministack_server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def on_s3(ministack_server: Server, told: Told, proxy: Proxy) -> Range:
    return Range(*told, proxy, ministack_server.endpoint_url)


@pytest.fixture(scope="module")
def on_disk(told: Told, tmp_path_factory: pytest.TempPathFactory) -> LocalRange:
    return LocalRange(*told, tmp_path_factory.mktemp("places"))


@pytest.fixture(scope="module")
def victims() -> Iterator[deque[Victim]]:
    """Two victims that are ready, or nearly so."""
    waiting = deque(Victim() for _ in range(2))
    yield waiting
    for victim in waiting:
        victim.kill()


def killed_at(
    at: Range, proxy: Proxy, victim: Victim, name: str, nth: int, when: str, without: str | None = None
) -> str | None:
    """Kill a process before or after its n-th request is done; return what is wrong afterwards."""
    uri = at.place_for(OPERATIONS[name])
    proxy.reset()
    proxy.inject(STOPS[when], Match(nth=nth))
    victim.send(name, uri, proxy.endpoint_url, at.facts, without)
    victim.wait_until_stopped(proxy)
    victim.kill()
    proxy.reset()
    return at.aftermath(name, uri) or write_on(at, uri)


def killed_within(at: LocalRange, victim: Victim, name: str, seconds: float) -> str | None:
    """Kill a process after some seconds of its operation; return what is wrong afterwards."""
    uri = at.place_for(OPERATIONS[name])
    victim.send(name, uri, None, at.facts)
    time.sleep(seconds)
    victim.kill()
    return at.aftermath(name, uri) or write_on(at, uri)


def write_on(at: Range, uri: str) -> str | None:
    """Write to a lake, and look whether it is there for the next."""
    name = uuid.uuid4().hex
    at.opened(uri, tomorrow).datasources.upsert(pl.DataFrame({"identifier": [SOURCE], "name": [name]}))
    seen = at.opened(uri, tomorrow).datasources.retrieve(SOURCE).payload.name
    return None if seen == name else f"after a write of {name} it shows {seen}"


def next_of(victims: deque[Victim]) -> Victim:
    victims.append(Victim())
    return victims.popleft()


SAMPLE = ["make lake", "delete", "compact", "vacuum", "erase", "settle"]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_process_that_is_killed_at_a_request_leaves_the_old_or_the_new_state(
    on_s3: Range, proxy: Proxy, victims: deque[Victim], name: str
) -> None:
    chance = random.Random(name)
    nth, when = chance.choice(on_s3.numbers(name)), chance.choice(sorted(STOPS))
    assert killed_at(on_s3, proxy, next_of(victims), name, nth, when) is None


@pytest.mark.parametrize("name", ["compact"])
def test_a_process_that_is_killed_at_any_moment_leaves_the_old_or_the_new_state(
    on_disk: LocalRange, victims: deque[Victim], name: str
) -> None:
    seconds = random.Random(name).uniform(0, on_disk.seconds(name))
    assert killed_within(on_disk, next_of(victims), name, seconds) is None


def test_an_operation_that_committed_its_rows_one_by_one_would_be_found_by_half(
    on_s3: Range, proxy: Proxy, victims: deque[Victim]
) -> None:
    nth = on_s3.number_of("upsert", "PUT", r"patients/_delta_log/\d{20}\.json$")
    assert killed_at(on_s3, proxy, next_of(victims), "upsert", nth, "after") is None
    wrong = killed_at(on_s3, proxy, next_of(victims), "upsert", nth, "after", without="one commit")
    assert wrong == "['patients'] are neither as before nor as after"


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", WRITES)
def test_all_kills_at_requests(
    on_s3: Range, proxy: Proxy, victims: deque[Victim], name: str, tell_figures: TellFigures
) -> None:
    points = [(nth, when) for nth in on_s3.numbers(name) for when in STOPS]
    random.Random(name).shuffle(points)
    wrong, end, kills = {}, time.monotonic() + 60 * MINUTES / len(WRITES), 0
    for nth, when in points:
        if time.monotonic() > end:
            break
        kills += 1
        wrong[nth, when] = killed_at(on_s3, proxy, next_of(victims), name, nth, when)
    tell_figures(f"{len(points)} points exist, {kills} kills, {sum(map(bool, wrong.values()))} wrong")
    assert not {point: words for point, words in wrong.items() if words}


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", WRITES)
def test_all_kills_at_any_moment(
    on_disk: LocalRange, victims: deque[Victim], name: str, tell_figures: TellFigures
) -> None:
    chance, end, wrong = random.Random(name), time.monotonic() + 60 * MINUTES / len(WRITES), []
    while time.monotonic() < end:
        seconds = chance.uniform(0, 1.5 * on_disk.seconds(name))
        wrong.append(killed_within(on_disk, next_of(victims), name, seconds))
    tell_figures(f"{len(wrong)} kills, {sum(map(bool, wrong))} wrong")
    assert not [words for words in wrong if words]
