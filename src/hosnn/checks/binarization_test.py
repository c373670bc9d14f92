"""The active test: would this evaluation's attacks find an adversarial example that is known to be there?

For every image the model gets a readout of its own with two classes, such that about every point of the ball is of
class 0 and one known point on its surface is of class 1.  An attack strong enough for its verdict "robust" to mean
something must find class 1 nearly always; random search with as many looks tells how hard that was.

Source: Zimmermann et al. 2022, "Increasing Confidence in Adversarial Robustness Evaluations", the binarization test.
Ours: a model without a linear layer is read out from its logits.  Then, or where spikes answer in jumps, a readout
need not exist: several boundary points are tried, and an image for which none can be told apart is left out.
Shapes: x [B, ...] (frames [B, T, ...] under a threat per step), y [B].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hosnn.checks.binarized_model import Binarized, as_attacked, binarize, on_surface
from hosnn.checks.queries import BLOCK, unnoticed
from hosnn.protocols.protocol import AttackKind, AttackSpec
from hosnn.rng import SampleRandom
from hosnn.robustness.model import Model, NoGradient, count_passes, scores, subset
from hosnn.robustness.threats import Threat


@dataclass(frozen=True)
class BinarizationTest:
    """Counts of images.

    images     tried
    built      given a readout that separates; the others say nothing
    found      of these, broken by the attacks; by_chance: by random search with as many looks at the model
    """

    images: int = 0
    built: int = 0
    found: int = 0
    by_chance: int = 0

    def __add__(self, other: "BinarizationTest") -> "BinarizationTest":
        return BinarizationTest(
            self.images + other.images,
            self.built + other.built,
            self.found + other.found,
            self.by_chance + other.by_chance,
        )


def challenge(
    model: Model, attacks: Sequence[AttackSpec], x: Tensor, threat: Threat, rng: SampleRandom
) -> BinarizationTest | None:
    """Build the readouts for x [n, C, H, W] and attack through them; None without a budget or a fitting attack.

    entries  a protocol's attacks, bound; those that need gradients are tested, each on what those before it left, or
             those by queries if there is none.  Left out are losses of three classes, and of the neurons themselves.
    Depends on each image's own stream in `rng` alone, but for the number of random draws, a mean over a block.
    """
    able = [spec for spec in attacks if spec.classes <= 2 and not spec.adaptive and spec.threat == threat]
    attacks = [spec for spec in able if spec.kind is AttackKind.WHITE_BOX]
    attacks = attacks or [spec for spec in able if spec.kind is AttackKind.QUERIES]
    if not attacks or threat.ball.eps == 0:
        return None
    with unnoticed(model):
        torch.manual_seed(rng.seed)
        blocks = torch.split(torch.arange(len(x)), BLOCK)
        return sum(
            (_challenge(model, attacks, x[each], threat, rng.subset(each)) for each in blocks), BinarizationTest()
        )


def _challenge(
    model: Model, attacks: Sequence[AttackSpec], x: Tensor, threat: Threat, rng: SampleRandom
) -> BinarizationTest:
    binarized, _, built = binarize(model, x, threat, rng)
    chosen = built.nonzero()[:, 0]
    if not len(chosen):
        return BinarizationTest(len(x))
    binarized, x_built, rng_built = binarized.subset(chosen), x[chosen], rng.subset(chosen)
    with count_passes() as passes:
        missed = _missed(binarized, attacks, x_built, threat, rng_built)
    looks = -(-passes.forward // len(chosen))
    by_chance = _by_chance(binarized, as_attacked(model, x_built, threat), threat, rng_built, looks)
    return BinarizationTest(len(x), len(chosen), len(chosen) - missed, by_chance)


def _missed(model: Binarized, attacks: Sequence[AttackSpec], x: Tensor, threat: Threat, rng: SampleRandom) -> int:
    """Samples for which no attack finds class 1 inside the threat."""
    shown, robust = as_attacked(model, x, threat), torch.arange(len(x), device=x.device)
    for spec in attacks:
        if not len(robust):
            break
        y = torch.zeros_like(robust)
        inside, stream = subset(model, robust), rng.subset(robust).fold(spec.name)
        try:
            x_adv = spec.applied()(inside, x[robust], y, stream)
        except NoGradient:  # blind, so it finds nothing
            continue
        found = (scores(inside, x_adv).argmax(1) == 1) & threat.allows(x_adv, shown[robust])
        robust = robust[~found]
    return len(robust)


def _by_chance(model: Binarized, shown: Tensor, threat: Threat, rng: SampleRandom, looks: int) -> int:
    """Samples for which one of `looks` random points like the boundary points is of class 1."""
    robust = torch.arange(len(shown), device=shown.device)
    for number in range(looks):
        points = on_surface(threat, shown[robust], rng.subset(robust).fold("chance", number))
        robust = robust[scores(subset(model, robust), points).argmax(1) == 0]
        if not len(robust):
            break
    return len(shown) - len(robust)
