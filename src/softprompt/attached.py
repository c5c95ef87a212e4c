"""The front door for one's own code: a method attached to a backbone, for any training loop, to generate, save, load.

backbone = Backbone.load("gpt2")
model = attach(backbone, PrefixTuning(length=5))
model.loss([("name : Aromi", "Aromi is a pub.")]).backward()
model.generate(["name : Aromi"], strategy="greedy")
model.save("aromi")
load(backbone, "aromi").generate(["name : Aromi"])
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softprompt import methods
from softprompt.answers import Answers, answers_of
from softprompt.artefact import kept_in, read_facts
from softprompt.backbone import Backbone, recompute_layers
from softprompt.batch import (
    IGNORED,
    Encoded,
    encode_pairs,
    make_batch,
    make_source_batch,
    require_fit,
    require_pairs_fit,
)
from softprompt.config import load_recipe
from softprompt.decode import decode_texts
from softprompt.embed import require_words, vocabulary_size
from softprompt.errors import ConfigError, DataError
from softprompt.loss import target_nll
from softprompt.method_config import MethodConfig
from softprompt.methods import METHODS, Method, Steering, room_taken
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
        answers: Answers | None = None,
    ) -> None:
        super().__init__()
        self.answers = answers or Answers()
        self.recompute = False
        self._loading: tuple[str, list[str], list[str]] = ("", [], [])
        self.register_load_state_dict_post_hook(_speak_of_own_names)  # type: ignore[no-untyped-call]
        self.backbone, self.steering, self.method, self._hash = backbone, steering, method, backbone_hash
        self.model, self.frozen_dropout = backbone.model, frozen_dropout
        self.train(False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | float | None = None,
        decoder_input_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"loss": mean nats per target token} of a batch as transformers has them, padded on either side.

        Without labels {"logits": (B, T, V)}, what follows each token of `input_ids` as a source, or (B, T', V) behind
        `decoder_input_ids` in an encoder-decoder; 0 on pads.

        Args:
            input_ids: (B, T); in the causal family source and target in a row, in the other the source.
            attention_mask: (B, T), 0 on pads; None: no pads.
            labels: the targets, -100 elsewhere: (B, T) beside `input_ids`, or (B, T') in an encoder-decoder.
            num_items_in_batch: what the sum is divided by, instead of the batch's own number of target tokens.

        Raises:
            DataError: a row without labels, labels that are not one run of tokens, or an encoder-decoder that gets
                neither labels nor `decoder_input_ids`.
        """
        if labels is None:
            return {"logits": self._logits(input_ids, attention_mask, decoder_input_ids)}
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
        self, sources: Sequence[str], *, labels: Sequence[str] | None = None, seed: int | None = None, **options: Any
    ) -> list[str]:
        """A text for each source; `options` are those of a recipe's `decode` section, such as strategy="greedy".

        With `labels`, each text is one of them: see `softprompt.labels`. What is not named here is as in the run whose
        prompt this is, label words and seed included (`labels=[]` asks for free text); else as a recipe's defaults.

        Raises:
            ConfigError: an option that there is not, or that has no effect.
            DataError: one text instead of a list of them, or a source that does not fit the window.
        """
        if isinstance(sources, str):
            raise DataError(f"expected a list of sources, got one text. Write generate([{sources[:20]!r}...]).")
        words = (self.answers.labels if labels is None else tuple(labels)) or None
        config = self.answers.config(options, words)
        training = self.training
        self.train(False)
        try:
            rows = decode_texts(
                self.backbone,
                self.steering,
                sources,
                config,
                labels=words,
                seed=self.answers.seed if seed is None else seed,
            )
        finally:
            self.train(training)
        return [row.text for row in rows]

    def save(self, folder: str | Path) -> None:
        """Write what is learned, for `load`: PEFT's format where PEFT has it, and always the backbone's hash."""
        if self.method is None:
            raise ConfigError("save: nothing is trained here; what was loaded lies where it was loaded from.")
        self.method.save(Path(folder), backbone_id=self.backbone.id, backbone_hash=self._hash)

    @property
    def config(self) -> Any:
        """The backbone's config, which transformers' Trainer looks at."""
        return self.model.config

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recompute activations in the backward pass: see `Backbone.enable_gradient_checkpointing`.

        Raises:
            ConfigError: a way of doing so that there is not here.
        """
        asked = dict(activation_checkpointing_kwargs or {})
        if asked.pop("use_reentrant", False) or asked or every_n_layers != 1 or offload:
            raise ConfigError(
                "activation checkpointing: expected every layer, use_reentrant=False and no offload, got "
                f"{activation_checkpointing_kwargs}, every_n_layers={every_n_layers}, offload={offload}. Drop them."
            )
        self.backbone.enable_gradient_checkpointing()
        self.recompute = True
        self.train(self.training)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        """The same by its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **more)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self.model.gradient_checkpointing_disable()
        self.recompute = False
        self.train(self.training)

    def train(self, mode: bool = True) -> "Attached":
        """Training mode of the method; of the frozen backbone only where `frozen_dropout` is set."""
        self.training = mode
        self.model.train(mode and self.frozen_dropout)
        if self.method is not None:
            self.method.set_mode(mode)
        if self.recompute and mode:
            recompute_layers(self.model)
        return self

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """What is learned, by name: alone, or as a part of a module that this one stands in."""
        own = self.method.trainable() if self.method is not None else {}
        found = {f"{prefix}{name}": one if keep_vars else one.detach() for name, one in own.items()}
        if destination is None:
            return found
        destination.update(found)
        return destination

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, _: Any, strict: bool, missing_keys: Any, unexpected_keys: Any, errors: Any
    ) -> None:
        """Take what is learned out of the state of a module that this one stands in."""
        own = self.method.trainable() if self.method is not None else {}
        given = {name for name in state_dict if name.startswith(prefix)}
        missing = [name for name in own if f"{prefix}{name}" not in given]
        unexpected = sorted(given - {f"{prefix}{name}" for name in own})
        with torch.no_grad():
            for name, parameter in own.items():
                there = state_dict.get(f"{prefix}{name}")
                if there is None:
                    continue
                if there.shape != parameter.shape:
                    errors.append(f"size mismatch for {prefix}{name}: {tuple(there.shape)}, {tuple(parameter.shape)}")
                    continue
                if not bool(torch.isfinite(there).all()):
                    errors.append(f"{prefix}{name}: NaN or infinity in what was kept")
                    continue
                parameter.copy_(there)
        self._loading = prefix, [f"{prefix}{name}" for name in missing], unexpected

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Inverse of `state_dict`; every name must be there, and no other."""
        own = self.method.trainable() if self.method is not None else {}
        wrong = sorted(own.keys() ^ state_dict.keys())
        if wrong:
            raise ConfigError(f"expected the tensors of this method, got others, among them {wrong[0]!r}.")
        for name, parameter in own.items():
            there = state_dict[name]
            if parameter.shape != there.shape or not bool(torch.isfinite(there).all()):
                raise ConfigError(
                    f"expected {name} of shape {tuple(parameter.shape)} in finite numbers, got {tuple(there.shape)}"
                    f"{'' if parameter.shape != there.shape else ' with NaN or infinity'}. Take another state."
                )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state_dict[name])
        return nn.modules.module._IncompatibleKeys([], [])

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None, read_BT: Tensor | None) -> Tensor:
        """See `forward`."""
        if self.backbone.family == "seq2seq" and read_BT is None:
            raise DataError(
                "expected labels (for a loss) or decoder_input_ids (for logits), got neither. generate() gives texts."
            )
        real_BT = torch.ones_like(ids_BT, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
        rows = [ids[real].tolist() for ids, real in zip(ids_BT, real_BT, strict=True)]
        if not all(rows):
            raise DataError("expected at least one token in every row, got a row of pads alone.")
        require_words(self.backbone, [tuple(row) for row in rows])
        room = room_taken(self.backbone, self.steering)
        require_fit([len(row) for row in rows], self.backbone.window, what="rows", offset=room)
        batch = make_source_batch(self.backbone, self.steering, rows)
        with self.steering.attach(self.backbone, shared=True):
            if read_BT is not None:
                read: Tensor = self.model(**batch.inputs(), decoder_input_ids=read_BT, use_cache=False).logits
                return read
            out_BSV: Tensor = self.model(**batch.inputs(), use_cache=False).logits
        first = vocabulary_size(self.model)
        added = len(self.steering.place(self.backbone, rows[0])) - len(rows[0])
        virtual_BS = (batch.input_ids_BT >= first) & (batch.input_ids_BT < first + added)
        kept_BS = batch.attention_mask_BT.bool() & ~virtual_BS
        logits = out_BSV.new_zeros(*ids_BT.shape, out_BSV.shape[2])
        logits[real_BT.to(out_BSV.device)] = out_BSV[kept_BS]
        return logits

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


def load(backbone: Backbone | str | Path, folder: str | Path | None = None) -> Attached:
    """What `save` or a run wrote, on the backbone that it was learned on: to generate with, and for losses.

    `load(folder)` loads that backbone too, as the run had it; of a fine-tuned one, the tuned. What a run learned
    answers as it did in the run: see `Attached.generate`. A prompt or tuner in a folder of PEFT's is read as well.

    Raises:
        CheckpointError: missing, damaged, not finite, or learned on another backbone.
    """
    if not isinstance(backbone, Backbone):
        if folder is not None:
            raise ConfigError(
                f"load: expected a backbone, got {str(backbone)!r}. Write load(Backbone.load(...), folder)."
            )
        return _load_whole(Path(backbone).expanduser())
    if folder is None:
        raise ConfigError("load: expected a folder, got a backbone alone. Write load(backbone, folder).")
    steering = methods.load(backbone, folder)
    return Attached(backbone, steering, answers=answers_of(kept_in(Path(folder).expanduser())))


def _load_whole(folder: Path) -> Attached:
    """See `load`, on a backbone that is loaded here."""
    kept = kept_in(folder)
    facts, recipe = read_facts(kept), kept.parent / "recipe.yaml"
    wanted = load_recipe(str(recipe)).backbone if kept != folder and recipe.is_file() else None
    options: dict[str, Any] = {} if wanted is None else {"dtype": wanted.dtype, "attention": wanted.attention}
    if facts.method == "finetune":
        return Attached(Backbone.load(str(kept), **options), methods.Untuned(), answers=answers_of(kept))
    if wanted is not None:
        options |= {"revision": wanted.revision, "quantize": wanted.quantize}
    return load(Backbone.load(facts.backbone.id, **options), folder)


def _speak_of_own_names(module: Attached, incompatible: Any) -> None:
    """Keep torch from missing the backbone's weights in a state that holds what is learned alone."""
    prefix, missing, unexpected = module._loading
    for names, own in ((incompatible.missing_keys, missing), (incompatible.unexpected_keys, unexpected)):
        names[:] = [name for name in names if not name.startswith(prefix)] + own


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
