"""Texts wherever they stand: in columns of any type, and in files of any kind that can be looked into."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from vxdata.errors import StorageError
from vxdata.lake.faults import refuse_unanswered, translated
from vxdata.lake.log import json_lines
from vxdata.lake.mentions import Mentions
from vxdata.lake.passes import pass_over
from vxdata.lake.store import Store

_AS_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Binary)


def rows_naming(rows: pl.LazyFrame, columns: Mapping[str, pl.DataType], mentions: Mentions) -> dict[str, pl.DataFrame]:
    """Return the texts, at any depth, that name an erased resource, by column: row (a number), text.

    Args:
        rows: the rows.
        columns: the columns that are looked at, and their types; those without such texts are left out of the answer.
        mentions: what is looked for.
    """
    may_name = pl.col("text").str.contains_any(sorted(mentions.identifiers))
    found: dict[str, list[pl.DataFrame]] = {}
    passed = dict.fromkeys(columns, 0)

    def look(batch: pl.DataFrame) -> None:
        for name in batch.columns:
            numbered = batch.lazy().select(pl.col(name).alias("text")).with_row_index("row", passed[name])
            passed[name] += batch.height
            for leaf in _leaves(numbered, columns[name]):
                texts = leaf.filter(may_name).select("row", "text").collect()
                names = texts.filter(pl.Series([mentions.are_in(text) for text in texts["text"]], dtype=pl.Boolean))
                if names.height:
                    found.setdefault(name, []).append(names)

    pass_over(rows, (name for name, dtype in columns.items() if _may_hold_texts(dtype)), look)
    return {name: pl.concat(texts) for name, texts in found.items()}


def _leaves(rows: pl.LazyFrame, dtype: Any) -> Iterator[pl.LazyFrame]:
    """Return the texts of each leaf of a column `text`, with their rows' numbers."""
    match dtype:
        case pl.List() | pl.Array():
            yield from _leaves(rows.explode("text"), dtype.inner)
        case pl.Struct():
            for leaf in dtype.fields:
                yield from _leaves(rows.with_columns(pl.col("text").struct.field(leaf.name).alias("text")), leaf.dtype)
        case _ if isinstance(dtype, _AS_TEXT):
            yield rows.with_columns(pl.col("text").cast(pl.String, strict=False))


def _may_hold_texts(dtype: Any) -> bool:
    match dtype:
        case pl.List() | pl.Array():
            return _may_hold_texts(dtype.inner)
        case pl.Struct():
            return any(_may_hold_texts(leaf.dtype) for leaf in dtype.fields)
    return isinstance(dtype, _AS_TEXT)


def texts_naming(store: Store, key: str, mentions: Mentions) -> list[str] | None:
    """Return the texts in a file that name an erased resource; none if it is gone.

    Returns:
        None if the file is neither Parquet nor text, so that it cannot be looked into.
    """
    try:
        if key.endswith(".parquet"):
            return _in_parquet(store, key, mentions)
        return [text for text in texts_of(key, store.get(key) or b"") if mentions.are_in(text)]
    except StorageError as error:
        refuse_unanswered(error)
        return None if store.exists(key) else []
    except UnicodeDecodeError:
        return None


def _in_parquet(store: Store, key: str, mentions: Mentions) -> list[str]:
    with translated(store.uri, f"read {key} of"):
        options = store.scan_options()
        rows = pl.scan_parquet(store.url(key), glob=False, hive_partitioning=False, **options)
        found = rows_naming(rows, rows.collect_schema(), mentions)
        return [text for texts in found.values() for text in texts["text"]]


def texts_of(key: str, data: bytes) -> Iterator[str]:
    """Return the texts of a JSON file; another one is a text as a whole.

    Raises:
        UnicodeDecodeError: it is no text.
    """
    if key.endswith((".json", ".ndjson")):
        for parse in (json.loads, json_lines):
            try:
                yield from json_texts(parse(data))
                return
            except ValueError:
                continue
    yield data.decode()


def json_texts(content: Any, skipped: frozenset[str] = frozenset()) -> Iterator[str]:
    """Return all texts in JSON content, but for what stands under some names."""
    match content:
        case str():
            yield content
        case dict():
            for name, value in content.items():
                if name not in skipped:
                    yield from json_texts(value, skipped)
        case list() | tuple():
            for value in content:
                yield from json_texts(value, skipped)
