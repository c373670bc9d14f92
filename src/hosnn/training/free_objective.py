"""Free adversarial training: one backward pass gives the gradient of the weights and of the images.

Shapes: images [B, C, H, W], labels y [B], losses [B].
"""

from dataclasses import dataclass

from torch import Tensor, nn

from hosnn.errors import ConfigError
from hosnn.identity import identified
from hosnn.nn.modes import evaluating
from hosnn.rng import SampleRandom
from hosnn.robustness.pgd import PGD, uniform_in_ball
from hosnn.robustness.threats import Threat
from hosnn.training.objectives import Objective, TrainingLoss, check_per_step


@identified("FreeAdversarial")
@dataclass(frozen=True)
class FreeAdversarial(Objective):
    """Train on each batch several times in a row, while its perturbation moves along the gradient of each pass:

        weights  <- a step along the gradient of loss(x + d)
        d        <- project(d + eps steepest(gradient of the same loss at x + d))

    A replay costs one forward and one backward pass, half of what a step on FGSM images costs; so train for 1/replays
    of the epochs.  Validation images are attacked by PGD with as many steps of eps.
    replays  published: 8 at 8/255 on CIFAR-10, with the perturbation of one batch as the start of the next.  Ours
             starts each batch at a random point of the ball, so that a step depends on its number alone.
    Raises ConfigError for fewer than 2 replays.
    Source: Shafahi et al. 2019, "Adversarial training for free!".
    """

    threat: Threat
    loss: TrainingLoss
    replays: int = 8

    def __post_init__(self) -> None:
        if self.replays < 2:
            raise ConfigError(f"FreeAdversarial got replays = {self.replays}; expected at least 2, e.g. 8")

    @property
    def attack(self) -> PGD:
        """The attack on validation images."""
        return PGD(self.threat, steps=self.replays, step_size=1.0)

    def perturbed(self, network: nn.Module, x: Tensor, y: Tensor, rng: SampleRandom) -> Tensor:
        check_per_step(self.attack, x)
        if not network.training:
            with evaluating(network):
                return self.attack(network, x, y, rng)
        return self.threat.project(x + uniform_in_ball(self.threat.ball, x, rng.fold("start")), x)

    def moved(self, x: Tensor, perturbed: Tensor, gradient: Tensor) -> Tensor:
        ball = self.threat.ball
        return self.threat.project(perturbed + ball.eps * ball.steepest(gradient), x)
