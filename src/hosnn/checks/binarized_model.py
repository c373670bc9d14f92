"""A model with two classes of its own for every image, so that an adversarial example is known to be in the ball.

Shapes: x [B, ...] (frames [B, T, ...] under a threat per step), features [B, K], those of inner points [I, B, K].
Source: Zimmermann et al. 2022, "Increasing Confidence in Adversarial Robustness Evaluations", and its code.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from hosnn.checks.measurements import scores_in_blocks
from hosnn.estimators.model_wrappers import WrappedModel
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf, per_sample
from hosnn.robustness.model import Model, scores, subset
from hosnn.robustness.pgd import on_sphere
from hosnn.robustness.threats import Threat

INNER_POINTS, INNER_RADIUS = 200, 0.95
"""Points that must be of class 0, and their largest distance from x over eps.  The authors' code: 999 points, and the
same radius."""

BOUNDARY_POINTS = 20
"""Points tried as the known adversarial point of an image; the first that a readout can separate is used."""

MARGIN = 0.01
"""Distance from the boundary point to the decision boundary, over the gap to the nearest inner point: small, so that
hardly more than that point is of class 1, but more than rounding."""

LEAST_GAP = 1e-3
"""The smallest gap over the range of the scores; times MARGIN it is a hundred times the rounding of float32."""

ROUNDS = 300
"""Iterations of Gilbert's algorithm, whose error falls as one over their number."""


class Penultimate(nn.Module):
    """Input of the last linear layer of a network, averaged over time: x [B, ...] -> [B, K].

    Spiking networks read out over time: the layer sees [T, B, K], [T · B, K] with time first, or [B, K] at every step.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    @property
    def steps(self) -> int:
        return int(self.network.steps)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        inputs: list[Tensor] = []
        layer = self.network.get_submodule(self.layer)
        handle = layer.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
        try:
            self.network(x)
        finally:
            handle.remove()
        over_time = [part.reshape(-1, len(x), part.shape[-1]).mean(0) for part in inputs]
        return torch.stack(over_time).mean(0)


def features_of(model: Model, x: Tensor) -> Model:
    """The model up to the input of its last linear layer; the model itself if that input is not one vector per image.

    Logits of a spiking network take few values and are often constant all over the ball; the layer's input is not.
    """
    if not isinstance(model, nn.Module):
        return model
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name]
    if not names:
        return model
    features = Penultimate(model, names[-1])
    two = torch.cat([x[:1], 1 - x[:1]])
    try:
        together, alone = scores(features, two), torch.cat([scores(features, one) for one in torch.split(two, 1)])
    except RuntimeError:  # the layer is not used, or its input is of another shape
        return model
    # Tokens or another order of time and batch would mix the samples.
    return features if (together - alone).abs().mean() <= 1e-2 * alone.abs().mean() else model


@dataclass(frozen=True)
class BinarizedModel(WrappedModel):
    """Two classes by a readout of each sample's own:  s = w · (features - centre) + offset,  logits (-s, s) / 2.

    A `WrappedModel`, so that estimators find the spiking layers inside and `subset` selects samples throughout.
    """

    weight: Tensor  # w      [B, K]
    centre: Tensor  # features of the boundary point  [B, K]
    offset: Tensor  # score of the boundary point  [B]

    def __call__(self, x: Tensor) -> Tensor:
        score = ((self.model(x) - self.centre) * self.weight).sum(-1) + self.offset
        return torch.stack([-score, score], -1) / 2

    def subset(self, chosen: Tensor, /) -> Self:
        parts = {name: getattr(self, name)[chosen] for name in ("weight", "centre", "offset")}
        return replace(self, model=subset(self.model, chosen), **parts)


def binarize(model: Model, x: Tensor, threat: Threat, rng: SampleRandom) -> tuple[BinarizedModel, Tensor, Tensor]:
    """The model with readouts for x, the boundary point of each sample (class 1, inside the threat), and whether the
    readout separates it [B] bool."""
    clean = attacked_input(model, x, threat)
    points = [clean, *(_inside(threat, clean, rng.fold("inner", number)) for number in range(INNER_POINTS - 1))]
    features = features_of(model, clean)
    inner = torch.stack([_precise_scores(features, point) for point in points])  # [I, B, K]
    logits = _precise_scores(model, clean)
    spread = logits.amax(1) - logits.amin(1)
    boundary, separated = clean.clone(), torch.zeros(len(x), dtype=torch.bool)
    centre, weight, offset = inner[0].clone(), torch.zeros_like(inner[0]), torch.zeros_like(inner[0, :, 0])
    for number in range(BOUNDARY_POINTS):
        remaining = (~separated).nonzero()[:, 0]
        if not len(remaining):
            break
        candidate = on_surface(threat, clean[remaining], rng.subset(remaining).fold("boundary", number))
        outer = _precise_scores(features, candidate)
        direction, gap, score_range = separate(inner[:, remaining], outer)
        success = gap > LEAST_GAP * score_range
        solved = remaining[success]
        # Scores have the range of the model's own logits, so that a loss that saturates on those saturates here too.
        scale = spread[solved] / score_range[success]
        weight[solved], centre[solved] = scale[:, None] * direction[success], outer[success]
        offset[solved], boundary[solved] = scale * MARGIN * gap[success], candidate[success]
        separated[solved] = True
    parts = (part.to(x.device, torch.promote_types(x.dtype, torch.float32)) for part in (weight, centre, offset))
    binarized = BinarizedModel(features, *parts)
    # Checked once more, because a model that draws random numbers may give other scores now.
    confirmed = (scores(binarized, boundary).argmax(1) == 1) & (scores(binarized, clean).argmax(1) == 0)
    return binarized, boundary, separated & confirmed.cpu()


def separate(inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The widest gap between inner points [I, B, K] and one outer point [B, K] each, by Gilbert's algorithm (1966).

    The shortest vector v from the convex hull of the inner points to the outer one is the normal of the widest gap.
    returns  directions w of length 1 [B, K], gaps min_i w · (outer - inner_i) [B], positive exactly if w
             separates, and ranges max_i w · (outer - inner_i) [B]
    """
    differences, sample = outer - inner, torch.arange(len(outer))
    tiny = torch.finfo(differences.dtype).tiny
    shortest = differences.mean(0)
    direction, gap = torch.zeros_like(shortest), shortest.new_full((len(outer),), -torch.inf)
    score_range = shortest[:, 0].abs()
    for _ in range(ROUNDS):
        unit = shortest / torch.linalg.vector_norm(shortest, dim=1, keepdim=True).clamp(min=tiny)
        along = (differences * unit).sum(-1)  # [I, B]
        least, closest = along.min(0)
        wider = least > gap
        direction = torch.where(wider[:, None], unit, direction)
        gap = torch.where(wider, least, gap)
        score_range = torch.where(wider, along.amax(0), score_range)
        back = shortest - differences[closest, sample]
        step = ((shortest * back).sum(1) / back.square().sum(1).clamp(min=tiny)).clamp(0, 1)
        shortest = shortest - step[:, None] * back
    return direction, gap, score_range


def on_surface(threat: Threat, x: Tensor, rng: SampleRandom) -> Tensor:
    """Random points as far from x as allowed: corners for linf, else on the sphere, as near as the domain permits."""
    ball = threat.ball
    if isinstance(ball, Linf):
        return threat.project(x + ball.eps * rng.sign(x), x)
    point = threat.project(x + on_sphere(ball, x, rng), x)
    for _ in range(3):
        size = ball.size(point - x).clamp(min=torch.finfo(x.dtype).tiny)
        point = threat.project(x + (point - x) * per_sample(ball.eps / size, x), x)
    return point


def _inside(threat: Threat, x: Tensor, rng: SampleRandom) -> Tensor:
    smaller = threat.scaled(INNER_RADIUS)
    return smaller.project(x + smaller.ball.sample(x, rng), x)


def _precise_scores(model: Model, x: Tensor) -> Tensor:
    return scores_in_blocks(model, x).cpu().double()


def attacked_input(model: Model, x: Tensor, threat: Threat) -> Tensor:
    """What the threat perturbs: the images, or their frames [B, T, C, H, W]; event data are frames already."""
    if not threat.per_step or x.dim() == 5:
        return x
    steps: int = model.steps  # type: ignore[attr-defined]
    return x[:, None].expand(-1, steps, *x.shape[1:]).contiguous()
