"""Literals of a list: hashed once, sorted once, and never one that no value of the column can equal."""

import pickle
import subprocess
import sys
from decimal import Decimal

import polars as pl

from vxdata.expr.literals import Literals, common_type

WIDE = [Decimal("1e29"), Decimal("0." + "1" * 20)]  # no decimal of 38 digits holds the one with the scale of the other


def test_a_decimal_that_does_not_fit_beside_the_others_is_left_out() -> None:
    values = Literals([Decimal(3), Decimal(1), *WIDE])
    ordered = values.ordered(common_type(values, pl.Decimal(20, 2)))
    assert ordered.to_list() == [WIDE[1], 1, 3]


def test_literals_are_sorted_in_the_column_s_type() -> None:
    values = Literals([2, 0.5, -1])
    assert values.ordered(common_type(values, pl.Int64())).to_list() == [-1.0, 0.5, 2.0]
    assert values.ordered(pl.Float64()) is values.ordered(pl.Float64())


def test_a_hash_is_made_anew_in_another_process() -> None:
    values = Literals(["a", "b"])
    assert hash(values) == hash(("a", "b"))
    code = "import pickle, sys; v = pickle.loads(sys.stdin.buffer.read()); assert hash(v) == hash(tuple(v)), v"
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(values), check=True)
