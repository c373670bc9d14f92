"""The roles of attacks in checks, and how much a protocol's robust accuracy says.  Stored as text in results."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a check uses an attack for, whatever the attack is called.

    NOISE            random perturbations of the same budget: the control that every attack must beat
    REFERENCE        the plain attack that noise and the next three are compared with
    SINGLE_STEP      REFERENCE in one step
    MORE_RESTARTS    REFERENCE with more restarts
    LAST_POINT       REFERENCE returning the last point of its path instead of the best
    SCALE_FREE_LOSS  an attack whose loss keeps its gradient however large the logits are
    """

    NOISE = "noise"
    REFERENCE = "reference"
    SINGLE_STEP = "single-step"
    MORE_RESTARTS = "more-restarts"
    LAST_POINT = "last-point"
    SCALE_FREE_LOSS = "scale-free-loss"


def role_by_name(attack: str) -> Role | None:
    """The role of an attack in a file without roles, from the names that attacks had then."""
    known = {
        "noise": Role.NOISE,
        "PGD-20": Role.REFERENCE,
        "PGD-20, 5 restarts": Role.MORE_RESTARTS,
        "PGD-20, last point": Role.LAST_POINT,
    }
    scale_free = any(part in attack for part in ("DLR", "APGD-T", "FAB"))
    return Role.SCALE_FREE_LOSS if scale_free else known.get(attack)


class Strength(StrEnum):
    """How much a protocol's robust accuracy says about true robustness, from least to most.

    PUBLISHED_ATTACKS  attacks of a publication as they are, for comparison with its numbers only
    FIRST_LOOK         a few attacks, to see quickly whether there is any robustness at all
    GRADIENTS_ONLY     the worst case of several gradient attacks; no attack without gradients
    PUBLISHABLE        what a number needs to be published
    EXHAUSTIVE         every attack there is
    """

    PUBLISHED_ATTACKS = "published-attacks"
    FIRST_LOOK = "first-look"
    GRADIENTS_ONLY = "gradients-only"
    PUBLISHABLE = "publishable"
    EXHAUSTIVE = "exhaustive"

    @property
    def rank(self) -> int:
        """0 for the weakest."""
        return list(Strength).index(self)


def strength_by_protocol(protocol: str) -> Strength | None:
    """The strength of a protocol named in a file without strengths; None for a protocol not known then."""
    return {
        "paper": Strength.PUBLISHED_ATTACKS,
        "smoke": Strength.FIRST_LOOK,
        "sweep": Strength.GRADIENTS_ONLY,
        "standard": Strength.PUBLISHABLE,
        "full": Strength.EXHAUSTIVE,
    }.get(protocol)


def with_roles_and_strength(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an evaluation, with the roles and the strength that a file from before there were any lacks.

    What is not of the expected shape is left for whoever checks the fields.
    """
    known = {name: _with_roles(evaluation[name]) for name in ("rows",) if name in evaluation}
    if isinstance(evaluation.get("panels"), list):
        known["panels"] = [
            panel | {"rows": _with_roles(panel["rows"])} if isinstance(panel, dict) and "rows" in panel else panel
            for panel in evaluation["panels"]
        ]
    return {"strength": strength_by_protocol(str(evaluation.get("protocol")))} | dict(evaluation) | known


def _with_roles(rows: Any) -> Any:
    if not isinstance(rows, list):
        return rows
    return [{"role": role_by_name(str(row.get("attack")))} | row if isinstance(row, dict) else row for row in rows]
