"""Write the embedded Fashion-MNIST sample, src/hosnn/data/sample/*.parquet, from the full set.

    python bench/make_sample.py [FOLDER_OF_THE_FULL_SET]

600 images of each class come from the original train split and 100 from the original test split, chosen by
`hosnn.data.selection.shuffled_rank_in_class`.  Train takes ranks 0..59 and 500..1039, so that the sample's validation
split (its lowest 60 of each class) lies within the full set's (its lowest 500), and the rest within the full set's
train split: a network trained on the sample has never seen an image on which the full set validates or tests.
The decoded content is always the same; its hash is checked in data/fashion_mnist_files.py.
"""

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from hosnn.data import Split, fashion_mnist
from hosnn.data.fashion_mnist_files import FASHION_MNIST, SAMPLE, SAMPLE_FOLDER
from hosnn.data.selection import shuffled_rank_in_class
from hosnn.data.split import content_sha256


def main() -> None:
    full = fashion_mnist(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    train = joined(full.validation, full.train)
    num_classes = full.num_classes
    held_out = FASHION_MNIST.specification.validation_size // num_classes
    sample_held_out = SAMPLE.validation_size // num_classes
    trained_on = SAMPLE.train_size // num_classes - sample_held_out
    ranks = shuffled_rank_in_class(train.labels, train.index)
    chosen = (ranks < sample_held_out) | ((ranks >= held_out) & (ranks < held_out + trained_on))
    sample_train = train.subset(rows_in_order(train, chosen))
    chosen = shuffled_rank_in_class(full.test.labels, full.test.index) < SAMPLE.test_size // num_classes
    sample_test = full.test.subset(rows_in_order(full.test, chosen))
    for name, split in (("train", sample_train), ("test", sample_test)):
        path = SAMPLE_FOLDER / f"{name}.parquet"
        write(split, full.classes, path)
        print(f"{path.name}: {len(split)} images, {path.stat().st_size} bytes")
    print(f"content_sha256 {content_sha256(sample_train, sample_test)}")


def joined(first: Split, second: Split) -> Split:
    return Split(
        torch.cat((first.images, second.images)),
        torch.cat((first.labels, second.labels)),
        torch.cat((first.index, second.index)),
    )


def rows_in_order(split: Split, chosen: Tensor) -> Tensor:
    rows = chosen.nonzero().squeeze(1)
    return rows[split.index[rows].argsort()]


def write(split: Split, classes: tuple[str, ...], path: Path) -> None:
    """The Hugging Face convention, with the class names in the metadata that `datasets` reads."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
        "index": {"dtype": "int32", "_type": "Value"},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("index", pa.int32()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pa.table(
        {
            "image": [{"bytes": png(image), "path": None} for image in split.images],
            "label": split.labels.tolist(),
            "index": split.index.tolist(),
        },
        schema=schema,
    )
    path.parent.mkdir(exist_ok=True)
    # PNG bytes of tiny pictures share their headers, which zstd folds; the checksums let a reader name a damaged page.
    pq.write_table(table, path, compression="zstd", compression_level=19, row_group_size=2000, write_page_checksum=True)


def png(image: Tensor) -> bytes:  # [1, H, W] uint8
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(0).numpy()).save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
