"""Checkpoints: read back bit for bit, refused when damaged, and whole at every instant of a save."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from hosnn.data import Dataset
from hosnn.errors import CheckpointError
from hosnn.estimators import BPTR, with_rule
from hosnn.nn.layers import SpikingNetwork
from hosnn.nn.neurons import TALIF, Extrapolation, neurons
from hosnn.nn.thresholds import ThresholdLIF
from hosnn.signature import Share, calibrate, homeostatic
from hosnn.signature.ablations import frozen_at_mean_threshold, static_thresholds
from hosnn.signature.homeostasis import replace_layer
from hosnn.spiking.gradient_rule import GradientRule, bptt, tssl_bp
from hosnn.spiking.state import Dynamics, Reset
from hosnn.spiking.surrogate import Arctan, FastSigmoid, Surrogate
from hosnn.training import checkpoint, models
from hosnn.training.checkpoint import (
    Pointer,
    TrainingState,
    load,
    load_state,
    read_pointer,
    resolve,
    save_generation,
)
from hosnn.training.configuration import describe
from hosnn.training.pipeline import run
from tests.nn.test_networks import TINY, images, lif_network
from tests.training.toy import CLEAN, ROBUST, StopAfter, same_bits

NETWORKS = {
    "as published": TINY,
    "soft reset": replace(TINY, dynamics=Dynamics(4.0, 2.0, 1.2, Reset.SOFT)),
    "bptt": replace(TINY, rule=bptt(Arctan(0.5))),
    "fast sigmoid": replace(TINY, rule=replace(tssl_bp(), surrogate=FastSigmoid(0.3))),
    "current output": replace(TINY, spiking_output=False, steps=6, classes=7),
}


def adapting(network: SpikingNetwork, share: Share = Share.NEURON) -> SpikingNetwork:
    return homeostatic(network, calibrate(network, [images(8, seed=9).to(next(network.parameters()))]), 0.3, share)


@pytest.mark.parametrize("description", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_is_read_back_bit_for_bit(description: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    plain = lif_network(description).to(dtype)
    x = images().to(dtype)
    for name, network in {
        "lif": plain,
        "talif": adapting(plain),
        "channel": adapting(plain, Share.CHANNEL),
        "layer": adapting(plain, Share.LAYER),
    }.items():
        models.save(network, tmp_path / name)
        back = models.load(tmp_path / name)
        assert torch.equal(back(x), network(x)) and network(x).abs().max() > 0
        assert [type(layer) for layer in neurons(back).values()] == [type(layer) for layer in neurons(network).values()]
        for mine, other in zip(neurons(network).values(), neurons(back).values(), strict=True):
            assert (mine.rule, mine.dynamics, mine.fixed_threshold) == (
                other.rule,
                other.dynamics,
                other.fixed_threshold,
            )
        assert not back.training
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"model.safetensors", "config.json", "card.md"}


@pytest.mark.parametrize("beyond", Extrapolation)
def test_what_a_signature_means_beyond_its_steps_is_read_back_too(beyond: Extrapolation, tmp_path: Path) -> None:
    network = homeostatic(lif_network(), calibrate(lif_network(), [images()]), 0.3, beyond=beyond)
    models.save(network, tmp_path / "saved")
    into = models.load_into(lif_network(seed=5), tmp_path / "saved")
    for back in (models.load(tmp_path / "saved"), into):
        kinds = {layer.beyond for layer in neurons(back).values() if isinstance(layer, TALIF)}
        assert kinds == {beyond}


@pytest.mark.parametrize("learn", [True, False], ids=["learned", "given"])
def test_static_thresholds_are_read_back_too(learn: bool, tmp_path: Path) -> None:
    network = lif_network()
    twin = (
        static_thresholds(network, images())
        if learn
        else frozen_at_mean_threshold(homeostatic(network, calibrate(network, [images()]), 0.3), [images()])
    )
    models.save(twin, tmp_path / "static")
    back = models.load(tmp_path / "static")
    assert torch.equal(back(images()), twin(images()))
    layers = [layer for layer in back.modules() if isinstance(layer, ThresholdLIF)]
    assert len(layers) == 3 and all(layer.learns == learn for layer in layers)


def test_a_network_of_ones_own_is_filled_from_a_checkpoint(tmp_path: Path) -> None:
    network = adapting(lif_network())
    models.save(network, tmp_path / "saved")
    filled = models.load_into(lif_network(seed=5), tmp_path / "saved")
    assert torch.equal(filled(images()), network(images()))
    with pytest.raises(CheckpointError, match="another architecture"):
        models.load_into(lif_network(replace(TINY, hidden=9)), tmp_path / "saved")


def test_saving_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    with pytest.raises(CheckpointError, match="exists already"):
        models.save(lif_network(), tmp_path / "precious")
    assert (tmp_path / "precious" / "file").read_text() == "kept"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    models.save(adapting(lif_network()), folder)
    return folder


@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.01, 0.5, 0.9, 0.9999])
def test_truncated_weights_are_refused(saved: Path, kept: float) -> None:
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors.*truncated"):
        load(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_missing_files_are_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load(saved)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            resolve(path)


def edited(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda config: config | changes


def edited_network(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda config: config | {"network": config["network"] | changes}


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not an object": lambda config: [config],
    "empty": lambda config: {},
    "another format": edited(format="hosnn-checkpoint-99"),
    "no network": edited(network=None),
    "network of a list": edited(network=[1, 2]),
    "unknown type": edited_network(type="VGG19"),
    "type of a list": edited_network(type=["LeNet"]),
    "no type": lambda config: config | {"network": {"hidden": 8}},
    "a part only": edited(network=describe(Dynamics())),
    "unknown field": edited_network(depth=3),
    "wrong value": edited_network(dropout=1.5),
    "wrong kind": edited_network(hidden="many"),
    "wrong count": edited_network(channels=[1, 2, 3]),
    "negative": edited_network(hidden=-3),
    "unknown reset": edited_network(dynamics=describe(Dynamics()) | {"reset": "sideways"}),
    "unknown beyond": edited(homeostasis={"beyond": "sideways"}),
    "homeostasis of a list": edited(homeostasis=[1]),
    "layers of a list": edited(homeostasis={"layers": [1]}),
    "a layer of a number": edited(homeostasis={"layers": {"body.0.spikes": 3}, "beyond": 4}),
    "rules of a list": edited(rules=[1]),
    "rule of an unknown layer": edited(rules={"nowhere": describe(bptt())}),
    "unknown rule": edited(rules={"nowhere": {"type": "Magic"}}),
    "other sizes": edited_network(hidden=9),
    "other layers": edited_network(spiking_output=False, classes=7),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_config_is_refused(damage: Callable[[dict[str, Any]], Any], saved: Path) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError):
        load(saved)


@pytest.mark.parametrize("text", ["", "{", "null", "\udcff", '{"format": '])
def test_a_truncated_config_is_refused(text: str, saved: Path) -> None:
    (saved / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(saved)


def test_weights_of_another_architecture_are_refused(saved: Path, tmp_path: Path) -> None:
    models.save(lif_network(replace(TINY, hidden=9)), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(CheckpointError, match=r"another architecture.*body\.dense3"):
        load(saved)


STATE = {"0.exp_avg": torch.arange(3.0)}
POSITION = {"finished": False, "best": 0.5, "loss": 1.0, "seconds": 1.0}
CONFIG = checkpoint.config_of(describe(TINY), None, {"name": "toy"})


def generation(folder: Path, step: int, best: str | None = None, seed: int = 0) -> Pointer:
    state = TrainingState(STATE, POSITION | {"step": step})
    return save_generation(folder, lif_network(seed=seed), CONFIG, state, best)


def whole(folder: Path) -> Pointer | None:
    """The pointer, having checked that what it names can be read to the last byte."""
    pointer = read_pointer(folder)
    for name in pointer or ():
        load(folder / name)
        assert torch.equal(load_state(folder, name).tensors["0.exp_avg"], STATE["0.exp_avg"])
    return pointer


def test_generations_are_kept_as_long_as_the_pointer_names_them(tmp_path: Path) -> None:
    names = []
    for step, best in ((1, None), (2, "step-00000001"), (3, "step-00000001"), (4, None), (5, "step-00000004")):
        pointer = generation(tmp_path, step, best)
        assert whole(tmp_path) == pointer
        names.append(sorted(path.name for path in tmp_path.glob("step-*")))
        assert names[-1] == sorted(set(pointer))
    assert names == [[f"step-{n:08d}" for n in row] for row in ((1,), (1, 2), (1, 3), (4,), (4, 5))]
    assert torch.equal(load(tmp_path, "last").network(images()), lif_network()(images()))


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: load(folder, "last").network,
        lambda folder: models.load_into(lif_network(), folder, "last"),
    ],
    ids=["load", "load_into"],
)
def test_a_reader_follows_a_training_that_saves_meanwhile(
    read: Callable[[Path], SpikingNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generation is gone before it is read, three times."""
    steps = iter((2, 3, 4))
    generation(tmp_path, 1)

    def resolved_and_removed(path: Path, name: str) -> Path:
        folder = resolve(path, name)
        if folder.name == f"step-{(step := next(steps, 0)) - 1:08d}":
            generation(tmp_path, step, seed=step)
        return folder

    monkeypatch.setattr(checkpoint, "resolve", resolved_and_removed)
    assert torch.equal(read(tmp_path)(images()), lif_network(seed=4)(images()))


class Killed(BaseException):
    """What SIGKILL looks like from inside, for tests: nothing is done to the disk after it."""


def failing_at(number: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Make the `number`-th operation that touches the disk fail, and all after a kill; returns how many there were."""
    count, killed = [0], isinstance(error, Killed)

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def operation(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == number or (killed and count[0] > number):
                raise error
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, operation)

    wrap(os, "fsync")
    for name in ("replace", "mkdir", "write_text", "write_bytes"):
        wrap(Path, name)
    if killed:
        wrap(Path, "unlink")
        wrap(shutil, "rmtree")
    return lambda: count[0]


def test_a_full_disk_at_any_write_leaves_the_previous_generation_and_no_junk(tmp_path: Path) -> None:
    writes = 0
    for number in range(1, 100):
        folder = tmp_path / str(number)
        before = generation(folder, 1)
        entries = {path.name for path in folder.iterdir()}
        with pytest.MonkeyPatch.context() as patch:
            performed = failing_at(number, OSError(errno.ENOSPC, "No space left on device"), patch)
            try:
                generation(folder, 2, seed=1)
            except CheckpointError as error:
                assert "No space left" in str(error) and "--resume" in str(error)
                failed = True
            else:
                failed = False
            writes = performed()
        if not failed:
            assert number > writes
            break
        assert whole(folder) == before
        assert {path.name for path in folder.iterdir()} == entries
        assert torch.equal(load(folder, "last").network(images()), lif_network()(images()))
        after = generation(folder, 2, seed=1)  # and with space again it goes on
        assert whole(folder) == after
    assert writes >= 8


@pytest.mark.parametrize("step", [1, 2], ids=["the same step again", "the next step"])
def test_a_kill_at_any_operation_leaves_a_pointer_to_complete_generations(tmp_path: Path, step: int) -> None:
    for number in range(1, 100):
        folder = tmp_path / str(number)
        before = generation(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            performed = failing_at(number, Killed(), patch)
            try:
                after = generation(folder, step, seed=1)
            except Killed:
                after = None
            writes = performed()
        found = whole(folder)
        assert found is not None and (found == before or found.last not in before)
        if after is not None:
            assert number > writes >= 8
            break
        generation(folder, 3)
        assert {path.name for path in folder.iterdir()} == {"step-00000003", "current.json"}, "leftovers are cleared"


def test_a_first_save_that_fails_leaves_nothing_to_resume_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(3, OSError(errno.ENOSPC, "No space left on device"), monkeypatch)
    with pytest.raises(CheckpointError, match="No space left"):
        generation(tmp_path / "checkpoints", 1)
    assert read_pointer(tmp_path / "checkpoints") is None


def test_a_run_on_a_full_disk_goes_on_later_to_the_same_bits(
    trained: Path, tmp_path: Path, data: Dataset, fabric: Fabric
) -> None:
    run(CLEAN, data, tmp_path, fabric, StopAfter(2))

    def full(path: Path, content: bytes) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(CheckpointError, match="No space left"):
            run(CLEAN, data, tmp_path, fabric, resume=True)
    assert run(CLEAN, data, tmp_path, fabric, resume=True).finished
    same_bits(trained / "clean", tmp_path / "clean")


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write"):
        models.save(lif_network(), tmp_path / "file" / "inside")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"last": "step-1"}', '{"last": null, "best": 3}'])
def test_a_damaged_pointer_is_refused(tmp_path: Path, content: str) -> None:
    generation(tmp_path, 1)
    (tmp_path / "current.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"current\.json"):
        load(tmp_path)


def test_a_pointer_to_a_generation_that_was_removed_is_refused(tmp_path: Path) -> None:
    pointer = generation(tmp_path, 1)
    shutil.rmtree(tmp_path / pointer.last)
    with pytest.raises(CheckpointError, match="step-00000001"):
        load(tmp_path)


def test_a_runs_best_and_last_are_both_at_hand(trained: Path) -> None:
    folder = trained / "robust"
    pointer = read_pointer(folder / "checkpoints")
    assert pointer is not None
    assert resolve(folder) == folder / "checkpoints" / pointer.best
    assert resolve(folder, "last") == folder / "checkpoints" / pointer.last
    provenance = load(folder).config["provenance"]
    assert provenance["identity"] == ROBUST.identity and provenance["start"] == CLEAN.identity
    assert provenance["dataset_source"] == "folder: toy files"  # where they lay is nobody's business


def test_no_pickle_is_written(trained: Path) -> None:
    files = {path.suffix for path in (trained / "robust" / "checkpoints").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json", ".md"}


@pytest.mark.parametrize("into", [False, True], ids=["load", "load_into"])
def test_layers_that_differ_are_each_read_back(into: bool, tmp_path: Path) -> None:
    twin = static_thresholds(lif_network(), images())
    names = [name for name, layer in neurons(twin).items() if isinstance(layer, ThresholdLIF)]
    for name, learn, beyond in zip(
        names, (False, True, False), (Extrapolation.HOLD_LAST, *[Extrapolation.REPEAT] * 2), strict=True
    ):
        layer = twin.get_submodule(name)
        assert isinstance(layer, ThresholdLIF)
        replace_layer(twin, name, ThresholdLIF.from_lif(layer, layer.threshold.detach(), learn, beyond))
    models.save(twin, tmp_path / "mixed")
    back = models.load_into(lif_network(seed=5), tmp_path / "mixed") if into else models.load(tmp_path / "mixed")
    assert torch.equal(back(images()), twin(images()))
    found = [layer for layer in neurons(back).values() if isinstance(layer, ThresholdLIF)]
    assert [layer.learns for layer in found] == [False, True, False]
    assert [layer.beyond for layer in found] == [Extrapolation.HOLD_LAST, Extrapolation.REPEAT, Extrapolation.REPEAT]


@pytest.mark.parametrize("build", [lif_network, lambda: adapting(lif_network())], ids=["lif", "talif"])
def test_a_rule_that_the_blueprint_does_not_tell_is_read_back(
    build: Callable[[], SpikingNetwork], tmp_path: Path
) -> None:
    network = with_rule(build(), bptt(Arctan(0.7)))
    first = next(iter(neurons(network).values()))
    first.rule = TINY.rule
    models.save(network, tmp_path / "saved")
    back = models.load(tmp_path / "saved")
    assert [layer.rule for layer in neurons(back).values()] == [layer.rule for layer in neurons(network).values()]
    x = images().requires_grad_()
    gradients = [torch.autograd.grad(model(x).square().sum(), x)[0] for model in (network, back)]
    assert torch.equal(*gradients)


def test_learned_thresholds_keep_the_rule_that_teaches_them(tmp_path: Path) -> None:
    description = replace(TINY, rule=GradientRule(threshold=False))
    models.save(static_thresholds(lif_network(description), images(), rule=bptt()), tmp_path / "saved")
    layers = [layer for layer in neurons(models.load(tmp_path / "saved")).values() if isinstance(layer, ThresholdLIF)]
    assert len(layers) == 3 and all(layer.rule == bptt() and layer.learns for layer in layers)


def test_a_rule_that_no_checkpoint_holds_is_refused(tmp_path: Path) -> None:
    class Own(Surrogate):
        """A surrogate that no file can name."""

    with pytest.raises(CheckpointError, match=r"differentiated by .*Own.*use hosnn\.estimators\.with_rule again"):
        models.save(with_rule(lif_network(), bptt(Own())), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_rate_rule_comes_back(tmp_path: Path) -> None:
    models.save(with_rule(lif_network(), BPTR()), tmp_path / "saved")
    assert {layer.rule for layer in neurons(models.load(tmp_path / "saved")).values()} == {BPTR()}


def test_what_is_alike_in_all_layers_is_written_as_it_always_was(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["homeostasis"] == {"beyond": "error", "learn": False} and "rules" not in config
