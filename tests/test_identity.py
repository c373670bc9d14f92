"""Hashes of protocols and experiments are those of the results and checkpoints stored in the past.

A change of any of these numbers means that stored results no longer match the settings they were made with.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import nn

from hosnn.evaluation.ablations import ablation_protocol
from hosnn.identity import digest, identified, identity_fields, identity_name, identity_text
from hosnn.nn.convnet import ConvNet
from hosnn.nn.lenet import LeNet
from hosnn.nn.resnet import ResNet
from hosnn.protocols.builtin import PROTOCOLS, protocol_by_name
from hosnn.recipes.resolve import built_in, resolve
from hosnn.robustness.pgd import PGD, fgsm
from hosnn.robustness.threats import DEFAULT_THREAT, Threat
from hosnn.signature import calibrate, homeostatic
from hosnn.training.configuration import describe

SETTINGS = {
    "smoke linf:8/255": "1cfc1a35c26ca8bf065316f7aebac28052c276eeb3469b70154f93c87ebf81af",
    "paper linf:8/255": "27f25add7bb22065754b5b92397b454055a60442e92fc3f695f2a41a5316fdaa",
    "choices linf:8/255": "a5e1efffcf25773738aa963c970b7c8d8b8dcca75e5a6ba5419afc33720c36a8",
    "sweep linf:8/255": "469e00eb24d41bbfe37c75071e6eb139b7dcbf1d72895b6582484b69c7b60456",
    "standard linf:8/255": "d82b6dba05ac39fba03bd4271ebeb409096dc552c610cbebe3cf8f6e16910854",
    "full linf:8/255": "96db5d82ac85e2b76d65dbd2277afa32300fea9e558fa85036588e8243a0edc6",
    "controls linf:8/255": "8db80e04dd09e3af1a7c0771892779b5bdac080f9114d4714225d8dc874f4020",
    "smoke linf:2/255": "a94aedaa1a8ec1b14e087073c88ccdf970cf54910d91d8f4a78899b5e4becfa6",
    "paper linf:2/255": "81387c73b2d9cbae1523f706bbe50b1f58172074b39da503f73b3643155ba486",
    "choices linf:2/255": "33d0c782372d83c37c2e63c6a8c9c920f3a5cf91ef6cdf6e807bf9136acdb6e9",
    "sweep linf:2/255": "960fce6e1c262174221b1b5634c61690a83879fbdb6510a1066457bbb3d7598b",
    "standard linf:2/255": "f38f3f43199a1ab595621a9661eea769f4253fde1fab4b0e16a82d1c75e2d728",
    "full linf:2/255": "31a57d200f9fbc7d648013bc47860472652564f1d13d7ae8fc70ed48dd7c5f11",
    "controls linf:2/255": "594b4a29a17f4ed53e8484bf63deebafb53c8d5ca6a73ec4f770a3bd65cb6ea3",
    "smoke l2:1.5": "b51d962ed6de10c8862cc6da05050ad3d0c87eddcd0cf0948101323b0ff840a0",
    "paper l2:1.5": "debf5786dac56499868067929d8df3235b71f79335ebf05592d632b1ab8206cf",
    "choices l2:1.5": "b74481f2e06cb2fcb1413e31474fb7766df01965fc1c2e65b28e5041bb2e59bd",
    "sweep l2:1.5": "83d5483209854e12003131c7222d7f78adbe454d8fa83a3e1f58536d3b4e0bca",
    "standard l2:1.5": "eece61cacf6d42991a20dee8c9fed8e4427e3179f3e161678793c8c6bca00eb0",
    "full l2:1.5": "1b803be2dee0295baebe68066e8175c6e108aaa8729feb027336d344fe39e25c",
    "controls l2:1.5": "ae492163650df6af85246a77c58985451d87c611fd40bebe6b4880ac37d41dea",
}
"""`Protocol.settings` by protocol and threat."""

EXPERIMENTS = {
    "cifar10:homeostatic_clean": "548ccdf2509599dbaded069cdd0268c9663dbf79dd8620e38fbed3034fe3b632",
    "cifar10:homeostatic_fgsm": "31bb58f911a94fc44b4511a23deff94071b95bc1a30476ca1ba5ab9ce87dd86e",
    "cifar10:lif_clean": "05333c59e49e8cdf893683b04abcdb57b537a2668ba4533c6a1673d5a4dabc58",
    "cifar10:lif_fgsm": "f8577adbc333e97859330a831779fbe920997f545847d12b31acd4ec793bb0ff",
    "cifar10:start": "812312f240f9aee221c92e368be2ba85c9da67fe8a3a76e9b9f02010c08aeb86",
    "cifar100:homeostatic_clean": "5d5f07f932a0e875202e61f8e455444063234003fdf171201a1afcaa4be6d509",
    "cifar100:homeostatic_fgsm": "babacb8fb870d52251d5c9206244bfd9abf7129c50d5006eea082577c27f9b0e",
    "cifar100:homeostatic_fgsm_4": "b5b81a3863a1797b6513a8b392eda31ec1bd699921c58c62778e3300220e78aa",
    "cifar100:lif_clean": "1dcd446c9c3b862d10bd3a4169e3a94057061f2cc9bf623c36370b853cfbc93a",
    "cifar100:lif_fgsm": "ce5b9958516e3d5351953e4d02cfcd63ba26b9ffa5e13810cc26feed65b7a563",
    "cifar100:lif_fgsm_4": "017079010dba3a60452fb593a1052fbfd1d046d086835abdd2f1b0d39dc08c39",
    "cifar100:start": "7b6fefe3428d703353028465a3efa091fe663f0d276d347dc7828671a1521c05",
    "cifar10_small:homeostatic_clean": "de761e3185e72e1b78643b913e8512e2ef2a47691216490a7288ebed25fc98a4",
    "cifar10_small:homeostatic_fgsm": "1bcb59b15b1260f704092cfd69a034e840e4f73948b8ef7bc722204e7ebc3f16",
    "cifar10_small:lif_clean": "37cc32fb5a3abc18e494d7dbfeb3f7f6984878c348ad4b5cc129d0d2cecc1e21",
    "cifar10_small:lif_fgsm": "b772085a36871581d4cfc686bb411b9787d9ea6ced642b93e6c0180224b1f4a7",
    "cifar10_small:start": "fabdb48f67e75fcfef9377505cded94816082b07344c28344862e07e2faf5c38",
    "demo:homeostatic_clean": "ae7d32a7f2e17a07463cdca3c82d2627c4ecee73e7e85e9adb605ced39b1c54a",
    "demo:homeostatic_fgsm": "9c8967c68883b1a0cd2dfa71bca65fe3b7eba97d311d01f0b6d9d0e21091e2ef",
    "demo:lif_clean": "1c03bc20bcf3a9d5ff2b5ab85ab25dbc2c4da5d7ab00f5f835462514c978b512",
    "demo:lif_fgsm": "0a7b0fba7a62e5eb25d356b741cbe372228c3e545c8b9430b3fb0094df439f13",
    "fashion_mnist:homeostatic_clean": "6cbb59b579363649932b67985cf84adeec38b60459d657f2b35d14066afe86f7",
    "fashion_mnist:homeostatic_fgsm": "d5960d0e67f78cf81adf8efce36da80586d5a3e296956b14335d8d9ecfb0ccf0",
    "fashion_mnist:lif_clean": "92c877336e4331b3648faf7f84e04342129fa85da8816b1c96661bb2187e4e89",
    "fashion_mnist:lif_fgsm": "8ee57e9f4a2ec1b22ab26b9e51c08c794ab84b80f9226793966aff867caf3c6d",
    "fashion_mnist:start": "9bd333e6dbfbc4d26f01723bd4d1f4082a3bd4074441fba45e924f7996ac2796",
    "fashion_mnist:thresholds_fgsm": "07145fefb5a7ca74b999f98bd00d327e2abbb2b4724d99c86b07f558c000ddfc",
    "svhn:homeostatic_clean": "fc98860b4e6753a319c7d7662acd65b24b05462562d16d9d993e3025979626d7",
    "svhn:homeostatic_fgsm": "a15e469d8c15e1a860aa10aa79854edda31d948b404c20921532166ea5e1ea5c",
    "svhn:lif_clean": "0fd8da69300255ed566819aedb80e2a4f4022247d0ac722237f62b2e18ae8518",
    "svhn:lif_fgsm": "338f4c49869605026f24b05d81e3dd0ce6c6680e8fe64404550cf7d032486089",
    "svhn:start": "8b4f42f93ac2ea34f618d22eca5852e563f24ccf16ba067b813d2b89981966b2",
}
"""`Experiment.identity` by recipe."""

TRANSFER = ("standard", "full")
RESULTS = Path(__file__).parents[1] / "docs" / "results"


def settings_of(name: str) -> str:
    made, threat = name.split(" ")
    if made == "controls":
        return ablation_protocol(Threat.parse(threat)).settings
    return protocol_by_name(made, Threat.parse(threat)).settings


def small_network() -> nn.Module:
    network = LeNet(channels=(2, 3), hidden=8).build()
    return homeostatic(network, calibrate(network, [torch.rand(4, 1, 28, 28)]))


@pytest.mark.parametrize("name", SETTINGS)
def test_protocols_have_the_settings_of_stored_results(name: str) -> None:
    assert settings_of(name) == SETTINGS[name]


def test_recipes_have_the_identities_of_stored_checkpoints() -> None:
    assert set(EXPERIMENTS) <= set(built_in())
    assert {recipe: resolve(recipe).identity for recipe in EXPERIMENTS} == EXPERIMENTS


def test_the_structure_of_networks_is_written_as_before() -> None:
    """A source of transfer is part of a protocol's settings."""
    structure = "e8ac955ac74b94d0aca6d467f08163ace1a5270ec4132943d03ee320d5245c8e"
    assert digest(LeNet(channels=(2, 3), hidden=8).build()) == structure
    for blueprint in (LeNet(), ConvNet("4C3-P2-8", (1, 8, 8), (0.5,), (0.5,)), ResNet()):
        network = blueprint.build()
        assert identity_text(network) == repr(network)


STORED = (
    ("paper", "fashion-mnist/comparison.json"),
    ("sweep", "fashion-mnist/comparison.json"),
    ("choices", "fashion-mnist/standard/homeostatic-clean/choices.json"),
    ("choices", "fashion-mnist/standard/lif-clean/choices.json"),
)
"""Results made with the protocols as they are today; others in `docs/results` were made with earlier ones."""


@pytest.mark.parametrize(("name", "path"), STORED)
def test_stored_results_are_those_of_the_protocols_of_today(name: str, path: str) -> None:
    content = json.loads((RESULTS / path).read_text(encoding="utf-8"))
    stored = [cell["evaluations"][name] for cell in content["cells"]] if "cells" in content else [content]
    assert {evaluation["settings"] for evaluation in stored} == {protocol_by_name(name, DEFAULT_THREAT).settings}


def reached(value: Any) -> Iterator[Any]:
    """Classes and functions that a value's identity is made of."""
    if isinstance(value, nn.Module):
        for module in value.modules():
            yield type(module)
            yield from (part for content in vars(module).values() if is_dataclass(content) for part in reached(content))
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for _, content in identity_fields(value):
            yield from reached(content)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from reached(each)
    elif isinstance(value, Enum):
        yield type(value)
    elif isinstance(value, FunctionType):
        yield value


def every_protocol() -> Iterator[Any]:
    source = small_network()
    for threat in map(Threat.parse, ("linf:8/255", "l2:1.5", "l1:12", "linf:8/255/step")):
        for name in PROTOCOLS:
            made = protocol_by_name(name, threat, {"source": source} if name in TRANSFER else None)
            yield from (made.attacks, made.panels, made.search)


def declared() -> set[Any]:
    """Our classes and functions that identities of built-in protocols and recipes are made of."""
    values = (*every_protocol(), *map(resolve, built_in()))
    return {part for value in values for part in reached(value) if part.__module__.startswith("hosnn.")}


def test_every_class_and_function_of_ours_in_an_identity_declares_its_name() -> None:
    assert {part.__qualname__ for part in declared() if "identity_name" not in vars(part)} == set()


@contextmanager
def renamed(parts: set[Any]) -> Iterator[None]:
    """Other names in the code for classes and functions, for a while."""
    names = {part: (part.__name__, part.__qualname__) for part in parts}
    try:
        for number, part in enumerate(parts):
            part.__name__ = part.__qualname__ = f"Renamed{number}"
        yield
    finally:
        for part, original in names.items():
            part.__name__, part.__qualname__ = original


def test_renaming_classes_and_functions_changes_no_identity() -> None:
    source = small_network()

    def identities() -> list[str]:
        transfers = [protocol_by_name(name, DEFAULT_THREAT, {"source": source}).settings for name in TRANSFER]
        return [
            *(settings_of(name) for name in SETTINGS),
            *(resolve(recipe).identity for recipe in built_in()),
            *transfers,
        ]

    before = identities()
    with renamed(declared()):
        assert PGD.__name__ != "PGD"
        assert identities() == before


def test_a_subclass_is_another_thing_until_it_declares_a_name_of_its_own() -> None:
    class Other(PGD):
        pass

    attack, other = PGD(DEFAULT_THREAT), Other(DEFAULT_THREAT)
    assert identity_name(PGD) == "PGD" and digest(other) != digest(attack)
    assert digest(identified("PGD")(Other)(DEFAULT_THREAT)) == digest(attack)


def test_a_foreign_value_may_say_itself_what_it_is() -> None:
    @dataclass(frozen=True)
    class Counting:
        attack: Any
        seen: list[int]

        def __repr__(self) -> str:
            return f"Counting({self.attack!r})"

    assert digest(Counting(fgsm(DEFAULT_THREAT), [])) == digest(Counting(fgsm(DEFAULT_THREAT), [3]))


def test_addresses_are_no_part_of_an_identity() -> None:
    class Foreign:
        pass

    assert digest(Foreign()) == digest(Foreign())
    assert " at 0x" not in identity_text((Foreign(), [small_network], lambda: 0))


@pytest.mark.parametrize("write", [identity_text, describe], ids=["settings", "configuration"])
def test_another_setting_is_another_identity(write: Callable[[Any], Any]) -> None:
    attack = fgsm(DEFAULT_THREAT)
    for other in (replace(attack, steps=2), replace(attack, threat=DEFAULT_THREAT.with_eps(0.1)), PGD(DEFAULT_THREAT)):
        assert write(other) != write(attack)
