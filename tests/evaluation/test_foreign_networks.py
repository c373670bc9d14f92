"""Evaluations of networks without hosnn's layers: what is reported of them, and which of them share workers."""

import re
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import Tensor, nn

from hosnn.evaluation.evaluate import evaluate
from hosnn.protocols.attacks import attack_spec
from hosnn.protocols.builtin import PROTOCOLS
from hosnn.protocols.paper import PaperChoices, paper
from hosnn.protocols.protocol import AttackKind, Protocol
from hosnn.report.evaluation_html import render_evaluation
from hosnn.report.evaluation_markdown import markdown_evaluation
from hosnn.robustness.balls import Linf
from hosnn.robustness.ensembles import Transfer
from hosnn.robustness.pgd import PGD
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt
from tests.checks import foreign, planted
from tests.checks.planted import Around
from tests.checks.test_copies import Registered
from tests.evaluation.test_evaluate import without_time

THREAT = Threat(Linf(0.05))
IMAGES = planted.images(24)
PLAN = Protocol(
    name="test",
    description="made for a test",
    threat=THREAT,
    attacks=(attack_spec("PGD", PGD(THREAT, 3, keep_best=False), bptt()),),
    samples=None,
    block_size=4,
)
ESTIMATOR_NAMES = re.compile(r"BPTT|TSSL|ASSG|RGA|BPTR|sigmoid|w=0|best surrogates|adaptive surrogate")


@pytest.mark.parametrize("name", ["smoke", "sweep", "standard"])
@pytest.mark.parametrize("make", [planted.ordinary, foreign.Network])
def test_a_report_names_no_estimator_that_was_not_used(name: str, make: Callable[[], nn.Module]) -> None:
    protocol = PROTOCOLS[name](THREAT).resized(4, 4)
    result = evaluate(make().eval(), planted.images(4), protocol)
    assert len({row.attack for row in result.rows}) == len(result.rows) >= 3
    result = replace(result, skipped=())  # names the attacks that were not run
    text = str(result.to_json()) + markdown_evaluation(result) + render_evaluation(result)
    assert not ESTIMATOR_NAMES.findall(text)


def test_attacks_that_bring_a_rule_of_their_own_are_run_without_it() -> None:
    choices = PaperChoices(per_step=False, trace_loss=False)
    result = evaluate(planted.ordinary(), IMAGES, paper(THREAT, choices).resized(panel_samples=0))  # no warning
    assert "TSSL-BP" not in result.description and result.accuracy("PGD-7") < result.clean_accuracy


def test_networks_of_ours_keep_estimators_and_descriptions() -> None:
    protocol = PROTOCOLS["smoke"](THREAT).resized(4, 4)
    result = evaluate(planted.spiking(), planted.images(4), protocol)
    assert result.row("PGD-20").estimator and result.description == protocol.description


def test_a_model_whose_copies_answer_differently_is_attacked_itself_and_that_is_found() -> None:
    plan = PROTOCOLS["smoke"](THREAT).resized(24, 0)
    results = [evaluate(Registered().eval(), IMAGES, plan, threads=threads) for threads in (0, 3)]
    assert without_time(results[0]) == without_time(results[1])
    checks = {check.name: check for check in results[1].checks}
    assert checks["copies"].severity == "warn" and checks["state between calls"].severity == "pass"
    assert "no copy of the model answers" in checks["train and eval mode"].figure


class Busy(nn.Module):
    """Must not be called by two threads at once."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.together, self.both = 0, 0, threading.Event()

    def __deepcopy__(self, memo: object) -> "Busy":
        return self  # as a function, or what a function captured

    def forward(self, x: Tensor) -> Tensor:
        self.users += 1
        self.together = max(self.together, self.users)
        self.both.wait(0.002)  # another thread, if there is one, comes in
        self.users -= 1
        return x


class UsesBusy(Around):
    def __init__(self, busy: Busy) -> None:
        super().__init__()
        self.busy = busy

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.busy(x))


def test_what_is_not_copied_is_used_by_one_thread() -> None:
    busy = Busy()
    result = evaluate(UsesBusy(busy).eval(), IMAGES, PLAN, threads=3)
    assert busy.together == 1 and result.network.copies == "shared"


def test_a_source_of_transfer_is_used_by_one_thread() -> None:
    busy = Busy()
    transfer = attack_spec("transfer", Transfer(UsesBusy(busy), PGD(THREAT, 3)), kind=AttackKind.TRANSFER)
    evaluate(planted.ordinary(), IMAGES, replace(PLAN, attacks=(transfer,)), threads=3)
    assert busy.together == 1
