"""A process of its own that works on a lake, for tests that let several do so at once, or kill them.

Run as `python -m tests.support.contender <uri> <name> <rounds> <role> <seconds> <rule>`; it ends after so many rounds
or seconds, and works without a rule of the protocol, if one is named. A round of a contender increments a contended
counter, updates the contender's own patient, and upserts a batch of its own over two partitions; one of a loner is
without the counter; a compactor folds; a reader asks for the lake as of the instant at which it began. What has
returned is told, a line each.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import polars as pl

from tests.support.servers import ROOT
from vxdata.errors import ConflictError
from vxdata.sdk import Client

COUNTER = "patient/counter"
BATCH_ROWS = 10
READY_SECONDS = 120.0
FOREVER_SECONDS = 1e9
DATASOURCES = ("datasource/d", "datasource/e")
ACROSS = timedelta(seconds=2)
"""How far a reader keeps from the last moments, to which a commit under way may still add."""


class Contender:
    """A contender's process, and what it told so far.

    Attributes:
        told: the lines by their first word: `counter`, `own`, `batch`, `folded`, `read`.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        rounds: int,
        role: str = "contender",
        seconds: float = FOREVER_SECONDS,
        without: str = "",
    ) -> None:
        self.name = name
        self.told: dict[str, list[str]] = defaultdict(list)
        self._has_spoken = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, uri, name, str(rounds), role, str(seconds), without],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            self.told[word].append(rest)
            self._has_spoken.set()
        self._has_spoken.set()

    def wait_until_ready(self) -> None:
        """Wait until the contender has made what it needs."""
        has_spoken = self._has_spoken.wait(READY_SECONDS)
        if not self.told["ready"]:
            self._process.kill()
            raise AssertionError(f"{self.name} {'failed' if has_spoken else 'hangs'}: {self.wait()[1]}")

    def wait(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written to stderr."""
        assert self._process.stderr is not None
        errors = self._process.stderr.read()
        code = self._process.wait()
        self._close()
        return code, errors

    def kill(self) -> None:
        """Kill -9, and take what was told until then."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        self._listener.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def batch_of(name: str, license: str) -> pl.DataFrame:
    """Return a contender's batch: patients in two datasources, so in two data files of one commit."""
    numbers = range(BATCH_ROWS)
    return pl.DataFrame(
        {
            "identifier": [f"patient/{name}-{n}" for n in numbers],
            "parent_identifier": [DATASOURCES[n % 2] for n in numbers],
            "license": license,
        }
    )


def set_up(client: Client, name: str) -> None:
    """Make what a contender needs, if it is not there; others do the same at the same time."""
    client.datasources.upsert(pl.DataFrame({"identifier": DATASOURCES}))
    shared = pl.DataFrame({"identifier": [COUNTER], "parent_identifier": DATASOURCES[:1]})
    client.patients.upsert(shared)
    client.patients.upsert(shared.with_columns(identifier=pl.lit(f"patient/{name}")))


def increment(client: Client, license: str) -> None:
    """Add one to the counter, on the version that was read."""
    while True:
        seen = client.patients.retrieve(COUNTER)
        changes = {"birthyear": (seen.payload.birthyear or 0) + 1}
        try:
            client.patients.update(COUNTER, changes, license=license, expected_valid_from=seen.valid_from)
        except ConflictError:
            continue
        return


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def contend(client: Client, name: str, n: int) -> None:
    increment(client, f"{name}:{n}")
    tell(f"counter {name}:{n}")
    write_own(client, name, n)


def write_own(client: Client, name: str, n: int) -> None:
    client.patients.update(f"patient/{name}", {"birthyear": n})
    tell(f"own {n}")
    client.patients.upsert(batch_of(name, f"{name}:{n}"))
    tell(f"batch {name}:{n}")


def fold(client: Client, name: str, n: int) -> None:
    tell(f"folded {client.compact(reason=name).rounds.height}")


def look_back(client: Client, name: str, n: int) -> None:
    tell(f"read {digest(client)}")


def digest(client: Client) -> str:
    """Return a number that stands for all rows which a client of the past sees, in any order of theirs."""
    rows = client.patients.query().sort("identifier").collect()
    assert not rows["identifier"].is_duplicated().any(), rows
    return hashlib.sha256(repr(rows.rows()).encode()).hexdigest()


ROLES: dict[str, Callable[[Client, str, int], None]] = {
    "contender": contend,
    "loner": write_own,
    "compactor": fold,
    "reader": look_back,
}


def main(uri: str, name: str, rounds: int, role: str, seconds: float, without: str) -> None:
    if without:
        import pytest

        from tests.support.broken import RULES

        RULES[without](pytest.MonkeyPatch())
    logging.getLogger("vxdata").setLevel(logging.ERROR)  # what is left on stderr is a failure
    client = Client(uri, author=name)
    if role in ("contender", "loner"):
        set_up(client, name)
    if role == "reader":
        client = client.as_of(datetime.now(UTC) - ACROSS)
    tell("ready")
    end = time.monotonic() + seconds
    for n in range(1, rounds + 1):
        ROLES[role](client, name, n)
        if time.monotonic() > end:
            break


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5]), sys.argv[6])
