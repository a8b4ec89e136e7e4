"""Files into a lake: read, checked as a whole, and loaded; each row that cannot be is named by file, row and field."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import polars as pl

from vxdata.catalog.table import TableSpec, table_spec
from vxdata.errors import InvalidInputError, NotFoundError, did_you_mean, sentence
from vxdata.lake.frames import REASON, as_column
from vxdata.lake.objects import fetch_objects
from vxdata.lake.upsert import UpsertReport
from vxdata.schemas.registry import registry
from vxdata.sdk.client import Client
from vxdata.sdk.ingest import ingest, is_ingested
from vxdata.sdk.namespace import check_missing
from vxdata.sdk.session import check_flags
from vxdata.sources.cells import TextRules, check_date_form
from vxdata.sources.files import FORMS, FileRows, find_files, form_of, is_hidden, read_files
from vxdata.sources.records import FILE, ROW, ReadingRules, SourceFile, shown
from vxdata.sources.rejects import RejectsWriter

REJECTED_SCHEMA = {"file": pl.String(), "row": pl.Int64(), "field": pl.String(), "value": pl.String()}
REJECTED_SCHEMA |= {"reason": pl.String()}


@dataclass(frozen=True)
class FilesReport:
    """What loading files did, or would do.

    Attributes:
        files: the addresses of the files, in the order in which they were read.
        reports: what was done in each namespace, root first; empty if all was refused.
        rejected: file, row, field, value, reason: one line for each fault; a row may have several.
        rejected_rows: how many rows were rejected.
        is_written: whether the lake was written to; false for a dry run, and where invalid rows were not to be skipped.
        ignored: columns of the files that say nothing, since VxData derives them itself.
    """

    files: tuple[str, ...]
    reports: Mapping[str, UpsertReport]
    rejected: pl.DataFrame = field(repr=False)
    rejected_rows: int
    is_written: bool
    ignored: tuple[str, ...]

    @property
    def already_committed(self) -> bool:
        """Whether the batch was loaded before, so that nothing was done."""
        return bool(self.reports) and all(report.already_committed for report in self.reports.values())

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run of the batch committed at least a part of it."""
        return any(report.already_committed for report in self.reports.values())


@dataclass(frozen=True)
class _Options:
    """How rows are loaded, as `ingest` takes it."""

    missing: Literal["keep", "delete"]
    cascade: bool
    valid_from: str | date | datetime | None
    batch_id: str | None
    reason: str | None


Progress = Callable[[str], None]


def ingest_files(
    client: Client,
    paths: str | Path | Sequence[str | Path],
    *,
    type: str | None = None,
    missing: Literal["keep", "delete"] = "keep",
    cascade: bool = False,
    valid_from: str | date | datetime | None = None,
    on_invalid: Literal["fail", "skip"] = "fail",
    rejects: str | Path | None = None,
    batch_id: str | None = None,
    dry_run: bool = False,
    delimiter: str | None = None,
    encoding: str | None = None,
    decimal_comma: bool = False,
    date_formats: Sequence[str] = (),
    nulls: Sequence[str] = (),
    reason: str | None = None,
    progress: Progress = lambda text: None,
) -> FilesReport:
    """Load NDJSON, CSV and Parquet files; loading them again writes nothing. See docs/files.md for the rules.

    All files are read and all rows are checked before anything is written.

    Args:
        client: the lake's client.
        paths: files, folders, and ``s3://`` addresses of both; one alone needs no list.
        type: the one type of all rows, as a namespace or as the word in identifiers; None: each identifier tells.
        missing: "delete" closes the resources, in the datasources that the files name, that the files lack.
        cascade: whether such a resource may take its live descendants with it.
        valid_from: the instant of the new versions, for loading history.
        on_invalid: "fail" writes nothing if a row is invalid; "skip" writes the others.
        rejects: where rejected rows go, with what is wrong with them; with on_invalid="skip" to be mended and loaded,
            without missing="delete" and under another batch_id. An earlier rejects file is replaced; a run that rejects
            nothing removes it.
        batch_id: a name for what is loaded (printable, 256 characters at most), under which it is loaded once: again,
            also after edits and also if the first run was killed, only what is left of it is done. The rejects file
            is then left as the first run wrote it.
        dry_run: report what would be done; nothing is written to the lake, and none is made.
        delimiter: what parts the cells of CSV files; None for the one that finds a column ``identifier``.
        encoding: of CSV files; None for UTF-8, or for what a byte order mark says.
        decimal_comma: CSV files write numbers as ``3,5``.
        date_formats: the forms of dates in CSV files, such as ``%d/%m/%Y``, instead of those that are certain.
        nulls: words of CSV files that stand for null, beside an empty cell.
        reason: why, for the audit log.
        progress: told each step as it starts.

    Returns:
        The report. With on_invalid="fail" and invalid rows nothing was written: look at `rejected_rows`.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: a file as a whole cannot be read, or what is to be closed has live children.
    """
    check_missing("ingest_files", missing, None, cascade)
    check_flags("ingest_files", dry_run=dry_run, decimal_comma=decimal_comma)
    named = _listed(paths)
    text = TextRules(decimal_comma, tuple(map(check_date_form, date_formats)), tuple(nulls))
    rules = ReadingRules(_only(type), text, delimiter, encoding, on_invalid == "skip", missing == "delete")
    options = _Options(missing, cascade, valid_from, batch_id, reason)
    client._session.stamp("ingest", reason, batch_id)  # a read-only client is refused before any file is read
    with TemporaryDirectory(prefix="vxdata-") as folder:
        progress("find the files")
        files = _find(client, named, Path(folder))
        writer = None if rejects is None else RejectsWriter(Path(rejects), files, rules)
        rows = read_files(files, rules, Path(folder), lambda file, n: progress(f"read {file.name}: {n:,} rows"))
        if batch_id is not None and _is_repeat(client, rows, batch_id):
            rows = replace(rows, faults=rows.faults.clear(), nameless=rows.nameless.clear())  # nothing is judged
        if missing == "delete" and on_invalid == "skip":
            _refuse_nameless(rows)
        keep = _keeper(writer, rows, on_invalid, dry_run, progress)
        if writer is not None and on_invalid == "skip" and not dry_run:  # no kill, and no full disk, must lose them
            keep(_load(client, rows, options, on_invalid, True, progress))
        report = _load(client, rows, options, on_invalid, dry_run, progress)
        keep(report)
    return report


def _is_repeat(client: Client, rows: FileRows, batch_id: str) -> bool:
    """Whether a batch was loaded before, into the tables of all types that the files have."""
    try:
        return bool(rows.frames) and is_ingested(client, batch_id, [spec.namespace for spec in rows.frames])
    except NotFoundError:  # there is no lake yet
        return False


def _refuse_nameless(rows: FileRows) -> None:
    """Refuse to close what files lack if nobody can tell what their invalid rows are about."""
    if rows.nameless.is_empty():
        return
    first = rows.nameless.row(0, named=True)
    reason = sentence(first["reason"])
    count = rows.nameless.select(FILE, ROW).n_unique()
    more = f", and of {count - 1:,} more" if count > 1 else ""
    raise InvalidInputError(
        f"{rows.files[first[FILE]].name}, row {first[ROW]}: {reason} The resource of this row{more} cannot "
        "be told, so missing='delete' would close it though it is not missing. Mend such rows, or load without "
        "missing='delete'."
    )


def _keeper(
    writer: RejectsWriter | None, rows: FileRows, on_invalid: str, dry_run: bool, progress: Progress
) -> Callable[[FilesReport], None]:
    """Return what writes the rejects file, unless a run that began the batch wrote it: a repeat checks less.

    Of a dry run without any an earlier one is not removed.
    """
    written: list[pl.DataFrame] = []

    def keep(report: FilesReport) -> None:
        is_left = report.is_begun and (on_invalid == "skip" or report.rejected.is_empty())
        is_left |= dry_run and report.rejected.is_empty()
        if writer is None or is_left or (written and written[-1].equals(report.rejected)):
            return
        if report.rejected.height:
            progress(f"write {writer.path}")
        writer.write(report.rejected, rows)
        written.append(report.rejected)

    return keep


def _only(type_name: str | None) -> TableSpec | None:
    if type_name is None:
        return None
    names = registry().namespaces()
    if type_name in names:
        return table_spec(registry().of_namespace(type_name))
    if type_name in registry():
        return table_spec(registry().of_type(type_name))
    raise InvalidInputError(f"unknown type {type_name!r}.{did_you_mean(type_name, names)}")


def _listed(paths: Any) -> list[str | Path]:
    named = [paths] if isinstance(paths, (str, Path)) else list(paths) if isinstance(paths, Iterable) else [paths]
    for path in named:
        if not isinstance(path, (str, Path)):
            raise InvalidInputError(f"ingest_files: a path, or a list of paths, is expected, not {path!r}.")
    return named


def _find(client: Client, paths: Sequence[str | Path], folder: Path) -> list[SourceFile]:
    found: list[SourceFile] = []
    for position, path in enumerate(paths):
        if not str(path).startswith("s3://"):
            found += find_files([path])
            continue
        copies = folder / f"fetched-{position}"
        copies.mkdir()
        fetched = fetch_objects(str(path), copies, _has_form, client._session.storage_options)
        found += [SourceFile(address, copy, form_of(address)) for address, copy in fetched]
    if not found:
        raise InvalidInputError("no file was named.")
    return list(dict.fromkeys(found))


def _has_form(name: str) -> bool:
    return Path(name).suffix.lower() in FORMS and not is_hidden(Path(name))


def _load(
    client: Client, rows: FileRows, options: _Options, on_invalid: str, dry_run: bool, progress: Progress
) -> FilesReport:
    """Load what was read: as a whole, or what is right of it, or nothing."""
    frames = {spec.namespace: frame.drop(FILE, ROW) for spec, frame in rows.frames.items()}
    skips, is_faulty = on_invalid == "skip", rows.faults.height > 0
    if on_invalid not in ("fail", "skip"):
        raise InvalidInputError(f"on_invalid={on_invalid!r}: 'fail' or 'skip' is expected.")

    def run(
        *, dry: bool, skip: bool, missing: Literal["keep", "delete"] = options.missing
    ) -> Mapping[str, UpsertReport]:
        cascade = options.cascade and missing == "delete"
        return ingest(
            client, frames, missing=missing, cascade=cascade, valid_from=options.valid_from,
            on_invalid="skip" if skip else "fail", batch_id=options.batch_id, dry_run=dry, reason=options.reason,
            mentioned={spec.namespace: named for spec, named in rows.named.items()},
            progress=lambda name, _: progress(f"loaded {name}"),
        )  # fmt: skip

    progress(f"check {sum(rows.counts.values()):,} rows" if dry_run else f"load {sum(rows.counts.values()):,} rows")
    try:
        if dry_run or (is_faulty and not skips):
            return _report(rows, run(dry=True, skip=True), is_written=False)
        return _report(rows, run(dry=False, skip=skips), is_written=True)
    except InvalidInputError:
        if skips:
            raise
        report = _report(rows, run(dry=True, skip=True, missing="keep"), is_written=False)  # the rows come first
        if not report.rejected_rows:
            raise
        return report


def _report(rows: FileRows, reports: Mapping[str, UpsertReport], *, is_written: bool) -> FilesReport:
    names = [file.name for file in rows.files]
    named = pl.DataFrame({FILE: range(len(names)), "file": names}, schema={FILE: pl.Int64, "file": pl.String})
    late = [_placed(spec, rows, reports[spec.namespace].rejected) for spec in rows.frames]
    faults = pl.concat([rows.faults, *late]).sort(FILE, ROW, maintain_order=True)
    rejected = faults.join(named, on=FILE, how="left", maintain_order="left").rename({ROW: "row"})
    return FilesReport(
        files=tuple(names),
        reports=reports,
        rejected=rejected.select(*REJECTED_SCHEMA),
        rejected_rows=faults.select(FILE, ROW).n_unique(),
        is_written=is_written and any(r.commit_id and not r.already_committed for r in reports.values()),
        ignored=rows.ignored,
    )


def _placed(spec: TableSpec, rows: FileRows, rejected: pl.DataFrame) -> pl.DataFrame:
    """Return what the lake refused, with the places of the rows; a reason begins with the name of its column."""
    if rejected.is_empty():
        return rows.faults.clear()
    reason = pl.col("rejected_because" if "rejected_because" in rejected.columns else "reason")
    frame = rows.frames[spec]
    schema = frame.collect_schema()
    told_apart = [name for name in rejected.columns if name in schema and name != reason.meta.output_name()]
    typed = [as_column(spec, name, schema[name], spec.columns[name]) for name in told_apart]  # as the lake took them
    refused = rejected.lazy().select(*told_apart, reason.alias(REASON)).unique()
    found = frame.with_columns(typed).join(refused, on=told_apart, how="inner", nulls_equal=True)
    places = found.collect(engine="streaming")  # few of rows that may be more than memory holds
    reasons = places[REASON]
    fields = reasons.str.split(" ").list.first()
    values = [shown(places[name][at : at + 1]).item() for at, name in enumerate(_held(fields, places.columns))]
    return places.select(FILE, ROW).with_columns(
        fields.alias("field"), pl.Series("value", values, dtype=pl.String), reasons.alias("reason")
    )


def _held(fields: Iterable[Any], columns: Sequence[str]) -> list[str]:
    """Return for each field the column that shows what it is about: itself, else the identifier."""
    return [name if name in columns else "identifier" for name in fields]
