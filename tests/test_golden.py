"""Losses, gradient norms and texts of every method and family are those of golden/losses.json, to the bit."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).with_name("golden")))
import make

GOLDEN: dict[str, Any] = json.loads(make.FILE.read_text(encoding="utf-8"))
SAME_MACHINE = GOLDEN["machine"] == make.machine()


def test_every_family_and_method_is_in_the_file() -> None:
    assert set(GOLDEN["runs"]) == {f"{family}/{kind}" for family in make.FAMILIES for kind in make.KINDS}


@pytest.mark.parametrize("name", GOLDEN["runs"])
def test_training_and_decoding_come_to_the_same_bits(name: str) -> None:
    now, then = make.trained(*name.split("/")), GOLDEN["runs"][name]
    if SAME_MACHINE:
        assert now == then
        return
    for key in ("losses", "gradient_norms"):  # another processor adds up in another order
        numbers, wanted = ([float.fromhex(text) for text in run[key]] for run in (now, then))
        assert numbers == pytest.approx(wanted, rel=2e-2)
