"""Hashes that publishers state for their files: MD5 or SHA-256, told apart by their length."""

import hashlib
import logging
from pathlib import Path

from hosnn.data.dataset import Specification
from hosnn.errors import DataError

logger = logging.getLogger(__name__)

MD5_DIGITS = 32


def kind_of(published: str) -> str:
    """The name of the hash that `published` is, as people write it."""
    return "MD5" if len(published) == MD5_DIGITS else "SHA-256"


def hash_of(path: Path, published: str) -> str:
    """The file's hash of the kind that `published` is, as lower-case hexadecimal digits.  Raises OSError."""
    name = "md5" if len(published) == MD5_DIGITS else "sha256"
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def check_published(path: Path, specification: Specification) -> bool:
    """Whether it is certain which file this is, before anything in it is parsed.

    True where a hash is published for a file of this name, and the file has it, or where the decoded content will be
    verified by its own hash.  Otherwise False, with a note in the log: only shapes and labels will be checked.
    Raises DataError if the file has another hash than the published one, or cannot be read.
    """
    published = specification.published.get(path.name)
    if published is None:
        if specification.sha256 is None:
            logger.warning(
                "%s: no hash is published for %s; its shapes and labels are checked, its pixels cannot be",
                specification.name,
                path,
            )
        return specification.sha256 is not None
    try:
        found = hash_of(path, published)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}), expected a file of {specification.name}") from error
    if found != published:
        raise DataError(
            f"{path} has {kind_of(published)} {found}, expected {published} as published for {specification.name}; it "
            "is cut off, another version or was altered: get it again, or take another source"
        )
    return True
