"""One bit is flipped by chance: `verify` reports it or it is harmless, and compaction never makes it worse."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from tests.conftest import TellFigures
from tests.support.broken import RULES
from tests.support.damage import (
    ERASED,
    KINDS,
    OTHER,
    Answers,
    Asker,
    Place,
    answers,
    client_of,
    compacted,
    erased,
    is_same,
    places,
    tally,
    tell,
    verified,
)
from tests.support.operations import DAY
from tests.support.stepping import open_client
from tests.support.upkeep import clock_of_today, make_older
from vxdata.errors import StorageError
from vxdata.lake import checkpoint, seals
from vxdata.lake.checkpoint import settle_log
from vxdata.lake.log import LogEntry, parse_entry
from vxdata.lake.log_checksum import CHECKSUM_KEY
from vxdata.lake.table import Table
from vxdata.lake.trim import trim_log
from vxdata.sdk import Client

FEW, MANY = 6, 200
LONG = pytest.param(MANY, marks=[pytest.mark.torture, pytest.mark.timeout(0)])
Copy = Callable[[], Path]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "lake"
    tell(folder)
    return folder


@pytest.fixture(scope="module")
def clean(told: Path) -> Answers:
    return answers(told)


@pytest.fixture(scope="module")
def asker(clean: Answers) -> Iterator[Asker]:
    asker = Asker(clean)
    yield asker
    asker.close()


@pytest.fixture
def copied(told: Path, tmp_path: Path) -> Iterator[Copy]:
    """A function that gives a new copy of the lake, and takes the one before away."""
    lake = tmp_path / "lake"

    def copy() -> Path:
        shutil.rmtree(lake, ignore_errors=True)
        return Path(shutil.copytree(told, lake))

    yield copy
    shutil.rmtree(lake, ignore_errors=True)


@pytest.mark.parametrize("count", [FEW, LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_verify_reports_a_flipped_bit_or_it_is_harmless(
    copied: Copy, clean: Answers, kind: str, count: int, tell_figures: TellFigures
) -> None:
    lake, found = copied(), {}
    for place in places(lake, kind, count, 1):
        place.flip(lake)
        found[place] = verified(lake, clean)
        place.flip(lake)
    tell_figures(f"{tally(list(found.values()))}")
    assert [place for place, verdict in found.items() if verdict == "missed"] == []


@pytest.mark.parametrize("count", [FEW, LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_compaction_refuses_a_flipped_bit_or_is_not_misled_by_it(
    copied: Copy, clean: Answers, kind: str, count: int, tell_figures: TellFigures
) -> None:
    found = [tried(compacted, copied, place, clean) for place in places(copied(), kind, count, 2)]
    tell_figures(f"{tally(found)}")
    assert [verdict for verdict in found if verdict.startswith("wrong")] == []


@pytest.mark.parametrize("count", [2, LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_an_erasure_stops_at_a_flipped_bit_or_leaves_nothing(
    copied: Copy, clean: Answers, kind: str, count: int, tell_figures: TellFigures
) -> None:
    found = [tried(erased, copied, place, clean) for place in places(copied(), kind, count, 5)]
    tell_figures(f"{tally(found)}")
    assert [verdict for verdict in found if verdict.startswith("wrong")] == []


@pytest.mark.parametrize("count", [FEW, LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_plain_query_cannot_notice_is_counted(
    copied: Copy, asker: Asker, kind: str, count: int, tell_figures: TellFigures
) -> None:
    lake, found = copied(), []
    for place in places(lake, kind, count, 3):
        place.flip(lake)
        found.append(asker.ask(lake))
        place.flip(lake)
    tell_figures(f"{tally(found)}")
    assert asker.ask(lake) == "right"


# -- the log, as a whole


def log_of(lake: Path) -> dict[Path, bytes]:
    """Return what the files of the patients' log hold, and those of its checksums."""
    files = [*lake.glob("patients/_delta_log/*"), *lake.glob("_vxdata/checkpoints/patients/*")]
    return {path: path.read_bytes() for path in files}


def falsify(lake: Path, kind: str) -> Path:
    """Let the log tell a lie of a file of the patients that opens: in the newest checkpoint or the newest entry."""
    path = sorted(lake.glob(f"patients/{KINDS[kind].removeprefix('*/')}"))[-1]
    told, lie = ("patient/0", "patient/9")
    if kind == "log":
        path.write_bytes(path.read_bytes().replace(told.encode(), lie.encode()))
    else:
        rows = pl.read_parquet(path)
        stats = pl.col("add").struct.field("stats").str.replace_all(told, lie)
        kept = pl.when(pl.col("add").struct.field("path").is_not_null()).then(
            pl.col("add").struct.with_fields(stats=stats)
        )
        rows.with_columns(kept.alias("add")).write_parquet(path)
    return path


ACTS: dict[str, Callable[[Client], object]] = {
    "compact": lambda client: client.compact("patients"),
    "checkpoint": lambda client: settle_log(patients_of(client)),
    "trim": lambda client: trim_log(patients_of(client), datetime.now(UTC) + 90 * DAY),
    "vacuum": lambda client: vacuum(client),
    "erase": lambda client: client.erase(ERASED, reason="consent withdrawn", dry_run=False),
}


def vacuum(client: Client) -> object:
    make_older(client.uri, 60 * DAY, "patients/datasource_id=*/*")
    return open_client(client.uri, clock_of_today().patience()).vacuum(dry_run=False)


def patients_of(client: Client) -> Table:
    return client._session.lake.table(client.patients._spec)


@pytest.mark.parametrize(
    ("kind", "act"), [*(("checkpoint", act) for act in ACTS), *(("log", act) for act in ACTS if act != "trim")]
)
def test_a_log_that_opens_and_lies_is_not_built_on(copied: Copy, clean: Answers, kind: str, act: str) -> None:
    lake = copied()
    sound = log_of(lake)
    lying = falsify(lake, kind)
    assert lying.read_bytes() != sound[lying]
    with pytest.raises(StorageError, match=rf"{lying.name}.*(damaged|checksum)"):
        ACTS[act](client_of(lake))
    assert verified(lake, clean) == "reported"
    assert log_of(lake).keys() == sound.keys()
    lying.write_bytes(sound[lying])
    assert verified(lake, clean) == "harmless"
    ACTS[act](client_of(lake))
    assert client_of(lake).verify().ok


@pytest.mark.parametrize("kind", ["checkpoint", "log"])
def test_without_checksums_of_the_log_a_lie_would_be_carried_on(
    copied: Copy, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = copied()
    falsify(lake, kind)
    RULES["log checksum"](monkeypatch)
    assert settle_log(patients_of(client_of(lake))) is not None
    newest = sorted(lake.glob("patients/_delta_log/*.checkpoint.parquet"))[-1]
    told = pl.read_parquet(newest)["add"].struct.field("stats").drop_nulls()
    assert told.str.contains("patient/9", literal=True).any()


def test_the_checkpoint_that_is_looked_at_is_the_one_that_is_built_on(copied: Copy) -> None:
    lake = copied()
    client, other = client_of(lake), client_of(lake)
    settle_log(patients_of(client))
    hint = lake / "patients/_delta_log/_last_checkpoint"
    earlier = hint.read_bytes()
    write(other, 1)
    settle_log(patients_of(other))
    falsify(lake, "checkpoint")
    hint.write_bytes(earlier)  # as after a kill between a checkpoint and its hint
    write(other, 2)
    for late in (client, client_of(lake)):
        with pytest.raises(StorageError, match=r"checkpoint\.parquet is damaged"):
            settle_log(patients_of(late))
        with pytest.raises(StorageError, match=r"checkpoint\.parquet is damaged"):
            late.compact("patients")


def write(client: Client, number: int) -> None:
    client.patients.upsert(pl.DataFrame({"identifier": [f"patient/new{number}"], "parent_identifier": [OTHER]}))


def test_a_checksum_that_was_left_by_another_state_is_no_false_alarm(
    copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = copied()
    client = client_of(lake)
    patients = patients_of(client)
    write(client, 1)
    left = lake / seals.seal_key("patients", patients.snapshot().version)
    left.write_text('{"version": 0, "sha256": "of a table that was restored from a backup"}')
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "seal_checkpoint", lambda *_: raise_(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            settle_log(patients)
    assert not left.exists()
    assert client.verify().ok
    write(client, 2)
    assert settle_log(patients) is not None


def raise_(error: BaseException) -> None:
    raise error


def test_a_checkpoint_that_says_the_same_in_other_bytes_is_as_it_was_written(copied: Copy) -> None:
    lake = copied()
    ours = sorted(lake.glob("patients/_delta_log/*.checkpoint.parquet"))[-1]
    before = ours.read_bytes()
    pq.write_table(pq.read_table(ours), ours, compression="zstd")
    assert ours.read_bytes() != before
    assert client_of(lake).verify().ok


def test_parts_of_a_checkpoint_by_another_writer_are_not_held_against_the_checksum_of_ours(copied: Copy) -> None:
    lake = copied()
    ours = sorted(lake.glob("patients/_delta_log/*.checkpoint.parquet"))[-1]
    rows = pq.read_table(ours)
    for part, some in enumerate((rows.slice(0, 5), rows.slice(5)), start=1):
        pq.write_table(some, ours.with_name(f"{ours.name[:20]}.checkpoint.{part:010d}.{2:010d}.parquet"))
    ours.unlink()
    assert client_of(lake).verify().ok


def test_a_checksum_in_the_wrong_place_is_damage(copied: Copy) -> None:
    lake = copied()
    entry = sorted(lake.glob("patients/_delta_log/*.json"))[-1]
    entry.write_bytes(entry.read_bytes().replace(b'"commitInfo"', b'"commitInfn"'))
    with pytest.raises(StorageError, match=r"the log entry is damaged"):
        settle_log(patients_of(client_of(lake)))


def test_a_bit_that_flips_in_an_entry_is_seen_or_changes_nothing_but_when_and_what_it_is_called(told: Path) -> None:
    entries = [path.read_bytes() for path in told.glob("patients/_delta_log/*.json")]
    data = bytearray(max((entry for entry in entries if CHECKSUM_KEY.encode() in entry), key=len))
    sound, chance = parse_entry(bytes(data), 1, "here"), random.Random(1)
    verdicts: Counter[str] = Counter()
    for bit in chance.sample(range(len(data) * 8), 4_000):
        data[bit // 8] ^= 1 << bit % 8
        try:
            found = parse_entry(bytes(data), 1, "here")
            verdicts["seen" if not found.is_as_written else "harmless"] += 1
            assert not found.is_as_written or unnamed(found) == unnamed(sound)
        except StorageError:
            verdicts["unreadable"] += 1
        data[bit // 8] ^= 1 << bit % 8
    assert verdicts.keys() == {"seen", "unreadable", "harmless"}


def unnamed(entry: LogEntry) -> LogEntry:
    """Return an entry without what deltalake says of it, which no checksum of ours covers."""
    return replace(entry, timestamp=None, operation=None)


def rename_in_log(lake: Path, old: str, new: str) -> None:
    """Rename a column of the patients wherever the log has its name, in a log without checksums."""
    for seal in lake.glob("_vxdata/checkpoints/patients/*"):
        seal.unlink()
    for path, data in log_of(lake).items():
        if path.suffix == ".json":
            renamed = data.replace(rf"\"{old}\"".encode(), rf"\"{new}\"".encode())
            path.write_bytes(renamed.replace(CHECKSUM_KEY.encode(), b"of_another_writer"))
        elif path.name.endswith(".checkpoint.parquet"):
            rows = pl.read_parquet(path)
            text = pl.col("metaData").struct.field("schemaString").str.replace_all(f'"{old}"', f'"{new}"')
            named = pl.col("metaData").struct.with_fields(schemaString=text)
            kept = pl.when(pl.col("metaData").struct.field("id").is_not_null()).then(named)
            rows.with_columns(kept.alias("metaData")).write_parquet(path)


@pytest.mark.parametrize("act", ["compact", "checkpoint"])
def test_a_column_whose_name_the_log_lost_is_neither_folded_away_nor_forgotten(
    copied: Copy, clean: Answers, act: str
) -> None:
    lake = copied()
    sound = log_of(lake)
    rename_in_log(lake, "sex", "sey")
    with pytest.raises(StorageError, match=r"a data file has a column that the log has lost.*sex"):
        ACTS[act](client_of(lake))
    assert verified(lake, clean) == "reported"
    assert set(lake.glob("patients/_delta_log/*")) <= sound.keys()
    for path, data in sound.items():
        path.write_bytes(data)
    assert is_same(answers(lake), clean)


def test_without_checksums_a_flipped_bit_would_pass_verify_and_be_folded_in(
    copied: Copy, clean: Answers, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_folded_in(place: Place) -> bool:
        with monkeypatch.context() as patched:
            RULES["checksum"](patched)
            return tried(compacted, copied, place, clean).startswith("wrong")

    silent = (place for place in places(copied(), "data", 2_000, 4) if is_silent(copied(), place, asker))
    misleading = next(place for place in silent if is_folded_in(place))
    lake = copied()
    misleading.flip(lake)
    assert verified(lake, clean) == "reported"


def tried(act: Callable[[Path, Place, Answers], str], copied: Copy, place: Place, clean: Answers) -> str:
    """Flip the bit in a new copy, do something with that lake, and return the verdict, a wrong one with its place."""
    lake = copied()
    place.flip(lake)
    verdict = act(lake, place, clean)
    return f"wrong: {place}" if verdict == "wrong" else verdict


def is_silent(lake: Path, place: Place, asker: Asker) -> bool:
    """Whether plain queries answer wrongly with the bit flipped."""
    place.flip(lake)
    return asker.ask(lake) == "wrong"
