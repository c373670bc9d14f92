"""One step of training: the gradient of a batch, in shares of ranks and micro-batches, and the optimiser's move."""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from hosnn.data import Split
from hosnn.data.augment import augment
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import constrain_
from hosnn.rng import SampleRandom
from hosnn.training.experiment import BatchStatistics, Experiment
from hosnn.training.ranks import Ranks


def optimiser_step(
    model: nn.Module,
    network: SpikingNetwork,
    optimiser: torch.optim.Optimizer,
    experiment: Experiment,
    split: Split,
    rows: Tensor,
    step: int,
    epoch: int,
    ranks: Ranks,
) -> float:
    """One step on a batch, of which this rank takes its share in micro-batches; returns its mean loss.

    An objective with `replays` trains on the batch that many times, and moves its perturbation in between.
    model    the loss of `network` as a module, wrapped by Fabric for several ranks
    rows     the batch, as rows of `split`
    """
    fabric, accumulate, replays = ranks.fabric, experiment.optim.accumulate, experiment.objective.replays
    moved: dict[int, Tensor] = {}  # the perturbed images of each micro-batch for the next replay
    mean_loss = 0.0
    for replay in range(replays):
        optimiser.zero_grad()
        network.train()
        for number in range(accumulate):
            micro_batch, micro_batches = number * ranks.world_size + ranks.rank, accumulate * ranks.world_size
            micro_rows = rows[micro_batch::micro_batches]
            x, y = split.batch(micro_rows)
            streams = SampleRandom(experiment.seed, split.index[micro_rows.to(split.index.device)])
            rng = streams.fold("training", step)
            drawn = rng.fold("replay", replay) if replay else rng
            torch.manual_seed((drawn.fold("part", micro_batch) if micro_batch else drawn).seed)
            if experiment.augmentation is not None:
                x = augment(x, streams.index, experiment.augmentation, seed=experiment.seed, epoch=epoch)
            # The attack uses the bare network: the wrapper for several ranks must run once per micro-batch.
            with fabric.autocast():
                perturbed = moved[number] if replay else experiment.objective.perturbed(network, x, y, rng)
            if replays > 1:
                perturbed = perturbed.detach().requires_grad_()
            with ranks.without_gradient_exchange(model) if number < accumulate - 1 else nullcontext():
                with fabric.autocast():
                    loss = model(experiment.objective, x, perturbed, y) / accumulate
                loss_share = ranks.mean(loss.detach())
                if not math.isfinite(loss_share):
                    return loss_share
                fabric.backward(loss)
            if perturbed.grad is not None:
                moved[number] = experiment.objective.moved(x, perturbed.detach(), perturbed.grad)
            mean_loss += loss_share / replays
        norm = nn.utils.clip_grad_norm_(network.parameters(), experiment.optim.clip or math.inf)
        if not math.isfinite(norm):
            return math.nan  # a step would make weights NaN; neurons would stay silent and the loss become finite again
        optimiser.step()
        experiment.objective.after_step(network)
        constrain_(network)
        if experiment.statistics is BatchStatistics.EACH_RANK:
            ranks.average_statistics(network)
    return mean_loss
