"""The pages in a real browser without network: controls, keyboard, a phone's width, dark mode.  `make browser`."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hosnn.report.evaluation_html import render_evaluation
from hosnn.report.inspection_html import render_inspection
from hosnn.report.reproduction_html import render_reproduction
from hosnn.results.neuron_samples import NeuronSamples
from tests.evaluation.synthetic import comparison, rich
from tests.report.browser import DESKTOP, PHONE, Tab, browser, browser_path
from tests.report.inspected import CLASSES, inspected
from tests.report.test_figures import ADAPTING, EXAMPLE, TRACE

pytestmark = pytest.mark.browser

TAB, DOWN = ("Tab", 9), ("ArrowDown", 40)
CONTROLS = ["choose-layer", "choose-neuron", "choose-image", "choose-condition"]
LEAST_CONTRAST, LEAST_CONTRAST_OF_LINES = 4.5, 3.0  # WCAG 2.1, 1.4.3 and 1.4.11

CONTRAST = """(() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3)
      .map((part) => part / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const paper = getComputedStyle(document.body).backgroundColor;
  const of = (selector, property) => Math.min(
    ...[...document.querySelectorAll(selector)].map((node) => contrast(getComputedStyle(node)[property], paper)));
  return {
    texts: of("h1, p, td, th, label, select, summary, figcaption", "color"),
    axes: of(".plot text", "fill"),
    lines: of("#plots .line", "stroke"),
  };
})()"""

SMALL_TARGETS = """[...document.querySelectorAll("select")].filter(
  (node) => node.getBoundingClientRect().height < 44 || node.getBoundingClientRect().right > innerWidth).length"""

OUTSIDE = """[...document.querySelectorAll("body *")].filter((node) => !node.closest(".wide"))
  .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5).map((node) => node.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = browser_path()
    if program is None:
        pytest.skip("no Chromium or Chrome here; install one, or name its program in HOSNN_BROWSER")
    with browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def written(folder: Path, html: str) -> Path:
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("page"), render_inspection(*inspected(), CLASSES))


def shown(tab: Tab, element: str) -> str:
    return str(tab.run(f"document.getElementById({json.dumps(element)}).textContent"))


def choose(tab: Tab, control: str, number: int) -> None:
    tab.run(
        f"(() => {{ const list = document.getElementById('choose-{control}'); list.value = '{number}'; "
        "list.dispatchEvent(new Event('change')); })()"
    )
    tab.wait_for_frame()


def table(tab: Tab) -> list[list[str]]:
    rows: list[list[str]] = tab.run(
        "[...document.querySelectorAll('#values tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return rows


def assert_quiet(tab: Tab, path: Path) -> None:
    """No script failed, nothing was refused, and nothing outside the page was asked for."""
    assert tab.problems == []
    assert {address for address in tab.fetched if not address.startswith("data:image/")} == {path.as_uri()}


@pytest.fixture(autouse=True)
def forget(tab: Tab) -> None:
    tab.problems.clear()
    tab.fetched.clear()


def test_the_controls_choose_what_is_shown(tab: Tab, page: Path) -> None:
    _, samples = inspected()
    tab.open(page)
    assert [tab.run(f"document.getElementById('{name}').options.length") for name in CONTROLS] == [
        len(samples.layers),
        len(samples.layers[0].positions),
        len(samples.images),
        len(samples.conditions),
    ]
    choose(tab, "layer", 2)
    choose(tab, "neuron", 3)
    choose(tab, "image", 1)
    choose(tab, "condition", 1)
    layer, image = samples.layers[2], samples.images[1]
    assert layer.signature is not None
    columns = [layer.current, layer.membrane, layer.threshold]
    expected = [[column[1][1][3][step] for column in columns] for step in range(samples.steps)]
    values = table(tab)
    assert [[float(cell) for cell in row[1:4]] for row in values] == [pytest.approx(row, rel=1e-3) for row in expected]
    assert [float(row[4]) for row in values] == pytest.approx(list(layer.signature[3]), rel=1e-3)
    spikes = layer.spikes[1][1][3]
    assert [int(row[5]) for row in values] == list(spikes)
    state = shown(tab, "state")
    assert f"{int(sum(spikes))} spike" in state and "clean" in state
    assert f"predicts {CLASSES[image.predictions[1]]}; the label is {CLASSES[image.label]}" in state
    assert tab.run("document.querySelectorAll('.spike').length") == sum(spikes) + sum(layer.spikes[0][1][3])
    assert_quiet(tab, page)


def test_curves_are_those_of_the_numbers(tab: Tab, page: Path) -> None:
    """Five curves under a disturbance; the membrane's highest point is drawn at its highest value."""
    _, samples = inspected()
    tab.open(page)
    kinds = "[...document.querySelectorAll('figure.plot > svg path')].map((path) => path.getAttribute('class'))"
    assert tab.run(kinds) == ["line current", "line signature", "line threshold", "line membrane"]
    choose(tab, "condition", 2)
    assert len(tab.run(kinds)) == 7
    heights = tab.run(
        "[...document.querySelectorAll('circle.membrane:not(.pale)')].map((dot) => Number(dot.getAttribute('cy')))"
    )
    membrane = samples.layers[0].membrane[2][0][0]
    order = sorted(range(samples.steps), key=lambda step: -membrane[step])
    assert [heights[step] for step in order] == sorted(heights)
    choose(tab, "layer", len(samples.layers) - 1)
    assert "signature" not in " ".join(tab.run(kinds))
    assert shown(tab, "values-head").split("step")[1].startswith("current")


def test_the_keyboard_reaches_and_moves_every_control(tab: Tab, page: Path) -> None:
    tab.open(page)
    before = shown(tab, "values")
    reached = []
    for _ in range(5):
        tab.press(*TAB)
        reached.append(tab.run("document.activeElement.id || document.activeElement.tagName"))
    assert reached == [*CONTROLS, "SUMMARY"]
    tab.run("document.getElementById('choose-neuron').focus()")
    tab.press(*DOWN)
    assert tab.run("document.getElementById('choose-neuron').value") == "1"
    assert shown(tab, "values") != before
    outline = tab.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    labels = tab.run("[...document.querySelectorAll('select')].every((list) => list.labels.length === 1)")
    assert labels is True


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_is_readable_at_every_width_and_in_the_dark(
    tab: Tab, page: Path, size: tuple[int, int], dark: bool, tmp_path: Path
) -> None:
    tab.open(page, size, dark)
    choose(tab, "condition", 1)
    assert tab.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert tab.run("document.documentElement.scrollWidth") <= size[0]
    assert tab.run(OUTSIDE) == [] and tab.run(SMALL_TARGETS) == 0
    width = tab.run("document.querySelector('.plot svg').getBoundingClientRect().width")
    assert 0.8 * min(size[0], 1100) < width <= size[0]
    contrast: dict[str, Any] = tab.run(CONTRAST)
    assert contrast["texts"] >= LEAST_CONTRAST and contrast["axes"] >= LEAST_CONTRAST
    assert contrast["lines"] >= LEAST_CONTRAST_OF_LINES
    tab.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert_quiet(tab, page)


def test_plots_follow_the_width_of_the_window(tab: Tab, page: Path) -> None:
    tab.open(page, DESKTOP)
    width = "Number(document.querySelector('.plot svg').getAttribute('width'))"
    wide = tab.run(width)
    tab.call("Emulation.setDeviceMetricsOverride", width=500, height=700, deviceScaleFactor=1, mobile=False)
    tab.wait_for_frame()
    assert tab.run(width) < 500 < wide


def test_names_are_inert(tab: Tab, tmp_path: Path) -> None:
    """Markup in every name runs no script, and shows as text."""
    result, samples = inspected()
    hostile = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>"
    conditions = tuple(replace(condition, name=hostile) for condition in result.conditions)
    layers = tuple(replace(layer, layer=hostile) for layer in samples.layers)
    odd: NeuronSamples = replace(samples, conditions=(hostile,) * 3, layers=layers)
    html = render_inspection(replace(result, model=hostile, conditions=conditions), odd, (hostile,) * 3)
    path = written(tmp_path, html)
    tab.open(path)
    choose(tab, "condition", 1)
    assert tab.run("typeof window.broken") == "undefined"
    assert hostile in tab.run("document.getElementById('choose-layer').options[0].textContent")
    assert hostile in shown(tab, "state") and hostile in tab.run("document.querySelector('h1').textContent")
    assert_quiet(tab, path)


def test_an_injected_script_would_not_run(tab: Tab, tmp_path: Path) -> None:
    """Should a name ever become markup, the page's policy refuses it; this also shows that refusals are seen here."""
    html = render_inspection(*inspected(), CLASSES)
    injected = "<script>window.broken=1</script><img src='https://example.invalid/x.png'>"
    tab.open(written(tmp_path, html.replace("</header>", f"{injected}</header>")))
    assert tab.run("typeof window.broken") == "undefined"
    assert len([problem for problem in tab.problems if "Content Security Policy" in problem]) == 2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["evaluation", "reproduction"])
def test_the_other_reports_fit_a_phone(tab: Tab, kind: str, dark: bool, tmp_path: Path) -> None:
    html = {
        "evaluation": lambda: render_evaluation(rich(), (EXAMPLE,), ("T-shirt", "Trouser")),
        "reproduction": lambda: render_reproduction(comparison(), (TRACE, ADAPTING), (EXAMPLE,)),
    }[kind]()
    path = written(tmp_path, html)
    tab.open(path, PHONE, dark)
    assert tab.run("document.documentElement.scrollWidth") <= PHONE[0]
    assert tab.run("[...document.images].every((picture) => picture.naturalWidth > 0)") is True
    assert_quiet(tab, path)
