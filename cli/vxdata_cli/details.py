"""Single resources as lines of text: their fields, their changes, and the tree below them."""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from vxdata.catalog.table import METADATA_COLUMNS, table_spec, unit_of
from vxdata.schemas.registry import registry
from vxdata_cli.shown import escaped, instant_text, shown_text

if TYPE_CHECKING:
    import polars as pl

    from vxdata.schemas.payload import Payload
    from vxdata.schemas.response import ResourceResponse
    from vxdata.sdk.tree import Tree

_NOTHING = "(null)"


def resource_lines(response: "ResourceResponse[Any]") -> str:
    """Return the fields of a resource that hold something, one on each line, and the names of the others."""
    payload: type[Payload] = type(response.payload)
    spec = table_spec(payload)
    values = {name: getattr(response, name) for name in METADATA_COLUMNS}
    values |= {name: getattr(response.payload, name) for name in spec.fields}
    held = {_with_unit(name, unit_of(spec, name)): value for name, value in values.items() if value is not None}
    width = max(map(len, held))
    lines = [f"{name:{width}}  {shown_text(value)}" for name, value in held.items()]
    missing = [name for name in spec.fields if values[name] is None]
    return "\n".join([*lines, *([f"{'null':{width}}  {', '.join(missing)}"] if missing else [])])


def _with_unit(name: str, unit: str | None) -> str:
    return name if unit is None else f"{name} ({unit})"


def change_lines(changes: "pl.DataFrame") -> str:
    """Return changes as paragraphs: when, what, who and why, then the fields."""
    rows = changes.iter_rows(named=True)
    paragraphs = (list(group) for _, group in groupby(rows, key=lambda row: (row["valid_from"], row["operation"])))
    return "\n\n".join("\n".join(_paragraph(paragraph)) for paragraph in paragraphs)


def _paragraph(rows: list[dict[str, Any]]) -> Iterator[str]:
    first = rows[0]
    who = f" by {escaped(first['author'])}" if first["author"] else ""
    why = f": {escaped(first['reason'])}" if first["reason"] else ""
    yield f"{instant_text(first['valid_from'])} UTC  {first['operation']}{who}{why}"
    fields = [row for row in rows if row["field"] is not None]
    width = max((len(row["field"]) for row in fields), default=0)
    for row in fields:
        before, after = (_NOTHING if row[side] is None else escaped(row[side]) for side in ("before", "after"))
        change = after if first["operation"] == "created" else f"{before} -> {after}"
        yield f"    {row['field']:{width}}  {change}"


def tree_lines(tree: "Tree") -> str:
    """Return a tree with its branches drawn."""
    children = _children(tree)
    counts = {identifier: _count_words(found) for identifier, found in _counts(tree).items()}

    def lines(identifier: str, indent: str) -> Iterator[str]:
        entries = [(child, True) for child in children.get(identifier, [])]
        if hidden := tree.hidden.get(identifier):
            entries.append((f"and {hidden:,} more", False))
        for number, (entry, is_node) in enumerate(entries, start=1):
            is_last = number == len(entries)
            yield f"{indent}{'└── ' if is_last else '├── '}{entry}{counts.get(entry, '') if is_node else ''}"
            if is_node:
                yield from lines(entry, indent + ("    " if is_last else "│   "))

    return "\n".join([f"{tree.identifier}{counts.get(tree.identifier, '')}", *lines(tree.identifier, "")])


def tree_document(tree: "Tree") -> dict[str, Any]:
    """Return a tree as JSON shows it: nested, with the counts and what is not listed."""
    children, counts = _children(tree), _counts(tree)

    def node(identifier: str) -> dict[str, Any]:
        return {
            "identifier": identifier,
            "descendants": counts.get(identifier, {}),
            "children": [node(child) for child in children.get(identifier, [])],
            "children_not_listed": tree.hidden.get(identifier, 0),
        }

    return node(tree.identifier)


def _children(tree: "Tree") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for identifier, parent in tree.nodes.select("identifier", "parent_identifier").iter_rows():
        found.setdefault(parent, []).append(identifier)
    return found


def _counts(tree: "Tree") -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for identifier, type_name, count in tree.counts.iter_rows():
        found.setdefault(identifier, {})[type_name] = count
    return found


def _count_words(counts: dict[str, int]) -> str:
    named = ((registry().of_type(type_name).namespace, count) for type_name, count in counts.items())
    return "  (" + ", ".join(f"{namespace} {count:,}" for namespace, count in named) + ")"
