"""`vxdata get`, `vxdata history` and `vxdata tree`: single resources, their past, and what lies below them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vxdata_cli.complete import complete_identifiers
from vxdata_cli.options import AsOf, Debug, Json, Profile, Quiet, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    from vxdata.schemas.response import ResourceResponse
    from vxdata.sdk import Client

GET_EXAMPLES = """Examples:

  $ vxdata get patient/BB00017
  $ vxdata get volume/BB00017/001/t2 --as-of 2026-01-31
  $ vxdata get patient/BB00017 patient/BB00018 --json"""

HISTORY_EXAMPLES = """Examples:

  $ vxdata history volume/BB00017/001/t2
  $ vxdata history volume/BB00017/001/t2 --json"""

TREE_EXAMPLES = """Examples:

  $ vxdata tree patient/BB00017
  $ vxdata tree datasource/bamberg --depth 2 --limit 5"""

Identifier = Annotated[
    str,
    typer.Argument(
        metavar="IDENTIFIER",
        autocompletion=complete_identifiers,
        help="A resource, <type>/<segment>..., such as patient/BB00017.",
    ),
]


def get(
    identifiers: Annotated[
        list[str],
        typer.Argument(
            metavar="IDENTIFIER", autocompletion=complete_identifiers, help="Resources, such as patient/BB00017."
        ),
    ],
    as_of: AsOf = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show resources: their fields, one on each line.

    With --json one resource is an object, several are a list in the order asked for.
    """
    from vxdata_cli.details import resource_lines

    found = _client(uri, as_of).resources.retrieve(identifiers)
    documents = [_document(response) for response in found]
    out.text(documents[0] if len(documents) == 1 else documents, "\n\n".join(map(resource_lines, found)))


def history(
    identifier: Identifier,
    as_of: AsOf = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what happened to a resource, oldest first: what changed, when, by whom and why, field by field."""
    from vxdata_cli.details import change_lines

    changes = _client(uri, as_of).resources.changes(identifier)
    out.text({"identifier": identifier, "changes": changes.to_dicts()}, change_lines(changes))


def tree(
    identifier: Identifier,
    depth: Annotated[int, typer.Option("--depth", metavar="N", min=0, help="How many levels are listed.")] = 1,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="How many children of each are listed at most.")
    ] = 20,
    as_of: AsOf = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what lies below a resource, and how much of each type lies below each."""
    from vxdata_cli.details import tree_document, tree_lines

    found = _client(uri, as_of).resources.tree(identifier, depth=depth, limit=limit)
    out.text(tree_document(found), tree_lines(found))


def _client(uri: str | None, as_of: str | None) -> "Client":
    from vxdata.sdk import Client

    client = Client(uri)
    return client if as_of is None else client.as_of(as_of)


def _document(response: "ResourceResponse[Any]") -> dict[str, Any]:
    return response.model_dump(warnings=False)
