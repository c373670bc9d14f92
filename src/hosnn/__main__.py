"""`python -m hosnn`: the command line."""

from hosnn.cli.main import entry

entry()
