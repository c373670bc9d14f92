"""The measurements behind docs/theory.md, each a function that returns plain numbers for JSON."""

from hosnn.theory.study.everything import Effort, study

__all__ = ["Effort", "study"]
