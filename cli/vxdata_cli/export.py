"""Answers as files and streams: CSV, NDJSON and Parquet, larger than memory.

Values are written as they are. In CSV a null is an empty field and an empty text is `""`, lists and nested models are
JSON, instants are ISO 8601. A text that a spreadsheet would take for a formula is not changed.

Source: docs/query-text.md, "Formats".
"""

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vxdata.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    import polars as pl

    from vxdata.sdk.query import BaseQuery

_ISO = "%+"
_SUFFIXES = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}


class Format(StrEnum):
    """How rows are given."""

    TABLE = "table"
    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


def format_of(given: Format | None, output: Path | None) -> Format:
    """Return the format that was asked for, or that the name of the file says.

    Raises:
        InvalidInputError: a file without a format, or a table as a file.
    """
    found = given or (Format(_SUFFIXES.get(output.suffix.lower(), "table")) if output else Format.TABLE)
    if output is not None and found is Format.TABLE:
        raise InvalidInputError(
            f"-o {output}: write --format csv, ndjson or parquet, or end the name in one of {', '.join(_SUFFIXES)}."
        )
    return found


def write_file(asked: "BaseQuery", form: Format, path: Path) -> None:
    """Write an answer to a file, which appears (or is replaced) only when it is whole.

    Raises:
        InvalidInputError: the path is no place for a file.
        StorageError: it cannot be written.
    """
    target = path.resolve()
    if "://" in str(path) or (target.exists() and not target.is_file()) or not target.parent.is_dir():
        raise InvalidInputError(f"-o {path}: a file in a folder that exists is expected.")
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with unfinished.open("wb") as stream:
            _write(asked, form, stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(target)
    except OSError as error:
        words = error.strerror or str(error)
        raise StorageError(f"{words}.", uri=str(path), operation="write", retryable=False) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_stdout(asked: "BaseQuery", form: Format) -> None:
    """Write an answer to stdout, text as it comes; a Parquet file is finished first.

    Raises:
        InvalidInputError: Parquet to a terminal.
    """
    if form is Format.PARQUET and sys.stdout.isatty():
        raise InvalidInputError("--format parquet is not for terminals; write it to a file with -o FILE.")
    sys.stdout.flush()
    if form is Format.PARQUET:
        with tempfile.TemporaryFile() as whole:
            _write(asked, form, whole)
            whole.seek(0)
            shutil.copyfileobj(whole, sys.stdout.buffer)
    else:
        _write(asked, form, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _write(asked: "BaseQuery", form: Format, stream: BinaryIO) -> None:
    import polars as pl

    if form is Format.PARQUET:
        with _translated(asked):
            asked.lazy().sink_parquet(stream)
        return
    rows = as_text(asked.lazy(), form)
    if form is Format.CSV:
        stream.write(pl.DataFrame(schema=rows.collect_schema()).write_csv().encode())
    _pass_on(asked, rows, lambda batch: stream.write(_encoded(batch, form)))


def _pass_on(asked: "BaseQuery", rows: "pl.LazyFrame", write: "Callable[[pl.DataFrame], object]") -> None:
    """Pass rows on as they come. Not by `collect_batches`, which just ends where Polars panics."""
    failures: list[BaseException] = []

    def take(batch: "pl.DataFrame") -> bool:
        try:
            write(batch)
        except BaseException as error:  # noqa: BLE001  # raised below, where it is no failure to read
            failures.append(error)
        return bool(failures)

    with _translated(asked):
        rows.sink_batches(take)
    for failure in failures:
        raise failure


def _translated(asked: "BaseQuery") -> AbstractContextManager[None]:
    from vxdata.lake.faults import translated

    select = asked.as_select()
    return translated(select.lake, f"read {select.spec.namespace} of")


def _encoded(batch: "pl.DataFrame", form: Format) -> bytes:
    if form is Format.NDJSON:
        return batch.write_ndjson().encode()
    return batch.write_csv(include_header=False, datetime_format=_ISO).encode()


def as_text(plan: "pl.LazyFrame", form: Format) -> "pl.LazyFrame":
    """Return rows whose columns a text format can hold: bytes in base64; for CSV lists and models as JSON too."""
    return plan.with_columns(
        expression
        for name, dtype in plan.collect_schema().items()
        if (expression := _text_column(name, dtype, form)) is not None
    )


def _text_column(name: str, dtype: Any, form: Format) -> "pl.Expr | None":
    import polars as pl

    column = pl.col(name)
    match dtype:
        case pl.Binary():
            return column.bin.encode("base64")
        case pl.List() if form is Format.CSV:
            wrapped = pl.struct(column.alias("v")).struct.json_encode()  # {"v":[...]}
            text = wrapped.str.slice(len('{"v":')).str.head(-1)
            return pl.when(column.is_not_null()).then(text).alias(name)
        case pl.Struct() if form is Format.CSV:
            return pl.when(column.is_not_null()).then(column.struct.json_encode()).alias(name)
    return None
