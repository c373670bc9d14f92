"""Speed side by side: fair turns, ratios, refusals, memory; and one tiny run of the verb."""

import gc
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hosnn.benchmark.calibration import CALIBRATION, FORWARD, SignatureCase
from hosnn.benchmark.evaluation import EvaluationCase
from hosnn.benchmark.layers import LIMIT, OUR_LIF, OURS, LayerCase
from hosnn.benchmark.networks import PER_STEP, PER_STEP_FLOAT32, NetworkCase, RobustNetworkCase, stepwise
from hosnn.benchmark.peak_memory import peak_memory
from hosnn.benchmark.peers import PEERS, peer_versions
from hosnn.benchmark.report import BenchmarkResult, benchmark_markdown
from hosnn.benchmark.timing import Call, Case, Contestant, agreement, measure, quartiles, race, rotated
from hosnn.cli.bench import bench, cases, run
from hosnn.errors import ConfigError
from hosnn.nn.convnet import ConvNet, small_convnet
from hosnn.nn.lenet import LeNet
from hosnn.recipes import cifar10_robust
from hosnn.spiking.kernels import backend

TINY = LeNet(channels=(2, 3), hidden=8, image=(1, 16, 16))
NOTHING = torch.zeros(3)


def doing(work: Callable[[], object] = lambda: None, result: Tensor = NOTHING) -> Callable[[], Call]:
    def make() -> Call:
        def call() -> Tensor:
            work()
            return result

        return call

    return make


def refusing() -> Call:
    raise ImportError("no such\nlibrary")


@dataclass(frozen=True)
class Fake:
    """Contestants with known costs, in megabytes of tensors that they touch for a moment."""

    title: str = "touching memory"
    device: str = "cpu"
    reference: str = "small"

    def contestants(self) -> dict[str, Contestant]:
        return {
            "small": Contestant(doing(lambda: torch.ones(8 * 2**18))),
            "large": Contestant(doing(lambda: torch.ones(64 * 2**18)), like="small"),
            "odd": Contestant(doing(result=torch.tensor([0.0, 0.0, 1.0])), like="small", memory=False),
            "absent": Contestant(refusing),
        }


def test_every_contestant_has_one_turn_a_round_and_the_first_one_rotates():
    turns: list[str] = []
    runs = {name: lambda name=name: turns.append(name) for name in "abc"}
    times = race(runs, rounds=4, min_turn=0)
    assert {name: len(each) for name, each in times.items()} == dict.fromkeys("abc", 4)
    assert "".join(turns) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert rotated([], 3) == []


def test_threads_are_fixed_and_nothing_is_collected_during_a_turn():
    seen: list[tuple[int, bool]] = []
    before = torch.get_num_threads()
    try:
        race({"two": lambda: seen.append((torch.get_num_threads(), gc.isenabled()))}, 2, {"two": 2}, min_turn=0)
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {(2, False)}
    assert gc.isenabled()


def test_quick_work_is_repeated_until_a_turn_lasts():
    counted: list[None] = []
    race({"nothing": lambda: counted.append(None)}, 1, min_turn=0.001)
    assert len(counted) > 10


def test_rows_hold_ratios_agreement_and_why_someone_did_not_run():
    rows = {row.contestant: row for row in measure(Fake(), 5, memory=False)}
    large, odd, absent = rows["large"], rows["odd"], rows["absent"]
    assert rows["small"].ratio == rows["small"].low == rows["small"].high == 1
    assert large.ratio is not None
    assert large.low is not None
    assert large.high is not None
    assert large.low <= large.ratio <= large.high
    assert large.ratio > 2
    assert large.seconds is None, "absolute times are for GPUs"
    assert large.agreement == 1
    assert odd.agreement == pytest.approx(2 / 3)
    assert (absent.ratio, absent.refused) == (None, "ImportError: no such library")


def test_a_reference_that_fails_is_an_error():
    with pytest.raises(ImportError):
        measure(Fake(reference="absent"), 1, memory=False, min_turn=0)
    with pytest.raises(ConfigError, match="at least 1"):
        measure(Fake(), 0)


def large() -> Call:
    return Fake().contestants()["large"].make()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_what_one_call_needs():
    found = peak_memory(large)
    if found is None:
        pytest.skip("the peak cannot be reset here")
    assert found == pytest.approx(64 * 2**20, rel=0.02)


def test_quartiles_and_agreement():
    assert quartiles([3.0]) == (3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
    assert agreement(torch.zeros(2), torch.zeros(3)) == 0


def test_the_contestants_of_a_layer_compute_the_same():
    rows = {row.contestant: row for row in measure(LayerCase((3, 4, 5), compiled=False), 1, memory=False, min_turn=0)}
    assert all(row.agreement in (None, 1) for row in rows.values())
    assert {OURS, "eager TA-LIF", OUR_LIF, LIMIT} <= set(rows)
    absent = [name for name, (package, _) in PEERS.items() if importlib.util.find_spec(package) is None]
    assert all(rows[name].refused == "not installed" for name in absent if name in rows)


def test_the_limit_runs_layers_before_the_first_neurons_once():
    network = cifar10_robust.start().network
    assert isinstance(network, ConvNet) and network.analogue_layers == 2
    case = RobustNetworkCase("FGSM training step", 2, blueprint=network)
    assert [len(x) for _, x in case._products()] == [2, 2, 2, 2 * network.steps, 2 * network.steps]


def test_the_loop_over_time_steps_is_the_same_network():
    case = NetworkCase("inference", 4, blueprint=TINY)
    network = case.homeostatic_network().eval()
    x = case.images(3)
    with torch.no_grad(), backend.choose("eager"):
        torch.testing.assert_close(stepwise(network)(x), network(x))


@pytest.mark.parametrize(
    ("task", "precision"), [("FGSM training step", "bfloat16"), ("PGD-10", "float32"), ("inference", "float32")]
)
def test_the_contestants_of_a_network_run(task, precision):
    rows = measure(NetworkCase(task, 2, precision, compiled=False, blueprint=TINY), 1, memory=False, min_turn=0)
    found = {row.contestant: row for row in rows}
    assert found[PER_STEP].ratio
    assert found[PER_STEP].agreement == (1 if precision == "float32" else None)
    assert not [row.refused for row in rows if row.contestant not in PEERS and row.refused]


def test_what_is_measured_can_be_chosen():
    assert [type(case) for case in cases(["evaluation"], False, "cpu")] == [EvaluationCase]
    assert len(cases([], False, "cpu")) == 16
    assert len({case.title for case in cases([], False, "cpu")}) == 16
    with pytest.raises(ConfigError, match="leave out --quick"):
        cases(["evaluation"], True, "cpu")
    with pytest.raises(ConfigError, match="rounds got 0"):
        bench(rounds=0)
    with pytest.raises(ConfigError, match="contestants got 'nobody'; expected parts of: hosnn TA-LIF; "):
        bench(only=("layer",), contestants=("nobody",))


def test_contestants_can_be_chosen_by_parts_of_their_names():
    assert [row.contestant for row in measure(Fake(), 1, memory=False, names=("LARGE",))] == ["small", "large"]


def test_half_precision_is_set_beside_the_loop_in_float32():
    contestants = NetworkCase("PGD-10", 2, "bfloat16", compiled=False, blueprint=TINY).contestants()
    outputs = {name: contestants[name].make()() for name in (PER_STEP, PER_STEP_FLOAT32)}
    assert all(torch.isfinite(found).all() for found in outputs.values())
    full = NetworkCase("PGD-10", 2, compiled=False, blueprint=TINY).contestants()[PER_STEP].make()()
    assert torch.equal(outputs[PER_STEP_FLOAT32], full)


def test_a_signature_is_measured_beside_its_forward_pass():
    rows = measure(SignatureCase(2, blueprint=small_convnet()), 1, memory=False, min_turn=0)
    assert [row.contestant for row in rows] == [FORWARD, CALIBRATION]
    assert rows[0].ratio == 1
    assert rows[1].ratio is not None and rows[1].ratio > 0.5  # which a forward pass alone would not undercut


def test_the_verb_writes_json_markdown_and_a_picture(tmp_path, capsys):
    work: list[Case] = [
        LayerCase((2, 3, 4), compiled=False),
        NetworkCase("inference", 2, compiled=False, blueprint=TINY),
    ]
    assert run(work, 1, False, tmp_path / "a folder", True) == 0
    content = json.loads((tmp_path / "a folder" / "bench.json").read_text())
    assert json.loads(capsys.readouterr().out) == content
    assert content["format"] == "hosnn-speed-1"
    assert {row["case"] for row in content["rows"]} == {case.title for case in work}
    assert not any(row["seconds"] for row in content["rows"])
    table = (tmp_path / "a folder" / "bench.md").read_text()
    assert "eager TA-LIF" in table
    assert table.count("| not installed |") == sum(row["refused"] == "not installed" for row in content["rows"])
    assert (tmp_path / "a folder" / "bench.svg").read_text().startswith("<?xml")


def test_absolute_times_are_shown_where_there_are_some():
    row = measure(Fake(), 1, memory=False, min_turn=0)[0]
    on_gpu = BenchmarkResult(
        rows=(type(row)(case="case", contestant="ours", ratio=1.0, low=1.0, high=1.0, seconds=0.0123),),
        rounds=1,
        versions={"hosnn": "0", "torch": "0"},
        peers=peer_versions(),
        machine={"processor": "p", "gpu": "g"},
    )
    assert "1.00x (12.3 ms)" in benchmark_markdown(on_gpu)
