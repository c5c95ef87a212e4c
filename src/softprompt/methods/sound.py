"""A kept artefact looked at as far as that goes without its weights: what `inspect` and `verify` say is whole."""

from pathlib import Path
from typing import Any

from softprompt.artefact import TENSORS, read_facts, require_tensors
from softprompt.backbone import BUNDLED, Backbone
from softprompt.errors import BackboneError, CheckpointError
from softprompt.facts import AdapterFacts, DeptFacts, KeptFacts, PeftFacts, PrefixFacts, PromptFacts
from softprompt.forms import form_of
from softprompt.methods.adapter import require_places
from softprompt.methods.dept import require_width
from softprompt.methods.peft_config import PEFT_CONFIG, read_raw_config, tuner_config
from softprompt.methods.peft_tuner import require_fits, tuners
from softprompt.prompt import require_peft_agrees
from softprompt.tensors import Header, read_finite


def require_sound(folder: Path) -> tuple[KeptFacts, Header | None]:
    """Look at bytes, facts, header, and that every number is one; the facts and the header.

    Where its backbone is the bundled one or a folder here, so are the shapes that its config has, without weights.

    Raises:
        CheckpointError: any of it is not as a method writes it.
    """
    facts = read_facts(folder)
    header = require_tensors(folder, facts)
    if header is None:
        return facts, None
    config = _peft_config(folder) if isinstance(facts, PeftFacts) else None
    if isinstance(facts, PrefixFacts | PromptFacts):
        require_peft_agrees(folder, facts, header.shapes["prompt_embeddings"][0])
    plan = _plan(facts.backbone.id)
    if plan is not None:
        _require_fits(plan, folder, facts, header, config)
    read_finite(folder / TENSORS)
    return facts, header


def _peft_config(folder: Path) -> Any:
    """PEFT's config; None without PEFT."""
    raw = read_raw_config(folder)
    try:
        known = tuners()
    except ImportError:
        return None
    return tuner_config(folder / PEFT_CONFIG, raw, known)


def _plan(id: str) -> Backbone | None:
    """The backbone without weights, where that needs no network and there is one."""
    try:
        return Backbone.plan(id) if id == BUNDLED or Path(id).is_dir() else None
    except (BackboneError, OSError, ValueError):
        return None


def _require_fits(plan: Backbone, folder: Path, facts: KeptFacts, header: Header, config: Any) -> None:
    try:
        if isinstance(facts, PrefixFacts | PromptFacts):
            form_of(facts).require_fits(plan)
        elif isinstance(facts, DeptFacts):
            require_width(plan, folder, header.shapes["prompt"][1])
        elif isinstance(facts, AdapterFacts):
            require_places(plan, folder, facts, header.shapes["bottlenecks.0.up.bias"][0])
        elif config is not None:
            require_fits(plan, folder, config, facts.method, header)
    except BackboneError as error:
        raise CheckpointError(f"prompt {folder}: does not fit its backbone: {error}") from None
