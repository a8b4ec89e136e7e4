"""`vxdata ingest`: load outside data into a lake, files or a source that VxData knows by name."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vxdata_cli.files import FILES_EXAMPLES, ingest_files
from vxdata_cli.options import BatchId, Debug, Index, Json, NoProgress, Profile, Quiet, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    from datetime import datetime

    from vxdata.sources.idc import IdcRelease


class FilesOrSource(TyperGroup):
    """A group whose default command is `files`, so that `vxdata ingest a.csv` needs no further word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front of what is neither a command nor a plea for help."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names) and _means_files(args[0]):
            args = ["files", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Offer the options of the default command too."""
        offered = super().shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            return offered
        files = self.commands["files"]
        inner = files.make_context("files", [], parent=ctx, resilient_parsing=True)
        known = {item.value for item in offered}
        return [*offered, *(item for item in files.shell_complete(inner, incomplete) if item.value not in known)]


def _means_files(word: str) -> bool:
    """Whether a word is an option, an address, or the name of something; else it is a mistyped source."""
    return word.startswith("-") or "://" in word or "." in word or os.sep in word or os.path.exists(word)


app = typer.Typer(
    name="ingest",
    cls=FilesOrSource,
    no_args_is_help=True,
    help="""Load outside data into a lake: files, or a source by its name.

    'vxdata ingest FILE...' loads CSV, NDJSON and Parquet files; its options are
    those of 'vxdata ingest files --help'. A file that has the name of a source
    is written ./NAME.""",
    epilog="""Examples:

  $ vxdata ingest patients.csv volumes.parquet --dry-run
  $ vxdata ingest s3://bucket/handed-over/ --on-invalid skip --rejects rejects.csv
  $ vxdata ingest idc --collection prostatex""",
)
app.command("files", epilog=FILES_EXAMPLES)(ingest_files)

_EXAMPLES = """Examples:

  $ vxdata ingest idc
  $ vxdata ingest idc --collection prostatex --collection prostate_3t
  $ vxdata ingest idc --uri s3://bucket/lake --reason "quarterly update" --json
  $ vxdata ingest idc --index downloads/idc-24 --valid-from 2026-04-16
  $ vxdata ingest idc --batch-id idc-24"""


@app.command("idc", epilog=_EXAMPLES)
def ingest_idc(
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", metavar="NAME", help="Load this collection only; repeatable (default: all)."),
    ] = None,
    index: Index = None,
    valid_from: Annotated[
        str | None,
        typer.Option(
            "--valid-from",
            metavar="INSTANT",
            help="From when the new versions are valid: ISO 8601, UTC, or 'now' (default: the day of the release).",
        ),
    ] = None,
    batch_id: BatchId = None,
    uri: Uri = None,
    profile: Profile = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the audit log (default: the release).")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Load the public index of NCI Imaging Data Commons (IDC): collections, patients, studies and series.

    Only what changed is written, and running it again writes nothing. What the
    release lacks is closed, but its history stays: in the named collections,
    else in all that came from IDC. Other datasources are never touched: keep
    patients, studies and volumes of your own in one of your own.
    """
    from vxdata.sdk import Client
    from vxdata.sources.idc import find_release
    from vxdata_cli.idc import load_release, release_name
    from vxdata_cli.tables import report_table

    client, release = Client(uri), find_release(index)
    with out.steps() as begin:
        loaded = load_release(
            client,
            release,
            collections=collection and list(dict.fromkeys(collection)),
            valid_from=_instant(valid_from, release),
            batch_id=batch_id,
            reason=reason,
            begin=begin,
        )
    day = f" ({release.released:%Y-%m-%d})" if release.released else ""
    title = f"{release_name(release)}{day} in {loaded.lake}"
    nothing = () if loaded.is_changed else ("Nothing to write: the lake holds all of it already.",)
    out.result(loaded.to_document(), report_table(title, loaded.reports), *nothing)


def _instant(given: str | None, release: "IdcRelease") -> "datetime | None":
    from vxdata.sdk.query import read_instant

    if given is None:
        return release.released
    return None if given == "now" else read_instant(given)
