"""`vxdata ingest`: load outside data into a lake."""

from typing import TYPE_CHECKING, Annotated

import typer

from vxdata_cli.options import Debug, Index, Json, NoProgress, Quiet, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    from datetime import datetime

    from vxdata.sources.idc import IdcRelease

app = typer.Typer(name="ingest", no_args_is_help=True, help="Load outside data into a lake.")

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
    batch_id: Annotated[
        str | None,
        typer.Option("--batch-id", metavar="ID", help="Load this once: under an ID that was committed, do nothing."),
    ] = None,
    uri: Uri = None,
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
