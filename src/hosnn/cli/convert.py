"""`hosnn convert`."""

from pathlib import Path

from rich.markup import escape

from hosnn.cli.options import DataArgument, Folder, ModelArgument, console, dataset_for, load_model
from hosnn.errors import ConfigError
from hosnn.nn.conversion import ann_to_snn
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
    calibration = dataset.train.subset(min(CALIBRATION_IMAGES, len(dataset.train)))
    converted = ann_to_snn(loaded.network, images(calibration), steps, percentile)
    provenance = dict(loaded.config["provenance"])
    name = str(provenance.get("name", model.name))
    known = {key: provenance[key] for key in provenance if key.startswith("dataset")}
    settings = {"name": f"{name}-converted-{steps}", "converted_from": name, "percentile": percentile}
    save(converted, out, known | settings)
    console.print(f"written: {escape(str(out))}, {steps} time steps; thresholds from {len(calibration):,} images")
    return 0
