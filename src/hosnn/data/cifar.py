"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): 32x32 in colour.

Sources of the published hashes: MD5 of the pickles from torchvision (datasets/cifar.py), SHA-256 of the archives
from Keras and TensorFlow Datasets, of the binary batches from TorchVision for Ruby, of the Hub's files from the Hub.
The MD5 of the archives on the authors' page and in torchvision are of the same files.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from hosnn.data.cifar_files import (
    CIFAR10_BINARY,
    CIFAR10_PYTHON,
    CIFAR100_BINARY,
    CIFAR100_PYTHON,
    CifarFiles,
    CifarVersion,
)
from hosnn.data.dataset import Dataset, Specification
from hosnn.data.hashes import file_hash
from hosnn.data.parquet import ParquetFiles
from hosnn.data.published_dataset import PublishedDataset
from hosnn.data.sources import FolderLayout

HOST = "https://www.cs.toronto.edu/~kriz/"


def _formats(versions: tuple[CifarVersion, ...], hub_folder: str) -> FolderLayout:
    expected = " or ".join(f"{version.archive}, or the files of {version.folder}" for version in versions)
    return FolderLayout(
        formats=(*(partial(CifarFiles.find, version) for version in versions), ParquetFiles.find),
        subfolders=(*(version.folder for version in versions), hub_folder),
        expected=f"{expected}, or train*.parquet and test*.parquet",
    )


def _advice(repository: str, version: CifarVersion) -> str:
    return f"""To get it, do one of these:
  - with network access, without HOSNN_OFFLINE and HF_HUB_OFFLINE: run again, or first
    hf download {repository} --repo-type dataset
  - fetch {HOST}{version.archive} and name its folder"""


def _find_jpeg75(folder: Path) -> ParquetFiles | None:
    """train.parquet and test.parquet exactly, whose published hashes distinguish them from other files."""
    train, test = folder / "train.parquet", folder / "test.parquet"
    return ParquetFiles((train,), (test,)) if train.is_file() and test.is_file() else None


CIFAR10 = PublishedDataset(
    Specification(
        name="cifar10",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        image_shape=(3, 32, 32),
        train_size=50_000,
        test_size=10_000,
        validation_size=5_000,
        sha256=None,
        published={
            "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            "train-00000-of-00001.parquet": "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
            "test-00000-of-00001.parquet": "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
        },
        label_parts=(  # of data_batch_1 to 5, from the label lists of the original pickles
            "d829dbdf32167c9d7b3687cee66d92d80d46c441308b5aca0d11e8b69e27dac9",
            "5d18f7371ed35ea9ade77952fe958b0660a45cd6c8b8a8970030f21612cfd7e3",
            "32cf77b0ee2e790b1c4384d2d82e42dc1571b87e67f6da8f444b2725b2973f65",
            "d2815e3f8f656272864920fc0edde56b04ec9cf81bf397c0dd3069f4aea51aeb",
            "2ddf3ab27d5d04409c94ce7b56849c243129c10de1058ae0bfe14c77e934800c",
        ),
    ),
    _formats((CIFAR10_PYTHON, CIFAR10_BINARY), "plain_text"),
    _advice("uoft-cs/cifar10", CIFAR10_PYTHON),
    hub=(
        "uoft-cs/cifar10",
        "plain_text/train-00000-of-00001.parquet",
        "plain_text/test-00000-of-00001.parquet",
    ),
    host=HOST,
    files=(CIFAR10_PYTHON.archive,),
)
CIFAR10_JPEG75 = PublishedDataset(
    replace(
        CIFAR10.specification,
        name="cifar10-jpeg75",
        # Of the files, not of the pixels: another JPEG decoder may give slightly different ones.
        published={
            "train.parquet": "2c21fc22d273c9b13b9c43c17a7fd51040b47037bf67fc04fb1441421ed0b90c",
            "test.parquet": "5f7563ab279225cd6cd95b6bd3db0334fdc34995f7375f8a4ed7d49d1ef41e3f",
        },
    ),
    FolderLayout((_find_jpeg75,), (), "train.parquet and test.parquet of CIFAR-10 (JPEG q75)"),
    "It is not published under a stable address; name the folder with its train.parquet and test.parquet.",
)
CIFAR100 = PublishedDataset(
    Specification(
        name="cifar100",
        classes=tuple(
            "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel "
            "can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur "
            "dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
            "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter "
            "palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road "
            "rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower "
            "sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale "
            "willow_tree wolf woman worm".split()
        ),
        image_shape=(3, 32, 32),
        train_size=50_000,
        test_size=10_000,
        validation_size=5_000,
        sha256=None,
        published={
            "cifar-100-python.tar.gz": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
            "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
            "train-00000-of-00001.parquet": "694865d6b990e234804f01268586c41e88bcbbb75e20858432c05ad4081aca23",
            "test-00000-of-00001.parquet": "98776c529bb146a9c791229df74a5cf076be9b43d82dbbd334b6a7788d73dc68",
        },
    ),
    _formats((CIFAR100_PYTHON, CIFAR100_BINARY), "cifar100"),
    _advice("uoft-cs/cifar100", CIFAR100_PYTHON),
    hub=(
        "uoft-cs/cifar100",
        "cifar100/train-00000-of-00001.parquet",
        "cifar100/test-00000-of-00001.parquet",
    ),
    host=HOST,
    files=(CIFAR100_PYTHON.archive,),
)


def cifar10(folder: Path | None = None) -> Dataset:
    """All of CIFAR-10: 45,000 train, 5,000 validation, 10,000 test.

    folder  batches (Python pickles or binary), their archive, or Parquet; None tries `CIFAR10.sources()` in order.
            A folder with the JPEG q75 encoding is read as `cifar10_jpeg75`, whose pixels are not CIFAR-10's.
    Raises DataError as `PublishedDataset.load` does.
    """
    return (CIFAR10_JPEG75 if folder is not None and _is_jpeg75(folder) else CIFAR10).load(folder)


def cifar10_jpeg75(folder: Path | None = None) -> Dataset:
    """CIFAR-10 in a lossy JPEG encoding (quality 75): the same images, labels and order, other pixels.

    Name it "CIFAR-10 (JPEG q75)" beside results.  Raises DataError as `PublishedDataset.load` does.
    """
    return CIFAR10_JPEG75.load(folder)


def cifar100(folder: Path | None = None) -> Dataset:
    """All of CIFAR-100 with its fine labels: 45,000 train, 5,000 validation, 10,000 test.  See `cifar10`."""
    return CIFAR100.load(folder)


def _is_jpeg75(folder: Path) -> bool:
    files = _find_jpeg75(folder.expanduser())
    published = CIFAR10_JPEG75.specification.published["train.parquet"]
    try:
        return files is not None and file_hash(files.train[0], published) == published
    except OSError:
        return False  # CIFAR-10's own loader will report the fault
