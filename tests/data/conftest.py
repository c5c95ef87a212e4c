"""Fixtures: the official files where a neighbouring folder `shared` holds them."""

import tarfile
from pathlib import Path

import pytest

ARCHIVES = Path(__file__).resolve().parents[3] / "shared" / "data"


def unpacked(name: str, factory: pytest.TempPathFactory) -> Path:
    archive = ARCHIVES / f"{name}.tar.xz"
    if not archive.is_file():
        pytest.skip(f"the official files of {name} are not here: {archive}")
    folder = factory.mktemp(name)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / name


@pytest.fixture(scope="session")
def e2e_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("e2e", tmp_path_factory)


@pytest.fixture(scope="session")
def webnlg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("webnlg", tmp_path_factory)


@pytest.fixture(scope="session")
def dart_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("dart", tmp_path_factory)


@pytest.fixture(scope="session")
def scitldr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("scitldr", tmp_path_factory)
