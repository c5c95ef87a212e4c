"""The official data, unpacked once a session from a neighbouring folder `shared`; without it a test is skipped."""

import tarfile
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
_FOLDERS: dict[str, Path] = {}


def unpacked(name: str, factory: pytest.TempPathFactory) -> Path:
    """The folder of one archive."""
    archive = SHARED / f"{name}.tar.xz"
    if not archive.is_file():
        pytest.skip(f"the official files are not here: {archive}")
    if name not in _FOLDERS:
        folder = factory.mktemp(name)
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # not in Python 3.11.3 and older
            tar.extractall(folder)
        _FOLDERS[name] = folder / name
    return _FOLDERS[name]
