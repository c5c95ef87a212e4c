"""Settings that hold for the whole suite: no network, one thread (so that sums come in one order).

METEOR is missing wherever whole runs are tested (its Java program takes seconds to start); tests/metrics has it.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["SOFTPROMPT_METEOR_JAR"] = "none"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and tables would be made to fit

import torch

torch.set_num_threads(1)
