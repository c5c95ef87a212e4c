"""What others ask of an attached prompt: a Trainer, a module around it, logits; a run that answers as it did."""

import json
from pathlib import Path
from typing import Any

import factories
import pytest
import torch

from softprompt import Adapter, DePT, FineTuning, LoRA, PrefixTuning, PromptTuning, attach, load
from softprompt.backbone import Backbone
from softprompt.batch import encode_sources
from softprompt.config import load_recipe
from softprompt.errors import ConfigError, DataError
from softprompt.method_config import MethodConfig
from softprompt.run import run_recipe

PAIRS = list(zip(factories.texts(4, seed=1), factories.texts(4, seed=2), strict=True))


class Around(torch.nn.Module):
    """A module of somebody else's with an attached prompt in it, as Lightning has them."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, torch.nn.Linear(2, 2)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("config", [PrefixTuning(length=2, hidden=4), PromptTuning(length=2), LoRA(rank=2)], ids=str)
def test_the_state_of_a_module_around_it_holds_what_is_learned_and_nothing_of_the_backbone(
    name: str, config: Any
) -> None:
    model = attach(factories.backbone(name), config, seed=1)
    around = Around(model)
    kept = {key: tensor.clone() for key, tensor in around.state_dict().items()}
    own = {f"inner.{key}" for key in model.state_dict()}
    assert set(kept) == own | {"head.weight", "head.bias"} and own
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(1.0)
    assert around.load_state_dict(kept) == torch.nn.modules.module._IncompatibleKeys([], [])
    assert all(torch.equal(tensor, kept[key]) for key, tensor in around.state_dict().items())
    lacking = {key: tensor for key, tensor in kept.items() if key != min(own)}
    with pytest.raises(RuntimeError, match=min(own)):
        around.load_state_dict(lacking)
    with pytest.raises(RuntimeError, match=r"inner\.other"):
        around.load_state_dict({**kept, "inner.other": torch.zeros(1)})
    assert list(around.load_state_dict(lacking, strict=False).missing_keys) == [min(own)]


RECOMPUTED: dict[str, MethodConfig] = {
    "prefix": PrefixTuning(length=2, hidden=4),
    "infix": PrefixTuning(length=2, hidden=4, place="between"),
    "dept": DePT(length=2, rank=1),
    "adapter": Adapter(bottleneck=3),
    "adapter inside layers": Adapter(bottleneck=3, design="houlsby"),
    "lora": LoRA(rank=2),
    "finetune": FineTuning(top=1),
}


@pytest.mark.parametrize("method", RECOMPUTED)
@pytest.mark.parametrize("name", ["gpt2", "opt", "t5"])
def test_activation_checkpointing_gives_the_same_loss_and_gradients(name: str, method: str) -> None:
    if (name, method) == ("t5", "infix"):
        pytest.skip("an encoder-decoder has no infix")
    both = []
    for recompute in (False, True):
        model = attach(factories.backbone(name), RECOMPUTED[method], seed=1)
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        torch.manual_seed(0)
        loss = model.loss(PAIRS)
        loss.backward()
        both.append((loss.detach(), [p.grad for p in model.parameters() if p.requires_grad]))
    assert torch.allclose(both[0][0], both[1][0])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(both[0][1], both[1][1], strict=True))
    with pytest.raises(ConfigError, match="every layer"):
        model.activation_checkpointing_enable(every_n_layers=2)
    model.gradient_checkpointing_disable()
    assert model.config is model.backbone.model.config


@pytest.mark.parametrize("change", ["shape", "nan"])
def test_a_state_of_another_shape_or_not_finite_is_refused_whole(change: str) -> None:
    model = attach(factories.backbone("gpt2"), PromptTuning(length=2), seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    odd = {name: tensor[:1] if change == "shape" else tensor * float("nan") for name, tensor in before.items()}
    with pytest.raises(ConfigError, match="in finite numbers, got"):
        model.load_state_dict(odd)
    with pytest.raises(RuntimeError, match=r"size mismatch|NaN"):
        Around(model).load_state_dict({f"inner.{name}": tensor for name, tensor in odd.items()}, strict=False)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))


@pytest.mark.parametrize(
    "config",
    [PrefixTuning(length=3, hidden=4), PromptTuning(length=3, place="after_bos"), DePT(length=2, rank=1)],
    ids=str,
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_without_labels_are_those_of_each_row_alone(config: Any, side: str) -> None:
    bone = factories.backbone("gpt2")
    model = attach(bone, config, seed=1)
    rows = [list(row) for row in encode_sources(bone, factories.texts(3, seed=5))]
    longest = max(map(len, rows))
    pads = [[0] * (longest - len(row)) for row in rows]
    ids = torch.tensor([row + pad if side == "right" else pad + row for row, pad in zip(rows, pads, strict=True)])
    ones = [[1] * len(row) for row in rows]
    mask = torch.tensor([one + pad if side == "right" else pad + one for one, pad in zip(ones, pads, strict=True)])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask)["logits"]
        for row, own in enumerate(rows):
            alone = model(input_ids=torch.tensor([own]))["logits"][0]
            assert torch.allclose(logits[row][mask[row].bool()], alone, atol=1e-4)
    assert logits.shape[:2] == ids.shape and not logits[~mask.bool()].any()
    first = model.generate(["the red inn"], strategy="greedy", max_new_tokens=1, ban_newline=False)[0]
    own = torch.tensor([encode_sources(bone, ["the red inn"])[0]])
    assert bone.tokenizer is not None
    assert " ".join(bone.tokenizer.decode([int(model(own)["logits"][0, -1].argmax())]).split()) in (
        first,
        "<|endoftext|>",
    )


def test_an_encoder_decoder_wants_what_its_decoder_reads() -> None:
    model = attach(factories.backbone("t5"), PromptTuning(length=2), seed=1)
    with pytest.raises(DataError, match="decoder_input_ids"):
        model(input_ids=torch.tensor([[5, 6, 0]]))
    out = model(input_ids=torch.tensor([[5, 6, 0]]), decoder_input_ids=torch.tensor([[0, 7]]))
    assert out["logits"].shape[:2] == (1, 2)


def test_a_noop_start_that_shifts_the_text_is_refused_and_unshifted_it_changes_nothing() -> None:
    bone, config = factories.backbone("gpt2"), {"length": 3, "attention": "beside", "init": "noop", "reparam": "none"}
    with pytest.raises(ConfigError, match="positions=unshifted"):
        attach(bone, PrefixTuning(**config), seed=1)
    noop = attach(bone, PrefixTuning(**config, positions="unshifted"), seed=1)
    assert float(noop.loss(PAIRS)) == pytest.approx(float(_bare(bone)), abs=1e-6)


def _bare(bone: Backbone) -> torch.Tensor:
    from softprompt.attached import Attached
    from softprompt.methods import Untuned

    return Attached(bone, Untuned()).loss(PAIRS)


def _rows(path: Path, targets: list[str]) -> None:
    texts = factories.texts(len(targets), seed=4)
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, targets, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("method", ["prefix", "dept"])
def test_a_run_that_is_loaded_answers_as_it_did(method: str, labelled: bool, tmp_path: Path) -> None:
    folder = factories.backbone_folder(tmp_path / "backbone")
    _rows(tmp_path / "rows.jsonl", ["tea", "pie"] * 4 if labelled else factories.texts(8, seed=6))
    labels = {"column": "label", "words": {"tea": "hot tea", "pie": "cold pie"}}
    recipe = tmp_path / "recipe.yaml"
    data = {
        "train": str(tmp_path / "rows.jsonl"),
        "dev": str(tmp_path / "rows.jsonl"),
        "test": str(tmp_path / "rows.jsonl"),
    }
    data |= {"input": "{text}", "target": "{label}", **({"labels": labels} if labelled else {})}
    decode = (
        {"strategy": "greedy", "labels": True} if labelled else {"beams": 2, "max_new_tokens": 9, "min_new_tokens": 4}
    )
    options = {"prefix": {"length": 3, "hidden": 4}, "dept": {"length": 2, "rank": 1}}[method]
    whole = {
        "backbone": str(folder),
        "method": {"name": method, **options},
        "data": data,
        "train": {"max_steps": 3, "lr": 1e-2, "precision": "float32", "batch_size": 4},
        "decode": decode,
        "untuned": False,
    }
    recipe.write_text(json.dumps(whole), encoding="utf-8")
    run_recipe(load_recipe(str(recipe)), tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run/predictions/test.jsonl").read_text().splitlines()]
    bone = Backbone.load(str(folder))
    kept = "prompt" if method == "prefix" else "adapter"
    for place in (tmp_path / "run", tmp_path / "run" / kept):
        model = load(bone, place)
        assert model.generate([row["source"] for row in rows]) == [row["prediction"] for row in rows]
    free = model.generate([rows[0]["source"]], labels=[], strategy="sample", seed=3, max_new_tokens=4)
    assert len(free) == 1 and (not labelled or free[0] not in ("hot tea", "cold pie"))
    assert (
        "encode_sources" in (tmp_path / "run" / "README.md").read_text()
        if (tmp_path / "run/README.md").exists()
        else True
    )
