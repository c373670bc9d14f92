"""The shape of the source: who may import whom, how long a file may be, what it may not be called."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hosnn"

ORDER = (
    *("errors", "identity", "rng", "deadline", "files", "progress", "provenance", "runtime"),
    *("spiking", "nn", "signature", "robustness", "estimators", "data", "training"),
    *("results", "protocols", "checks", "evaluation", "report", "theory", "interop", "export", "benchmark"),
    *("recipes", "cluster", "cli"),
)
"""A module imports from its own package and from those before it."""

ONLY = {
    "robustness": {"errors", "identity", "rng", "runtime"},
    "data": {"errors", "identity", "rng", "files"},
    "results": {"errors", "files"},
    "spiking": {"errors", "identity"},
    **{name: set() for name in ("errors", "identity", "rng")},
}
"""Packages that may see less: attacks know nothing of spikes, spikes nothing of anything."""

EXEMPT = ("__init__", "__main__")
"""hosnn/__init__.py and hosnn/__main__.py gather the public names."""

LINES = 300
VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "misc"}

FILES = sorted(SOURCE.rglob("*.py"))
EVERY = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))


def package_of(file: Path) -> str:
    return file.relative_to(SOURCE).with_suffix("").parts[0]


def imported(file: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(file: Path) -> set[str]:
    """The packages of hosnn a file imports from."""
    return {parts[1] for name in imported(file) if (parts := name.split("."))[0] == "hosnn" and len(parts) > 1}


def test_there_are_files_to_check() -> None:
    assert {package_of(file) for file in FILES} >= {"spiking", "robustness", "training", "errors", "__init__"}


@EVERY
def test_a_module_imports_only_from_above(file: Path) -> None:
    package = package_of(file)
    if package in EXEMPT:
        return
    assert package in ORDER, f"say in ORDER where the package {package!r} stands"
    assert "hosnn" not in set(imported(file)), "import from the module that defines a name, not from `hosnn`"
    allowed = ONLY.get(package, set(ORDER[: ORDER.index(package)])) | {package}
    below = own_imports(file) - allowed
    assert not below, f"{package} may not import from {sorted(below)}"


@EVERY
def test_a_file_can_be_read_in_one_sitting(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LINES


@EVERY
def test_a_name_says_what_is_inside(file: Path) -> None:
    assert not VAGUE & set(file.relative_to(SOURCE).with_suffix("").parts)


def test_the_check_sees_an_import_that_points_down(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def later():\n    from hosnn.training.loop import fit\n    import hosnn.cli\n")
    assert own_imports(file) == {"training", "cli"}
