"""Fixtures: folders of official files, where a neighbouring folder `shared` holds them."""

from pathlib import Path

import pytest
from archives import unpacked


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


@pytest.fixture(scope="session")
def webnlg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("webnlg", tmp_path_factory)


@pytest.fixture(scope="session")
def dart_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("dart", tmp_path_factory)


@pytest.fixture(scope="session")
def scitldr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("scitldr", tmp_path_factory)
