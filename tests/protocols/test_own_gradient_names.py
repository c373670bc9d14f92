"""Names of attacks on networks without our layers."""

import pytest

from hosnn.protocols.applicability import without_estimators
from hosnn.protocols.builtin import protocol_by_name
from hosnn.robustness.threats import Threat


@pytest.mark.parametrize("threat", ["linf:8/255", "l2:1/2", "l1:3"])
def test_no_attack_by_a_networks_own_gradient_is_named_after_an_estimator(threat: str) -> None:
    protocol = without_estimators(protocol_by_name("standard", Threat.parse(threat)))
    names = [spec.name for spec in protocol.attacks]
    assert names and len(set(names)) == len(names)
    assert not [name for name in names if "ASSG" in name or "BPTT" in name]
