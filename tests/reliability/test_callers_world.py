"""The caller's world: whatever mode of torch is on, results are right or the mode is named; nothing is left changed."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

import hosnn
from hosnn.errors import ConfigError, InPlaceWarning
from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.attacks import attack_spec
from hosnn.protocols.protocol import Protocol
from hosnn.rng import SampleRandom
from hosnn.robustness.balls import Linf
from hosnn.robustness.model import Model
from hosnn.robustness.pgd import PGD
from hosnn.robustness.square import Square
from hosnn.robustness.threats import Threat
from hosnn.runtime import own_randomness
from hosnn.spiking.gradient_rule import bptt
from hosnn.spiking.surrogate import Arctan
from tests.checks import planted
from tests.evaluation.test_evaluate import without_time

THREAT = Threat(Linf(0.1))
FAR = Threat(Linf(0.4))
COUNT = 20
PLAN = Protocol(
    name="test",
    description="made for a test",
    threat=THREAT,
    attacks=(attack_spec("PGD", PGD(THREAT, 2), bptt(Arctan())),),
    samples=None,
    block_size=8,
    model_check_samples=2,
)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """The result in an ordinary world."""
    return without_time(evaluate(planted.spiking(), planted.images(COUNT), PLAN, threads=0))


@contextmanager
def seeded() -> Iterator[None]:
    with own_randomness(5):
        yield


WORLDS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "seeds": seeded,
}


@pytest.mark.parametrize(
    ("name", "threads"), [("no_grad", 0), ("inference_mode", 0), ("inference_mode", 2), ("autocast", 2), ("seeds", 0)]
)
def test_results_do_not_depend_on_the_mode_they_are_asked_for_in(
    name: str, threads: int, plain: dict[str, Any]
) -> None:
    model = planted.spiking()
    with WORLDS[name]():
        x, y = (part + 0 for part in planted.images(COUNT))  # made in that mode
        result = evaluate(model, (x, y), PLAN, threads=threads)
    assert without_time(result) == plain


def test_weights_made_in_inference_mode_are_named() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Flatten(), nn.Linear(planted.SIDE**2, planted.CLASSES))
    with pytest.raises(ConfigError, match=r"1\.weight was made under torch\.inference_mode"):
        evaluate(model, planted.images(COUNT), PLAN)


UNFIT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), r"1\.weight has no values yet \(a lazy layer\)"),
    "meta": (lambda: nn.Linear(4, 2, device="meta"), r"weight has no values yet \(on the device meta\)"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_models_that_are_not_ready_are_named(name: str) -> None:
    build, said = UNFIT[name]
    with pytest.raises(ConfigError, match=said):
        evaluate(build(), planted.images(COUNT), PLAN)


@pytest.mark.parametrize("arguments", [{"threads": -1}, {"seed": 0.5}, {"seed": -1}])
def test_numbers_that_mean_nothing_are_named(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ConfigError, match=f"{name} got {arguments[name]}; expected"):
        evaluate(planted.spiking(), planted.images(COUNT), PLAN, **arguments)


def test_an_attack_in_inference_mode_names_the_mode() -> None:
    x, y = planted.images(4)
    with torch.inference_mode(), pytest.raises(ConfigError, match=r"under torch\.inference_mode"):
        PGD(THREAT, 2)(planted.spiking(), x, y, SampleRandom(0, torch.arange(4)))
    expected = PGD(THREAT, 2)(planted.spiking(), x, y, SampleRandom(0, torch.arange(4)))
    with torch.no_grad():
        x_adv = PGD(THREAT, 2)(planted.spiking(), x, y, SampleRandom(0, torch.arange(4)))
    assert torch.equal(x_adv, expected)


def test_a_signature_recorded_in_inference_mode_can_be_trained_with() -> None:
    model, (x, _) = planted.spiking(), planted.images(8)
    with torch.inference_mode():
        signature = hosnn.calibrate(model, [x])
    network = hosnn.homeostatic(model, signature)
    network(x).sum().backward()
    assert any(parameter.grad is not None for parameter in network.parameters())


# nothing is left changed


class Broken(planted.Around):
    """Fails after some calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        torch.rand(1)
        if self.calls > 12:
            raise ArithmeticError("broken")
        return super().forward(x)


def draws(model: planted.Around) -> planted.Around:
    """A model that draws from all generators there are."""

    def forward(x: Tensor) -> Tensor:
        noise = random.random() + np.random.rand() + torch.rand(1)  # noqa: NPY002
        output: Tensor = model.inner(x) + 0 * noise
        return output

    model.forward = forward  # type: ignore[method-assign]
    return model


def world() -> dict[str, Any]:
    return {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "hooks": (len(torch_module._global_forward_pre_hooks), len(torch_module._global_forward_hooks)),
    }


def state(model: nn.Module) -> dict[str, Any]:
    modules = dict(model.named_modules())
    return {
        "modes": {name: module.training for name, module in modules.items()},
        "hooks": {name: (len(it._forward_hooks), len(it._forward_pre_hooks)) for name, it in modules.items()},
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
        "gradients": {name: (value.requires_grad, value.grad) for name, value in model.named_parameters()},
    }


def mixed(model: nn.Module) -> nn.Module:
    """Half in train mode, and one weight that is not trained."""
    for number, module in enumerate(model.modules()):
        module.training = bool(number % 2)
    next(model.parameters()).requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("make", "error", "mode", "threads"),
    [
        (planted.spiking, None, nullcontext, 2),
        (planted.spiking, None, torch.inference_mode, 0),
        (lambda: draws(planted.Around()), None, torch.no_grad, 2),
        (Broken, ArithmeticError, nullcontext, 0),
        (Broken, ArithmeticError, torch.inference_mode, 2),
    ],
    ids=["spiking", "in inference mode", "draws random numbers", "fails", "fails in inference mode"],
)
def test_the_callers_world_is_as_before(
    make: Callable[[], nn.Module],
    error: type[Exception] | None,
    mode: Callable[[], AbstractContextManager[Any]],
    threads: int,
) -> None:
    model, (x, y) = mixed(make()), planted.images(COUNT)
    images, labels = x.clone(), y.clone()
    before = state(model)
    with mode():
        around = world()
        with pytest.raises(error) if error else nullcontext():
            evaluate(model, (x, y), PLAN, threads=threads)
        assert world() == around
    assert state(model) == before
    assert torch.equal(x, images) and torch.equal(y, labels)


# a model that works in place


STRONG = replace(PLAN, threat=FAR, attacks=(attack_spec("PGD", PGD(FAR, 5)),), model_check_samples=0)


class Subtracts(planted.Around):
    """Changes its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.05))


class Behind(planted.Around):
    """The same without changing anything of the caller's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.05)


class ThroughData(planted.Around):
    """Changes it where autograd does not see it."""

    def forward(self, x: Tensor) -> Tensor:
        x.data -= 0.05
        return super().forward(x)


@pytest.mark.parametrize("make", [Subtracts, lambda: Subtracts().forward], ids=["module", "function"])
def test_a_model_that_works_in_place_is_named_and_damages_nothing(make: Callable[[], Any]) -> None:
    x, y = planted.images(COUNT)
    images, model = x.clone(), make()
    with pytest.warns(InPlaceWarning, match="changes its input in place"):
        result = evaluate(model, (x, y), STRONG, threads=0)
    expected = evaluate(Behind() if isinstance(model, nn.Module) else Behind().forward, (images, y), STRONG, threads=0)
    assert torch.equal(x, images)
    assert (result.clean, result.rows[0].predictions) == (expected.clean, expected.rows[0].predictions)
    assert result.worst_case < result.clean_accuracy
    if isinstance(model, nn.Module):
        assert not model._forward_pre_hooks


def test_a_change_that_autograd_does_not_see_is_found() -> None:
    x, y = planted.images(COUNT)
    images = x.clone()
    with pytest.warns(InPlaceWarning):
        evaluate(ThroughData(), (x, y), STRONG, threads=0)
    assert torch.equal(x, images)


@pytest.mark.parametrize("attack", [PGD(THREAT, 2), Square(THREAT, queries=3)], ids=["by gradient", "by queries"])
def test_an_attack_on_such_a_model_names_it(attack: Any) -> None:
    x, y = planted.images(4)
    model: Model = Subtracts().eval()
    with pytest.raises(ConfigError, match="the model changes its input in place"):
        attack(model, x, y, SampleRandom(0, torch.arange(4)))
