"""What a signature has to be: from how many images, and what one of other or of damaged images does.

    python bench/signature_study.py MODEL --another-network MODEL --other-data cifar10 --data-folder FOLDER

MODEL is a LIF network.  For each signature it is made homeostatic, measured, trained for an epoch on FGSM as HoSNN's
recipe does, and measured again: accuracy on validation images, clean, under the authors' PGD-7, and in the worst case
of `quick`; and how far the signature is from the validation images, as `hosnn inspect` sees it.  A stopped script
resumes after the last finished signature.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from lightning_fabric import Fabric
from torch import Tensor, nn

import hosnn
from hosnn.data import Dataset, Split, load_dataset
from hosnn.estimators import OnFrames, OnTraces, TraceCrossEntropy
from hosnn.files import write_json
from hosnn.inspection.inspect import inspect
from hosnn.protocols.builtin import quick
from hosnn.protocols.paper import paper
from hosnn.provenance import machine, versions
from hosnn.recipes import fashion_mnist
from hosnn.recipes.variants import made_homeostatic
from hosnn.rng import SampleRandom
from hosnn.robustness.pgd import fgsm
from hosnn.robustness.threats import DEFAULT_THREAT
from hosnn.signature import Signature, calibrate, fingerprint
from hosnn.signature.signature import network_identity
from hosnn.training.experiment import Experiment
from hosnn.training.loop import fit
from hosnn.training.models import load as load_network

COUNTS = (10, 30, 100, 300, 1000, 5000)
MANY = 5000
"""Images of the signatures that differ in other things than their number."""

POISONED = 0.05
"""Share of the images that are replaced by noise of the largest contrast."""

ADAPTATION = 0.1
BATCH = 100

Images = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Options:
    """Study the signatures of one network."""

    model: Annotated[Path, tyro.conf.Positional]
    another_network: Path  # of the same layers, trained otherwise
    other_data: str = "cifar10"
    data_folder: Path | None = None  # of other_data
    images: int = 20_000  # of the epoch
    measured: int = 1_000  # validation images
    attacked: int = 500  # of these, under `quick`
    out: Path = Path("docs/results/signature")
    work: Path = Path("runs/signature-study")
    threads: int = 1


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    network, other = load_network(options.model), load_network(options.another_network)
    data = load_dataset("fashion-mnist")
    path = options.out / "study.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": []}
    document |= {
        "model": options.model.name,
        "model_sha256": fingerprint(network),
        "dataset": data.name,
        "dataset_sha256": data.sha256,
        "measured": options.measured,
        "attacked": options.attacked,
        "trained_on": options.images,
        "adaptation": ADAPTATION,
        "versions": versions(),
        "machine": machine(),
    }
    recipe = made_homeostatic(fashion_mnist.lif_fgsm(), ADAPTATION)
    done = {row["signature"] for row in document["rows"]}
    whole = calibrate(network, batches(data.train))
    for name, signature, seed in signatures(network, other, whole, data, options):
        if name in done:
            continue
        started = time.process_time()
        adapted = hosnn.homeostatic(network, signature, ADAPTATION)
        row = {"signature": name, "images": signature.samples, "seed": seed} | distances(signature, whole)
        row["drift_over_chance"] = drift(adapted, data.validation.subset(options.measured))
        row["before"] = measured(adapted, data, options)
        row["after"] = measured(trained(adapted, recipe, data, options, name, seed), data, options)
        row["cpu_seconds"] = round(time.process_time() - started)
        document["rows"].append(row)
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(path, document)
        print(name, row, flush=True)


def signatures(
    network: nn.Module, other: nn.Module, whole: Signature, data: Dataset, options: Options
) -> Iterator[tuple[str, Signature, int]]:
    """Name, signature, and the seed of the epoch trained with it."""
    threat, many = DEFAULT_THREAT, data.train.subset(MANY)
    yield "all training images", whole, 0
    for count in COUNTS:
        yield f"{count:,} images", calibrate(network, batches(data.train.subset(count))), 0
    yield "all training images, second seed", whole, 1
    yield "all training images, third seed", whole, 2
    yield "of one class", calibrate(network, batches(data.train, one_class)), 0
    yield "images with noise of 0.1", calibrate(network, batches(many, noisy)), 0
    attack = OnFrames(OnTraces(fgsm(replace(threat, per_step=True), loss=TraceCrossEntropy())))

    def attacked(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        return attack(network, x, y, SampleRandom(0, index))

    # All at once, because nothing can be differentiated while a signature is recorded.
    yield "images under FGSM 8/255", calibrate(network, list(batches(many, attacked))), 0
    yield f"{POISONED:.0%} of the images are black and white noise", calibrate(network, batches(many, poisoned)), 0
    of_other = calibrate(other, batches(many))
    # `homeostatic` refuses a signature of another network; here it is made to look like one of this.
    yield "of another network", replace(of_other, model_sha256=network_identity(network)), 0
    foreign = load_dataset(options.other_data, folder=options.data_folder)

    def grey(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        edge = (x.shape[-1] - 28) // 2
        return x.mean(1, keepdim=True)[..., edge : edge + 28, edge : edge + 28]

    yield f"of {foreign.title}, grey, cropped", calibrate(network, batches(foreign.train.subset(MANY), grey)), 0
    zeros = {name: replace(layer, mean=torch.zeros_like(layer.mean)) for name, layer in whole.layers.items()}
    yield "none: zero for all neurons", replace(whole, layers=zeros), 0


def batches(split: Split, change: Images | None = None) -> Iterator[Tensor]:
    """The images of a split, changed."""
    for rows in split.blocks(BATCH):
        x, y = split.batch(rows)
        yield x if change is None else change(x, y, split.index[rows])


def one_class(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    return x[y == 0]


def noisy(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    return (x + 0.1 * SampleRandom(0, index).fold("noise").normal(x)).clamp(0, 1)


def poisoned(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    streams = SampleRandom(0, index)
    chosen = streams.fold("chosen").uniform(x[:, 0, 0, :1])[:, 0] < POISONED
    noise = (streams.fold("poison").uniform(x) < 0.5).to(x)
    return torch.where(chosen[:, None, None, None], noise, x)


def distances(signature: Signature, whole: Signature) -> dict[str, dict[str, float]]:
    """By layer: mean square distance of mean membranes from those of all images, over the mean variance of images."""
    return {
        "distance": {
            name: float((layer.mean - whole.layers[name].mean).square().mean() / whole.layers[name].variance.mean())
            for name, layer in signature.layers.items()
        }
    }


def drift(adapted: nn.Module, split: Split) -> dict[str, float]:
    """By layer: the drift that `hosnn.inspect` measures on the split, over what chance gives."""
    (seen,) = inspect(adapted, split).drift
    return {name: value / seen.by_chance[name] for name, value in seen.mean_square.items()}


def measured(model: nn.Module, data: Dataset, options: Options) -> dict[str, float]:
    """Accuracies on validation images."""
    authors = paper()
    authors = replace(authors, attacks=authors.attacks[-1:], panels=(), model_check_samples=0)
    published = hosnn.evaluate(model, data.validation, authors, samples=options.measured, threads=0)
    hard = hosnn.evaluate(model, data.validation, quick(), samples=options.attacked, attacks_only=True, threads=0)
    return {
        "clean": published.clean_accuracy,
        "pgd_7": published.accuracy("PGD-7"),
        "worst_case": hard.worst_case,
    }


def trained(
    adapted: nn.Module, recipe: Experiment, data: Dataset, options: Options, name: str, seed: int
) -> hosnn.SpikingNetwork:
    """The network after an epoch on some of the training images."""
    optim = replace(recipe.optim, epochs=1, lr=recipe.optim.lr / 2)
    folder = options.work / "".join(letter if letter.isalnum() else "-" for letter in name)
    experiment = replace(recipe, name=folder.name, seed=seed, images=options.images, optim=optim)
    part = replace(data, train=data.train.subset(options.images))
    fit(adapted, experiment, part, folder, Fabric(accelerator="cpu", devices=1), resume=True)  # type: ignore[arg-type]
    return load_network(folder)


if __name__ == "__main__":
    main(tyro.cli(Options))
