"""BERTScore: how well the tokens of an output and a reference match in the vectors of a language model.

Each token of one text is matched with the nearest of the other by cosine; P is the mean over the output's tokens, R
over the reference's, F = 2 P R / (P + R). Special tokens can be matched but do not count in the means. With several
references the best F counts; then the mean over segments. No idf weights, no rescaling by a baseline.

Two scores compare only if model and layer agree, so the signature names both.

Source: Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT"; the numbers are those of the package
bert-score with the same model, layer and defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any, Final

from softprompt.errors import ConfigError
from softprompt.metrics.base import Metric, MetricFactory, References, Sums, Unavailable, mean_of

# The layers that the paper's authors chose on WMT16; for any other model name the layer.
_LAYERS: Final = {
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "roberta-base": 10,
    "roberta-large": 17,
    "distilbert-base-uncased": 5,
    "microsoft/deberta-large-mnli": 18,
    "microsoft/deberta-xlarge-mnli": 40,
}
_BATCH: Final = 32


class BertScore(Metric):
    """Mean F, from -1 to 1. Not times 100."""

    name = "bertscore"

    def __init__(self, references: References, model: str, layer: int) -> None:
        """Loads the model.

        Raises:
            Unavailable: The model cannot be loaded, or has fewer layers.
            DataError: A segment has no reference.
        """
        super().__init__(references)
        self._references = references
        self._encoder = _Encoder.load(model, layer)

    @property
    def signature(self) -> str:
        return f"BERTScore|F1|model:{self._encoder.name}|layer:{self._encoder.layer}|idf:no|rescaled:no|refs:max"

    def segments(self, hypotheses: Sequence[str]) -> Sums:
        """Best F of each segment."""
        texts = dict.fromkeys([*hypotheses, *(text for group in self._references for text in group)])
        vectors = dict(zip(texts, self._encoder.vectors(list(texts)), strict=True))
        return mean_of(
            max(_f_score(vectors[hypothesis], vectors[reference]) for reference in group)
            for hypothesis, group in zip(hypotheses, self._references, strict=True)
        )


def bertscore(model: str) -> MetricFactory:
    """BERTScore by `model`: a hub id or a local folder, with `:LAYER` behind it where the layer is not a known one.

    Raises:
        ConfigError: The layer is not known and not given.
    """
    name, _, layer = model.rpartition(":")
    if not (name and layer.isdigit()):
        name, layer = model, str(_LAYERS.get(model, ""))
    if not layer:
        raise ConfigError(f"BERTScore's layer is not known for model {model!r}. Write {model}:LAYER.")
    return partial(BertScore, model=name, layer=int(layer))


class _Encoder:
    def __init__(self, name: str, layer: int, model: Any, tokenizer: Any) -> None:
        self.name, self.layer, self._model, self._tokenizer = name, layer, model, tokenizer

    @staticmethod
    @cache
    def load(name: str, layer: int) -> _Encoder:
        """The model cut after `layer`.

        Raises:
            Unavailable: It cannot be loaded, or has fewer layers.
        """
        from transformers import AutoModel, AutoTokenizer

        try:
            # Models that read words with a space before them are given one at the start too.
            tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True, trust_remote_code=False)
            model = AutoModel.from_pretrained(name, trust_remote_code=False).eval()
        except (OSError, ValueError) as error:
            raise Unavailable(f"BERTScore's model {name!r} cannot be loaded: {error}") from error
        if not 0 <= layer <= model.config.num_hidden_layers:
            raise Unavailable(
                f"BERTScore's model {name!r} has {model.config.num_hidden_layers} layers, layer {layer} was asked for"
            )
        return _Encoder(name, layer, model, tokenizer)

    def vectors(self, texts: Sequence[str]) -> list[tuple[Any, Any]]:
        """For each text its tokens' unit vectors (T, E) and which of them count (T,)."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        found: dict[int, tuple[Any, Any]] = {}
        for start in range(0, len(order), _BATCH):
            indices = order[start : start + _BATCH]
            found |= zip(indices, self._batch([texts[index].strip() for index in indices]), strict=True)
        return [found[index] for index in range(len(texts))]

    def _batch(self, texts: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        import torch

        limit = min(self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", 512))
        encoded = self._tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_special_tokens_mask=True, return_tensors="pt"
        )
        special = encoded.pop("special_tokens_mask").bool()
        with torch.no_grad():
            states = self._model(**encoded, output_hidden_states=True).hidden_states[self.layer]
        unit = torch.nn.functional.normalize(states.float(), dim=-1)
        for row, mask, extra in zip(unit, encoded["attention_mask"].bool(), special, strict=True):
            yield row[mask], ~extra[mask]


def _f_score(ours: tuple[Any, Any], theirs: tuple[Any, Any]) -> float:
    (ours_TE, counts), (theirs_TE, their_counts) = ours, theirs
    if not (counts.any() and their_counts.any()):
        return 0.0
    similarity = ours_TE @ theirs_TE.T
    precision = float(similarity.max(dim=1).values[counts].mean())
    recall = float(similarity.max(dim=0).values[their_counts].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
