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

from hosnn.draws import SampleRandom
from hosnn.evaluation.asking import BLOCK, unnoticed
from hosnn.evaluation.binarized import Binarized, as_attacked, binarize, on_surface
from hosnn.evaluation.protocol import Entry, Kind
from hosnn.robustness.model import Model, NoGradient, counted, rows, scores
from hosnn.robustness.threats import Threat


@dataclass(frozen=True)
class ActiveTest:
    """Counts of images.

    images     tried
    built      given a readout that separates; the others say nothing
    found      of these, broken by the attacks; by_chance: by random search with as many looks at the model
    """

    images: int = 0
    built: int = 0
    found: int = 0
    by_chance: int = 0

    def __add__(self, other: "ActiveTest") -> "ActiveTest":
        return ActiveTest(
            self.images + other.images,
            self.built + other.built,
            self.found + other.found,
            self.by_chance + other.by_chance,
        )


def challenge(
    model: Model, entries: Sequence[Entry], x: Tensor, threat: Threat, rng: SampleRandom
) -> ActiveTest | None:
    """Build the readouts for x [n, C, H, W] and attack through them; None without a budget or a fitting attack.

    entries  a protocol's attacks, bound; those that need gradients are tested, each on what those before it left, or
             those by queries if there is none.  Left out are losses of three classes, and of the neurons themselves.
    Depends on each image's own stream in `rng` alone, but for the number of random draws, a mean over a block.
    """
    able = [entry for entry in entries if entry.classes <= 2 and not entry.adaptive and entry.threat == threat]
    attacks = [entry for entry in able if entry.kind is Kind.WHITE_BOX]
    attacks = attacks or [entry for entry in able if entry.kind is Kind.QUERIES]
    if not attacks or threat.ball.eps == 0:
        return None
    with unnoticed(model):
        torch.manual_seed(rng.seed)
        blocks = torch.split(torch.arange(len(x)), BLOCK)
        return sum((_challenge(model, attacks, x[each], threat, rng.rows(each)) for each in blocks), ActiveTest())


def _challenge(model: Model, attacks: Sequence[Entry], x: Tensor, threat: Threat, rng: SampleRandom) -> ActiveTest:
    binarized, _, built = binarize(model, x, threat, rng)
    chosen = built.nonzero()[:, 0]
    if not len(chosen):
        return ActiveTest(len(x))
    binarized, x_built, rng_built = binarized.rows(chosen), x[chosen], rng.rows(chosen)
    with counted() as passes:
        missed = _missed(binarized, attacks, x_built, threat, rng_built)
    looks = -(-passes.forward // len(chosen))
    by_chance = _by_chance(binarized, as_attacked(model, x_built, threat), threat, rng_built, looks)
    return ActiveTest(len(x), len(chosen), len(chosen) - missed, by_chance)


def _missed(model: Binarized, attacks: Sequence[Entry], x: Tensor, threat: Threat, rng: SampleRandom) -> int:
    """Samples for which no attack finds class 1 inside the threat."""
    shown, standing = as_attacked(model, x, threat), torch.arange(len(x), device=x.device)
    for entry in attacks:
        if not len(standing):
            break
        y = torch.zeros_like(standing)
        inside, stream = rows(model, standing), rng.rows(standing).fold(entry.name)
        try:
            x_adv = entry.applied()(inside, x[standing], y, stream)
        except NoGradient:  # blind, so it finds nothing
            continue
        found = (scores(inside, x_adv).argmax(1) == 1) & threat.allows(x_adv, shown[standing])
        standing = standing[~found]
    return len(standing)


def _by_chance(model: Binarized, shown: Tensor, threat: Threat, rng: SampleRandom, looks: int) -> int:
    """Samples for which one of `looks` random points like the boundary points is of class 1."""
    standing = torch.arange(len(shown), device=shown.device)
    for number in range(looks):
        points = on_surface(threat, shown[standing], rng.rows(standing).fold("chance", number))
        standing = standing[scores(rows(model, standing), points).argmax(1) == 0]
        if not len(standing):
            break
    return len(shown) - len(standing)
