"""Which tables exist and what their columns are. Pure: no I/O."""
