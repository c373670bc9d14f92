"""Put a trained network into the package, with a card that says how robust it is, and by what.

    python bench/add_to_zoo.py MODEL NAME RESULT.json --hours 0.4

MODEL is a run or checkpoint folder, RESULT.json what `hosnn evaluate MODEL --protocol standard` wrote, for the same
weights.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import hosnn
from hosnn import zoo
from hosnn.results.evaluation import Evaluation
from hosnn.results.text import describe_machine, percent
from hosnn.signature import fingerprint
from hosnn.training import checkpoint
from hosnn.training.models import folder_of

ROOT = Path(__file__).parents[1]
LIMIT = 5_000_000
"""Bytes of weights that the package may carry for a network."""


@dataclass(frozen=True)
class Options:
    """Add one network."""

    model: Annotated[Path, tyro.conf.Positional]
    name: Annotated[str, tyro.conf.Positional]
    result: Annotated[Path, tyro.conf.Positional]
    hours: float  # of training, its start included, on one core


def card(result: Evaluation, source: str, hours: float, threads: str) -> str:
    """The network's card."""
    low, high = (percent(end) for end in result.worst_interval or (0.0, 0.0))
    return "\n".join(
        [
            f"# {result.model}",
            "",
            f"Worst case per image under {result.threat}: {percent(result.worst_case or 0.0)} % "
            f"(95 % interval {low} to {high}); clean {percent(result.clean_accuracy)} %.",
            "",
            f"- protocol: {result.protocol}, {result.samples:,} images, ties lost, seed {result.seed}; checks: "
            f"{result.verdict}",
            f"- result: {source}, made with hosnn {result.versions['hosnn']}, torch {result.versions['torch']}",
            f"- weights and settings, SHA-256: {result.model_sha256}",
            f"- data: {result.dataset}, SHA-256 {result.dataset_sha256}",
            f"- training: {hours:.1f} hours on one core of {threads}; `config.json` has every setting",
            "",
            "Load it with `hosnn.load(name)`: a function from pixels [B, C, H, W] in [0, 1] to logits [B, K].",
            "A longer attack would break further images; measure again with `hosnn evaluate`.",
            "",
        ]
    )


def main(options: Options) -> None:
    result, source = Evaluation.load(options.result), checkpoint.resolve(folder_of(options.model))
    if result.model_sha256 != fingerprint(hosnn.load(source)):
        sys.exit(f"{options.result} is the result of other weights than {source} has")
    weights = source / "model.safetensors"
    if weights.stat().st_size > LIMIT:
        sys.exit(f"{weights} has {weights.stat().st_size:,} bytes; at most {LIMIT:,} may go into the package")
    place = zoo.FOLDER / options.name
    place.mkdir(exist_ok=True)
    for path in (weights, source / "config.json"):
        shutil.copy(path, place)
    versions = json.loads((source / "config.json").read_text(encoding="utf-8"))["versions"]
    told = f"{describe_machine(result.machine).partition(',')[0]} with torch {versions['torch']}"
    relative = options.result.resolve().relative_to(ROOT)
    (place / "card.md").write_text(card(result, str(relative), options.hours, told), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
