"""Prompt folders as nobody's method writes them: a whole one of each method, damaged with the manifest made to fit."""

import json
import random
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import factories
import torch
from safetensors.torch import load_file, save_file

from softprompt import Backbone, attach, load
from softprompt.artefact import FACTS, TENSORS
from softprompt.attached import Attached
from softprompt.errors import SoftpromptError
from softprompt.files import verify_manifest, write_manifest
from softprompt.inspection import inspect_kept
from softprompt.method_config import Adapter, DePT, FineTuning, LoRA, MethodConfig, Peft, PrefixTuning, PromptTuning
from softprompt.methods.sound import require_sound

CONFIG = "adapter_config.json"
METHODS: dict[str, MethodConfig] = {
    "prefix": PrefixTuning(length=3, reparam="none"),
    "prompt": PromptTuning(length=3),
    "dept": DePT(length=3, rank=2, text_length=6),
    "adapter": Adapter(bottleneck=4),
    "lora": LoRA(rank=2),
    "peft": Peft(type="IA3"),
    "finetune": FineTuning(),
}
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 2**64, 10**30, 1.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "../../etc/passwd", "/etc/passwd", "\ud800", "before", "after", "joined", "shifted", "lora", "prefix",
    "a" * 5000, "(a+)+$", "(.|.)*!", [], [1], [None] * 3, ["x"], {}, {"a": 1}, {"name": "x"}, [[[]]], "\0", "\n",
)  # fmt: skip


def kept(method: str, folder: Path) -> Path:
    """A whole artefact of a tiny backbone."""
    attach(factories.backbone("llama"), METHODS[method], seed=1).save(folder / method)
    return folder / method


def damaged(whole: Path, into: Path, draw: random.Random) -> Path:
    """A copy with one to three things changed, and a manifest that fits."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(whole, into)
    ways = [_facts, _raw_facts, _config, _tensors, _header, _bytes]
    for _ in range(draw.randint(1, 3)):
        with suppress(Exception):  # an earlier change left nothing to change
            draw.choice(ways)(into, draw)
    write_manifest(into)
    return into


def looked_at(folder: Path, bone: Backbone) -> Iterator[tuple[str, Exception | Attached | None]]:
    """What `load`, `inspect` and `verify` say of a folder: their error, what was loaded, or None."""

    def verify() -> None:
        verify_manifest(folder)
        require_sound(folder)

    doors: dict[str, Callable[[], Any]] = {
        "load": lambda: load(bone, folder),
        "inspect": lambda: inspect_kept(folder) and None,
        "verify": verify,
    }
    for name, look in doors.items():
        try:
            yield name, look()
        except Exception as error:
            yield name, error


def is_ours(found: object) -> bool:
    """Whether it is an error whose message can be printed."""
    return isinstance(found, SoftpromptError) and bool(str(found).encode("utf-8"))


def peak_mib() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _at(tree: Any, draw: random.Random) -> tuple[Any, Any]:
    """A container in a tree of JSON, and one of its keys."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = draw.choice(keys)
        inner = tree[key]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.4:
            return tree, key
        tree = inner


def _json(path: Path, draw: random.Random) -> None:
    tree = json.loads(path.read_text())
    where, key = _at(tree, draw)
    what = draw.random()
    if what < 0.2:
        del where[key]
    elif what < 0.3 and isinstance(where, dict):
        where[draw.choice(["extra", "method", "__class__", "runtime_config", "layer_replication"])] = draw.choice(ODD)
    else:
        where[key] = draw.choice(ODD)
    path.write_text(json.dumps(tree))


def _facts(folder: Path, draw: random.Random) -> None:
    _json(folder / FACTS, draw)


def _config(folder: Path, draw: random.Random) -> None:
    names = [name for name in (CONFIG, "config.json") if (folder / name).exists()]
    _json(folder / names[0], draw) if names else _facts(folder, draw)


def _raw_facts(folder: Path, draw: random.Random) -> None:
    """What is no JSON, or no object, or one with a key twice."""
    path = folder / draw.choice([FACTS, CONFIG])
    text = path.read_text() if path.exists() else "{}"
    deep = "[" * 20_000
    made = draw.choice(
        [b"", b"\xff\xfe{}", b"[]", b"null", b"1", deep.encode(), text[:40].encode(), b"9" * 6000, text.encode() * 2,
         text.replace("{", '{"method": "prompt",', 1).encode(), b'{"method": 1e999}', text.encode("utf-16")]
    )  # fmt: skip
    path.write_bytes(made)


def _tensors(folder: Path, draw: random.Random) -> None:
    """Other names, shapes, types or numbers."""
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    name = draw.choice(sorted(tensors))
    tensor = tensors.pop(name)
    ways: list[Callable[[], dict[str, torch.Tensor]]] = [
        dict,
        lambda: {name + "x": tensor},
        lambda: {name: tensor, "extra": torch.zeros(2)},
        lambda: {name: tensor.flatten()[:1]},
        lambda: {name: tensor.new_zeros(0, *tensor.shape[1:])},
        lambda: {name: tensor[None]},
        lambda: {name: tensor.T.contiguous() if tensor.ndim == 2 else tensor[:-1].contiguous()},
        lambda: {name: tensor.double()},
        lambda: {name: tensor.half()},
        lambda: {name: tensor.to(torch.int64)},
        lambda: {name: torch.full_like(tensor, draw.choice([float("nan"), float("inf"), float("-inf")]))},
        lambda: {name: torch.cat([tensor, tensor])},
    ]
    save_file(tensors | draw.choice(ways)(), path)


def _header(folder: Path, draw: random.Random) -> None:
    """A header that claims what is not there."""
    path = next(folder.glob("*.safetensors"))
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    if draw.random() < 0.2:
        path.write_bytes(struct.pack("<Q", draw.choice([0, 1, 2**20, 2**40, 2**63])) + raw[8:])
        return
    name = draw.choice([key for key in header if key != "__metadata__"])
    entry, key = header[name], draw.choice(["dtype", "shape", "data_offsets"])
    entry[key] = draw.choice(
        [*ODD[:16], [10**6, 10**6], [2**40, 2**40], [0], [-1, 4], [0, 10**12], "F64", "BF16", "F4"]
    )
    text = json.dumps(header).encode("utf-8", "backslashreplace")
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def _bytes(folder: Path, draw: random.Random) -> None:
    """A file cut, emptied, or put in another's place."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    path = draw.choice(files)
    raw = path.read_bytes()
    path.write_bytes(
        draw.choice([raw[: draw.randrange(len(raw) + 1)], b"", raw + b"\0" * 9, draw.choice(files).read_bytes()])
    )


__all__ = ["METHODS", "TENSORS", "damaged", "is_ours", "kept", "looked_at", "peak_mib"]
