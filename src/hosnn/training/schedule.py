"""The learning rate over the steps of a training."""

import math
from enum import Enum

from hosnn.identity import identified


@identified("Schedule")
class Schedule(Enum):
    """How the learning rate falls to zero after the warm-up: along half a cosine, or in a straight line.

    LINEAR after a warm-up is the triangle of Wong et al. 2020, torch's OneCycleLR(anneal_strategy="linear") from and to
    zero.
    """

    COSINE = "cosine"
    LINEAR = "linear"


def learning_rate(peak: float, done: float, warmup: float, schedule: Schedule) -> float:
    """The learning rate after a share `done` of all steps, 0 to 1: it rises in a straight line over the first `warmup`.

    peak  the largest learning rate
    """
    if done < warmup:
        return peak * done / warmup
    fall = (done - warmup) / (1 - warmup)
    return peak * (1 - fall) if schedule is Schedule.LINEAR else peak * (1 + math.cos(math.pi * fall)) / 2
