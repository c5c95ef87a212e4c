"""Makes losses.json: what a few training steps of every method and family come to, to the last bit.

`python tests/golden/make.py` writes the file beside it. tests/test_golden.py compares: a change of the code that is
meant to change no number must leave it alone. Float32, one thread. Other kinds of processor and other versions of torch
add up in another order, so the file says what it was made on.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_name("losses.json")
sys.path.insert(0, str(TESTS))

import factories  # noqa: E402
from sittings import KINDS  # noqa: E402

from softprompt.config import DecodeConfig, TrainConfig  # noqa: E402
from softprompt.decode import decode_texts  # noqa: E402
from softprompt.methods import METHODS  # noqa: E402
from softprompt.optim import make_optimizer  # noqa: E402
from softprompt.train import training_steps  # noqa: E402

FAMILIES = ("gpt2", "llama", "bart", "t5")
STEPS = 20


def machine() -> dict[str, str]:
    """What the order of a sum depends on."""
    return {
        "torch": torch.__version__.split("+")[0],
        "processor": platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }


def trained(family: str, kind: str) -> dict[str, Any]:
    """20 losses and gradient norms, as hexadecimal floats, and a decoded text."""
    bone = factories.backbone(family)
    torch.manual_seed(3)
    method = METHODS[KINDS[kind].name](bone, KINDS[kind])
    config = TrainConfig(lr=1e-2, batch_size=4, max_steps=STEPS, precision="float32")
    steps = training_steps(bone, method, make_optimizer(method, config), factories.pairs(10), config, seed=7)
    records = list(steps)
    bone.model.eval()
    method.set_mode(False)
    decode = DecodeConfig(strategy="greedy", max_new_tokens=12)
    with torch.no_grad():
        text = decode_texts(bone, method.fold(), ["the red old inn"], decode)[0].text
    return {
        "losses": [record.loss.hex() for record in records],
        "gradient_norms": [record.grad_norm.hex() for record in records],
        "text": text,
    }


def all_trained() -> dict[str, Any]:
    """Every method on every family, by name `family/method`."""
    return {f"{family}/{kind}": trained(family, kind) for family in FAMILIES for kind in KINDS}


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(json.dumps({"machine": machine(), "runs": all_trained()}, indent=1) + "\n", encoding="utf-8")
