"""Kept tensors, read in two steps: their header is compared first, numbers are read only where it is as expected."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from softprompt.errors import CheckpointError
from softprompt.facts import LARGEST, Shapes, printable
from softprompt.files import load_tensors

FLOATS = ("F32", "F16", "BF16")
"""What PEFT may keep numbers in; ours are float32."""


@dataclass(frozen=True, slots=True)
class Header:
    """Names, shapes and types of the tensors of a file, whose numbers were not read."""

    shapes: Shapes
    dtypes: Mapping[str, str]
    """As safetensors calls them: F32, BF16, ..."""

    def count(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_header(path: Path) -> Header:
    """The header of a safetensors file, checked by that library against the file's size; nothing else is read.

    Raises:
        CheckpointError: no such file, or none of this kind.
    """
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
        if size > LARGEST:
            raise ValueError(f"a header of {size:,} bytes")
        with safe_open(path, framework="pt") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
            return Header(
                {name: tuple(part.get_shape()) for name, part in parts.items()},
                {name: str(part.get_dtype()) for name, part in parts.items()},
            )
    except (SafetensorError, OSError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({printable(str(error))}).") from None


def require_header(path: Path, header: Header, expected: Shapes, dtypes: Collection[str] = ("F32",)) -> None:
    """Raise `CheckpointError` unless exactly these tensors are there, of these shapes and one of these types."""
    odd = sorted(header.shapes.keys() ^ expected.keys())
    if odd:
        got = "it is missing" if odd[0] in expected else "it is there"
        wanted = "expected" if odd[0] in expected else "expected none called"
        raise CheckpointError(f"{path}: {wanted} {printable(odd[0])!r}, but {got}. It goes with other facts.")
    for name, shape in expected.items():
        if header.shapes[name] != shape:
            raise CheckpointError(
                f"{path}: expected {name!r} of shape {shape}, got {header.shapes[name]}. It goes with other facts."
            )
        if header.dtypes[name] not in dtypes:
            raise CheckpointError(
                f"{path}: expected {name!r} in {' or '.join(dtypes)}, got {header.dtypes[name]}. It is none of ours."
            )


def read_finite(path: Path) -> dict[str, Tensor]:
    """All tensors of a file whose header was compared.

    Raises:
        CheckpointError: it cannot be read, or holds NaN or infinity.
    """
    tensors = load_tensors(path)
    require_finite(path, tensors)
    return tensors


def require_finite(path: Path, tensors: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` where a tensor holds NaN or infinity: nothing that is computed with it means anything."""
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{path}: expected finite numbers, got NaN or infinity in {printable(name)!r}. It cannot be used: take "
                "an earlier one, or train again with a lower rate."
            )
