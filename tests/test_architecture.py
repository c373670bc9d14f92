"""The shape of the source: which room may import which, how large files and rooms may be, how modules are named."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hosnn"
MAP = ROOT / "docs" / "architecture.md"

ORDER = (
    *("openmp", "heap", "places"),
    *("errors", "identity", "rng", "deadline", "files", "names", "schema", "tensor_files", "images", "python_files"),
    *("zoo", "terminal", "progress", "provenance", "runtime"),
    *("spiking", "nn", "signature", "robustness", "estimators", "data", "training"),
    *(
        "results",
        "protocols",
        "checks",
        "evaluation",
        "report",
        "theory",
        "inspection",
        "interop",
        "export",
        "benchmark",
    ),
    *("recipes", "cluster", "plot", "cli"),
)
"""Rooms (packages and single modules).  A module imports from its own room and from those before it."""

PLANNED = {"theory", "interop", "export"}
"""Rooms that have their place in ORDER but may not exist yet."""

ONLY = {
    "robustness": {"errors", "identity", "rng", "runtime"},
    "data": {"places", "errors", "identity", "rng", "files", "images", "python_files"},
    "results": {"errors", "files", "names", "schema"},
    "spiking": {"errors", "identity"},
    **{name: set() for name in ("openmp", "errors", "identity", "rng")},
}
"""Rooms that may import less: attacks know nothing of spikes, spikes nothing of anything."""

PUBLIC = ("__init__", "__main__")
"""hosnn/__init__.py and hosnn/__main__.py gather the public names from every room."""

MAX_FILE = 300  # lines
MAX_ROOM = 0.15  # of all lines
VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "misc"}

FILES = sorted(SOURCE.rglob("*.py"))


def relative(file: Path) -> str:
    return str(file.relative_to(SOURCE))


def parts(file: Path) -> tuple[str, ...]:
    return file.relative_to(SOURCE).with_suffix("").parts


def num_lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def imported(file: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(file: Path) -> set[str]:
    """The rooms of hosnn that a file imports from."""
    names = [name.split(".") for name in imported(file)]
    return {name[1] for name in names if name[0] == "hosnn" and len(name) > 1}


def imported_files(file: Path) -> set[Path]:
    """The files of hosnn that a file imports from."""
    return {module for name in imported(file) if (module := defining_file(name))} - {file}


def defining_file(name: str) -> Path | None:
    """The file of the longest part of a dotted name that is a module; None if it is not one of hosnn's rooms."""
    path = name.split(".")
    while path[0] == "hosnn" and len(path) > 1:
        place = SOURCE.joinpath(*path[1:])
        for module in (place.with_suffix(".py"), place / "__init__.py"):
            if module.exists():
                return module
        path.pop()
    return None


def cycle(imports: dict[Path, set[Path]]) -> list[Path]:
    """Files that import each other in a circle, the first one repeated at the end; empty if there are none."""
    finished: set[Path] = set()

    def visit(file: Path, above: list[Path]) -> list[Path]:
        if file in above:
            return [*above[above.index(file) :], file]
        if file in finished:
            return []
        for other in sorted(imports.get(file, ())):
            if circle := visit(other, [*above, file]):
                return circle
        finished.add(file)
        return []

    return next((circle for file in sorted(imports) if (circle := visit(file, []))), [])


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {parts(file)[0] for file in FILES}
    assert rooms - set(PUBLIC) - set(ORDER) == set(), "say in ORDER where these rooms stand"
    assert set(ORDER) - PLANNED - rooms == set(), "ORDER names rooms that do not exist"


def test_a_module_imports_only_from_its_own_room_and_those_before_it() -> None:
    wrong = {}
    for file in FILES:
        room = parts(file)[0]
        if room in PUBLIC:
            continue
        allowed = ONLY.get(room, set(ORDER[: ORDER.index(room)])) | {room}
        if not_allowed := imported_rooms(file) - allowed:
            wrong[relative(file)] = not_allowed
        if "hosnn" in set(imported(file)):
            wrong[relative(file)] = {"hosnn: import from the module that defines a name"}
    assert wrong == {}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert [relative(file) for file in cycle({file: imported_files(file) for file in FILES})] == []


def test_a_file_can_be_read_in_one_sitting() -> None:
    assert {relative(file): num_lines(file) for file in FILES if num_lines(file) > MAX_FILE} == {}


def test_no_room_holds_a_large_part_of_the_source() -> None:
    lines: Counter[str] = Counter()
    for file in FILES:
        lines[parts(file)[0]] += num_lines(file)
    shares = {room: count / lines.total() for room, count in lines.items()}
    assert {room: share for room, share in shares.items() if share > MAX_ROOM} == {}


def test_a_name_says_what_is_inside() -> None:
    assert [relative(file) for file in FILES if VAGUE & set(parts(file))] == []


def test_every_room_is_on_the_map() -> None:
    described = set(re.findall(r"`(?:hosnn[/.])?(\w+)(?:\.py|/)?`", MAP.read_text(encoding="utf-8")))
    existing = {room for room in ORDER if room not in PLANNED or (SOURCE / room).exists()}
    assert existing - described == set(), "docs/architecture.md must say in a sentence what these rooms hold"


def test_the_checks_see_upward_imports_and_circles(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def later():\n    from hosnn.training.loop import fit\n    import hosnn.cli\n")
    assert imported_rooms(file) == {"training", "cli"}
    assert imported_files(file) == {SOURCE / "training" / "loop.py", SOURCE / "cli" / "__init__.py"}
    one, two, three = (Path(name) for name in "abc")
    assert cycle({one: {two}, two: {three}, three: {two}}) == [two, three, two]
    assert cycle({one: {two, three}, two: {three}}) == []


def test_no_local_name_hides_a_function_that_it_calls() -> None:
    """A renamed local once took the name of the function that filled it, which neither linter nor types see."""
    hidden = {}
    for file in FILES:
        module = ast.parse(file.read_text(encoding="utf-8"))
        outer = {
            alias.asname or alias.name
            for node in module.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        outer |= {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
        for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
            names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
            calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
            stored = {name.id for name in names if isinstance(name.ctx, ast.Store)}
            called = {name.id for name in calls if isinstance(name, ast.Name)}
            if found := stored & called & outer:
                hidden[f"{relative(file)}:{function.name}"] = found
    assert not hidden
