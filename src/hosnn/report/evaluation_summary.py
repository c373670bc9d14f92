"""What one evaluation shows in plain words, computed from its numbers: the finding, and what limits it."""

from hosnn.protocols.applicability import undefined
from hosnn.report.evaluation_tables import sorted_checks
from hosnn.report.phrases import NOTABLE, budget
from hosnn.results.check import Check
from hosnn.results.evaluation import Evaluation
from hosnn.results.roles import Strength
from hosnn.results.text import ATTACKS_ONLY, percent
from hosnn.robustness.threats import Threat

TIES_NAMED = 0.005
"""A larger difference that ties make is named with the number."""

NAMED_CHECKS = 3
"""Checks named in one sentence; the others are counted."""


def finding(evaluation: Evaluation) -> str:
    """The finding in one sentence: failed checks first, then the number, then what weakens it and what warns."""
    number = (
        f"under {_protocol(evaluation)} at {budget(evaluation.threat)}, {evaluation.model} classifies "
        f"{percent(evaluation.worst_case)} % of {evaluation.samples:,} images correctly after every attack"
        f"{_of_ties(evaluation)}, and {percent(evaluation.clean_accuracy)} % without attack"
    )
    reason = weakness(evaluation)
    tail = f"; the evaluation is weaker than the protocol intends, because {reason}" if reason else ""
    if evaluation.verdict == "fail":
        failed = _check_list(evaluation, "fail", "fails", "fail")
        return f"This number must not be believed, because {failed}: {number}{tail}."
    if evaluation.verdict == "warn":
        tail += f"; {_check_list(evaluation, 'warn', 'warns', 'warn')}"
    return f"{number[0].upper()}{number[1:]}{tail}."


def _protocol(evaluation: Evaluation) -> str:
    if evaluation.attacks_only:
        return f'"{evaluation.protocol}", a worst case without panels and checks,'
    return f"the {evaluation.protocol} protocol"


def _of_ties(evaluation: Evaluation) -> str:
    """What ties change, where it is notable: " (53.1 % if ties count by the order of the classes)"."""
    by_argmax = evaluation.worst_case_by_argmax
    if by_argmax is None or by_argmax - evaluation.worst_case <= TIES_NAMED:
        return ""
    return f" ({percent(by_argmax)} % if the order of the classes decides where the highest logit is shared)"


def weakness(evaluation: Evaluation) -> str:
    """Why not every attack of the protocol could be used on this model; "" if all could."""
    network = evaluation.network
    if not network.gradient:
        return "the model gives no gradient, so it could only be queried"
    if network.spiking == "foreign":
        source = f"another library's layers or functions{f' ({network.evidence})' if network.evidence else ''}"
        return f"its spikes come from {source}, which can only be differentiated by their own gradient"
    if network.spiking == "unknown" and not evaluation.model_sha256:
        return "the model is a plain function, whose layers cannot be examined"
    if network.spiking == "hosnn" and network.evidence:
        return f"not all spikes come from layers of this package ({network.evidence})"
    if network.spiking == "unknown" and network.evidence:
        return f"the model may spike ({network.evidence}), and only its own gradient was followed"
    return ""


def limitations(evaluation: Evaluation) -> list[str]:
    """What limits the number, for a careful reader."""
    low, high = evaluation.worst_interval
    base = evaluation.protocol.removesuffix(ATTACKS_ONLY)
    sentences = []
    if (high - low) / 2 > NOTABLE:
        sentences.append(
            f"A small sample: {evaluation.samples:,} images leave the worst case uncertain by "
            f"{50 * (high - low):.1f} points either way."
        )
    if evaluation.strength in (Strength.PUBLISHED_ATTACKS, Strength.FIRST_LOOK):
        sentences.append(
            f"The {base} protocol is a weak attack; true robustness is lower or equal. Run a stronger "
            "protocol before quoting a number."
        )
    if evaluation.strength is Strength.GRADIENTS_ONLY:
        sentences.append(
            f"The {base} protocol only follows gradients. Attacks without gradients may break more "
            "images: run the standard protocol before quoting a number."
        )
    if not evaluation.network.gradient:
        sentences.append(
            "Only queries were possible, without gradients. An image that withstands queries need not withstand an "
            "attacker who finds a way to differentiate the model, so the number may be much too high."
        )
    elif weakness(evaluation):
        sentences.append(
            "The search for the best surrogate gradient needs spiking layers of this package. Rebuilt with them, the "
            "same network could be attacked through every gradient estimator."
        )
    if evaluation.network.random:
        sentences.append(
            "The model is randomised: two passes of the same images give different scores. Its gradient is averaged "
            "over several passes (EOT), and repeating the evaluation gives slightly different numbers."
        )
    sentences += [*_of_norm(evaluation), *_of_eight_bits(evaluation)]
    if evaluation.attacks_only:
        sentences.append(
            f"Only the attacks of the {base} protocol were run. Its checks would show whether they work on this model: "
            "run the whole protocol before quoting a number."
        )
    elif not evaluation.checks:
        sentences.append("No checks were run, so nothing shows whether the attacks work on this model at all.")
    if evaluation.skipped:
        count = f"{len(evaluation.skipped)} attack{'s' if len(evaluation.skipped) > 1 else ''}"
        sentences.append(f"{count} of the protocol could not be run: {'; '.join(evaluation.skipped)}.")
    return sentences


def _of_norm(evaluation: Evaluation) -> list[str]:
    """Which attacks the protocol has in the threat's norm, where some of its attacks are not defined in it."""
    norm, missing = Threat.parse(evaluation.threat).ball.name, undefined(Threat.parse(evaluation.threat))
    if not missing or evaluation.strength not in (Strength.PUBLISHABLE, Strength.EXHAUSTIVE):
        return []
    attacks = dict.fromkeys(attack.method or attack.attack for attack in evaluation.rows)
    return [
        f"Not defined in {norm} and left out: {', '.join(missing)}. The attacks in {norm} are {', '.join(attacks)}."
    ]


def _of_eight_bits(evaluation: Evaluation) -> list[str]:
    """What is left of the strongest attack of the panel of steps if adversarial images must have 8 bits."""
    panel, steps = evaluation.panel("8bit"), evaluation.panel("steps")
    if not panel or not steps:
        return []
    rounded, free = (sum(evaluation.correct_after(result)) for result in (panel[-1], steps[-1]))
    return [
        "Adversarial images here have pixels of any value, which an image file rounds to 8 bits. Restricted to images "
        f"of 8 bits, {steps[-1].attack} leaves {rounded:,} of {len(panel[-1].predictions):,} images correct, and "
        f"{free:,} without that restriction."
    ]


def _check_list(evaluation: Evaluation, severity: str, one: str, many: str) -> str:
    """How many checks have a severity, and which: "1 of 5 checks fails (large eps: 14.0 %)"."""
    checks = [check for check in sorted_checks(evaluation) if check.severity == severity]
    verb = one if len(checks) == 1 else many
    more = f"; and {len(checks) - NAMED_CHECKS} more" if len(checks) > NAMED_CHECKS else ""
    named = "; ".join(_named(check) for check in checks[:NAMED_CHECKS])
    return f"{len(checks)} of {len(evaluation.checks)} checks {verb} ({named}{more})"


def _named(check: Check) -> str:
    return f"{check.name}: {check.figure}" if check.figure else check.name
