"""`hosnn calibrate`."""

from typing import Annotated

import tyro
from rich.table import Table

from hosnn.cli.json_output import print_json
from hosnn.cli.options import (
    DataArgument,
    Folder,
    ModelArgument,
    check_measuring,
    console,
    dataset_for,
    load_model,
    writable_folder,
)
from hosnn.errors import SignatureError
from hosnn.nn.neurons import TALIF, neurons
from hosnn.runtime import Hardware
from hosnn.signature import Signature
from hosnn.signature import calibrate as record
from hosnn.training.pipeline import images


def calibrate(
    model: ModelArgument,
    *,
    data: DataArgument = None,
    data_folder: Folder = None,
    out: Folder = None,
    hardware: Hardware = Hardware(),  # noqa: B008
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Record the neural dynamic signature of a trained LIF network on clean training images, and show it.

    For example:

    hosnn calibrate runs/fashion-mnist-start

    hosnn calibrate runs/fashion-mnist-start --out signature.safetensors

    Args:
        model: a run folder or checkpoint folder.
        data: data set to record on; the one the network was trained on if not given.
        data_folder: folder of the data set, if it is not in one of the usual places.
        out: write the signature to this safetensors file.
        hardware: what to run on.
        json_output: print the statistics as JSON.
    """
    loaded = load_model(model)
    if any(isinstance(layer, TALIF) for layer in neurons(loaded.network).values()):
        raise SignatureError(
            f"{model} is homeostatic already; record the signature of the LIF network that it was made from"
        )
    if out is not None:
        writable_folder(out.parent)
        if out.is_dir():
            raise SignatureError(f"--out got the folder {out}; expected a file, e.g. {out / 'signature.safetensors'}")
        if out.exists() and not Signature.is_in(out):
            raise SignatureError(f"--out got {out}, which holds something else than a signature; choose another name")
    check_measuring(hardware)
    dataset = dataset_for(loaded.network, loaded.config, data, data_folder)
    fabric = hardware.fabric()
    batches = (x.to(fabric.device) for x in images(dataset.train))
    signature = record(
        loaded.network.to(fabric.device), batches, dataset=f"{dataset.title} (train)", dataset_sha256=dataset.sha256
    )
    if out is not None:
        signature.save(out)
    if json_output:
        print_json({**signature.provenance(), "figures": _statistics(signature)})
        return 0
    console.print(_table(signature))
    console.print(f"{signature.samples:,} images of {signature.dataset}, {signature.steps} time steps", markup=False)
    if out is not None:
        console.print(f"written to {out}", markup=False)
    return 0


def _statistics(signature: Signature) -> list[dict[str, object]]:
    """Of each layer at each time step, over its neurons; the spread is over images."""
    return [
        {
            "layer": name,
            "step": t + 1,
            "neurons": layer.mean[t].numel(),
            "mean": float(layer.mean[t].mean()),
            "lowest": float(layer.mean[t].min()),
            "highest": float(layer.mean[t].max()),
            "spread_over_images": float(layer.variance[t].mean().sqrt()),
        }
        for name, layer in signature.layers.items()
        for t in range(signature.steps)
    ]


def _table(signature: Signature) -> Table:
    table = Table(title="membrane before reset, in units of the resting threshold")
    for heading in ("layer", "neurons", "step", "mean", "lowest neuron", "highest neuron", "spread over images"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in _statistics(signature):
        numbers = (f"{row[key]:.3f}" for key in ("mean", "lowest", "highest", "spread_over_images"))
        table.add_row(str(row["layer"]), str(row["neurons"]), str(row["step"]), *numbers)
    return table
