"""One training step run without memory: what it computes and what it keeps, counted while its operations run.

The backbone's and the method's tensors have shapes and types and no numbers (torch's fake tensors); ids and masks are
real. So the step is the code that trains, and a real step is counted by the same function.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from softprompt.backbone import Backbone
from softprompt.batch import Batch, Encoded, collate, collate_seq2seq, require_pairs_fit
from softprompt.config import TrainConfig
from softprompt.loss import target_nll
from softprompt.method_config import MethodConfig
from softprompt.methods import METHODS, Method, room_taken
from softprompt.per_row import placed
from softprompt.train import prepare_mode


@dataclass(frozen=True)
class Footprint:
    """What forward and backward over one process's rows come to."""

    flops: int
    """Of matrix products and attention, a multiplication and an addition being two."""
    kept: int
    """Bytes kept for the backward pass, weights excluded; a tensor kept twice or in views counts once, whole."""
    predicted: int
    """Target tokens: rows of the logits."""


def weightless(id: str, config: MethodConfig, dtype: torch.dtype) -> tuple[Backbone, Method]:
    """The backbone, its weights in `dtype`, and the method in float32, on fake tensors of the CPU.

    Raises:
        BackboneError: the config of the backbone cannot be had.
    """
    backbone = Backbone.plan(id)
    method = METHODS[config.name](backbone, config)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _fake(backbone.model, mode, dtype)
    if isinstance(method, nn.Module):
        _fake(method, mode, None)
    return backbone, method


def _fake(module: nn.Module, mode: FakeTensorMode, dtype: torch.dtype | None) -> None:
    """Replace every parameter (in `dtype` where given) and buffer by a fake one; what was tied stays so."""
    made: dict[Tensor, Tensor] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, old in list(tensors.items()):
                if old is None:
                    continue
                if old not in made:
                    learned = isinstance(old, nn.Parameter)
                    with mode:
                        new = torch.empty(old.shape, dtype=dtype if learned and dtype else old.dtype, device="cpu")
                    made[old] = nn.Parameter(new, requires_grad=old.requires_grad) if learned else new
                tensors[name] = made[old]  # type: ignore[assignment]


def full_batch(backbone: Backbone, method: Method, *, rows: int, source: int, target: int) -> Batch:
    """`rows` pairs of equal lengths, in tokens, the method's virtual tokens beside them.

    Raises:
        DataError: they do not fit the backbone's window.
    """
    one = Encoded((1,) * source, (1,) * target)
    require_pairs_fit(backbone, [one], what="rows", offset=room_taken(backbone, method))
    sources = placed(backbone, method, [(1,) * source] * rows)
    pairs = [Encoded(row, (1,) * target) for row in sources]
    return collate(pairs, 0) if backbone.family == "causal" else collate_seq2seq(pairs, 0, backbone.shifted)


ALL = 2**62
"""Logits at once: all. Behind a frozen head training may take fewer (`softprompt.chunked`), which is not counted."""


def measure(backbone: Backbone, method: Method, batch: Batch) -> Footprint:
    """Run forward and backward as training does on a CUDA device, where each row has a copy of the prefix, and count.

    Without autocast: the arithmetic is the weights' own.
    """
    prepare_mode(backbone, method, TrainConfig())
    kept: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        kept.setdefault(_storage(saved), saved)
        return saved

    counter = FlopCounterMode(display=False, custom_mapping=_ON_CPU)
    with counter:
        with saved_tensors_hooks(keep, lambda saved: saved), method.attach(backbone):
            nll = target_nll(backbone, batch, at_once=ALL)
        nll.backward()  # type: ignore[no-untyped-call]
    weights = {_storage(one) for one in [*backbone.model.parameters(), *method.trainable().values()]}
    total = sum(saved.untyped_storage().nbytes() for place, saved in kept.items() if place not in weights)
    return Footprint(counter.get_total_flops(), total, len(batch.labels_N))


def _storage(tensor: Tensor) -> int:
    """Which memory it lies in: fake tensors have no address."""
    return int(tensor.untyped_storage()._cdata)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


_ON_CPU: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
"""Fused attention on a CPU, which torch's counter does not know; it keeps what the CUDA kernels keep."""
