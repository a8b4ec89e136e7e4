"""Every request of every operation, struck by every fault: the right result or a documented error, nothing by half."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.support.broken import RULES
from tests.support.operations import OPERATIONS, tell
from tests.support.points import Outcome, Point, Range, with_little_patience
from tests.support.proxy import Fault, Kind, Proxy
from tests.support.servers import Server
from vxdata.errors import StorageError

ENTRY = r"patients/_delta_log/\d{20}\.json$"
MINUTES = float(os.environ.get("VXDATA_TORTURE_MINUTES", "30"))


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        with_little_patience(patch)
        yield patch


@pytest.fixture(scope="module")
def range_(
    ministack_server: Server, tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch
) -> Iterator[Range]:
    folder = tmp_path_factory.mktemp("points") / "lake"
    facts = tell(folder)
    with Proxy(ministack_server.endpoint_url) as proxy:
        yield Range(folder, facts, proxy, ministack_server.endpoint_url)


def try_points(range_: Range, points: list[Point], seconds: float) -> dict[Point, Outcome]:
    """Try points, as many as there is time for."""
    done: dict[Point, Outcome] = {}
    end = time.monotonic() + seconds
    for point in points:
        if time.monotonic() > end:
            break
        done[point] = range_.run(point)
    return done


def refuse_wrong(done: dict[Point, Outcome]) -> None:
    wrong = {point: outcome.wrong for point, outcome in done.items() if outcome.wrong}
    assert not wrong, "\n".join(f"{point}: {words}" for point, words in wrong.items())


def figures_of(points: int, done: dict[Point, Outcome]) -> str:
    failed = Counter(type(outcome.error).__name__ for outcome in done.values() if outcome.error)
    slowest = max((outcome.seconds for outcome in done.values()), default=0.0)
    hit = sum(outcome.is_hit for outcome in done.values())
    wrong = sum(outcome.wrong is not None for outcome in done.values())
    return (
        f"{points} points exist, {len(done)} tried, {hit} hit, {wrong} wrong; {dict(failed)}; slowest {slowest:.1f} s"
    )


OFTEN = [name for name in OPERATIONS if name not in ("revert", "restore", "verify", "list commits", "keep", "drop")]
RARELY = [pytest.param(name, marks=pytest.mark.slow) for name in OPERATIONS if name not in OFTEN]


@pytest.mark.parametrize("name", [*OFTEN, *RARELY])
def test_a_point_of_each_operation_ends_right_or_in_a_documented_error(range_: Range, name: str) -> None:
    point = random.Random(name).choice(range_.points(name))
    done = {point: range_.run(point)}
    assert done[point].is_hit
    refuse_wrong(done)


BROKEN_OFF: dict[str, tuple[Fault, Kind, str]] = {
    "list kept": ("cut_body", "LIST", ""),
    "drop": ("reset", "POST", ""),
    "keep": ("lost_answer", "PUT", r"/snapshots/new"),
    "history": ("cut_body", "GET", r"/_delta_log/"),
}


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_an_answer_that_breaks_off_is_asked_for_again_where_no_client_does(range_: Range, name: str) -> None:
    fault, kind, path = BROKEN_OFF[name]
    outcome = range_.run(Point(name, fault, range_.number_of(name, kind, path)))
    assert (outcome.is_hit, outcome.error, outcome.wrong) == (True, None, None)


@pytest.mark.parametrize("path", [r"/_delta_log/", r"/_vxdata/lake.json", r"\.parquet$"])
def test_a_read_that_hangs_is_tried_once_more(range_: Range, path: str) -> None:
    outcome = range_.run(Point("verify", "hang", range_.number_of("verify", "GET", path)))
    assert (outcome.is_hit, outcome.error, outcome.wrong) == (True, None, None)


@pytest.mark.parametrize("path", [r"patients/_delta_log/\d{20}\.json$", r"\.parquet$", r"/_vxdata/lake.json"])
def test_verify_takes_a_refusal_of_the_store_for_no_damage(range_: Range, path: str) -> None:
    outcome = range_.run(Point("verify", 403, range_.number_of("verify", "GET", path)))
    assert isinstance(outcome.error, StorageError)
    assert not outcome.error.retryable


def test_verify_takes_no_refused_listing_for_damage(range_: Range) -> None:
    listings = [n for n, request in enumerate(range_.course("verify").requests, 1) if request.kind == "LIST"]
    assert len(listings) > 20  # of the lake's folders, and of each table's log
    outcomes = [range_.run(Point("verify", 403, n)) for n in listings[:6]]
    assert [(outcome.is_hit, type(outcome.error), outcome.wrong) for outcome in outcomes] == [
        (True, StorageError, None)
    ] * 6


def test_without_the_look_for_its_own_commit_a_lost_answer_would_fail_a_create(
    range_: Range, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = Point("create", "lost_answer", range_.number_of("create", "PUT", ENTRY))
    assert range_.run(point).wrong is None
    RULES["own commit"](monkeypatch)
    assert "AlreadyExistsError" in str(range_.run(point).wrong)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_point_of_an_operation_ends_right_or_in_a_documented_error(
    range_: Range, name: str, tell_figures: Callable[[str], None]
) -> None:
    points = range_.points(name)
    random.Random(name).shuffle(points)
    done = try_points(range_, points, 60 * MINUTES / len(OPERATIONS))
    tell_figures(figures_of(len(points), done))
    refuse_wrong(done)
