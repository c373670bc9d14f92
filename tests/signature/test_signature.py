"""Signatures as values: merged, saved, read back, and refused where they do not belong."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hosnn.errors import ConfigError, ShapeError, SignatureError
from hosnn.nn.lenet import LeNet
from hosnn.nn.neurons import TALIF, Extrapolation
from hosnn.signature import LayerSignature, Share, Signature, calibrate, fingerprint, homeostatic
from tests.nn.test_networks import TINY, images, lif_network


def recorded(description: LeNet = TINY, seed: int = 0) -> Signature:
    return calibrate(lif_network(description, seed), [images(4)], dataset="toy", dataset_sha256="ab")


def test_a_saved_signature_is_read_back_as_it_was(tmp_path: Path) -> None:
    signature = recorded()
    path = tmp_path / "deep" / "file.safetensors"
    signature.save(path)
    back = Signature.load(path)
    assert replace(back, layers={}) == replace(signature, layers={}) and list(back.layers) == list(signature.layers)
    for name, layer in signature.layers.items():
        assert torch.equal(back.layers[name].mean, layer.mean)
        assert torch.equal(back.layers[name].variance, layer.variance)
    assert back.provenance() == signature.provenance()
    assert [file.name for file in path.parent.iterdir()] == ["file.safetensors"]


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_truncated_file_raises(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "file.safetensors"
    recorded().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(SignatureError, match=r"cannot read the signature .*file\.safetensors"):
        Signature.load(path)


def test_other_files_raise(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(SignatureError, match="cannot read"):
        Signature.load(path)
    path.write_text("not a signature at all")
    with pytest.raises(SignatureError, match="cannot read"):
        Signature.load(path)
    for metadata in (None, {"format": "hosnn-checkpoint-1"}):
        save_file({"a.mean": torch.zeros(2)}, path, metadata=metadata)
        with pytest.raises(SignatureError, match="is no hosnn-signature-1 file"):
            Signature.load(path)
    for provenance in ("{}", "{", "[]", '{"layers": ["b"]}'):
        save_file({"a.mean": torch.zeros(2)}, path, {"format": "hosnn-signature-1", "provenance": provenance})
        with pytest.raises(SignatureError, match="cannot read"):
            Signature.load(path)


def test_a_save_that_fails_leaves_the_old_file_and_no_junk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.safetensors"
    recorded().save(path)
    before = path.read_bytes()

    def full(file: Path, content: bytes) -> None:
        file.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SignatureError, match="No space left"):
        recorded(seed=1).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SignatureError, match="cannot write"):
        recorded().save(tmp_path / "file" / "signature.safetensors")


def test_signatures_of_different_networks_do_not_merge() -> None:
    signature = recorded()
    steps = recorded(replace(TINY, steps=4))
    for other in (recorded(seed=1), replace(steps, model_sha256=signature.model_sha256)):
        with pytest.raises(SignatureError, match="cannot merge"):
            signature.merge(other)


def test_merging_keeps_the_provenance_of_both() -> None:
    mine, other = recorded(), replace(recorded(), dataset="more", dataset_sha256="cd")
    joined = mine.merge(other)
    assert joined.dataset == "toy + more" and joined.samples == 8
    assert joined.dataset_sha256 not in (mine.dataset_sha256, other.dataset_sha256)
    same = mine.merge(mine)
    assert (same.dataset, same.dataset_sha256) == ("toy", "ab")


def test_other_weights_layers_or_lengths_raise() -> None:
    signature = recorded()
    with pytest.raises(SignatureError, match="same layers, other weights"):
        homeostatic(lif_network(seed=1), signature)
    with pytest.raises(SignatureError, match="5 time steps but the network runs 6"):
        homeostatic(lif_network(replace(TINY, steps=6)), signature)
    fewer = replace(signature, layers=dict(list(signature.layers.items())[:2]))
    with pytest.raises(SignatureError, match="calibrate this network"):
        homeostatic(lif_network(), fewer)


def test_a_signature_of_another_length_raises_though_a_homeostatic_network_may_run_shorter() -> None:
    with pytest.raises(SignatureError, match="5 time steps but the network runs 3"):
        homeostatic(lif_network(replace(TINY, steps=3)), recorded())
    robust = homeostatic(lif_network(), recorded(), adaptation=0.2)
    robust.coding.steps = 3
    assert robust(images(2)).shape == (2, 10)


@pytest.mark.parametrize("beyond", [Extrapolation.HOLD_LAST, Extrapolation.REPEAT])
def test_a_shorter_signature_serves_a_longer_run_if_the_user_says_how(beyond: Extrapolation) -> None:
    long = lif_network(replace(TINY, steps=7))
    robust = homeostatic(long, recorded(), beyond=beyond)
    assert robust(images(2)).isfinite().all()


@pytest.mark.parametrize("share", Share)
def test_k_has_the_shape_its_sharing_says(share: Share) -> None:
    signature = recorded()
    robust = homeostatic(lif_network(), signature, 0.25, share)
    for name, layer in signature.layers.items():
        channels, *rest = layer.mean.shape[1:]
        twin = robust.get_submodule(name)
        assert isinstance(twin, TALIF)
        expected = {
            Share.NEURON: (channels, *rest),
            Share.CHANNEL: (channels, *(1 for _ in rest)),
            Share.LAYER: (),
        }[share]
        assert twin.adaptation.shape == expected and bool((twin.adaptation == 0.25).all())


def test_sharing_k_does_not_change_the_untrained_network() -> None:
    signature = recorded()
    each, channel, layer = (homeostatic(lif_network(), signature, 0.25, share)(images()) for share in Share)
    assert torch.equal(each, channel) and torch.equal(each, layer)


def test_a_negative_adaptation_raises() -> None:
    with pytest.raises(ConfigError, match="k >= 0"):
        homeostatic(lif_network(), recorded(), -0.1)


def test_a_homeostatic_copy_owns_its_weights_and_keeps_their_type() -> None:
    network = lif_network().double()
    robust = homeostatic(network, calibrate(network, [images(4).double()]))
    mine, theirs = dict(network.named_parameters()), dict(robust.named_parameters())
    for name, parameter in mine.items():
        assert torch.equal(parameter, theirs[name]) and parameter.data_ptr() != theirs[name].data_ptr()
    assert all(tensor.dtype is torch.float64 for tensor in robust.state_dict().values())


def test_fingerprint_names_the_weights() -> None:
    network, same = lif_network(), lif_network()
    assert fingerprint(network) == fingerprint(same) != fingerprint(lif_network(seed=1))
    with torch.no_grad():
        weight = next(same.parameters())
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
    assert fingerprint(network) != fingerprint(same)


def test_a_network_used_beyond_its_signature_says_so() -> None:
    robust = homeostatic(lif_network(), recorded())
    robust.coding.steps = 6
    with pytest.raises(ShapeError, match="6 time steps but was calibrated on 5"):
        robust(images(2))


def test_a_layer_signature_is_a_value() -> None:
    layer = LayerSignature(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(AttributeError):
        layer.mean = torch.ones(2, 3)  # type: ignore[misc]


def test_a_signature_says_its_shapes_not_its_numbers() -> None:
    values = torch.zeros(5, 300, 7, dtype=torch.float64)
    said = repr(Signature({"neurons1": LayerSignature(values, values)}, 20, "set", "hash", "network"))
    assert "LayerSignature([5, 300, 7])" in said
    assert len(said) < 200
