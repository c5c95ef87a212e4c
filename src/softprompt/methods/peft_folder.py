"""Folders of PEFT's own, with no manifest of ours: prompts and tuners that PEFT trained, or others in its format.

Such a folder says nothing of the weights that it was learned on; only shapes can be compared, and that is said.
"""

from pathlib import Path

from softprompt.artefact import FACTS, TENSORS
from softprompt.backbone import Backbone
from softprompt.console import say
from softprompt.errors import CheckpointError
from softprompt.files import MANIFEST
from softprompt.forms import PrefixForm, VirtualTokenForm
from softprompt.inject import KINDS
from softprompt.methods.peft_config import PEFT_CONFIG, read_raw_config
from softprompt.methods.peft_tuner import PeftMethod, tuners
from softprompt.prompt import Prompt
from softprompt.tensors import FLOATS, Header, read_finite, read_header, require_header

_NUMBERS = "prompt_embeddings"


def is_pefts(folder: Path) -> bool:
    """Whether a folder is PEFT's and not ours; one of ours that lost its manifest is damaged."""
    ours = any((folder / name).exists() for name in (MANIFEST, FACTS))
    return (folder / PEFT_CONFIG).is_file() and not ours


def load_pefts(backbone: Backbone, folder: Path) -> Prompt | PeftMethod:
    """Prefix tuning, prompt tuning, P-tuning (folded), or a tuner that PEFT puts into `backbone` in place.

    Raises:
        CheckpointError: another type; a file that is missing, damaged, pickled or not finite; or shapes that are not
            those of this backbone.
    """
    raw = read_raw_config(folder)
    kind = raw["peft_type"]
    if not (folder / TENSORS).is_file():
        pickled = any((folder / name).exists() for name in ("adapter_model.bin", "adapter_model.pt"))
        got = "a pickle, which can run code and is never read" if pickled else "none"
        raise CheckpointError(
            f"{folder}: is PEFT's folder ({PEFT_CONFIG}); expected {TENSORS} in it, got {got}. Save it with PEFT's "
            "save_pretrained(..., safe_serialization=True)."
        )
    made: Prompt | PeftMethod
    if kind in ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"):
        made = _prefix(backbone, folder) if kind == "PREFIX_TUNING" else _virtual_tokens(backbone, folder)
        if raw.get("num_virtual_tokens") != made.length:
            raise CheckpointError(
                f"{folder}: expected as many virtual tokens as {PEFT_CONFIG} says "
                f"({raw.get('num_virtual_tokens')!r:.40}), got {made.length}. It is no whole folder of PEFT's."
            )
    elif kind in tuners():
        made = PeftMethod.load_into(backbone, folder, "lora" if kind == "LORA" else "peft")
    else:
        raise CheckpointError(
            f"{folder}: is PEFT's folder, of type {kind:.40}, which is not read yet. Of PEFT's prompts PREFIX_TUNING, "
            "PROMPT_TUNING and P_TUNING are: learn it with method prefix, prompt or dept instead."
        )
    say(f"{folder}: PEFT's folder says nothing of the backbone's weights; its shapes fit {backbone.id!r}")
    return made


def _prefix(backbone: Backbone, folder: Path) -> Prompt:
    if backbone.family == "seq2seq":
        raise CheckpointError(
            f"{folder}: is PEFT's PREFIX_TUNING for backbone {backbone.id!r}, an encoder-decoder, where PEFT's prefix "
            "is in the decoder alone, by its cache; that is not read. Learn it with method prefix, sites [decoder]."
        )
    form = PrefixForm(PrefixForm.of_backbone(backbone, KINDS), "shifted")
    header = read_header(folder / TENSORS)
    _require(folder, header, (_rows(header), form.width))
    return Prompt(read_finite(folder / TENSORS)[_NUMBERS].float().to(backbone.device), form)


def _virtual_tokens(backbone: Backbone, folder: Path) -> Prompt:
    """PEFT keeps a second prompt for the decoder of an encoder-decoder, and does not use it."""
    form = VirtualTokenForm(backbone.hidden_width(), family=backbone.family)
    header, raw = read_header(folder / TENSORS), read_raw_config(folder)
    _require(folder, header, (_rows(header), form.width))
    rows = read_finite(folder / TENSORS)[_NUMBERS].float()
    if backbone.family == "seq2seq" and raw.get("num_transformer_submodules") == 2 and len(rows) % 2 == 0:
        rows = rows[: len(rows) // 2].clone()
    return Prompt(rows.to(backbone.device), form)


def _rows(header: Header) -> int:
    shape = header.shapes.get(_NUMBERS, ())
    return shape[0] if shape else 1


def _require(folder: Path, header: Header, shape: tuple[int, int]) -> None:
    try:
        require_header(folder / TENSORS, header, {_NUMBERS: shape}, FLOATS)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} PEFT's prompt has to be of this backbone's architecture: {shape[1]} numbers a virtual token."
        ) from None
    if shape[0] < 1:
        raise CheckpointError(f"{folder}: expected at least one virtual token, got none. It is empty.")
