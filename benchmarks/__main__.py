"""Run the benchmarks and print them as tables: `make bench`, or `python -m benchmarks [ingest|queries|engines|...]`."""

import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import engines, files, generated, imports, ingest, merge, queries, requests, startup, upkeep
from benchmarks.measure import Race, Row

console = Console(width=140)


def show(title: str, rows: Iterable[Row]) -> None:
    """Print one table of ratios."""
    table = Table("ours / peer", "ours", "peer", "ratio", "at most", "", title=title)
    for row in rows:
        limit = "" if row.target is None else f"{row.target:.2f}"
        table.add_row(
            row.question,
            f"{row.ours:.2f} {row.unit}",
            f"{row.peer:.2f} {row.unit}",
            f"{row.ratio:.2f}",
            limit,
            row.verdict,
        )
    console.print(table)


def show_races(title: str, races: Iterable[Race]) -> None:
    """Print one table of times in milliseconds, each question against the fastest of several peers."""
    found = list(races)
    peers = list(dict.fromkeys(name for race in found for name in race.peers))
    table = Table("ms", "ours", *peers, "ratio to the fastest", "of processor time", "at most", "", title=title)
    for race in found:
        times = (f"{race.peers[name]:.1f}" if name in race.peers else "" for name in peers)
        verdict = (f"{race.ratio:.2f}", f"{race.work:.2f}", f"{race.target:.2f}", race.verdict)
        table.add_row(race.question, f"{race.ours:.1f}", *times, *verdict)
    console.print(table)


def main(chosen: set[str]) -> None:
    """Run the benchmarks that were asked for, all by default."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        work, lake = Path(folder), Path(folder) / "lake"
        if "imports" in chosen:
            show("Import", imports.measure())
        if "startup" in chosen:
            show("Starting up", startup.measure(work))
        if chosen & {"ingest", "queries", "engines"}:
            show("Ingest", ingest.measure(work, lake, runs=3 if "ingest" in chosen else 1))
        if "files" in chosen:
            show("Files", files.measure(work))
        if "queries" in chosen:
            show("Queries", queries.filters(lake, "no tail", 1.15))
            show("Queries with a tail", queries.with_tail(lake, work))
            show("Look-ups", queries.lookups(lake, work))
        if "engines" in chosen:
            show_races("Engines over the same files, IDC", engines.filters(lake, engines.IDC, runs=11))
            show_races("The scan alone, IDC", engines.scans(lake, engines.IDC, runs=11))
            show_races("Subqueries, IDC", engines.subqueries(lake, engines.IDC, runs=11))
            show("Planning, IDC", engines.planning(lake, engines.IDC))
        if "upkeep" in chosen:
            rows, races = upkeep.measure(work)
            show("Upkeep", [*rows, *merge.measure(work)])
            show_races("Current queries after compaction", races)
            console.print(merge.requests())
        if "upkeep-large" in chosen:
            show("Upkeep, 10 million", [*upkeep.measure_large(work), *merge.measure_large(work)])
        if "large" in chosen:
            large = work / "large"
            console.print(f"{generated.ROWS:,} volumes were upserted in {generated.make_lake(large):.0f} s")
            show_races("Engines over the same files, 10 million", engines.filters(large, engines.LARGE, runs=5))
            show_races("The scan alone, 10 million", engines.scans(large, engines.LARGE, runs=5))
            show_races("Subqueries, 10 million", engines.subqueries(large, engines.LARGE, runs=5))
            show("Planning, 10 million", engines.planning(large, engines.LARGE))
        if "requests" in chosen:
            console.print(requests.measure())


if __name__ == "__main__":
    main(set(sys.argv[1:]) or {"imports", "startup", "ingest", "queries", "engines", "files", "upkeep", "requests"})
