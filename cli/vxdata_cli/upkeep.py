"""`vxdata vacuum`, `vxdata verify`, `vxdata snapshots`: keeping a lake whole and small."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from vxdata_cli.options import Debug, Json, NoProgress, Profile, Quiet, Uri
from vxdata_cli.out import out

A_PERSON_IS_NEEDED = 8
_UNITS = {"d": "days", "h": "hours", "w": "weeks"}

VACUUM_EXAMPLES = """Examples:

  $ vxdata vacuum
  $ vxdata vacuum --delete
  $ vxdata vacuum --retention 30d --delete --uri s3://bucket/lake --json"""
VERIFY_EXAMPLES = """Examples:

  $ vxdata verify
  $ vxdata verify --uri s3://bucket/lake --json

Exit codes: 0 the lake is whole, 8 a person is needed: something is wrong,
and each finding says what to do."""

snapshots_app = typer.Typer(
    name="snapshots",
    no_args_is_help=True,
    help="Keep states of the lake that stay readable until they are dropped.",
    epilog="""Examples:

  $ vxdata snapshots keep "paper 2026" --reason "submitted"
  $ vxdata snapshots list
  $ vxdata snapshots drop "paper 2026\"""",
)


def parse_retention(text: str) -> timedelta:
    """Read a duration such as ``7d``, ``36h`` or ``2w``."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*([dhw])\s*", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; a number and d, h or w are expected, such as 7d or 36h.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def vacuum(
    retention: Annotated[
        timedelta | None,
        typer.Option(
            "--retention",
            metavar="DURATION",
            parser=parse_retention,
            help="How long superseded states stay readable, such as 7d or 36h; 24h at least (default: 7d).",
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the files; otherwise they are only shown.")] = False,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Delete files that no state needs: superseded longer ago than the retention, or never committed.

    Without --delete nothing is deleted. What the newest state, younger states
    and kept snapshots need is never touched.
    """
    from vxdata.sdk import Client
    from vxdata_cli.upkeep_tables import vacuum_document, vacuum_table

    client = Client(uri)
    with out.steps() as begin:
        report = client.vacuum(retention=retention, dry_run=not delete, progress=begin)
    verb = "Would delete" if report.is_dry_run else "Deleted"
    total = f"{verb} {report.count:,} files, {report.bytes / 1e6:,.1f} MB."
    hint = " Run it again with --delete." if report.is_dry_run and report.count else ""
    out.result(vacuum_document(report), *vacuum_table(report), total + hint)


def verify(
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Check the whole lake: log, files, checksums, statistics, versions, lineage, kept snapshots.

    Every data file is read. Nothing is changed.
    """
    from vxdata.sdk import Client
    from vxdata_cli.upkeep_tables import findings_text, verify_document

    client = Client(uri)
    with out.steps() as begin:
        report = client.verify(progress=begin)
    out.result(verify_document(report), *findings_text(report))
    if not report.ok:
        raise typer.Exit(A_PERSON_IS_NEEDED)


@snapshots_app.command("list", epilog="Examples:\n\n  $ vxdata snapshots list\n  $ vxdata snapshots list --json")
def list_snapshots(
    uri: Uri = None, profile: Profile = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """List what is kept, oldest first."""
    from vxdata.sdk import Client
    from vxdata_cli.tables import frame_table
    from vxdata_cli.upkeep_tables import records_of

    kept = Client(uri).snapshots.list()
    out.result({"snapshots": records_of(kept)}, frame_table(kept, most=kept.height) if kept.height else "None is kept.")


@snapshots_app.command(
    "keep",
    epilog='Examples:\n\n  $ vxdata snapshots keep "paper 2026"\n  $ vxdata snapshots keep older --token vxs1.eJw',
)
def keep_snapshot(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name.", show_default=False)],
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", help="The state to keep (default: the lake as it is now)."),
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why it is kept.")] = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Keep a state of the lake, so that compaction, vacuum and trimming leave it whole."""
    from vxdata.sdk import Client
    from vxdata_cli.upkeep_tables import snapshot_document

    client = Client(uri)
    kept = client.snapshots.keep(name, token=token, reason=reason)
    out.result(snapshot_document(kept))
    out.show_verbatim(f"Kept {kept.name!r}. It opens with Client({client.uri!r}, snapshot={kept.token!r}).")


@snapshots_app.command("drop", epilog='Examples:\n\n  $ vxdata snapshots drop "paper 2026"')
def drop_snapshot(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a kept snapshot.", show_default=False)],
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Let go of a kept snapshot; the files that only it needs are for the next vacuum."""
    from vxdata.sdk import Client

    Client(uri).snapshots.drop(name)
    out.result({"dropped": name}, f"Dropped {name!r}.")
