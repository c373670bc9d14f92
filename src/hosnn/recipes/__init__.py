"""Recipes: functions that return an `Experiment`; a variant edits another's result.  Python import is the registry."""
