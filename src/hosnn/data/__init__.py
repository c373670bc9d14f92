"""Data sets as uint8 tensors, read from one of several sources and verified by shape and hash."""

from hosnn.data.catalogue import describe_sources, load_dataset
from hosnn.data.cifar import cifar10, cifar100
from hosnn.data.dataset import Dataset
from hosnn.data.fashion_mnist_files import fashion_mnist, fashion_mnist_sample
from hosnn.data.nmnist_files import nmnist, nmnist_small
from hosnn.data.sources import SourceStatus
from hosnn.data.split import Split
from hosnn.data.svhn_files import svhn, svhn_prefix

__all__ = [
    "Dataset",
    "SourceStatus",
    "Split",
    "cifar10",
    "cifar100",
    "describe_sources",
    "fashion_mnist",
    "fashion_mnist_sample",
    "load_dataset",
    "nmnist",
    "nmnist_small",
    "svhn",
    "svhn_prefix",
]
