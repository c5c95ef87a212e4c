"""Fixtures: the official E2E files where a neighbouring folder `shared` holds them."""

import tarfile
from pathlib import Path

import pytest

ARCHIVE = Path(__file__).resolve().parents[3] / "shared" / "data" / "e2e.tar.xz"


@pytest.fixture(scope="session")
def e2e_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not ARCHIVE.is_file():
        pytest.skip(f"the official E2E files are not here: {ARCHIVE}")
    folder = tmp_path_factory.mktemp("e2e")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "e2e"
