"""`vxdata demo`: an embedded lake with the whole public IDC index, and three questions to it."""

import inspect
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from vxdata_cli.options import Debug, Index, NoProgress, Profile, Quiet, refuse_empty
from vxdata_cli.out import Begin, out

if TYPE_CHECKING:
    from vxdata.sdk import Client
    from vxdata.sources.idc import IdcRelease
    from vxdata_cli.demo_questions import Question

EXAMPLES = """Examples:

  $ vxdata demo
  $ vxdata demo --uri ./demo-lake"""


def demo(
    uri: Annotated[
        str | None,
        typer.Option(
            "--uri",
            metavar="URI",
            callback=refuse_empty,
            help="Where the demo lake is (default: a folder in your data folder).",
        ),
    ] = None,
    index: Index = None,
    profile: Profile = None,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Build a lake from the public IDC index, and ask it three questions in Python."""
    from vxdata.sdk import Client
    from vxdata.sources.idc import find_release
    from vxdata_cli.demo_questions import QUESTIONS

    client, release = Client(uri or demo_uri()), find_release(index)
    out.show_verbatim(f"The demo lake is at {client.uri}")
    with out.steps() as begin:
        build(client, release, begin)
    for number, question in enumerate(QUESTIONS, start=1):
        ask(client, question, f"Question {number} of {len(QUESTIONS)}")
    out.show_verbatim(_HINT.format(python=sys.executable, uri=client.uri))


def demo_uri() -> str:
    """Return the address of the demo lake: a folder beside that of the user's own embedded lake."""
    from platformdirs import user_data_path

    return str(user_data_path("vxdata", appauthor=False) / "demo")


def build(client: "Client", release: "IdcRelease", begin: Begin) -> None:
    """Load a release into the demo lake, unless it holds as many series already."""
    import polars as pl

    from vxdata.errors import NotFoundError
    from vxdata_cli.idc import load_release

    try:
        present = client.volumes.query().count()
    except NotFoundError:
        present = None
    if present != pl.scan_parquet(release.index, glob=False).select(pl.len()).collect().item():
        load_release(client, release, valid_from=None if present else release.released, begin=begin)


def ask(client: "Client", question: "Question", title: str) -> None:
    """Show a question's Python, run it, and show the answer."""
    from rich.rule import Rule
    from rich.syntax import Syntax

    from vxdata_cli.tables import frame_table

    code = Syntax(inspect.getsource(question).rstrip(), "python", theme="ansi_dark", background_color="default")
    out.show(Rule(title, align="left"), code, "")
    started = time.perf_counter()
    answer = question(client)
    out.show(frame_table(answer), f"\nAnswered in {time.perf_counter() - started:.2f} s.\n")


_HINT = """Ask your own questions in {python}:

    from vxdata.sdk import Client, F
    client = Client({uri!r})
    client.volumes.query().filter(F.modality == "CT").limit(5).collect()

'vxdata ingest idc --collection prostatex' loads a collection into a lake of your own."""
