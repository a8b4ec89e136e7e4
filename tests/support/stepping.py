"""Writers that are stepped through the commit loop by hand, PUTs that are struck by faults, and a clock to turn.

`vxdata.lake.commit.commit_steps` stops between PLANNED, WRITTEN and FAILED. A `Writer` runs one SDK call in a thread
that moves only while `step` waits for it, so that at each instant one thread runs: what a test does is deterministic.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vxdata.lake import commit as commits
from vxdata.lake import compact, run
from vxdata.lake.commit import Committed, Ended, Rewritten, Step
from vxdata.lake.intent import Patience, Planner, Rewriter, Stamp
from vxdata.lake.lake import Lake
from vxdata.lake.store import open_store
from vxdata.lake.table import Table
from vxdata.sdk import Client
from vxdata.sdk.session import Session

TICK = timedelta(microseconds=1)
STEP_SECONDS = 60.0

Put = Callable[[], None]
Fault = Callable[[Put], None]


class Clock:
    """A clock that stands still until it is turned; deadlines run by it too, if asked to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.elapsed = 0.0

    def turn(self, by: timedelta) -> datetime:
        """Turn the clock, forth or back, and return what it shows."""
        self.now += by
        return self.now

    def patience(self, deadline_seconds: float = 60.0) -> Patience:
        """Return a patience that lives by this clock: waiting takes no time, but is counted."""
        return Patience(deadline_seconds, now=lambda: self.now, monotonic=lambda: self.elapsed, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.elapsed += seconds


def open_client(uri: str | Path, patience: Patience | None = None, author: str = "tester") -> Client:
    """Return a client over a lake of its own, with a patience of its own."""
    lake = Lake(open_store(uri), patience)
    return Client._of(Session(lake, lake, author))


class Killed(BaseException):
    """Ends a writer at a stop, as a kill of its process would: nothing of it runs any more."""


_here = threading.local()


class Writer:
    """An SDK call that stops between the steps of its commits; it needs the fixture `stepping`.

    Attributes:
        landed: how many of its PUTs made a log entry, whatever it was told.
        stops: the steps at which it stopped so far.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self.landed = 0
        self.stops: list[Step] = []
        self._call = call
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._is_killed = self.is_done = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _here.writer = self
        self._go.acquire()
        try:
            self._result = self._call()
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error
        self.is_done = True
        self._stopped.release()

    def _stop(self, step: Step) -> None:
        self.stops.append(step)
        self._stopped.release()
        self._go.acquire()
        if self._is_killed:
            raise Killed

    def step(self) -> Step | None:
        """Run to the next stop and return it; None if the call is done."""
        self._go.release()
        assert self._stopped.acquire(timeout=STEP_SECONDS), "the writer hangs"
        return None if self.is_done else self.stops[-1]

    def run_to(self, step: Step) -> Writer:
        """Run to the next stop of a kind."""
        while (reached := self.step()) is not step:
            assert reached is not None, f"done before {step}: {self._error!r}"
        return self

    def finish(self) -> Any:
        """Run to the end; return the call's result or raise its error."""
        while not self.is_done:
            self.step()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result

    def kill(self) -> None:
        """End the writer where it stands."""
        self._is_killed = True
        if not self.is_done:
            self.step()
        self._thread.join()


def current_writer() -> Writer | None:
    """Return the writer whose thread this is."""
    return getattr(_here, "writer", None)


def _stepped_commit(table: Table, planner: Planner, stamp: Stamp, patience: Patience) -> Committed:
    return _stepped(commits.commit_steps(table, planner, stamp, patience))


def _stepped_rewrite(table: Table, rewriter: Rewriter, stamp: Stamp, patience: Patience) -> Rewritten | None:
    return _stepped(commits.rewrite_steps(table, rewriter, stamp, patience))


def _stepped(steps: Generator[Step, None, Ended]) -> Ended:
    writer = current_writer()
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if writer is not None:
            writer._stop(step)


class Puts:
    """All PUTs of log entries in this process: counted, and struck by the faults that a test queues.

    Attributes:
        tried: the versions that were tried, in order.
        entries: how many log entries were made.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[int] = []
        self.entries = 0
        self._faults: deque[Fault] = deque()
        self._original = Table.put_commit
        puts = self

        def put_commit(table: Table, base: Any, *args: Any) -> None:
            puts._put(base.version + 1, lambda: puts._original(table, base, *args))

        monkeypatch.setattr(Table, "put_commit", put_commit)

    def strike(self, *faults: Fault) -> None:
        """Strike the next PUTs, one fault each."""
        self._faults.extend(faults)

    def spare(self) -> None:
        """Forget the faults that did not strike yet."""
        self._faults.clear()

    def _put(self, version: int, original: Put) -> None:
        def put() -> None:
            original()
            self.entries += 1
            if (writer := current_writer()) is not None:
                writer.landed += 1

        self.tried.append(version)
        fault = self._faults.popleft() if self._faults else None
        put() if fault is None else fault(put)


def lost_answer(put: Put) -> None:
    """The entry is made, and then the connection breaks."""
    put()
    raise OSError("connection reset: the answer was lost")


def lost_request(put: Put) -> None:
    """The connection breaks before anything is done."""
    raise OSError("connection reset: the request was lost")


def install(monkeypatch: pytest.MonkeyPatch) -> Puts:
    """Make commits stop for writers, and PUTs open to faults."""
    monkeypatch.setattr(run, "commit", _stepped_commit)
    monkeypatch.setattr(compact, "rewrite", _stepped_rewrite)
    return Puts(monkeypatch)
