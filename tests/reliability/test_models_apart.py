"""Models do not touch each other: whatever two users' files are called, each computes what it computes alone."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hosnn.cli.target import load_networks, load_target
from hosnn.data.arrays import returned
from hosnn.errors import ConfigError

X = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))

LAYOUTS = {
    "a file beside it": {
        "model.py": "from torch import nn\nfrom beside import Scale\ndef net():\n    return Scale()\n",
        "beside.py": "{scale}",
    },
    "a file beside it, imported in forward": {
        "model.py": """
from torch import nn
class Late(nn.Module):
    def forward(self, x):
        import beside
        from beside import Scale
        return beside.Scale()(x) + 0 * Scale()(x)
def net():
    return Late()
""",
        "beside.py": "{scale}",
    },
    "a file that its neighbour imports when it is called": {
        "model.py": "from middle import net\n",
        "middle.py": """
from torch import nn
class Late(nn.Module):
    def forward(self, x):
        from beside import Scale
        return Scale()(x)
def net():
    return Late()
""",
        "beside.py": "{scale}",
    },
    "a package": {
        "model.py": "from parts.top import net\n",
        "parts/__init__.py": "",
        "parts/top.py": """
from torch import nn
class Late(nn.Module):
    def forward(self, x):
        from . import low
        from .low import Scale
        return low.Scale()(x)
def net():
    return Late()
""",
        "parts/low.py": "{scale}",
    },
    "a folder of files": {
        "model.py": "from loose.low import Scale\ndef net():\n    return Scale()\n",
        "loose/low.py": "{scale}",
    },
    "a file that is unpickled": {
        "model.py": """
import pickle
from pathlib import Path
def net():
    return pickle.loads(b"cbeside\\nScale\\n.")()
""",
        "beside.py": "{scale}",
    },
    "a name of a package that others imported": {
        "model.py": "import jinja2\ndef net():\n    return jinja2.Scale()\n",
        "jinja2.py": "{scale}",
    },
    "the file itself": {
        "model.py": "import model\n{scale}\ndef net():\n    return model.Scale()\n",
    },
}
SCALE = """
from torch import nn
class Scale(nn.Module):
    def forward(self, x):
        return {factor} * x.flatten(1)[:, :10]
"""


def written(folder: Path, layout: dict[str, str], factor: float) -> Path:
    for name, text in layout.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("{scale}", SCALE.replace("{factor}", str(factor))))
    return folder / "model.py"


def model_of(path: Path) -> nn.Module:
    model = load_target(Path(f"{path}:net"), "fashion-mnist-sample", None).model
    assert isinstance(model, nn.Module)
    return model


@pytest.fixture(autouse=True)
def _imports_as_before() -> Iterator[None]:
    """What is imported, and where it is looked for, is no different after a test, but for files under unique names."""
    modules, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    yield
    assert sys.path == path and sys.meta_path == finders
    for name in {"beside", "middle", "parts", "loose", "model"}:
        assert sys.modules.get(name) is modules.get(name)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_files_with_neighbours_of_the_same_names_compute_what_they_compute_alone(
    layout: dict[str, str], tmp_path: Path
) -> None:
    factors = {"a": 2.0, "b": 3.0, "c": 5.0}
    files = {name: written(tmp_path / name, layout, factor) for name, factor in factors.items()}
    models = {name: model_of(path) for name, path in files.items()}
    models["a again"] = model_of(files["a"])
    expected = X.flatten(1)[:, :10]
    for name in ("c", "a", "b", "a again", "c"):
        torch.testing.assert_close(models[name](X), factors[name[0]] * expected)


def test_a_package_that_others_imported_stays_theirs(tmp_path: Path) -> None:
    import jinja2

    model_of(written(tmp_path / "a", LAYOUTS["a name of a package that others imported"], 2.0))
    assert sys.modules["jinja2"] is jinja2 and hasattr(jinja2, "Template")


def test_a_file_that_cannot_be_loaded_leaves_nothing_behind(tmp_path: Path) -> None:
    path = written(tmp_path / "a", {"model.py": "import beside\n", "beside.py": "raise KeyError('x')\n"}, 1.0)
    for _ in range(2):
        with pytest.raises(ConfigError, match="KeyError"):
            model_of(path)
    path.with_name("beside.py").write_text("")
    path.write_text("from beside import net\n")
    path.with_name("beside.py").write_text(SCALE.replace("{factor}", "7.0") + "net = Scale()\n")
    torch.testing.assert_close(model_of(path)(X), 7 * X.flatten(1)[:, :10])


def test_a_model_and_data_of_one_file_are_of_one_module(tmp_path: Path) -> None:
    text = SCALE.replace("{factor}", "2.0") + (
        "import torch\nmade = []\ndef data():\n    from beside import number\n    made.append(number)\n"
        "    return torch.rand(20, 1, 4, 4), torch.arange(20) % 10\n"
        "def net():\n    assert made == [9]\n    return Scale()\n"
    )
    path = written(tmp_path / "a", {"model.py": text, "beside.py": "number = 9\n"}, 1.0)
    returned(path, "data")
    model_of(path)


def test_transfer_sources_are_apart_from_each_other(tmp_path: Path) -> None:
    layout = LAYOUTS["a file beside it, imported in forward"]
    sources = []
    for name, factor in (("a", 2.0), ("b", 3.0)):
        path = written(tmp_path / name, layout, factor)
        sources.append(path.rename(path.with_name(f"model_{name}.py")))
    first, second = load_networks(tuple(Path(f"{path}:net") for path in sources)).values()
    torch.testing.assert_close(1.5 * first(X), second(X))


# settings of torch


CHANGES = {
    "random numbers": "import torch, random\ntorch.rand(7)\nrandom.random()\n",
    "seeds": "import torch, random\ntorch.manual_seed(5)\nrandom.seed(5)\n",
    "types": "import torch\ntorch.set_default_dtype(torch.float64)\n",
    "threads": "import torch\ntorch.set_num_threads(3)\n",
    "gradients": "import torch\ntorch.set_grad_enabled(False)\n",
    "an error": "import torch\ntorch.manual_seed(5)\ntorch.set_grad_enabled(False)\nraise ValueError('x')\n",
}
DRAWN = "import torch\nfrom torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_file_sets_is_not_set_for_others(change: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.py").write_text(DRAWN)

    def state() -> tuple[Tensor, object, object, int, bool]:
        settings = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
        return torch.get_rng_state(), random.getstate(), *settings

    before = state()
    expected = model_of(tmp_path / "a" / "model.py")
    (tmp_path / "changing.py").write_text(change + DRAWN)
    try:
        model_of(tmp_path / "changing.py")
    except ConfigError:
        pass
    after = state()
    assert torch.equal(after[0], before[0]) and after[1:] == before[1:]
    again = model_of(tmp_path / "a" / "model.py")
    torch.testing.assert_close(list(again.parameters()), list(expected.parameters()), rtol=0, atol=0)
