from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hosnn.data.augment import Augmentation, Cutout, InTurn, RandomCrop, RandomFlip, augment
from hosnn.data.trivial_augment import TrivialAugment
from hosnn.errors import ConfigError, ShapeError

SIZE = 64
RNG = torch.Generator().manual_seed(0)
COLOUR = torch.randint(256, (SIZE, 3, 32, 32), generator=RNG, dtype=torch.uint8)
GREY = torch.randint(1, 256, (SIZE, 1, 28, 26), generator=RNG, dtype=torch.uint8)
INDEX = torch.arange(SIZE) * 7
EVERY: dict[str, Augmentation] = {
    "crop": RandomCrop(4),
    "flip": RandomFlip(),
    "cutout": Cutout(8),
    "trivial": TrivialAugment(),
    "all": InTurn((RandomCrop(4), RandomFlip(), TrivialAugment(), Cutout(8))),
}
PICTURES = {
    "bytes": COLOUR,
    "grey bytes": GREY,
    "float": COLOUR / 255,
    "grey float": GREY.double() / 255,
    "half": (COLOUR / 255).half(),
}
every_augmentation = pytest.mark.parametrize("augmentation", EVERY.values(), ids=EVERY)
every_picture = pytest.mark.parametrize("images", PICTURES.values(), ids=PICTURES)


def run(augmentation: Augmentation, images: Tensor, index: Tensor = INDEX, seed: int = 1, epoch: int = 2) -> Tensor:
    return augment(images, index, augmentation, seed=seed, epoch=epoch)


@every_augmentation
@every_picture
def test_shape_dtype_and_range_stay_and_the_images_given_are_not_touched(augmentation: Augmentation, images: Tensor):
    before = images.clone()
    result = run(augmentation, images)
    assert (result.shape, result.dtype, result.device) == (images.shape, images.dtype, images.device)
    assert result.min() >= 0
    assert result.max() <= (255 if images.dtype == torch.uint8 else 1)
    assert not torch.equal(result, images)
    assert torch.equal(images, before)


ALONE_OR_TOGETHER = [*((name, "bytes") for name in EVERY), *(("all", kind) for kind in PICTURES if kind != "bytes")]


@pytest.mark.parametrize(("augmentation", "pictures"), ALONE_OR_TOGETHER)
def test_neither_batch_nor_rank_changes_an_image(augmentation: str, pictures: str):
    change, images = EVERY[augmentation], PICTURES[pictures]
    whole = run(change, images)
    for size in (1, 17):
        blocks = [slice(at, at + size) for at in range(0, 2 * 17, size)]
        pieces = [run(change, images[block], INDEX[block]) for block in blocks]
        assert torch.equal(torch.cat(pieces), whole[: 2 * 17])
    for rank in range(3):
        assert torch.equal(run(change, images[rank::3], INDEX[rank::3]), whole[rank::3])
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(3))
    assert torch.equal(run(change, images[order], INDEX[order]), whole[order])


@every_augmentation
def test_the_same_call_gives_the_same_and_another_seed_epoch_or_index_does_not(augmentation: Augmentation):
    once = run(augmentation, COLOUR)
    assert torch.equal(once, run(augmentation, COLOUR))
    assert not torch.equal(once, run(augmentation, COLOUR, seed=3))
    assert not torch.equal(once, run(augmentation, COLOUR, epoch=3))
    assert not torch.equal(once, run(augmentation, COLOUR, INDEX + 1))


@every_augmentation
def test_bytes_and_floats_are_treated_alike(augmentation: Augmentation):
    floats = run(augmentation, COLOUR / 255)
    expected = run(augmentation, COLOUR)
    # A cutout's grey is 0.5 among floats and 128 among bytes.
    torch.testing.assert_close(floats * 255, expected.float(), atol=0.51, rtol=0)


@every_augmentation
def test_no_images_are_no_error(augmentation: Augmentation):
    assert run(augmentation, COLOUR[:0], INDEX[:0]).shape == (0, 3, 32, 32)


def test_torchs_own_generator_is_unchanged():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run(EVERY["all"], COLOUR)
    assert torch.equal(torch.rand(3), expected)


def test_a_crop_is_a_window_of_the_padded_image_and_every_window_occurs():
    images, index = COLOUR[:1].expand(2000, -1, -1, -1), torch.arange(2000)
    cropped = run(RandomCrop(2), images, index)
    padded = torch.nn.functional.pad(COLOUR[0], (2, 2, 2, 2))
    windows = [padded[:, y : y + 32, x : x + 32] for y in range(5) for x in range(5)]
    counts = torch.stack([(cropped == window).flatten(1).all(1).sum() for window in windows])
    assert counts.sum() == 2000
    assert counts.min() > 40  # 80 each on average
    assert counts.max() < 125


def test_a_crop_without_margin_changes_nothing():
    assert torch.equal(run(RandomCrop(0), COLOUR), COLOUR)


def test_half_of_the_images_are_flipped():
    index = torch.arange(1000)
    images = COLOUR[:1].expand(1000, -1, -1, -1)
    flipped = (run(RandomFlip(), images, index) == images.flip(3)).flatten(1).all(1)
    assert 440 < flipped.sum() < 560
    assert torch.equal(run(RandomFlip(), images, index)[~flipped], images[~flipped])


@pytest.mark.parametrize(("size", "side"), [(8, 8), (5, 5), (1, 1), (100, 32)])
def test_a_cutout_is_one_square_cut_off_at_the_edge(size: int, side: int):
    images, index = torch.zeros(300, 3, 32, 32), torch.arange(300)
    cut = run(Cutout(size, grey=1.0), images, index)
    assert set(cut.flatten().tolist()) == ({0.0, 1.0} if side < 32 else {1.0})
    assert torch.equal(cut, cut[:, :1].expand_as(cut))
    rows, columns = cut[:, 0].amax(2), cut[:, 0].amax(1)
    assert torch.equal(cut[:, 0], rows[:, :, None] * columns[:, None])
    for covered in (rows, columns):
        assert covered.sum(1).max() == side
        assert covered.sum(1).min() >= min(size // 2, 1)
        assert (covered.diff(dim=1).abs().sum(1) <= 2).all()  # one piece
        assert covered.any(0).all()  # everywhere, now and then


def test_grey_of_a_cutout_follows_the_dtype():
    assert (run(Cutout(100), torch.zeros_like(COLOUR)) == 128).all()
    assert (run(Cutout(100), torch.zeros(SIZE, 1, 8, 8)) == 0.5).all()


def test_augmentations_in_turn_draw_numbers_of_their_own():
    twice = run(InTurn((RandomFlip(), RandomFlip())), COLOUR)
    assert not torch.equal(twice, COLOUR)


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "one image": (lambda: run(RandomFlip(), COLOUR[0]), ShapeError, r"\[3, 32, 32\], expected"),
    "whole numbers": (lambda: run(RandomFlip(), COLOUR.int()), ShapeError, "torch.int32"),
    "another index": (lambda: run(RandomFlip(), COLOUR, INDEX[1:]), ShapeError, r"index torch.int64 \[63\] for 64"),
    "index as float": (lambda: run(RandomFlip(), COLOUR, INDEX.float()), ShapeError, r"torch.float32"),
    "margin": (lambda: RandomCrop(-1), ConfigError, "margin -1"),
    "size": (lambda: Cutout(0), ConfigError, "size 0"),
    "grey": (lambda: Cutout(8, grey=255), ConfigError, "grey 255"),
    "channels": (lambda: run(TrivialAugment(), COLOUR[:, :2]), ShapeError, r"1 \(grey\) or 3 \(RGB\)"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_invalid_calls_raise(call: Callable[[], object], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_augmentation
def test_a_gpu_gives_the_same_bits(augmentation: Augmentation):
    for images in (COLOUR, COLOUR / 255):
        assert torch.equal(run(augmentation, images.cuda()).cpu(), run(augmentation, images))
