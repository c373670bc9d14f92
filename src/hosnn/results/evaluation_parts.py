"""What an evaluation consists of: the outcome of each attack, panels of attacks, facts about the model, a summary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from hosnn.results.check import Verdict
from hosnn.results.document import Amount, Count, Flag, Fraction, Name, ThreatText
from hosnn.results.roles import Role


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """The outcome of one attack."""

    attack: Name
    """Name of the attack, unique among the rows of the protocol."""
    threat: ThreatText
    """The threat model of this attack."""
    eps: Amount
    """Budget: the largest norm of a perturbation, in pixel units (1 is the whole range of a pixel)."""
    predictions: tuple[Annotated[int, Field(strict=True, ge=-1)], ...] = field(repr=False)
    """Class predicted for each image after the attack, in the order of index; -1 for an image that it did not attack
    because an earlier attack of the cascade had broken it.  As long as index; in a panel, for the first images only."""
    tied: tuple[Count, ...] | None = field(default=None, repr=False)
    """Positions of the images whose label shares the highest logit with another class after the attack, which counts as
    broken; null: not recorded, the order of the classes decides."""
    denied: tuple[Count, ...] | None = None
    """Positions of the images that a pass with gradients, as the attack's, sees misclassified, and the pass without
    gradients that gives the prediction does not; null: not recorded."""
    seconds: Amount
    """Time in seconds, summed over workers."""
    kind: Annotated[str, Field(pattern="^(white-box|queries|transfer|control)$")] = "white-box"
    """white-box: it differentiates the model; queries: it uses outputs only; transfer: crafted on another model;
    control: no real attack, such as noise."""
    method: str = ""
    """The attack without its gradient estimator, which is its column in the matrix; empty if not given."""
    estimator: str = ""
    """How the model was differentiated; empty if the attack itself decides or uses no gradient."""
    steps: Count = 0
    """Iterations or queries; 0 if not shown."""
    forward: Count = 0
    """Images sent forward through the model (in a transfer attack: the source model); 0 if not counted."""
    backward: Count = 0
    """Images sent backward; 0 if not counted."""
    role: Role | None = None
    """What checks use the attack for; null: no special role."""


@dataclass(frozen=True)
class Panel:
    """Attacks that all ran in full on the same first images."""

    name: Name
    """search: the search for the best gradient estimators; eps, steps: curves; matrix: attacks by gradient estimators;
    8bit: adversarial images of 8 bits; controls: attacks for the checks.  Other names are allowed."""
    rows: tuple[AttackResult, ...]
    """The attacks."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Facts about the model, found by inspecting it."""

    spiking: Annotated[str, Field(pattern="^(hosnn|foreign|none|unknown)$")] = "unknown"
    """hosnn: spiking layers of this package, to which gradient estimators apply; foreign: spikes from layers of another
    library; none: no spikes found; unknown: not inspected, or neither spikes nor their absence could be shown."""
    evidence: str = ""
    """What shows foreign spikes, beside layers of this package too, or why none can be ruled out; empty if nothing."""
    layers: Count = 0
    """Number of this package's spiking layers."""
    adaptive: Count = 0
    """Of these, layers with an adapting threshold."""
    parameters: Count = 0
    """Number of parameters; 0 if not counted."""
    gradient: Flag = True
    """Whether automatic differentiation finds a path from the scores to the input."""
    random: Flag = False
    """Whether two passes over the same images differ."""
    copies: Annotated[str, Field(pattern="^(equal|different|shared|impossible|unknown)$")] = "unknown"
    """Whether a copy of the model answers as it does: equal; different; shared: it uses modules or values of the model;
    impossible: it cannot be copied; unknown: not inspected.  Unless equal, images are attacked by one worker."""

    @property
    def own_gradient_only(self) -> bool:
        """Whether the model was inspected and has no layers that gradient estimators apply to."""
        return self.copies != "unknown" and not self.layers


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Accuracies that follow from the predictions, for readers of the file."""

    clean_accuracy: Fraction
    """Share of images that are right without an attack, a fraction of 1."""
    worst_case_accuracy: Fraction
    """Share of images that are right when clean and after every attack of rows, a fraction of 1; where ties are
    recorded, a label that shares the highest logit is not right."""
    worst_case_by_argmax: Fraction | None = None
    """The same if the predicted class decides where the highest logit is shared; null: ties were not recorded."""
    worst_case_interval_95: tuple[Fraction, Fraction]
    """Wilson's 95 % interval of the worst-case accuracy: low, high; fractions of 1."""
    accuracy: Mapping[str, Fraction]
    """Share of images that are right after each attack of rows, by its name; in a cascade, after it and all before it;
    fractions of 1."""
    verdict: Verdict
    """The worst severity among the checks; none: nothing was checked."""
