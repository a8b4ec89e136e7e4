"""What the shell completes: types, fields, datasources and profiles. Whatever goes wrong here, nothing is offered."""

import os
from collections.abc import Iterable
from contextlib import suppress

import typer

MOST_DATASOURCES = 1_000


def complete_types(incomplete: str) -> list[str]:
    """Offer the namespaces."""
    found: list[str] = []
    with suppress(Exception):
        from vxdata.schemas.registry import registry

        found = registry().namespaces()
    return _starting(found, incomplete)


def complete_fields(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the fields of the resource that the command line names, each with the ``=`` that its value follows."""
    found: list[str] = []
    with suppress(Exception):
        found = [f"{name}=" for name in _fields(ctx)]
    return _starting(found, incomplete)


def complete_field_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the fields of the resource that the command line names."""
    found: list[str] = []
    with suppress(Exception):
        found = _fields(ctx)
    return _starting(found, incomplete)


def complete_columns(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the columns of the namespace that the command line names, each behind those that stand there already."""
    done, comma, last = incomplete.rpartition(",")
    sign = "-" if last.startswith("-") else ""
    found: list[str] = []
    with suppress(Exception):
        found = [f"{done}{comma}{sign}{name}" for name in _columns(ctx)]
    return _starting(found, incomplete)


def _columns(ctx: typer.Context) -> list[str]:
    from vxdata.catalog.table import table_spec
    from vxdata.schemas.registry import registry

    names = (str(ctx.params.get("namespace") or ""), *_words_of_line())
    known = registry().namespaces()
    return list(table_spec(registry().of_namespace(next(name for name in names if name in known))).visible)


def _words_of_line() -> list[str]:
    return f"{os.environ.get('COMP_WORDS', '')} {os.environ.get('_TYPER_COMPLETE_ARGS', '')}".split()


def _fields(ctx: typer.Context) -> list[str]:
    """Return the fields of the first resource on the line: an unfinished line is not parsed to its arguments."""
    from vxdata.schemas.registry import registry

    words = [str(ctx.params.get("identifier") or ""), *_words_of_line()]
    types = (word.partition("/")[0].strip("'\"") for word in words if "/" in word)
    return [*registry().of_type(next(name for name in types if name in registry())).model_fields, "license"]


def complete_identifiers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the type words, and the lake's datasources where that is the type."""
    found: list[str] = []
    with suppress(Exception):
        from vxdata.schemas.registry import registry

        found = [f"{cls.payload_type}/" for cls in registry()]
        if incomplete.startswith("datasource/"):
            from vxdata.sdk import Client

            query = Client(ctx.params.get("uri")).datasources.query().select("identifier").limit(MOST_DATASOURCES)
            found += query.collect()["identifier"].sort().to_list()
    return _starting(found, incomplete)


def complete_profiles(incomplete: str) -> list[str]:
    """Offer the profiles of the settings files."""
    found: list[str] = []
    with suppress(Exception):
        from vxdata.sdk.settings import find_settings

        found = sorted({name for file in find_settings().files for name in file.profiles})
    return _starting(found, incomplete)


def _starting(found: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in found if word.startswith(incomplete)]
