"""What Python and C must agree on: the structures, enumerations and constants of the native kernel, declared once here.

`declarations.h` is what `header()` makes of it; after a change write it anew:

    python -c "from hosnn.spiking.kernels import declarations; declarations.write_header()"

A test compares the two, and the numbers of the enumerations in `triton_kernels`.
"""

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

from hosnn.spiking.kernels.kernel_spec import GIVEN, SHAPES, Emitted

HEADER = Path(__file__).with_name("declarations.h")

SMALLEST = 1.17549435e-38
"""The smallest normal float32: gradients up to it count as 0, as denormal numbers are slow."""

LEAST_EXPONENT = 87.0
"""exp(-87) is about the last power of e that is a normal float32."""


class Group(NamedTuple):
    """Fields of one C type, and what they are."""

    kind: str
    names: tuple[str, ...]
    comment: str


NEURON = (
    Group("int64_t", ("steps", "batch", "neurons"), "T, B, N"),
    Group("int64_t", ("rows", "columns", "channels"), "of the neurons, where pooled; channels = 0: no pooling"),
    Group("int64_t", ("samples",), "that ASSG remembers"),
    Group("float", ("membrane_decay", "synaptic_decay"), "1 - 1/tau_m, 1 - 1/tau_s"),
    Group("float", ("trace_of_spike", "rest"), "1/tau_s, threshold[0]"),
    Group("float", ("gain",), "of the pooled mean"),
    Group("float", ("input_decay", "input_tau"), "1 - 1/tau, tau of the filter of a constant input"),
    Group("float", ("relax",), "of ASSG"),
    Group("float", ("width", "extra"), "of the surrogate; its clamp or its peak"),
    Group("int32_t", ("soft", "emit", "bfloat16", "surrogate"), "reset; output; type of currents and output"),
    Group("int32_t", ("leak", "reset", "threshold"), "whether these paths carry a gradient"),
    Group("int32_t", ("at_rest",), "whether the surrogate is evaluated at u - threshold[0]"),
    Group("int32_t", ("constant_steps",), "not 0: one input [B][N] for all time steps, through a synaptic filter"),
    Group("int32_t", ("learning",), "whether ASSG remembers these distances"),
)

ARRAYS = (
    Group("const void *", ("currents",), "[T][B][N], or [B][N] of a constant input"),
    Group(
        "const float *", ("target",), "u* [T][N]; the thresholds themselves where there is no k; NULL: fixed threshold"
    ),
    Group("const float *", ("adaptation",), "k [N]; NULL: thresholds do not adapt"),
    Group("const float *", ("initial",), "state of a constant input's filter before the first step [N]; NULL: 0"),
    Group("const void *", ("derivative",), "h [T][B][N], for the surrogate GIVEN"),
    Group("const void *", ("gradient",), "dL/d output"),
    Group("void *", ("output",), "forward: as `emit` says; backward: dL/d currents"),
    Group("float *", ("adaptation_gradient",), "[N], sum over T and B; NULL if not asked for, as the following"),
    Group("float *", ("target_gradient",), "[T][N]"),
    Group("float *", ("initial_gradient",), "[N]"),
    Group("float *", ("membrane_sum", "current_sum"), "[N], of u and of dL/d currents over T and B"),
    Group("float *", ("mean", "deviation"), "[T][samples][N], what ASSG remembers"),
    Group("const int64_t *", ("sample_rows",), "[B], which of the samples these are"),
    Group("const float *", ("keep", "scale"), "[B], weight of what is remembered; a of each sample"),
)

STRUCTURES = {"Neuron": NEURON, "Arrays": ARRAYS}

EMITTED: dict[str, int] = {
    **{name: number.value for name, number in Emitted.__members__.items()},
    "KEPT": len(Emitted),
}
"""What a kernel writes; KEPT, inside the native kernel only: membranes and thresholds for the backward."""


THRESHOLDS = {"FIXED": 0, "ADAPTIVE": 1, "STATIC": 2}


def surrogate_numbers() -> dict[str, int]:
    """SIGMOID, FAST_SIGMOID, .. and GIVEN."""
    names = (
        "".join("_" * (at > 0 and c.isupper()) + c.upper() for at, c in enumerate(kind.__name__)) for kind in SHAPES
    )
    return {**{name: number for number, name in enumerate(names)}, "GIVEN": GIVEN}


CTYPES: dict[str, Any] = {"int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "float": ctypes.c_float}


def fields(structure: tuple[Group, ...]) -> list[tuple[str, Any]]:
    """Name and ctypes type of every field; pointers are addresses."""
    return [(name, CTYPES.get(group.kind, ctypes.c_void_p)) for group in structure for name in group.names]


def header() -> str:
    """The text of `declarations.h`."""
    lines = ["/* Written by declarations.py, which says what the fields are and how to write this file anew. */", ""]
    for numbers in (EMITTED, THRESHOLDS, surrogate_numbers()):
        lines += [f"enum {{ {', '.join(f'{name} = {number}' for name, number in numbers.items())} }};"]
    lines += ["", f"#define SMALLEST {SMALLEST}f", f"#define LEAST_EXPONENT {LEAST_EXPONENT}f"]
    for structure, groups in STRUCTURES.items():
        lines += ["", "typedef struct {"]
        for group in groups:
            separator = " " if not group.kind.endswith("*") else ""
            names = (", *" if group.kind.endswith("*") else ", ").join(group.names)
            lines += [f"    {group.kind}{separator}{names}; /* {group.comment} */"]
        lines += [f"}} {structure};"]
    return "\n".join(lines) + "\n"


def write_header() -> None:
    HEADER.write_text(header(), encoding="utf-8")
