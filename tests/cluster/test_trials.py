"""What a sweep consists of: every combination once, names that tell them apart, starts shared where they agree."""

from dataclasses import replace

import pytest

from hosnn.cluster.trials import combinations, starts, trials, with_values
from hosnn.errors import ConfigError
from hosnn.recipes import demo
from hosnn.recipes.variants import with_seed
from hosnn.training.experiment import Experiment

LIF, TALIF = "demo:lif_fgsm", "demo:homeostatic_fgsm"


def names(*recipes: str, grid: tuple[str, ...] = (), seeds: tuple[int, ...] = (0,)) -> list[str]:
    return [trial.experiment.name for trial in trials(recipes, (), grid, seeds)]


def start_of(experiment: Experiment) -> Experiment:
    assert experiment.start is not None
    return experiment.start


def test_every_recipe_meets_every_value_at_every_seed():
    found = trials([LIF, TALIF], (), ["optim.lr=1e-3,2e-3", "optim.epochs=1,2,3"], (0, 1))
    assert len(found) == 2 * 2 * 3 * 2
    assert len({trial.experiment.identity for trial in found}) == len({t.experiment.name for t in found}) == 24
    last = found[-1]
    assert (last.recipe, last.overrides, last.seed) == (TALIF, ("optim.lr=2e-3", "optim.epochs=3"), 1)
    assert (last.experiment.optim.lr, last.experiment.optim.epochs, last.experiment.seed) == (2e-3, 3, 1)


def test_without_a_grid_trials_are_those_of_the_other_verbs():
    (trial,) = trials([LIF], ["optim.epochs=2"], (), (3,))
    plain = with_seed(demo.lif_fgsm(), 3)
    assert trial.experiment == replace(plain, optim=replace(plain.optim, epochs=2))


def test_names_tell_the_values_and_are_the_same_however_a_value_is_written():
    assert names(LIF, grid=("optim.lr=1e-3,1/500", "optim.batch_size=32"), seeds=(0, 7)) == [
        "demo-lif-fgsm-lr0.001-batch_size32",
        "demo-lif-fgsm-lr0.001-batch_size32-seed7",
        "demo-lif-fgsm-lr0.002-batch_size32",
        "demo-lif-fgsm-lr0.002-batch_size32-seed7",
    ]
    assert names(TALIF, grid=("homeostasis.share=layer", "network.channels=(2,3),(4,5)")) == [
        "demo-homeostatic-fgsm-share-layer-channels-2-3",
        "demo-homeostatic-fgsm-share-layer-channels-4-5",
    ]


def test_trials_share_a_start_unless_their_values_change_it():
    def called(*grid: str) -> list[str]:
        return [start.name for start in starts(trials([LIF, TALIF], (), grid, (0,)))]

    assert called() == called("optim.lr=1e-3,2e-3") == ["demo-start"]
    assert called("network.hidden=8,16") == ["demo-start-hidden8", "demo-start-hidden16"]
    assert called("start.optim.lr=1e-3,1e-2") == ["demo-start-lr0.001", "demo-start-lr0.01"]
    own = demo.lif_fgsm().start
    assert own is not None
    assert called(f"start.optim.lr={own.optim.lr},1e-2") == ["demo-start", "demo-start-lr0.01"]
    (trial, _) = trials([LIF], (), ["start.optim.lr=1e-3,1e-2"], (0,))
    assert trial.experiment.name == "demo-lif-fgsm-start-lr0.001"


def test_a_start_has_one_name_whether_it_is_swept_itself_or_started_from():
    (swept,) = trials(["fashion_mnist:start"], (), ["optim.lr=1e-3"], (1,))
    (started,) = trials(["fashion_mnist:lif_clean"], (), ["start.optim.lr=1e-3"], (1,))
    assert started.experiment.start == swept.experiment


def test_starts_come_after_what_they_start_from():
    chain = replace(demo.lif_clean(), name="later", start=demo.lif_clean())
    trial = trials([LIF], (), (), (0,))[0]
    assert [start.name for start in starts([replace(trial, experiment=chain)])] == ["demo-start", "demo-lif-clean"]


def test_values_leave_what_they_do_not_name():
    before = demo.homeostatic_fgsm()
    after = with_values(before, ("optim.lr=1e-4",))
    assert replace(after, name=before.name, optim=before.optim) == before
    assert with_values(before, ()) == before


def test_the_grid_is_the_product_of_its_values():
    assert combinations(()) == [()]
    assert combinations(("a=1,2", "b.c=(1,2),(3,4)")) == [
        ("a=1", "b.c=(1,2)"),
        ("a=1", "b.c=(3,4)"),
        ("a=2", "b.c=(1,2)"),
        ("a=2", "b.c=(3,4)"),
    ]


@pytest.mark.parametrize(
    ("recipes", "settings", "grid", "seeds", "says"),
    [
        ((), (), (), (0,), "no recipe"),
        ((LIF,), (), (), (), "--seeds got nothing"),
        ((LIF,), (), (), (1, 1), "each once"),
        ((LIF,), (), ("optim.lr",), (0,), "path=value,value"),
        ((LIF,), (), ("optim.lr=1e-3,,2e-3",), (0,), "path=value,value"),
        ((LIF,), (), ("optim.lr=1e-3", "optim.lr=2e-3"), (0,), "optim.lr twice"),
        ((LIF,), (), ("seed=1,2",), (0,), "give seeds with --seeds"),
        ((LIF,), ("start.seed=1",), (), (0,), "give seeds with --seeds"),
        ((LIF,), (), ("name=a,b",), (0,), "by themselves"),
        ((LIF,), ("optim.lr=3e-3",), ("optim.lr=1e-3,2e-3",), (0,), "optim.lr is in --set and in --grid"),
        ((LIF,), (), ("optim.lr=1e-3,0.001",), (0,), "occurs twice"),
        ((LIF, "hosnn.recipes.demo:lif_fgsm"), (), (), (0,), "occurs twice"),
        ((LIF,), (), ("optim.lrr=1",), (0,), "demo:lif_fgsm with optim.lrr=1: Optimisation has no field"),
        ((LIF,), (), ("optim.lr=fast",), (0,), "expected float"),
        ((LIF, TALIF), (), ("homeostasis.share=layer",), (0,), "demo:lif_fgsm with homeostasis.share=layer"),
        (("demo:nothing",), (), (), (0,), "unknown recipe"),
    ],
)
def test_what_makes_no_sweep_is_refused(recipes, settings, grid, seeds, says):
    with pytest.raises(ConfigError, match=says):
        trials(recipes, settings, grid, seeds)


def test_two_experiments_of_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "twins.py").write_text(
        "from dataclasses import replace\nfrom hosnn.recipes import demo\n"
        "def first():\n    return demo.lif_clean()\n"
        "def second():\n    return replace(demo.lif_fgsm(), name='demo-lif-clean')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="would be called 'demo-lif-clean'"):
        trials(["twins:first", "twins:second"], (), (), (0,))
