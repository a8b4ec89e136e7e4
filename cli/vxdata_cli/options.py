"""Options that several commands share. Those on how to speak set up the sink, so that no command looks at them."""

from pathlib import Path
from typing import Annotated

import typer

from vxdata_cli.complete import complete_profiles
from vxdata_cli.out import out


def refuse_empty(value: str | None) -> str | None:
    """Refuse an empty address, as an unset variable of the shell gives it, instead of taking the default."""
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty; a folder or s3://bucket/prefix is expected.")
    return value


Uri = Annotated[
    str | None,
    typer.Option(
        "--uri",
        metavar="URI",
        callback=refuse_empty,
        help="The lake: a folder or s3://bucket/prefix (default: VXDATA_URI, vxdata.toml, else your data folder).",
    ),
]


def _set_profile(value: str | None) -> str | None:
    if value is not None:
        from vxdata.sdk.settings import use_profile

        use_profile(value)
    return value


Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        callback=_set_profile,
        autocompletion=complete_profiles,
        help="The profile of vxdata.toml whose settings hold (also before the command).",
    ),
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the audit log.")]
BatchId = Annotated[
    str | None,
    typer.Option("--batch-id", metavar="ID", help="Load this once: under an ID that was committed, do nothing."),
]
Index = Annotated[
    Path | None,
    typer.Option(
        "--index",
        metavar="PATH",
        help="An idc_index.parquet, or its folder (default: the installed idc-index-data).",
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="INSTANT", help="See the lake as of this instant: ISO 8601, UTC."),
]


def _set_json(value: bool) -> bool:
    out.as_json = out.as_json or value
    return value


def _set_quiet(value: bool) -> bool:
    out.quiet = out.quiet or value
    return value


def _set_no_progress(value: bool) -> bool:
    out.shows_progress = out.shows_progress and not value
    return value


def _set_debug(value: bool) -> bool:
    out.debug = out.debug or value
    return value


Json = Annotated[bool, typer.Option("--json", callback=_set_json, help="Print the result as JSON.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_set_quiet, help="Print errors only, and warnings of rejected rows.")
]
NoProgress = Annotated[bool, typer.Option("--no-progress", callback=_set_no_progress, help="Show no progress.")]
Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error.")]
