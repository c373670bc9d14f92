"""How far the worst case falls with the attacker's budget, and what ten times the budget of `full` still breaks.

    python bench/budget.py MODEL FULL.json --out FOLDER

FULL.json is the result of `hosnn evaluate MODEL --protocol full --attacks-only --samples 200`.  Two series:

runs     `standard`'s first attack from the beginning, with more and more runs on the nearest images
tenfold  after `full`: more and longer ones of these runs, most through adaptive sharpness, on the 12 nearest images
         that `full` left standing, five copies of each at a time, each from points of its own, until each image had ten
         times the passes that `full` spent on an image that it left standing

A stopped script resumes after the last finished round.
"""

import json
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from matplotlib.figure import Figure

import hosnn
from hosnn.data import load_dataset
from hosnn.estimators import AdaptiveSharpness, Estimator, Through, WithMembraneMargin
from hosnn.files import write_bytes, write_json
from hosnn.protocols.attacks import near_starts
from hosnn.provenance import machine, versions
from hosnn.report.plotting import OTHERS, WIDTH, svg
from hosnn.results.evaluation import Evaluation
from hosnn.rng import SampleRandom
from hosnn.robustness.focused import FocusedSAPGD, FromBest, smooth_signs
from hosnn.robustness.losses import lost
from hosnn.robustness.model import Model, count_passes
from hosnn.robustness.threats import Threat
from hosnn.signature import fingerprint
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import PiecewiseLinear, Sigmoid

RUNS = (0, 1, 3, 6, 12, 24)
"""Runs on the nearest images in the first series; `standard` makes 6."""

NEAR_STEPS, LONGER, NEAREST = 300, 2000, 12
"""Steps of a run in the first and in the second series, and the images of the second."""

FIRST = 60
"""Steps of the run before these."""

ADAPTIVE = AdaptiveSharpness()
OTHERWISE: tuple[Estimator, ...] = (bptt(Sigmoid(0.1)), bptt(PiecewiseLinear(0.5)))
ESTIMATORS = tuple(estimator for other in OTHERWISE for estimator in (ADAPTIVE, ADAPTIVE, other))
COPIES, STARTS = 5, (smooth_signs, FromBest())
"""Copies of an image in a round of the second series, and the starts of the runs of each copy."""

TIMES = 10


@dataclass(frozen=True)
class Options:
    """Measure one network."""

    model: Annotated[Path, tyro.conf.Positional]
    full: Annotated[Path, tyro.conf.Positional]  # the result of `full`
    out: Path = Path("docs/results/fashion-mnist/budget")
    seed: int = 1  # of the second series; `full` has 0
    threads: int = 1


@dataclass(frozen=True)
class Recorded(FocusedSAPGD):
    """The attack, which notes after each run how many images withstand it, and the passes and seconds so far."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)  # at the best points, in the end

    def __call__(self, model: Model, x: torch.Tensor, y: torch.Tensor, rng: SampleRandom) -> torch.Tensor:
        started = time.monotonic()
        with count_passes() as passes:
            for number, best in enumerate(self.runs(model, x, y, rng)):
                left, total = int((~best.fooled & ~best.tied).sum()), passes.forward + passes.backward
                self.seen.append({"runs": number, "left": left, "passes": total, "seconds": time.monotonic() - started})
                print(f"{number} runs: {left} left, {total:,} passes", flush=True)
        self.losses.append(best.loss)
        return best.x_adv


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    model, result = hosnn.load(options.model), Evaluation.load(options.full)
    if result.model_sha256 != fingerprint(model):
        raise SystemExit(f"{options.full} is of another model than {options.model}; evaluate this one first")
    data = load_dataset(result.model and "fashion-mnist")
    split = data.test.subset(result.samples)
    threat = Threat.parse(result.threat)
    path = options.out / f"{options.model.name}.json"
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    document = stored or {
        "model": options.model.name,
        "model_sha256": result.model_sha256,
        "dataset": result.dataset,
        "dataset_sha256": result.dataset_sha256,
        "threat": result.threat,
        "samples": result.samples,
        "seed": options.seed,
        "versions": versions(),
        "machine": machine(),
        "runs": [],
        "full": None,
        "tenfold": [],
    }

    def save() -> None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(path, document)

    x, y = split.batch(torch.arange(len(split)))
    rng = SampleRandom(0, split.index)

    def withstood(x_adv: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scores = model(x_adv)
        return ~lost(scores, labels)

    standing = withstood(x, y).nonzero()[:, 0]
    if not document["runs"]:
        recorded = Recorded(threat, FIRST, NEAR_STEPS, 0.25, near_starts(RUNS[-1]))
        Through(ADAPTIVE, WithMembraneMargin(recorded))(model, x[standing], y[standing], rng.subset(standing))
        document["runs"] = [entry for entry in recorded.seen if entry["runs"] in RUNS]
        save()

    robust = torch.tensor(robust_rows(result))
    spent = sum(row.forward + row.backward for row in result.rows)
    each = passes_per_standing_image(result)
    document["full"] = {"left": len(robust), "passes": spent, "passes_per_standing_image": each}
    rounds = document["tenfold"]
    done = sum(entry["passes_per_image"] for entry in rounds)
    if rounds:
        robust, near = (torch.tensor(rounds[-1][name]) for name in ("standing", "near"))
    else:
        ranking = Recorded(threat, FIRST, starts=())
        Through(ADAPTIVE, WithMembraneMargin(ranking))(model, x[robust], y[robust], rng.subset(robust))
        near = robust[ranking.losses[0].argsort(descending=True)[:NEAREST]].sort().values
    estimators = cycle(ESTIMATORS)
    for _ in rounds:
        next(estimators)
    longer = FocusedSAPGD(threat, FIRST, LONGER, 1.0, STARTS, past_ties=False)
    per_image = COPIES * (FIRST + len(STARTS) * LONGER) * 2
    while done < TIMES * each and len(near):
        estimator, started = next(estimators), time.monotonic()
        rows = near.repeat(COPIES)
        copies = torch.arange(COPIES).repeat_interleave(len(near))
        streams = SampleRandom(options.seed, split.index[rows] + len(data.test) * copies).fold("round", len(rounds))
        with count_passes() as passes:
            x_adv = Through(estimator, WithMembraneMargin(longer))(model, x[rows], y[rows], streams)
        broken = set(rows[~withstood(x_adv, y[rows])].tolist())
        robust, near = (torch.tensor([row for row in of.tolist() if row not in broken]) for of in (robust, near))
        done += per_image
        rounds.append(
            {
                "estimator": str(estimator),
                "left": len(robust),
                "standing": robust.tolist(),
                "near": near.tolist(),
                "passes": passes.forward + passes.backward,
                "passes_per_image": per_image,
                "seconds": time.monotonic() - started,
            }
        )
        save()
        print(f"round {len(rounds)}: {len(robust)} left, {done:,} of {TIMES * each:,} passes a near image", flush=True)
    save()
    draw(options.out)


def draw(folder: Path) -> None:
    """Images left against passes, of all networks in `folder`, as budget.svg."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for path, colour in zip(sorted(folder.glob("*.json")), OTHERS, strict=False):
        row = json.loads(path.read_text())
        spent = [entry["passes"] for entry in row["runs"]]
        axes.plot(spent, [entry["left"] for entry in row["runs"]], "o-", color=colour, label=f"{row['model']}: runs")
        later = [row["full"]["passes"]]
        for entry in row["tenfold"]:
            later.append(later[-1] + entry["passes"])
        left = [row["full"]["left"], *(entry["left"] for entry in row["tenfold"])]
        axes.plot(later, left, "s--", color=colour, markersize=4, label=f"{row['model']}: full, then more")
    axes.set(xscale="log", xlabel="passes", ylabel=f"images left of {row['samples']}", ylim=(0, None))
    axes.legend(frameon=False)
    write_bytes(folder / "budget.svg", svg(figure))


def robust_rows(result: Evaluation) -> list[int]:
    """Rows of the images that no attack broke, ties lost."""
    return [row for row, robust in enumerate(result.robust) if robust]


def passes_per_standing_image(result: Evaluation) -> int:
    """Passes that `full` spent on each image that it left standing, on average."""
    standing = len(robust_rows(result))
    return round(sum(row.forward + row.backward for row in result.rows) / max(standing, 1))


if __name__ == "__main__":
    main(tyro.cli(Options))
