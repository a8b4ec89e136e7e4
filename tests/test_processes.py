"""Writers in processes of their own, at once and killed: nothing acknowledged is lost, nothing is there by half."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.support.contender import BATCH_ROWS, Contender
from tests.support.ledger import batches, counted
from vxdata.sdk import Client

MakeLakeUri = Callable[[], str]
Start = Callable[..., Contender]
FOREVER = 1_000_000


@pytest.fixture
def start(lake_uri: str) -> Iterator[Start]:
    """Start a contender on the lake; those that are left are killed at the end."""
    started: list[Contender] = []
    numbers = count()

    def start(rounds: int = FOREVER) -> Contender:
        started.append(Contender(lake_uri, f"writer{next(numbers)}", rounds))
        return started[-1]

    yield start
    for contender in started:
        contender.kill()


@pytest.mark.parametrize(
    ("make_lake_uri", "writers", "rounds"), [("local", 3, 4), ("ministack", 2, 2)], indirect=["make_lake_uri"]
)
def test_processes_that_write_at_once_lose_nothing(start: Start, lake_uri: str, writers: int, rounds: int) -> None:
    """They make the lake and its tables at once too."""
    contenders = [start(rounds) for _ in range(writers)]
    assert [contender.wait() for contender in contenders] == [(0, "")] * writers
    client = Client(lake_uri)
    assert sorted(counted(client)) == sorted(told for c in contenders for told in c.told["counter"])
    assert len(counted(client)) == writers * rounds
    for contender in contenders:
        own = client.patients.history(f"patient/{contender.name}")
        assert [v.payload.birthyear for v in own] == [None, *range(1, rounds + 1)]
    assert batches(client) == {c.name: [f"{c.name}:{rounds}"] * BATCH_ROWS for c in contenders}


@pytest.mark.parametrize(
    ("make_lake_uri", "writers", "kills", "seconds"),
    [
        ("local", 3, 3, 0.3),
        ("ministack", 2, 2, 2.0),
        pytest.param("local", 4, 100, 0.3, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param("moto", 3, 30, 3.0, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
    indirect=["make_lake_uri"],
)
def test_a_kill_loses_nothing_acknowledged_and_leaves_nothing_by_half(
    start: Start, lake_uri: str, writers: int, kills: int, seconds: float
) -> None:
    """The next writer starts while its predecessor is killed at a random moment; others go on all the time."""
    chance, killed = random.Random(kills), []
    running = [start() for _ in range(writers)]
    for _ in range(kills):
        running.append(start())
        killed.append(running.pop(0))
        killed[-1].wait_until_ready()
        time.sleep(chance.uniform(0, seconds))
        killed[-1].kill()
    for contender in running:
        contender.kill()
    refuse_losses(Client(lake_uri), killed + running)
    assert start(rounds=1).wait() == (0, "")


def refuse_losses(client: Client, killed: list[Contender]) -> None:
    """Check that all that was told is there, and of each contender at most the one write more that it died in."""
    made, states = counted(client), batches(client)
    years = {r["identifier"]: r["birthyear"] or 0 for r in client.patients.query().collect().to_dicts()}
    assert any(c.told[word] for c in killed for word in ("counter", "own", "batch"))
    for c in killed:
        mine = [license for license in made if license and license.startswith(f"{c.name}:")]
        assert mine == [f"{c.name}:{n}" for n in range(1, len(mine) + 1)]
        batch = states.get(c.name, [f"{c.name}:0"] * BATCH_ROWS)
        assert (len(batch), len(set(batch))) == (BATCH_ROWS, 1)
        there = {"counter": len(mine), "own": years.get(f"patient/{c.name}", 0), "batch": int(batch[0].split(":")[1])}
        untold = {word: found - len(c.told[word]) for word, found in there.items()}
        assert sorted(untold.values()) in ([0, 0, 0], [0, 0, 1]), (c.name, untold)
