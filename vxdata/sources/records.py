"""Rows of files as resource frames: each row goes to the type that its identifier names, and its cells are typed.

Source: design of record, section 7.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from vxdata.catalog.table import DERIVED_COLUMNS, TableSpec, all_specs
from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.schemas.identifiers import identifier_fault
from vxdata.sources.cells import TextRules, is_unread
from vxdata.sources.columns import shown_instants, to_text, typed_column

ROW, FILE = ":row", ":file"  # no column's name holds a colon
FAULT_SCHEMA = {ROW: pl.Int64(), "field": pl.String(), "value": pl.String(), "reason": pl.String()}
COLUMNS = "_columns"
"""Of a rejects file: the columns that the row's source has, parted by blanks, where the rejects file has others."""
REJECT_COLUMNS = ("_file", "_row", "_field", "_value", "_reason", "_line", COLUMNS)
"""What a rejects file has beside the source's columns. No field starts with ``_``."""

MOST_SHOWN = 200


@dataclass(frozen=True)
class SourceFile:
    """A file to read.

    Attributes:
        name: its address as the caller knows it, for messages.
        path: where it is on this machine.
        form: csv, ndjson or parquet.
    """

    name: str
    path: Path
    form: str


@dataclass(frozen=True)
class ReadingRules:
    """How files are read.

    Attributes:
        only: the one type that all rows have to be of; None takes it from each identifier.
        text: how the text of cells is read.
        delimiter: what parts the cells of a CSV file; None for the one that finds a column ``identifier``.
        encoding: of a CSV file; None for UTF-8, or for what its byte order mark says.
        skips: whether an NDJSON line with a key that belongs to no type is a fault of that row, and not of the file.
        closes: whether what the files lack is closed, so that no rejects file may be among them.
    """

    only: TableSpec | None = None
    text: TextRules = field(default_factory=TextRules)
    delimiter: str | None = None
    encoding: str | None = None
    skips: bool = False
    closes: bool = False

    @property
    def specs(self) -> list[TableSpec]:
        """The types that a row may be of."""
        return all_specs() if self.only is None else [self.only]


@dataclass(frozen=True)
class Batch:
    """Some rows of a file, in its own types.

    Attributes:
        rows: the file's columns, and `ROW`: where each stands in the file.
        faults: what is wrong with rows, one line each; such rows may be in `rows` too.
        parse: whether text stands for values of other types, as in a CSV file.
        ignored: columns of the file that VxData derives itself and that say nothing.
    """

    rows: pl.DataFrame
    faults: pl.DataFrame
    parse: bool = False
    ignored: frozenset[str] = frozenset()

    @property
    def last(self) -> int:
        """The place of the last row; 0 if there is none."""
        return int(self.rows[ROW][-1]) if self.rows.height else 0


def no_faults() -> pl.DataFrame:
    """Return a frame without faults."""
    return pl.DataFrame(schema=FAULT_SCHEMA)


def faults_at(rows: pl.DataFrame, is_bad: pl.Series, field: str, reason: str) -> pl.DataFrame:
    """Return one fault for each bad row, with the field's value as text."""
    bad = rows.filter(is_bad)
    if bad.is_empty():
        return no_faults()
    value = shown(bad[field]) if field in bad.columns else pl.Series([None] * bad.height, dtype=pl.String)
    words: list[pl.Expr | pl.Series] = [pl.lit(field).alias("field"), value.alias("value")]
    return bad.select(pl.col(ROW).cast(pl.Int64), *words, pl.lit(reason).alias("reason"))


def shown(values: pl.Series) -> pl.Series:
    """Return values as text for a report, cut where they are long."""
    if isinstance(values.dtype, (pl.Datetime, pl.Date)):
        return shown_instants(values)
    is_nested = isinstance(values.dtype, (pl.List, pl.Struct, pl.Array, pl.Binary))
    text = pl.Series(values.name, list(map(repr, values))) if is_nested else values.cast(pl.String)
    return text.str.head(MOST_SHOWN)


@dataclass(frozen=True)
class Typed:
    """Rows of a batch by type.

    Attributes:
        frames: the rows without faults, as the tables take them, with `ROW`.
        faults: what is wrong with the others.
        named: the identifiers of rows with faults, as far as they can be told.
        nameless: the faults of rows of which it cannot be told what they are about.
    """

    frames: dict[TableSpec, pl.DataFrame]
    faults: pl.DataFrame
    named: dict[TableSpec, pl.Series]
    nameless: pl.DataFrame


def to_typed(file: SourceFile, batch: Batch, rules: ReadingRules) -> Typed:
    """Send each row to its type, and type its cells.

    Raises:
        InvalidInputError: a column belongs to no type, or has a type that fits none.
    """
    columns = resource_columns(file, batch.rows.columns, rules)
    rows = batch.rows.select(ROW, *(name for name in columns if name != COLUMNS))
    names = to_text(rows["identifier"])
    words = names.str.split("/").list.first()
    known = {spec.type_name: spec for spec in rules.specs}
    unknown = pl.concat(_of_no_type(rows, words, known)).join(batch.faults, on=ROW, how="anti", maintain_order="left")
    faults = [batch.faults, unknown]
    frames = {}
    for word in words.unique(maintain_order=True).drop_nulls():
        if word in known:
            own = rows if words.n_unique() == 1 else rows.filter(words == word)
            said = _said_columns(batch, words == word)
            frames[known[word]], found = _typed(file, known[word], own, batch.parse, rules.text, said)
            faults.append(found)
    wrong = pl.concat(faults)
    if wrong.is_empty():
        return Typed(frames, wrong, {}, wrong)
    frames = {spec: frame.join(wrong, on=ROW, how="anti", maintain_order="left") for spec, frame in frames.items()}
    told = _told(rows.select(ROW, names.alias("name"), words.alias("word")), wrong, known)
    named = {spec: told.filter(pl.col("word") == spec.type_name)["name"] for spec in frames}
    return Typed(frames, wrong, named, wrong.join(told, on=ROW, how="anti", maintain_order="left"))


def _told(rows: pl.DataFrame, wrong: pl.DataFrame, known: Mapping[str, TableSpec]) -> pl.DataFrame:
    """Return those of the rows with faults whose identifier can be trusted: it is one, and the fault is elsewhere."""
    found = rows.join(wrong, on=ROW, how="semi").filter(pl.col("word").is_in([*known]))
    found = found.join(wrong.filter(pl.col("field") == "identifier"), on=ROW, how="anti")
    return found.filter(pl.Series([identifier_fault(name) is None for name in found["name"]], dtype=pl.Boolean))


def resource_columns(file: SourceFile, columns: Iterable[str], rules: ReadingRules) -> list[str]:
    """Return the columns that say something of resources, and `COLUMNS`; derived ones and those of rejects do not.

    Raises:
        InvalidInputError: a column belongs to no type; names the nearest ones. Or there are no identifiers. Or it is a
            rejects file, and what the files lack would be closed.
    """
    columns = list(columns)
    if rules.closes and "_reason" in columns:
        raise InvalidInputError(
            f"{file.name} is a rejects file (it has a column '_reason'), and holds a part of what was delivered: "
            "missing='delete' would close the rest. Load it without missing='delete'."
        )
    silent = {*DERIVED_COLUMNS, *REJECT_COLUMNS, ROW} - {COLUMNS}
    names = [name for name in columns if name not in silent]
    for reason in stray_columns(names, rules).values():
        raise InvalidInputError(f"{file.name}: {reason}")
    if "identifier" not in names:
        raise InvalidInputError(f"{file.name}: there is no column 'identifier'; it has {', '.join(columns) or 'none'}.")
    return names


def stray_columns(columns: Iterable[str], rules: ReadingRules) -> dict[str, str]:
    """Return the columns that belong to no type, each with that as a sentence, which names the nearest ones."""
    fields = [name for spec in rules.specs for name in spec.fields]
    known = list(dict.fromkeys(["identifier", "parent_identifier", "license", *fields]))
    others = {*known, *DERIVED_COLUMNS, *REJECT_COLUMNS, ROW}
    whose = f"{rules.only.namespace} have no field" if rules.only else "no type has a field"
    return {name: f"{whose} {name!r}.{did_you_mean(name, known)}" for name in columns if name not in others}


def ignored_columns(columns: Iterable[str]) -> frozenset[str]:
    """Return the columns that VxData derives itself, so that what a file says there is ignored."""
    return DERIVED_COLUMNS & {*columns}


def _of_no_type(rows: pl.DataFrame, words: pl.Series, known: dict[str, TableSpec]) -> list[pl.DataFrame]:
    """Return the faults of rows without an identifier, or with one of a type that is not expected."""
    is_null = rows["identifier"].is_null()
    faults = [faults_at(rows, is_null, "identifier", "identifier is null")]
    faults.append(faults_at(rows, words.is_null() & ~is_null, "identifier", "identifier is no text in UTF-8"))
    for word in words.unique().drop_nulls():
        if word not in known:
            reason = f"identifier is of the type {word[:64]!r}.{did_you_mean(word, known)}"
            faults.append(faults_at(rows, (words == word).fill_null(False), "identifier", reason))
    return faults


def _said_columns(batch: Batch, is_own: pl.Series) -> frozenset[str] | None:
    """Return the columns that the sources of some rows of a rejects file have; None if it has no others."""
    if COLUMNS not in batch.rows.columns:
        return None
    said = batch.rows[COLUMNS].filter(is_own)
    if said.null_count() == len(said) or (batch.parse and said.null_count()):
        return None
    return frozenset(name for names in said.drop_nulls().unique() for name in names.split())


def _typed(
    file: SourceFile,
    spec: TableSpec,
    rows: pl.DataFrame,
    parse: bool,
    text: TextRules,
    said: frozenset[str] | None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    typed, faults = [rows[ROW]], [no_faults()]
    for name in rows.columns[1:]:
        cells = _without_null_words(rows[name], text) if parse else _without_nan(rows[name])
        wanted = _wanted(spec, name)
        if parse and said is not None and name not in said:  # a cell of another file's column: empty says nothing
            reason = f"{name} is no column of the row's file ({COLUMNS})"
            faults.append(faults_at(rows, cells.is_not_null(), name, reason))
            continue
        if wanted is None:
            reason = f"{name} is no field of {spec.namespace}"
            faults.append(faults_at(rows, cells.is_not_null(), name, reason))
            continue
        values, reason = typed_column(file.name, spec, cells, wanted, parse, text)
        faults.append(faults_at(rows, is_unread(cells, values), name, f"{name} {reason}"))
        typed.append(values)
    if said is not None and not parse:  # keys that other lines of the row's file have
        lacked = {name: _wanted(spec, name) for name in sorted(said) if name not in rows.columns}
        typed += [pl.Series(name, [None] * rows.height, dtype=dtype) for name, dtype in lacked.items() if dtype]
    return pl.DataFrame(typed), pl.concat(faults)


def _wanted(spec: TableSpec, name: str) -> pl.DataType | None:
    """Return the type of a column that a file may set; None if the type has none of this name."""
    return spec.columns[name] if name in ("identifier", "parent_identifier", "license") else spec.fields.get(name)


def _without_nan(cells: pl.Series) -> pl.Series:
    return cells.fill_nan(None) if cells.dtype.is_float() else cells


def _without_null_words(cells: pl.Series, text: TextRules) -> pl.Series:
    if not text.nulls:
        return cells
    return cells.set(cells.is_in([*text.nulls]).fill_null(False), None)
