"""The cache of decoded data: it gives what decoding gives, stays within its bound and is never needed."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hosnn.cli.main import main
from hosnn.data import cache, load_dataset
from hosnn.data.cache import bound, clear, decoded, entries, make_room
from hosnn.errors import ConfigError

from .test_class_folders import pile

BIG = {"images": torch.arange(1000, dtype=torch.uint8), "labels": torch.arange(5)}


class Decoder:
    """Counts how often it is asked."""

    def __init__(self, result: Mapping[str, Tensor] = BIG) -> None:
        self.result, self.calls = result, 0

    def __call__(self) -> Mapping[str, Tensor]:
        self.calls += 1
        return self.result


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WORTH", 1)
    monkeypatch.delenv("HOSNN_DECODED_BYTES", raising=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"encoded")
    return path


def ask(source: Path, decode: Decoder, *settings: object) -> dict[str, Tensor]:
    return decoded((source,), decode, 10, *settings)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_hit_equals_a_miss(source: Path) -> None:
    decode = Decoder({**BIG, "turned": torch.arange(6).reshape(2, 3).T})
    first, second = ask(source, decode), ask(source, decode)
    assert decode.calls == 1 and len(entries()) == 1
    assert same(first, decode.result) and same(second, decode.result)


def test_other_content_or_settings_are_other_entries_and_another_name_is_not(source: Path, tmp_path: Path) -> None:
    decode = Decoder()
    ask(source, decode, "a")
    ask(source, decode, "b")
    source.write_bytes(b"Encoded")
    ask(source, decode, "a")
    assert decode.calls == len(entries()) == 3
    ask(source.rename(tmp_path / "renamed"), decode, "a")
    assert decode.calls == 3


def test_few_pictures_are_not_worth_it(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WORTH", 11)
    decode = Decoder()
    assert same(ask(source, decode), ask(source, decode))
    assert decode.calls == 2 and not entries()


@pytest.mark.parametrize(
    "content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"rubbish" * 100], ids=["empty", "bare", "other"]
)
def test_a_damaged_entry_is_decoded_again(source: Path, content: bytes) -> None:
    decode = Decoder()
    ask(source, decode)
    (entry,) = entries()
    entry.write_bytes(content)
    assert same(ask(source, decode), BIG)
    assert decode.calls == 2
    assert same(ask(source, decode), BIG) and decode.calls == 2


def test_an_entry_cut_anywhere_is_decoded_again(source: Path) -> None:
    decode = Decoder()
    ask(source, decode)
    (entry,) = entries()
    whole = entry.read_bytes()
    for length in range(0, len(whole), 97):
        entry.write_bytes(whole[:length])
        assert same(ask(source, decode), BIG)


def test_an_entry_with_any_bit_flipped_is_decoded_again(source: Path) -> None:
    ask(source, Decoder())
    (entry,) = entries()
    whole = entry.read_bytes()
    for at in range(0, len(whole), 7):
        entry.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert same(ask(source, Decoder()), BIG)


def test_the_least_recently_used_leave_first(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Decoder()
    places: dict[str, Path] = {}
    for at, name in enumerate("abc"):
        ask(source, decode, name)
        (places[name],) = set(entries()) - set(places.values())
        os.utime(places[name], (at, at))
    size = places["a"].stat().st_size
    monkeypatch.setenv("HOSNN_DECODED_BYTES", str(3 * size))
    ask(source, decode, "a")  # used again, so b is now the oldest
    ask(source, decode, "d")
    assert not places["b"].exists()
    assert places["a"].exists() and places["c"].exists()
    assert sum(path.stat().st_size for path in entries()) <= 3 * size


def test_what_is_larger_than_the_bound_is_not_kept(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSNN_DECODED_BYTES", "900")
    decode = Decoder()
    assert same(ask(source, decode), BIG) and not entries()


@pytest.mark.parametrize("size", [0, 500, 10_000])
def test_room_is_made_within_the_bound(source: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for name in "abcdef":
        ask(source, Decoder(), name)
    monkeypatch.setenv("HOSNN_DECODED_BYTES", "5000")
    make_room(size)
    assert sum(path.stat().st_size for path in entries()) <= max(0, 5000 - size)


def test_no_bytes_mean_no_cache(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSNN_DECODED_BYTES", "0")
    decode = Decoder()
    ask(source, decode)
    ask(source, decode)
    assert decode.calls == 2 and not cache.folder().exists()


@pytest.mark.parametrize("text", ["", "4 GB", "-1", "1e9", "²"])
def test_another_bound_is_a_config_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HOSNN_DECODED_BYTES", text)
    with pytest.raises(ConfigError, match=r"HOSNN_DECODED_BYTES is .*expected a number of bytes, 0 for no cache"):
        bound()


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = source.parent / "file"
    in_the_way.write_text("a file, where a folder should be")
    monkeypatch.setenv("HOSNN_CACHE", str(in_the_way))
    decode = Decoder()
    assert same(ask(source, decode), BIG) and same(ask(source, decode), BIG)
    assert decode.calls == 2 and entries() == [] and clear() == 0


def test_an_error_of_decoding_is_not_kept(source: Path) -> None:
    def fail() -> Mapping[str, Tensor]:
        raise ValueError("no picture")

    for _ in range(2):
        with pytest.raises(ValueError, match="no picture"):
            decoded((source,), fail, 10)
    assert not entries()


def test_clear_removes_entries_and_nothing_else(source: Path) -> None:
    ask(source, Decoder(), "a")
    ask(source, Decoder(), "b")
    other = cache.folder() / "notes.txt"
    other.write_text("mine")
    sizes = sum(path.stat().st_size for path in entries())
    assert clear() == sizes
    assert entries() == [] and other.exists()


def test_doctor_clears_it(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(source, Decoder())
    assert main(["doctor", "--no-read", "--clear-cache", "--json"]) == 0
    assert not entries()


def test_a_folder_of_pictures_is_the_same_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pile(tmp_path / "pets")
    first = load_dataset(str(root))
    assert len(entries()) == 1
    with monkeypatch.context() as patch:
        patch.setattr("hosnn.data.class_folders.decode", None)
        second = load_dataset(str(root))
    assert second.sha256 == first.sha256 and second.title == first.title
    assert torch.equal(second.train.images, first.train.images)
    (root / "cats" / "1.png").rename(root / "cats" / "11.png")  # the order changes, the content does not
    assert load_dataset(str(root)).sha256 != first.sha256
