"""Rules of the protocol, each with the patch that takes it out: a test that cannot fail proves nothing.

Each patch replaces one small thing of the product, and the test that guards the rule must then see the bad outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import deltalake
import polars as pl
import pytest

from vxdata.lake import (
    commit,
    create,
    datafile,
    delete,
    log,
    planning,
    restore,
    revert,
    run,
    scd2,
    seals,
    table,
    update,
    upsert,
    upsert_plan,
)
from vxdata.lake.log import LogEntry
from vxdata.lake.lookup import read_current
from vxdata.schemas.columns import INSTANT

WRITERS = (create, delete, planning, restore, revert, update, upsert, upsert_plan)
Patch = Callable[[pytest.MonkeyPatch], None]


def _everywhere(patch: pytest.MonkeyPatch, name: str, replacement: Any) -> None:
    """Replace a function in all modules that plan writes and imported it."""
    for module in WRITERS:
        patch.setattr(module, name, replacement, raising=False)


def _own_commit(patch: pytest.MonkeyPatch) -> None:
    """Step (a): nobody recognises a log entry as its own."""
    patch.setattr(LogEntry, "commit_id", None)


def _premises(patch: pytest.MonkeyPatch) -> None:
    """Step (b): what others changed never matters."""
    patch.setattr(commit, "_breaks", lambda *_: False)


def _same_files(patch: pytest.MonkeyPatch) -> None:
    """Step (d): every lost race is planned again."""
    patch.setattr(commit._Put, "_is_stale", lambda *_: True)


def _missing_entry(patch: pytest.MonkeyPatch) -> None:
    """A log entry that is missing is taken for one without content."""
    read = commit.read_entry

    def read_or_make_up(store: Any, namespace: str, version: int) -> LogEntry:
        return read(store, namespace, version) or LogEntry(version, {}, None, None, (), (), False, False)

    patch.setattr(commit, "read_entry", read_or_make_up)


def _no_retries(patch: pytest.MonkeyPatch) -> None:
    """deltalake's own retries, 15 of them, in place of none."""
    original = deltalake.CommitProperties
    patch.setattr(deltalake, "CommitProperties", lambda max_commit_retries, **rest: original(**rest))


def _incarnation(patch: pytest.MonkeyPatch) -> None:
    """An update does not look whether the resource was made anew."""

    def without_created_at(*args: Any) -> pl.DataFrame:
        return read_current(*args).with_columns(created_at=pl.datetime(2020, 1, 1, time_unit="us", time_zone="UTC"))

    patch.setattr(update, "read_current", without_created_at)


def _orphans(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks, after a commit, for children without a parent."""
    _everywhere(patch, "refuse_orphans", lambda *_: None)
    _everywhere(patch, "refuse_left_behind", lambda *_: None)


def _later_valid_from(patch: pytest.MonkeyPatch) -> None:
    """W2: the clock alone says when a version begins."""
    patch.setattr(scd2, "next_valid_from", lambda planned, last: pl.lit(planned, INSTANT))


def _created_at(patch: pytest.MonkeyPatch) -> None:
    """W4: each version is created anew."""
    original = scd2.next_rows
    created = pl.col("valid_from").alias("created_at")
    patch.setattr(scd2, "next_rows", lambda *args: original(*args).with_columns(created))


def _tombstones_close(patch: pytest.MonkeyPatch) -> None:
    """R1: a tombstone is not counted among the closings."""
    per_file = table._closings_per_file

    def living(snapshot: Any, files: pl.DataFrame) -> dict[str, pl.DataFrame]:
        dead = snapshot.collect(snapshot.rows_of(files).filter("is_deleted").select("identifier", "valid_from"))
        found = per_file(snapshot, files)
        return {key: rows.join(dead, on=["identifier", "valid_from"], how="anti") for key, rows in found.items()}

    patch.setattr(table, "_closings_per_file", living)


def _closings_have_begun(patch: pytest.MonkeyPatch) -> None:
    """R3: as of T, closings later than T count too."""
    original = scd2.as_of

    def as_of(rows: pl.LazyFrame, closings: pl.LazyFrame | None, instant: Any) -> pl.LazyFrame:
        seen = original(rows, None, instant)
        return seen if closings is None else scd2.without_closed(seen, closings)

    patch.setattr(scd2, "as_of", as_of)


def _fold(patch: pytest.MonkeyPatch) -> None:
    """F2: every closing that is rewritten is taken for done, whether its version takes its end or not."""
    original = scd2.fold

    def fold(rows: pl.LazyFrame, closings: pl.LazyFrame, gone: pl.LazyFrame) -> pl.LazyFrame:
        return original(rows, closings, scd2.closings_of(rows).select("identifier", "closes"))

    patch.setattr(scd2, "fold", fold)


def _live_files(patch: pytest.MonkeyPatch) -> None:
    """Step (c): nobody looks whether the files that a compaction takes out are still live."""
    original = commit._Put._is_stale
    patch.setattr(commit._Put, "_is_stale", lambda put, *args: original(replace(put, removed=()), *args))


def _batch_in_the_log(patch: pytest.MonkeyPatch) -> None:
    """Step (b): nobody looks whether the same batch was committed meanwhile."""
    parse = log.parse_entry
    patch.setattr(log, "parse_entry", lambda *args: replace(parse(*args), app_ids=()))


def _batch_at_the_base(patch: pytest.MonkeyPatch) -> None:
    """A planner does not look whether its batch is committed."""
    patch.setattr(upsert_plan, "is_committed", lambda *_: False)


def _one_commit(patch: pytest.MonkeyPatch) -> None:
    """An operation commits its rows one by one."""
    original = run.commit

    def row_by_row(table: Any, planner: Any, stamp: Any, patience: Any) -> Any:
        def first(base: Any) -> Any:
            plan = planner(base)
            return replace(plan, rows=plan.rows.head(1), app_ids=())

        done = last = original(table, first, stamp, patience)
        while last.version is not None:
            done, last = last, original(table, first, stamp, patience)
        return done

    patch.setattr(run, "commit", row_by_row)


def _checksum(patch: pytest.MonkeyPatch) -> None:
    """Nobody holds the bytes of a file against the checksum in its name."""
    patch.setattr(datafile, "named_checksum", lambda key: None)


def _log_checksum(patch: pytest.MonkeyPatch) -> None:
    """Nobody holds what the log says against its checksums."""
    patch.setattr(seals, "is_as_sealed", lambda *_: True)
    patch.setattr(log, "is_as_written", lambda *_: True)


def _filter_first(patch: pytest.MonkeyPatch) -> None:
    """R2 the wrong way round: filter, then take the latest version of what is left."""

    def latest(rows: pl.LazyFrame, closings: pl.LazyFrame | None, **options: Any) -> pl.LazyFrame:
        newest_last = rows.sort("identifier", "valid_from")
        return newest_last.unique("identifier", keep="last", maintain_order=True).filter(scd2.may_be_current())

    patch.setattr(scd2, "current", latest)


RULES: dict[str, Patch] = {
    "one commit": _one_commit,
    "checksum": _checksum,
    "log checksum": _log_checksum,
    "filter after latest": _filter_first,
    "batch in the log": _batch_in_the_log,
    "batch at the base": _batch_at_the_base,
    "own commit": _own_commit,
    "premises": _premises,
    "same files": _same_files,
    "missing entry": _missing_entry,
    "no retries": _no_retries,
    "incarnation": _incarnation,
    "orphans": _orphans,
    "later valid_from": _later_valid_from,
    "created_at": _created_at,
    "tombstones close": _tombstones_close,
    "closings have begun": _closings_have_begun,
    "fold": _fold,
    "live files": _live_files,
}
