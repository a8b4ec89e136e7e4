"""Frames that callers hand in: their columns matched to a table, their types checked, their identifiers vetted.

Column-wise throughout: no Python object per row, except to word the reason of a row that is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl
from pydantic import ValidationError

from vxdata.catalog.table import DERIVED_COLUMNS, MAX_FOLDER, TableSpec, partition_folder
from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.schemas.columns import value_adapter
from vxdata.schemas.fits import fits, instance
from vxdata.schemas.identifiers import MAX_LENGTH, identifier_fault, type_of
from vxdata.schemas.instant import END, FIRST, MICROSECONDS_PER_SECOND

_PLAIN = r"^(?-u:(?:{type})(?:/[!-.0-~](?:[ -.0-~]*[!-.0-~])?)+)$"
_DOTS = r"/\.{1,2}(?:/|$)"
Read = TypeVar("Read")
REASON = ":reason"  # inside; no field's name holds a colon
"""Why a row is refused. A reason begins with the name of the column that it is about."""
_DAY = 86_400 * MICROSECONDS_PER_SECOND
_TIMES = (pl.Datetime, pl.Date)
_CONTRADICTS = "identifier occurs again with other values"


@dataclass(frozen=True)
class Wanted:
    """Wanted states of resources of one type, one row each.

    Attributes:
        rows: identifier, parent_identifier (null if the frame did not say), then the given columns, typed as
            the table's.
        given: the columns that the frame sets: license and payload fields.
        has_parents: whether the frame had a parent column.
        rejected: the rows that cannot be written, with a column `reason`.
        mentioned: every identifier of the frame, rejected ones included.
    """

    rows: pl.DataFrame
    given: tuple[str, ...]
    has_parents: bool
    rejected: pl.DataFrame
    mentioned: pl.Series

    @property
    def nameless(self) -> pl.DataFrame:
        """The rejected rows of which it cannot be told what they are about: their identifiers are none."""
        is_about_it = pl.col(REASON).str.starts_with("identifier ") & (pl.col(REASON) != _CONTRADICTS)
        return self.rejected.filter(is_about_it)


@dataclass(frozen=True)
class Typed:
    """A frame matched to a table.

    Attributes:
        rows: identifier, parent_identifier and the given columns, typed as the table's; not yet read.
        given: the columns that the frame sets: license and payload fields.
        has_parents: whether the frame has a parent column.
    """

    rows: pl.LazyFrame
    given: tuple[str, ...]
    has_parents: bool


def to_wanted(spec: TableSpec, frame: pl.DataFrame | pl.LazyFrame) -> Wanted:
    """Match a frame to a table, and read it into memory.

    Args:
        spec: the table.
        frame: identifier, and any of parent_identifier, license and the payload's fields; derived columns are ignored.

    Raises:
        InvalidInputError: an unknown column, a column of a wrong type, or no identifiers.
    """
    typed = to_typed(spec, frame)
    return vet(spec, readable(spec, typed.rows.collect), typed)


def to_typed(spec: TableSpec, frame: pl.DataFrame | pl.LazyFrame) -> Typed:
    """Match a frame to a table by its schema alone; see `to_wanted`."""
    schema = readable(spec, frame.collect_schema)
    _refuse_unknown(spec, schema)
    given = tuple(name for name in ("license", *spec.fields) if name in schema)
    has_parents = "parent_identifier" in schema
    columns = ["identifier", *(["parent_identifier"] if has_parents else []), *given]
    typed = frame.lazy().select(as_column(spec, name, schema[name], spec.columns[name]).alias(name) for name in columns)
    if not has_parents:
        typed = typed.with_columns(pl.lit(None, pl.String).alias("parent_identifier"))
    return Typed(typed.select("identifier", "parent_identifier", *given), given, has_parents)


def readable(spec: TableSpec, read: Callable[[], Read]) -> Read:
    """Read a caller's frame; what hinders it is the caller's to mend.

    Raises:
        InvalidInputError: it cannot be read.
    """
    try:
        return read()
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidInputError(f"a frame of {spec.namespace} cannot be read: {words}") from error


def _refuse_unknown(spec: TableSpec, schema: pl.Schema) -> None:
    known = ["identifier", "parent_identifier", "license", *spec.fields]
    for name in schema:
        if name not in known and name not in DERIVED_COLUMNS:
            raise InvalidInputError(f"{spec.namespace} has no field {name!r}.{did_you_mean(name, known)}")
    if "identifier" not in schema:
        raise InvalidInputError(f"the frame has no column 'identifier'; it has {', '.join(schema) or 'none'}.")


def as_column(spec: TableSpec, name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """Return the expression that turns a frame's column into the table's type, NaN into null.

    Raises:
        InvalidInputError: the types do not fit; nothing is guessed from text.
    """
    if not fits(dtype, wanted):
        is_cast = isinstance(wanted, pl.Int64) and dtype.is_float()
        hint = f" Whole numbers are cast by pl.col({name!r}).cast(pl.Int64)." if is_cast else ""
        raise InvalidInputError(f"{spec.namespace}.{name}: a column of {wanted} is expected, not {dtype}.{hint}")
    column = pl.col(name)
    if isinstance(wanted, pl.Datetime) and isinstance(dtype, (pl.Datetime, pl.Date)):
        return _microseconds(column, dtype).cast(wanted)
    return without_nan(column.cast(wanted), wanted)


def _microseconds(column: pl.Expr, dtype: pl.Datetime | pl.Date) -> pl.Expr:
    """Return instants as microseconds since 1970; what exceeds 64 bits as the nearest that fits, for `vet` to refuse.

    Not by a cast: it panics at what it cannot show.
    """
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns":
        return column.dt.cast_time_unit("us").to_physical()
    unit = _DAY if isinstance(dtype, pl.Date) else 1_000 if dtype.time_unit == "ms" else 1
    most = (2**63 - 1) // unit
    return column.to_physical().cast(pl.Int64).clip(-most, most) * unit


def without_nan(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return a column with NaN as null, inside lists and nested models too."""
    if isinstance(dtype, pl.Float64):
        return column.fill_nan(None)
    if isinstance(dtype, pl.List) and _has_floats(instance(dtype.inner)):
        return column.list.eval(without_nan(pl.element(), instance(dtype.inner)))
    if isinstance(dtype, pl.Struct) and _has_floats(dtype):
        return column.struct.with_fields(
            without_nan(pl.field(field.name), instance(field.dtype)).alias(field.name) for field in dtype.fields
        )
    return column


def _has_floats(dtype: pl.DataType) -> bool:
    match dtype:
        case pl.List():
            return _has_floats(instance(dtype.inner))
        case pl.Struct():
            return any(_has_floats(instance(field.dtype)) for field in dtype.fields)
    return isinstance(dtype, pl.Float64)


def vet(spec: TableSpec, rows: pl.DataFrame, typed: Typed) -> Wanted:
    """Split off malformed identifiers and contradicting duplicates; equal duplicates count once."""
    repeats = rows["identifier"].is_duplicated().any()
    distinct = rows.unique(maintain_order=True) if repeats else rows
    contradicts = pl.col("identifier").is_duplicated() if repeats else pl.lit(False)
    instants = [name for name in typed.given if isinstance(distinct.schema[name], _TIMES)]
    reasons = pl.coalesce(
        pl.when(pl.col("identifier").is_null()).then(pl.lit("identifier is null")),
        _bad("identifier", distinct["identifier"], (spec.type_name,)),
        _bad("parent_identifier", distinct["parent_identifier"].unique(), spec.payload.parent_types),
        *(_unlike_the_model(spec, name, distinct[name]) for name in typed.given if name in spec.fields),
        *(_beyond_the_calendar(name, distinct.schema[name]) for name in instants),
        pl.when(contradicts).then(pl.lit(_CONTRADICTS)),
    )
    judged = distinct.with_columns(reasons.alias(REASON))
    rejected = judged.filter(pl.col(REASON).is_not_null())
    if rejected.height:  # Polars panics at showing what no calendar holds; the reason names it
        rejected = rejected.with_columns(_in_calendar(name, distinct.schema[name]) for name in instants)
    good = judged.filter(pl.col(REASON).is_null()).drop(REASON) if rejected.height else distinct
    return Wanted(good, typed.given, typed.has_parents, rejected, distinct["identifier"].drop_nulls())


def _bad(column: str, values: pl.Series, types: tuple[str, ...]) -> pl.Expr:
    """Return the reason why each value of an identifier column is no identifier of these types; null if it is one."""
    plain = _PLAIN.format(type="|".join(types))  # the rest is judged one by one, as the models do it
    most = MAX_LENGTH if types != ("datasource",) else MAX_LENGTH // 8
    suspects = values.drop_nulls()
    good = suspects.str.contains(plain) & ~suspects.str.contains(_DOTS) & (suspects.str.len_chars() <= most)
    suspects = suspects.filter(~good)
    return _reasons(column, {v: reason for v in suspects.unique() if (reason := _reason(column, v, types))})


def _reasons(column: str, faults: dict[Any, str]) -> pl.Expr:
    if not faults:
        return pl.lit(None, pl.String)
    return pl.col(column).replace_strict(list(faults), list(faults.values()), default=None, return_dtype=pl.String)


def _bounds(dtype: pl.DataType) -> tuple[int, int, str]:
    """Return the first count of the year 1, that after the year 9999, and what is counted."""
    if isinstance(dtype, pl.Date):
        return FIRST // _DAY, END // _DAY, "days"
    return FIRST, END, "microseconds"


def _is_in_calendar(name: str, dtype: pl.DataType) -> pl.Expr:
    first, end, _ = _bounds(dtype)
    return pl.col(name).to_physical().is_between(first, end, closed="left")


def _in_calendar(name: str, dtype: pl.DataType) -> pl.Expr:
    return pl.when(_is_in_calendar(name, dtype)).then(pl.col(name))


def _beyond_the_calendar(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return the reason why each time lies outside the years 1 to 9999, which Python does not hold; null if none."""
    words = f"{name} {{}} {_bounds(dtype)[2]} since 1970-01-01 is outside the years 1 to 9999"
    return pl.when(~_is_in_calendar(name, dtype)).then(pl.format(words, pl.col(name).to_physical()))


def _unlike_the_model(spec: TableSpec, name: str, values: pl.Series) -> pl.Expr:
    """Return the reason why values break what the model says beyond their type; each distinct value is asked once."""
    adapter = value_adapter(spec.payload, name)
    if adapter is None:
        return pl.lit(None, pl.String)
    faults: dict[Any, str] = {}
    if isinstance(values.dtype, _TIMES):
        values = values.to_frame().select(_in_calendar(name, values.dtype)).to_series()
    for value in values.drop_nulls().unique():
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            faults[value] = f"{name} {value!r}: {error.errors()[0]['msg']}"
    return _reasons(name, faults)


def _reason(column: str, value: str, types: tuple[str, ...]) -> str | None:
    if fault := identifier_fault(value):
        return f"{column} {value!r} is no identifier: {fault}"
    if type_of(value) not in types:
        expected = " or ".join(map(repr, types)) or "none"
        return f"{column} {value!r} is of the type {type_of(value)!r}; expected: {expected}"
    if type_of(value) == "datasource" and len(partition_folder(value)) > MAX_FOLDER:
        return f"{column} {value!r} is too long to name a folder: {MAX_FOLDER} characters, escaped, at most"
    return None
