"""`vxdata query` and `vxdata funnel`: questions as text."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vxdata.errors import InvalidInputError
from vxdata_cli.ask import WHERE_HELP, arranged, filtered, namespace_of, only_one
from vxdata_cli.complete import complete_columns, complete_types
from vxdata_cli.export import Format, as_text, format_of, write_file, write_stdout
from vxdata_cli.options import AsOf, Debug, Json, Profile, Quiet, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    import polars as pl

    from vxdata.sdk.query import BaseQuery

QUERY_EXAMPLES = """Examples:

  $ vxdata query volumes
  $ vxdata query volumes --where "volume_type == 'T2' and slice_thickness < 3"
  $ vxdata query volumes --where "patient_id startswith 'DA'" --count
  $ vxdata query patients --select identifier,birthyear --sort=-birthyear --limit 5
  $ vxdata query volumes --where "has_ancestor('datasource/dasa')" -o volumes.parquet
  $ vxdata query volumes --where "modality == 'MR'" --python"""

FUNNEL_EXAMPLES = """Examples:

  $ vxdata funnel volumes --where "modality == 'MR'" --where "slice_thickness < 3"
  $ vxdata funnel volumes --where "volume_type in ('T2', 'ADC')" --json"""

FIRST_ROWS = 20

NamespaceArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAMESPACE",
        autocompletion=complete_types,
        help="What to ask for, such as volumes; 'vxdata schema' lists them.",
    ),
]
Where = Annotated[list[str] | None, typer.Option("--where", "-w", metavar="TEXT", help=WHERE_HELP)]


def query(
    namespace: NamespaceArgument,
    where: Where = None,
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select", metavar="A,B", autocompletion=complete_columns, help="Return these fields only (default: all)."
        ),
    ] = None,
    sort: Annotated[
        list[str] | None,
        typer.Option(
            "--sort",
            metavar="A,-B",
            autocompletion=complete_columns,
            help="Order by these fields, '-' for descending; nulls last.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="Return N rows at most.")] = None,
    as_of: AsOf = None,
    versions: Annotated[bool, typer.Option("--versions", help="All versions, not only the current ones.")] = False,
    format: Annotated[
        Format | None, typer.Option("--format", help="How to give the rows (default: by FILE, else table).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file instead of stdout.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Give the number of rows only.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what would be read.")] = False,
    python: Annotated[bool, typer.Option("--python", help="Print the same question in Python.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the same question in SQL (docs/sql.md).")] = False,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask for resources of one type.

    A table shows the first 20 rows and says how many more there are. CSV, NDJSON
    and Parquet hold all rows, as they are, and may be larger than memory.
    """
    from vxdata.sdk import Client

    base = filtered(namespace_of(Client(uri), namespace).query(), where)
    asked = arranged(base, select=select, sort=sort, limit=limit, as_of=as_of, versions=versions)
    if instead := only_one(count=count, explain=explain, python=python, sql=sql):
        _refuse_beside(instead, format, output)
        answer = _ABOUT[instead](asked)
        out.text({"namespace": _name(asked), instead: answer}, str(answer))
    elif as_json:
        _refuse_beside("json", format, output)
        rows = _rows_as_json(asked)
        out.result({"namespace": _name(asked), "count": len(rows), "rows": rows})
    elif output is not None:
        write_file(asked, format_of(format, output), output)
    elif format_of(format, output) is Format.TABLE:
        out.show(*_table(asked, first=FIRST_ROWS if limit is None else limit))
    else:
        write_stdout(asked, format_of(format, output))


def funnel(
    namespace: NamespaceArgument,
    where: Where = None,
    as_of: AsOf = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Count what each --where leaves, in their order, as for a paper's flow chart.

    Where a filter removed rows only because a value was missing, it says how many.
    """
    import polars as pl

    from vxdata.sdk import Client
    from vxdata_cli.grid import step_table

    base = filtered(namespace_of(Client(uri), namespace).query(), where)
    counted = arranged(base, select=None, sort=None, limit=None, as_of=as_of, versions=False).funnel()
    steps = counted.with_columns(pl.Series("filter", ["all", *(where or ())]))
    document = {"namespace": _name(base), "steps": steps.to_dicts()}
    out.result(document, step_table(steps, out.width))


_ABOUT: dict[str, Any] = {
    "count": lambda asked: asked.count(),
    "explain": lambda asked: asked.explain(),
    "python": lambda asked: asked.to_python(),
    "sql": lambda asked: asked.to_sql(),
}


def _name(asked: "BaseQuery") -> str:
    return asked.as_select().spec.namespace


def _refuse_beside(flag: str, form: Format | None, output: Path | None) -> None:
    if form is not None or output is not None:
        raise InvalidInputError(f"--{flag} goes to stdout in a form of its own; leave --format and -o out.")


def _rows_as_json(asked: "BaseQuery") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(as_text(asked.collect().lazy(), Format.NDJSON).collect().write_json())
    return found


def _table(asked: "BaseQuery", first: int) -> list[Any]:
    """Return the first rows as a table, and what it leaves out."""
    seen = asked.preview(first)
    is_chosen = asked.as_select().columns is not None
    shown = seen.rows if is_chosen else seen.rows.select(_telling_first(seen.rows, asked))
    return _fitted(shown, seen.total)


def _telling_first(rows: "pl.DataFrame", asked: "BaseQuery") -> list[str]:
    """Order columns by what they tell: the identifier, fields that hold values, the metadata, and what is null."""
    fields = asked.as_select().spec.fields
    holding = [name for name in fields if rows[name].null_count() < rows.height]
    return list(dict.fromkeys(["identifier", *holding, *rows.columns]))


def _fitted(rows: "pl.DataFrame", total: int | None = None) -> list[Any]:
    from vxdata_cli.grid import data_table

    table, hidden = data_table(rows, out.width)
    more = (total or rows.height) - rows.height
    notes = [f"{more:,} more row{'s' * (more > 1)} (--limit N)"] if more else []
    notes += [f"{hidden} more field{'s' * (hidden > 1)} (--select A,B)"] if hidden else []
    if total == 0:
        return ["No rows."]
    return [table, f"… and {', '.join(notes)}"] if notes else [table]
