"""Options as a query of the SDK."""

from typing import TYPE_CHECKING, Any

import typer

from vxdata.errors import InvalidInputError

if TYPE_CHECKING:
    from vxdata.schemas.payload import Payload
    from vxdata.sdk import Client
    from vxdata.sdk.namespace import Namespace
    from vxdata.sdk.query import BaseQuery, Query

WHERE_HELP = "Keep the rows for which this is true; repeatable. See docs/query-text.md."


def payload_of(word: str) -> "type[Payload]":
    """Return the type that a word names, by its namespace (volumes) or by itself (volume).

    Raises:
        InvalidInputError: neither; the message names the nearest.
    """
    from vxdata.schemas.registry import registry

    known = registry()
    return known.of_type(word) if word in known else known.of_namespace(word)


def namespace_of(client: "Client", word: str) -> "Namespace[Any]":
    """Return the namespace that a word names."""
    return client.namespace(payload_of(word))


def namespace_name(word: str) -> str:
    """Return the name of the namespace that a word names."""
    return payload_of(word).namespace


def filtered(query: "Query[Any]", where: list[str] | None) -> "Query[Any]":
    """Return a query with conditions that were given as text.

    Raises:
        InvalidInputError: a text is no condition on these fields; the message shows the place.
    """
    from vxdata.expr.bind import bind
    from vxdata.expr.parse import parse_predicate

    spec = query.as_select().spec
    return query.filter(*(parse_predicate(text, check=lambda leaf: bind(leaf, spec)) for text in where or ()))


def arranged(
    query: "Query[Any]",
    *,
    select: list[str] | None,
    sort: list[str] | None,
    limit: int | None,
    as_of: str | None,
    versions: bool,
) -> "BaseQuery":
    """Return a query with order, limit, time and columns as the options say."""
    names = names_of("--sort", sort)
    if names:
        query = query.sort(*(name.removeprefix("-") for name in names), descending=[n.startswith("-") for n in names])
    if limit is not None:
        query = query.limit(limit)
    if as_of is not None:
        query = query.as_of(as_of)
    if versions:
        query = query.versions()
    columns = names_of("--select", select)
    return query.select(*columns) if columns else query


def names_of(option: str, values: list[str] | None) -> list[str]:
    """Return the names in values such as ``a,b``."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    if not all(names):
        raise InvalidInputError(f"{option} {','.join(values or ())}: a name is empty; write names as in a,b.")
    return names


def only_one(**given: bool) -> str | None:
    """Return the name of the one flag that was given, None for none.

    Raises:
        typer.BadParameter: more than one.
    """
    names = [name for name, value in given.items() if value]
    if len(names) > 1:
        raise typer.BadParameter(f"{' and '.join(f'--{name}' for name in names)} exclude one another.")
    return names[0] if names else None
