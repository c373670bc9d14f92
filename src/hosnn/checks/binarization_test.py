"""The binarization test: would this evaluation's attacks find an adversarial example that is known to be there?

For every image the model gets a readout of its own with two classes, such that nearly every point of the ball is of
class 0 and one known point on its surface is of class 1.  If the attacks are strong enough, they find class 1 nearly
always; random search with as many forward passes shows how hard that was.

Source: Zimmermann et al. 2022, "Increasing Confidence in Adversarial Robustness Evaluations", the binarization test.
Ours: a model without a linear layer is read out from its logits.  There, and where features of a spiking network are
piecewise constant, a readout need not exist: several boundary points are tried, and an image for which none can be
separated is left out.
Shapes: x [B, ...] (frames [B, T, ...] under a threat per step), y [B].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.checks.binarized_model import BinarizedModel, attacked_input, binarize, on_surface
from hosnn.checks.measurements import BLOCK, without_side_effects
from hosnn.protocols.protocol import AttackKind, AttackSpec
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Model, NoGradient, count_passes, scores, subset
from hosnn.robustness.threats import Threat


@dataclass(frozen=True)
class BinarizationTest:
    """Counts of images.

    images            images tried
    separable         those whose readout separates the known point; the others are left out
    broken            of the separable, those broken by the attacks
    broken_by_chance  of the separable, those broken by random search with as many forward passes
    """

    images: int = 0
    separable: int = 0
    broken: int = 0
    broken_by_chance: int = 0

    def __add__(self, other: "BinarizationTest") -> "BinarizationTest":
        return BinarizationTest(
            self.images + other.images,
            self.separable + other.separable,
            self.broken + other.broken,
            self.broken_by_chance + other.broken_by_chance,
        )


def run_binarization_test(
    model: Model, attacks: Sequence[AttackSpec], x: Tensor, threat: Threat, rng: SampleRandom
) -> BinarizationTest | None:
    """Build the readouts for x [n, C, H, W] and attack through them; None without a budget or a fitting attack.

    attacks  those of a protocol, resolved.  White-box attacks are tested, each on the images that those before it left,
             or attacks by queries if there is none; not attacks whose loss needs three classes or adapting thresholds.
    An image's result depends on its own stream in `rng` and, through the number of random points, on its block.
    """
    fitting = [spec for spec in attacks if spec.classes <= 2 and not spec.adaptive and spec.threat == threat]
    tested = [spec for spec in fitting if spec.kind is AttackKind.WHITE_BOX]
    tested = tested or [spec for spec in fitting if spec.kind is AttackKind.QUERIES]
    if not tested or threat.ball.eps == 0:
        return None
    with without_side_effects(model):
        torch.manual_seed(rng.seed)
        blocks = torch.split(torch.arange(len(x)), BLOCK)
        counts = (_test_block(model, tested, x[block], threat, rng.subset(block)) for block in blocks)
        return sum(counts, BinarizationTest())


def _test_block(
    model: Model, attacks: Sequence[AttackSpec], x: Tensor, threat: Threat, rng: SampleRandom
) -> BinarizationTest:
    binarized, _, separated = binarize(model, x, threat, rng)
    chosen = separated.nonzero()[:, 0]
    if not len(chosen):
        return BinarizationTest(len(x))
    binarized, x, images, rng = binarized.subset(chosen), x[chosen], len(x), rng.subset(chosen)
    with count_passes() as passes:
        broken = _broken_by_attacks(binarized, attacks, x, threat, rng)
    passes_per_image = -(-passes.forward // len(chosen))
    by_chance = _broken_by_chance(binarized, attacked_input(model, x, threat), threat, rng, passes_per_image)
    return BinarizationTest(images, len(chosen), broken, by_chance)


def _broken_by_attacks(
    model: BinarizedModel, attacks: Sequence[AttackSpec], x: Tensor, threat: Threat, rng: SampleRandom
) -> int:
    """Samples for which some attack finds class 1 inside the threat."""
    clean, robust = attacked_input(model, x, threat), torch.arange(len(x), device=x.device)
    for spec in attacks:
        if not len(robust):
            break
        y = torch.zeros_like(robust)
        remaining, stream = subset(model, robust), rng.subset(robust).fold(spec.id)
        try:
            x_adv = spec.assembled()(remaining, x[robust], y, stream)
        except NoGradient:  # it finds nothing
            continue
        broken = (scores(remaining, x_adv).argmax(1) == 1) & threat.allows(x_adv, clean[robust])
        robust = robust[~broken]
    return len(x) - len(robust)


def _broken_by_chance(model: BinarizedModel, clean: Tensor, threat: Threat, rng: SampleRandom, points: int) -> int:
    """Samples for which one of `points` random points like the boundary points is of class 1."""
    robust = torch.arange(len(clean), device=clean.device)
    for number in range(points):
        x_random = on_surface(threat, clean[robust], rng.subset(robust).fold("chance", number))
        robust = robust[scores(subset(model, robust), x_random).argmax(1) == 0]
        if not len(robust):
            break
    return len(clean) - len(robust)
