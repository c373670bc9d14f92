"""Do two checkouts give the same results?  Both train, run the demo and evaluate the shipped networks; all is compared.

    python bench/compare_checkouts.py OLD NEW --samples 200

Compared to the bit: weights and logs of a short training, predictions and checks of the demo, and of the protocols
`smoke` and `standard` on the networks in NEW/models/fashion-mnist.  Wall times, versions and passes are not compared.
Exit status 0: all equal, 1: something differs.  Each checkout needs its kernel built; this Python runs both.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

ATTACK = ("attack", "threat", "eps", "predictions", "kind", "method", "estimator", "steps")
"""What one attack's entry in a result has in common with another run's."""


def main() -> int:
    arguments = parsed()
    out = arguments.out.resolve()
    folders = {"old": out / "old", "new": out / "new"}
    checkouts = {"old": arguments.old.resolve(), "new": arguments.new.resolve()}
    models = sorted((checkouts["new"] / "models" / "fashion-mnist").iterdir())
    differences: list[str] = []
    for title, command, compared in jobs(models, arguments.samples):
        for which, checkout in checkouts.items():
            run(checkout, [part.format(out=folders[which]) for part in command], title)
        found = [*compared(folders["old"], folders["new"])]
        print(f"{title}: {'the same' if not found else '; '.join(found)}", flush=True)
        differences += found
    print(f"{len(differences)} differences" if differences else "no difference")
    return 1 if differences else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--samples", type=int, default=200, help="images of `standard`")
    parser.add_argument("--out", type=Path, default=Path("runs/compare-checkouts"))
    return parser.parse_args()


def jobs(models: list[Path], samples: int) -> Iterator[tuple[str, list[str], Any]]:
    """Title, command with {out} for the folder, and the comparison of two such folders."""
    epochs = ["--set", "optim.epochs=1", "--set", "optim.accumulate=1"]
    yield (
        "training, 94 seeded steps of FGSM on TA-LIF",
        ["train", "demo:homeostatic_fgsm", *epochs, "--threads", "1", "--runs", "{out}/train"],
        lambda old, new: differing_runs(old / "train", new / "train"),
    )
    yield (
        "demo",
        ["reproduce", "demo", "--threads", "1", "--runs", "{out}/demo", "--out", "{out}/demo"],
        lambda old, new: [
            *differing_runs(old / "demo", new / "demo"),
            *differing_json(old / "demo" / "comparison.json", new / "demo" / "comparison.json"),
        ],
    )
    for model in models:
        for protocol, options in (("smoke", []), ("standard", ["--samples", str(samples)])):
            name = protocol if not options else f"{protocol}-n{samples}"
            place = f"{model.name}/{name}.json"
            yield (
                f"{protocol} of {model.name}",
                ["evaluate", str(model), "--protocol", protocol, *options, "--out", f"{{out}}/{model.name}"],
                lambda old, new, place=place: differing_json(old / place, new / place),
            )


def run(checkout: Path, command: list[str], title: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "hosnn", *command], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3, 4):  # 3 and 4: a check of an evaluation warns or fails
        sys.exit(f"{title} in {checkout} ended with status {done.returncode}:\n{done.stdout}\n{done.stderr}")


def differing_runs(old: Path, new: Path) -> Iterator[str]:
    """Weights that differ between two folders of runs."""
    names = sorted(path.relative_to(old) for path in old.rglob("model.safetensors"))
    if not names:
        yield f"no weights in {old}"
    for name in names:
        before, after = load_file(old / name), load_file(new / name)
        if before.keys() != after.keys():
            yield f"{name} holds other tensors"
        elif any(before[key].tobytes() != after[key].tobytes() for key in before):
            yield f"{name} differs"


def differing_json(old: Path, new: Path) -> Iterator[str]:
    before, after = (dict(parts(json.loads(path.read_text(encoding="utf-8")))) for path in (old, new))
    for place in sorted(before.keys() | after.keys()):
        if before.get(place) != after.get(place):
            yield f"{old.parent.name}/{old.name}: {place} differs"


def parts(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Places in a result whose values must not change, with these values."""
    if isinstance(content, list):
        for number, item in enumerate(content):
            yield from parts(item, f"{place}[{number}]")
    elif isinstance(content, dict):
        if "predictions" in content:
            yield from ((f"{place}.{key}", content[key]) for key in ATTACK)
            return
        for key, value in content.items():
            if key in ("index", "labels", "clean", "settings", "model_sha256", "dataset_sha256", "identity"):
                yield f"{place}.{key}", value
            elif key == "checks":
                yield f"{place}.checks", [(check["name"], check["severity"], check["value"]) for check in value]
            elif isinstance(value, (dict, list)) and key not in ("versions", "machine", "summary"):
                yield from parts(value, f"{place}.{key}")


if __name__ == "__main__":
    sys.exit(main())
