"""Pixels whose gradient is zero although moving them changes the logits.

Shapes: x [n, ...] in [0, 1], groups of pixels [n, pixels] bool.
"""

import torch
from torch import Tensor

from hosnn.checks.measurements import noticeably_different, seeded_scores
from hosnn.robustness.model import Model

PARTS = 8
"""Pixels without a gradient are moved together, then in up to so many parts."""


def dead_pixels(model: Model, x: Tensor, without_gradient: Tensor, size: float) -> float:
    """Share of pixels without a gradient that change the logits when they move by `size`, all up or all down.

    A pixel that changes nothing, as one inside a dead zone at the input, hides nothing and does not count.  Where a
    group of pixels, in the order of the image, changes the logits, its halves are looked at, down to an eighth; a group
    whose halves change nothing by themselves counts as a whole.
    without_gradient  [n, pixels] bool
    """
    # The place of each pixel in its image's group, in (0, 1].
    place = without_gradient.cumsum(1) / without_gradient.sum(1, keepdim=True).clamp(min=1)

    def share(rows: Tensor, part: int, parts: int) -> Tensor:
        """Of the images `rows`, the share of pixels that are in a part of the group and matter [rows]."""
        group = without_gradient[rows] & (place[rows] > part / parts) & (place[rows] <= (part + 1) / parts)
        matters = _matters(model, x[rows], group, size)
        shares = group.float().mean(1) * matters
        if parts < PARTS and len(chosen := rows[matters]):
            halves = share(chosen, 2 * part, 2 * parts) + share(chosen, 2 * part + 1, 2 * parts)
            shares[matters] = torch.where(halves > 0, halves, shares[matters])
        return shares

    with_group = without_gradient.any(1).nonzero()[:, 0]
    return float(share(with_group, 0, 1).sum() / len(x)) if len(with_group) else 0.0


def _matters(model: Model, x: Tensor, group: Tensor, size: float) -> Tensor:
    """Images whose logits change noticeably when the pixels of `group` move up, or down, by `size`.  [n] bool"""
    before = seeded_scores(model, x, 0)
    changed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step in (size, -size):
        moved = torch.where(group.view_as(x), (x + step).clamp(0, 1), x)
        changed |= noticeably_different(seeded_scores(model, moved, 0), before, before)
    return changed
