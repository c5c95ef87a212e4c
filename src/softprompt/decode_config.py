"""The `decode` section of a recipe: how answers are generated."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from softprompt.method_config import MOST_ROWS, MOST_TOKENS, Section

BEAMS = 5
"""Beams of a beam search that names no number."""
RESOLVED = frozenset(
    ("strategy", "beams", "max_new_tokens", "min_new_tokens", "length_penalty", "ban_newline", "temperature", "top_p",
     "top_k", "labels", "batch_size")
)  # fmt: skip
"""Fields that a section has where a program wrote it: then what is a default was not typed."""


class DecodeConfig(Section):
    """Generation. Its random numbers come from the recipe's seed."""

    strategy: Literal["greedy", "beam", "sample"] = Field(default="beam", description="how the next token is chosen")
    beams: int | None = Field(
        default=None, ge=1, le=1000, description="beams (beam); null: 5 where there are any, nothing else"
    )
    max_new_tokens: int = Field(default=100, ge=1, le=MOST_TOKENS, description="generated tokens at most")
    min_new_tokens: int = Field(default=0, ge=0, le=MOST_TOKENS, description="generated tokens before the end may come")
    length_penalty: float = Field(default=1.0, ge=-10, le=10, description="exponent of a beam's length (beam)")
    ban_newline: bool = Field(default=True, description="never generate a line break")
    temperature: float | None = Field(
        default=None, ge=1e-3, le=1e3, description="divisor of the logits (sample); null: 1"
    )
    top_p: float | None = Field(default=None, ge=1e-6, le=1, description="probability mass sampled from (sample)")
    top_k: int | None = Field(default=None, ge=1, le=10**7, description="tokens sampled from (sample)")
    labels: bool | None = Field(
        default=None,
        description="answer only with label words: the likeliest way (greedy) or the likeliest word (beam); null: "
        "where the data has labels and nothing is sampled",
    )
    batch_size: int = Field(
        default=16, ge=1, le=MOST_ROWS, description="sources, or sources x label words, decoded at once"
    )

    @model_validator(mode="before")
    @classmethod
    def _beams_where_there_are_any(cls, raw: Any) -> Any:
        """A beam search has `BEAMS` unless it says; where there is none, beams are null.

        Recipes that older versions resolved have `BEAMS` everywhere, which nobody typed: they are read as null.
        """
        if not isinstance(raw, Mapping):
            return raw
        searches = raw.get("strategy", "beam") == "beam" and raw.get("labels") is not True
        if searches and raw.get("beams") is None:
            return {**raw, "beams": BEAMS}
        if not searches and raw.get("beams") == BEAMS and raw.keys() >= RESOLVED:
            return {**raw, "beams": None}
        return raw

    @model_validator(mode="after")
    def _uses_all(self) -> Self:
        """Refuse what the strategy would not use: a setting is never skipped in silence."""
        idle = ("temperature", "top_p", "top_k") if self.strategy != "sample" else ()
        for key in idle:
            if getattr(self, key) is not None:
                raise ValueError(
                    f"decode.{key} has no effect with strategy {self.strategy}. Set decode.strategy=sample"
                )
        typed = self.model_fields_set if not self.model_fields_set >= RESOLVED else set()
        penalised = self.length_penalty != 1.0 or "length_penalty" in typed
        if self.strategy != "beam" and (self.beams not in (None, 1) or penalised):
            key = "beams" if self.beams not in (None, 1) else "length_penalty"
            raise ValueError(f"decode.{key} has no effect with strategy {self.strategy}. Set decode.strategy=beam")
        if self.strategy == "beam" and not self.labels and self.beams is None:
            raise ValueError("expected a number of decode.beams with strategy beam, got null. Drop it for the default")
        if self.labels and self.strategy == "sample":
            raise ValueError("decode.labels takes the likeliest label word: set strategy greedy or beam, not sample")
        if self.labels and self.strategy == "beam" and self.beams is not None:
            raise ValueError("decode.beams has no effect with decode.labels: no label word is ever dropped. Drop it")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"expected min_new_tokens <= max_new_tokens, got {self.min_new_tokens} > {self.max_new_tokens}"
            )
        return self
