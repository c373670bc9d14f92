"""What one evaluation says in plain words, computed from its numbers: the finding, and what to hold against it."""

from hosnn.report.evaluation_tables import checks
from hosnn.report.reproduction_summary import NOTABLE, budget
from hosnn.results.check import Check
from hosnn.results.evaluation import Evaluation
from hosnn.results.roles import Strength
from hosnn.results.text import percent

NAMED = 3  # findings spelt out in one sentence; the others are counted


def finding(evaluation: Evaluation) -> str:
    """The finding in one sentence.  It begins with a failed check, and ends with a warning or what weakens it."""
    number = (
        f"under the {evaluation.protocol} protocol at {budget(evaluation.threat)}, {evaluation.model} keeps "
        f"{percent(evaluation.worst_case)} % of {evaluation.samples:,} images; without an attack it gets "
        f"{percent(evaluation.clean_accuracy)} % right"
    )
    weaker = weakness(evaluation)
    tail = f"; the evaluation is weaker than its name says, because {weaker}" if weaker else ""
    if evaluation.verdict == "fail":
        return (
            f"This number must not be believed, because {_spelt(evaluation, 'fail', 'fails', 'fail')}: {number}{tail}."
        )
    if evaluation.verdict == "warn":
        tail += f"; {_spelt(evaluation, 'warn', 'asks for a closer look', 'ask for a closer look')}"
    return f"{number[0].upper()}{number[1:]}{tail}."


def weakness(evaluation: Evaluation) -> str:
    """Why attacks could do less to this model than the protocol has to offer; empty if they could do all of it."""
    network = evaluation.network
    if not network.gradient:
        return "the model gives no gradient, so it could only be queried"
    if network.spiking == "foreign":
        return "its spikes come from layers of another library, which can be differentiated in that library's way only"
    if network.spiking == "unknown" and not evaluation.model_sha256:
        return "the model came as a plain function, so that nobody could look at what is inside"
    return ""


def remarks(evaluation: Evaluation) -> list[str]:
    """What a careful reader would hold against the number."""
    low, high = evaluation.worst_interval
    found = []
    if (high - low) / 2 > NOTABLE:
        found.append(
            f"A small sample: {evaluation.samples:,} images leave the worst case uncertain by "
            f"{50 * (high - low):.1f} points either way."
        )
    if evaluation.strength in (Strength.PUBLISHED_ATTACKS, Strength.FIRST_LOOK):
        found.append(
            f"The {evaluation.protocol} protocol is a weak attack; true robustness is lower or equal. Run a stronger "
            "protocol before quoting a number."
        )
    if evaluation.strength is Strength.GRADIENTS_ONLY:
        found.append(
            f"The {evaluation.protocol} protocol only follows gradients. Attacks that follow none may break more "
            "images: run the standard protocol before quoting a number."
        )
    if not evaluation.network.gradient:
        found.append(
            "Without gradients an attacker gropes in the dark. What survives queries alone need not survive somebody "
            "who finds a gradient, so the number may be much too high."
        )
    elif weakness(evaluation):
        found.append(
            "The search for the best surrogate gradient needs spiking layers of this package. Rebuilt with them, the "
            "same network could be attacked through every gradient estimator."
        )
    if evaluation.network.random:
        found.append(
            "The model is random: two looks at the same images differ. Its gradient has to be averaged over several "
            "looks (EOT), and a repeated evaluation gives somewhat other numbers."
        )
    if not evaluation.checks:
        found.append("No checks were run, so nothing here tells whether the attacks work on this model at all.")
    if evaluation.skipped:
        count = f"{len(evaluation.skipped)} attack{'s' if len(evaluation.skipped) > 1 else ''}"
        found.append(f"{count} of the protocol could not be run: {'; '.join(evaluation.skipped)}.")
    return found


def _spelt(evaluation: Evaluation, severity: str, one: str, many: str) -> str:
    """How many checks came out that way, and which."""
    found = [check for check in checks(evaluation) if check.severity == severity]
    verb = one if len(found) == 1 else many
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    named = "; ".join(_named(check) for check in found[:NAMED])
    return f"{len(found)} of {len(evaluation.checks)} checks {verb} ({named}{more})"


def _named(check: Check) -> str:
    return f"{check.name}: {check.figure}" if check.figure else check.name
