"""Where caches lie: one folder, HOSNN_CACHE or .cache/hosnn in the home folder, for ours and those of our libraries.

Matplotlib keeps a list of fonts and torch compiled code, each in a place of its own, where it writes when imported.
Where the process is our own command line they get ours, and this comes before they are loaded.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from hosnn.openmp import is_our_command

LIBRARIES = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "torchinductor"}
"""Environment variables that place libraries' caches, and the folders below ours; what the user sets holds."""


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """HOSNN_CACHE if set, else .cache/hosnn in the home folder; without a home, a folder for temporary files."""
    try:
        named = environment.get("HOSNN_CACHE")
        return Path(named).expanduser() if named else Path.home() / ".cache" / "hosnn"
    except RuntimeError:  # no HOME, and the user's number has no name
        return _temporary()


def writable_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """`cache_folder` if it can be written, else a folder for temporary files."""
    folder = cache_folder(environment)
    return folder if _is_writable(folder) else _temporary()


def place_caches(environment: MutableMapping[str, str], arguments: Sequence[str]) -> None:
    """Give libraries their folders in `environment` if the process is our command."""
    if not is_our_command(arguments):
        return
    folder = writable_cache(environment)
    if _is_writable(folder):  # else each library does what it can
        for name, part in LIBRARIES.items():
            environment.setdefault(name, str(folder / part))


def library_caches(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """The folders of libraries' caches that the environment names."""
    return [Path(environment[name]) for name in LIBRARIES if name in environment]


def _is_writable(folder: Path) -> bool:
    """Whether files can be written there, or the folder be made; nothing is made."""
    try:
        existing = next((place for place in (folder, *folder.absolute().parents) if place.exists()), None)
        return existing is not None and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    except OSError:
        return False


def _temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        return Path(tempfile.gettempdir()) / f"hosnn-{user}"
    except OSError:  # not even the working folder can be written
        return Path(os.devnull) / "hosnn"


place_caches(os.environ, sys.orig_argv)
