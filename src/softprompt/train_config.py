"""Recipe fields of the training loop."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from softprompt.method_config import MOST_ROWS, MOST_STEPS, Section

OPTIMIZER_FIELDS = {
    "betas": ("adamw",),
    "eps": ("adamw",),
    "decay_rate": ("adafactor", "adafactor_torch"),
    "scale_parameter": ("adafactor",),
    "factored": ("adafactor",),
}
"""Settings of `train` that not every optimiser reads, and those that do."""


class TrainConfig(Section):
    """The training loop."""

    epochs: int | float = Field(default=5, gt=0, le=10**6, description="passes over the training examples")
    max_steps: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="optimiser steps at most; null: by `epochs`"
    )
    batch_size: int = Field(default=10, ge=1, le=MOST_ROWS, description="examples per optimiser step")
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        le=MOST_STEPS,
        description="positions per optimiser step at most, pads included; null: by `batch_size`",
    )
    micro_batch: Annotated[int, Field(ge=1, le=MOST_ROWS)] | Literal["auto"] | None = Field(
        default=None, description="examples per forward pass; null: the batch; auto: halved when memory runs out"
    )
    lr: float = Field(default=5e-5, gt=0, description="peak learning rate per step")
    schedule: Literal["linear", "constant", "cosine"] = Field(
        default="linear", description="course of lr after warm-up"
    )
    warmup_steps: int = Field(default=0, ge=0, le=MOST_STEPS, description="optimiser steps of linear warm-up")
    optimizer: Literal["adamw", "adafactor", "adafactor_torch"] = Field(
        default="adamw", description="AdamW, or Adafactor: transformers' or torch's"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled decay per step, as a multiple of lr")
    betas: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(0.9, 0.999), description="AdamW's two decay rates"
    )
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon, added to the root of the second moment")
    decay_rate: float = Field(
        default=0.8, gt=0, le=1, description="Adafactor's exponent: the second moment forgets 1/step^decay_rate a step"
    )
    scale_parameter: bool = Field(
        default=False, description="multiply lr by each tensor's root mean square (adafactor; torch's always does)"
    )
    factored: bool = Field(
        default=True, description="keep row and column means of the second moment, not all of it (adafactor)"
    )
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient; null: not clipped")
    mixing: Literal["proportional", "equal"] = Field(
        default="proportional", description="of several tasks: each example once an epoch, or each task equally often"
    )
    loss: Literal["token_mean", "sentence_sum"] = Field(
        default="token_mean",
        description="nats per target token, or nats summed over a target and averaged over examples",
    )
    frozen_dropout: bool = Field(default=False, description="dropout of the frozen backbone on during training")
    precision: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="forward arithmetic")
    graphs: bool = Field(default=False, description="capture each shape of batch as a CUDA graph: launched in one call")
    compile: bool = Field(default=False, description="compile what lies between attentions by torch.compile")
    gradient_checkpointing: bool = Field(default=False, description="recompute activations: less memory, more time")
    eval_every: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="steps between dev losses; null: each epoch"
    )
    save_every: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="steps between checkpoints; null: as eval_every"
    )
    keep: int = Field(default=2, ge=1, le=MOST_STEPS, description="newest checkpoints kept, besides the best")
    select: Literal["best", "last"] = Field(default="best", description="weights kept: lowest dev loss, or last")
    log_every: int = Field(
        default=10,
        ge=1,
        le=MOST_STEPS,
        description="optimiser steps between points of TensorBoard's curves; metrics.jsonl has every step",
    )
    max_length: int | None = Field(
        default=None, ge=1, le=10**7, description="tokens of source and target; null: window"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        default = type(self).model_fields["batch_size"].default
        if self.batch_tokens is not None and self.batch_size != default:
            raise ValueError(
                f"expected one of batch_size and batch_tokens, got {self.batch_size} and {self.batch_tokens}. Drop "
                f"train.batch_tokens, or set train.batch_size={default}, its default"
            )
        if isinstance(self.micro_batch, int) and self.batch_tokens is None and self.micro_batch > self.batch_size:
            raise ValueError(
                f"expected micro_batch <= batch_size, got {self.micro_batch} > {self.batch_size}. Lower micro_batch"
            )
        if self.graphs and (self.gradient_checkpointing or self.micro_batch == "auto"):
            key = "gradient_checkpointing" if self.gradient_checkpointing else "micro_batch=auto"
            raise ValueError(f"train.graphs and train.{key} do not go together: what is captured is fixed. Drop one")
        if self.graphs and self.compile:
            raise ValueError("train.graphs and train.compile do not go together: a capture cannot compile. Drop one")
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"expected betas in [0, 1), got {list(self.betas)}. The usual ones are [0.9, 0.999]")
        for key, users in OPTIMIZER_FIELDS.items():
            if self.optimizer not in users and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"train.{key} has no effect with optimizer {self.optimizer}. Drop it, or set "
                    f"train.optimizer={' or '.join(users)}"
                )
        return self
