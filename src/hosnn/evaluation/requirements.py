"""What a model must do to be evaluated, checked before the first attack: errors after hours would cost the hours."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hosnn.checks.foreign_libraries import reset_call
from hosnn.checks.precision import check_precision
from hosnn.errors import ConfigError, InPlaceWarning, ShapeError
from hosnn.estimators import OnFrames
from hosnn.evaluation.runner import logits_of
from hosnn.nn.modes import device_of, evaluating
from hosnn.protocols.protocol import AttackSpec
from hosnn.robustness.ensembles import Transfer
from hosnn.robustness.model import Model
from hosnn.runtime import own_randomness


def check_weights(model: Model) -> None:
    """Raises ConfigError for a model whose weights have no values yet, or of which autograd cannot make gradients."""
    if not isinstance(model, nn.Module):
        return
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor) or tensor.is_meta:
            raise ConfigError(
                f"{name} has no values yet ({'a lazy layer' if is_lazy(tensor) else 'on the device meta'}); call the "
                "model once on an image, or load its weights, before it is evaluated"
            )
        if tensor.is_inference():
            raise ConfigError(
                f"{name} was made under torch.inference_mode(), so no gradient can pass it; make or load the model "
                "outside of it (torch.no_grad() is no obstacle)"
            )


@contextmanager
def input_kept(model: Model, images: Tensor) -> Iterator[Model]:
    """Inside, a model that changes its input in place gets copies of it, which an InPlaceWarning says.

    Yields the model to call: the same nn.Module, or a function that calls the function that was given.
    """
    probe = images.clone()
    with torch.no_grad(), own_randomness(0), suppress(Exception):  # errors are named by the checks that follow
        model(probe)
    if probe._version == 0 and torch.equal(probe, images):
        yield model
        return
    warnings.warn(
        "the model changes its input in place (as x.sub_(..), or nn.ReLU(inplace=True) as its first layer); it is "
        "called with copies, so that images and attacks stay what they are",
        InPlaceWarning,
        stacklevel=2,
    )
    if not isinstance(model, nn.Module):
        yield lambda x: model(x.clone())
        return
    handle = model.register_forward_pre_hook(_copy_input)
    try:
        yield model
    finally:
        handle.remove()


def _copy_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs[0].clone(), *inputs[1:]


def check_batch_sizes(model: Model, images: Tensor) -> None:
    """Raises ShapeError unless a model that took these images [n, ...] takes one of them, and then all of them again.

    Attacks call it with batches of any size, because they leave out images that are lost.
    """
    for batch in (images[:1], images):
        try:
            logits_of(model, batch)
        except ShapeError as error:
            raise ShapeError(
                f"the model took {len(images)} images at once, but then fails on {len(batch)}: {error}.  Attacks need "
                f"batches of any size; {'; '.join(_causes(model))}"
            ) from error


def _causes(model: Model) -> Iterator[str]:
    """What may keep a model from taking batches of another size, and what to do."""
    by_batch = [
        name
        for name, module in (model.named_modules() if isinstance(model, nn.Module) else ())
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is None
    ]
    if by_batch:
        yield f"{', '.join(by_batch)} normalises by the statistics of each batch: use stored ones"
    remedy = reset_call(model)
    yield f"layers that keep state between calls must start from rest: call {remedy or 'their reset'} first in forward"
    yield "an exported or traced model must be made for any number of images (dynamic_shapes)"


def check_transfer_source(spec: AttackSpec, first_images: Tensor, classes: int) -> None:
    """Raises ConfigError now, rather than after hours of other attacks, if the transfer source cannot be attacked."""
    attack = spec.attack.attack if isinstance(spec.attack, OnFrames) else spec.attack
    if not isinstance(attack, Transfer):
        return
    source = attack.source
    try:
        with evaluating(source):
            images = first_images.to(device_of(source, first_images))
            check_precision(source, images, "it")
            logits = logits_of(source, images)
    except (ShapeError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{spec.name}: the source does not take these images: {error}") from error
    if logits.shape[1] != classes:
        raise ConfigError(
            f"{spec.name}: the source has {logits.shape[1]} classes, the evaluated model {classes}; give a model of "
            "the same task"
        )
