"""How what a run learned answers: the run's decode settings and label words, kept with it and used again by `load`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from softprompt import data
from softprompt.artefact import FACTS
from softprompt.config import DecodeConfig, Recipe, load_recipe
from softprompt.errors import CheckpointError, ConfigError, SoftpromptError
from softprompt.labels import distinct_targets
from softprompt.recipes import nearest

OF_STRATEGY = {
    "beam": ("beams", "length_penalty"),
    "sample": ("temperature", "top_p", "top_k"),
}
"""Fields that only one strategy has a use for."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The settings of `generate` where its caller names none."""

    decode: DecodeConfig | None = None
    """None: the defaults of a recipe's section."""
    labels: tuple[str, ...] | None = None
    """What an answer may be; None: any text."""
    seed: int = 0

    def config(self, options: Mapping[str, Any], labels: Sequence[str] | None) -> DecodeConfig:
        """These settings with `options` over them, for answers among `labels` or any text.

        Another strategy drops what only the old one has a use for.

        Raises:
            ConfigError: an option that there is not, or that has no effect.
        """
        known = [key for key in DecodeConfig.model_fields if key != "labels"]
        for key in options.keys() - known:
            guess = nearest(key, known)
            raise ConfigError(f"generate({key}={options[key]!r}): unknown option{guess}. Options: {', '.join(known)}.")
        own = {} if self.decode is None else self.decode.model_dump(exclude={"labels"}, exclude_unset=True)
        strategy = options.get("strategy", own.get("strategy", "beam"))
        for other, fields in OF_STRATEGY.items():
            if other != strategy:
                own = {key: value for key, value in own.items() if key not in fields}
        if labels is not None and strategy == "sample" and "strategy" not in options:
            own.pop("strategy", None)
        try:
            return DecodeConfig(**{**own, **options, "labels": labels is not None})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"generate({key}={first['input']!r}): {first['msg']}.") from None


def _words_of(run: Recipe) -> tuple[str, ...]:
    """The label words that a run chose among: those of its data, else its training targets, which are read again."""
    return data.label_words(run.data) or distinct_targets(data.load(run.data, run.seed).train)


def kept_answers(decode: DecodeConfig, labels: Sequence[str] | None) -> dict[str, Any]:
    """What an artefact keeps of them, beside the seed of its run."""
    kept: dict[str, Any] = {"decode": decode.model_dump(mode="json")}
    return kept if labels is None else kept | {"labels": list(labels)}


def answers_of(folder: Path) -> Answers:
    """Those of a kept artefact, which was checked before; of an older run those of the recipe beside it.

    Raises:
        CheckpointError: they are not settings of this version.
    """
    if not (folder / FACTS).exists():  # a folder of PEFT's
        return Answers()
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    try:
        if "decode" in facts:
            return Answers(
                DecodeConfig.model_validate(facts["decode"]),
                None if facts.get("labels") is None else tuple(map(str, facts["labels"])),
                int(facts.get("seed") or 0),
            )
        recipe = folder.parent / "recipe.yaml"
        if not recipe.is_file():
            return Answers()
        run = load_recipe(str(recipe))
        return Answers(run.decode, _words_of(run) if run.decode.labels else None, run.seed)
    except (ValidationError, SoftpromptError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder / FACTS}: its decode settings are not of this version ({said}).") from None
