"""Spiking libraries by the package of their modules: their name, and the call that puts a network at rest."""

from torch import nn

RESET_CALLS = {
    "snntorch": "snntorch.utils.reset(network)",
    "spikingjelly": "spikingjelly.activation_based.functional.reset_net(network)",
    "sinabs": "sinabs.utils.reset_states(network)",
}
"""Per package, the call that clears the membranes of a network's layers."""

RESET_METHODS = ("reset", "reset_state", "reset_states", "reset_mem", "reset_hidden")
"""Usual names of a layer's own method that does so."""


def spiking_library(module: nn.Module) -> str:
    """The spiking library that the module's class, or a class it is made from, belongs to; empty if none is known."""
    packages = (kind.__module__.partition(".")[0] for kind in type(module).__mro__)
    return next((package for package in packages if package in RESET_CALLS), "")


def reset_call(model: object) -> str:
    """The call that puts the model's layers at rest: that of their library, or their own method; empty if neither."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    of_libraries = (RESET_CALLS[library] for library in map(spiking_library, modules) if library)
    of_layers = (
        f"{method}() of every {type(module).__name__}"
        for module in modules
        for method in RESET_METHODS
        if callable(getattr(module, method, None))
    )
    return next(of_libraries, next(of_layers, ""))
