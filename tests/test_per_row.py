"""Different prompts in one batch: every row comes out as it would alone, in the loss, in decoding, in label scores."""

from collections.abc import Sequence
from typing import Any

import factories
import pytest
import torch
from factories import ARCHITECTURES, SEQ2SEQ

from softprompt.backbone import Backbone
from softprompt.batch import encode_sources, make_batch
from softprompt.config import DecodeConfig
from softprompt.decode import decode_texts
from softprompt.errors import ConfigError, DataError
from softprompt.forms import PrefixForm, join
from softprompt.labels import LabelWords, score_labels, target_log_probs
from softprompt.loss import target_nll
from softprompt.method_config import PromptTuning
from softprompt.methods import METHODS, Untuned
from softprompt.per_row import PerRow
from softprompt.prompt import Prompt

NAMES = [*ARCHITECTURES, *SEQ2SEQ]
FEW = ["gpt2", "llama", "mistral_window", "gemma3", "bart", "t5"]
KINDS = ["prompts", "prefixes", "both"]


def virtual(bone: Backbone, seed: int, **options: Any) -> Prompt:
    torch.manual_seed(seed)
    method = METHODS["prompt"](bone, PromptTuning(**{"init": "normal", "init_scale": 1.0, **options}))
    kept = method.fold()
    assert isinstance(kept, Prompt)
    return kept


def prompts(bone: Backbone, kind: str) -> list[Prompt | None]:
    """Five rows: of different lengths, one prompt twice, and a row without any."""
    ways = {
        "prompts": lambda: [virtual(bone, 1, length=5), virtual(bone, 2, length=2, place="after")],
        "prefixes": lambda: [
            factories.prefix(bone, length=5).fold(),
            factories.prefix(bone, length=2, seed=2, positions="unshifted").fold(),
        ],
        "both": lambda: [virtual(bone, 1, length=3), factories.prefix(bone, length=4).fold()],
    }
    first, second = ways[kind]()
    return [first, None, second, first, second]


def alone(prompt: Prompt | None) -> Prompt | Untuned:
    return Untuned() if prompt is None else prompt


@pytest.mark.parametrize(
    ("name", "attention"), [*((name, "sdpa") for name in NAMES), *((name, "eager") for name in FEW)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_equal_each_row_alone(name: str, kind: str, attention: str) -> None:
    bone = factories.backbone(name, attention=attention)
    rows, pairs = prompts(bone, kind), factories.pairs(5)
    together = target_log_probs(bone, PerRow(tuple(rows)), pairs, batch_size=5)
    for prompt, pair, got in zip(rows, pairs, together, strict=True):
        (want,) = target_log_probs(bone, alone(prompt), [pair], batch_size=1)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_equals_each_row_alone(name: str, kind: str, beams: int) -> None:
    bone, sources = factories.backbone(name), factories.texts(5, seed=3)
    config = DecodeConfig(beams=beams, max_new_tokens=8, batch_size=3)
    rows = prompts(bone, kind)
    together = decode_texts(bone, PerRow(tuple(rows)), sources, config)
    each = [
        decode_texts(bone, alone(prompt), [source], config)[0] for prompt, source in zip(rows, sources, strict=True)
    ]
    assert [(row.text, row.tokens) for row in together] == [(row.text, row.tokens) for row in each]
    assert [row.index for row in together] == list(range(5)) and len({row.text for row in each}) > 1


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_label_scores_equal_each_row_alone(name: str) -> None:
    bone, sources = factories.backbone(name), factories.texts(5, seed=3)
    rows = prompts(bone, "prefixes")
    labels = LabelWords.of(bone, ["tea", "cold pie"], DecodeConfig(labels=True))
    together = score_labels(bone, PerRow(tuple(rows)), sources, labels, batch_size=4)
    for prompt, source, got in zip(rows, sources, together, strict=True):
        want = score_labels(bone, alone(prompt), [source], labels, batch_size=1)[0]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_the_loss_of_a_batch_is_the_sum_over_its_rows(name: str) -> None:
    bone, pairs = factories.backbone(name), factories.pairs(5)

    def nll(how: PerRow | Prompt | Untuned, chosen: Sequence[Any]) -> float:
        with torch.no_grad(), how.attach(bone):
            return float(target_nll(bone, make_batch(bone, how, chosen)))

    rows = prompts(bone, "both")
    each = sum(nll(alone(prompt), [pair]) for prompt, pair in zip(rows, pairs, strict=True))
    assert nll(PerRow(tuple(rows)), pairs) == pytest.approx(each, rel=1e-5)


@pytest.mark.parametrize("kind", ["prefixes", "prompts"])
def test_the_same_prompt_in_all_rows_is_that_prompt_alone(kind: str) -> None:
    bone, sources = factories.backbone("gpt2"), factories.texts(4)
    prompt, config = prompts(bone, kind)[0], DecodeConfig(max_new_tokens=6)
    assert prompt is not None
    assert decode_texts(bone, PerRow((prompt,) * 4), sources, config) == decode_texts(bone, prompt, sources, config)
    nothing = PerRow((None,) * 4)
    assert decode_texts(bone, nothing, sources, config) == decode_texts(bone, Untuned(), sources, config)


def test_sites_that_only_one_prompt_has() -> None:
    bone, pairs = factories.backbone("bart"), factories.pairs(2)
    every, cross = factories.prefix(bone, length=3).fold(), factories.prefix(bone, length=2, seed=2).fold()
    kept = cross.keys_and_values()
    sites = tuple(site for site in cross.form.sites if site.kind == "cross")
    cross = Prompt(join({site.name: kept[site.name] for site in sites}, sites), PrefixForm(sites, "unshifted"))
    together = target_log_probs(bone, PerRow((every, cross)), pairs, batch_size=2)
    for prompt, pair, got in zip((every, cross), pairs, together, strict=True):
        torch.testing.assert_close(got, target_log_probs(bone, prompt, [pair], batch_size=1)[0], rtol=1e-4, atol=2e-5)


def test_what_cannot_be_is_refused() -> None:
    bone = factories.backbone("gpt2")
    short, long = factories.prefix(bone, length=2).fold(), factories.prefix(bone, length=60).fold()
    config = DecodeConfig(max_new_tokens=5)
    with pytest.raises(ConfigError, match="a prompt for each of 2 sources, got 1"):
        decode_texts(bone, PerRow((short,)), ["tea", "pie"], config)
    source = "tea " * 20
    room = len(encode_sources(bone, [source])[0])
    assert len(decode_texts(bone, PerRow((short, long)), [source, "pie"], config)) == 2
    long = factories.prefix(bone, length=124 - room).fold()
    with pytest.raises(DataError, match=rf"1 of 2 sources .* beside {124 - room + 5} positions.* in number 2"):
        decode_texts(bone, PerRow((short, long)), [source, source], config)
    infix = Prompt(short.numbers, type(short.form)(short.form.sites, "shifted", "between"))
    with pytest.raises(ConfigError, match="expected prefixes before the text"):
        PerRow((infix, short))
    with pytest.raises(ConfigError, match="expected prefixes before the text"):
        PerRow((infix, None))
    assert decode_texts(bone, PerRow((infix,)), ["tea"], config) == decode_texts(bone, infix, ["tea"], config)
