"""Every cell of the matrix is shown, or refused for a reason that the docs give."""

from pathlib import Path

import factories
import pytest
from matrix import CONFIGS, FAMILIES, NO_INFIX, PROPERTIES, Cell, page, refused

from softprompt.errors import ConfigError
from softprompt.methods import METHODS

CELLS = [
    pytest.param(method, family, prop, marks=pytest.mark.slow if (column + row + line) % 2 else ())
    for line, prop in enumerate(PROPERTIES)
    for row, family in enumerate(FAMILIES)
    for column, method in enumerate(CONFIGS)
    if refused(method, family, prop) is None
]
"""By default every second cell, like the white squares of a board: any two of method, family and property meet."""


@pytest.mark.parametrize(("method", "family", "prop"), CELLS)
def test_property(method: str, family: str, prop: str, tmp_path: Path) -> None:
    PROPERTIES[prop](Cell(family, method), tmp_path)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_infix_of_an_encoder_decoder_is_refused(family: str) -> None:
    assert refused("prefix, infix", family, next(iter(PROPERTIES))) == NO_INFIX
    config = CONFIGS["prefix, infix"]
    with pytest.raises(ConfigError, match="reads source and target apart"):
        METHODS[config.name](factories.backbone(family), config)


def test_the_page_is_current() -> None:
    shown = Path(__file__).parent.parent / "docs" / "properties.md"
    assert shown.read_text(encoding="utf-8") == page(), "run: python tests/matrix.py > docs/properties.md"
