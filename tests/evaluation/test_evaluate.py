"""Linear models have known robust accuracy, so what an evaluation finds can be checked against a closed form."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hosnn.data import Split, fashion_mnist_sample
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import ConfigError, SetAsideWarning, ShapeError
from hosnn.evaluation.evaluate import evaluate
from hosnn.evaluation.setup import Names
from hosnn.protocols.builtin import smoke
from hosnn.protocols.protocol import AttackSpec, PanelPlan, Protocol
from hosnn.results.evaluation import Evaluation
from hosnn.results.statistics import wilson
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.model import Attack, Model
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import Threat
from tests.evaluation.synthetic import Linear

EPS = 0.05
THREAT = Threat(Linf(EPS))
WEIGHT = torch.tensor([1.0, -2.0, 0.5, 0.0])


def images(count: int = 60) -> tuple[Tensor, Tensor]:
    """Images far enough from 0 and 1 that the pixel range never binds, and labels of which some are wrong."""
    x = 0.2 + 0.6 * torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = (x.flatten(1) @ WEIGHT > -0.3).long()
    y[::7] = 1 - y[::7]
    return x, y


def linear() -> Linear:
    return Linear(WEIGHT, 0.3)


@dataclass(frozen=True)
class Shift:
    """Moves every pixel by the same amount in the direction that raises the score: an attack with a known result."""

    by: float

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        return x + self.by * WEIGHT.sign().view(1, 2, 2)


def protocol(*attacks: tuple[str, Attack], **settings: Any) -> Protocol:
    specs = tuple(AttackSpec(name=name, attack=attack, threat=THREAT) for name, attack in attacks)
    described = Protocol(name="test", description="made for a test", threat=THREAT, attacks=specs, samples=None)
    return replace(described, block_size=16, **settings)


FOUR = protocol(
    ("up", Shift(EPS)),
    ("down", Shift(-EPS)),
    ("FGSM", fgsm(THREAT)),
    ("PGD", PGD(THREAT, steps=5, step_size=0.5)),
    panels=(
        PanelPlan(
            "eps",
            tuple(
                AttackSpec(name=f"PGD @ {eps}", attack=PGD(Threat(Linf(eps)), steps=3), threat=Threat(Linf(eps)))
                for eps in (0.01, 0.1)
            ),
            samples=20,
        ),
    ),
)


def test_robust_accuracy_of_a_linear_model_is_its_closed_form() -> None:
    x, y = images()
    margin = (x.flatten(1) @ WEIGHT + 0.3) * (2 * y - 1)
    result = evaluate(linear(), (x, y), protocol(("PGD", PGD(THREAT, steps=20, step_size=0.25))))
    exact = margin > EPS * WEIGHT.abs().sum()
    assert 0.2 < exact.double().mean() < 0.8
    assert result.correct_after(result.row("PGD")) == exact.tolist()
    assert result.worst_case == result.accuracy("PGD") == pytest.approx(float(exact.double().mean()))
    assert result.clean_accuracy == pytest.approx(float((margin > 0).double().mean()))
    assert result.interval("PGD") == wilson(int(exact.sum()), 60)


def test_the_worst_case_is_the_and_over_samples_not_the_least_row() -> None:
    x, y = images()
    result = evaluate(linear(), (x, y), protocol(("up", Shift(EPS)), ("down", Shift(-EPS))))
    up, down = (result.correct_after(row) for row in result.rows)
    clean = [guess == label for guess, label in zip(result.clean, result.labels, strict=True)]
    assert result.robust == [a and b and c for a, b, c in zip(clean, up, down, strict=True)]
    assert result.worst_case < min(result.accuracy("up"), result.accuracy("down"))


def test_a_cascade_shows_attacks_only_what_stands_and_ends_at_the_same_worst_case() -> None:
    x, y = images()
    plain = evaluate(linear(), (x, y), FOUR)
    cascade = evaluate(linear(), (x, y), replace(FOUR, cascade=True))
    assert cascade.robust == plain.robust
    robust = [guess == label for guess, label in zip(cascade.clean, cascade.labels, strict=True)]
    for row in cascade.rows:
        assert [guess != -1 for guess in row.predictions] == robust
        robust = cascade.correct_after(row)
    assert cascade.accuracy(cascade.rows[-1].attack) == cascade.worst_case
    accuracies = [cascade.accuracy(row.attack) for row in cascade.rows]
    assert accuracies == sorted(accuracies, reverse=True)


def test_the_curve_covers_its_samples_and_no_more() -> None:
    result = evaluate(linear(), images(), FOUR)
    assert {len(row.predictions) for row in result.curve} == {20}
    assert [point[0] for point in result.curve_points()] == [0.0, 0.01, 0.1]


def test_blocks_do_not_change_a_result() -> None:
    large = evaluate(linear(), images(), replace(FOUR, block_size=60))
    small = evaluate(linear(), images(), replace(FOUR, block_size=7))
    assert without_time(large) == without_time(small)


def test_json_gives_the_evaluation_back(tmp_path: Path) -> None:
    result = evaluate(linear(), images(), FOUR)
    result.save(tmp_path / "deep" / "result.json")
    assert Evaluation.load(tmp_path / "deep" / "result.json") == result
    (tmp_path / "other.json").write_text('{"format": "something else"}')
    with pytest.raises(ConfigError, match="something else"):
        Evaluation.load(tmp_path / "other.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match="expected"):
        Evaluation.load(tmp_path / "list.json")
    (tmp_path / "cut.json").write_text('{"format": ')
    with pytest.raises(ConfigError, match="cannot read"):
        Evaluation.load(tmp_path / "cut.json")


def without_time(result: Evaluation) -> dict[str, Any]:
    content = result.to_json()
    del content["seconds"]
    for row in (*content["rows"], *(row for panel in content["panels"] for row in panel["rows"])):
        del row["seconds"]
    return content


class StopAfter(Deadline):
    """A deadline that comes after so many looks at it."""

    def __init__(self, eot_samples: int) -> None:
        super().__init__()
        self.eot_samples = eot_samples

    @property
    def reached(self) -> bool:
        self.eot_samples -= 1
        return self.eot_samples < 0


@dataclass(frozen=True)
class Counted:
    """An attack that keeps count of the images it was run on."""

    attack: Attack
    seen: list[int]

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        self.seen.append(len(x))
        return self.attack(model, x, y, rng)

    def __repr__(self) -> str:
        return f"Counted({self.attack!r})"


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("eot_samples", [0, 1, 6, 15])
def test_an_interrupted_evaluation_goes_on_to_the_same_result(tmp_path: Path, cascade: bool, eot_samples: int) -> None:
    journal, plan = tmp_path / "partial.jsonl", replace(FOUR, cascade=cascade)
    whole = evaluate(linear(), images(), plan)
    with pytest.raises(Interrupted, match="resumes from there"):
        evaluate(linear(), images(), plan, journal=journal, deadline=StopAfter(eot_samples))
    assert len(journal.read_text().splitlines()) == 1 + eot_samples
    with journal.open("a") as file:
        file.write('{"attack": "PGD", "block": 3, "predic')  # as a kill leaves it
    resumed = evaluate(linear(), images(), plan, journal=journal)
    assert without_time(resumed) == without_time(whole)
    assert journal.exists()  # whoever saves the result removes it, so that a full disk costs no work


def test_finished_blocks_are_not_attacked_again_but_only_for_the_same_evaluation(tmp_path: Path) -> None:
    seen: list[int] = []
    x, y = images()
    plan = protocol(("up", Counted(Shift(EPS), seen)), ("down", Counted(Shift(-EPS), seen)))
    other = protocol(("up", Counted(Shift(EPS / 2), seen)), ("down", Counted(Shift(-EPS), seen)))
    runs: list[tuple[Model, tuple[Tensor, Tensor], Protocol, int, int]] = [
        (linear(), (x, y), plan, 0, 3),  # 8 blocks, 5 done below
        (Linear(WEIGHT + 0.01, 0.3), (x, y), plan, 0, 8),
        (linear(), (1 - x, y), plan, 0, 8),
        (linear(), (x, y), plan, 1, 8),
        (linear(), (x, y), other, 0, 8),
    ]
    for model, data, chosen, seed, expected in runs:
        journal = tmp_path / "partial.jsonl"
        journal.unlink(missing_ok=True)
        with pytest.raises(Interrupted):
            evaluate(linear(), (x, y), plan, journal=journal, deadline=StopAfter(5))
        seen.clear()
        with pytest.warns(SetAsideWarning) if expected == 8 else nullcontext():
            resumed = evaluate(model, data, chosen, seed=seed, journal=journal)
        assert len(seen) == expected
        for kept in tmp_path.glob("*.kept-*"):
            kept.unlink()
        assert without_time(resumed) == without_time(evaluate(model, data, chosen, seed=seed))


def test_blocks_of_a_plain_function_are_not_kept_because_nothing_tells_it_from_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs an nn\.Module"):
        evaluate(lambda x: x.flatten(1)[:, :2], images(), FOUR, journal=tmp_path / "partial.jsonl")


def test_a_ledger_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        evaluate(linear(), images(), FOUR, journal=tmp_path / "file" / "partial.jsonl")


@dataclass(frozen=True)
class Frames:
    """Perturbs every time step on its own."""

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        frames = x[:, None].repeat(1, 2, *[1] * (x.dim() - 1))
        frames[:, 0] += EPS
        return frames


@pytest.mark.parametrize("attack", [Shift(1.01 * EPS), Shift(float("nan")), Frames()], ids=repr)
def test_an_attack_that_leaves_its_threat_is_refused(attack: Attack) -> None:
    with pytest.raises(ConfigError, match=r"'cheat' left its threat linf:1/20"):
        evaluate(lambda x: linear()(x[:, 0] if x.dim() == 5 else x), images(), protocol(("cheat", attack)))


class Answers(nn.Module):
    """Whatever it is told to answer."""

    def __init__(self, shape: tuple[int, ...] | None = None, value: float = 0.0) -> None:
        super().__init__()
        self.shape, self.value = shape, value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full(self.shape or (len(x), 2), self.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Answers((16,)), "expected logits"),
        (Answers((3, 2)), "expected logits"),
        (Answers(value=float("nan")), "NaN"),
        (lambda x: [1, 2], "returned list"),
    ],
)
def test_logits_that_are_none_are_refused(model: Model, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        evaluate(model, images(), FOUR)


def test_labels_beyond_the_models_classes_are_refused() -> None:
    x, y = images()
    with pytest.raises(ShapeError, match="2 classes but the labels go up to 5"):
        evaluate(linear(), (x, y + 4), FOUR)


def test_images_that_are_none_are_refused() -> None:
    x, y = images()
    with pytest.raises(ShapeError, match="one label per image"):
        evaluate(linear(), (x, y[:-1]), FOUR)
    with pytest.raises(ShapeError, match="divide by 255"):
        evaluate(linear(), (255 * x, y), FOUR)
    for count in (0, -3):
        with pytest.raises(ConfigError, match="at least 1"):
            evaluate(linear(), (x, y), replace(FOUR, samples=count))


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_in_its_modes(fails: bool) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)), linear()).train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(ConfigError):
            evaluate(model, images(), protocol(("cheat", Shift(1.0))))
    else:
        evaluate(model, images(), FOUR)
    assert [module.training for module in model.modules()] == before


def test_the_smoke_protocol_runs_on_any_function_from_images_to_logits() -> None:
    data = fashion_mnist_sample()
    weight = torch.randn(10, 784, generator=torch.Generator().manual_seed(0))
    result = evaluate(lambda x: x.flatten(1) @ weight.T, data, smoke().resized(20))
    assert (result.samples, result.dataset, result.model_sha256) == (20, "fashion-mnist-sample", "")
    assert result.worst_case <= min(result.accuracy(row.attack) for row in result.rows)
    assert set(result.index) <= set(data.test.index.tolist())


def test_a_split_keeps_its_original_positions() -> None:
    split: Split = fashion_mnist_sample().test
    weight = torch.zeros(10, 784)
    result = evaluate(lambda x: x.flatten(1) @ weight.T, split, protocol(("FGSM", fgsm(THREAT))).resized(30))
    assert list(result.index) == split.subset(30).index.tolist()


def test_a_ledger_of_noise_is_started_afresh_and_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    assert without_time(evaluate(linear(), images(), FOUR, journal=tmp_path / "noise")) == without_time(
        evaluate(linear(), images(), FOUR)
    )
    with pytest.raises(ConfigError, match="cannot read"):
        evaluate(linear(), images(), FOUR, journal=tmp_path)


def test_a_hash_that_a_result_cannot_hold_is_refused_before_anything_is_attacked() -> None:
    with pytest.raises(ConfigError, match="dataset_sha256 = 'abc'; expected 64 hexadecimal digits"):
        Names(dataset_sha256="abc")


class SomeTied(nn.Module):
    """Right about every image; those whose first pixel is dark share the highest logit with another class."""

    def forward(self, x: Tensor) -> Tensor:
        first = x.flatten(1)[:, 0]
        return torch.stack([first + 1, torch.where(first > 0.5, first, first + 1)], 1)


@dataclass(frozen=True)
class Watching:
    """Changes nothing, and notes the first pixels of the images that it is given at once."""

    seen: list[Tensor]
    past_ties: bool

    def __call__(self, model: Model, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        self.seen.append(x.flatten(1)[:, 0])
        return x


@pytest.mark.parametrize("past_ties", [True, False])
def test_images_that_are_lost_by_a_tie_take_no_place_among_the_nearest(past_ties: bool) -> None:
    """They are still attacked, for the accuracy by the order of the classes."""
    x = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    dark, seen = int((x.flatten(1)[:, 0] <= 0.5).sum()), []  # type: ignore[var-annotated]
    specs = (AttackSpec(name="watching", attack=Watching(seen, past_ties), threat=THREAT),)
    plan = Protocol(name="test", description="", threat=THREAT, attacks=specs, samples=None, cascade=True)
    result = evaluate(SomeTied(), (x, torch.zeros(20, dtype=torch.long)), plan)
    assert sorted(map(len, seen)) == (sorted([dark, 20 - dark]) if not past_ties else [20])
    assert past_ties or all((part > 0.5).all() or (part <= 0.5).all() for part in seen)
    assert (result.worst_case, result.worst_case_by_argmax) == (1 - dark / 20, 1.0)


def test_labels_and_numbers_of_images_that_cannot_be_are_refused() -> None:
    x, y = images(6)
    for split, message in (
        (Split(x, y - 1, torch.arange(6)), "labels go down to -1"),
        (Split(x, y, torch.zeros(6, dtype=torch.int64)), "negative or repeated"),
        (Split(x, y, torch.arange(6) - 1), "negative or repeated"),
    ):
        with pytest.raises(ShapeError, match=message):
            evaluate(linear(), split, FOUR)
