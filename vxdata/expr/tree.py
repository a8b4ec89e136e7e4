"""The predicate tree: frozen nodes that name columns and hold literals.

Operators are overloaded on the field proxy (`proxy.Field`); a node knows only `&`, `|` and `~`, so that `==` on nodes
is structural. Three-valued logic: a filter keeps the rows for which the predicate is true; null is not true, nor is its
negation.

Source: design of record, section 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

from vxdata.errors import InvalidInputError
from vxdata.expr.select import Select

LONG = 100
"""A list of more values is joined like a subquery.

Up to here Polars skips row groups by each value of a list, with more only by the least and the greatest. A semi-join
beside that range is then as fast, and 20 times faster at 80,000 values.
"""

ComparisonOperator = Literal["==", "!=", "<", "<=", ">", ">=", "after", "before"]
TextOperator = Literal["contains", "startswith", "endswith"]


class Predicate:
    """Base of all nodes."""

    def __and__(self, other: "Predicate") -> "Predicate":
        return And((*_parts(self, And), require_predicate(other)))

    def __or__(self, other: "Predicate") -> "Predicate":
        return Or((*_parts(self, Or), require_predicate(other)))

    def __rand__(self, other: Any) -> NoReturn:
        raise _no_predicate(other)

    __ror__ = __rand__

    def __invert__(self) -> "Predicate":
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise InvalidInputError(
            "a predicate has no truth value in Python. Write & | ~ in place of and, or, not (each side in "
            "parentheses), .is_in([...]) in place of in, and .between(a, b) in place of a chained comparison."
        )


def _parts(predicate: Predicate, kind: "type[And] | type[Or]") -> tuple[Predicate, ...]:
    """Return the parts of what was built up by one operator, so that a loop builds no tower; a range stays one part."""
    return predicate.parts if isinstance(predicate, kind) and not is_range(predicate) else (predicate,)


def is_range(predicate: Predicate) -> bool:
    """Whether a predicate is what `.between` builds."""
    match predicate:
        case And((Compare(column, ">=", _), Compare(other, "<=", _))):
            return column == other
    return False


def require_predicate(value: Any) -> Predicate:
    """Return a predicate as it is.

    Raises:
        InvalidInputError: the value is none.
    """
    if isinstance(value, Predicate):
        return value
    raise _no_predicate(value)


def _no_predicate(value: Any) -> InvalidInputError:
    name = getattr(value, "_name", None)
    if isinstance(name, str):
        return InvalidInputError(f"F.{name} alone is no predicate; write F.{name} == True, or F.{name}.is_not_null().")
    if isinstance(value, (list, tuple, set)):
        return InvalidInputError(
            "a list is no predicate; pass predicates one by one, or unpack it: .filter(*predicates)."
        )
    return InvalidInputError(
        f"{value!r} is no predicate; write one such as F.volume_type == 'T2', and put each side of & and | in "
        "parentheses."
    )


@dataclass(frozen=True, slots=True)
class Compare(Predicate):
    """column <operator> literal."""

    column: str
    operator: ComparisonOperator
    value: Any


@dataclass(frozen=True, slots=True)
class EqMissing(Predicate):
    """Equality that takes null as a value: never null itself."""

    column: str
    value: Any


@dataclass(frozen=True, slots=True)
class IsNull(Predicate):
    """Whether the column is null: never null itself."""

    column: str


@dataclass(frozen=True, slots=True)
class IsIn(Predicate):
    """Whether the column is one of some literals; nulls among them are ignored."""

    column: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Text(Predicate):
    """A literal, case-sensitive test of text."""

    column: str
    operator: TextOperator
    text: str


@dataclass(frozen=True, slots=True)
class Overlaps(Predicate):
    """Whether a list column holds any of some literals; nulls on either side are ignored."""

    column: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class HasAncestor(Predicate):
    """Whether a resource is a strict ancestor at any depth: never null.

    Binding fills in the lineage column of the ancestor's type, if it has one, so that files are skipped.
    """

    identifier: str
    column: str | None = None


@dataclass(frozen=True, slots=True)
class InSelect(Predicate):
    """Whether the column is among the values of a subquery; nulls among them are ignored."""

    column: str
    select: Select


@dataclass(frozen=True, slots=True)
class OverlapsSelect(Predicate):
    """Whether a list column holds any value of a subquery; nulls on either side are ignored."""

    column: str
    select: Select


@dataclass(frozen=True, slots=True)
class Quantified(Predicate):
    """column <operator> ANY or ALL of a subquery's values; nulls among them are ignored."""

    column: str
    operator: ComparisonOperator
    quantifier: Literal["ANY", "ALL"]
    select: Select


@dataclass(frozen=True, slots=True)
class And(Predicate):
    """All parts."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or(Predicate):
    """Any part."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not(Predicate):
    """The negation."""

    part: Predicate


Node = (
    Compare
    | EqMissing
    | IsNull
    | IsIn
    | Text
    | Overlaps
    | HasAncestor
    | InSelect
    | OverlapsSelect
    | Quantified
    | And
    | Or
    | Not
)
"""Every node that exists, so that a `match` over it can be checked for completeness."""

SubqueryNode = InSelect | OverlapsSelect | Quantified
JoinedNode = SubqueryNode | IsIn
"""The nodes that a plan answers by a join: those with a subquery, and long lists."""


MOST_NESTED = 64
"""How deep `&`, `|` and `~`, or parentheses and `not`, may nest."""


def refuse_towers(predicate: Predicate) -> None:
    """Refuse a predicate that nests deeper than the plans that are made of it can.

    Raises:
        InvalidInputError: it does.
    """
    level, depth = [predicate], 0
    while level := [part for node in level for part in _inner(node)]:
        depth += 1
        if depth > MOST_NESTED:
            raise InvalidInputError(
                f"a predicate nests more than {MOST_NESTED} &, | and ~ inside one another; join long chains by one "
                "operator, or write .is_in([...])."
            )


def _inner(node: Predicate) -> tuple[Predicate, ...]:
    match node:
        case And(parts) | Or(parts):
            return parts
        case Not(part):
            return (part,)
    return ()


def leaves(node: Node) -> "Iterator[Node]":
    """Return the nodes of a predicate that hold no other node, from left to right."""
    match node:
        case And(parts) | Or(parts):
            for part in parts:
                yield from leaves(cast("Node", part))
        case Not(part):
            yield from leaves(cast("Node", part))
        case _:
            yield node


def conjuncts(node: Node) -> "Iterator[Node]":
    """Return the parts that a predicate ANDs together at its top."""
    if isinstance(node, And):
        for part in node.parts:
            yield from conjuncts(cast("Node", part))
    else:
        yield node


def columns_of(node: Node) -> set[str]:
    """Return the columns that a predicate reads, without those of its subqueries."""
    return {cast("Any", leaf).column or "ancestors" for leaf in leaves(node)}


def subqueries_of(node: Node) -> "list[SubqueryNode]":
    """Return the nodes of a predicate that hold a subquery, each once."""
    found = [leaf for leaf in leaves(node) if isinstance(leaf, SubqueryNode)]
    return list(dict.fromkeys(found))


def joined_of(node: Node) -> "list[JoinedNode]":
    """Return the nodes of a predicate that a plan answers by a join, each once."""
    found = [leaf for leaf in leaves(node) if isinstance(leaf, SubqueryNode) or is_long(leaf)]
    return cast("list[JoinedNode]", list(dict.fromkeys(found)))


def is_long(node: Node) -> bool:
    """Whether a node holds a list that is too long for an expression."""
    return isinstance(node, IsIn) and len(node.values) > LONG
