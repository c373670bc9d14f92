"""What `hosnn reproduce` runs: a grid of recipes, protocols, and the published numbers to compare with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from hosnn.protocols.builtin import protocol_by_name
from hosnn.protocols.protocol import Protocol
from hosnn.recipes import (
    cifar10,
    cifar10_robust,
    cifar10_small,
    cifar100,
    cifar100_robust,
    cifar100_small,
    demo,
    fashion_mnist,
    fashion_mnist_robust,
    fashion_mnist_wide,
    nmnist,
    svhn,
    svhn_robust,
    svhn_small,
)
from hosnn.results.reproduction import Published, evaluation_key
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.training.experiment import Experiment


class FurtherSeeds(Enum):
    """How training seeds after the first are evaluated: in the same way, by the worst case alone, or not at all."""

    SAME = "same"
    ATTACKS_ONLY = "attacks only"
    NONE = "none"


@dataclass(frozen=True)
class PlannedEvaluation:
    """A protocol by name, and how many images it uses (None: the protocol's own numbers).

    samples        test images to attack
    panel_samples  images for the protocol's panels, curves of accuracy over a setting of the attack
    threat         that of protocols which do not bring their own
    attacks_only   the worst case without panels and checks
    further_seeds  how seeds after the first are evaluated
    """

    protocol: str
    samples: int | None = None
    panel_samples: int | None = None
    threat: Threat = DEFAULT_THREAT
    attacks_only: bool = False
    further_seeds: FurtherSeeds = FurtherSeeds.SAME

    def resolved(self) -> Protocol:
        """The protocol to run."""
        protocol = protocol_by_name(self.protocol, self.threat).resized(self.samples, self.panel_samples)
        return protocol.without_checks() if self.attacks_only else protocol

    @property
    def key(self) -> str:
        """Its name among the evaluations of a `Cell`."""
        return evaluation_key(self.resolved().name, None if self.threat == DEFAULT_THREAT else str(self.threat))


@dataclass(frozen=True)
class Conversions:
    """Spiking networks that an ANN twin becomes without training.

    recipe  of the twin, which is evaluated too if it is not in the grid
    steps   time steps of each network
    plans   evaluations to run on each
    """

    recipe: Callable[[], Experiment]
    steps: tuple[int, ...]
    plans: tuple[PlannedEvaluation, ...]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A published table to reproduce.

    grid       the four recipes: LIF and TA-LIF, clean and FGSM-trained; or robust ones: LIF, TA-LIF and the ANN twin,
               or LIF and the twin
    plans      evaluations to run on each
    columns    of the table: heading, name of the evaluation (`PlannedEvaluation.key`), name of an attack, "clean" or
               "worst"; the columns of one evaluation from its weakest attack to its strongest
    conversions    a twin to convert, if any
    demonstration  whether it runs on a small part of the data, to show how it works rather than to measure
    """

    title: str
    grid: tuple[Callable[[], Experiment], ...]
    plans: tuple[PlannedEvaluation, ...]
    columns: tuple[tuple[str, str, str], ...]
    published: tuple[Published, ...]
    conversions: Conversions | None = None
    demonstration: bool = False

    def plans_for(self, first_seed: bool) -> tuple[PlannedEvaluation, ...]:
        """The evaluations of the first seed, or of a further one."""
        if first_seed:
            return self.plans
        return tuple(
            replace(plan, attacks_only=plan.attacks_only or plan.further_seeds is FurtherSeeds.ATTACKS_ONLY)
            for plan in self.plans
            if plan.further_seeds is not FurtherSeeds.NONE
        )


PAPER_COLUMNS = (
    ("clean", "paper", "clean"),
    ("FGSM (paper)", "paper", "FGSM"),
    ("R-FGSM (paper)", "paper", "R-FGSM"),
    ("BIM-7 (paper)", "paper", "BIM-7"),
    ("PGD-7 (paper)", "paper", "PGD-7"),
)
SWEPT_COLUMNS = (*PAPER_COLUMNS, ("PGD-40 BPTT, worst of 5 widths", "sweep", "worst"))
SMALL_COLUMNS = (
    *PAPER_COLUMNS,
    ("worst case, 2/255", "standard, attacks only at linf:2/255", "worst"),
    ("worst case, 8/255", "standard, attacks only", "worst"),
)


V3 = "arXiv 2308.10373v3, abstract"


def _published(clean_lif: float, hosnn: float, source: str = V3) -> tuple[Published, ...]:
    """The paper's two accuracies under PGD-7, in percent."""
    return (
        Published(neuron="LIF", training="clean", attack="PGD-7", accuracy=clean_lif, source=source),
        Published(neuron="TA-LIF", training="FGSM 2/255", attack="PGD-7", accuracy=hosnn, source=source),
    )


def _table(title: str, grid: tuple[Callable[[], Experiment], ...], published: tuple[Published, ...]) -> Reproduction:
    """A table of the paper, with its full network and all test images."""
    return Reproduction(
        title=f"{title}: HoSNN against LIF",
        grid=grid,
        plans=(PlannedEvaluation("paper"), PlannedEvaluation("sweep")),
        columns=SWEPT_COLUMNS,
        published=published,
    )


def _robust(
    title: str,
    grid: tuple[Callable[[], Experiment], ...],
    published: tuple[Published, ...],
    l2: str,
    to_convert: Callable[[], Experiment] | None = None,
) -> Reproduction:
    """Robust networks, under the authors' protocol, under `standard`, and under an L2 threat not trained for.

    to_convert  recipe of the ANN twin to convert
    """
    other = Threat.parse(l2)
    standard = PlannedEvaluation("standard", further_seeds=FurtherSeeds.ATTACKS_ONLY)
    besides = PlannedEvaluation(
        "standard", samples=500, threat=other, attacks_only=True, further_seeds=FurtherSeeds.NONE
    )
    conversions = (
        PlannedEvaluation("paper", samples=1000, panel_samples=0),
        PlannedEvaluation("standard", samples=500, attacks_only=True),
    )
    return Reproduction(
        title=f"{title}, robust at 8/255: LIF, TA-LIF and the ANN twin",
        grid=grid,
        plans=(PlannedEvaluation("paper", 1000, 0), standard, besides),
        columns=(
            ("clean", "paper", "clean"),
            ("PGD-7 (paper)", "paper", "PGD-7"),
            ("worst case", "standard", "worst"),
            (f"worst case, {l2}", besides.key, "worst"),
        ),
        published=published,
        conversions=None if to_convert is None else Conversions(to_convert, (4, 8, 16, 32), conversions),
    )


def _small(
    title: str,
    grid: tuple[Callable[[], Experiment], ...],
    clean_lif: float,
    hosnn: float,
    of: str = "of a network of 45 M weights, 200 epochs",
) -> Reproduction:
    """A table of the paper with a network for two cores, and what is left under `standard` at both sizes.

    of  what the published numbers were measured on
    """
    weak = DEFAULT_THREAT.with_eps(2 / 255)
    return Reproduction(
        title=f"{title} with a network for two cores, {SMALL}: HoSNN against LIF",
        grid=grid,
        plans=(
            PlannedEvaluation("paper", panel_samples=0),
            PlannedEvaluation("standard", samples=500, threat=weak, attacks_only=True),
            PlannedEvaluation("standard", samples=500, attacks_only=True),
        ),
        columns=SMALL_COLUMNS,
        published=_published(clean_lif, hosnn, f"{V3}; {of}"),
    )


SMALL = "32C3-64C3-128C3-256"
TWENTY_EVENTS, PER_FRAME = Threat.parse("events:20/8"), Threat.parse("linf:2/255/step")
FASHION_MNIST = _table("Fashion-MNIST, 15C5-40C5-300", fashion_mnist.GRID, _published(30.54, 74.91))

REPRODUCTIONS: dict[str, Reproduction] = {
    "fashion-mnist": FASHION_MNIST,
    "fashion-mnist-wide": Reproduction(
        title="Fashion-MNIST, 32C5-64C5-1024: HoSNN against LIF",
        grid=fashion_mnist_wide.GRID,
        plans=(PlannedEvaluation("paper", panel_samples=0), PlannedEvaluation("standard", attacks_only=True)),
        columns=(*PAPER_COLUMNS, ("worst case, 8/255", "standard, attacks only", "worst")),
        published=_published(30.54, 74.91),
    ),
    "cifar10": _table("CIFAR-10, the authors' network", cifar10.GRID, _published(0.56, 42.63)),
    "cifar100": _table("CIFAR-100, the authors' network", cifar100.GRID, _published(0.04, 16.66)),
    "svhn": _table("SVHN, the authors' CIFAR-10 network", svhn.GRID, _published(0.44, 35.06)),
    "cifar10-small": _small("CIFAR-10", cifar10_small.GRID, 0.56, 42.63),
    "cifar100-small": _small("CIFAR-100", cifar100_small.GRID, 0.04, 16.66),
    "svhn-small": _small("SVHN prefix", svhn_small.GRID, 0.44, 35.06, "of all 73,257 training digits, 200 epochs"),
    "fashion-mnist-robust": _robust("Fashion-MNIST", fashion_mnist_robust.GRID, FASHION_MNIST.published, "l2:1.5"),
    "fashion-mnist-robust-32": Reproduction(
        title="Fashion-MNIST, robust at 8/255: LIF over 32 time steps and the ANN twin",
        grid=fashion_mnist_robust.GRID_32,
        plans=(
            PlannedEvaluation("paper", 1000, 0, further_seeds=FurtherSeeds.NONE),
            PlannedEvaluation("standard", further_seeds=FurtherSeeds.ATTACKS_ONLY),
        ),
        columns=(
            ("clean", "standard", "clean"),
            ("PGD-7 (paper)", "paper", "PGD-7"),
            ("worst case", "standard", "worst"),
        ),
        published=FASHION_MNIST.published,
    ),
    "cifar10-robust": _robust("CIFAR-10", cifar10_robust.GRID, _published(0.56, 42.63), "l2:0.5", cifar10_robust.twin),
    "cifar100-robust": _robust("CIFAR-100", cifar100_robust.GRID, _published(0.04, 16.66), "l2:0.5"),
    "svhn-robust": _robust("SVHN prefix", svhn_robust.GRID, _published(0.44, 35.06), "l2:0.5"),
    "nmnist": Reproduction(
        title="N-MNIST, the first 900 recordings, 12C5-32C5-100: LIF and TA-LIF on events",
        grid=nmnist.GRID,
        plans=(
            PlannedEvaluation("events", threat=TWENTY_EVENTS),
            PlannedEvaluation("standard", threat=PER_FRAME, attacks_only=True),
        ),
        columns=(
            ("clean", f"events at {TWENTY_EVENTS}", "clean"),
            ("20 events at random", f"events at {TWENTY_EVENTS}", "random events"),
            ("20 events, worst case", f"events at {TWENTY_EVENTS}", "worst"),
            ("every frame by 2/255, worst case", f"standard, attacks only at {PER_FRAME}", "worst"),
        ),
        published=(),
    ),
    "demo": Reproduction(
        title="Demo on the embedded Fashion-MNIST sample: HoSNN against LIF",
        grid=demo.GRID,
        plans=(PlannedEvaluation("paper", samples=300, panel_samples=100), PlannedEvaluation("smoke", panel_samples=0)),
        columns=(*PAPER_COLUMNS, ("PGD-20 BPTT", "smoke", "PGD-20")),
        published=FASHION_MNIST.published,
        demonstration=True,
    ),
}

ALL = (
    "fashion-mnist",
    "fashion-mnist-wide",
    "cifar10-small",
    "cifar100-small",
    "svhn-small",
    "fashion-mnist-robust",
    "fashion-mnist-robust-32",
    "cifar10-robust",
    "cifar100-robust",
    "svhn-robust",
    "nmnist",
)
"""What `hosnn reproduce all` runs: the paper's tables with networks for two cores, the robust networks, N-MNIST."""
