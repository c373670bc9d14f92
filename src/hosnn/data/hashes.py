"""Verification of files by their published hashes: MD5 or SHA-256, distinguished by length."""

import hashlib
import logging
from pathlib import Path

from hosnn.data.specification import Specification
from hosnn.errors import DataError

logger = logging.getLogger(__name__)

MD5_DIGITS = 32


def hash_name(published: str) -> str:
    """ "MD5" or "SHA-256", by the length of the hexadecimal digest `published`."""
    return "MD5" if len(published) == MD5_DIGITS else "SHA-256"


def file_hash(path: Path, published: str) -> str:
    """The file's MD5 or SHA-256, whichever `published` is, as lower-case hexadecimal digits.  Raises OSError."""
    name = "md5" if len(published) == MD5_DIGITS else "sha256"
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def verify_published_hash(path: Path, specification: Specification) -> bool:
    """Compare a file with its published hash, before anything in it is parsed.

    returns  True if the file has the hash published for its name, or if the decoded content will be verified by its
             own hash; else False, with a warning in the log, because only shapes and labels can be checked
    Raises DataError if the file's hash is not the published one, or if it cannot be read.
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
        actual = file_hash(path, published)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}), expected a file of {specification.name}") from error
    if actual != published:
        raise DataError(
            f"{path} has {hash_name(published)} {actual}, expected {published} as published for {specification.name}; "
            "it is cut off, another version or was altered: get it again, or take another source"
        )
    return True
