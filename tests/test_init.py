"""Starting a prefix from the backbone's activations for real words (Li & Liang 2021, sec. 7.4)."""

from typing import Any

import factories
import pytest
import torch
from factories import ARCHITECTURES

from softprompt.backbone import Backbone
from softprompt.config import load_recipe
from softprompt.errors import ConfigError
from softprompt.init import activations, text_ids
from softprompt.method_config import PrefixTuning
from softprompt.methods import METHODS, PrefixMethod

TEXT = "the red old inn sells hot tea"


def made(bone: Backbone, **options: Any) -> PrefixMethod:
    config = PrefixTuning(**{"length": 5, "hidden": 16, "init": "text", "init_text": TEXT, **options})
    torch.manual_seed(0)
    method = METHODS["prefix"](bone, config)
    assert isinstance(method, PrefixMethod)
    method.set_mode(False)
    return method


# A prefix stays visible where a window would have moved on from words.
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "mistral_window"])
@pytest.mark.parametrize("reparam", ["none", "mlp"])
def test_an_untrained_prefix_of_words_acts_as_the_words_do(name: str, reparam: str) -> None:
    bone = factories.backbone(name)
    words = text_ids(bone, TEXT, 5)
    ids = torch.randint(1, 300, (1, 6))
    with torch.no_grad():
        want = bone.model(input_ids=torch.cat([words[None], ids], dim=1)).logits[:, 5:]
        with made(bone, reparam=reparam).attach(bone):
            got = bone.model(input_ids=ids, position_ids=torch.arange(6)[None]).logits
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_words_are_repeated_or_cut_to_the_length() -> None:
    bone = factories.backbone("gpt2")
    ids = bone.tokenizer(TEXT)["input_ids"]
    count = len(ids)
    assert text_ids(bone, TEXT, 2).tolist() == ids[:2]
    assert text_ids(bone, TEXT, count).tolist() == ids
    assert text_ids(bone, TEXT, 2 * count + 1).tolist() == ids * 2 + ids[:1]
    with pytest.raises(ConfigError, match="expected a text with tokens"):
        text_ids(bone, "", 3)


def test_a_prefix_longer_than_the_hidden_width_comes_as_near_as_it_can() -> None:
    bone = factories.backbone("gpt2")
    method = made(bone, length=12, hidden=4)
    want = activations(bone, text_ids(bone, TEXT, 12), method.form.sites)
    error = (method() - want).detach()
    bank = method.banks["decoder"]
    hidden = bank.mlp[:2](bank.prefix).detach()
    assert float(error.abs().max()) > 1e-3
    torch.testing.assert_close(hidden.T @ error, torch.zeros(4, want.shape[1]), atol=1e-4, rtol=0)  # least squares


def test_the_start_of_words_leaves_the_rest_of_the_mlp_as_it_was() -> None:
    bone = factories.backbone("gpt2")
    torch.manual_seed(0)
    random = METHODS["prefix"](bone, PrefixTuning(length=5, hidden=16))
    words = made(bone)
    changed = [name for name, tensor in words.trainable().items() if not torch.equal(tensor, random.trainable()[name])]
    assert changed == ["banks.decoder.mlp.2.weight"]


def test_no_weights_are_needed_to_count_parameters() -> None:
    method = METHODS["prefix"](Backbone.plan("gpt2-medium"), PrefixTuning(init="text", init_text=TEXT))
    assert {tensor.device.type for tensor in method.trainable().values()} == {"meta"}


def test_init_and_its_text_go_together() -> None:
    for override in ("method.init=text", "method.init_text=summarize"):
        with pytest.raises(ConfigError, match="go together"):
            load_recipe("quickstart", ["method.init=random", "method.init_text=null", override])
