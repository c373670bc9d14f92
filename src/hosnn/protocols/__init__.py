"""Protocols: which attacks an evaluation runs, as data."""
