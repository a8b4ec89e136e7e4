"""Which files of a partition a compaction rewrites: pure, from the statistics of the log.

Files are of four kinds. *Tail*: it holds closings, which every current read has to look at. *Mixed*: current and closed
versions side by side. *Current* and *closed*: what compaction leaves. A fold rewrites the tail, the files that hold the
versions that it closes, and, where there are too many of them, small files and files that lie over each other. What it
leaves behind is counted beforehand, so that a second fold finds nothing to do.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN
from vxdata.lake.datafile import FILE_ROWS
from vxdata.lake.snapshot import Snapshot
from vxdata.schemas.columns import INSTANT

TAIL, MIXED, CURRENT, CLOSED = "tail", "mixed", "current", "closed"
_LAST = "\U0010ffff"


@dataclass(frozen=True)
class FoldPolicy:
    """When a tail is worth folding, and how the files shall be.

    Attributes:
        tail_files: a partition whose tail has fewer files is left alone, unless
        tail_share: its tail has this share of the partition's rows.
        file_rows: rows of a full file; a file of less than half of it is small.
        most_small: how many small files of one kind a partition may have.
        most_layers: how many files of one kind may lie over each other.
        memory_rows: the rows of small files that are held in memory at once; more are folded in rounds.
    """

    tail_files: int = 1
    tail_share: float = 0.0
    file_rows: int = FILE_ROWS
    most_small: int = 4
    most_layers: int = 4
    memory_rows: int = 2 * FILE_ROWS


BY_SCHEDULE = FoldPolicy(tail_files=16, tail_share=0.05)
"""When writers, `vxdata info` and scheduled jobs find that a tail is worth folding."""


def file_facts(snapshot: Snapshot) -> pl.DataFrame:
    """Return what the log says of each live file.

    Returns:
        key, datasource_id, size, rows, low, high (identifiers), begins (the earliest valid_from), kind.
    """
    known = snapshot.statistics
    files = snapshot.files.select("key", PARTITION_COLUMN, "size", pl.col("num_records").alias("rows"))
    counts = {name: _column(known, f"{name}_nc", pl.UInt32()) for name in ("closes", "valid_to")}
    bounds = {end: _column(known, f"identifier_{name}", pl.String()) for end, name in (("low", "min"), ("high", "max"))}
    without_closings = (counts["closes"] == files["rows"]).fill_null(False)
    is_current = (counts["valid_to"] == files["rows"]).fill_null(False)
    is_closed = (counts["valid_to"] == 0).fill_null(False)
    kind = (
        pl.when(~without_closings)
        .then(pl.lit(TAIL))
        .when(is_current)
        .then(pl.lit(CURRENT))
        .when(is_closed)
        .then(pl.lit(CLOSED))
        .otherwise(pl.lit(MIXED))
    )
    return files.with_columns(
        pl.col("rows").fill_null(0),
        bounds["low"].fill_null("").alias("low"),
        bounds["high"].fill_null(_LAST).alias("high"),
        _column(known, "valid_from_min", INSTANT).alias("begins"),
        pl.select(kind.alias("kind")).to_series(),
    )


def _column(statistics: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Series:
    if name in statistics.columns:
        return statistics[name].cast(dtype)
    return pl.Series([None], dtype=dtype).new_from_index(0, statistics.height)


def is_worth_folding(facts: pl.DataFrame, policy: FoldPolicy) -> bool:
    """Whether a partition is to be folded.

    Args:
        facts: of the files of one partition.
        policy: when a tail is worth it.
    """
    tail = facts.filter(pl.col("kind") == TAIL)
    is_large = int(tail["rows"].sum()) >= policy.tail_share * int(facts["rows"].sum())
    is_due = tail.height >= policy.tail_files or (tail.height > 0 and is_large)
    return is_due or bool(_too_many(facts.filter(pl.col("kind") != TAIL), None, policy))


def partitions_to_fold(snapshot: Snapshot, policy: FoldPolicy) -> list[str]:
    """Return the partitions of a table that are worth folding."""
    by_partition = file_facts(snapshot).sort(PARTITION_COLUMN).group_by(PARTITION_COLUMN, maintain_order=True)
    return [str(name) for (name,), files in by_partition if is_worth_folding(files, policy)]


def chosen_tail(facts: pl.DataFrame, policy: FoldPolicy) -> set[str]:
    """Return the tail and mixed files of a partition that one round takes: the oldest, as many as memory holds.

    A closing names an older version, so the oldest files drag no newer ones along. Full files are read by range.
    """
    waiting = facts.filter(pl.col("kind").is_in([TAIL, MIXED])).sort("begins", nulls_last=True)
    held = pl.when(pl.col("rows") < policy.file_rows // 2).then("rows").otherwise(0).cum_sum()
    fitting = waiting.filter(held <= policy.memory_rows)
    return set((fitting if fitting.height else waiting.head(1))["key"])


def with_targets(chosen: set[str], edges: Iterable[tuple[str, str]]) -> set[str]:
    """Return chosen files with all files that hold versions which they close, and what those close in turn.

    Args:
        chosen: keys of files.
        edges: a file that holds a closing, and the file that holds the version that it names.
    """
    targets: dict[str, set[str]] = {}
    for closing, target in edges:
        targets.setdefault(closing, set()).add(target)
    found, wave = set(chosen), set(chosen)
    while wave:
        wave = {target for key in wave for target in targets.get(key, ())} - found
        found |= wave
    return found


def with_crowds(facts: pl.DataFrame, chosen: set[str], policy: FoldPolicy) -> set[str]:
    """Return chosen files with the small and the overlapping ones of which there are too many."""
    taken = facts.filter(pl.col("key").is_in(list(chosen)))
    bounds = (str(taken["low"].min()), str(taken["high"].max())) if chosen else None
    rest = facts.filter(~pl.col("key").is_in(list(chosen)) & pl.col("kind").is_in([CURRENT, CLOSED]))
    return chosen | _too_many(rest, bounds, policy)


def _too_many(rest: pl.DataFrame, written: tuple[str, str] | None, policy: FoldPolicy) -> set[str]:
    """Return the small files, and those that lie over each other, where there are more than there may be.

    Args:
        rest: files that are not rewritten yet.
        written: the range of what is rewritten; it leaves one more small file, and two more layers.
        policy: how many there may be.
    """
    found: set[str] = set()
    for _, files in rest.group_by("kind"):
        small = files.filter(pl.col("rows") < policy.file_rows // 2).sort("low")
        if small.height + (written is not None) > policy.most_small:
            found |= set(_within_memory(small, policy))
            continue
        ranges = list(files.select("low", "high").iter_rows())
        written_layers = [] if written is None else [written, written]  # full files, and the rows between kept ones
        if _depth([*ranges, *written_layers]) > policy.most_layers:
            found |= set(files.filter(_overlaps_another(ranges))["key"])
    return found


def _within_memory(small: pl.DataFrame, policy: FoldPolicy) -> list[str]:
    """Return as many small files as memory holds, at least two: one alone would be rewritten for nothing."""
    fits = small.filter(pl.col("rows").cum_sum() <= policy.memory_rows)
    return (fits if fits.height > 1 else small.head(2))["key"].to_list()


def _depth(ranges: list[tuple[str, str]]) -> int:
    """Return how many ranges lie over each other where they are most.

    Ranges that only touch do not: the versions of one identifier may go on in the next file.
    """
    ends = sorted([(high, 0) for _, high in ranges] + [(low, 1) for low, _ in ranges])
    depth = most = 0
    for _, is_start in ends:
        depth += 1 if is_start else -1
        most = max(most, depth)
    return most


def _overlaps_another(ranges: list[tuple[str, str]]) -> pl.Series:
    """Return of each range whether it lies over another one; a point inside of another range does."""
    order = sorted(range(len(ranges)), key=lambda n: ranges[n])
    overlaps = [False] * len(ranges)
    reach, reacher = "", -1
    for n in order:
        low, high = ranges[n]
        if reacher >= 0 and low < reach:
            overlaps[n] = overlaps[reacher] = True
        if reacher < 0 or high > reach:
            reach, reacher = high, n
    return pl.Series(overlaps, dtype=pl.Boolean)
