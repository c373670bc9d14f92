"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747): 28x28 grey pictures of clothes in ten classes.

The pinned hashes of the content were computed from Debian's package dataset-fashion-mnist, whose four files are the
published ones (MD5, from the original repository's README) up to the file name and time in their gzip headers.
"""

from dataclasses import replace
from pathlib import Path

from hosnn.data.dataset import Dataset
from hosnn.data.idx import STEMS, IdxFiles
from hosnn.data.parquet import ParquetFiles
from hosnn.data.published_dataset import PublishedDataset
from hosnn.data.sources import FolderLayout, find_in_folder, load_files
from hosnn.data.specification import Specification

REPOSITORY = "zalando-datasets/fashion_mnist"
HOST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

FASHION_MNIST = PublishedDataset(
    Specification(
        name="fashion-mnist",
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        image_shape=(1, 28, 28),
        train_size=60_000,
        test_size=10_000,
        validation_size=5_000,
        sha256="1a3d5cdf3a42be204318bb9e2d0ef8afe787a505716ac24255dd976cf7571b28",
        published={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    FolderLayout(
        formats=(IdxFiles.find, ParquetFiles.find),
        subfolders=("fashion_mnist", "FashionMNIST/raw"),  # the Hub's and torchvision's
        expected=f"{', '.join(STEMS)} (plain or .gz), or train*.parquet and test*.parquet",
    ),
    f"""To get it, do one of these:
  - on Debian or Ubuntu: apt install dataset-fashion-mnist
  - with network access, without HOSNN_OFFLINE and HF_HUB_OFFLINE: run again, or first
    hf download {REPOSITORY} --repo-type dataset
  - fetch the four .gz files from {HOST} and name their folder
Without it, the embedded sample works: fashion-mnist-sample.""",
    package="fashion-mnist",
    hub=(
        REPOSITORY,
        "fashion_mnist/train-00000-of-00001.parquet",
        "fashion_mnist/test-00000-of-00001.parquet",
    ),
    host=HOST,
    files=tuple(f"{stem}.gz" for stem in STEMS),
)
SAMPLE = replace(
    FASHION_MNIST.specification,
    name="fashion-mnist-sample",
    train_size=6_000,
    test_size=1_000,
    validation_size=600,
    sha256="1958e4aa1a5359ea0c5de60ed8b21664159bd62fc43b46d5d24bd845c0516b5a",
    published={},
)
SAMPLE_FOLDER = Path(__file__).with_name("sample")


def fashion_mnist(folder: Path | None = None) -> Dataset:
    """All of Fashion-MNIST: 55,000 train, 5,000 validation, 10,000 test.

    folder  IDX or Parquet files; None tries `FASHION_MNIST.sources()` in order, Debian's package first
    Raises DataError as `PublishedDataset.load` does.
    """
    return FASHION_MNIST.load(folder)


def fashion_mnist_sample() -> Dataset:
    """The embedded sample, class-balanced: 5,400 train, 600 validation, 1,000 test; `index` is the full set's.

    Its train and validation rows are train and validation rows of the full set too, and its test rows test rows.
    Raises DataError if the installed files are damaged.
    """
    return load_files(SAMPLE, find_in_folder(SAMPLE_FOLDER, FASHION_MNIST.layout), "embedded sample")
