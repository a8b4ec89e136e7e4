"""Many processes on one lake: every acknowledged step counts once, and no answer about the past ever changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.conftest import TellFigures
from tests.support.contender import Contender
from tests.support.ledger import refuse_lost_steps
from vxdata.sdk import Client

Start = Callable[..., Contender]
MINUTES = float(os.environ.get("VXDATA_TORTURE_MINUTES", "30"))
FOREVER = 1_000_000
PROCESSES = 8
LONG = [pytest.mark.torture, pytest.mark.timeout(0)]
LONG_SECONDS = 60 * MINUTES / 6


@pytest.fixture
def start(lake_uri: str) -> Iterator[Start]:
    """Start a process on the lake; those that are left are killed at the end."""
    started: list[Contender] = []
    numbers = count()

    def start(role: str, rounds: int = FOREVER, seconds: float = LONG_SECONDS) -> Contender:
        started.append(Contender(lake_uri, f"{role}{next(numbers)}", rounds, role, seconds))
        return started[-1]

    yield start
    for contender in started:
        contender.kill()


@pytest.mark.parametrize(
    ("make_lake_uri", "rounds"),
    [
        ("local", 2),
        pytest.param("local", FOREVER, marks=LONG),
        pytest.param("ministack", FOREVER, marks=LONG),
    ],
    indirect=["make_lake_uri"],
)
@pytest.mark.parametrize("role", ["contender", "loner"])
def test_of_eight_processes_every_acknowledged_step_counts_once_and_none_fails(
    start: Start, lake_uri: str, role: str, rounds: int, tell_figures: TellFigures
) -> None:
    writers = [start(role, rounds) for _ in range(PROCESSES)]
    assert [writer.wait() for writer in writers] == [(0, "")] * PROCESSES
    steps = refuse_lost_steps(Client(lake_uri), writers)
    tell_figures(f"{steps} steps of {PROCESSES} processes")
    assert Client(lake_uri).verify().ok


@pytest.mark.parametrize(
    ("make_lake_uri", "seconds"),
    [
        ("local", 6.0),
        pytest.param("local", LONG_SECONDS, marks=LONG),
        pytest.param("ministack", LONG_SECONDS, marks=LONG),
    ],
    indirect=["make_lake_uri"],
)
def test_compactors_beside_writers_change_no_answer(
    start: Start, lake_uri: str, seconds: float, tell_figures: TellFigures
) -> None:
    """Two readers ask all the time for the lake as of an instant, and are told the same all the time."""
    writers = [start("contender", seconds=seconds) for _ in range(4)]
    for writer in writers:
        writer.wait_until_ready()
    others = {role: [start(role, seconds=seconds) for _ in range(2)] for role in ("compactor", "reader")}
    assert [process.wait() for process in (*writers, *others["compactor"], *others["reader"])] == [(0, "")] * PROCESSES
    steps = refuse_lost_steps(Client(lake_uri), writers)
    folds = sum(int(told) for c in others["compactor"] for told in c.told["folded"])
    reads = [reader.told["read"] for reader in others["reader"]]
    tell_figures(f"{steps} steps, {folds} rounds of compaction, {sum(map(len, reads))} reads of the past")
    assert folds
    assert [len(set(seen)) for seen in reads] == [1, 1]
    assert Client(lake_uri).verify().ok
