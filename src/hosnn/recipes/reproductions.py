"""What `hosnn reproduce` runs: a grid of recipes, protocols, and the published numbers to stand beside."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hosnn.evaluation.comparison import Published
from hosnn.recipes import cifar10, cifar10_small, cifar100, demo, fashion_mnist, svhn
from hosnn.training.experiment import Experiment

V3 = "arXiv 2308.10373v3, abstract"


@dataclass(frozen=True)
class Plan:
    """A protocol by name, on so many test images, and so many for its panels (None: the protocol's own numbers)."""

    protocol: str
    samples: int | None = None
    panel_samples: int | None = None


@dataclass(frozen=True)
class Reproduction:
    """A published table to reproduce.

    grid       the four recipes: LIF and TA-LIF, clean and FGSM-trained
    plans      protocols to run on each
    columns    of the printed table: heading, protocol, attack ("clean" or "worst" besides attack names)
    """

    title: str
    grid: tuple[Callable[[], Experiment], ...]
    plans: tuple[Plan, ...]
    columns: tuple[tuple[str, str, str], ...]
    published: tuple[Published, ...]


PAPER_COLUMNS = (
    ("clean", "paper", "clean"),
    ("FGSM (paper)", "paper", "FGSM"),
    ("R-FGSM (paper)", "paper", "R-FGSM"),
    ("BIM-7 (paper)", "paper", "BIM-7"),
    ("PGD-7 (paper)", "paper", "PGD-7"),
)
FASHION_MNIST_PUBLISHED = (
    Published("LIF", "clean", "PGD-7", 30.54, V3),
    Published("TA-LIF", "FGSM 2/255", "PGD-7", 74.91, V3),
)

CIFAR10_PUBLISHED = (
    Published("LIF", "clean", "PGD-7", 0.56, V3),
    Published("TA-LIF", "FGSM 2/255", "PGD-7", 42.63, V3),
)
SMALL_PUBLISHED = tuple(
    replace(number, source=f"{V3}; of a network of 45 M weights, 200 epochs") for number in CIFAR10_PUBLISHED
)
CIFAR100_PUBLISHED = (
    Published("LIF", "clean", "PGD-7", 0.04, V3),
    Published("TA-LIF", "FGSM 2/255", "PGD-7", 16.66, V3),
)
SVHN_PUBLISHED = (
    Published("LIF", "clean", "PGD-7", 0.44, V3),
    Published("TA-LIF", "FGSM 2/255", "PGD-7", 35.06, V3),
)
SWEPT_COLUMNS = (*PAPER_COLUMNS, ("PGD-40 BPTT, worst of 5 widths", "sweep", "worst"))

REPRODUCTIONS: dict[str, Reproduction] = {
    "fashion-mnist": Reproduction(
        "Fashion-MNIST, 15C5-40C5-300: HoSNN against LIF",
        fashion_mnist.GRID,
        (Plan("paper"), Plan("sweep")),
        SWEPT_COLUMNS,
        FASHION_MNIST_PUBLISHED,
    ),
    "cifar10": Reproduction(
        "CIFAR-10, the authors' network: HoSNN against LIF",
        cifar10.GRID,
        (Plan("paper"), Plan("sweep")),
        SWEPT_COLUMNS,
        CIFAR10_PUBLISHED,
    ),
    "cifar100": Reproduction(
        "CIFAR-100, the authors' network: HoSNN against LIF",
        cifar100.GRID,
        (Plan("paper"), Plan("sweep")),
        SWEPT_COLUMNS,
        CIFAR100_PUBLISHED,
    ),
    "svhn": Reproduction(
        "SVHN, the authors' CIFAR-10 network: HoSNN against LIF",
        svhn.GRID,
        (Plan("paper"), Plan("sweep")),
        SWEPT_COLUMNS,
        SVHN_PUBLISHED,
    ),
    "cifar10-small": Reproduction(
        "CIFAR-10 with a network for two cores, 32C3-64C3-128C3-256: HoSNN against LIF",
        cifar10_small.GRID,
        (Plan("paper", samples=1000, panel_samples=0),),
        PAPER_COLUMNS,
        SMALL_PUBLISHED,
    ),
    "demo": Reproduction(
        "Demo on the embedded Fashion-MNIST sample: HoSNN against LIF",
        demo.GRID,
        (Plan("paper", samples=300, panel_samples=100), Plan("smoke", panel_samples=0)),
        (*PAPER_COLUMNS, ("PGD-20 BPTT", "smoke", "PGD-20")),
        FASHION_MNIST_PUBLISHED,
    ),
}
