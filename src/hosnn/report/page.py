"""What the HTML pages share: the frame, pictures inside the page, explanations.  Nothing is fetched.

A page's own security policy allows no script but the one it was made with, and no address but those inside it.
"""

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from hosnn.evaluation.examples import Example
from hosnn.report.example_figures import example_grid
from hosnn.report.glossary import PROTOCOL_EXPLANATIONS, terms_in
from hosnn.report.phrases import budget
from hosnn.report.plotting import data_uri, svg
from hosnn.results.evaluation import Evaluation
from hosnn.results.text import ATTACKS_ONLY
from hosnn.robustness.threats import Threat

MARKUP = re.compile(r"<style>.*?</style>|<script\b.*?</script>|<[^>]*>", re.DOTALL)
"""What a browser does not show as text."""

TEMPLATES = Path(__file__).parent / "templates"


class Picture(NamedTuple):
    """A figure as the page shows it; source is a data URI."""

    title: str
    caption: str
    source: str


def page(template: str, script: Markup | None = None, **content: Any) -> str:
    """The page, with a glossary of the terms that occur on it.

    script  the one script that the page may run, from `script_of`
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    content |= {"script": script, "policy": _policy(script)}
    compiled = environment.get_template(template)
    text = html.unescape(MARKUP.sub(" ", compiled.render(terms=[], **content)))
    return compiled.render(terms=terms_in(" ".join(text.split())), **content)


def script_of(template: str) -> Markup:
    """A script of ours, as it stands in its file."""
    return Markup((TEMPLATES / template).read_text(encoding="utf-8"))


def _policy(script: Markup | None) -> str:
    """The content security policy of a page: data inside it, its own style, and this script by its SHA-256."""
    digest = hashlib.sha256((script or "").encode()).digest()
    allowed = "'none'" if script is None else f"'sha256-{base64.b64encode(digest).decode()}'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; "
        "form-action 'none'"
    )


def pictures_of(title: str, caption: str, figure: Figure | None) -> list[Picture]:
    """The figure as a list of one picture; an empty list if there is no figure."""
    return [] if figure is None else [Picture(title, caption, data_uri(svg(figure)))]


def example_pictures(examples: Sequence[Example]) -> list[Picture]:
    """Attacked images, one picture per network."""
    pictures = []
    for network in dict.fromkeys(example.network for example in examples):
        of_network = [example for example in examples if example.network == network]
        fooled = sum(example.adversarial_prediction != example.label for example in of_network)
        pictures += pictures_of(
            f"Attacked images: {network}",
            "Test images that the network classifies correctly without attack, chosen before the attack ran; "
            f"{fooled} of these {len(of_network)} attacked images fool it. Middle row: what was added, magnified "
            "around grey.",
            example_grid(of_network),
        )
    return pictures


def protocol_texts(evaluations: Sequence[Evaluation]) -> list[dict[str, str]]:
    """What each protocol does: its name, in plain words (text), and its threat, attacks and settings (detail)."""
    texts = {}
    for evaluation in evaluations:
        per_step = Threat.parse(evaluation.threat).per_step
        extent = "another one at every time step" if per_step else "the same at every time step"
        base = evaluation.protocol.removesuffix(ATTACKS_ONLY)
        left_out = " Here its panels and checks were left out." if evaluation.attacks_only else ""
        texts[evaluation.protocol] = {
            "name": evaluation.protocol,
            "text": evaluation.description
            if evaluation.network.own_gradient_only  # the explanations speak of gradient estimators
            else PROTOCOL_EXPLANATIONS.get(base, evaluation.description) + left_out,
            "detail": f"Threat {evaluation.threat}: a perturbation of at most {budget(evaluation.threat)}, {extent}. "
            f"Attacks: {', '.join(row.attack for row in evaluation.rows)}. Settings: {evaluation.description}.",
        }
    return list(texts.values())
