"""Fixtures: the official files where a neighbouring folder `shared` holds them."""

import tarfile
from pathlib import Path

import pytest

ARCHIVES = Path(__file__).resolve().parents[3] / "shared" / "data"


def unpacked(name: str, factory: pytest.TempPathFactory) -> Path:
    """The folder of one data set, unpacked; the test is skipped where it is not here."""
    archive_path = ARCHIVES / f"{name}.tar.xz"
    if not archive_path.is_file():
        pytest.skip(f"the official {name} files are not here: {archive_path}")
    folder = factory.mktemp(name)
    with tarfile.open(archive_path) as archive:
        archive.extractall(folder, filter="data")
    return folder / name


@pytest.fixture(scope="session")
def e2e_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("e2e", tmp_path_factory)


@pytest.fixture(scope="session")
def squad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("squad", tmp_path_factory)


@pytest.fixture(scope="session")
def squadshifts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("squadshifts", tmp_path_factory)


@pytest.fixture(scope="session")
def xquad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("xquad_en", tmp_path_factory)
