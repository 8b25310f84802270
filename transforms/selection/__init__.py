"""Which rows to keep."""
