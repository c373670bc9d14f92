"""Running attacks on fixed blocks of images, on one thread or several, with finished blocks kept."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from hosnn.checks.copies import own_copy
from hosnn.deadline import Deadline, Interrupted
from hosnn.errors import ConfigError, HosnnError, ShapeError
from hosnn.evaluation.journal import Journal
from hosnn.progress import Bar
from hosnn.protocols.protocol import EOT_SAMPLES, AttackKind, AttackSpec, sets_ties_apart
from hosnn.results.evaluation import AttackResult
from hosnn.rng import SampleRandom
from hosnn.robustness.losses import misclassified
from hosnn.robustness.losses import tied as is_tied
from hosnn.robustness.model import Model, count_passes
from hosnn.runtime import own_randomness


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 0) of `count`: every count-th block.  Raises ConfigError unless 0 <= number < count."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise ConfigError(f"shard got {self.number}/{self.count}; expected i/n with 0 <= i < n, e.g. 0/4 .. 3/4")

    def has(self, block: int) -> bool:
        return block % self.count == self.number


@dataclass(frozen=True)
class Images:
    """The images to attack x [N, C, H, W], their labels y [N] and index [N]; y and index stay on the CPU."""

    x: Tensor
    y: Tensor
    index: Tensor

    def blocks(self, size: int, count: int | None = None) -> list[slice]:
        """Fixed blocks of `size` images over the first `count`."""
        end = min(len(self.y), len(self.y) if count is None else count)
        return [slice(at, min(at + size, end)) for at in range(0, end, size)]


@dataclass(frozen=True, kw_only=True)
class AttackRunner:
    """Attacks blocks of images and records the outcomes in the journal.

    threads  blocks attacked at a time, each with one thread of torch and its own copy of the model, so that the result
             does not depend on their number; 0: one at a time, with torch's own threads, on the model itself
    random   the model draws random numbers: they are seeded per block, which needs threads = 0
    ties_lost  record which images have a label that shares the highest logit with another class
    abandoned  set when an error or a second Ctrl-C ends the evaluation: workers stop with their next pass
    """

    model: Model
    images: Images
    device: torch.device
    seed: int
    journal: Journal
    deadline: Deadline
    shard: Shard = field(default_factory=Shard)
    threads: int = 0
    random: bool = False
    ties_lost: bool = True
    abandoned: Event = field(default_factory=Event, compare=False)

    def run(
        self,
        spec: AttackSpec,
        blocks: Sequence[slice],
        robust: Tensor,
        bar: Bar,
        panel: str = "",
        tied: Tensor | None = None,
    ) -> tuple[AttackResult, Tensor]:
        """One attack over all blocks of this shard: its result, and its predictions [N].

        robust  the images to attack  [N] bool; others, and those of other shards, get the prediction -1
        panel   attacks of one panel share random numbers, so that they differ in their settings only; other attacks
                have their own
        tied    those of them that are tied, and so lost, already  [N] bool.  An attack that chooses among the others
                (`sets_ties_apart`) gets them by themselves
        """
        key, stream = (f"{panel}: {spec.id}", panel) if panel else (spec.id, spec.id)
        key += f" through {spec.estimator_name}" if spec.estimator_name else ""  # the search may select another
        outcomes: dict[int, dict[str, Any]] = {}
        remaining = []
        for number in range(len(blocks)):
            outcome = self.journal.get(key, number, blocks[number].stop - blocks[number].start)
            if outcome is not None:
                outcomes[number] = outcome
                bar.advance()
            elif panel == "search" or self.shard.has(number):
                remaining.append(number)
        groups = [_groups(spec, robust[block], None if tied is None else tied[block]) for block in blocks]
        stopped = None
        # A source of transfer is not copied, so one worker uses it: it may keep state during a call.
        workers = min(1, self.threads) if spec.kind is AttackKind.TRANSFER else self.threads
        for number, outcome in self._outcomes(
            remaining, lambda at: self._block(spec, blocks[at], groups[at], stream), workers
        ):
            if outcome is None:
                stopped = number if stopped is None else stopped
            else:
                outcomes[number] = self.journal.put(key, number, outcome)
                bar.advance()
        if stopped is not None:
            raise Interrupted(f"in {key}, block {stopped + 1} of {len(blocks)}", self.deadline, self.journal.is_stored)
        return self._result(spec, blocks, outcomes)

    def _result(
        self, spec: AttackSpec, blocks: Sequence[slice], outcomes: dict[int, dict[str, Any]]
    ) -> tuple[AttackResult, Tensor]:
        predictions: list[int] = []
        tied: list[int] = []
        denied: list[int] = []
        for number, block in enumerate(blocks):
            outcome = outcomes.get(number, {"predictions": [-1] * (block.stop - block.start), "tied": [], "denied": []})
            predictions += outcome["predictions"]
            tied += [block.start + at for at in outcome["tied"]]
            denied += [block.start + at for at in outcome["denied"]]
        total = {key: sum(outcome[key] for outcome in outcomes.values()) for key in ("seconds", "forward", "backward")}
        result = AttackResult(
            attack=spec.name,
            threat=str(spec.threat),
            eps=float(spec.threat.ball.eps),
            predictions=tuple(predictions),
            tied=tuple(tied) if self.ties_lost else None,
            denied=tuple(denied) if self._compares_claims(spec) else None,
            seconds=total["seconds"],
            kind=spec.kind.value,
            method=spec.method or spec.name,
            estimator=spec.estimator_name,
            steps=spec.steps,
            forward=total["forward"],
            backward=total["backward"],
            role=spec.role,
        )
        return result, torch.tensor(predictions)

    def _outcomes(
        self, numbers: Sequence[int], work: Callable[[int], dict[str, Any] | None], workers: int
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yields (number, work(number)) as each is done."""
        if not workers:
            yield from ((number, work(number)) for number in numbers)
            return
        threads_of_torch = torch.get_num_threads()
        # Torch's number of threads is a setting of each thread; more than one in each would compete for cores.
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            futures = {pool.submit(work, number): number for number in numbers}
            yield from ((futures[future], future.result()) for future in as_completed(futures))
        except BaseException:
            self.abandoned.set()  # so that workers end with their next pass rather than with their block
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads_of_torch)

    def _block(self, spec: AttackSpec, block: slice, groups: Sequence[Tensor], stream: str) -> dict[str, Any] | None:
        """One attack on one block; None if the deadline is reached."""
        if self.deadline.reached:
            return None
        started = time.perf_counter()
        with count_passes(self.abandoned) as passes, self._randomness(block):
            answers = self._attack(self._own_model(), spec, block, groups, stream)
        seconds = time.perf_counter() - started
        return {
            **answers,
            "seconds": seconds,
            "forward": passes.forward,
            "backward": passes.backward,
        }

    def _randomness(self, block: slice) -> AbstractContextManager[None]:
        return own_randomness(self.seed + block.start) if self.random else nullcontext()

    def _own_model(self) -> Model:
        """The model; with several threads a copy with the same parameters, so that each has buffers of its own."""
        if not self.threads or not isinstance(self.model, nn.Module):
            return self.model
        return own_copy(self.model)

    def _attack(
        self, model: Model, spec: AttackSpec, block: slice, groups: Sequence[Tensor], stream: str
    ) -> dict[str, list[int]]:
        """Predictions for the block's images; positions of those whose label is tied for the highest logit, and of
        those that a pass with gradients sees misclassified and the verdict does not."""
        predictions = torch.full((block.stop - block.start,), -1)
        tied, denied = (torch.zeros_like(predictions, dtype=torch.bool) for _ in range(2))
        for attacked in groups:
            images = self.images
            x, y = images.x[block][attacked].to(self.device), images.y[block][attacked].to(self.device)
            rng = SampleRandom(self.seed, images.index[block][attacked]).fold(stream)
            x_adv = spec.assembled(EOT_SAMPLES if self.random else 1)(model, x, y, rng)
            if not _allowed(spec, x_adv, x):
                raise ConfigError(
                    f"attack {spec.name!r} left its threat {spec.threat}, so its result would mean nothing"
                )
            logits = _logits(model, x_adv)
            predictions[attacked], tied[attacked] = logits.argmax(1).cpu(), is_tied(logits, y).cpu()
            if self._compares_claims(spec):
                denied[attacked] = (_claimed(model, x_adv, y) & ~misclassified(logits, y) & ~is_tied(logits, y)).cpu()
        return {
            "predictions": predictions.tolist(),
            "tied": tied.nonzero()[:, 0].tolist(),
            "denied": denied.nonzero()[:, 0].tolist(),
        }

    def _compares_claims(self, spec: AttackSpec) -> bool:
        """Whether the attack's successes are compared with the verdict: it sees passes with gradients, which repeat."""
        return spec.kind is AttackKind.WHITE_BOX and not self.random

    def predict(self, blocks: Sequence[slice]) -> tuple[Tensor, Tensor]:
        """Predictions on the clean images [N], and whether their label is tied for the highest logit [N]."""
        predictions, tied = [], []
        for block in blocks:
            with self._randomness(block):
                logits = _logits(self.model, self.images.x[block].to(self.device))
            y = self.images.y[block].to(logits.device)
            predictions.append(logits.argmax(1).cpu())
            tied.append(is_tied(logits, y).cpu())
        return torch.cat(predictions), torch.cat(tied)


def _groups(spec: AttackSpec, robust: Tensor, tied: Tensor | None) -> list[Tensor]:
    """The positions in a block of the images that are attacked together."""
    masks = [robust & ~tied, robust & tied] if tied is not None and sets_ties_apart(spec.attack) else [robust]
    return [positions for mask in masks if len(positions := mask.nonzero()[:, 0])]


def logits_of(model: Model, x: Tensor) -> Tensor:
    """The model's logits [B, K] for x [B, ...], checked; a model that draws random numbers draws the same each time.

    Raises ShapeError unless they are floating point, finite and [B, K], and if the model does not take x at all.
    """
    try:
        with own_randomness(0):
            return _logits(model, x)
    except HosnnError:
        raise
    except Exception as error:  # whatever a foreign model may raise
        raise ShapeError(
            f"the model does not take images {tuple(x.shape)} {x.dtype} on {x.device}: {type(error).__name__}: "
            f"{error}; expected a model from such images in [0, 1] to logits"
        ) from error


def _logits(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        output = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ShapeError(
            f"the model returned {output} for {len(x)} images; expected logits [{len(x)}, classes], at least 2 classes"
        )
    if not logits.is_floating_point():
        raise ShapeError(
            f"the model returned logits {logits.dtype}; expected real numbers, of which losses have gradients: return "
            "logits.float() of values from before any rounding or comparison"
        )
    if not bool(logits.isfinite().all()):
        raise ShapeError("the model returned logits with NaN or infinity for valid images; mend the model first")
    return logits


def _claimed(model: Model, x_adv: Tensor, y: Tensor) -> Tensor:
    """Which images a pass with gradients, as attacks make, sees misclassified.  [B] bool"""
    with torch.enable_grad():
        return misclassified(model(x_adv.detach().requires_grad_()).detach(), y)


def _allowed(spec: AttackSpec, x_adv: Tensor, x: Tensor) -> bool:
    """Whether x_adv [B, C, H, W], or frames [B, T, C, H, W] under a threat per step, respects the attack's threat."""
    if x_adv.shape == x.shape:
        return bool(spec.threat.allows(x_adv, x).all())
    if not spec.threat.per_step or x_adv.dim() <= x.dim() or x_adv[:, 0].shape != x.shape:
        return False
    return bool(spec.threat.allows(x_adv, x[:, None].expand_as(x_adv)).all())
