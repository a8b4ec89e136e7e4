"""`vxdata create`, `update` and `delete`: single resources, shown before they are changed."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vxdata.errors import InvalidInputError, did_you_mean
from vxdata_cli.complete import complete_field_names, complete_fields, complete_identifiers
from vxdata_cli.options import Debug, Json, Profile, Quiet, Reason, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    import polars as pl

    from vxdata.schemas import ResourceResponse
    from vxdata.sdk import Client

CREATE_EXAMPLES = """Examples:

  $ vxdata create datasource/bamberg --set name="Bamberg trial"
  $ vxdata create patient/BB00017 --parent datasource/bamberg --set birthyear=1950 --yes
  $ vxdata create volume/BB00017/1/1 --parent imagingstudy/BB00017/1 --set 'derived_from=["volume/BB00017/1/2"]'"""
UPDATE_EXAMPLES = """Examples:

  $ vxdata update volume/BB00017/1/1 --set volume_type=T2 --set slice_thickness=3.5
  $ vxdata update patient/BB00017 --unset birthyear --reason "wrong form" --yes"""
DELETE_EXAMPLES = """Examples:

  $ vxdata delete volume/BB00017/1/1 --reason "phantom"
  $ vxdata delete patient/BB00017 --cascade"""

_MOST_COMMON, _SHOWN_BEFORE = 40, 20
"""Characters that two texts may have in common, and how many of more are shown before the first that differs."""

Identifier = Annotated[
    str, typer.Argument(metavar="IDENTIFIER", autocompletion=complete_identifiers, help="Such as patient/BB00017.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        autocompletion=complete_fields,
        help="A field's value; lists as JSON. Repeatable.",
    ),
]
License = Annotated[str | None, typer.Option("--license", metavar="TEXT", help="The license of the data.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def create(
    identifier: Identifier,
    parent: Annotated[
        str | None,
        typer.Option("--parent", metavar="IDENTIFIER", autocompletion=complete_identifiers, help="Its parent."),
    ] = None,
    values: Set = None,
    license: License = None,
    yes: Yes = False,
    uri: Uri = None,
    profile: Profile = None,
    reason: Reason = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Create one resource. Many at once are loaded with 'vxdata ingest'."""
    from vxdata.schemas import Resource
    from vxdata.sdk import Client

    payload = read_values(identifier, values or ())
    with _valid_model():
        resource = Resource(identifier=identifier, parent_identifier=parent, license=license, payload=payload)
    after = {"parent_identifier": parent, "license": license, **payload}
    client = Client(uri)
    _confirm(f"Create {identifier} in {client.uri}", {name: (None, value) for name, value in after.items()}, yes=yes)
    made = client.resources.create(resource, reason=reason)
    out.result(_document(made, is_changed=True), f"Created {identifier}.")


def update(
    identifier: Identifier,
    values: Set = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(
            "--unset", metavar="FIELD", autocompletion=complete_field_names, help="A field to clear. Repeatable."
        ),
    ] = None,
    license: License = None,
    yes: Yes = False,
    uri: Uri = None,
    profile: Profile = None,
    reason: Reason = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Change fields of one resource; what is not named stays as it is.

    What is shown is what is changed: if somebody else changes the resource
    meanwhile, nothing is written.
    """
    from vxdata.sdk import Client

    changes = read_changes(identifier, values or (), unset or (), license)
    client = Client(uri)
    now = client.resources.retrieve(identifier)
    before = {**now.payload.model_dump(), "license": now.license}
    differing = {name: (before[name], value) for name, value in changes.items() if before[name] != value}
    if not differing:
        out.result(_document(now, is_changed=False), f"{identifier} is like that already; nothing was written.")
        return
    _confirm(f"Change {identifier} in {client.uri}", differing, yes=yes)
    licensed = {"license": changes.pop("license")} if "license" in changes else {}
    made = client.resources.update(identifier, changes, expected_valid_from=now.valid_from, reason=reason, **licensed)
    out.result(_document(made, is_changed=True), f"Changed {identifier}.")


def delete(
    identifier: Identifier,
    cascade: Annotated[bool, typer.Option("--cascade", help="Delete all its descendants too.")] = False,
    yes: Yes = False,
    uri: Uri = None,
    profile: Profile = None,
    reason: Reason = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Delete one resource: its history stays, and it can be created again."""
    from vxdata.sdk import Client

    client = Client(uri)
    now = client.resources.retrieve(identifier)
    below = count_descendants(client, identifier)
    if below and not cascade:
        counts = ", ".join(f"{count:,} {name}" for name, count in below.items())
        raise InvalidInputError(f"{identifier!r} has live descendants ({counts}); --cascade deletes them too.")
    shown = {name: (value, None) for name, value in _known(now).items()}
    shown |= {f"{count:,} {name}": ("live", None) for name, count in below.items()}
    _confirm(f"Delete {identifier} in {client.uri}", shown, yes=yes)
    report = client.resources.delete(identifier, cascade=cascade, reason=reason)
    counts = ", ".join(f"{count:,} {name}" for name, count in report.deleted.items())
    document = {"identifier": identifier, "changed": True, "deleted": report.deleted, "commit_id": report.commit_id}
    out.result(document, f"Deleted {identifier} ({counts}).")


def count_descendants(client: "Client", identifier: str) -> dict[str, int]:
    """Return how many live descendants a resource has, by namespace, root first; those without are left out."""
    from vxdata.catalog.table import descendant_specs
    from vxdata.sdk import has_ancestor

    below = descendant_specs(identifier.partition("/")[0])
    seen = client.snapshot()
    counts = {
        spec.namespace: seen.namespace(spec.payload).query().filter(has_ancestor(identifier)).count() for spec in below
    }
    return {name: count for name, count in counts.items() if count}


# ---- values


_WORDS_FOR_NOTHING = ("null", "none", "nil", "na", "n/a", "nan")


def read_values(identifier: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``field=value`` pairs, each by the type of its field; lists and nested models are JSON.

    Raises:
        InvalidInputError: no pair, an unknown field, or a value of a wrong type.
    """
    import polars as pl

    from vxdata.sources.cells import TextRules, expectation, is_unread, parse_cells

    fields, found = _fields(identifier), {}
    for pair in pairs:
        name, is_pair, text = pair.partition("=")
        if not is_pair:
            raise InvalidInputError(f"--set {pair!r}: FIELD=VALUE is expected, such as volume_type=T2.")
        _check_field(identifier, name, fields)
        if name in found:
            raise InvalidInputError(f"--set names {name!r} twice.")
        cell = pl.Series(name, [text])
        value = parse_cells(cell, fields[name], TextRules())
        if is_unread(cell, value).item():
            words = expectation(fields[name], TextRules()).partition(";")[0]
            clears = f" --unset {name} clears it." if text.strip().lower() in _WORDS_FOR_NOTHING else ""
            raise InvalidInputError(f"--set {name}={text}: {text!r} {words}.{clears}")
        if value.item() is None or (value.dtype.is_float() and math.isnan(value.item())):
            raise InvalidInputError(f"--set {name}={text}: there is no value; --unset {name} clears it.")
        found[name] = value.to_list()[0]
    return found


def _fields(identifier: str) -> "dict[str, pl.DataType]":
    from vxdata.catalog.table import table_spec
    from vxdata.schemas.identifiers import check_identifier, type_of
    from vxdata.schemas.registry import registry

    return table_spec(registry().of_type(type_of(check_identifier(identifier)))).fields


def _check_field(identifier: str, name: str, fields: Mapping[str, Any]) -> None:
    if name not in fields:
        hint = " --license sets it." if name == "license" else did_you_mean(name, fields)
        raise InvalidInputError(f"a {identifier.partition('/')[0]} has no field {name!r}.{hint}")


def read_changes(identifier: str, pairs: Sequence[str], cleared: Sequence[str], license: str | None) -> dict[str, Any]:
    """Read what an update changes, the license included; None clears.

    Raises:
        InvalidInputError: nothing, an unknown field, one that is both set and cleared, or a value of a wrong type.
    """
    changes = read_values(identifier, pairs)
    if license is not None:
        changes["license"] = license
    fields = {**_fields(identifier), "license": None}
    for name in cleared:
        _check_field(identifier, name, fields)
        if changes.get(name) is not None:
            raise InvalidInputError(f"{name!r} is both set and cleared.")
        changes[name] = None
    if not changes:
        raise InvalidInputError("nothing to change was named; --set FIELD=VALUE, --unset FIELD or --license does.")
    return changes


class _valid_model:  # noqa: N801  # reads as a statement
    """Words pydantic's complaints about a resource as one sentence."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from pydantic import ValidationError

        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidInputError(f"{where}: {first['msg']}" if where else first["msg"]) from error


# ---- preview


def _confirm(title: str, changes: Mapping[str, tuple[Any, Any]], *, yes: bool) -> None:
    """Show what will be, and ask; without a terminal nobody can answer.

    Raises:
        InvalidInputError: there is no terminal, and no --yes.
    """
    from vxdata_cli.tables import rows_table

    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInputError(f"{title}? Nobody can be asked here, since this is no terminal; --yes does it.")
    rows = [(name, *_beside(_shown(before), _shown(after))) for name, (before, after) in changes.items()]
    out.ask(rows_table(("field", "now", "will be"), rows, title=title))
    out.confirm("Do it?")


def _beside(before: str, after: str) -> tuple[str, str]:
    """Return two texts as they are compared: what long ones have in common at their beginning is left out."""
    pairs = zip(before, after, strict=False)
    common = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(before), len(after)))
    start = common - _SHOWN_BEFORE if common > _MOST_COMMON else 0
    return (before, after) if start == 0 else (f"...{before[start:]}", f"...{after[start:]}")


def _known(resource: "ResourceResponse[Any]") -> dict[str, Any]:
    """Return what is known of a resource, without nulls."""
    plain = {"parent_identifier": resource.parent_identifier, "license": resource.license}
    return {name: value for name, value in {**plain, **resource.payload.model_dump()}.items() if value is not None}


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _document(resource: "ResourceResponse[Any]", *, is_changed: bool) -> dict[str, Any]:
    return {"identifier": resource.identifier, "changed": is_changed, "resource": resource.model_dump(mode="json")}
