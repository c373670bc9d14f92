"""What an evaluation does, as data: attacks, estimators, numbers of images, panels for curves, matrix and checks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from hosnn.errors import ConfigError
from hosnn.estimators import Estimator, OnFrames, Through, title
from hosnn.identity import LEFT_OUT, digest, identified, named
from hosnn.results.roles import Role, Strength
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


PROBED_IMAGES = 64
"""Images on which the smaller protocols check the model itself."""


@identified("Found")
@dataclass(frozen=True)
class BestEstimator:
    """The gradient estimator that the protocol's search finds best for a model (rank 0), second best (1), ..."""

    rank: int = 0


@identified("Entry")
@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """One attack of a protocol and the threat its results must respect.

    id         names the attack's random numbers and stored blocks, and stands for it in hashes; `name` if not given
    estimator  how the model is differentiated: a value, one that the search finds, or None if the attack itself says
    spiking    it says nothing new about a model without our spiking layers, and is left out there
    adaptive   the same for a model without adapting thresholds
    classes    how many the model must tell apart for the attack's loss to be defined
    method, steps  for tables: the attack without its estimator, iterations or queries (0: not shown)
    name       for tables and messages; edited freely if `id` is given
    role       what a check uses the attack for
    """

    id: str = field(default="", metadata=named("name"))
    attack: Attack
    threat: Threat
    kind: AttackKind = AttackKind.WHITE_BOX
    estimator: Estimator | BestEstimator | None = None
    spiking: bool = False
    adaptive: bool = False
    classes: int = 2
    method: str = ""
    steps: int = 0
    name: str = field(metadata=LEFT_OUT)
    role: Role | None = field(default=None, metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self.name)

    def bound(self, best: Sequence[Estimator]) -> "AttackSpec":
        """The spec with the estimator that the search ranked; without a search the model is differentiated as it is."""
        if not isinstance(self.estimator, BestEstimator):
            return self
        return replace(self, estimator=best[self.estimator.rank] if best else None)

    def applied(self, eot_samples: int = 1) -> Attack:
        """The attack on the model as differentiated by its estimator, averaging over `eot_samples` forward passes."""
        attack = self.attack
        if eot_samples > 1 and self.kind is AttackKind.WHITE_BOX:
            # EOT averages scores, so what makes frames of an image stays around it.
            averaged = EOT(attack.attack if isinstance(attack, OnFrames) else attack, eot_samples)
            attack = OnFrames(averaged) if isinstance(attack, OnFrames) else averaged
        if self.estimator is None or isinstance(self.estimator, BestEstimator):
            return attack
        return Through(self.estimator, attack)

    @property
    def estimator_title(self) -> str:
        """How the model is differentiated, in a few words; empty if the attack itself says."""
        return "" if self.estimator is None or isinstance(self.estimator, BestEstimator) else title(self.estimator)


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
class Search:
    """A search for the estimators that serve best against this model, by a short attack on the first `samples` images.

    The first kept is the one that leaves fewest images robust; each further one leaves fewest robust together with
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


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What an evaluation does.

    samples        images of the test split, a fixed class-balanced choice; None for all
    cascade        each attack sees only what the ones before it left robust
    search         estimators tried out first, for attacks that ask for a `BestEstimator`
    panels         further attacks on the first images; names known to tables and checks: eps, steps, matrix, controls
    probes         images on which the checks measure the model itself; 0 for none
    binarization_samples  images for the binarization test of the attacks; 0 for none
    block_size     work is cut into fixed blocks of this many images, so that reruns, resumes and shards give the same
                   bits
    strength       how much its number says; None: not rated
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
    binarization_samples: int = 0
    block_size: int = 50
    strength: Strength | None = None

    @property
    def settings(self) -> str:
        """SHA-256 of the attacks and how they are run, without the number of images and the block size."""
        hashed: tuple[object, ...] = (self.attacks, self.cascade, self.search, self.panels, self.probes)
        if self.binarization_samples:  # without the test, settings keep the hash they had before there was one
            hashed = (*hashed, self.binarization_samples)
        return digest(hashed)

    def resized(self, samples: int | None = None, panel_samples: int | None = None) -> "Protocol":
        """The same attacks on other numbers of images; None keeps the own ones, 0 panel samples drop all panels."""
        panels = self.panels
        if panel_samples is not None:
            panels = tuple(replace(panel, samples=panel_samples) for panel in panels) if panel_samples else ()
        return replace(self, samples=self.samples if samples is None else samples, panels=panels)


EOT_SAMPLES = 10
"""Forward passes per gradient of a model that draws random numbers: a single one would follow the noise."""
