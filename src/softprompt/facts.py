"""What softprompt.json says of an artefact: one strict model a method, and the tensors that must go with it.

What is read back is compared before it is used: the facts with these models, the header of the tensors with what the
facts say, and only then are numbers read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from softprompt.decode_config import DecodeConfig
from softprompt.errors import CheckpointError

FORMAT = 1
LARGEST = 1 << 24
"""Bytes of a JSON file, or of a header of tensors, at most."""
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Name of a tensor -> its shape."""
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Name = Annotated[str, Field(min_length=1, max_length=4096)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BackboneFacts(_Strict):
    """The backbone that it belongs to."""

    id: Name
    hash: Annotated[str, Field(min_length=1, max_length=128)]


class KeptFacts(_Strict):
    """What is known of every artefact."""

    format: Literal[1]
    method: str
    backbone: BackboneFacts
    step: Annotated[int, Field(ge=0)] | None = None
    """Optimiser step of the selected weights."""
    dev_loss: float | None = None
    seed: int | None = None
    decode: dict[str, Any] | None = None
    """A recipe's `decode` section, as the run that learned it decoded; see `softprompt.answers`."""
    labels: Annotated[list[str], Field(min_length=1, max_length=100_000)] | None = None
    """What an answer may be, where the run chose among label words."""
    record: dict[str, str | int] | None = None
    """The run that it was learned in: see `softprompt.identity.Record`."""
    task: Name | None = None
    """Which of the tasks of that run, where it had several."""

    def shapes(self, header: Shapes) -> Shapes | None:
        """The tensors that go with these facts; `header`: those that are there, for the sizes that facts leave open.

        None: another file says it.
        """
        raise NotImplementedError


class SiteFacts(_Strict):
    """See `softprompt.inject.Site`."""

    name: Name
    kind: Literal["encoder", "decoder", "cross"]
    kv_heads: Count
    key_dim: Count
    value_dim: Count


class PrefixFacts(KeptFacts):
    """See `softprompt.forms.PrefixForm`."""

    method: Literal["prefix"]
    positions: Literal["shifted", "unshifted"]
    place: Literal["before", "between"]
    attention: Literal["joined", "beside"]
    sites: Annotated[list[SiteFacts], Field(min_length=1, max_length=100_000)]

    def shapes(self, header: Shapes) -> Shapes:
        width = sum(site.kv_heads * (site.key_dim + site.value_dim) for site in self.sites)
        return {"prompt_embeddings": (_sizes(header, "prompt_embeddings")[0], width)}


class PromptFacts(KeptFacts):
    """See `softprompt.forms.VirtualTokenForm`."""

    method: Literal["prompt"]
    place: Literal["before", "after_bos", "after"]
    embed: Count
    family: Literal["causal", "seq2seq"]

    def shapes(self, header: Shapes) -> Shapes:
        return {"prompt_embeddings": (_sizes(header, "prompt_embeddings")[0], self.embed)}


class DeptFacts(KeptFacts):
    """See `softprompt.methods.dept`."""

    method: Literal["dept"]
    scale: Literal["reference", "none"]
    positions: Literal["own", "reference"]

    def shapes(self, header: Shapes) -> Shapes:
        (length, embed), (text_length, rank) = _sizes(header, "prompt"), _sizes(header, "lowrank_a")
        return {"prompt": (length, embed), "lowrank_a": (text_length, rank), "lowrank_b": (rank, embed)}


class AdapterFacts(KeptFacts):
    """See `softprompt.methods.adapter`."""

    method: Literal["adapter"]
    design: Literal["lin", "houlsby"]
    bottleneck: Count
    places: Annotated[list[Name], Field(min_length=1, max_length=100_000)]

    def shapes(self, header: Shapes) -> Shapes:
        embed = _sizes(header, "bottlenecks.0.up.weight")[0]
        each = {
            "down.weight": (self.bottleneck, embed),
            "down.bias": (self.bottleneck,),
            "up.weight": (embed, self.bottleneck),
            "up.bias": (embed,),
        }
        each |= {"norm.weight": (embed,), "norm.bias": (embed,)} if self.design == "lin" else {}
        return {
            f"bottlenecks.{place}.{name}": shape for place in range(len(self.places)) for name, shape in each.items()
        }


class PeftFacts(KeptFacts):
    """Tuners of PEFT: adapter_config.json says the rest."""

    method: Literal["lora", "peft"]

    def shapes(self, header: Shapes) -> None:
        return None


class FinetuneFacts(KeptFacts):
    """A whole tuned backbone, in transformers' own files."""

    method: Literal["finetune"]

    def shapes(self, header: Shapes) -> None:
        return None


_ANY: TypeAdapter[KeptFacts] = TypeAdapter(
    Annotated[
        PrefixFacts | PromptFacts | DeptFacts | AdapterFacts | PeftFacts | FinetuneFacts, Field(discriminator="method")
    ]
)


def parse_facts(raw: Any, where: Path) -> KeptFacts:
    """The facts of an artefact as one of these models.

    Raises:
        CheckpointError: a key that is missing, unknown, of another type, or out of range; names the first.
    """
    try:
        facts = _ANY.validate_python(raw)
        if facts.decode is not None:
            DecodeConfig.model_validate(facts.decode)
    except ValidationError as error:
        raise CheckpointError(f"prompt {where}: not a prompt of this version: {first_problem(error)}.") from None
    return facts


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's complaints, in a line that can be printed whatever the file held."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    key = ".".join(map(str, first["loc"]))
    return printable(f"{key}: {first['msg']}" if key else first["msg"])


def printable(text: str) -> str:
    """At most 300 characters of a foreign text, on one line, without what cannot be encoded."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())[:300]


def read_strict_json(path: Path) -> Any:
    """What a JSON file holds, as RFC 8259 has it.

    Raises:
        CheckpointError: it cannot be read, is larger than `LARGEST`, is no UTF-8, is nested too deeply, or has a key
            twice or a number that is none.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        reason = printable(str(error)) or type(error).__name__
        raise CheckpointError(f"{path}: expected JSON, got: {reason}. Copy it again from where it was made.") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key twice in one object")
    return made


def _no_number(text: str) -> Any:
    raise ValueError(f"{text}, which is no number in JSON")


def _sizes(header: Shapes, name: str) -> Shape:
    """The two sizes of a matrix that has to be there."""
    shape = header.get(name)
    if shape is None or len(shape) != 2 or 0 in shape:
        got = "none" if shape is None else f"one of shape {shape}"
        raise CheckpointError(f"expected a tensor {name!r} of two axes, got {got}")
    return shape


__all__ = [
    "AdapterFacts",
    "BackboneFacts",
    "DeptFacts",
    "FinetuneFacts",
    "KeptFacts",
    "PeftFacts",
    "PrefixFacts",
    "PromptFacts",
    "Shapes",
    "parse_facts",
    "printable",
    "read_strict_json",
]
