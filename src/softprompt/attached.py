"""The front door for one's own code: a method attached to a backbone, for any training loop, to generate, save, load.

backbone = Backbone.load("gpt2")
model = attach(backbone, PrefixTuning(length=5))
model.loss([("name : Aromi", "Aromi is a pub.")]).backward()
model.generate(["name : Aromi"], strategy="greedy")
model.save("aromi")
load(backbone, "aromi").generate(["name : Aromi"])
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from softprompt import methods
from softprompt.backbone import Backbone
from softprompt.batch import IGNORED, Encoded, encode_pairs, make_batch, require_pairs_fit
from softprompt.config import DecodeConfig
from softprompt.decode import decode_texts
from softprompt.embed import require_words
from softprompt.errors import ConfigError, DataError
from softprompt.loss import target_nll
from softprompt.method_config import MethodConfig
from softprompt.methods import METHODS, Method, Steering, room_taken, state
from softprompt.recipes import nearest
from softprompt.types import Example


class Attached(nn.Module):
    """A backbone under a steering: a torch module whose parameters that require a gradient are what is learned.

    `state_dict` holds those alone. In training mode the method's own dropout is on, and the frozen backbone's only
    where `frozen_dropout` asks for it.
    """

    accepts_loss_kwargs = True
    """For transformers' Trainer: `forward` takes `num_items_in_batch`."""

    def __init__(
        self,
        backbone: Backbone,
        steering: Steering,
        *,
        method: Method | None = None,
        backbone_hash: str = "",
        frozen_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.steering, self.method, self._hash = backbone, steering, method, backbone_hash
        self.model, self.frozen_dropout = backbone.model, frozen_dropout
        self.train(False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | float | None = None,
    ) -> dict[str, Tensor]:
        """{"loss": mean nats per target token} of a batch as transformers has them, padded on either side.

        Args:
            input_ids: (B, T); in the causal family source and target in a row, in the other the source.
            attention_mask: (B, T), 0 on pads; None: no pads.
            labels: the targets, -100 elsewhere: (B, T) beside `input_ids`, or (B, T') in an encoder-decoder.
            num_items_in_batch: what the sum is divided by, instead of the batch's own number of target tokens.

        Raises:
            DataError: no labels, a row without any, or labels that are not one run of tokens.
        """
        if labels is None:
            raise DataError("expected labels, got none: a loss needs targets. Use generate() for texts.")
        pairs = [
            _pair(row, ids, mask, own, self.backbone.family)
            for row, (ids, mask, own) in enumerate(
                zip(
                    input_ids.tolist(),
                    (torch.ones_like(input_ids) if attention_mask is None else attention_mask).tolist(),
                    labels.tolist(),
                    strict=True,
                )
            )
        ]
        require_words(self.backbone, [(*pair.source, *pair.target) for pair in pairs])
        total = self._nll(pairs)
        tokens = sum(len(pair.target) for pair in pairs)
        return {"loss": total / (tokens if num_items_in_batch is None else num_items_in_batch)}

    def loss(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Mean nats per target token of (source, target) texts, framed as in training; a float32 scalar.

        Raises:
            DataError: no pairs, something else than pairs of texts, or a pair that does not fit the window.
        """
        encoded = encode_pairs(self.backbone, _examples(pairs))
        return self._nll(encoded) / sum(len(pair.target) for pair in encoded)

    def rows(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, list[int]]]:
        """(source, target) texts as rows of a data set for `forward`: `input_ids`, `attention_mask`, `labels`."""
        rows = []
        for pair in encode_pairs(self.backbone, _examples(pairs)):
            causal = self.backbone.family == "causal"
            ids = [*pair.source, *(pair.target if causal else ())]
            labels = [*([IGNORED] * len(pair.source) if causal else ()), *pair.target]
            rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
        return rows

    def generate(
        self, sources: Sequence[str], *, labels: Sequence[str] | None = None, seed: int = 0, **options: Any
    ) -> list[str]:
        """A text for each source; `options` are those of a recipe's `decode` section, such as strategy="greedy".

        With `labels`, each text is one of them: see `softprompt.labels`.

        Raises:
            ConfigError: an option that there is not, or that has no effect.
            DataError: one text instead of a list of them, or a source that does not fit the window.
        """
        if isinstance(sources, str):
            raise DataError(f"expected a list of sources, got one text. Write generate([{sources[:20]!r}...]).")
        known = [key for key in DecodeConfig.model_fields if key != "labels"]
        for key in options.keys() - known:
            guess = nearest(key, known)
            raise ConfigError(f"generate({key}={options[key]!r}): unknown option{guess}. Options: {', '.join(known)}.")
        try:
            config = DecodeConfig(labels=labels is not None, **options)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"generate({key}={first['input']!r}): {first['msg']}.") from None
        training = self.training
        self.train(False)
        try:
            rows = decode_texts(self.backbone, self.steering, sources, config, labels=labels, seed=seed)
        finally:
            self.train(training)
        return [row.text for row in rows]

    def save(self, folder: str | Path) -> None:
        """Write what is learned, for `load`: PEFT's format where PEFT has it, and always the backbone's hash."""
        if self.method is None:
            raise ConfigError("save: nothing is trained here; what was loaded lies where it was loaded from.")
        self.method.save(Path(folder), backbone_id=self.backbone.id, backbone_hash=self._hash)

    def train(self, mode: bool = True) -> "Attached":
        """Training mode of the method; of the frozen backbone only where `frozen_dropout` is set."""
        self.training = mode
        self.model.train(mode and self.frozen_dropout)
        if self.method is not None:
            self.method.set_mode(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """What is learned, by name."""
        return state(self.method) if self.method is not None else {}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Inverse of `state_dict`; every name must be there, and no other."""
        own = self.method.trainable() if self.method is not None else {}
        wrong = sorted(own.keys() ^ state_dict.keys())
        if wrong:
            raise ConfigError(f"expected the tensors of this method, got others, among them {wrong[0]!r}.")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state_dict[name])
        return nn.modules.module._IncompatibleKeys([], [])

    def _nll(self, pairs: Sequence[Encoded]) -> Tensor:
        room = room_taken(self.backbone, self.steering)
        require_pairs_fit(self.backbone, pairs, what="pairs", offset=room)
        with self.steering.attach(self.backbone, shared=True):
            return target_nll(self.backbone, make_batch(self.backbone, self.steering, pairs))


def attach(
    backbone: Backbone, config: MethodConfig, *, seed: int | None = None, frozen_dropout: bool = False
) -> Attached:
    """Put a method, such as `PrefixTuning(length=5)`, on `backbone`; random starts are drawn from `seed` where given.

    Fine-tuning and LoRA change `backbone` in place; all others leave it as it is.

    Raises:
        ConfigError: the method cannot be on this backbone.
    """
    name = str(getattr(config, "name", ""))
    if name not in METHODS:
        raise ConfigError(
            f"attach: expected a method that is trained ({', '.join(METHODS)}), such as PrefixTuning(length=5), "
            f"got {name or config!r}."
        )
    before = backbone.hash()
    if seed is not None:
        torch.manual_seed(seed)
    method = METHODS[name](backbone, config)
    return Attached(backbone, method, method=method, backbone_hash=before, frozen_dropout=frozen_dropout)


def load(backbone: Backbone, folder: str | Path) -> Attached:
    """What `save` or a run wrote, on the backbone that it was learned on: to generate with, and for losses.

    Raises:
        CheckpointError: missing, damaged, or learned on another backbone.
    """
    return Attached(backbone, methods.load(backbone, folder))


def _examples(pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """(source, target) texts as examples of one target."""
    for index, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2:
            raise DataError(f"expected (source, target) pairs, got {pair!r} as number {index + 1}.")
    if not pairs:
        raise DataError("expected at least one (source, target) pair, got none.")
    return [Example(source, (target,)) for source, target in pairs]


def _pair(row: int, ids: list[int], mask: list[int], labels: list[int], family: str) -> Encoded:
    """One row of transformers' batches as a pair: a target is one run of labels at the end of what is not padding."""
    tokens = [token for token, real in zip(ids, mask, strict=True) if real]
    if family == "seq2seq":
        target, source = _run(labels, row), tokens
    else:
        own = [label for label, real in zip(labels, mask, strict=True) if real]
        target = _run(own, row)
        if own[len(own) - len(target) :] != target:
            raise DataError(f"row {row}: expected labels up to the row's last token, got -100 behind them.")
        source = tokens[: len(tokens) - len(target)]
    return Encoded(tuple(source), tuple(target))


def _run(labels: list[int], row: int) -> list[int]:
    there = [index for index, label in enumerate(labels) if label != IGNORED]
    if not there:
        raise DataError(f"row {row}: expected a target, got only -100 in labels.")
    if there[-1] - there[0] + 1 != len(there):
        raise DataError(f"row {row}: expected labels in one run, got -100 between them.")
    return labels[there[0] : there[-1] + 1]
