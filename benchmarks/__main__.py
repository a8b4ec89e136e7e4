"""Run the benchmarks and print them as tables: `make bench`, or `python -m benchmarks [ingest|queries|...]`."""

import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import imports, ingest, queries, requests
from benchmarks.measure import Row

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


def main(chosen: set[str]) -> None:
    """Run the benchmarks that were asked for, all by default."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        work, lake = Path(folder), Path(folder) / "lake"
        if "imports" in chosen:
            show("Import", imports.measure())
        if chosen & {"ingest", "queries"}:
            show("Ingest", ingest.measure(work, lake, runs=3 if "ingest" in chosen else 1))
        if "queries" in chosen:
            show("Queries", queries.filters(lake, "no tail", 1.15))
            show("Queries with a tail", queries.with_tail(lake, work))
            show("Look-ups", queries.lookups(lake, work))
        if "requests" in chosen:
            console.print(requests.measure())


if __name__ == "__main__":
    main(set(sys.argv[1:]) or {"imports", "ingest", "queries", "requests"})
