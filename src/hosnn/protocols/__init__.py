"""Which attacks an evaluation runs, as data."""
