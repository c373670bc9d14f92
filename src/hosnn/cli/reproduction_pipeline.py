"""Training and evaluation of all networks of a reproduction, in a folder of runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric

from hosnn.cli.convert import converted
from hosnn.cli.side_by_side import Training, train_side_by_side
from hosnn.data import Dataset
from hosnn.deadline import Deadline, Interrupted, stopping
from hosnn.evaluation.store import file_stem, stored_or_fresh
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import neurons
from hosnn.progress import Progress
from hosnn.recipes.reproductions import Conversions, PlannedEvaluation
from hosnn.recipes.variants import with_seed
from hosnn.results.evaluation import Evaluation
from hosnn.results.reproduction import Cell
from hosnn.training.checkpoint import load
from hosnn.training.experiment import Experiment
from hosnn.training.loop import precision_of
from hosnn.training.pipeline import finished_run, limited, run

CONVERTED = "-converted-"
"""In the name of a network that a twin was converted to, before the number of time steps."""


@dataclass(frozen=True)
class Pipeline:
    """Trains and evaluates networks in a folder of runs, until a deadline.

    threads  blocks of images attacked at a time on a CPU; 0: one per core
    """

    runs: Path
    data: Dataset
    fabric: Fabric
    deadline: Deadline
    progress: Progress
    threads: int = 0

    def all_trained(
        self, experiments: list[Experiment], cores: int, side_by_side: int, like: Training
    ) -> list[SpikingNetwork]:
        """The networks of all experiments; on a CPU independent ones are trained side by side.

        cores         Each training gets an equal share of them, whatever else they do now: sums depend on the number of
                      threads in their last bits, and the load must not decide about results, only how many run at a
                      time.
        side_by_side  number of shares: that of the table's networks, whichever of them are trained now
        like          what else a training in another process needs
        """
        if self.fabric.device.type != "cpu":
            return [self.trained(experiment) for experiment in experiments]
        free, threads = torch.get_num_threads(), max(1, cores // side_by_side)
        like = replace(like, hardware=replace(like.hardware, accelerator="cpu", threads=threads))
        torch.set_num_threads(threads)
        try:
            starts = [experiment.start for experiment in experiments if experiment.start is not None]
            for stage in (starts, experiments):
                left = [experiment for experiment in dict.fromkeys(stage) if not self._is_finished(experiment)]
                if len(left) > 1 and free // threads > 1:
                    trainings = [replace(like, experiment=experiment) for experiment in left]
                    train_side_by_side(trainings, free // threads, self.deadline)
                else:
                    for experiment in left:
                        self.trained(experiment)
            return [self.trained(experiment) for experiment in experiments]
        finally:
            torch.set_num_threads(free)

    def _is_finished(self, experiment: Experiment) -> bool:
        return finished_run(experiment, self.data, self.runs / experiment.name, precision_of(self.fabric)) is not None

    def trained(self, experiment: Experiment) -> SpikingNetwork:
        """The experiment's network at its best checkpoint, trained now if it is not finished."""
        outcome = run(
            experiment, self.data, self.runs, self.fabric, self.deadline, self.progress, resume=True, same_threads=True
        )
        if not outcome.finished:
            raise Interrupted(f"in the training of {experiment.name} or of its start", self.deadline)
        return load(outcome.folder).network.to(self.fabric.device)

    def start_seconds(self, experiments: Sequence[Experiment]) -> dict[str, float]:
        """Wall time that the training of each start of finished experiments took, by its name."""
        starts = dict.fromkeys(experiment.start for experiment in experiments if experiment.start is not None)
        return {start.name: run(start, self.data, self.runs, self.fabric).seconds for start in starts}

    def cell(self, experiment: Experiment, network: SpikingNetwork, plans: tuple[PlannedEvaluation, ...]) -> Cell:
        """Everything measured on one trained network."""
        outcome = run(experiment, self.data, self.runs, self.fabric)
        return Cell(
            neuron="TA-LIF" if experiment.homeostasis else "LIF" if neurons(network) else "ANN",
            training=experiment.objective.title,
            experiment=experiment.name,
            identity=experiment.identity,
            seed=experiment.seed,
            epochs=self._epochs(experiment),
            training_seconds=outcome.seconds,
            cpu_seconds=outcome.cpu_seconds or None,
            validation=outcome.accuracy,
            precision=precision_of(self.fabric),
            evaluations=self._evaluated(network, experiment.name, experiment.seed, plans),
        )

    def converted(self, conversions: Conversions, seed: int, measured: Sequence[Cell]) -> list[Cell]:
        """Everything measured on the spiking networks that a trained ANN twin is converted to, and on the twin itself
        if that is not among those measured.

        Their training time is 0, their epochs and validation accuracy are those of the twin.
        """
        experiment = with_seed(conversions.recipe(), seed)
        network = self.trained(experiment)
        known = next((cell for cell in measured if cell.experiment == experiment.name), None)
        twin = known or self.cell(experiment, network, conversions.plans)
        cells = [] if known else [twin]
        for steps in conversions.steps:
            name = f"{experiment.name}{CONVERTED}{steps}"
            spiking = converted(network, self.data, steps).to(self.fabric.device)
            evaluations = self._evaluated(spiking, name, seed, conversions.plans)
            neuron = f"converted, {steps} steps"
            untrained = replace(twin, training_seconds=0.0, cpu_seconds=0.0)
            cells.append(replace(untrained, neuron=neuron, experiment=name, evaluations=evaluations))
        return cells

    def _evaluated(
        self, network: SpikingNetwork, name: str, seed: int, plans: tuple[PlannedEvaluation, ...]
    ) -> dict[str, Evaluation]:
        """The evaluations of a network, in the folder of its run, by the plans' keys."""
        evaluations = {}
        for plan in plans:
            planned = plan.resolved()
            stem = file_stem(planned.name, str(plan.threat), plan.samples, seed)
            with stopping(self.deadline):
                evaluations[plan.key] = stored_or_fresh(
                    network,
                    self.data,
                    planned,
                    self.runs / name / "evaluations" / f"{stem}.json",
                    name=name,
                    seed=seed,
                    threads=self.threads if self.threads and self.fabric.device.type == "cpu" else None,
                    progress=self.progress,
                    deadline=self.deadline,
                )
        return evaluations

    def _epochs(self, experiment: Experiment) -> int:
        """The epochs that a finished experiment and its start were trained for: fewer than planned after a collapse."""
        planned, steps = experiment.optim.epochs, experiment.optim.steps(len(limited(self.data, experiment).train))
        epochs = planned * run(experiment, self.data, self.runs, self.fabric).steps // steps
        return epochs + (0 if experiment.start is None else self._epochs(experiment.start))
