"""Fixed choices of rows, by a hash in place of a random generator, which may differ between versions of torch.

A row's key is splitmix64 of its position in the original split; within each class, rows are ranked by that key.
Validation splits, fixed subsets and the embedded sample are all chosen by these ranks.
Legend: N rows.
"""

from collections import Counter

import numpy as np
import torch
from torch import Tensor


def splitmix64(index: Tensor) -> Tensor:
    """The first output of the splitmix64 generator seeded with each index, as an order-preserving int64.

    index    [N] int64, >= 0
    returns  [N] int64: the unsigned 64-bit output minus 2^63, because torch sorts only signed integers.

    A bijection, so distinct rows never tie.  Source: Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195.
    """
    z = index.cpu().numpy().astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return torch.from_numpy((z ^ np.uint64(1 << 63)).view(np.int64))


def shuffled_rank_in_class(labels: Tensor, index: Tensor) -> Tensor:
    """Each row's rank, from 0, among the rows of its class in the fixed pseudo-random order of `splitmix64(index)`.

    labels   [N] int64
    index    [N] int64, position in the original split
    returns  [N] int64
    """
    labels = labels.cpu()
    by_key = splitmix64(index).argsort()
    by_class = by_key[labels[by_key].argsort(stable=True)]
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(labels)
    ranks[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return ranks


def balanced_rows(labels: Tensor, index: Tensor, count: int) -> Tensor:
    """The `count` rows of lowest rank in their class, in ascending order.

    The numbers of rows per class differ by at most one unless a class runs out.  A smaller choice is part of a larger
    one.

    labels, index  [N] int64
    returns        [count] int64, row numbers
    """
    return rows_by_rank(labels, index)[:count].sort().values


def rows_by_rank(labels: Tensor, index: Tensor) -> Tensor:
    """All rows by their rank in their class: one of every class, then the next of every class, and so on.

    labels, index  [N] int64
    returns        [N] int64, row numbers
    """
    by_key = splitmix64(index).argsort()
    return by_key[shuffled_rank_in_class(labels, index)[by_key].argsort(stable=True)]


def is_sorted_by_class(labels: Tensor) -> bool:
    """Whether neighbours share a label much more often than chance has it: halfway from sum over classes of share^2,
    which mixed rows have, to 1."""
    if len(labels) < 2:
        return False
    by_chance = sum(count**2 for count in Counter(labels.tolist()).values()) / len(labels) ** 2
    return 2 * float((labels[1:] == labels[:-1]).float().mean()) > 1 + by_chance
