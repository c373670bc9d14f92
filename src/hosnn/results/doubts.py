"""Why a comparison of two evaluations may not say what it seems to say."""

from hosnn.results.evaluation import Evaluation
from hosnn.results.paired_test import CLEAN


def doubts(first: Evaluation, second: Evaluation, attack: str | None) -> tuple[str, ...]:
    """Why the numbers of two evaluations may not be what they seem."""
    reasons = []
    without_gradient = [evaluation.model for evaluation in (first, second) if not evaluation.network.gradient]
    if without_gradient and attack is None:
        reasons.append(f"{' and '.join(without_gradient)} gave no gradient and met fewer attacks")
    weakly = [evaluation.model for evaluation in (first, second) if _by_own_gradient_only(evaluation)]
    if len(weakly) == 1 and attack is None:
        reasons.append(
            f"{weakly[0]} was attacked through its own gradient alone, without the estimators that the other met, and "
            "may be less robust than it seems"
        )
    transfer = any(row.kind == "transfer" for evaluation in (first, second) for row in evaluation.rows)
    if attack is None and first.settings != second.settings and not transfer:
        reasons.append(
            f"{first.model} and {second.model} were evaluated under different settings of {first.protocol}, such as "
            "those of another version of hosnn"
        )
    lengths = [] if attack in (None, CLEAN) else [evaluation.row(attack).steps for evaluation in (first, second)]
    if len(set(lengths)) > 1:
        reasons.append(f"{first.model} met {lengths[0]:,} steps of {attack} and {second.model} {lengths[1]:,}")
    failed = [evaluation.model for evaluation in (first, second) if evaluation.verdict == "fail"]
    if failed:
        plural = "s" if len(failed) > 1 else ""
        reasons.append(f"the evaluation{plural} of {' and '.join(failed)} failed {'their' if plural else 'its'} checks")
    return tuple(reasons)


def _by_own_gradient_only(evaluation: Evaluation) -> bool:
    """Whether a network that may be spiking met no attack through an estimator of its gradient."""
    network = evaluation.network
    return network.gradient and network.own_gradient_only and network.spiking in ("foreign", "unknown")
