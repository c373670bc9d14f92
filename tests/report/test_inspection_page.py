"""The page of an inspection: its data, its policy, its words.  What needs a browser is in test_in_a_browser.py."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from matplotlib.patches import Rectangle

from hosnn.report.evaluation_html import render_evaluation
from hosnn.report.inspection_figures import MOST_LAYERS, energy_figure, errors_figure, layers_drawn, thresholds_figure
from hosnn.report.inspection_html import explorer_data, render_inspection, what_was_sampled
from hosnn.report.inspection_tables import inspection_tables
from hosnn.results.inspection import Inspection
from hosnn.results.neuron_samples import NeuronSamples
from tests.evaluation.synthetic import evaluation
from tests.report.inspected import CLASSES, inspected
from tests.report.test_pages import Page

HOSTILE = "</script><script>alert(1)</script><b>x</b>\"'&\x1b[2J"


@cache
def whole_page() -> str:
    return render_inspection(*inspected(), CLASSES)


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="samples">(.*?)</script>', page, re.DOTALL)
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_page_holds_the_tables_and_fetches_nothing() -> None:
    html = whole_page()
    page = Page(html)
    assert page.tags.count("img") == 4  # thresholds, both errors, energy
    assert page.addresses and all(address.startswith("data:image/svg+xml") for address in page.addresses)
    assert not {"link", "iframe", "object", "embed", "form"} & set(page.tags)
    markup = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert "@import" not in html and "url(" not in html and not re.search(r"<[^>]*\son\w+=", markup)
    for table in inspection_tables(inspected()[0]):
        for row in table.rows:
            assert all(cell in page.text for cell in row)
    assert "nan" not in page.text.lower().split()
    assert {"TA-LIF", "Signature"} & set(re.findall(r"<dt>([^<]+)</dt>", html))


def test_the_policy_allows_the_script_of_the_page_and_nothing_else() -> None:
    html = whole_page()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert html.index("Content-Security-Policy") < html.index("<style")


def without_figures() -> Inspection:
    """What has no figure but that of the distance from the signature."""
    result, _ = inspected()
    return replace(
        result,
        conditions=result.conditions[:1],
        adaptive=(),
        drift=(),
        energy=None,
        disturbed_energy={},
        energy_missing="what B does is not known",
    )


def test_a_page_without_a_script_allows_none() -> None:
    for html in (render_evaluation(evaluation("smoke", 1, 1, {"FGSM": 1})), render_inspection(without_figures())):
        assert "script-src &#39;none&#39;" in html and "script" not in Page(html).tags


def test_the_explorer_has_every_sample_and_its_numbers() -> None:
    _, samples = inspected()
    data = data_of(whole_page())
    assert data["conditions"] == ["clean", "noise 0.2", "offset 0.3"]
    assert [layer["name"] for layer in data["layers"]] == [layer.layer for layer in samples.layers]
    assert data["images"][0]["label"] in CLASSES
    for shown, layer in zip(data["layers"], samples.layers, strict=True):
        assert len(shown["neurons"]) == len(layer.positions)
        for name in ("current", "membrane", "threshold", "spikes"):
            for place in range(3):
                for row in range(len(samples.images)):
                    for number in range(len(layer.positions)):
                        expected = getattr(layer, name)[place][row][number]
                        assert shown[name][place][row][number] == pytest.approx(expected, rel=1e-3)
    assert (data["layers"][0]["signature"] is None) is (samples.layers[0].signature is None) is False
    assert data["layers"][-1]["signature"] is None


def test_it_says_what_was_sampled() -> None:
    _, samples = inspected()
    layer = samples.layers[0]
    text = what_was_sampled(samples)
    assert text in Page(whole_page()).text
    assert f"{layer.layer}: 10 of {layer.neurons:,} neurons ({layer.firing:,} fire)" in text and "6 images" in text
    assert "time steps" not in text
    shortened = what_was_sampled(replace(samples, of_steps=1234))
    assert f"the first {samples.steps} of 1,234 time steps" in shortened


def hostile(samples: NeuronSamples) -> NeuronSamples:
    layers = tuple(replace(layer, layer=HOSTILE) for layer in samples.layers)
    return replace(samples, conditions=(HOSTILE,) * 3, layers=layers)


def test_names_are_text_in_the_page_and_in_its_data() -> None:
    result, samples = inspected()
    conditions = tuple(replace(condition, name=HOSTILE) for condition in result.conditions)
    odd = replace(result, model=HOSTILE, dataset=HOSTILE, conditions=conditions, energy=None, energy_missing=HOSTILE)
    html = render_inspection(odd, hostile(samples), (HOSTILE,) * 3)
    page = Page(html)
    assert page.tags.count("script") == 2 and "b" not in page.tags
    assert "<script>alert" not in html and "<b>x" not in html
    data = data_of(html)
    shown = HOSTILE.replace("\x1b", "")
    assert data["conditions"] == [shown] * 3 and data["layers"][0]["name"] == shown
    assert data["images"][0]["label"] == shown


def test_what_is_not_finite_is_left_out_of_the_curves() -> None:
    _, samples = inspected()
    first = samples.layers[0]
    broken = tuple(
        tuple(tuple((float("nan"), float("inf"), *run[2:]) for run in image) for image in condition)
        for condition in first.membrane
    )
    data = explorer_data(replace(samples, layers=(replace(first, membrane=broken), *samples.layers[1:])))
    assert data["layers"][0]["membrane"][0][0][0][:2] == [None, None]
    json.dumps(data, allow_nan=False)


def test_what_there_is_nothing_to_say_about_has_no_section() -> None:
    bare = without_figures()
    text = Page(render_inspection(bare)).text
    assert "what B does is not known" in text and "Single neurons" not in text
    assert not [section for section in ("Stability", "Drift of", "Operations and") if section in text]
    assert thresholds_figure(bare) is None and energy_figure(bare) is None
    assert errors_figure(bare, "from_clean") is None and errors_figure(bare, "from_signature") is not None


def test_figures_draw_every_condition_with_and_without_feedback() -> None:
    result, _ = inspected()
    figure = errors_figure(result, "from_clean")
    assert figure is not None
    panel = next(axes for axes in figure.axes if axes.get_title() == result.adaptive[0].layer)
    drawn = {str(line.get_label()): list(map(float, line.get_ydata())) for line in panel.lines}  # type: ignore[arg-type]
    layer = result.conditions[1].layers[0]
    assert layer.error_without_adaptation is not None
    assert drawn["noise 0.2"] == list(layer.error.from_clean)
    assert drawn["noise 0.2, all k = 0"] == list(layer.error_without_adaptation.from_clean)
    assert "offset 0.3" in drawn and "clean" not in drawn


def test_bars_of_energy_add_up_to_the_total() -> None:
    result, _ = inspected()
    figure = energy_figure(result)
    assert figure is not None
    (axes,) = figure.axes
    ends = [0.0] * 4
    for bar in axes.patches:
        assert isinstance(bar, Rectangle)
        place = round(bar.get_y() + bar.get_height() / 2)
        ends[place] = max(ends[place], bar.get_x() + bar.get_width())
    energies = result.energies()
    expected = [energy.picojoule["total"] for energy in energies.values()] + [energies["clean"].picojoule["ann"]]
    assert ends == pytest.approx([value / 1e6 for value in expected])


def test_of_many_layers_evenly_spaced_ones_are_drawn() -> None:
    names = [str(number) for number in range(40)]
    drawn = layers_drawn(names)
    assert len(drawn) == MOST_LAYERS and (drawn[0], drawn[-1]) == ("0", "39") and layers_drawn(names[:5]) == names[:5]
