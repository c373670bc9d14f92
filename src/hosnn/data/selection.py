"""Choosing rows by a fixed rule: no random generator, hence the same choice in every version of torch and numpy.

A row's key is splitmix64 of its position in the original split; within each class, rows are ranked by that key.
Validation splits, fixed subsets and the embedded sample are all cut from these ranks.
Legend: N rows.
"""

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


def rank_within_class(labels: Tensor, index: Tensor) -> Tensor:
    """Each row's place, from 0, among the rows of its class, ordered by `splitmix64(index)`.

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
    """The first `count` rows when the classes take turns, each giving its rows in rank order; returned ascending.

    Class sizes differ by at most one as long as no class runs out, and a smaller choice lies within a larger one.

    labels, index  [N] int64
    returns        [count] int64, row numbers
    """
    by_key = splitmix64(index).argsort()
    turns = by_key[rank_within_class(labels, index)[by_key].argsort(stable=True)]
    return turns[:count].sort().values
