"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): 32x32 in colour.

Where the published hashes come from: SHA-256 of the archives from Keras, of the binary batches from TorchVision for
Ruby.  CIFAR-100 as this project has it gives the latter, which were so confirmed.
"""

import hashlib
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hosnn.data.cifar_files import (
    CIFAR10_BINARY,
    CIFAR10_PYTHON,
    CIFAR100_BINARY,
    CIFAR100_PYTHON,
    CifarFiles,
    CifarVersion,
)
from hosnn.data.dataset import Dataset
from hosnn.data.parquet import ParquetFiles
from hosnn.data.published_dataset import PublishedDataset
from hosnn.data.sources import FolderLayout
from hosnn.data.specification import Specification
from hosnn.data.split import Split

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


COARSE = bytes(
    int(number)
    for number in (
        "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 "
        "15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 "
        "19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"
    ).split()
)
"""The coarse label that CIFAR-100's files give each fine one."""


RECORDS = 2_000
"""Images that are written as records together."""


def published_pixels(batches: dict[str, str], coarse: bytes, train: Split, test: Split) -> bool:
    """Whether images and labels are CIFAR's, whatever they were read from: written as the original binary batches, a
    row = coarse label (CIFAR-100 only), label, 1024 red, 1024 green, 1024 blue, they have these batches' hashes.

    batches  SHA-256 of the training batches, then of the test batch, by name
    coarse   coarse label by fine label; b"" for CIFAR-10
    """
    *parts, last = batches.values()
    return all(
        _records_sha256(split, rows, coarse) == known
        for split, hashes in ((train, parts), (test, [last]))
        for rows, known in zip(split.index.argsort().tensor_split(len(hashes)), hashes, strict=True)
    )


def _records_sha256(split: Split, rows: Tensor, coarse: bytes) -> str:
    """SHA-256 of these rows written as binary records, some at a time, for a batch is as large as the data set."""
    digest, coarse_labels = hashlib.sha256(), torch.tensor(list(coarse), dtype=torch.uint8)
    for some in torch.split(rows, RECORDS):
        labels = split.labels[some]
        heads = [coarse_labels[labels], labels.to(torch.uint8)] if coarse else [labels.to(torch.uint8)]
        digest.update(torch.cat([*(head[:, None] for head in heads), split.images[some].flatten(1)], 1).numpy().data)
    return digest.hexdigest()


CIFAR10_BATCHES = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
CIFAR100_BATCHES = {
    "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
    "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
}

CIFAR10 = PublishedDataset(
    Specification(
        name="cifar10",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        image_shape=(3, 32, 32),
        train_size=50_000,
        test_size=10_000,
        validation_size=5_000,
        sha256=None,
        verify=partial(published_pixels, CIFAR10_BATCHES, b""),
        published={"cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
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
        verify=partial(published_pixels, CIFAR100_BATCHES, COARSE),
        published={"cifar-100-python.tar.gz": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"},
        label_names=("fine_label", "label"),
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
            Pictures in a lossy encoding are counted (`Dataset.lossy`) and told in `Dataset.title`.
    Raises DataError as `PublishedDataset.load` does, and for exact pixels that are not the published ones.
    """
    return CIFAR10.load(folder)


def cifar100(folder: Path | None = None) -> Dataset:
    """All of CIFAR-100 with its fine labels: 45,000 train, 5,000 validation, 10,000 test.  See `cifar10`."""
    return CIFAR100.load(folder)
