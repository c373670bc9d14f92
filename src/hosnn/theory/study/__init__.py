"""The measurements behind docs/theory.md, each a function that returns plain numbers for JSON."""

from hosnn.theory.study.effort import Effort
from hosnn.theory.study.everything import study

__all__ = ["Effort", "study"]
