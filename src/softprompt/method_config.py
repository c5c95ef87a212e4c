"""The `method` part of a recipe: one frozen model for each method. Fields have a unit in their description."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from softprompt.yaml_text import flaw_of

MOST_TOKENS, MOST_WIDTH, MOST_ROWS, MOST_STEPS = 131_072, 16_384, 65_536, 10**9
"""Upper bounds of recipes, far above what has a use: virtual tokens or a text's, units or rank, rows, steps."""


class Section(BaseModel):
    """A part of a recipe: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _text_is_text(cls, raw: Any) -> Any:
        """Refuse text that no file can hold, before a tokenizer or a path meets it."""
        for key, value in raw.items() if isinstance(raw, Mapping) else ():
            if flaw := _flaw_in(value):
                raise ValueError(f"{key}: expected text, got {flaw}. Take it out")
        return raw


def _flaw_in(value: Any) -> str | None:
    if isinstance(value, str):
        return flaw_of(value)
    if isinstance(value, Mapping):
        value = (*value, *value.values())
    return next((flaw for one in value if (flaw := _flaw_in(one))), None) if isinstance(value, list | tuple) else None


def _require_with(init: str, **given: object) -> None:
    """Each start has one setting of its own: both are given, or neither."""
    for start, key in (("text", "init_text"), ("labels", "labels"), ("file", "init_file")):
        if key in given and (init == start) != (given[key] is not None):
            raise ValueError(f"init: {start} and {key} go together: give both or neither")


def _require_length(length: int | None, init: str) -> None:
    if length is None and init not in ("text", "file"):
        raise ValueError("length: null takes the length of init_text or init_file. Give a number, or such an init")


class PrefixTuning(Section):
    """Prefix-tuning: learned keys and values at every attention site (Li & Liang 2021)."""

    name: Literal["prefix"] = Field(default="prefix", description="method")
    length: int | None = Field(
        default=10,
        ge=1,
        le=MOST_TOKENS,
        description="prefix length in virtual tokens; null: as long as init_text or init_file",
    )
    place: Literal["before", "between"] = Field(
        default="before", description="before the text, or between source and target (infix; decoder-only)"
    )
    attention: Literal["joined", "beside"] = Field(
        default="joined", description="one softmax over prefix and text, or one of its own, whose result is added"
    )
    reparam: Literal["mlp", "deep", "none"] = Field(
        default="mlp", description="how the prefix is parameterised while trained"
    )
    hidden: int = Field(default=512, ge=1, le=MOST_WIDTH, description="hidden width of the MLP in units")
    init: Literal["random", "text", "file", "noop"] = Field(
        default="random",
        description="random numbers, the backbone's activations for init_text, a prompt's, or no change at all",
    )
    init_text: str | None = Field(default=None, min_length=1, description="words to start from, repeated or cut to fit")
    init_file: str | None = Field(default=None, min_length=1, description="run or prompt folder to start from")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="probability of dropout on the prefix")
    sites: list[Literal["encoder", "decoder", "cross"]] | None = Field(
        default=None, min_length=1, description="kinds of attention that get a prefix; null: all that there are"
    )
    positions: Literal["shifted", "unshifted"] | None = Field(
        default=None, description="text starts at position `length` (shifted; decoder-only) or 0; null: as the paper's"
    )

    @model_validator(mode="after")
    def _start_fits(self) -> "PrefixTuning":
        _require_with(self.init, init_text=self.init_text, init_file=self.init_file)
        _require_length(self.length, self.init)
        if self.init == "noop" and self.attention == "joined":
            raise ValueError(
                "init: noop needs attention: beside, since a prefix in the text's own softmax always takes a part of it"
            )
        return self


class PromptTuning(Section):
    """Prompt tuning: learned input embeddings before the text (Lester et al. 2021)."""

    name: Literal["prompt"] = Field(default="prompt", description="method")
    length: int | None = Field(
        default=100,
        ge=1,
        le=MOST_TOKENS,
        description="prompt length in virtual tokens; null: as long as init_text or init_file",
    )
    place: Literal["before", "after_bos", "after"] = Field(
        default="before", description="before the text, behind its begin token, or before its end of text"
    )
    reparam: Literal["none", "mlp", "residual"] = Field(
        default="none", description="how the rows are parameterised while trained"
    )
    bottleneck: int = Field(default=128, ge=1, le=MOST_WIDTH, description="hidden width of the MLP in units")
    init: Literal["vocabulary", "text", "labels", "file", "normal", "uniform", "uniform_positive"] = Field(
        default="vocabulary", description="what the rows start from; uniform_positive is the range of the paper's code"
    )
    init_scale: float = Field(
        default=0.5, gt=0, le=1e6, description="half width (uniform), width (positive), or deviation"
    )
    init_top: int = Field(default=5000, ge=1, le=10**7, description="entries of the vocabulary to draw from")
    init_text: str | None = Field(default=None, min_length=1, description="words to start from, repeated or cut to fit")
    init_file: str | None = Field(default=None, min_length=1, description="run or prompt folder, or .npy to start from")
    labels: list[str] | None = Field(default=None, min_length=1, description="label words to start from")

    @model_validator(mode="after")
    def _start_fits(self) -> "PromptTuning":
        _require_with(self.init, init_text=self.init_text, labels=self.labels, init_file=self.init_file)
        _require_length(self.length, self.init)
        return self


class DePT(Section):
    """DePT: a short prompt and a low-rank change of the word embeddings (Shi & Lipani 2024)."""

    name: Literal["dept"] = Field(default="dept", description="method")
    length: int | None = Field(
        default=60,
        ge=1,
        le=MOST_TOKENS,
        description="prompt length in virtual tokens; null: as long as init_text or init_file",
    )
    text_length: int = Field(
        default=256, ge=1, le=MOST_TOKENS, description="words of a text whose embeddings are changed"
    )
    rank: int | None = Field(
        default=None, ge=1, le=MOST_WIDTH, description="rank; null: parameters as of 100 virtual tokens"
    )
    lowrank_lr: float | None = Field(default=None, gt=0, description="rate of the low-rank part; null: train.lr")
    positions: Literal["own", "reference"] = Field(
        default="own",
        description="words counted from the text's start, or so that it ends at text_length (decoder-only)",
    )
    scale: Literal["reference", "none"] = Field(default="reference", description="8/sqrt(rank) as the code has, or 1")
    init: Literal["vocabulary", "text", "labels", "file", "normal", "uniform", "uniform_positive"] = Field(
        default="vocabulary", description="what the rows start from; uniform_positive is the range of Lester's code"
    )
    init_scale: float = Field(
        default=0.5, gt=0, le=1e6, description="half width (uniform), width (positive), or deviation"
    )
    init_top: int = Field(default=5000, ge=1, le=10**7, description="entries of the vocabulary to draw from")
    init_text: str | None = Field(default=None, min_length=1, description="words to start from, repeated or cut to fit")
    init_file: str | None = Field(default=None, min_length=1, description="run or prompt folder, or .npy to start from")
    labels: list[str] | None = Field(default=None, min_length=1, description="label words to start from")

    @model_validator(mode="after")
    def _start_fits(self) -> "DePT":
        _require_with(self.init, init_text=self.init_text, labels=self.labels, init_file=self.init_file)
        _require_length(self.length, self.init)
        return self


class FineTuning(Section):
    """Fine-tuning: all parameters of the backbone are trained, or those of its top blocks."""

    name: Literal["finetune"] = Field(default="finetune", description="method")
    top: int | None = Field(
        default=None, ge=1, le=MOST_WIDTH, description="train this many of the highest blocks; null: everything"
    )


class LoRA(Section):
    """LoRA: low-rank changes of weight matrices, by PEFT (Hu et al. 2021)."""

    name: Literal["lora"] = Field(default="lora", description="method")
    rank: int = Field(default=8, ge=1, le=MOST_WIDTH, description="rank of the change")
    alpha: float = Field(default=16.0, gt=0, le=1e6, description="scale; the change is multiplied by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="probability of dropout before the change")
    targets: list[str] | None = Field(
        default=None, min_length=1, description="names of the matrices; null: PEFT's choice for the architecture"
    )


class Peft(Section):
    """Any other tuner of PEFT, such as IA3, LoHa or OFT, by its own options."""

    name: Literal["peft"] = Field(default="peft", description="method")
    type: str = Field(min_length=1, description="PEFT's name of the tuner")
    options: dict[str, Any] = Field(default_factory=dict, description="fields of PEFT's own config for it")


class Adapter(Section):
    """Adapters: bottlenecks between frozen layers (Lin et al. 2020; Houlsby et al. 2019)."""

    name: Literal["adapter"] = Field(default="adapter", description="method")
    design: Literal["lin", "houlsby"] = Field(
        default="lin", description="one behind each block, or two: behind attention and feed-forward"
    )
    bottleneck: int | None = Field(default=None, ge=1, le=MOST_WIDTH, description="width in units; null: by `share`")
    share: float | None = Field(default=None, gt=0, lt=1, description="trained share of the backbone's parameters")

    @model_validator(mode="after")
    def _one_size(self) -> "Adapter":
        if (self.bottleneck is None) == (self.share is None):
            raise ValueError("expected a size: bottleneck or share, one of them")
        return self


class UntunedConfig(Section):
    """The backbone as it is: nothing is trained."""

    name: Literal["untuned"] = Field(default="untuned", description="method")


class InContextConfig(Section):
    """In-context prompting: an instruction and solved examples before each source; nothing is trained."""

    name: Literal["incontext"] = Field(default="incontext", description="method")
    instruction: str | None = Field(default=None, min_length=1, description="what to do, said first; null: nothing")
    shots: int = Field(
        default=4, ge=0, le=MOST_ROWS, description="training pairs shown before each source, drawn with `seed`"
    )

    @model_validator(mode="after")
    def _shows_something(self) -> "InContextConfig":
        if self.instruction is None and self.shots == 0:
            raise ValueError("expected an instruction, shots, or both; got neither. For neither, take method untuned")
        return self


def alone_because(config: "MethodConfig") -> str | None:
    """Why no batch can mix prompts of this method, so that it cannot be trained on several tasks at once; None: it can.

    Methods by which nothing is trained have nothing to mix.
    """
    if isinstance(config, PrefixTuning):
        if (config.place, config.attention) == ("before", "joined"):
            return None
        return "a batch mixes prefixes before the text, in the text's own softmax (place: before, attention: joined)"
    return {
        "dept": "its change of the word embeddings is of all rows of a batch alike",
        "finetune": "its weights are of all rows of a batch alike",
        "adapter": "its layers change all rows of a batch alike",
        "lora": "its change of the weights is of all rows of a batch alike",
        "peft": "its change of the weights is of all rows of a batch alike",
    }.get(config.name)


MethodConfig = PrefixTuning | PromptTuning | DePT | FineTuning | Adapter | LoRA | Peft | InContextConfig | UntunedConfig
METHOD_CONFIGS: dict[str, type[MethodConfig]] = {
    "prefix": PrefixTuning,
    "prompt": PromptTuning,
    "dept": DePT,
    "finetune": FineTuning,
    "adapter": Adapter,
    "lora": LoRA,
    "peft": Peft,
    "incontext": InContextConfig,
    "untuned": UntunedConfig,
}
