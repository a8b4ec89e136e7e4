"""The time that a command of the command line takes to start, in processor time of whole processes."""

import statistics
import sys
from pathlib import Path

from benchmarks.measure import Row, processor_seconds
from vxdata.schemas import Resource
from vxdata.sdk import Client

VXDATA = ("-m", "vxdata_cli")
TYPER = """
import typer
app = typer.Typer()
@app.command()
def one(name: str, loud: bool = False) -> None: "Do one thing."
@app.command()
def other(name: str, times: int = 1) -> None: "Do another thing."
app()
"""
PEERS = {"typer": ("-c", TYPER, "--help"), "polars": ("-c", "import polars, deltalake")}


def measure(folder: Path, runs: int = 15) -> list[Row]:
    """Race whole processes, in turn.

    Args:
        folder: where a small lake is made.
        runs: how many pairs.
    """
    uri = str(folder / "startup")
    Client(uri).datasources.create(Resource(identifier="datasource/d"))
    complete = {"_VXDATA_COMPLETE": "complete_bash", "COMP_WORDS": "vxdata ", "COMP_CWORD": "1"}
    get = (*VXDATA, "get", "datasource/d", "--uri", uri)
    return [
        _race("vxdata --help / a typer program's --help", (*VXDATA, "--help"), "typer", 1.5, runs),
        _race("completion of 'vxdata ' / a typer program's --help", VXDATA, "typer", 1.5, runs, complete),
        _race("vxdata get / import polars, deltalake", get, "polars", 1.3, runs),
    ]


def _race(
    question: str, ours: tuple[str, ...], peer: str, target: float, runs: int, environment: dict[str, str] | None = None
) -> Row:
    own, other = (sys.executable, *ours), (sys.executable, *PEERS[peer])
    pairs = [(processor_seconds(*own, **(environment or {})), processor_seconds(*other)) for _ in range(runs + 1)][1:]
    mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Row(question, mine * 1e3, theirs * 1e3, statistics.median(a / b for a, b in pairs), target)
