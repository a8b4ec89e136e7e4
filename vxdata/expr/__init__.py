"""Predicates: a frozen tree, built by `F`, bound to a table's schema, compiled to Polars. Pure: no I/O."""
