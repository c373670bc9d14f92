"""`hosnn convert`."""

from pathlib import Path

from rich.markup import escape

from hosnn.cli.options import DataArgument, Folder, ModelArgument, console, dataset_for, load_model
from hosnn.data import Dataset
from hosnn.errors import ConfigError
from hosnn.nn.conversion import ann_to_snn
from hosnn.nn.layers import SpikingNetwork
from hosnn.training.models import save
from hosnn.training.pipeline import images

CALIBRATION_IMAGES = 1000
"""Training images whose activations give the thresholds."""


def convert(
    model: ModelArgument,
    *,
    steps: int,
    out: Path,
    percentile: float = 99.9,
    data: DataArgument = None,
    data_folder: Folder = None,
) -> int:
    """Make a spiking network of a trained ANN twin, without training: neurons integrate and fire.

    The more time steps, the closer it comes to the ANN.  The result is a checkpoint like any other: evaluate, calibrate
    or inspect it.

    For example:

    hosnn train cifar10_robust:twin

    hosnn convert runs/cifar10-robust-twin --steps 16 --out runs/cifar10-converted-16

    hosnn evaluate runs/cifar10-converted-16 --protocol standard

    Args:
        model: a run folder, a checkpoint folder or a Hub id of a network with rectifiers (network.twin=relu).
        steps: time steps of the spiking network.
        out: folder to write; it must not exist.
        percentile: of each layer's activations that becomes the threshold.
        data: data set whose training images tell the activations; the one the network was trained on if not given.
        data_folder: folder of the data set, if it is not in one of the usual places.
    """
    if out.exists():
        raise ConfigError(f"--out got {out}, which exists; choose another folder, so that nothing is overwritten")
    loaded = load_model(model)
    dataset = dataset_for(loaded.network, loaded.config, data, data_folder)
    network = converted(loaded.network, dataset, steps, percentile)
    provenance = dict(loaded.config["provenance"])
    name = str(provenance.get("name", model.name))
    known = {key: provenance[key] for key in provenance if key.startswith("dataset")}
    settings = {"name": f"{name}-converted-{steps}", "converted_from": name, "percentile": percentile}
    save(network, out, known | settings)
    console.print(
        f"written: {escape(str(out))}, {steps} time steps; thresholds from "
        f"{min(CALIBRATION_IMAGES, len(dataset.train)):,} images"
    )
    return 0


def converted(ann: SpikingNetwork, data: Dataset, steps: int, percentile: float = 99.9) -> SpikingNetwork:
    """The spiking form of an ANN twin (`ann_to_snn`), with thresholds from training images of the data set."""
    calibration = data.train.subset(min(CALIBRATION_IMAGES, len(data.train)))
    return ann_to_snn(ann, images(calibration), steps, percentile)
