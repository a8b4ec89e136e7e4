"""Query text as a predicate: what a person writes after `--where`, as the same tree that `F` builds.

volume_type == 'T2' and slice_thickness < 3 and patient_id startswith 'DA'

A recursive descent over the tokens, one method for each rule of the grammar; nothing is evaluated. Written by hand:
lark's errors name terminals of its grammar, not what a person could write there, and building its tables takes as long
as the whole import of this package.

Source: docs/query-text.md, "Grammar".
"""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.expr.tokens import RESERVED, Token, fault, tokens_of
from vxdata.expr.tree import (
    MOST_NESTED,
    And,
    Compare,
    ComparisonOperator,
    EqMissing,
    HasAncestor,
    IsIn,
    IsNull,
    Not,
    Or,
    Overlaps,
    Predicate,
    Text,
    TextOperator,
)

Check = Callable[[Predicate], object]

_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_NEGATABLE = ("in", "contains", "contains_any", "startswith", "endswith", "between")
_WORDS = (*_NEGATABLE, "not", "is", "after", "before", "eq_missing", "ne_missing")
_CONSTANTS = {"true": True, "false": False, "inf": float("inf"), "nan": float("nan")}
_ELSEWHERE = {
    "like": "contains, startswith or endswith, whose text is taken as it is: no patterns",
    "ilike": "contains, startswith or endswith, whose text is taken as it is: no patterns",
    "starts_with": "startswith",
    "ends_with": "endswith",
    "equals": "==",
}


def parse_predicate(text: str, *, check: Check | None = None) -> Predicate:
    """Return the predicate that a text says, not yet bound to a table.

    Args:
        text: the text.
        check: called with each single condition; an `InvalidInputError` of it is raised again, with its place.

    Returns:
        The tree that `F` builds; `a and b and c` is one `And` of three parts.

    Raises:
        InvalidInputError: the text is no predicate; the message shows the place, and says what is expected there.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"a text is expected as a condition, not {text!r}.")
    return _Parser(text, check).parse()


class _Parser:
    """A cursor over the tokens of one text."""

    def __init__(self, text: str, check: Check | None) -> None:
        self._text, self._check = text, check
        self._tokens = list(tokens_of(text))
        self._at = self._depth = 0

    def parse(self) -> Predicate:
        found = self._either()
        if self._next.kind != "end":
            raise self._unexpected("and, or, or the end")
        return found

    # -- rules

    def _either(self) -> Predicate:
        parts = [self._all()]
        while self._take_word("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Predicate:
        parts = [self._negation()]
        while self._take_word("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _negation(self) -> Predicate:
        start = self._next.start
        if not self._is_word("not") and self._next.source != "(":
            return self._condition()
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise fault(self._text, start, f"more than {MOST_NESTED} parentheses and negations inside one another.")
        if self._take_word("not"):
            found: Predicate = Not(self._negation())
        else:
            self._expect("(")
            found = self._either()
            self._expect(")", "and, or, or )")
        self._depth -= 1
        return found

    def _condition(self) -> Predicate:
        start = self._next.start
        found = self._ancestor() if self._is_word("has_ancestor") else self._test(self._field())
        if self._check is not None:
            try:
                self._check(found)
            except InvalidInputError as error:
                raise fault(self._text, start, str(error)) from None
        return found

    def _ancestor(self) -> Predicate:
        self._advance()
        self._expect("(")
        identifier = self._text_literal("has_ancestor(")
        self._expect(")")
        return HasAncestor(identifier)

    def _field(self) -> str:
        token = self._next
        is_name = token.kind == "field" or (token.kind == "word" and token.value not in RESERVED)
        if not is_name and not (token.kind == "text" and token.source[0] == '"'):
            hint = "; a value stands on the right" if token.kind in ("text", "number") else ""
            raise self._unexpected(f"a field{hint}")
        self._advance()
        return token.source if token.kind == "word" else str(token.value)

    def _test(self, column: str) -> Predicate:
        token = self._next
        if token.value in _COMPARISONS and token.kind == "operator":
            self._advance()
            return self._comparison(column, cast("ComparisonOperator", token.value))
        if token.kind != "word" or token.value not in _WORDS:
            raise self._no_test(column, token)
        self._advance()
        if token.value == "is":
            return self._nullness(column)
        if token.value != "not":
            return self._word_test(column, token.value)
        if self._next.value not in _NEGATABLE or self._next.kind != "word":
            raise self._unexpected(f"one of {', '.join(_NEGATABLE)} after not")
        return Not(self._word_test(column, self._advance().value))

    def _word_test(self, column: str, word: str) -> Predicate:
        match word:
            case "in":
                return IsIn(column, self._list())
            case "contains_any":
                return Overlaps(column, self._list())
            case "contains":
                return self._contains(column)
            case "startswith" | "endswith":
                return Text(column, cast("TextOperator", word), self._text_literal(word))
            case "between":
                low = self._value("between")
                self._expect("and")
                return And((Compare(column, ">=", low), Compare(column, "<=", self._value("and"))))
            case "eq_missing":
                return EqMissing(column, self._literal(word))
            case "ne_missing":
                return Not(EqMissing(column, self._literal(word)))
        return Compare(column, cast("ComparisonOperator", word), self._value(word))

    def _comparison(self, column: str, operator: ComparisonOperator) -> Predicate:
        if self._is_word("null") and operator in ("==", "!="):
            self._advance()
            return IsNull(column) if operator == "==" else Not(IsNull(column))
        return Compare(column, operator, self._value(operator))

    def _nullness(self, column: str) -> Predicate:
        is_negated = self._take_word("not")
        self._expect("null", "null; write == to compare with a value")
        return Not(IsNull(column)) if is_negated else IsNull(column)

    def _contains(self, column: str) -> Predicate:
        if self._take_word("any"):
            return Overlaps(column, self._list())
        if self._next.source == "(":
            raise self._unexpected("a value after contains; for a list write contains any (...)")
        value = self._value("contains")
        return Text(column, "contains", value) if isinstance(value, str) else Overlaps(column, (value,))

    # -- values

    def _list(self) -> tuple[Any, ...]:
        self._expect("(", "a list in parentheses, as in ('a', 'b')")
        found = []
        while self._next.source != ")":
            found.append(self._literal("("))
            if self._next.source != ")":
                self._expect(",", "a comma or )")
        self._expect(")")
        return tuple(found)

    def _value(self, after: str) -> Any:
        if self._is_word("null"):
            raise self._unexpected("a value; null compares with nothing: write is null or is not null")
        return self._literal(after)

    def _text_literal(self, after: str) -> str:
        if self._next.kind != "text":
            raise self._unexpected(f"a text in quotes after {after}")
        return str(self._advance().value)

    def _literal(self, after: str) -> Any:
        token = self._next
        if token.kind in ("text", "number"):
            return self._advance().value
        if token.kind == "word" and (token.value in _CONSTANTS or token.value == "null"):
            return _CONSTANTS.get(self._advance().value)
        if token.kind == "word" and token.value in _TYPED and self._tokens[self._at + 1].kind == "text":
            self._advance()
            return self._typed(token.value)
        hint = f" (a text stands in quotes: '{token.source}')" if token.kind in ("word", "field") else ""
        raise self._unexpected(f"a value after {after}{hint}")

    def _typed(self, word: str) -> Any:
        token = self._advance()
        try:
            return _TYPED[word](token.value)
        except (ValueError, InvalidOperation):
            raise fault(self._text, token.start, f"{token.source} is no {word} value.") from None

    # -- the cursor

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _advance(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _is_word(self, word: str) -> bool:
        return self._next.kind == "word" and self._next.value == word

    def _take_word(self, word: str) -> bool:
        if not self._is_word(word):
            return False
        self._advance()
        return True

    def _expect(self, source: str, words: str | None = None) -> None:
        if self._next.kind not in ("word", "operator") or self._next.value != source:
            raise self._unexpected(words or source)
        self._advance()

    def _unexpected(self, expected: str) -> InvalidInputError:
        found = "the end of the text" if self._next.kind == "end" else self._next.source
        return fault(self._text, self._next.start, f"expected {expected}; found {found}.")

    def _no_test(self, column: str, token: Token) -> InvalidInputError:
        if token.kind == "end" or token.value in ("and", "or", ")"):
            return self._unexpected(f"a comparison after {column}, as in {column} == true or {column} is not null")
        if token.value in _ELSEWHERE:
            return self._unexpected(f"a comparison after {column}; write {_ELSEWHERE[token.value]}")
        hint = did_you_mean(token.value, _WORDS) if token.kind == "word" else ""
        near = hint if "mean" in hint else f" Known: {', '.join((*_COMPARISONS, *_WORDS))}."
        return fault(self._text, token.start, f"expected a comparison after {column}; found {token.source}.{near}")


_TYPED: dict[str, Callable[[str], Any]] = {"decimal": Decimal, "hex": bytes.fromhex}
"""Words before a text that make it a value of another type."""
