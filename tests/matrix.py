"""The promise as a matrix: every method on every family, property by property.

`python tests/matrix.py` prints the page of the docs. A cell is a tiny random backbone with a method whose numbers are
shaken, so that nothing is 0 by its start. A property is a function of a cell that asserts; `refused` gives the reason
why a cell cannot have it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from torch import Tensor

from softprompt import methods
from softprompt.backbone import Backbone, selecting
from softprompt.batch import Encoded, collate, collate_seq2seq, make_batch, make_source_batch
from softprompt.config import DecodeConfig, TrainConfig
from softprompt.decode import decode_texts, generation_options
from softprompt.loss import target_nll
from softprompt.method_config import Adapter, DePT, FineTuning, LoRA, MethodConfig, PrefixTuning, PromptTuning
from softprompt.methods import METHODS, Method, Steering, trained_count
from softprompt.optim import make_optimizer
from softprompt.passes import Passes
from softprompt.per_row import PerRow
from softprompt.prompt import Prompt
from softprompt.train import prepare_mode, training_steps

P = 4
CONFIGS: dict[str, MethodConfig] = {
    "prefix": PrefixTuning(length=P, hidden=16),
    "prefix, deep": PrefixTuning(length=P, hidden=16, reparam="deep"),
    "prefix, direct": PrefixTuning(length=P, reparam="none"),
    "prefix, infix": PrefixTuning(length=P, reparam="none", place="between"),
    "prefix, beside": PrefixTuning(length=P, reparam="none", attention="beside", init="noop", positions="unshifted"),
    "prompt": PromptTuning(length=P, init="normal"),
    "prompt, after": PromptTuning(length=P, init="normal", place="after"),
    "prompt, residual": PromptTuning(length=P, init="normal", reparam="residual", bottleneck=8),
    "dept": DePT(length=P, rank=2, text_length=6, init="normal"),
    "adapter, lin": Adapter(design="lin", bottleneck=4),
    "adapter, houlsby": Adapter(design="houlsby", bottleneck=4),
    "lora": LoRA(rank=2),
    "finetune": FineTuning(),
    "finetune, top": FineTuning(top=1),
}
FAMILIES = {
    "gpt2": "GPT-2",
    "llama": "Llama, grouped heads",
    "mistral_window": "Mistral, sliding window",
    "gemma3": "Gemma 3",
    "bart": "BART, 2 and 3 layers",
    "t5": "T5, 3 and 2 layers, heads x d_kv is not d_model",
}
SEQ2SEQ = ("bart", "t5")
TRAIN = TrainConfig(batch_size=3, lr=1e-2, max_steps=2, precision="float32")
NEW = 6


@dataclass
class Cell:
    """One method on one backbone."""

    family: str
    method_name: str
    attention: str = "sdpa"

    @cached_property
    def bone(self) -> Backbone:
        return factories.backbone(self.family, attention=self.attention)

    @cached_property
    def before(self) -> str:
        return self.bone.hash()

    @cached_property
    def method(self) -> Method:
        _ = self.before
        torch.manual_seed(1)
        made = METHODS[CONFIGS[self.method_name].name](self.bone, CONFIGS[self.method_name])
        with torch.no_grad():
            for name, parameter in sorted(made.trainable().items()):
                torch.manual_seed(len(name))
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        made.set_mode(False)
        return made

    @cached_property
    def pairs(self) -> list[Encoded]:
        """Uneven; sources longer than Mistral's window."""
        return factories.pairs(3, longest=14)

    def nll(self, pairs: list[Encoded], how: Steering | None = None, side: str = "right") -> Tensor:
        how = how or self.method
        placed = [Encoded(how.place(self.bone, pair.source), pair.target) for pair in pairs]
        if self.bone.family == "causal":
            batch = collate(placed, self.bone.pad_id, side=side)
        else:
            batch = collate_seq2seq(placed, self.bone.pad_id, self.bone.shifted, side=side)
        with torch.no_grad(), how.attach(self.bone):
            return target_nll(self.bone, batch)

    def logits(self, pair: Encoded) -> Tensor:
        """(target tokens, V), teacher-forced."""
        batch = make_batch(self.bone, self.method, [pair])
        with torch.no_grad(), self.method.attach(self.bone), selecting(self.bone.model, batch.at_N):
            out: Tensor = self.bone.model(**batch.inputs(), use_cache=False).logits
        return out

    def generate(self, *, use_cache: bool = True, **options: Any) -> Any:
        settings = generation_options(self.bone, DecodeConfig(max_new_tokens=NEW, ban_newline=False, **options))
        settings.update(output_logits=True, output_scores=True, return_dict_in_generate=True, use_cache=use_cache)
        batch = make_source_batch(self.bone, self.method, [pair.source for pair in self.pairs])
        with torch.no_grad(), self.method.attach(self.bone, shared=True):
            out = self.bone.model.generate(**batch.inputs(), generation_config=settings)
        given = batch.input_ids_BT.shape[1] if self.bone.family == "causal" else 1
        return out, out.sequences[:, given:].tolist()

    def gradients(self, config: TrainConfig) -> dict[str, Tensor]:
        """With the same dropout at every call, where the method has any."""
        method = self.method
        torch.manual_seed(0)
        prepare_mode(self.bone, method, config)
        for parameter in method.trainable().values():
            parameter.grad = None
        Passes(self.bone, method, config).accumulate(self.pairs, len(self.pairs))
        return {name: p.grad.clone() for name, p in method.trainable().items() if p.grad is not None}


def padded_right(cell: Cell, tmp: Path) -> None:
    alone = sum(cell.nll([pair]) for pair in cell.pairs)
    torch.testing.assert_close(cell.nll(cell.pairs), alone, rtol=1e-5, atol=1e-4)


def padded_left(cell: Cell, tmp: Path) -> None:
    alone = sum(cell.nll([pair]) for pair in cell.pairs)
    torch.testing.assert_close(cell.nll(cell.pairs, side="left"), alone, rtol=1e-5, atol=1e-4)


def greedy(cell: Cell, tmp: Path) -> None:
    out, rows = cell.generate(strategy="greedy", min_new_tokens=NEW)
    for row, pair in enumerate(cell.pairs):
        want = cell.logits(replace(pair, target=tuple(rows[row])))
        torch.testing.assert_close(torch.stack(out.logits, dim=1)[row], want, atol=2e-5, rtol=1e-4)
        want[:, cell.bone.eos_id] = -math.inf
        assert want.argmax(dim=1).tolist() == rows[row]


def beam(cell: Cell, tmp: Path) -> None:
    out, rows = cell.generate(strategy="beam", beams=3)
    for row, pair in enumerate(cell.pairs):
        eos = cell.bone.eos_id
        tokens = rows[row][: rows[row].index(eos) + 1] if eos in rows[row] else rows[row]
        chances = cell.logits(replace(pair, target=tuple(tokens))).log_softmax(dim=1)
        want = float(chances[range(len(tokens)), tokens].sum()) / len(tokens)
        assert float(out.sequences_scores[row]) == pytest.approx(want, abs=1e-4)


def cached(cell: Cell, tmp: Path) -> None:
    for options in ({"strategy": "greedy"}, {"strategy": "beam", "beams": 2}):
        (with_cache, rows), (without, again) = (cell.generate(use_cache=use, **options) for use in (True, False))
        assert rows == again
        torch.testing.assert_close(torch.stack(with_cache.logits), torch.stack(without.logits), atol=2e-5, rtol=1e-4)


def batched(cell: Cell, tmp: Path) -> None:
    phrases = factories.texts(4)
    for options in ({"strategy": "greedy"}, {"strategy": "beam", "beams": 2}):
        settings = {"max_new_tokens": NEW, "min_new_tokens": 3, "ban_newline": False, **options}
        together, alone = (
            decode_texts(cell.bone, cell.method, phrases, DecodeConfig(batch_size=size, **settings)) for size in (4, 1)
        )
        assert together == alone and any(row.text for row in together)


def folded(cell: Cell, tmp: Path) -> None:
    assert torch.equal(cell.nll(cell.pairs, cell.method.fold()), cell.nll(cell.pairs))


def saved(cell: Cell, tmp: Path) -> None:
    cell.method.save(tmp / "kept", backbone_id=cell.family, backbone_hash=cell.before)
    want = cell.nll(cell.pairs)
    other = Cell(cell.family, cell.method_name)
    if CONFIGS[cell.method_name].name == "finetune":
        other.bone = Backbone.load(str(tmp / "kept"))
        assert torch.equal(other.nll(cell.pairs, methods.Untuned()), want)
    else:
        assert torch.equal(other.nll(cell.pairs, methods.load(other.bone, tmp / "kept")), want)


def checkpointed(cell: Cell, tmp: Path) -> None:
    plain = cell.gradients(TRAIN)
    cell.bone.enable_gradient_checkpointing()
    again = cell.gradients(TRAIN.model_copy(update={"gradient_checkpointing": True}))
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(
            again[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def eager(cell: Cell, tmp: Path) -> None:
    other = Cell(cell.family, cell.method_name, attention="eager")
    torch.testing.assert_close(other.nll(cell.pairs), cell.nll(cell.pairs), rtol=1e-5, atol=1e-4)


def gradient(cell: Cell, tmp: Path) -> None:
    start = {name: p.detach().clone() for name, p in cell.method.trainable().items()}
    optimizer = make_optimizer(cell.method, TRAIN)
    for _ in training_steps(cell.bone, cell.method, optimizer, cell.pairs, TRAIN, seed=1):
        pass
    for name, parameter in cell.method.trainable().items():
        assert not torch.equal(parameter, start[name]), f"{name} did not move"


def frozen(cell: Cell, tmp: Path) -> None:
    _ = cell.method
    before = cell.bone.frozen_hash()
    optimizer = make_optimizer(cell.method, TRAIN)
    for _ in training_steps(cell.bone, cell.method, optimizer, cell.pairs, TRAIN, seed=1):
        pass
    assert cell.bone.frozen_hash() == before
    if CONFIGS[cell.method_name].name not in ("finetune", "lora"):
        assert cell.bone.hash() == cell.before


def counts(cell: Cell, tmp: Path) -> None:
    got = (trained_count(cell.method), cell.method.stored_count())
    assert got == FORMULAS[cell.method_name](cell.bone)


def mixed(cell: Cell, tmp: Path) -> None:
    """Three rows: this prompt, a longer one, and none; alone they are decoded and scored the same."""
    own = cell.method.fold()
    assert isinstance(own, Prompt)
    torch.manual_seed(3)
    other = Prompt(torch.randn(P + 2, own.form.width), own.form)
    prompts = (own, other, None)
    with torch.no_grad():
        how = PerRow(prompts)
        with how.attach(cell.bone):
            together = float(target_nll(cell.bone, make_batch(cell.bone, how, cell.pairs)))
    alone = [
        float(cell.nll([pair], prompt or methods.Untuned())) for pair, prompt in zip(cell.pairs, prompts, strict=True)
    ]
    assert together == pytest.approx(sum(alone), rel=1e-5)
    phrases = factories.texts(3)
    for options in ({"strategy": "greedy"}, {"strategy": "beam", "beams": 2}):
        config = DecodeConfig(max_new_tokens=NEW, min_new_tokens=3, ban_newline=False, **options)
        rows = decode_texts(cell.bone, how, phrases, config)
        for row, prompt in enumerate(prompts):
            (single,) = decode_texts(cell.bone, prompt or methods.Untuned(), [phrases[row]], config)
            assert rows[row].text == single.text


PROPERTIES: dict[str, Callable[[Cell, Path], None]] = {
    "padded = unpadded, pads on the right": padded_right,
    "padded = unpadded, pads on the left": padded_left,
    "generate = teacher-forced, greedy": greedy,
    "generate = teacher-forced, beam": beam,
    "cached = uncached": cached,
    "batched = one by one": batched,
    "rows with different prompts and lengths = each alone": mixed,
    "folded = unfolded, to the bit": folded,
    "saved and loaded = before, to the bit": saved,
    "gradient checkpointing on = off": checkpointed,
    "eager = sdpa": eager,
    "every trainable tensor moves": gradient,
    "the frozen backbone keeps its hash": frozen,
    "trained and stored counts equal the formula": counts,
}


def prefix_width(bone: Backbone) -> int:
    """Numbers of one virtual token over all sites: keys and values of all KV heads."""
    config = bone.model.config
    if bone.family == "seq2seq":
        encoder, decoder = factories.SEQ2SEQ[bone.id]
        inner = getattr(config, "d_kv", 0) * getattr(config, "num_heads", 0) or config.d_model
        return 2 * inner * (encoder + 2 * decoder)
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    return (
        2
        * config.num_hidden_layers
        * heads
        * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    )


def mlp(bone: Backbone, *, deep: bool = False, hidden: int = 16) -> tuple[int, int]:
    width, embed, banks = prefix_width(bone), bone.hidden_width(), 3 if bone.family == "seq2seq" else 1
    each = P * embed + (embed + 1) * hidden + ((hidden + 1) * hidden if deep else 0)
    return banks * each + (hidden + 1) * width, P * width


def blocks(bone: Backbone) -> int:
    return sum(factories.SEQ2SEQ[bone.id]) if bone.family == "seq2seq" else bone.model.config.num_hidden_layers


def adapters(bone: Backbone, *, houlsby: bool) -> tuple[int, int]:
    embed, bottleneck = bone.hidden_width(), 4
    each = 2 * embed * bottleneck + bottleneck + embed + (0 if houlsby else 2 * embed)
    return ((2 if houlsby else 1) * blocks(bone) * each,) * 2


def lora(bone: Backbone) -> tuple[int, int]:
    """R (rows + columns) of the matrices that PEFT takes: its choice is read from the module names."""
    ends = (".lora_A.default", ".lora_B.default")
    inside = {name.removesuffix(end) for name, _ in bone.model.named_modules() for end in ends if name.endswith(end)}
    shapes = [bone.model.get_submodule(name).base_layer.weight.shape for name in sorted(inside)]
    return (2 * sum(map(sum, shapes)),) * 2


def tuned(bone: Backbone, top: bool) -> tuple[int, int]:
    counted = list(bone.blocks()[-1].parameters()) if top else list(bone.model.parameters())
    return (sum(parameter.numel() for parameter in counted),) * 2


FORMULAS: dict[str, Callable[[Backbone], tuple[int, int]]] = {
    "prefix": mlp,
    "prefix, deep": lambda bone: mlp(bone, deep=True),
    "prefix, direct": lambda bone: (P * prefix_width(bone),) * 2,
    "prefix, infix": lambda bone: (P * prefix_width(bone),) * 2,
    "prefix, beside": lambda bone: (P * prefix_width(bone),) * 2,
    "prompt": lambda bone: (P * bone.hidden_width(),) * 2,
    "prompt, after": lambda bone: (P * bone.hidden_width(),) * 2,
    "prompt, residual": lambda bone: (
        P * bone.hidden_width() + 2 * 8 * bone.hidden_width() + 8 + bone.hidden_width() + 2 * bone.hidden_width(),
        P * bone.hidden_width(),
    ),
    "dept": lambda bone: (P * bone.hidden_width() + (6 + bone.hidden_width()) * 2,) * 2,
    "adapter, lin": lambda bone: adapters(bone, houlsby=False),
    "adapter, houlsby": lambda bone: adapters(bone, houlsby=True),
    "lora": lora,
    "finetune": lambda bone: tuned(bone, top=False),
    "finetune, top": lambda bone: tuned(bone, top=True),
}

NO_INFIX = "an encoder-decoder reads source and target apart, so there is no place between them; refused when built"
NO_MIX_FORM = "a batch mixes prefixes before the text, in the text's own softmax, alone; refused when attached"
NO_MIX = "it changes the weights or the words of all rows alike; a batch mixes prefixes and prompts"
BART_LEFT = "BART numbers positions from the row's start, pads included; encoders are padded on the right alone"


def refused(method: str, family: str, prop: str) -> str | None:
    """Why a cell cannot have a property; None where it has."""
    if method == "prefix, infix" and family in SEQ2SEQ:
        return NO_INFIX
    if family == "bart" and PROPERTIES[prop] is padded_left:
        return BART_LEFT
    if PROPERTIES[prop] is mixed and method.startswith(("prefix, infix", "prefix, beside")):
        return NO_MIX_FORM
    if PROPERTIES[prop] is mixed and not method.startswith("pr"):
        return NO_MIX
    if method == "finetune" and PROPERTIES[prop] is frozen:
        return "nothing is frozen"
    return None


def page() -> str:
    """docs/properties.md."""
    reasons: list[str] = []
    lines = [
        "# What holds for which method on which family",
        "",
        "Generated by `python tests/matrix.py > docs/properties.md` from what tests/test_matrix.py shows on tiny",
        "random backbones in float32 on a CPU. `+`: tested, every second one by default and all by `make test-all`.",
        "A number: cannot be; the reason is below.",
    ]
    for family, title in FAMILIES.items():
        lines += ["", f"## {title}", "", "| | " + " | ".join(CONFIGS) + " |", "|---" * (len(CONFIGS) + 1) + "|"]
        for prop in PROPERTIES:
            marks = []
            for method in CONFIGS:
                reason = refused(method, family, prop)
                if reason is not None and reason not in reasons:
                    reasons.append(reason)
                marks.append("+" if reason is None else str(reasons.index(reason) + 1))
            lines.append(f"| {prop} | " + " | ".join(marks) + " |")
    lines += ["", "## Cannot be", "", *(f"{number}. {reason}." for number, reason in enumerate(reasons, 1))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
