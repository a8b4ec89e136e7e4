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
OTHERS = ("compactor", "reader")
LONG = [pytest.mark.torture, pytest.mark.timeout(0)]
LONG_SECONDS = 60 * MINUTES / 6


@pytest.fixture
def start(lake_uri: str) -> Iterator[Start]:
    """Start a process on the lake; those that are left are killed at the end."""
    started: list[Contender] = []
    numbers = count()

    def start(role: str, rounds: int = FOREVER, seconds: float = LONG_SECONDS, without: str = "") -> Contender:
        started.append(Contender(lake_uri, f"{role}{next(numbers)}", rounds, role, seconds, without))
        return started[-1]

    yield start
    for contender in started:
        contender.kill()


@pytest.mark.parametrize(
    ("make_lake_uri", "rounds"),
    [("local", 2), pytest.param("local", FOREVER, marks=LONG), pytest.param("ministack", FOREVER, marks=LONG)],
    indirect=["make_lake_uri"],
)
def test_of_eight_processes_every_acknowledged_step_counts_once_and_none_fails(
    start: Start, lake_uri: str, rounds: int, tell_figures: TellFigures
) -> None:
    """Four contend for one resource, and four write what nobody else does."""
    writers = [start(role, rounds) for role in ("contender", "loner") for _ in range(4)]
    assert [writer.wait() for writer in writers] == [(0, "")] * len(writers)
    tell_figures(f"{refuse_lost_steps(Client(lake_uri), writers)} steps of {len(writers)} processes")
    assert Client(lake_uri).verify().ok


@pytest.mark.parametrize(
    ("make_lake_uri", "seconds"),
    [
        ("local", 2.5),
        pytest.param("local", LONG_SECONDS, marks=LONG),
        pytest.param("ministack", LONG_SECONDS, marks=LONG),
    ],
    indirect=["make_lake_uri"],
)
def test_compactors_beside_writers_change_no_answer(
    start: Start, lake_uri: str, seconds: float, tell_figures: TellFigures
) -> None:
    tell_figures(work_together(start, lake_uri, seconds))
    assert Client(lake_uri).verify().ok


def work_together(start: Start, uri: str, seconds: float, without: str = "") -> str:
    """Let writers, compactors and readers of the past work, check what they left, and return what was counted.

    The readers ask all the time for the lake as of an instant, and must be told the same all the time.
    """
    writers = [start("contender", seconds=seconds, without=without) for _ in range(4)]
    for writer in writers:
        writer.wait_until_ready()
    compactors, readers = ([start(role, seconds=seconds, without=without) for _ in range(2)] for role in OTHERS)
    ends = [process.wait() for process in (*writers, *compactors, *readers)]
    assert ends == [(0, "")] * len(ends)
    steps = refuse_lost_steps(Client(uri), writers)
    folds = sum(int(told) for c in compactors for told in c.told["folded"])
    assert folds
    reads = [reader.told["read"] for reader in readers]
    assert [len(set(seen)) for seen in reads] == [1, 1]
    return f"{steps} steps, {folds} rounds of compaction, {sum(map(len, reads))} reads of the past"


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("make_lake_uri", ["local"], indirect=True)
@pytest.mark.parametrize("rule", ["premises", "no retries", "live files"])  # F2: a fold takes all targets along here
def test_without_a_rule_of_the_protocol_they_would_lose_or_double(start: Start, lake_uri: str, rule: str) -> None:
    with pytest.raises(AssertionError):
        work_together(start, lake_uri, LONG_SECONDS, without=rule)
