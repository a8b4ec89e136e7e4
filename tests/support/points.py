"""Fault points: an operation, a fault, and the number of the request that it strikes.

For each operation the R requests are learned from a run that nothing disturbs; then each of them can be struck by each
fault. A point is judged by what the operation answered and by what a client that has seen nothing finds afterwards.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support.operations import OPERATIONS, Facts, Operation, Picture, connect, copy_to_bucket, picture, tomorrow
from tests.support.proxy import Fault, Match, Proxy, Record, Status
from tests.support.servers import make_bucket
from vxdata.errors import (
    AlreadyExistsError,
    CommitUnknownError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from vxdata.lake import aws
from vxdata.sdk import Client

FAULTS: tuple[Fault, ...] = (*get_args(Status), "reset", "lost_answer", "cut_body", "hang")
TRANSIENT: tuple[Fault, ...] = (429, 500, 503, "reset", "lost_answer", "cut_body")
"""What is over at the next try, so that the operation must succeed."""

DOCUMENTED = (StorageError, CommitUnknownError, ConflictError)
DONE_ALREADY = (AlreadyExistsError, NotFoundError, InvalidInputError)
CLIENT_SECONDS, DEADLINE_SECONDS, MOST_SECONDS = 2, 8.0, 45.0


@dataclass(frozen=True)
class Point:
    """Where a fault strikes: the n-th request of an operation, counted from 1."""

    operation: str
    fault: Fault
    nth: int


@dataclass(frozen=True)
class Course:
    """How an operation goes when nothing disturbs it: its requests, its answer, and the lake before and after."""

    requests: tuple[Record, ...]
    answer: Any
    before: Picture
    after: Picture


@dataclass(frozen=True)
class Outcome:
    """What became of a point: whether the fault struck, the error, the seconds, and what is wrong (None: nothing)."""

    is_hit: bool
    error: BaseException | None
    seconds: float
    wrong: str | None


def with_little_patience(patch: pytest.MonkeyPatch) -> None:
    """Let the clients of this process wait for a store for two seconds only."""
    patch.setattr(aws, "_TIMEOUT_SECONDS", CLIENT_SECONDS)
    patch.setattr(aws, "_CONNECT_SECONDS", CLIENT_SECONDS)


class Range:
    """A lake in a folder, a server, and a proxy in front of it: where points are tried.

    Args:
        folder: the lake that operations work on.
        facts: what they need to know of it.
        proxy: the proxy.
        upstream_url: the server behind it, for looks that nothing disturbs.
    """

    def __init__(self, folder: Path, facts: Facts, proxy: Proxy, upstream_url: str) -> None:
        self._folder, self.facts, self._proxy, self._upstream_url = folder, facts, proxy, upstream_url
        self._shared = self._copied()
        self._courses: dict[str, Course] = {}

    def course(self, name: str) -> Course:
        """Learn an operation, once."""
        if name not in self._courses:
            operation, uri = OPERATIONS[name], self.place_for(OPERATIONS[name])
            before = self.look(uri) if operation.is_write else {}
            self._proxy.reset()
            answer = operation.act(self._struck(uri, operation), self.facts)
            requests = tuple(self._proxy.requests())
            self._courses[name] = Course(requests, answer, before, self.look(uri) if operation.is_write else {})
        return self._courses[name]

    def points(self, name: str) -> list[Point]:
        """Return all points of an operation."""
        return [Point(name, fault, nth) for nth in self.numbers(name) for fault in FAULTS]

    def numbers(self, name: str) -> range:
        """Return the numbers of an operation's requests."""
        return range(1, len(self.course(name).requests) + 1)

    def number_of(self, name: str, kind: str, path: str) -> int:
        """Return the number of an operation's first request of a kind whose path ends so."""
        requests = self.course(name).requests
        return next(n for n, r in enumerate(requests, 1) if r.kind == kind and re.search(path, r.path))

    def place_for(self, operation: Operation) -> str:
        """Return the address of a lake for one run of an operation."""
        if not operation.has_lake:
            return self._new_place()
        return self._copied() if operation.is_write else self._shared

    def _new_place(self) -> str:
        """Return a place in a bucket of its own: the server looks through all keys of a bucket for each listing."""
        bucket = f"points-{uuid.uuid4()}"
        make_bucket(self._upstream_url, bucket)
        return f"s3://{bucket}/lake"

    def _copied(self) -> str:
        uri = self._new_place()
        copy_to_bucket(self._folder, uri, self._upstream_url)
        return uri

    def opened(self, uri: str, now: Callable[[], datetime]) -> Client:
        """Return a client that has seen nothing, past the proxy."""
        return connect(uri, self._upstream_url, now)

    def look(self, uri: str) -> Picture:
        """Return what such a client sees."""
        return picture(self.opened(uri, tomorrow))

    def _struck(self, uri: str, operation: Operation) -> Client:
        return connect(uri, self._proxy.endpoint_url, operation.now, DEADLINE_SECONDS)

    # -- one point

    def run(self, point: Point) -> Outcome:
        """Try a point."""
        operation = OPERATIONS[point.operation]
        self.course(point.operation)
        uri = self.place_for(operation)
        self._proxy.reset()
        self._proxy.inject(point.fault, Match(nth=point.nth))
        began, answer, error = time.monotonic(), None, None
        try:
            answer = operation.act(self._struck(uri, operation), self.facts)
        except BaseException as raised:
            error = raised
        seconds = time.monotonic() - began
        is_hit = any(record.fault is not None for record in self._proxy.requests())
        self._proxy.reset()
        wrong = self._wrong_with(point, uri, answer, error, seconds)
        return Outcome(is_hit, error, seconds, wrong)

    def _wrong_with(
        self, point: Point, uri: str, answer: Any, error: BaseException | None, seconds: float
    ) -> str | None:
        operation, course = OPERATIONS[point.operation], self.course(point.operation)
        if seconds > MOST_SECONDS:
            return f"it took {seconds:.0f} s"
        if error is None and not is_same_answer(answer, course.answer):
            return f"it answered {answer!r} in place of {course.answer!r}"
        if error is not None and (point.fault in TRANSIENT or not isinstance(error, DOCUMENTED)):
            return f"it failed with {error!r}"
        if not operation.is_write:
            return None
        if error is not None:
            return self.aftermath(point.operation, uri, error)
        seen = self.look(uri)
        return None if seen == course.after else f"the lake shows {differences(seen, course.after)}"

    def aftermath(self, name: str, uri: str, error: BaseException | None = None) -> str | None:
        """Look at a lake after an operation that did not come to its end, and do what a user would do.

        Args:
            name: the operation.
            uri: the lake.
            error: how it ended; None if its process was killed.

        Returns:
            What is wrong; None if all is as it should be.
        """
        operation, course, seen = OPERATIONS[name], self.course(name), self.look(uri)
        if operation.is_whole and (by_half := half_done(seen, course)):
            return by_half
        client = self.opened(uri, operation.now)
        if errors := [e for e in errors_of(client) if not (operation.goes_root_first and "orphaned-resource" in e)]:
            return f"verify finds {errors}"
        if isinstance(error, CommitUnknownError):
            client.resolve(error.token)
        try:
            (operation.finish or operation.act)(client, self.facts)
        except DONE_ALREADY as refused:
            if seen != course.after:
                return f"it is refused by {refused!r}, though the lake shows {differences(seen, course.after)}"
        if operation.goes_root_first and (errors := errors_of(client)):
            return f"done again, verify finds {errors}"
        now = self.look(uri)
        return None if now == course.after else f"done again, the lake shows {differences(now, course.after)}"


class LocalRange(Range):
    """The same over folders, where there are no requests to strike: an operation has a length in seconds."""

    def __init__(self, folder: Path, facts: Facts, places: Path) -> None:
        self._folder, self.facts, self._places = folder, facts, places
        self._courses: dict[str, Course] = {}
        self._seconds: dict[str, float] = {}

    def course(self, name: str) -> Course:
        """Learn an operation, once."""
        if name not in self._courses:
            operation, uri = OPERATIONS[name], self.place_for(OPERATIONS[name])
            before, client = self.look(uri), self.opened(uri, operation.now)
            began = time.monotonic()
            answer = operation.act(client, self.facts)
            self._seconds[name] = time.monotonic() - began
            self._courses[name] = Course((), answer, before, self.look(uri))
        return self._courses[name]

    def seconds(self, name: str) -> float:
        """Return how long an operation takes."""
        self.course(name)
        return self._seconds[name]

    def _new_place(self) -> str:
        return str(self._places / uuid.uuid4().hex)

    def _copied(self) -> str:
        return str(shutil.copytree(self._folder, self._new_place()))

    def opened(self, uri: str, now: Callable[[], datetime]) -> Client:
        """Return a client that has seen nothing."""
        return connect(uri, None, now)


def is_same_answer(one: Any, other: Any) -> bool:
    """Compare answers, but for the ids of their commits."""
    return _without_ids(one) == _without_ids(other)


def _without_ids(answer: Any) -> Any:
    if hasattr(answer, "model_dump"):
        return answer.model_dump(exclude={"commit_id"})
    return [_without_ids(item) for item in answer] if isinstance(answer, (list, tuple)) else answer


def half_done(seen: Picture, course: Course) -> str | None:
    """Tell what is neither as before nor as after, for each table by itself."""
    names = [name for name in seen if seen[name] not in (course.before[name], course.after[name])]
    return f"{names} are neither as before nor as after" if names else None


def differences(seen: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs, by part: what is seen and what was expected."""
    return {name: (seen[name], expected[name]) for name in seen if seen[name] != expected[name]}


def errors_of(client: Client) -> list[Any]:
    """Return the errors that `verify` finds; where no lake is there are none."""
    try:
        findings = client.verify().findings
    except NotFoundError:
        return []
    return findings.filter(findings["severity"] == "error").rows()
