"""Readers that turn outside data into resource frames, one module per source."""
