"""A folder of pictures, one subfolder a class."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from hosnn.data import Dataset, load_dataset
from hosnn.data.specification import Verified
from hosnn.errors import ConfigError, DataError

from .formats import encoded, random_split

COLOUR = (3, 4, 5)


def write(path: Path, image: Tensor, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "WEBP":
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, kind, lossless=True)
        path.write_bytes(buffer.getvalue())
    else:
        path.write_bytes(encoded(image, kind))
    return path


def pile(
    root: Path, classes: tuple[str, ...] = ("cats", "dogs"), count: int = 10, seed: int = 0, kind: str = "PNG"
) -> Path:
    """`count` pictures a class, named 1, 2, ... in the order of `random_split`."""
    images = torch.split(random_split(count * len(classes), seed, COLOUR).images, count)
    for name, of_class in zip(classes, images, strict=True):
        for number, image in enumerate(of_class, start=1):
            write(root / name / f"{number}.{kind.lower()}", image, kind)
    return root


def sizes(data: Dataset) -> tuple[int, ...]:
    return tuple(map(len, (data.train, data.validation, data.test)))


def test_one_pile_is_parted_evenly_and_by_position_alone(tmp_path: Path) -> None:
    data = load_dataset(str(pile(tmp_path / "pets", ("birds", "cats", "dogs"), count=20)))
    assert sizes(data) == (42, 6, 12)
    assert data.classes == ("birds", "cats", "dogs")
    for split, count in ((data.train, 14), (data.validation, 2), (data.test, 4)):
        assert split.labels.bincount().tolist() == [count] * 3
    together = torch.cat([split.index for split in (data.train, data.validation, data.test)])
    assert sorted(together.tolist()) == list(range(60))
    images = random_split(60, 0, COLOUR).images  # in natural order: 2.png before 10.png
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.images, images[split.index])
    other_pixels = load_dataset(str(pile(tmp_path / "again", ("birds", "cats", "dogs"), count=20, seed=5)))
    assert torch.equal(other_pixels.test.index, data.test.index)


def test_its_name_title_and_source_say_what_it_is(tmp_path: Path) -> None:
    data = load_dataset(str(pile(tmp_path / "my pets!")))
    assert (data.name, data.title, data.verified) == ("own:my-pets", "my-pets (unverified)", Verified.NOTHING)
    assert data.source == str(tmp_path / "my pets!")


def test_a_path_may_be_relative_or_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pile(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_dataset("pets").sha256 == load_dataset("./pets").sha256 == load_dataset("~/pets").sha256
    assert load_dataset("pets").source == str(tmp_path / "pets")


@pytest.mark.parametrize("validation", [None, "validation", "val", "valid"])
def test_folders_may_be_parted_already(tmp_path: Path, validation: str | None) -> None:
    pile(tmp_path / "train", seed=1)
    pile(tmp_path / "Test", count=3, seed=2)
    if validation:
        pile(tmp_path / validation, count=4, seed=3)
    data = load_dataset(str(tmp_path))
    assert sizes(data) == ((20, 8, 6) if validation else (18, 2, 6))
    assert torch.equal(data.test.images, random_split(6, 2, COLOUR).images)
    if validation:
        assert torch.equal(data.validation.images, random_split(8, 3, COLOUR).images)


def test_the_same_pixels_have_the_same_hash_in_any_lossless_format(tmp_path: Path) -> None:
    png, webp = (load_dataset(str(pile(tmp_path / kind, kind=kind))) for kind in ("PNG", "WEBP"))
    assert png.sha256 == webp.sha256
    assert png.lossy == webp.lossy == 0
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(png, name).images, getattr(webp, name).images)
    other = load_dataset(str(pile(tmp_path / "other", seed=1)))
    assert other.sha256 != png.sha256


def test_lossy_pictures_are_counted_in_the_title(tmp_path: Path) -> None:
    root = pile(tmp_path / "pets")
    write(root / "cats" / "11.jpg", torch.zeros(3, 4, 5, dtype=torch.uint8), "JPEG")
    write(root / "dogs" / "11.JPEG", torch.zeros(3, 4, 5, dtype=torch.uint8), "JPEG")
    data = load_dataset(str(root))
    assert (data.lossy, len(data)) == (2, 22)
    assert data.title == "pets (unverified), 2 of 22 images lossy"


def test_nested_folders_belong_to_their_class_and_hidden_files_to_none(tmp_path: Path) -> None:
    root = pile(tmp_path / "pets")
    plain = load_dataset(str(root)).sha256
    image = torch.zeros(3, 4, 5, dtype=torch.uint8)
    write(root / "cats" / "._1.png", image)
    write(root / "cats" / ".hidden.png", image)
    write(root / ".git" / "1.png", image)
    (root / "__MACOSX").mkdir()
    (root / "cats" / "notes.txt").write_text("nice cats")
    (root / "README.md").write_text("cats and dogs")
    assert load_dataset(str(root)).sha256 == plain
    write(root / "cats" / "kittens" / "1.png", image)
    data = load_dataset(str(root))
    assert (data.classes, len(data)) == (("cats", "dogs"), 21)


def test_classes_come_in_natural_order(tmp_path: Path) -> None:
    names = tuple(f"class{number}" for number in range(12))
    assert load_dataset(str(pile(tmp_path, names, count=3))).classes == names


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load_dataset(str(pile(tmp_path, ("bus", "car", "train")))).classes == ("bus", "car", "train")


def test_grey_pictures_stay_grey_unless_there_is_colour(tmp_path: Path) -> None:
    grey = random_split(6, 1, (1, 4, 5)).images
    for number, image in enumerate(grey):
        write(tmp_path / "pets" / "ab"[number % 2] / f"{number}.png", image)
    assert load_dataset(str(tmp_path / "pets")).image_shape == (1, 4, 5)
    write(tmp_path / "pets" / "a" / "9.png", torch.zeros(3, 4, 5, dtype=torch.uint8))
    data = load_dataset(str(tmp_path / "pets"))
    assert data.image_shape == (3, 4, 5)
    images = torch.cat([split.images for split in (data.train, data.validation, data.test)])
    assert all(any(torch.equal(image, known.expand(3, 4, 5)) for image in images) for known in grey)


def of_another_size(root: Path) -> None:
    write(pile(root) / "dogs" / "7.png", torch.zeros(3, 5, 4, dtype=torch.uint8))


def cut_off(root: Path) -> None:
    path = pile(root) / "dogs" / "7.png"
    path.write_bytes(path.read_bytes()[:-30])


def unknown_class(root: Path) -> None:
    pile(root / "train")
    pile(root / "test", ("cats", "cows"))


def without_a_class(root: Path) -> None:
    (pile(root) / "cows").mkdir()


def without_test(root: Path) -> None:
    pile(root / "train")
    pile(root / "val")


def empty_test(root: Path) -> None:
    pile(root / "train")
    (root / "test").mkdir()


BAD = {
    "absent": (lambda root: None, "and no data set of that name; expected a folder of class folders"),
    "empty": (lambda root: root.mkdir(), "has 0 class folders, expected at least 2"),
    "one class": (lambda root: pile(root, ("cats",)), "has 1 class folders, expected at least 2"),
    "pictures without folders": (
        lambda root: write(root / "1.png", random_split(1, 0, COLOUR).images[0]),
        "has 0 class folders",
    ),
    "a class without pictures": (without_a_class, r"cows has no pictures; expected files ending in \.png"),
    "one picture a class": (lambda root: pile(root, count=1), "only 1 image of class .cats. for the splits, too few"),
    "two pictures a class": (lambda root: pile(root, count=2), "expected at least 3 images a class"),
    "a picture of another size": (of_another_size, r"dogs/7\.png: the picture is 4x5, expected 5x4 as the others"),
    "a picture cut off": (cut_off, r"dogs/7\.png: the picture does not decode"),
    "a class of test that train lacks": (unknown_class, "test has a class 'cows' that train does not"),
    "train and validation without test": (without_test, "has no test"),
    "an empty test folder": (empty_test, "test has no|no images"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_a_folder_that_is_no_data_set_is_refused_by_name(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "pets")
    with pytest.raises(DataError, match=rf"pets.*{message}"):
        load_dataset(f"{tmp_path}/pets")


def test_three_pictures_a_class_are_enough(tmp_path: Path) -> None:
    assert sizes(load_dataset(str(pile(tmp_path, count=3)))) == (2, 2, 2)


def test_a_class_may_be_absent_from_test(tmp_path: Path) -> None:
    pile(tmp_path / "Train")
    pile(tmp_path / "Test", ("dogs",))
    data = load_dataset(str(tmp_path))
    assert data.test.labels.tolist() == [1] * 10


def test_an_own_name_without_its_path_says_how_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say where it lies: --data PATH"):
        load_dataset("own:pets")
    with pytest.raises(ConfigError, match="leave one out"):
        load_dataset(str(pile(tmp_path)), tmp_path)


def test_parts_may_be_called_training_and_testing_but_not_twice(tmp_path: Path) -> None:
    for part in ("Training", "testing"):
        pile(tmp_path / "pets" / part)
    data = load_dataset(str(tmp_path / "pets"))
    assert data.classes == ("cats", "dogs") and len(data.test) == 20
    pile(tmp_path / "pets" / "test")
    with pytest.raises(DataError, match=r"several folders for one part: .*testing.*expected one each"):
        load_dataset(str(tmp_path / "pets"))


def test_a_folder_beside_train_and_test_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("train", "test", "extra"):
        pile(tmp_path / "pets" / part)
    data = load_dataset(str(tmp_path / "pets"))
    assert data.classes == ("cats", "dogs") and len(data.test) == 20
    assert f"{tmp_path / 'pets'}: extra left out" in caplog.text
