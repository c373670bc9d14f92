"""The protocol for recordings: its threat, its attacks, and a whole evaluation of a small network."""

import pytest
import torch

import hosnn
from hosnn.errors import ConfigError
from hosnn.nn.convnet import ConvNet
from hosnn.nn.normalisation import Norm
from hosnn.protocols.builtin import PROTOCOLS, protocol_by_name
from hosnn.robustness.threats import Threat
from hosnn.spiking.gradient_rule import bptt

THREAT = Threat.parse("events:6/4")


def network() -> hosnn.SpikingNetwork:
    torch.manual_seed(0)
    blueprint = ConvNet(
        "4C3-P2-8-3", (2, 12, 12), (0.0, 0.0), (1.0, 1.0), steps=3, norm=Norm.NONE, rule=bptt(), spiking_output=False
    )
    return blueprint.build().eval()


def recordings(samples: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 5, (samples, 3, 2, 12, 12), generator=rng)
    frames = counts * (torch.rand(counts.shape, generator=rng) < 0.2) / 4
    with torch.no_grad():
        return frames, network()(frames).argmax(1)


def test_recordings_are_evaluated_under_a_budget_of_events() -> None:
    result = hosnn.evaluate(network(), recordings(), protocol_by_name("events", THREAT), threads=0)
    assert result.threat == "events:6/4"
    assert [row.attack for row in result.rows] == [
        "random events",
        "greedy, BPTT",
        "greedy, ASSG",
        "greedy, triangle 0.5",
    ]
    assert result.clean_accuracy == 1
    assert result.worst_case <= min(result.accuracy(row.attack) for row in result.rows) < 1
    (panel,) = result.panels
    assert [row.threat for row in panel.rows] == [f"events:{count}/4" for count in (2, 3, 6, 12, 24)]
    (fidelity,) = [check.figure for check in result.checks if check.name == "gradient fidelity"]
    assert any(f"eps = {count / 4:.3g}" in fidelity for count in (2, 6, 24))  # whole events
    hosnn.Evaluation.from_json(result.to_json())


def test_the_report_speaks_of_events() -> None:
    from hosnn.report.evaluation_html import render_evaluation

    result = hosnn.evaluate(network(), recordings(), protocol_by_name("events", THREAT), threads=0)
    page = render_evaluation(result)
    assert "events:6/4" in page and "6 events" in page


def test_frames_that_hold_no_events_are_refused() -> None:
    x, y = recordings()
    with pytest.raises(ConfigError, match="not multiples of 1/4; expected frames that hold numbers of events"):
        hosnn.evaluate(network(), (x * 0.9, y), protocol_by_name("events", THREAT))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_threats_and_protocols_have_to_fit(name: str) -> None:
    with pytest.raises(ConfigError, match="only the protocol events"):
        protocol_by_name(name, THREAT)
    with pytest.raises(ConfigError, match="protocol events got the threat linf:8/255"):
        protocol_by_name("events", Threat.parse("linf:8/255"))


def test_frames_divided_by_a_smaller_maximum_are_refused() -> None:
    """Binary frames are multiples of 1/8 too, but what events:20/8 calls an event is an eighth of theirs."""
    x, y = recordings()
    with pytest.raises(ConfigError, match=r"every number of events is a multiple of 4; expected .* events:6/1"):
        hosnn.evaluate(network(), ((x > 0).float(), y), protocol_by_name("events", THREAT))
    with pytest.raises(ConfigError, match=r"multiple of 2; expected .* events:6/4 if they hold 2"):
        hosnn.evaluate(network(), (x, y), protocol_by_name("events", Threat.parse("events:6/8")))


def test_random_events_are_checked_like_noise() -> None:
    result = hosnn.evaluate(network(), recordings(), protocol_by_name("events", THREAT), threads=0)
    assert "random noise" in {check.name for check in result.checks}
