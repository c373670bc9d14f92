"""Our attacks compared with those of torchattacks, Foolbox and pyautoattack: same networks, images, threat and budget.

    python bench/peers.py --out docs/results/attacks/peers.json          (see bench/README.md for what to install)

Two plain convolutional networks are trained on Fashion-MNIST, one on clean and one on adversarial images.  Every pair
of attacks starts from the same test images, those that the network gets right; accuracy is of all images.  A pair is
weak if ours leaves more than `MARGIN` points more accuracy than the peer's.  Exit status: 1 if a pair is weak, else 0.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from hosnn.data import Dataset, load_dataset
from hosnn.errors import DataError
from hosnn.evaluation.evaluate import evaluate
from hosnn.files import write_json, write_text
from hosnn.protocols.builtin import full
from hosnn.protocols.protocol import Protocol
from hosnn.provenance import machine, versions
from hosnn.results.statistics import wilson
from hosnn.rng import SampleRandom
from hosnn.robustness.apgd import APGD, APGDTargeted
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Worst
from hosnn.robustness.fab import FAB
from hosnn.robustness.model import Attack
from hosnn.robustness.pgd import PGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat

MARGIN = 0.3
"""Points of robust accuracy by which attacks may differ by chance, as they start at random."""

TRAIN_EPS = 0.1
SETTINGS = (("clean", False, "linf:8/255"), ("adversarial", True, "linf:1/10"))
"""Network, whether it is trained adversarially, threat."""

BATCH = 250
PUBLISHED_QUERIES = 5000
"""Queries of Square in AutoAttack's standard suite."""

SUITE = ("apgd-ce", "apgd-t", "fab-t", "square")
PEERS = ("torchattacks", "foolbox", "pyautoattack")

Craft = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x, y, index) -> x_adv"""


@dataclass(frozen=True)
class Options:
    """Compare our attacks with the peers'."""

    out: Path = Path("docs/results/attacks/peers.json")  # JSON; the table goes beside it as .md
    samples: int = 1000  # test images, chosen evenly over the classes
    full: bool = False  # 5,000 queries for Square in place of 1,000
    data: str = "fashion-mnist"  # the embedded sample if it is not found
    epochs: int = 6
    seed: int = 0
    networks: Path | None = None  # keep the trained networks in this folder, and use those that are there
    only: tuple[str, ...] = ()  # attacks to compare, by name (of others `out` keeps its results); all if empty


@dataclass(frozen=True)
class Pair:
    """One of our attacks, or a whole protocol, and the same attack of a peer."""

    attack: str
    peer: str
    ours: Craft | Protocol
    theirs: Craft


class Counting(nn.Module):
    """Counts the images passed through the network, and those with a gradient, for our attacks and for peers'."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.forward_passes = self.backward_passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forward_passes += len(x)
        self.backward_passes += len(x) * (x.requires_grad and torch.is_grad_enabled())
        scores: Tensor = self.network(x)
        return scores


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 16, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def train(data: Dataset, options: Options, adversarial: bool) -> nn.Sequential:
    """Adam on batches of 128; adversarial training by five steps of PGD at TRAIN_EPS against the current network."""
    torch.manual_seed(options.seed)
    model = network()
    stored = options.networks and options.networks / f"{'adversarial' if adversarial else 'clean'}.safetensors"
    if stored and stored.exists():
        model.load_state_dict(load_file(stored))
        return model.eval()
    attack = PGD(Threat(Linf(TRAIN_EPS)), steps=5, step_size=0.3, keep_best=False)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    batches = len(data.train) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=options.epochs * batches)
    for epoch in range(options.epochs):
        for rows in torch.randperm(len(data.train))[: batches * 128].view(-1, 128):
            x, y = data.train.batch(rows)
            if adversarial:
                x = attack(model, x, y, SampleRandom(options.seed, data.train.index[rows]).fold("epoch", epoch))
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), stored)
    return model.eval()


def pairs(model: nn.Module, threat: Threat, options: Options) -> list[Pair]:
    """Every pair, at the settings of AutoAttack; PGD with 20 steps of a tenth of eps from a random start."""
    import foolbox
    import pyautoattack
    import torchattacks

    eps, queries, seed = threat.ball.eps, PUBLISHED_QUERIES if options.full else 1000, options.seed
    logging.getLogger("auto-attack").setLevel(logging.ERROR)

    def ours(attack: Attack) -> Craft:
        return lambda x, y, index: attack(model, x, y, SampleRandom(seed, index))

    def torchattack(name: str, **settings: Any) -> Craft:
        return lambda x, y, _: getattr(torchattacks, name)(model, eps=eps, **settings)(x, y)

    def fool(x: Tensor, y: Tensor, _: Tensor) -> Tensor:
        attack = foolbox.attacks.LinfPGD(rel_stepsize=0.1, steps=20, random_start=True)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        x_adv: Tensor = attack(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=eps)[1]
        return x_adv

    def autoattack(*names: str, queries: int = queries) -> Craft:
        def craft(x: Tensor, y: Tensor, _: Tensor) -> Tensor:
            suite = pyautoattack.AutoAttack(model, norm="Linf", eps=eps, seed=seed, version="standard")
            suite.square.n_queries = queries
            suite.square.rescale_schedule = (
                True  # to this number of queries, as the others do; it is far weaker otherwise
            )
            suite.attacks_to_run = list(names)
            x_adv: Tensor = suite.run_standard_evaluation(x, y, batch_size=BATCH)[0]
            return x_adv

        return craft

    pgd, apgd, apgd_t = PGD(threat, steps=20, step_size=0.1), APGD(threat), APGDTargeted(threat)
    fab, square = FAB(threat), Square(threat, queries)
    suite = Worst((apgd, apgd_t, fab, square))
    all_pairs = [
        Pair("PGD-20", "torchattacks", ours(pgd), torchattack("PGD", alpha=eps / 10, steps=20)),
        Pair("PGD-20", "foolbox", ours(pgd), fool),
        Pair("APGD-CE 100", "torchattacks", ours(apgd), torchattack("APGD", steps=100, seed=seed)),
        Pair("APGD-CE 100", "pyautoattack", ours(apgd), autoattack("apgd-ce")),
        Pair("APGD-T 9x100", "torchattacks", ours(apgd_t), torchattack("APGDT", steps=100, seed=seed)),
        Pair("APGD-T 9x100", "pyautoattack", ours(apgd_t), autoattack("apgd-t")),
        Pair("FAB-T 9x100", "torchattacks", ours(fab), torchattack("FAB", steps=100, multi_targeted=True, seed=seed)),
        Pair("FAB-T 9x100", "pyautoattack", ours(fab), autoattack("fab-t")),
        Pair(f"Square {queries}", "torchattacks", ours(square), torchattack("Square", n_queries=queries, seed=seed)),
        Pair(f"Square {queries}", "pyautoattack", ours(square), autoattack("square")),
        Pair("standard suite", "pyautoattack", ours(suite), autoattack(*SUITE)),
        Pair("protocol full", "pyautoattack", attacks_of(full(threat)), autoattack(*SUITE, queries=PUBLISHED_QUERIES)),
    ]
    return [pair for pair in all_pairs if not options.only or pair.attack in options.only]


def attacks_of(protocol: Protocol) -> Protocol:
    """The attacks of the protocol's worst case alone, without curves, matrix and checks."""
    return replace(protocol.resized(panel_samples=0), probes=0, binarization_samples=0)


@dataclass(frozen=True)
class Measured:
    """The outcome of one attack: which images are still classified correctly, and what it cost."""

    right: Tensor  # [N] bool
    outside: int  # adversarial images outside the threat; they count as correct
    forward: int
    backward: int
    seconds: float


def measure(craft: Craft, model: Counting, threat: Threat, x: Tensor, y: Tensor, index: Tensor, seed: int) -> Measured:
    """Attack the images that the network classifies correctly, in batches; judge both sides in the same way."""
    right = predict(model, x) == y
    forward = backward = outside = 0
    seconds = 0.0
    torch.manual_seed(seed)
    for rows in right.nonzero()[:, 0].split(BATCH):
        model.forward_passes = model.backward_passes = 0
        start = time.perf_counter()
        x_adv = craft(x[rows], y[rows], index[rows]).detach()
        seconds += time.perf_counter() - start
        forward, backward = forward + model.forward_passes, backward + model.backward_passes
        allowed = threat.allows(x_adv, x[rows])
        outside += int((~allowed).sum())
        right[rows] = (predict(model, x_adv) == y[rows]) | ~allowed
    return Measured(right, outside, forward, backward, seconds)


def evaluated(protocol: Protocol, model: Counting, x: Tensor, y: Tensor, seed: int) -> Measured:
    """The outcome of `hosnn.evaluate`, which raises an error itself if an image is outside the threat."""
    model.forward_passes = model.backward_passes = 0
    start = time.perf_counter()
    evaluation = evaluate(model, (x, y), protocol, seed=seed, threads=0)
    seconds = time.perf_counter() - start
    return Measured(torch.tensor(evaluation.robust), 0, model.forward_passes, model.backward_passes, seconds)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(BATCH)])


def side(measured: Measured) -> dict[str, Any]:
    total = len(measured.right)
    return {
        "robust_accuracy": float(measured.right.double().mean()),
        "interval_95": list(wilson(int(measured.right.sum()), total)),
        "forward_per_sample": measured.forward / total,
        "backward_per_sample": measured.backward / total,
        "outside_threat": measured.outside,
    }


def compare(model: Counting, name: str, threat: Threat, data: Dataset, options: Options) -> Iterator[dict[str, Any]]:
    """The results of each pair, as its entry in the JSON file."""
    chosen = data.test.subset(min(options.samples, len(data.test)))
    x, y = chosen.batch(torch.arange(len(chosen)))
    measured: dict[str, Measured] = {}
    for pair in pairs(model, threat, options):
        if pair.attack not in measured:
            measured[pair.attack] = (
                evaluated(pair.ours, model, x, y, options.seed)
                if isinstance(pair.ours, Protocol)
                else measure(pair.ours, model, threat, x, y, chosen.index, options.seed)
            )
        ours = measured[pair.attack]
        theirs = measure(pair.theirs, model, threat, x, y, chosen.index, options.seed)
        difference = 100 * float(ours.right.double().mean() - theirs.right.double().mean())
        yield (
            {"network": name, "threat": str(threat), "attack": pair.attack, "peer": pair.peer}
            | {"ours": side(ours), "theirs": side(theirs), "difference_points": difference}
            | {"ours_not_weaker": difference <= MARGIN + 1e-9, "seconds_ratio": ours.seconds / theirs.seconds}
        )


HEADER = ("network", "threat", "attack", "peer", "ours %", "peer's %", "ours - peer's", "passes", "seconds", "verdict")


def cells(spec: dict[str, Any]) -> list[str]:
    """A row of the table; passes and seconds as ours over the peer's."""
    ours, theirs = spec["ours"], spec["theirs"]
    passes = [each["forward_per_sample"] + each["backward_per_sample"] for each in (ours, theirs)]
    return [
        *(spec[key] for key in ("network", "threat", "attack", "peer")),
        *(f"{100 * each['robust_accuracy']:.1f}" for each in (ours, theirs)),
        f"{spec['difference_points']:+.1f}",
        f"{passes[0] / max(passes[1], 1e-9):.2f}",
        f"{spec['seconds_ratio']:.2f}",
        "ok" if spec["ours_not_weaker"] else "WEAKER",
    ]


def markdown(content: dict[str, Any]) -> str:
    rows = [HEADER, ["---"] * len(HEADER), *(cells(spec) for spec in content["pairs"])]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"Robust accuracy after our attack and after the peer's, {content['samples']} test images of "
        f"{content['dataset']}; passes and seconds are ours over the peer's.\n\n{table}\n"
    )


def earlier_results(content: dict[str, Any], options: Options) -> list[dict[str, Any]]:
    """The results of an earlier run with the same settings for attacks that are not measured now."""
    if not options.only or not options.out.exists():
        return []
    before = json.loads(options.out.read_text(encoding="utf-8"))
    same = {key: value for key, value in content.items() if key not in ("networks", "pairs")}
    other = [key for key, value in same.items() if before.get(key) != value]
    if other:
        raise SystemExit(f"{options.out} differs in {', '.join(other)}; run all pairs again, or choose another --out")
    return [spec for spec in before["pairs"] if spec["attack"] not in options.only]


def main(options: Options) -> int:
    try:
        data = load_dataset(options.data)
    except DataError:
        data = load_dataset("fashion-mnist-sample")
    samples = min(options.samples, len(data.test))
    networks: list[dict[str, Any]] = []
    attacks: list[dict[str, Any]] = []
    content = {
        "format": "hosnn-peers-1",
        "dataset": data.name,
        "samples": samples,
        "seed": options.seed,
        "epochs": options.epochs,
        "margin_points": MARGIN,
        "networks": networks,
        "pairs": attacks,
        "versions": versions() | {name: version(name) for name in PEERS},
        "machine": machine(),
    }
    earlier = earlier_results(content, options)
    for name, adversarial, threat in SETTINGS:
        attacks += [spec for spec in earlier if spec["network"] == name]
        start = time.perf_counter()
        model = Counting(train(data, options, adversarial)).eval()
        print(f"{name}: trained in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        x, y = data.test.subset(samples).batch(torch.arange(samples))
        accuracy = float((predict(model, x) == y).double().mean())
        networks.append({"name": name, "train_eps": TRAIN_EPS if adversarial else 0.0, "clean_accuracy": accuracy})
        for spec in compare(model, name, Threat.parse(threat), data, options):
            attacks.append(spec)
            print(" | ".join(cells(spec)), file=sys.stderr, flush=True)
            write_json(options.out, content)  # it takes hours: keep what is measured so far
            write_text(options.out.with_suffix(".md"), markdown(content))
    table = Table(*HEADER)
    for spec in attacks:
        table.add_row(*cells(spec))
    Console().print(table)
    return int(not all(spec["ours_not_weaker"] for spec in attacks))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
