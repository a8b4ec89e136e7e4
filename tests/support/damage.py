"""A lake of some thousand rows, and places in it where one bit is flipped."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import polars as pl

from tests.support.operations import DAY, SOURCE, connect
from tests.support.stepping import Clock, open_client
from tests.support.upkeep import clock_of_today, resource, spec_of
from vxdata.errors import VxDataError
from vxdata.lake.checkpoint import settle_log
from vxdata.lake.erase import Erasure
from vxdata.sdk import Client

KINDS = {"data": "", "checkpoint": "*/_delta_log/*.checkpoint.parquet", "log": "*/_delta_log/*.json"}
"""Where the files of a kind are; for data files the log says it."""

ROWS = 2_000
TYPES = ("datasources", "patients", "pathology_specimens")
OTHER = "datasource/b"
ERASED = "patient/00007"
Answers = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Place:
    """One bit of one file; the path is relative to the lake."""

    path: str
    bit: int

    def flip(self, lake: Path) -> None:
        """Flip the bit; a second time repairs it."""
        (lake / self.path).write_bytes(self.flipped(lake))

    def flipped(self, lake: Path) -> bytes:
        """Return the file's bytes with the bit flipped: sound ones of a damaged file, damaged ones of a sound file."""
        data = bytearray((lake / self.path).read_bytes())
        data[self.bit // 8] ^= 1 << self.bit % 8
        return bytes(data)


def tell(folder: Path) -> None:
    """Make the lake: folded files, tails with updates and deletes, checkpoints, and entries since."""
    clock = Clock()
    client = connect(str(folder), None, lambda: clock.now)
    chance = random.Random(1)
    client.datasources.upsert(pl.DataFrame({"identifier": [SOURCE, OTHER], "name": ["A", "B"]}))
    names = [f"patient/{n:05d}" for n in range(ROWS)]
    frame = pl.DataFrame(
        {
            "identifier": names,
            "parent_identifier": [chance.choice([SOURCE, OTHER]) for _ in names],
            "birthyear": [chance.randint(1920, 2000) for _ in names],
            "sex": [chance.choice(["F", "M", None]) for _ in names],
        }
    )
    client.patients.upsert(frame)
    client.pathology_specimens.create([resource(f"pathologyspecimen/{n}", names[n]) for n in range(20)])
    clock.turn(DAY)
    client.patients.upsert(frame.sample(300, seed=1).with_columns(birthyear=pl.col("birthyear") + 1))
    client.compact()
    for n in range(6):
        clock.turn(DAY)
        client.patients.upsert(frame.sample(20, seed=n).with_columns(sex=pl.lit(f"{n}")))
        client.patients.delete(names[100 + n])
        client.pathology_specimens.update(f"pathologyspecimen/{n}", {"type": f"{n}"})
        if n == 3:
            for namespace in (client.patients, client.pathology_specimens):
                settle_log(client._session.lake.table(namespace._spec))


def places(lake: Path, kind: str, count: int, seed: int) -> list[Place]:
    """Return places by chance, each bit of all files of a kind as likely as any other; of data files, of live ones."""
    chance = random.Random(f"{kind}{seed}")
    files = live_files(lake) if kind == "data" else sorted(lake.glob(KINDS[kind]))
    sizes = [path.stat().st_size for path in files]
    chosen = chance.choices(files, weights=sizes, k=count)
    return [Place(p.relative_to(lake).as_posix(), chance.randrange(p.stat().st_size * 8)) for p in chosen]


def live_files(lake: Path) -> list[Path]:
    """Return the data files of the newest state."""
    lake_of = client_of(lake)._session.lake
    return sorted(lake / name / str(key) for name in TYPES for key in lake_of.snapshot(spec_of(name)).files["key"])


def client_of(lake: Path) -> Client:
    """Return a client that has seen nothing, long after the story."""
    return connect(str(lake), None, lambda: Clock().now + 30 * DAY)


def answers(lake: Path) -> Answers:
    """Return what plain queries answer: all versions of each type."""
    client = client_of(lake)
    queries = {name: getattr(client, name).query().versions() for name in TYPES}
    return {name: query.sort("identifier", "valid_from").collect() for name, query in queries.items()}


def is_same(one: Answers, other: Answers) -> bool:
    return all(one[name].equals(other[name]) for name in TYPES)


def plain_answer(lake: Path, clean: Answers) -> str:
    """Ask plain queries of a damaged lake: "right", "refused" or "wrong"."""
    try:
        return "right" if is_same(answers(lake), clean) else "wrong"
    except VxDataError:
        return "refused"


class Asker:
    """A process of its own that asks plain queries: a damaged page may end it, where Polars cannot allocate for it."""

    def __init__(self, clean: Answers) -> None:
        self._clean = clean
        self._process = self._started()

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"))

    def ask(self, lake: Path) -> str:
        """Ask plain queries of a damaged lake: "right", "refused", "wrong" or "aborted"."""
        try:
            return self._process.submit(plain_answer, lake, self._clean).result()
        except BrokenProcessPool:
            self._process = self._started()
            return "aborted"

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


def verified(lake: Path, clean: Answers) -> str:
    """Verify a damaged lake: "reported", "harmless", or "missed"."""
    if not client_of(lake).verify().findings.is_empty():
        return "reported"
    return "harmless" if plain_answer(lake, clean) == "right" else "missed"


def compacted(lake: Path, place: Place, clean: Answers) -> str:
    """Compact a damaged lake, repair the damage, and ask: "refused", "right" or "wrong"."""
    try:
        client_of(lake).compact()
    except VxDataError:
        verdict = "refused"
    else:
        verdict = "right"
    place.flip(lake)
    return verdict if is_same(answers(lake), clean) else "wrong"


def erased(lake: Path, place: Place, clean: Answers) -> str:
    """Erase a patient of a damaged lake, repair the damage, and run it again unless it was done.

    Returns:
        "refused" or "reported" if it was not done at first, "right" if it was, and "wrong" if afterwards an answer is
        not as it should be, or anything tells of the patient.
    """
    sound, damaged = place.flipped(lake), (lake / place.path).read_bytes()
    try:
        verdict = "reported" if erase(lake).left else "right"
    except VxDataError:
        verdict = "refused"
    if (lake / place.path).exists() and (lake / place.path).read_bytes() == damaged:
        (lake / place.path).write_bytes(sound)
    if verdict != "right" and erase(lake).left:
        return "wrong"
    is_gone = not any(ERASED.encode() in told for told in contents(lake))
    return verdict if is_gone and is_same(answers(lake), without_erased(clean)) else "wrong"


def erase(lake: Path) -> Erasure:
    no_wait = clock_of_today().patience(deadline_seconds=1.0)  # by a clock that only waiting moves
    return open_client(str(lake), no_wait).erase(ERASED, reason="consent withdrawn", dry_run=False)


def contents(lake: Path) -> Iterator[bytes]:
    """Return what each file of a lake says; data is decoded, because its pages are compressed."""
    for path in sorted(path for path in lake.rglob("*") if path.is_file()):
        data = path.read_bytes()
        yield repr(pl.read_parquet(data).to_dicts()).encode() if path.suffix == ".parquet" else data


def without_erased(clean: Answers) -> Answers:
    is_its = (pl.col("identifier") == ERASED) | pl.col("ancestors").list.contains(ERASED)
    return {name: rows.filter(~is_its) for name, rows in clean.items()}


def tally(verdicts: Sequence[str]) -> dict[str, int]:
    return {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
