"""The pretraining tool: batches, schedule, checkpoint, tokenizer and export, at toy size."""

from pathlib import Path
from random import Random

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tools.build_backbone import pretrain, tokenizer
from tools.build_backbone.batches import Batcher, validation
from tools.build_backbone.documents import END, Books, DocumentMaker
from tools.build_backbone.export import export
from tools.build_backbone.optim import Progress, load, optimizers, save

BOOKS = Books(
    tuple(f"It was day {n}, and nothing much happened in the village until noon. Then it rained." for n in range(40))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    tokenizer.train(BOOKS, out, vocabulary=700, characters=60_000)
    return out


def _toy(vocabulary: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return GPT2LMHeadModel(config)


def test_tokenizer_loads_and_is_lossless(folder: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.eos_token == loaded.bos_token == loaded.unk_token == END
    assert loaded.eos_token_id == 0 and len(loaded) == 700 and loaded.model_max_length == 512
    rng = Random(0)
    texts = [
        " name : Café Adriatic | price : £20-25 ",
        "ħ☃😀\t\n\r x\x00",
        "".join(chr(rng.randrange(32, 0xD7FF)) for _ in range(300)),
    ]
    for text in texts:
        ids = loaded(text).input_ids
        assert loaded.decode(ids) == text
        assert loaded(f"{text}{END}").input_ids == [*ids, 0]


def test_batches_are_a_function_of_seed_and_step(folder: Path) -> None:
    def batch(seed: int, step: int) -> torch.Tensor:
        return (
            Batcher(DocumentMaker(BOOKS), Tokenizer.from_file(str(folder / "tokenizer.json")), 4, 64, seed)
            .batch(step)
            .ids
        )

    assert torch.equal(batch(1, 5), batch(1, 5))
    assert not torch.equal(batch(1, 5), batch(1, 6))
    assert not torch.equal(batch(1, 5), batch(2, 5))
    assert batch(1, 5).shape == (4, 65)


def test_validation_weighs_continuations_alone(folder: Path) -> None:
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sets = validation(DocumentMaker(BOOKS), loaded, 200, count=3)
    for name in ("describe", "keys"):
        for ids, weights in zip(sets[name].ids, sets[name].weights, strict=True):
            first = int(weights.nonzero()[0])
            assert int(ids[first]) == 0, "the first weighted token follows the separator"


def test_schedule() -> None:
    def scale(step: int) -> float:
        return Progress(step=step, decay_start=80, decay_steps=20).scale(10)

    assert [round(scale(step), 3) for step in (0, 9, 50, 80, 90, 100)] == [0.1, 1.0, 1.0, 1.0, 0.5, 0.0]


def test_decay_file_begins_the_decay(tmp_path: Path) -> None:
    progress = Progress(step=5, decay_start=80, decay_steps=20)
    assert pretrain.watch_decay(tmp_path, progress, 20) == progress
    (tmp_path / "DECAY").write_text("7\n")
    changed = pretrain.watch_decay(tmp_path, progress, 20)
    assert (changed.decay_start, changed.last) == (5, 12)


def test_resumed_training_equals_unbroken_training(folder: Path, tmp_path: Path) -> None:
    batcher = Batcher(DocumentMaker(BOOKS), Tokenizer.from_file(str(folder / "tokenizer.json")), 2, 32, 1)

    def steps(model: GPT2LMHeadModel, found: list[torch.optim.Optimizer], numbers: range) -> None:
        for step in numbers:
            pretrain.train_step(model, pretrain.LossOf(), found, batcher.batch(step), 1.0, 2)

    whole, half, rest = _toy(700), _toy(700), _toy(700)
    optimizer = optimizers(whole, 1e-3, 1e-3, True)
    steps(whole, optimizer, range(4))
    optimizer = optimizers(half, 1e-3, 1e-3, True)
    steps(half, optimizer, range(2))
    save(tmp_path / "state.safetensors", half, optimizer, Progress(step=2, decay_start=9))
    optimizer = optimizers(rest, 1e-3, 1e-3, True)
    assert load(tmp_path / "state.safetensors", rest, optimizer).step == 2
    steps(rest, optimizer, range(2, 4))
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)


def test_export_loads(folder: Path, tmp_path: Path) -> None:
    model = pretrain.build_model(3)
    save(tmp_path / "state.safetensors", model, [], Progress(step=1, tokens=8192))
    export(tmp_path / "state.safetensors", folder, tmp_path / "out", {"describe": 1.5})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert sum(p.numel() for p in loaded.parameters()) < 3_500_000
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.half().float(), loaded.get_parameter(name))
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < 8_000_000
    assert "describe: 1.500" in (tmp_path / "out" / "README.md").read_text()
