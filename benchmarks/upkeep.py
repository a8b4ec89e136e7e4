"""Compaction against bare Polars over the same files, its peak memory, and what it leaves to queries."""

import json
import os
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from benchmarks import engines
from benchmarks.generated import chunk, make_partition
from benchmarks.measure import Race, Row, in_process, raced
from vxdata.catalog.table import table_spec
from vxdata.lake.intent import NO_PREMISES, Plan, Stamp
from vxdata.lake.lake import Lake
from vxdata.lake.run import run_commit
from vxdata.lake.store import open_store
from vxdata.schemas.payload import VolumePayload
from vxdata.sdk import Client

VOLUMES = table_spec(VolumePayload)
SOURCE, MILLION, LARGE = "g07", 1_000_000, 10_000_000
TAIL_COMMITS, VERSIONS, VERSIONED = 1_000, 10, 100_000
FOLD_GOAL, MEMORY_GOAL_GIB, QUERY_GOAL = 1.5, 1.5, 1.05

COMPACT = """
import json, logging, sys
logging.disable(logging.WARNING)
from vxdata.sdk import Client
report = Client(sys.argv[1]).compact("volumes")
print(json.dumps(report.rounds.height))
"""

REWRITE = """
import json, sys
import polars as pl
files, count, folder = json.load(open(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
rows = pl.scan_parquet(files).sort("identifier", "valid_from").collect()
size = -(-rows.height // count)
for n in range(count):
    rows.slice(n * size, size).write_parquet(f"{folder}/{n}.parquet", compression="zstd")
"""


def compaction(lake: Path, work: Path, runs: int = 5) -> list[Row]:
    """Fold a tail of single-row commits in turn with Polars' read, sort and write of the files that the fold touches.

    Args:
        lake: the lake without the tail; it is left as it is.
        work: where copies go; the tailed one stays as `tailed`, a folded one as `folded`.
        runs: how many pairs.
    """
    tailed, folded = work / "tailed", work / "folded"
    linked(lake, tailed)
    add_tail(tailed, work)
    pairs = []
    for _ in range(runs):
        linked(tailed, folded)
        ours = in_process(COMPACT, str(folded))
        before, after = live_files(tailed), live_files(folded)
        touched, target = work / "touched.json", work / "rewritten"
        touched.write_text(json.dumps(sorted(before - after)))
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        pairs.append((ours, in_process(REWRITE, str(touched), str(len(after - before)), str(target))))
    mine, theirs = zip(*pairs, strict=True)
    words = f"fold {TAIL_COMMITS:,} single-row commits over a million / Polars reads, sorts and writes the same files"
    median = statistics.median
    return [
        Row(
            words,
            median(r.wall for r in mine),
            median(r.wall for r in theirs),
            median(a.wall / b.wall for a, b in pairs),
            FOLD_GOAL,
            "s",
        ),
        Row(
            "the same, processor time",
            median(r.cpu for r in mine),
            median(r.cpu for r in theirs),
            median(a.cpu / b.cpu for a, b in pairs),
            None,
            "s",
        ),
    ]


def memory(lake: Path, work: Path, every: int) -> Row:
    """Return the peak memory of folding a partition in which every n-th resource has changed."""
    copy = work / "changed"
    linked(lake, copy)
    client = Client(copy)
    names = client.volumes.query().select("identifier").collect().sort("identifier").gather_every(every)
    client.volumes.upsert(names.with_columns(pl.lit("T1 map").alias("volume_type")))
    rows, changed = client.volumes.query().count(), names.height
    del client
    run = in_process(COMPACT, str(copy))
    shutil.rmtree(copy)
    words = f"peak memory of folding {changed:,} changes into {rows:,} rows ({run.wall:.0f} s), GiB / 1.5 GiB"
    return Row(words, run.peak_gib, MEMORY_GOAL_GIB, run.peak_gib / MEMORY_GOAL_GIB, 1.0, "GiB")


def queries(folded: Path, never: Path, words: str, runs: int) -> Iterator[Race]:
    """Race current queries of a folded lake against those of a lake of the same rows that never had updates."""
    ours, peer = Client(folded), Client(never)
    for question in engines.LARGE.filters:
        mine, theirs = (c.volumes.query().filter(question.ours).select(*engines.COLUMNS) for c in (ours, peer))
        yield raced(f"{words}: {question.words}", mine.collect, {"never updated": theirs.collect}, QUERY_GOAL, runs)


def versioned(work: Path) -> tuple[Path, Path]:
    """Return a folded lake with ten versions of each resource, and one that has had the last of them alone."""
    folded, never = work / "versioned", work / "unversioned"
    patients, studies, volumes = chunk(SOURCE, VERSIONED)
    for lake, versions in ((folded, VERSIONS), (never, 1)):
        client = Client(lake)
        client.datasources.upsert(pl.DataFrame({"identifier": [f"datasource/{SOURCE}"]}))
        client.patients.upsert(patients)
        client.imaging_studies.upsert(studies)
        for left in range(versions - 1, -1, -1):
            client.volumes.upsert(volumes.with_columns(b_value=pl.lit(float(left))))
    Client(folded).compact("volumes")
    return folded, never


def measure(work: Path) -> tuple[list[Row], list[Race]]:
    """Take the measures that need a million rows: ratios, and races of queries."""
    million = work / "million"
    make_partition(million, MILLION, SOURCE)
    rows = compaction(million, work)
    races = [
        *queries(work / "folded", million, f"{TAIL_COMMITS:,} commits folded", runs=31),
        *queries(*versioned(work), f"{VERSIONS} versions of {VERSIONED:,}", runs=31),
    ]
    return rows, races


def measure_large(work: Path) -> list[Row]:
    """Take the measures that need a partition of 10 million rows."""
    make_partition(work / "partition", LARGE, SOURCE)
    return [memory(work / "partition", work, every) for every in (100, 10)]


def add_tail(lake: Path, work: Path) -> None:
    """Update single resources, spread over the table, each in a commit of its own.

    The updates are planned together, on a copy: what is measured is the tail, not how it came.
    """
    scratch = work / "scratch"
    linked(lake, scratch)
    client = Client(scratch)
    names = client.volumes.query().select("identifier").collect().sort("identifier").sample(TAIL_COMMITS, seed=1)
    client.volumes.upsert(names.with_columns(b_value=pl.lit(1.0)))
    planned = Lake(open_store(str(scratch))).snapshot(VOLUMES)
    rows = planned.collect(planned.rows.filter(pl.col("closes").is_not_null()))
    target = Lake(open_store(str(lake)))
    for row in rows.iter_slices(1):
        plan = Plan(row, NO_PREMISES)
        run_commit(target, VOLUMES, lambda base: plan, Stamp("update", "benchmark"))  # noqa: B023


def live_files(lake: Path, table: str = "volumes") -> set[str]:
    """Return the paths of the live data files of a table."""
    return set(DeltaTable(str(lake / table)).file_uris())


def linked(lake: Path, copy: Path) -> None:
    """Copy a lake by links, in the place of an older copy: its files are never written twice, only replaced."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(lake, copy, copy_function=os.link)
