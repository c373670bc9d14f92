"""The command line: few verbs, each a function of its own module."""
