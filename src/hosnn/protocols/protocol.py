"""What an evaluation does, as data: attacks, estimators, numbers of images, panels for curves, matrix and checks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from hosnn.estimators import Estimator, OnFrames, Through, title
from hosnn.identity import digest, identified, named
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


LOOKED_AT = 64
"""Images on which the smaller protocols look at the model itself."""


@identified("Found")
@dataclass(frozen=True)
class BestEstimator:
    """The gradient estimator that the protocol's search finds best for a model (rank 0), second best (1), ..."""

    rank: int = 0


@identified("Entry")
@dataclass(frozen=True)
class AttackSpec:
    """One attack of a protocol and the threat its results must respect.

    estimator  how the model is differentiated: a value, one that the search finds, or None if the attack itself says
    spiking    it says nothing new about a model without our spiking layers, and is left out there
    adaptive   the same for a model without adapting thresholds
    classes    how many the model must tell apart for the attack's loss to be defined
    method, steps  for tables: the attack without its estimator, iterations or queries
    """

    name: str
    attack: Attack
    threat: Threat
    kind: AttackKind = AttackKind.WHITE_BOX
    estimator: Estimator | BestEstimator | None = None
    spiking: bool = False
    adaptive: bool = False
    classes: int = 2
    method: str = ""
    steps: int = 0

    def bound(self, found: Sequence[Estimator]) -> "AttackSpec":
        """The entry with the estimator that the search found; without a search the model is differentiated as it is."""
        if not isinstance(self.estimator, BestEstimator):
            return self
        return replace(self, estimator=found[self.estimator.rank] if found else None)

    def applied(self, eot_samples: int = 1) -> Attack:
        """The attack, looking at the model through its estimator; at the mean of several looks if it is random."""
        attack = self.attack
        if eot_samples > 1 and self.kind is AttackKind.WHITE_BOX:
            # EOT averages scores, so what makes frames of an image stays around it.
            inside = EOT(attack.attack if isinstance(attack, OnFrames) else attack, eot_samples)
            attack = OnFrames(inside) if isinstance(attack, OnFrames) else inside
        if self.estimator is None or isinstance(self.estimator, BestEstimator):
            return attack
        return Through(self.estimator, attack)

    @property
    def estimator_title(self) -> str:
        """How the model is differentiated, in a few words; empty if the attack itself says."""
        return (
            title(self.estimator)
            if self.estimator is not None and not isinstance(self.estimator, BestEstimator)
            else ""
        )


@identified("Search")
@dataclass(frozen=True)
class Search:
    """Which estimators serve best against this model: a short attack through each, on the first `samples` images.

    The first kept is the one that leaves fewest images standing; each further one leaves fewest standing together with
    those before it.
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
    attacks: tuple[AttackSpec, ...] = field(metadata=named("entries"))
    samples: int


@dataclass(frozen=True)
class Protocol:
    """What an evaluation does.

    samples        images of the test split, a fixed class-balanced choice; None for all
    cascade        each attack sees only what the ones before it left standing
    search         estimators tried out first, for entries that ask for what was `Found`
    panels         further attacks on the first images; names known to tables and checks: eps, steps, matrix, controls
    probes         images on which the checks look at the model itself; 0 for none
    active         images for the active test of the attacks (`active.py`); 0 for none
    block_size     work is cut into fixed blocks of this many images, so that reruns, resumes and shards give the same
                   bits
    """

    name: str
    description: str
    threat: Threat
    attacks: tuple[AttackSpec, ...]
    samples: int | None
    cascade: bool = False
    search: Search | None = None
    panels: tuple[PanelPlan, ...] = ()
    probes: int = 0
    active: int = 0
    block_size: int = 50

    @property
    def settings(self) -> str:
        """SHA-256 of the attacks and how they are run, without the number of images and the block size."""
        chosen: tuple[object, ...] = (self.attacks, self.cascade, self.search, self.panels, self.probes)
        if self.active:  # without it the same settings keep the hash they had before there was one
            chosen = (*chosen, self.active)
        return digest(chosen)

    def resized(self, samples: int | None = None, panel_samples: int | None = None) -> "Protocol":
        """The same attacks on other numbers of images; None keeps the own ones, 0 panel samples drop all panels."""
        panels = self.panels
        if panel_samples is not None:
            panels = tuple(replace(panel, samples=panel_samples) for panel in panels) if panel_samples else ()
        return replace(self, samples=self.samples if samples is None else samples, panels=panels)


EOT_SAMPLES = 10
"""At a model that draws random numbers, for each gradient: one look alone would follow the noise."""
