"""Training passes with their feed-forward parts compiled. Mostly traced only, which takes no C++ compiler."""

import shutil
from collections.abc import Iterator
from typing import Any

import factories
import pytest
import torch
from sittings import config
from test_graphs import METHODS_TRIED, trained
from torch import nn

from softprompt import compiled as compiled_module
from softprompt.compiled import Compiled, parts
from softprompt.config import TrainConfig, build
from softprompt.errors import ConfigError
from softprompt.method_config import PrefixTuning
from softprompt.methods import PrefixMethod, state
from softprompt.optim import make_optimizer
from softprompt.train import training_steps

PARTS = {
    "gpt2": ["transformer.h.0.mlp", "transformer.h.1.mlp"],
    "llama": ["model.layers.0.mlp", "model.layers.1.mlp"],
    "gemma2": ["model.layers.0.mlp", "model.layers.1.mlp"],
    "t5": [f"encoder.block.{i}.layer.1" for i in range(3)] + [f"decoder.block.{i}.layer.2" for i in range(2)],
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Code compiled for one test's models is not there for the next one's."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compiled code is the traced operations as they are; the calls of it."""
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        def run(*given: Any) -> Any:
            calls.append(len(given))
            return graph.forward(*given)

        return run

    monkeypatch.setattr(compiled_module, "BACKEND", backend)
    return calls


@pytest.mark.parametrize("family", PARTS)
def test_what_is_compiled_is_what_lies_between_attentions(family: str) -> None:
    bone = factories.backbone(family)
    names = {module: name for name, module in bone.model.named_modules()}
    assert [names[part] for part in parts(bone)] == PARTS[family]


@pytest.mark.parametrize(
    ("kind", "family"),
    [*((kind, "gpt2") for kind in METHODS_TRIED), *(("prefix", name) for name in PARTS if name != "gpt2")],
)
def test_compiled_passes_train_as_the_models_own(kind: str, family: str, traced: list[int]) -> None:
    want, weights = trained(family, kind, max_steps=3)
    assert not traced
    got, found = trained(family, kind, max_steps=3, compile=True)
    assert len(traced) >= 3 * len(PARTS[family])
    assert got == pytest.approx(want, rel=1e-6)
    torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"precision": "bfloat16"}, {"micro_batch": 2}])
def test_it_goes_with_what_changes_a_pass(changes: dict[str, Any], traced: list[int]) -> None:
    want, _ = trained("llama", "prefix", max_steps=3, **changes)
    assert (
        trained("llama", "prefix", max_steps=3, compile=True, **changes)[0] == pytest.approx(want, rel=1e-6) and traced
    )


def test_behind_the_block_every_module_is_what_it_was(traced: list[int]) -> None:
    bone = factories.backbone("gpt2")
    first, second = parts(bone)
    wrapped = first.forward
    first.forward = lambda *given: wrapped(*given)  # as accelerate does
    own = first.forward
    hidden = torch.randn(2, 3, 32)
    with pytest.raises(ZeroDivisionError), Compiled.of(bone).active():
        traced.clear()
        for part in (first, second):
            part(hidden)
        assert len(traced) == 2
        raise ZeroDivisionError
    assert first.forward is own and "forward" not in vars(second)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_really_compiled_passes_train_the_same_and_alike_each_time() -> None:
    want, weights = trained("gpt2", "prefix none", max_steps=3)
    got, found = trained("gpt2", "prefix none", max_steps=3, compile=True)
    assert got == pytest.approx(want, rel=1e-5)
    torch.testing.assert_close(found, weights, rtol=1e-4, atol=1e-5)
    again, numbers = trained("gpt2", "prefix none", max_steps=3, compile=True)
    assert again == got and all(torch.equal(numbers[name], found[name]) for name in found)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_training_that_goes_on_where_it_ended_has_the_same_bits() -> None:
    bone, settings, pairs = factories.backbone("gpt2"), config(max_steps=6, compile=True), factories.pairs(11)
    outcomes = []
    for ends in ((6,), (3, 6)):
        torch.manual_seed(3)
        method = PrefixMethod.build(bone, PrefixTuning(length=3, hidden=8, dropout=0.1))
        optimizer, start = make_optimizer(method, settings), 0
        for end in ends:
            torch.compiler.reset()
            steps = training_steps(bone, method, optimizer, pairs, settings, seed=7, start=start)
            for _ in range(end - start):
                next(steps)
            start = end
        outcomes.append({name: value.clone() for name, value in state(method).items()})
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[0])


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(compiled_module, "BACKEND", failing)
    with pytest.raises(ConfigError, match=r"cannot compile for cpu here .*No working C\+\+ compiler.*Install a C\+\+"):
        trained("gpt2", "prefix", compile=True)


def test_a_backbone_of_single_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.compile: .*model type 'bart'.*Set train\.compile=false"):
        trained("bart", "prefix", compile=True)


def test_embeddings_are_left_alone() -> None:
    bone = factories.backbone("gpt2")
    assert not any(isinstance(one, nn.Embedding) for part in parts(bone) for one in part.modules())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"graphs": True}}, r"train\.graphs and train\.compile do not go together"),
        ({"backbone": {"shard": True}}, r"train\.compile and backbone\.shard do not go together"),
        ({"backbone": {"quantize": "8bit"}}, r"train\.compile and backbone\.quantize do not go together"),
    ],
)
def test_what_does_not_go_with_it_is_refused_by_the_recipe(changes: dict[str, Any], said: str) -> None:
    recipe = {"name": "x", "data": {"task": "gazette"}, **changes}
    recipe["train"] = {**recipe.get("train", {}), "compile": True}
    with pytest.raises(ConfigError, match=said):
        build(recipe, lambda path: "recipe")
    assert TrainConfig().compile is False
