"""Python, C and Triton agree on structures, enumerations and constants."""

import pytest

from hosnn.spiking.kernels import cuda, declarations
from tests.spiking import test_triton  # noqa: F401  (imports the kernels interpreted, where there is no GPU)


def test_the_header_is_what_the_declarations_say() -> None:
    assert declarations.HEADER.read_text(encoding="utf-8") == declarations.header(), "generate it again: write_header()"


def test_triton_has_the_same_numbers() -> None:
    kernels = cuda.kernels()
    if kernels is None:
        pytest.skip("Triton is not installed, so its constants cannot be read")
    expected: dict[str, float] = {**declarations.OUTPUTS, **declarations.THRESHOLDS, **declarations.surrogate_numbers()}
    expected |= {"SMALLEST": declarations.SMALLEST, "LEAST_EXPONENT": declarations.LEAST_EXPONENT}
    for name in expected.keys() - {"FOR_BACKWARD", "STRAIGHT_THROUGH"}:  # of the native kernel only; the last, an else
        assert getattr(kernels, name).value == expected[name], name
