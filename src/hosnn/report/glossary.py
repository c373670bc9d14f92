"""Explanations for newcomers: what each protocol does, and what the terms on a page mean."""

import re
from typing import NamedTuple

from hosnn.protocols.attacks import SQUARE_QUERIES


class Term(NamedTuple):
    """A term, the pattern that finds it in a text, and what it means."""

    term: str
    pattern: str
    meaning: str


PROTOCOL_EXPLANATIONS = {
    "paper": "The HoSNN authors' own evaluation, for comparison with their numbers only. The attacker "
    "differentiates the network by the rule it was trained with (TSSL-BP: no gradient through leak, reset or "
    "threshold); the image is repeated over time before the attack, so that every time step has a perturbation of its "
    "own; and pixels may leave their valid range.",
    "smoke": "A short protocol of ours, for a first impression. The attacker uses the whole gradient, through leak, "
    "reset and threshold, and has one perturbation per image, which stays a valid image.",
    "sweep": "Many steps and several starts with the whole gradient, repeated for several widths of the surrogate "
    "derivative; one perturbation per image, which stays a valid image. An image counts as robust only if it "
    "withstands all of them.",
    "standard": "The protocol for a robust accuracy to quote. A sequence of different attacks, each of which is given "
    "only the images that are still correct after those before it: SA-PGD with the ASSG surrogate, which fits itself "
    "to each neuron, with several further runs on the images nearest the boundary; the same, shorter, through the two "
    "gradient estimators that a search on 100 images selected for this network; APGD with two losses (cross-entropy "
    "and DLR), 100 steps each through full BPTT; an attack on the adapting thresholds, where there are any; transfer "
    f"from other networks, where some were given; and Square with {SQUARE_QUERIES} queries, which needs no gradient. "
    "An image counts as robust only if it withstands all of them, and its label never only shares the highest logit.",
    "quick": "A short protocol for screening networks: SA-PGD with the ASSG surrogate, APGD through a triangular "
    "surrogate, and APGD on the cross-entropy through full BPTT, each given only the images that are still correct "
    "after those before it.",
    "full": "The most thorough protocol, meant for all test images. What the standard protocol does, with 5 restarts "
    "and through the whole surrogate ensemble and every other gradient estimator; AutoAttack's four attacks at their "
    "published settings; and, on 200 images and outside the worst case, HopSkipJump, which sees only the predicted "
    "class. Each attack is given only the images that are still correct after those before it; an image counts as "
    "robust only if it withstands all of them. The binarization test then counts, on 50 images, how often the attacks "
    "find an adversarial image that is known to exist.",
}

GLOSSARY = (
    Term(
        "LIF",
        r"(?<!TA-)\bLIF\b",
        "Leaky integrate-and-fire neuron. Its membrane potential collects input and leaks; above a fixed threshold it "
        "spikes and is reset.",
    ),
    Term(
        "TA-LIF",
        r"\bTA-LIF\b",
        "Threshold-adapting LIF, the neuron of HoSNN. Its threshold moves with the gap between its membrane and its "
        "signature, at a rate learned in training.",
    ),
    Term(
        "Signature",
        r"[Ss]ignature",
        "Neural dynamic signature: a neuron's mean membrane potential at each time step over clean training images, "
        "recorded once from a trained LIF network.",
    ),
    Term(
        "Eps",
        r"\beps\b",
        "The attacker's budget. At Linf 8/255 every pixel may change by at most 8 of its 255 grey levels.",
    ),
    Term(
        "FGSM",
        r"\bFGSM\b",
        "Fast gradient sign method: one step of size eps in the direction that raises the loss most. Training on such "
        "images is adversarial training.",
    ),
    Term(
        "R-FGSM",
        r"\bR-FGSM\b",
        "FGSM from a random point near the image, with the rest of the budget.",
    ),
    Term(
        "BIM",
        r"\bBIM\b",
        "Basic iterative method: steps of FGSM from the image itself, each brought back inside the budget.",
    ),
    Term(
        "PGD",
        r"(?<!SA-)\bPGD\b",
        "Projected gradient descent: many smaller steps, each brought back inside the budget. PGD-7 takes seven of "
        "them.",
    ),
    Term(
        "APGD",
        r"\bAPGD\b",
        "PGD that sets its own step size: it halves the step when the loss stops rising and continues from the best "
        "point so far. APGD-CE raises the cross-entropy, APGD-DLR the DLR loss (arXiv 2003.01690).",
    ),
    Term(
        "DLR",
        r"\bDLR\b",
        "Difference of logits ratio: a loss that does not change when all scores are multiplied by the same number, so "
        "that a network cannot hide its gradient behind large scores.",
    ),
    Term(
        "SA-PGD",
        r"\bSA-PGD\b",
        "PGD for spiking networks, whose gradients differ greatly in size: each pixel takes a step of its own, scaled "
        "by its gradient over the last iterations (stable adaptive PGD, arXiv 2512.22522).",
    ),
    Term(
        "ASSG",
        r"\bASSG\b",
        "Adaptive sharpness surrogate gradient: the surrogate's width follows how far each neuron usually is from its "
        "threshold, so that few gradients vanish (arXiv 2512.22522).",
    ),
    Term(
        "FAB",
        r"\bFAB\b",
        "Fast adaptive boundary: instead of raising a loss within the budget, it looks for the nearest image on the "
        "other side of the decision boundary (arXiv 1907.02044).",
    ),
    Term(
        "Square",
        r"\bSquare\b",
        "An attack without gradients: it changes random squares of pixels and keeps what raises the loss. If it "
        "breaks images that gradient attacks do not, the gradient misleads them (arXiv 1912.00049).",
    ),
    Term(
        "HopSkipJump",
        r"\bHopSkipJump\b",
        "An attack that sees nothing but the predicted class: it walks along the decision boundary towards the image "
        "(arXiv 1904.02144).",
    ),
    Term("White-box", r"\bwhite-box\b", "An attack that sees the whole network and differentiates it."),
    Term("Query", r"\bquer(y|ies|ied)\b", "One image shown to the model to read its answer, without any gradient."),
    Term(
        "Transfer",
        r"\b[Tt]ransfer\b",
        "An attack crafted on another model, such as one with other neurons or another seed, and then applied to this "
        "one.",
    ),
    Term(
        "AutoAttack",
        r"\bAutoAttack\b",
        "The usual benchmark for networks without spikes: APGD-CE, APGD-T, FAB-T and Square, one after the other; T: "
        "towards each of nine wrong classes in turn (arXiv 2003.01690).",
    ),
    Term(
        "EOT",
        r"\bEOT\b",
        "Expectation over transformation: against a randomised model the attacker averages the gradient over several "
        "passes of the same image.",
    ),
    Term("Restart", r"\brestarts?\b", "The same attack once more from another random start."),
    Term(
        "Surrogate gradient",
        r"\b[Ss]urrogates?\b",
        "A spike is a jump and has no useful derivative, so training and attacks replace its derivative by a smooth "
        "bump, whose shape and width are a choice.",
    ),
    Term(
        "Surrogate ensemble",
        r"\b[Ss]urrogate ensemble\b",
        "The same attack through many surrogate gradients. Which of them is strongest differs from network to "
        "network, so a single one overstates the robustness of some.",
    ),
    Term(
        "Gradient estimator",
        r"\bestimators?\b",
        "The way in which an attacker differentiates a spiking network: which surrogate gradient replaces the "
        "derivative of a spike, and which paths the gradient takes. The network's predictions stay the same.",
    ),
    Term(
        "BPTT",
        r"\bBPTT\b",
        "Backpropagation through time: the gradient through all time steps, with the paths through leak, reset and "
        "threshold left open.",
    ),
    Term(
        "TSSL-BP",
        r"\bTSSL-BP\b",
        "The HoSNN authors' training rule: BPTT with the paths through leak, reset and threshold cut (Zhang and Li, "
        "NeurIPS 2020).",
    ),
    Term(
        "Activation backward",
        r"\b[Aa]ctivation backward\b",
        "A gradient of spiking layers as if each neuron passed on a rectified mean current in place of spikes.",
    ),
    Term(
        "BPTR",
        r"\bBPTR\b",
        "Backward pass through rate: the gradient of a neuron's mean spikes passes straight through if it fired at "
        "all, and not otherwise (SNN-RAT, NeurIPS 2022).",
    ),
    Term(
        "RGA",
        r"\bRGA\b",
        "Rate gradient approximation: the attacker differentiates a neuron's firing rate as a piecewise linear curve "
        "of its mean input (CVPR 2023).",
    ),
    Term(
        "HART",
        r"\bHART\b",
        "Hybrid attack by rate and temporal information: a surrogate gradient at every time step, averaged over all of "
        "them (ICLR 2024).",
    ),
    Term(
        "PDSG",
        r"\bPDSG\b",
        "Potential-dependent surrogate gradient: centre and width of the surrogate follow how widely each channel's "
        "membranes are spread (arXiv 2503.03272).",
    ),
    Term(
        "Panel",
        r"\b[Pp]anels?\b",
        "Further attacks, each run in full on the first images, for curves, tables and checks. They do not enter the "
        "worst case.",
    ),
    Term(
        "Binarization test",
        r"\b[Bb]inarization test\b|\b[Aa]ctive test\b",
        "The network gets a new last layer for which an adversarial image is known to exist within the budget. An "
        "attack that does not find it is too weak for this network. Older results call it active test.",
    ),
    Term(
        "Masked gradient",
        r"\b[Mm]asked|\b[Mm]asking\b",
        "A gradient that is zero, noisy or points astray, so that attacks fail although adversarial images exist. It "
        "looks like robustness and is none.",
    ),
)


def terms_in(text: str) -> list[Term]:
    """The terms of the glossary that a text uses, and those that their meanings use in turn."""
    terms: list[Term] = []
    while True:
        whole_text = " ".join((text, *(term.meaning for term in terms)))
        more = [term for term in GLOSSARY if re.search(term.pattern, whole_text)]
        if more == terms:
            return terms
        terms = more
