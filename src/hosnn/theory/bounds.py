"""What is bounded for certain: laws of the spiking neuron itself, without any linearisation.

Let I, U and k be the largest |I[t]|, the largest |u*[t]| and the adaptation, a = 1 - 1/τ_m, from rest.

Hard reset.  |v| <= |u|, so |u| <= τ_m I: whatever the threshold does, and for LIF as well.

Soft reset, k >= 0.  Put M = τ_m I.  (1) u >= -M: a spike leaves v = u - θ > 0 if θ >= 0 and v > u if θ < 0.
(2) If θ[t] < -C, C = (U + I)/a + M, then a spike came (else θ >= u >= -M), so u[t+1] >= a (C - M) - I = U, the error is
not negative and the threshold does not fall further; hence θ >= -B, B = C + k (M + U).  (3) A spike adds at most B to
the membrane, so u <= τ_m (a B + I).  A leak of the threshold changes none of the steps.

The threshold has no such bound from above unless it leaks: a silent neuron with a lasting error raises it for ever.
"""

import math

from hosnn.errors import ConfigError
from hosnn.spiking.state import Dynamics, Reset


def membrane_bound(dynamics: Dynamics, current: float, signature: float, adaptation: float) -> float:
    """An upper bound of |u[t]| over all time, for LIF (adaptation 0) and TA-LIF.

    current  largest |I[t]|      signature  largest |u*[t]|      adaptation  k >= 0
    """
    if min(current, signature, adaptation) < 0:
        raise ConfigError(
            f"got current {current}, signature {signature}, adaptation {adaptation}; expected none below 0"
        )
    if dynamics.tau_membrane == math.inf:  # without a leak a membrane may grow at every step
        return math.inf
    free = dynamics.tau_membrane * current
    if dynamics.reset is Reset.HARD or adaptation == 0 or dynamics.membrane_decay == 0:
        return free
    lowest = (signature + current) / dynamics.membrane_decay + free + adaptation * (free + signature)
    return dynamics.tau_membrane * (dynamics.membrane_decay * lowest + current)


def threshold_bound(
    dynamics: Dynamics, current: float, signature: float, adaptation: float, retention: float = 1.0
) -> float:
    """An upper bound of |θ[t] - θ[0]|, k (max|u| + U)/(1 - ρ); inf without a leak (ρ = 1) unless k = 0."""
    if adaptation == 0:
        return 0.0
    if retention >= 1:
        return math.inf
    largest = membrane_bound(dynamics, current, signature, adaptation)
    return adaptation * (largest + signature) / (1 - retention)
