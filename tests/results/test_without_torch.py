"""Results are read, compared and rendered where torch is not wanted: nothing in the room imports it, near or far."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "hosnn"
ALLOWED = ("hosnn.errors", "hosnn.files", "hosnn.names", "hosnn.results", "hosnn.schema")
FILES = [*sorted((SOURCE / "results").glob("*.py")), SOURCE / "files.py", SOURCE / "errors.py"]


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_no_module_of_results_imports_torch_or_a_room_that_does() -> None:
    assert len(FILES) > 10
    wrong = {
        f"{file.name}: {name}"
        for file in FILES
        for name in imports(file)
        if name.split(".")[0] in ("torch", "lightning_fabric", "safetensors")
        or (name.split(".")[0] == "hosnn" and not name.startswith(ALLOWED))
    }
    assert not wrong
