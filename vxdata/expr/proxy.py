"""`F`: fields by name, with operators that build predicates.

F.volume_type == "T2"
(F.slice_thickness < 3) & ~F.series_description.contains("loc")
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NoReturn

import polars as pl

from vxdata.errors import InvalidInputError
from vxdata.expr.select import HasSelect
from vxdata.expr.tree import (
    And,
    Compare,
    ComparisonOperator,
    EqMissing,
    HasAncestor,
    InSelect,
    IsIn,
    IsNull,
    Not,
    Overlaps,
    OverlapsSelect,
    Predicate,
    Quantified,
    Text,
    TextOperator,
)


class _NoFieldError(InvalidInputError, AttributeError):
    """A name that `F` refuses; an `AttributeError` too, so that introspection works."""


@dataclass(frozen=True)
class Quantifier:
    """What `ANY(subquery)` and `ALL(subquery)` return; it stands on the right of `>`, `>=`, `<`, `<=`."""

    word: Literal["ANY", "ALL"]
    query: HasSelect


def ANY(subquery: HasSelect) -> Quantifier:  # noqa: N802  # SQL's own word
    """Stand for at least one value of a subquery on the right of a comparison.

    `F.b_value > ANY(client.volumes.query().select("b_value"))`

    Nulls among the values are ignored; ANY of nothing is false.
    """
    return Quantifier("ANY", _subquery("ANY", subquery))


def ALL(subquery: HasSelect) -> Quantifier:  # noqa: N802  # SQL's own word
    """Stand for every value of a subquery on the right of a comparison.

    `F.b_value < ALL(client.volumes.query().select("b_value"))`

    Nulls among the values are ignored; ALL of nothing is true for every row.
    """
    return Quantifier("ALL", _subquery("ALL", subquery))


def _subquery(where: str, value: Any) -> HasSelect:
    if not isinstance(value, HasSelect):
        raise InvalidInputError(
            f"{where}({value!r}): a subquery is expected, such as client.volumes.query().select('b_value')."
        )
    if len(value.as_select().columns or ()) != 1:
        raise InvalidInputError(f"{where}: a subquery has exactly one column; end it with .select('...').")
    return value


class Field:
    """A column of whatever table the predicate is used on."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"F[{self._name!r}]"

    def _compare(self, operator: ComparisonOperator, other: Any) -> Predicate:
        if isinstance(other, Field):
            raise InvalidInputError(
                f"F.{self._name} {operator} F.{other._name}: a field compares with a value, not with another field; "
                "collect and compare the two columns in Polars."
            )
        if isinstance(other, Quantifier):
            return self._quantified(operator, other)
        if isinstance(other, HasSelect):
            raise InvalidInputError(f"F.{self._name} {operator} <query>: write ANY(...), ALL(...) or .is_in(...).")
        if other is None:
            raise InvalidInputError(
                f"F.{self._name} {operator} None is never true; write .is_null() or .is_not_null()."
            )
        return Compare(self._name, operator, other)

    def _quantified(self, operator: ComparisonOperator, quantifier: Quantifier) -> Predicate:
        if operator in ("==", "!="):
            raise InvalidInputError(
                f"F.{self._name} {operator} {quantifier.word}(...): write F.{self._name}.is_in(...) or its negation."
            )
        return Quantified(self._name, operator, quantifier.word, quantifier.query.as_select())

    def __eq__(self, other: object) -> Predicate:  # type: ignore[override]
        """Equal; `== None` means is null."""
        return self.is_null() if other is None else self._compare("==", other)

    def __ne__(self, other: object) -> Predicate:  # type: ignore[override]
        """Not equal; `!= None` means is not null."""
        return self.is_not_null() if other is None else self._compare("!=", other)

    def __hash__(self) -> NoReturn:
        raise InvalidInputError(f"F.{self._name} in {{...}}: write F.{self._name}.is_in([...]).")

    def __lt__(self, other: Any) -> Predicate:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Predicate:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Predicate:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Predicate:
        return self._compare(">=", other)

    def _refuse_truth(self, *_: object) -> NoReturn:
        raise InvalidInputError(f"F.{self._name} alone is no predicate; write F.{self._name} == True.")

    def _refuse_operand(self, other: object) -> NoReturn:
        raise InvalidInputError(
            f"F.{self._name} beside & or |: put each comparison in parentheses, as in (F.a == 1) & (F.b == 2), and "
            f"write F.{self._name} == True for a bool."
        )

    __bool__ = __invert__ = _refuse_truth
    __and__ = __rand__ = __or__ = __ror__ = _refuse_operand

    def _refuse_arithmetic(self, *_: object) -> NoReturn:
        raise InvalidInputError(
            f"F.{self._name} takes no arithmetic; move it to the other side, or .collect() and filter in Polars."
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse_arithmetic
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse_arithmetic

    def __contains__(self, value: object) -> NoReturn:
        raise InvalidInputError(f"{value!r} in F.{self._name}: write F.{self._name}.contains({value!r}).")

    def __iter__(self) -> NoReturn:
        raise InvalidInputError(f"F.{self._name} is a field, not a list of values; collect the query first.")

    def is_null(self) -> Predicate:
        """Whether there is no value."""
        return IsNull(self._name)

    def is_not_null(self) -> Predicate:
        """Whether there is a value."""
        return Not(IsNull(self._name))

    def eq_missing(self, value: Any) -> Predicate:
        """Equal, with null equal to None: never null."""
        return EqMissing(self._name, value)

    def ne_missing(self, value: Any) -> Predicate:
        """Not equal, with null equal to None: never null."""
        return Not(EqMissing(self._name, value))

    def is_in(self, values: Any) -> Predicate:
        """Whether the value is one of a list, tuple, set, Series or subquery; nulls among them are ignored."""
        if isinstance(values, HasSelect):
            return InSelect(self._name, _subquery(f"F.{self._name}.is_in", values).as_select())
        return IsIn(self._name, _values(f"F.{self._name}.is_in", values))

    def between(self, low: Any, high: Any) -> Predicate:
        """Whether low <= value <= high."""
        return And((self._compare(">=", low), self._compare("<=", high)))

    def after(self, instant: Any) -> Predicate:
        """Whether the instant is later than this one (an ISO string, a date or a datetime; naive means UTC)."""
        return self._compare("after", instant)

    def before(self, instant: Any) -> Predicate:
        """Whether the instant is earlier than this one (an ISO string, a date or a datetime; naive means UTC)."""
        return self._compare("before", instant)

    def _text(self, operator: TextOperator, text: Any) -> Predicate:
        text = text.value if isinstance(text, Enum) else text
        if not isinstance(text, str):
            raise InvalidInputError(
                f"F.{self._name}.{operator}({text!r}): a text is expected, not {type(text).__name__}."
            )
        return Text(self._name, operator, text)

    def contains(self, text: Any) -> Predicate:
        """Whether the text holds this literal text, case-sensitively; on a list column: whether it is an element."""
        if isinstance(text, str) or (isinstance(text, Enum) and isinstance(text.value, str)):
            return self._text("contains", text)
        return Overlaps(self._name, (text,))

    def startswith(self, text: str) -> Predicate:
        """Whether the text starts with this literal text, case-sensitively."""
        return self._text("startswith", text)

    def endswith(self, text: str) -> Predicate:
        """Whether the text ends with this literal text, case-sensitively."""
        return self._text("endswith", text)

    def contains_any(self, values: Any) -> Predicate:
        """Whether a list column holds any of these values (or of a subquery's); nulls on either side are ignored."""
        if isinstance(values, HasSelect):
            return OverlapsSelect(self._name, _subquery(f"F.{self._name}.contains_any", values).as_select())
        return Overlaps(self._name, _values(f"F.{self._name}.contains_any", values))


def _values(where: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, pl.Series):
        values = values.to_list()
    is_flat = getattr(values, "ndim", 1) == 1  # a data frame iterates over the names of its columns
    if isinstance(values, (str, bytes, dict, pl.DataFrame)) or not isinstance(values, Iterable) or not is_flat:
        raise InvalidInputError(f"{where}({values!r}): a list, tuple, set or Series is expected, as in [{values!r}].")
    return tuple(values)


class FieldAccessor:
    """`F.name` or `F["name"]`: a field by its name."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Field:
        return self[name]

    def __getitem__(self, name: str) -> Field:
        if not isinstance(name, str):
            raise _NoFieldError(f"{name!r} is no field: F takes the name of one, such as F['birthyear'].")
        if name.startswith("_"):
            raise _NoFieldError(f"{name!r} is no field: names with a leading underscore are refused.")
        return Field(name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise InvalidInputError(f"F.{name} = ...: F builds predicates; write F.{name} == ... .")

    def __repr__(self) -> str:
        return "F"


F = FieldAccessor()


def has_ancestor(identifier: str) -> Predicate:
    """Whether a resource is a strict ancestor, at any depth and of any type.

    Args:
        identifier: the ancestor, such as ``datasource/dasa``.
    """
    return HasAncestor(identifier)
