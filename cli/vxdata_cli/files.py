"""`vxdata ingest FILE...`: files that somebody handed over, checked as a whole and loaded."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vxdata_cli.complete import complete_types
from vxdata_cli.options import BatchId, Debug, Json, NoProgress, Profile, Quiet, Reason, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vxdata.sdk.files import FilesReport

MOST_FAULTS = 20
FILES_EXAMPLES = """Examples:

  $ vxdata ingest files patients.csv volumes.parquet --dry-run
  $ vxdata ingest files psa.csv --type psa_measurements --decimal-comma --date-format %d/%m/%Y
  $ vxdata ingest files handed-over/ --on-invalid skip --rejects rejects.ndjson
  $ vxdata ingest files s3://bucket/volumes.parquet --missing delete --reason "third delivery"
  $ vxdata ingest files pacs-2026-07.csv --batch-id pacs-2026-07
  $ vxdata ingest files rejects.ndjson"""


def read_delimiter(text: str | None) -> str | None:
    r"""Return the character that parts cells; a tab may be written ``tab`` or ``\t``."""
    return "\t" if text is not None and text.lower() in ("tab", r"\t") else text


def _refuse_empty_encoding(name: str | None) -> str | None:
    if name is not None and not name.strip():
        raise typer.BadParameter(f"{name!r}: the name of an encoding is expected, such as cp1252.")
    return name


def _refuse_commands(context: typer.Context, files: list[str]) -> list[str]:
    """Refuse the name of a source that stands behind options, where it is taken for a file."""
    for name in files:
        if name in getattr(context.parent and context.parent.command, "commands", ()) and not Path(name).exists():
            raise typer.BadParameter(
                f"there is no file {name!r}; 'vxdata ingest {name}' is a command, and its options come behind it."
            )
    return files


class OnInvalid(StrEnum):
    """What becomes of the other rows if one is invalid."""

    FAIL = "fail"
    SKIP = "skip"


class Missing(StrEnum):
    """What becomes of resources that the files lack."""

    KEEP = "keep"
    DELETE = "delete"


def ingest_files(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            callback=_refuse_commands,
            help="CSV, NDJSON (.ndjson, .jsonl) or Parquet; folders and s3:// too.",
        ),
    ],
    type_name: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            autocompletion=complete_types,
            help="The one type of all rows, such as volumes (default: each identifier tells).",
        ),
    ] = None,
    on_invalid: Annotated[
        OnInvalid, typer.Option("--on-invalid", help="If a row is invalid: write nothing, or write the others.")
    ] = OnInvalid.FAIL,
    rejects: Annotated[
        str | None,
        typer.Option("--rejects", metavar="FILE", help="Where invalid rows go, to be mended and loaded again."),
    ] = None,
    missing: Annotated[
        Missing,
        typer.Option("--missing", help="What the files lack of a type, in the datasources that they name."),
    ] = Missing.KEEP,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="With --missing delete: live descendants of other types go too.")
    ] = False,
    valid_from: Annotated[
        str | None,
        typer.Option("--valid-from", metavar="INSTANT", help="From when it is valid: ISO 8601, UTC (default: now)."),
    ] = None,
    batch_id: BatchId = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    delimiter: Annotated[
        str | None,
        typer.Option(
            "--delimiter",
            metavar="CHARACTER",
            callback=read_delimiter,
            help="CSV: what parts the cells, if not , ; tab | ('tab' is a tab).",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            "--encoding",
            metavar="NAME",
            callback=_refuse_empty_encoding,
            help="CSV: such as cp1252 (default: UTF-8).",
        ),
    ] = None,
    decimal_comma: Annotated[bool, typer.Option("--decimal-comma", help="CSV: numbers are written 3,5.")] = False,
    date_format: Annotated[
        list[str] | None,
        typer.Option("--date-format", metavar="FORM", help="CSV: the form of dates, such as %d/%m/%Y; repeatable."),
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option("--null", metavar="WORD", help="CSV: a word for null, beside an empty cell; repeatable."),
    ] = None,
    uri: Uri = None,
    profile: Profile = None,
    reason: Reason = None,
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Load files into a lake: all rows are checked before anything is written.

    Columns are matched by name: identifier, parent_identifier, license and the
    fields of the types ('vxdata schema' shows them). Only what changed is
    written, and loading the same files again writes nothing. A column that a
    file lacks stays as it is in the lake; an empty cell clears it.
    """
    from vxdata.sdk import Client
    from vxdata.sdk import files as sdk

    client = Client(uri)
    with out.steps() as begin:
        report = sdk.ingest_files(
            client, files, type=type_name, missing=missing.value, cascade=cascade, valid_from=valid_from,
            on_invalid=on_invalid.value, rejects=rejects, batch_id=batch_id, dry_run=dry_run, delimiter=delimiter,
            encoding=encoding, decimal_comma=decimal_comma, date_formats=date_format or (), nulls=null or (),
            reason=reason, progress=begin,
        )  # fmt: skip
    skips = on_invalid is OnInvalid.SKIP
    out.result(_document(client.uri, report, dry_run, rejects), *_tables(client.uri, report, dry_run, skips))
    _tell(report, dry_run, rejects, skips)
    if report.rejected_rows and not skips:
        _refuse(report, dry_run, rejects)


def _tables(uri: str, report: "FilesReport", dry_run: bool, skips: bool) -> "list[RenderableType]":
    from vxdata_cli.tables import fault_table, report_table

    count = f"{len(report.files)} files" if len(report.files) > 1 else report.files[0]
    title = f"{'Dry run: ' if dry_run else ''}{count} in {uri}"
    is_counted = report.is_written or dry_run or (skips and report.rejected_rows > 0)
    shown: list[RenderableType] = [report_table(title, report.reports)] if is_counted else []
    if report.rejected_rows:
        shown.append(fault_table(f"Rejected rows: {report.rejected_rows:,}", report.rejected, MOST_FAULTS))
    if report.already_committed:
        shown.append("Nothing to do: this batch was loaded before.")
    elif not report.rejected_rows and not report.reports:
        shown.append("Nothing to write: there are no rows.")
    elif not report.rejected_rows and not any(r.created or r.updated or r.deleted for r in report.reports.values()):
        shown.append("Nothing to write: the lake holds all of it already.")
    return shown


_MEND = "mend them there, and load that file, without --missing delete and under another --batch-id"
_MEND_SOURCE = "nothing was written, so mend them in their source; or load the others with --on-invalid skip first"


def _tell(report: "FilesReport", dry_run: bool, rejects: str | None, skips: bool) -> None:
    if report.ignored:
        out.note(f"ignored, since VxData derives them itself: {', '.join(report.ignored)}.")
    if skips and report.rejected_rows:
        rows = f"{report.rejected_rows:,} rows are" if report.rejected_rows > 1 else "1 row is"
        keep = "" if rejects else "; --rejects FILE keeps what is rejected"
        out.warning(f"{rows} invalid, and {'would not be' if dry_run else 'not'} written{keep}.")
    if rejects is not None and report.rejected_rows and not report.is_begun:
        out.note(f"the rejected rows are in {rejects}; {_MEND if skips and not dry_run else _MEND_SOURCE}.")


def _refuse(report: "FilesReport", dry_run: bool, rejects: str | None) -> None:
    from vxdata.errors import InvalidInputError, sentence

    rows = f"{report.rejected_rows:,} rows are" if report.rejected_rows > 1 else "1 row is"
    first = report.rejected.row(0, named=True)
    where = f"{first['file']}, row {first['row']}" + (f", {first['field']}" if first["field"] else "")
    value = "" if first["value"] is None else f" {first['value']!r}:"
    wrote = "nothing would be written" if dry_run else "nothing was written"
    keep = "" if rejects else " and --rejects FILE keeps these"
    raise InvalidInputError(
        f"{rows} invalid, and {wrote}. The first: {where}:{value} {sentence(first['reason'])} Mend the rows, or pass "
        f"--on-invalid skip, which writes the others{keep}."
    )


def _document(uri: str, report: "FilesReport", dry_run: bool, rejects: str | None) -> dict[str, Any]:
    from vxdata_cli.tables import cascaded_counts

    counts = ("created", "updated", "unchanged", "deleted")
    return {
        "lake": uri,
        "files": list(report.files),
        "dry_run": dry_run,
        "written": report.is_written,
        "already_committed": report.already_committed,
        "namespaces": {name: {c: getattr(r, c) for c in counts} for name, r in report.reports.items()},
        "cascaded": cascaded_counts(report.reports),
        "rejected": report.rejected_rows,
        "faults": report.rejected.to_dicts(),
        "rejects": rejects if report.rejected_rows else None,
        "ignored_columns": list(report.ignored),
    }
