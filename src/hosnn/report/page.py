"""What the pages share: the frame, pictures inside the page, explanations.  No scripts, nothing fetched."""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from hosnn.evaluation.examples import Example
from hosnn.report import example_figures, plotting
from hosnn.report.glossary import EXPLANATIONS, terms_in
from hosnn.report.reproduction_summary import budget
from hosnn.results.evaluation import Evaluation

UNSEEN = re.compile(r"<style>.*?</style>|<[^>]*>", re.DOTALL)


class Picture(NamedTuple):
    title: str
    caption: str
    source: str  # data URI


def page(template: str, **content: Any) -> str:
    """The page, with a glossary of the words that occur on it."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made = environment.get_template(template)
    shown = html.unescape(UNSEEN.sub(" ", made.render(words=[], **content)))
    return made.render(words=terms_in(" ".join(shown.split())), **content)


def picture(title: str, caption: str, figure: Figure | None) -> list[Picture]:
    return [] if figure is None else [Picture(title, caption, plotting.data_uri(plotting.svg(figure)))]


def example_pictures(examples: Sequence[Example]) -> list[Picture]:
    """Attacked images, one picture per network."""
    found = []
    for network in dict.fromkeys(example.network for example in examples):
        mine = [example for example in examples if example.network == network]
        fooled = sum(example.adversarial_prediction != example.label for example in mine)
        found += picture(
            f"Attacked images: {network}",
            f"Test images that it gets right when clean, chosen before the attack ran; {fooled} of these {len(mine)} "
            "fool it. Middle row: what was added, magnified around grey.",
            example_figures.example_grid(mine),
        )
    return found


def protocol_texts(evaluations: Sequence[Evaluation]) -> list[dict[str, str]]:
    """What each protocol does, in plain words and in detail."""
    found = {}
    for e in evaluations:
        extent = "at every time step anew" if e.threat.endswith("/step") else "the same at every time step"
        found[e.protocol] = {
            "name": e.protocol,
            "text": EXPLANATIONS.get(e.protocol, e.description),
            "detail": f"Threat {e.threat}: a perturbation of at most {budget(e.threat)}, {extent}. "
            f"Attacks: {', '.join(row.attack for row in e.rows)}. Settings: {e.description}.",
        }
    return list(found.values())
