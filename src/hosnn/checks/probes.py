"""Looking at a model from outside: what is inside it, and whether its answers and gradients can be relied on.

Shapes: x [n, ...] in [0, 1], y [n], logits [n, K].  Nothing here changes the model's modes, the global random numbers
or a count of passes.  Images go in blocks of 50; all probes together cost about 35 forwards and 4 backwards per image.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hosnn.checks.model_checks import FAITHFUL, FEW, SAME
from hosnn.checks.queries import (
    BLOCK,
    difference,
    far,
    fires,
    first_input,
    gradient_of,
    seeded_scores,
    share,
    unnoticed,
)
from hosnn.estimators import with_rule
from hosnn.nn.layers import TimeDropout
from hosnn.nn.neurons import TALIF, neurons
from hosnn.results.evaluation import Network
from hosnn.rng import SampleRandom
from hosnn.robustness.ensembles import Noise
from hosnn.robustness.losses import cross_entropy, margin
from hosnn.robustness.model import Model
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt

RADII = (0.25, 1.0, 4.0)
"""Sizes of the fidelity probe's steps over eps: spikes answer in jumps, so a small step may change nothing."""
TRIALS = 4
ALONE = 16
"""Images that are also asked one by one."""
MOVED = 20
"""Trials that a fidelity must rest on."""


@dataclass(frozen=True)
class Diagnosis:
    """What was measured on `samples` images; shares in [0, 1], differences relative to the spread of the logits.

    None: could not be measured (no gradient; answers that differ from call to call; not an nn.Module).
    zero        margin gradient exactly zero, or not a number           share of images
    saturated   cross-entropy gradient lost, margin gradient not        share of images
    certain     highest probability 1 in float32                        share of images
    moved       changed by an attack at eps = 0                         share of images
    random      two forwards with different random numbers              difference
    state       forwards before and after others, equal random numbers  difference
    batch_logits, batch_predictions  change with batch size and order   share of images
    ties        two highest logits equal                                share of images
    dtype, half, distinct  of the logits: type, all fit into 16 bits, different values over images
    training, training_gradient  another result in train mode           share of images; NaN if it gives none there
    fidelity    a gradient step beats a random one, at eps `fidelity_eps`  share of trials
    replaced    the same through full BPTT; only for hosnn layers whose own gradient is of little use
    dead        pixels without gradient that matter                     share of pixels
    still       first-layer inputs that do not move with the pixels     share of inputs
    """

    samples: int
    gradient: bool
    certain: float
    moved: float
    random: float
    state: float
    ties: float
    dtype: str
    half: bool
    distinct: float
    zero: float | None = None
    saturated: float | None = None
    batch_logits: float | None = None
    batch_predictions: float | None = None
    training: float | None = None
    training_gradient: float | None = None
    fidelity: float | None = None
    fidelity_eps: float = math.nan
    replaced: float | None = None
    dead: float | None = None
    still: float | None = None


def look_at(model: Model, x: Tensor) -> Network:
    """What kind of model this is, found on a few images x."""
    with unnoticed(model):
        first, second = (seeded_scores(model, x, seed) for seed in (0, 1))
        gradient = gradient_of(model, x, first.argmax(1), margin) is not None
        random = difference(first, second) > SAME
        if not isinstance(model, nn.Module):
            return Network(gradient=gradient, random=random)
        own = neurons(model).values()
        return Network(
            spiking="hosnn" if own else "foreign" if fires(model, x) else "none",
            layers=len(own),
            adaptive=sum(isinstance(layer, TALIF) and bool((layer.adaptation > 0).any()) for layer in own),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            gradient=gradient,
            random=random,
        )


def diagnose(model: Model, x: Tensor, y: Tensor, threat: Threat, seed: int = 0) -> Diagnosis:
    """Measure everything that needs the model itself, on x [n, ...] with labels y [n]; n of 100 to 200 is enough."""
    rng = SampleRandom(seed, torch.arange(len(y))).fold("probes")
    with unnoticed(model):
        logits = seeded_scores(model, x, seed)
        answers = _repeatability(model, x, logits, seed)
        slope = gradient_of(model, x, y, margin)
        slopes = {} if slope is None else _slopes(model, x, y, slope, threat, rng)
        steady = max(answers.values()) <= SAME
        top = logits.float().topk(2, dim=1).values
        return Diagnosis(
            samples=len(y),
            gradient=slope is not None,
            certain=share(logits.float().softmax(1).amax(1) == 1),
            moved=_moved_without_budget(model, x, y, threat, rng, slope is not None),
            ties=share(top[:, 0] == top[:, 1]),
            dtype=str(logits.dtype).removeprefix("torch."),
            half=any(torch.equal(logits.to(kind).to(logits.dtype), logits) for kind in (torch.half, torch.bfloat16)),
            distinct=max(len(torch.unique(column)) for column in logits.unbind(1)) / len(y),
            **answers,
            **(_batches(model, x, logits, seed) if steady else {}),
            **(_training_mode(model, x, y, logits, slope, seed) if steady else {}),
            **slopes,
            replaced=_replaced(model, x, y, threat, rng, slopes),
            still=_still(model, x, threat) if steady and isinstance(model, nn.Module) else None,
        )


def _repeatability(model: Model, x: Tensor, logits: Tensor, seed: int) -> dict[str, float]:
    """`random` and `state`.  Another batch comes between the looks that state could tell apart."""
    again = seeded_scores(model, x, seed)
    seeded_scores(model, 1 - x.flip(0), seed)
    later = seeded_scores(model, x, seed)
    state = max(difference(logits, again), difference(logits, later))
    # A model that remembers differs from call to call anyway, so randomness is asked for only without that.
    return {"state": state, "random": difference(later, seeded_scores(model, x, seed + 1)) if state <= SAME else 0.0}


def _batches(model: Model, x: Tensor, logits: Tensor, seed: int) -> dict[str, float]:
    """The same images in small batches, in reverse order, and some of them alone."""
    everyone = torch.arange(len(x), device=x.device)
    changed, moved = (torch.zeros(len(x), dtype=torch.bool, device=logits.device) for _ in range(2))
    for chosen, block in ((everyone, 7), (everyone.flip(0), BLOCK // 2 + 1), (everyone[:ALONE], 1)):
        try:
            found = seeded_scores(model, x[chosen], seed, block)
        except RuntimeError:  # a model that takes one batch size only depends on it indeed
            return {"batch_logits": 1.0, "batch_predictions": 1.0}
        changed[chosen] |= found.argmax(1) != logits[chosen].argmax(1)
        moved[chosen] |= far(found, logits[chosen], logits)
    return {"batch_logits": share(moved), "batch_predictions": share(changed)}


def _training_mode(
    model: Model, x: Tensor, y: Tensor, logits: Tensor, slope: Tensor | None, seed: int
) -> dict[str, float]:
    """All modules but dropout and normalisation in train mode, on a copy, since training may leave traces."""
    if not isinstance(model, nn.Module):
        return {}
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError):  # tensors with a graph, open handles
        return {}
    for module in twin.modules():
        module.training = not _differs_by_right(module)
    try:
        found, other = (seeded_scores(twin, x, at) for at in (seed, seed + 1))
        if difference(found, other) > SAME:  # dropout by a function: random in train mode, as it should be
            return {}
        trained = gradient_of(twin, x, y, margin)
    except Exception:  # a foreign model may well return its loss, or ask for labels, where it is to be trained
        return {"training": math.nan, "training_gradient": math.nan}
    turned = 0.0
    if trained is None or slope is None:
        turned = float((trained is None) != (slope is None))
    else:
        cosine = nn.functional.cosine_similarity(_rescaled(trained), _rescaled(slope))
        turned = share((cosine < 0.9) & (trained.flatten(1) != slope.flatten(1)).any(1))
    return {"training": share(far(found, logits, logits)), "training_gradient": turned}


def _differs_by_right(module: nn.Module) -> bool:
    """Whether train mode is meant to change what the module does: dropout, normalisation, layers that hold either."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RNNBase, nn.MultiheadAttention)
    return isinstance(module, (*kinds, TimeDropout)) or "drop" in type(module).__name__.lower()


def _slopes(model: Model, x: Tensor, y: Tensor, slope: Tensor, threat: Threat, rng: SampleRandom) -> dict[str, float]:
    """What the gradient is worth, where there is one."""
    flat = slope.flatten(1)
    lost = (flat == 0).all(1) | ~flat.isfinite().all(1)
    surface = gradient_of(model, x, y, cross_entropy)
    gone = torch.zeros_like(lost)
    if surface is not None:
        # A loss may be flat in part: where most pixels lost their sign an attack steps no better than by chance.
        gone = ((surface.flatten(1) == 0) & (flat != 0)).sum(1) > (flat != 0).sum(1) / 2
    found = {"zero": share(lost), "saturated": share(gone & ~lost)}
    found |= _fidelity(model, x, y, slope.nan_to_num(), threat, rng)
    if not bool(lost.all()):
        found["dead"] = _dead(model, x[~lost], flat[~lost] == 0)
    return found


def _replaced(
    model: Model, x: Tensor, y: Tensor, threat: Threat, rng: SampleRandom, own: dict[str, float]
) -> float | None:
    """Fidelity of full BPTT with an ordinary surrogate, where the model's own gradient leaves something to wish for."""
    if own.get("fidelity", 0.0) >= FAITHFUL and own.get("zero", 1.0) <= FEW:
        return None
    if not isinstance(model, nn.Module) or not neurons(model):
        return None
    twin = with_rule(model, bptt())
    slope = gradient_of(twin, x, y, margin)
    return None if slope is None else _fidelity(twin, x, y, slope.nan_to_num(), threat, rng).get("fidelity")


def _fidelity(model: Model, x: Tensor, y: Tensor, slope: Tensor, threat: Threat, rng: SampleRandom) -> dict[str, float]:
    """How often a step along the gradient raises the margin more than random steps of its size, ties counting half.

    Trials in which neither changes anything do not count.  Of several sizes the one that suits the gradient best.
    """
    start = margin(seeded_scores(model, x, 0), y)
    best: dict[str, float] = {}
    for radius in RADII:
        eps = threat.ball.eps * radius
        if eps == 0 or (threat.ball.name == "linf" and eps > 1):
            continue
        ball = threat.with_eps(eps)

        def rise(direction: Tensor, eps: float = eps, ball: Threat = ball) -> Tensor:
            moved = ball.project(x + eps * threat.ball.steepest(direction), x)
            return margin(seeded_scores(model, moved, 0), y) - start

        ours = rise(slope)
        theirs = torch.stack([rise(rng.fold("direction", trial).normal(x)) for trial in range(TRIALS)])
        counts = (theirs != 0) | (ours != 0)
        if int(counts.sum()) < MOVED:
            continue
        wins = (ours > theirs).float() + 0.5 * (ours == theirs).float()
        fidelity = float(wins[counts].mean())
        if fidelity > best.get("fidelity", -1.0):
            best = {"fidelity": fidelity, "fidelity_eps": eps}
    return best


def _dead(model: Model, x: Tensor, flat: Tensor) -> float:
    """Share of pixels in `flat` [n, pixels], in images where moving those to the other end of the range matters."""
    moved = torch.where(flat.view_as(x), (x < 0.5).to(x.dtype), x)
    before = seeded_scores(model, x, 0)
    matters = far(seeded_scores(model, moved, 0), before, before)
    return float((flat.float().mean(1) * matters).mean())


def _still(model: nn.Module, x: Tensor, threat: Threat) -> float | None:
    """Share of inputs to the first layer with weights that are equal for x and for x moved inwards by up to eps/2."""
    size = min(threat.ball.eps / 2, 0.25) if threat.ball.name == "linf" else 4 / 255
    if size == 0:
        return None
    before, after = (first_input(model, at[:BLOCK]) for at in (x, x + size * torch.where(x < 0.5, 1.0, -1.0)))
    return None if before is None or after is None else share(before == after)


def _moved_without_budget(
    model: Model, x: Tensor, y: Tensor, threat: Threat, rng: SampleRandom, gradient: bool
) -> float:
    nothing = threat.with_eps(0.0)
    attack = PGD(nothing, steps=2, keep_best=False) if gradient else Noise(nothing)
    first = torch.arange(min(len(x), BLOCK))
    return share((attack(model, x[first], y[first], rng.rows(first)) != x[first]).flatten(1).any(1))


def _rescaled(gradient: Tensor) -> Tensor:
    """Each row over its largest entry, lest squares underflow."""
    flat = gradient.nan_to_num().flatten(1)
    return flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
