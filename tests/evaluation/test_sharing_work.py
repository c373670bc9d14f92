"""However the work is divided, interrupted or repeated, the result has the same bits."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from hosnn.data import fashion_mnist_sample
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import ConfigError, SetAsideWarning, ShapeError
from hosnn.estimators import estimator_name
from hosnn.evaluation.evaluate import evaluate, evaluate_shard
from hosnn.evaluation.journal import journal_path, journals
from hosnn.evaluation.model_code import code_digest
from hosnn.evaluation.runner import Shard, logits_of
from hosnn.nn.lenet import LeNet
from hosnn.progress import Bar
from hosnn.protocols.attacks import attack_spec
from hosnn.protocols.estimator_search import best_estimators
from hosnn.protocols.protocol import EOT_SAMPLES, AttackKind, BestEstimator, EstimatorSearch, PanelPlan, Protocol
from hosnn.results.evaluation import Evaluation
from hosnn.robustness.apgd import APGD
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Transfer
from hosnn.robustness.pgd import PGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import Rectangle, Sigmoid
from tests.evaluation.synthetic import attack_result
from tests.evaluation.test_evaluate import StopAfter, without_time

THREAT = Threat(Linf(8 / 255))
CANDIDATES = (bptt(Sigmoid(0.2)), bptt(Rectangle(1.0)), bptt(Rectangle(0.25)))
PLAN = Protocol(
    name="test",
    description="made for a test",
    threat=THREAT,
    attacks=(
        attack_spec("APGD", APGD(THREAT, 3), bptt()),
        attack_spec("best", APGD(THREAT, 3), BestEstimator(0), spiking=True),
        attack_spec("Square", Square(THREAT, 5), kind=AttackKind.QUERIES),
    ),
    samples=22,
    cascade=True,
    search=EstimatorSearch(PGD(THREAT, 2), CANDIDATES, samples=10, keep=2),
    panels=(PanelPlan("controls", (attack_spec("PGD", PGD(THREAT, 2), BestEstimator(1), counted=False),), 12),),
    block_size=5,
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return LeNet(channels=(3, 4), hidden=16).build().eval()


@pytest.fixture(scope="module")
def whole(network: nn.Module) -> Evaluation:
    return evaluate(network, fashion_mnist_sample(), PLAN, threads=1)


@pytest.mark.parametrize("threads", [3, None])
def test_the_number_of_threads_changes_no_bit(network: nn.Module, whole: Evaluation, threads: int | None) -> None:
    before = torch.get_num_threads()
    assert without_time(evaluate(network, fashion_mnist_sample(), PLAN, threads=threads)) == without_time(whole)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [2, 6])  # of 5 blocks: some have two, one has none
def test_shards_gather_to_the_bits_of_one_run(
    network: nn.Module, whole: Evaluation, count: int, tmp_path: Path
) -> None:
    for number in range(count):
        evaluate_shard(
            network,
            fashion_mnist_sample(),
            PLAN,
            Shard(number, count),
            journal_path(tmp_path, "test", (number, count)),
            threads=1,
        )
    gathered = journal_path(tmp_path, "test")
    assert len(journals(gathered)) == count
    result = evaluate(network, fashion_mnist_sample(), PLAN, journal=gathered, threads=1, deadline=StopAfter(0))
    assert without_time(result) == without_time(whole)  # and nothing was left to do


def test_a_share_reports_the_accuracy_on_its_own_images(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Bar, "report", lambda self, text: said.append(text))
    for number in range(2):
        path = journal_path(tmp_path, "test", (number, 2))
        evaluate_shard(network, fashion_mnist_sample(), PLAN, Shard(number, 2), path, threads=1)
    evaluate(network, fashion_mnist_sample(), PLAN, threads=1)
    even, odd, whole = (float(text.split()[1].rstrip("%")) for text in said if text.startswith("APGD "))
    assert (12 * even + 10 * odd) / 22 == pytest.approx(whole, abs=0.01)  # blocks 0, 2, 4 and blocks 1, 3


def test_a_missing_share_is_done_by_the_run_that_gathers(network: nn.Module, whole: Evaluation, tmp_path: Path) -> None:
    evaluate_shard(
        network, fashion_mnist_sample(), PLAN, Shard(1, 2), journal_path(tmp_path, "test", (1, 2)), threads=1
    )
    gathered = journal_path(tmp_path, "test")
    with pytest.raises(Interrupted):
        evaluate(network, fashion_mnist_sample(), PLAN, journal=gathered, deadline=StopAfter(2))
    result = evaluate(network, fashion_mnist_sample(), PLAN, journal=gathered)
    assert without_time(result) == without_time(whole)


def test_a_share_of_another_evaluation_is_not_gathered(network: nn.Module, tmp_path: Path) -> None:
    path = journal_path(tmp_path, "test", (0, 1))
    evaluate_shard(network, fashion_mnist_sample(), PLAN, Shard(), path, threads=1)
    shares = path.read_text()
    other = evaluate(network, fashion_mnist_sample(), PLAN, seed=1, journal=journal_path(tmp_path, "test"))
    assert path.read_text() == shares
    assert without_time(other) == without_time(evaluate(network, fashion_mnist_sample(), PLAN, seed=1))


@pytest.mark.parametrize(("number", "count"), [(2, 2), (-1, 3), (0, 0)])
def test_a_share_that_is_none_is_refused(number: int, count: int) -> None:
    with pytest.raises(ConfigError, match="0 <= i < n"):
        Shard(number, count)


def test_a_deadline_in_several_threads_keeps_what_was_begun(
    network: nn.Module, whole: Evaluation, tmp_path: Path
) -> None:
    path = journal_path(tmp_path, "test")
    with pytest.raises(Interrupted, match="resumes from there"):
        evaluate(network, fashion_mnist_sample(), PLAN, journal=path, threads=2, deadline=StopAfter(7))
    assert len(path.read_text().splitlines()) == 1 + 7
    result = evaluate(network, fashion_mnist_sample(), PLAN, journal=path, threads=2)
    assert without_time(result) == without_time(whole)


def test_passes_are_counted(whole: Evaluation) -> None:
    apgd, found, square = whole.rows
    robust = sum(guess == label for guess, label in zip(whole.clean, whole.labels, strict=True))
    left = sum(guess == label for guess, label in zip(apgd.predictions, whole.labels, strict=True))  # ties go on
    assert robust <= apgd.backward <= apgd.forward and apgd.backward <= 4 * robust
    assert (square.backward, square.steps, square.kind) == (0, 5, "queries")
    assert left <= found.backward <= 4 * left
    assert whole.passes()[0] > apgd.forward + square.forward


def test_entries_take_the_estimator_that_the_search_found(whole: Evaluation) -> None:
    ranking = best_estimators(PLAN.search, whole.panel("search"), torch.tensor(whole.labels)) if PLAN.search else ()
    assert whole.row("best").estimator == estimator_name(ranking[0])
    assert whole.panel("controls")[0].estimator == estimator_name(ranking[1])
    assert [row.estimator for row in whole.panel("search")] == [estimator_name(each) for each in CANDIDATES]


def test_the_search_keeps_estimators_that_together_leave_fewest_robust() -> None:
    y = torch.zeros(6, dtype=torch.int64)
    guesses = [(1, 1, 1, 0, 0, 0), (1, 1, 0, 0, 0, 0), (0, 0, 0, 0, 1, 1)]
    rows = [attack_result(str(at), guess) for at, guess in enumerate(guesses)]
    search = EstimatorSearch(PGD(THREAT, 2), CANDIDATES, keep=3)
    assert best_estimators(search, rows, y) == (CANDIDATES[0], CANDIDATES[2], CANDIDATES[1])
    assert best_estimators(replace(search, keep=1), rows[1:], y) == CANDIDATES[1:2] or best_estimators(
        replace(search, candidates=CANDIDATES[1:], keep=1), rows[1:], y
    ) == (CANDIDATES[1],)


class Noisy(nn.Module):
    """Adds random numbers to its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(784, 10, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        logits = x.flatten(1) @ self.weight
        return logits + torch.randn_like(logits)


def test_a_model_that_draws_random_numbers_is_evaluated_the_same_each_time(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    first = evaluate(Noisy(), fashion_mnist_sample(), PLAN, threads=2)
    torch.manual_seed(5)
    path = tmp_path / "partial.jsonl"
    with pytest.raises(Interrupted):
        evaluate(Noisy(), fashion_mnist_sample(), PLAN, journal=path, deadline=StopAfter(3))
    second = evaluate(Noisy(), fashion_mnist_sample(), PLAN, journal=path)
    torch.random.set_rng_state(state)
    assert first.network.random
    assert without_time(first) == without_time(second)


class Detached(nn.Module):
    """No gradient reaches its input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(784, 10, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1) @ self.weight


def test_a_model_without_a_gradient_is_attacked_by_queries_alone_and_that_is_said() -> None:
    result = evaluate(Detached(), fashion_mnist_sample(), PLAN)
    assert [row.attack for row in result.rows] == ["Square"]
    assert not result.network.gradient and result.panels == ()
    assert "APGD: the model has no gradient to its input" in result.skipped


def test_estimators_are_left_out_where_no_spiking_layer_is_found_and_that_is_said() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    result = evaluate(model, fashion_mnist_sample(), PLAN)
    assert [row.attack for row in result.rows] == ["APGD", "Square"]
    assert result.panel("search") == () and "best: no hosnn spiking layer found" in result.skipped
    assert result.panel("controls")[0].estimator == ""


def test_losses_that_need_more_classes_than_there_are_are_left_out() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    data = fashion_mnist_sample().test.batch(torch.arange(20))
    spec = replace(PLAN.attacks[0], classes=3)
    result = evaluate(model, (data[0], data[1] % 2), replace(PLAN, attacks=(spec, PLAN.attacks[2])))
    assert [row.attack for row in result.rows] == ["Square"]
    assert "APGD: its loss needs 3 classes, the model has 2" in result.skipped


class Remembers(nn.Module):
    """Keeps its last batch, as stateful spiking libraries do; wrong sizes would show if two threads shared it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(784, 10, generator=torch.Generator().manual_seed(0)))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.flatten(1)
        for _ in range(20):
            assert self.last is not None and len(self.last) == len(x)
        return self.last @ self.weight


def test_threads_do_not_meet_in_what_a_model_stores() -> None:
    def run(threads: int) -> dict[str, Any]:
        return without_time(evaluate(Remembers(), fashion_mnist_sample(), PLAN, threads=threads))

    assert run(3) == run(1)


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_deadline_that_never_comes_changes_nothing(network: nn.Module, whole: Evaluation) -> None:
    result = evaluate(network, fashion_mnist_sample(), PLAN, deadline=Deadline(3600))
    assert without_time(result) == without_time(whole)


def transferring(twin: nn.Module) -> Protocol:
    attack = Transfer(twin, PGD(THREAT, 1))
    return replace(
        PLAN,
        attacks=(*PLAN.attacks, attack_spec("transfer", attack, kind=AttackKind.TRANSFER)),
    )


class Fails(nn.Module):
    """Raises what a model for other images raises."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("sizes differ")


@pytest.mark.parametrize(
    ("twin", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 5)), "the source has 5 classes, the evaluated model 10"),
        (Fails(), "does not take these images: .*sizes differ"),
    ],
)
def test_a_twin_of_another_task_is_refused_before_anything_is_attacked(
    twin: nn.Module, message: str, tmp_path: Path, network: nn.Module
) -> None:
    path = tmp_path / "partial.jsonl"
    with pytest.raises(ConfigError, match=message):
        evaluate(network, fashion_mnist_sample(), transferring(twin), journal=path)
    assert not path.exists() or len(path.read_text().splitlines()) == 1


class Scaled(nn.Module):
    """The same weights with another forward: what is left after its author changed a line."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(784, 10, generator=torch.Generator().manual_seed(0)))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weight) * self.factor


def test_blocks_of_a_model_whose_forward_was_changed_are_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "partial.jsonl"
    with pytest.raises(Interrupted):
        evaluate(Scaled(1.0), fashion_mnist_sample(), PLAN, journal=path, deadline=StopAfter(3))
    with pytest.warns(SetAsideWarning, match="the network answers differently"):
        resumed = evaluate(Scaled(-1.0), fashion_mnist_sample(), PLAN, journal=path)
    assert without_time(resumed) == without_time(evaluate(Scaled(-1.0), fashion_mnist_sample(), PLAN))
    with pytest.warns(SetAsideWarning, match="another scale"):
        evaluate(Scaled(-1e4), fashion_mnist_sample(), PLAN, journal=path)


LOOKED_UP = 1.0


class Changing(Scaled):
    """A network whose class the test changes, as an author does between two runs."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * LOOKED_UP


@pytest.mark.parametrize("change", ["method", "constant"])
def test_blocks_of_a_class_that_was_edited_are_not_gone_on_with_though_it_answers_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = tmp_path / "partial.jsonl"
    with pytest.raises(Interrupted):
        evaluate(Changing(1.0), fashion_mnist_sample(), PLAN, journal=path, deadline=StopAfter(3))
    if change == "method":
        monkeypatch.setattr(Changing, "forward", lambda self, x: Scaled.forward(self, x.detach() + 0 * x))
    else:
        monkeypatch.setattr(f"{__name__}.LOOKED_UP", 1.0 + 1e-6)
    with pytest.warns(SetAsideWarning, match="the code of the network's classes was changed"):
        evaluate(Changing(1.0), fashion_mnist_sample(), PLAN, journal=path)


def test_the_digest_of_code_is_empty_for_our_networks_and_steady_for_others() -> None:
    assert code_digest(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == ""
    assert code_digest(LeNet(channels=(2, 2), hidden=4).build()) == ""
    assert code_digest(Scaled(1.0)) == code_digest(nn.Sequential(Scaled(2.0))) != code_digest(Changing(1.0))


def test_random_models_are_attacked_at_the_mean_of_several_looks() -> None:
    random, steady = Noisy(), Scaled(1.0)
    plan = replace(PLAN, attacks=(attack_spec("PGD", PGD(THREAT, 2, keep_best=False)),), cascade=False)
    rows = [evaluate(model, fashion_mnist_sample(), plan).row("PGD") for model in (random, steady)]
    assert rows[0].backward == EOT_SAMPLES * rows[1].backward > 0


class Uncopied(nn.Module):
    """Holds what cannot be copied: a tensor in the middle of a graph, or something else."""

    def __init__(self, held: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(784, 10, generator=torch.Generator().manual_seed(0)))
        self.held = held if held is not None else self.weight * 1

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


@pytest.mark.parametrize("held", [None, (number for number in range(3))], ids=["graph", "generator"])
def test_a_model_that_cannot_be_copied_is_evaluated_one_block_at_a_time(held: object) -> None:
    found = evaluate(Uncopied(held), fashion_mnist_sample(), PLAN, threads=2)
    assert without_time(found)["rows"] == without_time(evaluate(Uncopied(0), fashion_mnist_sample(), PLAN))["rows"]


class Drawing(nn.Module):
    """Draws from numpy and Python, not from torch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(784, 10, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        drawn = torch.tensor([[numpy.random.rand() + random.random() for _ in range(10)] for _ in x])  # noqa: NPY002
        return x.flatten(1) @ self.weight + 20 * drawn.float()


def test_a_model_that_draws_outside_torch_is_evaluated_the_same_each_time_and_leaves_no_trace() -> None:
    results = []
    for seed in (1, 2):
        numpy.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = repr(numpy.random.get_state()), random.getstate()  # noqa: NPY002
        results.append(evaluate(Drawing(), fashion_mnist_sample(), PLAN))
        assert (repr(numpy.random.get_state()), random.getstate()) == before  # noqa: NPY002
    assert results[0].network.random
    assert without_time(results[0]) == without_time(results[1])


def test_the_first_look_at_a_random_model_is_the_same_each_time_so_that_its_blocks_are_known_again() -> None:
    x = torch.rand(4, 1, 28, 28)
    assert torch.equal(logits_of(Noisy(), x), logits_of(Noisy(), x))


def _raising(error: Exception) -> Callable[[Tensor], Tensor]:
    def model(x: Tensor) -> Tensor:
        raise error

    return model


@pytest.mark.parametrize(
    "error", [TypeError("no y"), RuntimeError("mat1"), IndexError("3"), ValueError("v"), KeyError("k")], ids=repr
)
def test_a_model_that_does_not_take_the_images_is_an_error_of_the_users(error: Exception) -> None:
    with pytest.raises(ShapeError, match=r"does not take images \(16, 1, 28, 28\) torch.float32 on cpu") as raised:
        evaluate(_raising(error), fashion_mnist_sample(), PLAN)
    assert type(error).__name__ in str(raised.value) and str(error) in str(raised.value)
    assert raised.value.__cause__ is error


def test_an_error_of_ours_is_not_wrapped_and_later_ones_are_not_taken_for_wrong_shapes() -> None:
    with pytest.raises(ConfigError, match=r"^ours$"):
        evaluate(_raising(ConfigError("ours")), fashion_mnist_sample(), PLAN)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def worn_out(x: Tensor) -> Tensor:
        if len(x) == 5:  # a block, after the look at sixteen
            raise RuntimeError("out of memory")
        return linear(x)  # type: ignore[no-any-return]

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        evaluate(worn_out, fashion_mnist_sample(), PLAN)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_logits_that_are_no_real_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ShapeError, match=rf"{dtype}.*\.float\(\)"):
        evaluate(lambda x: (x.flatten(1)[:, :10] * 9).to(dtype), fashion_mnist_sample(), PLAN)


def test_time_spent_before_an_interruption_is_counted(network: nn.Module, tmp_path: Path) -> None:
    path = journal_path(tmp_path, "test", (0, 1))
    evaluate_shard(network, fashion_mnist_sample(), PLAN, Shard(), path, threads=1)
    result = evaluate(network, fashion_mnist_sample(), PLAN, journal=journal_path(tmp_path, "test"), threads=1)
    assert result.seconds > sum(row.seconds for row in (*result.rows, *result.panels[0].rows, *result.panels[1].rows))
