"""What an evaluation does, as data: attacks, estimators, numbers of images, panels for curves, matrix and checks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from hosnn.errors import ConfigError
from hosnn.estimators import Estimator, InNormalisedUnits, OnFrames, OnTraces, Through, estimator_name
from hosnn.identity import NOT_HASHED, digest, hashed_as, identified
from hosnn.results.consistency import check_unique
from hosnn.results.roles import Role, Strength
from hosnn.results.text import ATTACKS_ONLY
from hosnn.robustness.ensembles import EOT
from hosnn.robustness.model import Attack
from hosnn.robustness.threats import Threat


@identified("Kind")
class AttackKind(Enum):
    """What an attack needs: gradients, answers to queries, another model; or nothing, as a control."""

    WHITE_BOX = "white-box"
    QUERIES = "queries"
    TRANSFER = "transfer"
    CONTROL = "control"


MODEL_CHECK_IMAGES = 64
"""Images on which the smaller protocols measure the model itself."""


@identified("Found")
@dataclass(frozen=True)
class BestEstimator:
    """The gradient estimator that the protocol's search finds best for a model (rank 0), second best (1), ..."""

    rank: int = 0


@identified("Entry")
@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """One attack of a protocol and the threat its results must respect.

    id         identifies the attack in random streams, journals and hashes; default: `name`
    estimator  how the model is differentiated: an estimator, one that the search selects, or None if the attack itself
               decides
    spiking    left out for a model without hosnn's spiking layers
    adaptive   left out for a model without adapting thresholds
    classes    the least number of classes for which the attack's loss is defined
    method, steps  for tables: the attack without its estimator, iterations or queries (0: not shown)
    name       for tables and messages; free to change if `id` is given
    role       what a check uses the attack for
    """

    id: str = field(default="", metadata=hashed_as("name"))
    attack: Attack
    threat: Threat
    kind: AttackKind = AttackKind.WHITE_BOX
    estimator: Estimator | BestEstimator | None = None
    spiking: bool = False
    adaptive: bool = False
    classes: int = 2
    method: str = ""
    steps: int = 0
    name: str = field(metadata=NOT_HASHED)
    role: Role | None = field(default=None, metadata=NOT_HASHED)

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self.name)

    def resolved(self, best: Sequence[Estimator]) -> "AttackSpec":
        """The spec with a `BestEstimator` replaced by the search's; without a search by None, the model's own rule."""
        if not isinstance(self.estimator, BestEstimator):
            return self
        return replace(self, estimator=best[self.estimator.rank] if best else None)

    def assembled(self, eot_samples: int = 1) -> Attack:
        """The attack with its estimator and, for white-box attacks, the mean over `eot_samples` forward passes."""
        attack = self.attack
        if eot_samples > 1 and self.kind is AttackKind.WHITE_BOX:
            attack = _averaged(attack, eot_samples)
        if self.estimator is None or isinstance(self.estimator, BestEstimator):
            return attack
        return Through(self.estimator, attack)

    @property
    def estimator_name(self) -> str:
        """How the model is differentiated, in a few words; empty if the attack itself decides."""
        return (
            ""
            if self.estimator is None or isinstance(self.estimator, BestEstimator)
            else estimator_name(self.estimator)
        )


def _averaged(attack: Attack, eot_samples: int) -> Attack:
    """The attack on the mean of several passes, inside what changes its view of the network: frames or traces of it, or
    its gradient."""
    if isinstance(attack, (Through, OnFrames, OnTraces, InNormalisedUnits)):
        return replace(attack, attack=_averaged(attack.attack, eot_samples))
    return EOT(attack, eot_samples)


def threat_of(attack: Attack) -> Threat:
    """The threat that an attack, or the attack that it wraps, is configured with.  Raises ConfigError without one."""
    threat = _setting(attack, "threat")
    if not isinstance(threat, Threat):
        raise ConfigError(
            f"the attack {attack!r} has no threat; give it a field `threat`, or build AttackSpec yourself"
        )
    return threat


def steps_of(attack: Attack) -> int:
    """Iterations or queries of an attack or of the attack that it wraps; 0 if it has neither."""
    return int(_setting(attack, "steps", "queries") or 0)


def sets_ties_apart(attack: Attack) -> bool:
    """Whether an attack, or the attack that it wraps, chooses among images that are not tied (`past_ties` = False)."""
    return _setting(attack, "past_ties") is False


def _setting(attack: Any, *names: str) -> Any:
    """The first of these attributes that an attack or the attack inside it has, the outer attack first."""
    while attack is not None:
        for name in names:
            if hasattr(attack, name):
                return getattr(attack, name)
        attack = getattr(attack, "attack", None)
    return None


@identified("Search")
@dataclass(frozen=True)
class EstimatorSearch:
    """A search for the estimators that serve an attacker best: a short attack through each, on the first images.

    samples  number of images
    keep     number of estimators to select: first the one that leaves fewest images robust, then the one that leaves
             fewest robust together with those before it, ...
    """

    attack: Attack
    candidates: tuple[Estimator, ...]
    samples: int = 100
    keep: int = 3


@identified("PanelPlan")
@dataclass(frozen=True)
class PanelPlan:
    """Attacks that all run in full on the first `samples` images: for a curve, the matrix, or the checks."""

    name: str
    attacks: tuple[AttackSpec, ...] = field(metadata=hashed_as("entries"))
    samples: int


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What an evaluation does.

    samples        images of the test split, a fixed class-balanced choice; None for all
    cascade        each attack gets only the images that those before it left robust
    search         run first, for attacks with a `BestEstimator`
    panels         further attacks on the first images; names known to tables and checks: eps, steps, matrix,
                   8bit, controls
    model_check_samples   images on which the checks measure the model itself; 0 for none
    binarization_samples  images for the binarization test of the attacks; 0 for none
    block_size     work is cut into fixed blocks of this many images, so that reruns, resumes and shards give the same
                   bits
    strength       how much its robust accuracy says; None: not rated
    ties_lost      an image whose label shares the highest logit with another class counts as lost; else the first of
                   the classes wins, as in most published evaluations
    attacks_only   another protocol's worst case, without its panels and checks (`without_checks`)
    Raises ConfigError if two attacks, two attacks of a panel or two panels have one name or id.
    """

    name: str
    description: str
    threat: Threat
    attacks: tuple[AttackSpec, ...]
    samples: int | None
    cascade: bool = False
    search: EstimatorSearch | None = None
    panels: tuple[PanelPlan, ...] = ()
    model_check_samples: int = 0
    binarization_samples: int = 0
    block_size: int = 50
    strength: Strength | None = None
    ties_lost: bool = True
    attacks_only: bool = False

    def __post_init__(self) -> None:
        for attacks in (self.attacks, *(panel.attacks for panel in self.panels)):
            check_unique("attack", [spec.name for spec in attacks])
            check_unique("attack id", [spec.id for spec in attacks])
        check_unique("panel", [panel.name for panel in self.panels] + ["search"] * (self.search is not None))

    @property
    def settings(self) -> str:
        """SHA-256 of the attacks and how they are run, without the number of images and the block size."""
        hashed: tuple[object, ...] = (self.attacks, self.cascade, self.search, self.panels, self.model_check_samples)
        if self.binarization_samples:  # without the test, settings keep the hash they had before there was one
            hashed = (*hashed, self.binarization_samples)
        if self.ties_lost:  # likewise
            hashed = (*hashed, "ties lost")
        if self.attacks_only:
            hashed = (*hashed, "attacks only")
        return digest(hashed)

    def resized(self, samples: int | None = None, panel_samples: int | None = None) -> "Protocol":
        """The same attacks on other numbers of images; None: unchanged.  `panel_samples` = 0 drops all panels."""
        panels = self.panels
        if panel_samples is not None:
            panels = tuple(replace(panel, samples=panel_samples) for panel in panels) if panel_samples else ()
        return replace(self, samples=self.samples if samples is None else samples, panels=panels)

    def without_checks(self) -> "Protocol":
        """The same worst case, to the bit, without panels and checks: nothing shows whether it can be believed."""
        if self.attacks_only:
            return self
        return replace(
            self,
            name=self.name + ATTACKS_ONLY,
            panels=(),
            model_check_samples=0,
            binarization_samples=0,
            attacks_only=True,
        )


EOT_SAMPLES = 10
"""Forward passes per gradient of a model that draws random numbers: a single one would follow the noise."""
