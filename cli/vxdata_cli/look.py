"""`vxdata schema` and `vxdata info`: what can be asked for, and the state of a lake."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vxdata_cli.complete import complete_types
from vxdata_cli.options import Debug, Json, Profile, Quiet, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    import polars as pl

    from vxdata.schemas.payload import Payload
    from vxdata.sdk.info import LakeInfo

SCHEMA_EXAMPLES = """Examples:

  $ vxdata schema
  $ vxdata schema volumes
  $ vxdata schema patient --json"""

INFO_EXAMPLES = """Examples:

  $ vxdata info
  $ vxdata info --uri s3://bucket/lake --json"""


def schema(
    type_name: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE", autocompletion=complete_types, help="A type, such as volumes (default: list the types)."
        ),
    ] = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the types, or the fields of one type: what they hold, in which unit, and how often they are null."""
    from vxdata.sdk import Client
    from vxdata_cli.ask import namespace_of, payload_of

    if type_name is None:
        types = _types()
        out.text({"types": types}, _type_lines(types))
    else:
        fields, cls = namespace_of(Client(uri), type_name).fields(), payload_of(type_name)
        out.text({**_about(cls), "fields": fields.to_dicts()}, _field_lines(cls, fields))


def info(
    uri: Uri = None, profile: Profile = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Show the state of a lake: what its tables hold, how it lies in files, and what wants upkeep."""
    from vxdata.sdk import Client

    found = Client(uri).info()
    out.result(asdict(found), *_info_parts(found))


def _types() -> list[dict[str, Any]]:
    from vxdata.schemas.registry import registry

    return [_about(cls) for cls in registry()]


def _about(cls: "type[Payload]") -> dict[str, Any]:
    return {
        "namespace": cls.namespace,
        "type": cls.payload_type,
        "parents": list(cls.parent_types),
        "description": (cls.__doc__ or "").strip().partition("\n")[0],
    }


def _type_lines(types: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{row['namespace']}: {row['type']}/..." + (f", below {' or '.join(row['parents'])}" if row["parents"] else "")
        + f"\n    {row['description']}"
        for row in types
    )  # fmt: skip


def _field_lines(cls: "type[Payload]", fields: "pl.DataFrame") -> str:
    """Return the fields of a type, two lines for each."""
    rows = fields["rows"][0]
    counted = "no lake here, so nothing is counted" if rows is None else f"{rows:,} resources"
    lines = [f"{cls.namespace} ({cls.payload_type}): {counted}"]
    for row in fields.iter_rows(named=True):
        unit, share = row["unit"], _share(row["nulls"], row["rows"])
        words = [row["type"] + (f" in {unit}" if unit else ""), *([share] if share else [])]
        lines += [f"{row['field']}: {', '.join(words)}", f"    {row['description'] or 'no description'}"]
    return "\n".join(lines)


def _share(nulls: int | None, rows: int | None) -> str:
    """Return how often a field is null; few is not rounded to never, nor nearly all to all."""
    if nulls is None or not rows:
        return ""
    if nulls in (0, rows):
        return "always null" if nulls else "never null"
    return f"{min(max(100 * nulls / rows, 0.1), 99.9):.1f} % null"


def _info_parts(found: "LakeInfo") -> list[Any]:
    from rich import box
    from rich.table import Table

    from vxdata.lake.unregistered import REGISTER_THEM

    table = Table("table", box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("resources", "versions", "files", "tail", "size", "log"):
        table.add_column(name, justify="right")
    for t in found.tables:
        numbers = (t.resources, t.versions, t.files, t.tail_files)
        shown = (*(f"{number:,}" for number in numbers), size_text(t.bytes), f"{t.commits_since_checkpoint:,}")
        table.add_row(t.namespace, *shown)
    size = size_text(sum(t.bytes for t in found.tables))
    wants = [f"{t.namespace} wants {' and '.join(t.wants)}." for t in found.tables if t.wants]
    return [
        f"{found.uri}\n{size} in live files, datasources: {len(found.datasources):,}\n",
        table,
        "\ntail: files with updates and deletes that are not folded; log: commits since the last checkpoint",
        *(wants or ["Nothing wants upkeep."]),
        *(f"{name}: its payload type is not registered here; {REGISTER_THEM}." for name in found.unregistered),
    ]


def size_text(size: int) -> str:
    """Return a number of bytes for people, in powers of ten."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
