"""The `decode` section of a recipe: how answers are generated."""

from typing import Literal, Self

from pydantic import Field, model_validator

from softprompt.method_config import Section


class DecodeConfig(Section):
    """Generation. Its random numbers come from the recipe's seed."""

    strategy: Literal["greedy", "beam", "sample"] = Field(default="beam", description="how the next token is chosen")
    beams: int = Field(default=5, ge=1, description="beams (beam)")
    max_new_tokens: int = Field(default=100, ge=1, description="generated tokens at most")
    min_new_tokens: int = Field(default=0, ge=0, description="generated tokens before the end may come")
    length_penalty: float = Field(default=1.0, description="exponent of a beam's length (beam)")
    ban_newline: bool = Field(default=True, description="never generate a line break")
    temperature: float | None = Field(default=None, gt=0, description="divisor of the logits (sample); null: 1")
    top_p: float | None = Field(default=None, gt=0, le=1, description="probability mass sampled from (sample)")
    top_k: int | None = Field(default=None, ge=1, description="tokens sampled from (sample)")
    labels: bool | None = Field(
        default=None,
        description="answer only with label words: the likeliest way (greedy) or the likeliest word (beam); null: "
        "where the data has labels and nothing is sampled",
    )
    batch_size: int = Field(default=16, ge=1, description="sources, or sources x label words, decoded at once")

    @model_validator(mode="after")
    def _uses_all(self) -> Self:
        """Refuse what the strategy would not use: a setting is never skipped in silence."""
        idle = {"temperature": None, "top_p": None, "top_k": None} if self.strategy != "sample" else {}
        for key in idle:
            if getattr(self, key) is not None:
                raise ValueError(
                    f"decode.{key} has no effect with strategy {self.strategy}. Set decode.strategy=sample"
                )
        if self.strategy != "beam" and (self.beams not in (1, 5) or self.length_penalty != 1.0):
            key = "beams" if self.beams not in (1, 5) else "length_penalty"
            raise ValueError(f"decode.{key} has no effect with strategy {self.strategy}. Set decode.strategy=beam")
        if self.labels and self.strategy == "sample":
            raise ValueError("decode.labels takes the likeliest label word: set strategy greedy or beam, not sample")
        if self.labels and self.beams not in (1, 5):
            raise ValueError("decode.beams has no effect with decode.labels: no label word is ever dropped. Drop it")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"expected min_new_tokens <= max_new_tokens, got {self.min_new_tokens} > {self.max_new_tokens}"
            )
        return self
