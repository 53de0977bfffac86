"""Fixtures that several tests share."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def samples() -> Path:
    """Real JPEGs and records, kept beside the checkout and never in it."""
    folder = REPOSITORY.parent / "shared" / "samples"
    if not folder.is_dir():
        pytest.skip("the real samples lie beside the maintainers' checkout only")
    return folder
