"""What training on all of CIFAR-10's images needs: on a CPU less than 2 GB, data and every phase included."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "cifar10"
SCRIPT = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from hosnn.data import load_dataset
from hosnn.recipes import cifar10_small
from hosnn.runtime import Hardware
from hosnn.training.pipeline import run

data = load_dataset("cifar10", sys.argv[1])
short = replace(data, train=data.train.take(640))
experiment = cifar10_small.homeostatic_fgsm()
brief = replace(experiment.optim, epochs=1)
experiment = replace(experiment, optim=brief, start=replace(experiment.start, optim=brief))
fabric = Hardware("cpu", precision="bf16-mixed", threads=2).fabric()
assert run(experiment, short, Path(sys.argv[2]), fabric).finished and len(data.train) == 45_000
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="CIFAR-10's images are not beside the checkout")
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_training_on_cifar10_stays_below_2_gb(tmp_path: Path) -> None:
    """The longest cell of the 2x2: clean start, signature, FGSM, validation; few images trained on, all in memory."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, SHARED, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert int(done.stdout.split()[-1]) < 2e9
