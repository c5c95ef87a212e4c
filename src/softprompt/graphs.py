"""Training passes captured as CUDA graphs, one for each shape of batch: launched in one call instead of thousands.

With the papers' batches the device waits for the host to launch its kernels. Here batches are padded up to a few
shapes; the first batch of a shape is captured, and later ones are copied to its place and replayed: the same kernels on
other numbers. The method's hooks and its active prefix are in the kernels; what is trained is read where it lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from softprompt.backbone import Backbone
from softprompt.batch import IGNORED, Batch
from softprompt.errors import ConfigError
from softprompt.loss import target_nll
from softprompt.methods import Method
from softprompt.precision import autocast

WIDTH, TARGETS = 16, 64
"""Shapes are multiples of so many positions in a row, and of so many target tokens in all."""

MOST = 64
"""Shapes captured at most: each holds the tensors between its kernels. Batches of further ones are launched as ever."""

WARM_UP = 3
"""Passes before a capture, in which libraries choose their kernels and allocate what they keep."""

Result = tuple[Tensor, Sequence[Tensor | None]]
"""The loss of a pass and the gradients that it makes, always at the same place."""
Capture = Callable[[Callable[[], Result]], tuple[Callable[[], None], Result]]
"""Takes a pass; gives what runs it again and where its results then lie."""


def cuda_capture(act: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """Capture what `act` launches on the current CUDA device; the random numbers of the caller stay as they were."""
    state = torch.cuda.get_rng_state()
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            act()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = act()
    torch.cuda.set_rng_state(state)
    return graph.replay, results


@dataclass(frozen=True, slots=True)
class _Captured:
    batch: Batch
    """Where the numbers of a batch have to lie."""
    weight: Tensor
    replay: Callable[[], None]
    results: Result


class Graphs:
    """The passes of one training run, by shape."""

    def __init__(self, backbone: Backbone, method: Method, precision: str, capture: Capture | None = None) -> None:
        """`capture`: `cuda_capture`, unless something else is to stand in for it.

        Raises:
            ConfigError: the backbone is not on a CUDA device.
        """
        if capture is None and backbone.device.type != "cuda":
            raise ConfigError(
                f"train.graphs: expected a backbone on a CUDA device, got one on {backbone.device.type}. "
                "Set train.graphs=false."
            )
        self._backbone, self._method, self._precision = backbone, method, precision
        self._capture = capture or cuda_capture
        self._parameters: list[nn.Parameter] = list(method.trainable().values())
        self._known: dict[tuple[tuple[int, ...], ...], _Captured] = {}

    def add_gradients(self, batch: Batch, weight: float) -> float:
        """Add the gradients of `weight` x the batch's loss to those of the parameters; the loss in nats.

        `batch` is `rounded`, on any device.
        """
        shape = tuple(tuple(part.shape) for part in batch.tensors().values())
        known = self._known.get(shape)
        if known is None and len(self._known) >= MOST:
            weights = torch.tensor(weight, device=self._backbone.device)
            return self._added(self._pass(batch.to(self._backbone.device), weights))
        if known is None:
            known = self._known[shape] = self._captured(batch, weight)
        for name, place in known.batch.tensors().items():
            place.copy_(batch.tensors()[name], non_blocking=True)
        known.weight.fill_(weight)
        known.replay()
        return self._added(known.results)

    def _captured(self, batch: Batch, weight: float) -> _Captured:
        place = batch.copied(self._backbone.device)
        weights = torch.tensor(weight, device=self._backbone.device)
        return _Captured(place, weights, *self._capture(lambda: self._pass(place, weights)))

    def _pass(self, batch: Batch, weight: Tensor) -> Result:
        bone = self._backbone
        with self._method.attach(bone, shared=True), autocast(bone.device, self._precision, bone.model.dtype):
            nll = target_nll(bone, batch)
        return nll.detach(), torch.autograd.grad(nll * weight, self._parameters, allow_unused=True)

    def _added(self, results: Result) -> float:
        nll, gradients = results
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad += gradient
            elif gradient is not None:
                parameter.grad = gradient.clone()  # the next replay writes where this one's lies
        return float(nll)


def rounded(batch: Batch, pad_id: int, window: int | None) -> Batch:
    """The same batch with more pads: rows of a multiple of `WIDTH` positions, a multiple of `TARGETS` targets.

    Rows are not made longer than the window. Pads are masked, and targets that are none carry no loss.
    """
    read = batch.input_ids_BT if batch.decoder_input_ids_BT is None else batch.decoder_input_ids_BT
    wider = _up(read.shape[1], WIDTH, window)
    more = _up(len(batch.at_N), TARGETS, None) - len(batch.at_N)
    ids, mask, positions = (
        _widened(part, _up(part.shape[1], WIDTH, window), fill)
        for part, fill in ((batch.input_ids_BT, pad_id), (batch.attention_mask_BT, 0), (batch.position_ids_BT, 0))
    )
    decoder = batch.decoder_input_ids_BT
    return replace(
        batch,
        input_ids_BT=ids,
        attention_mask_BT=mask,
        position_ids_BT=positions,
        at_N=nn.functional.pad(batch.at_N // read.shape[1] * wider + batch.at_N % read.shape[1], (0, more)),
        labels_N=nn.functional.pad(batch.labels_N, (0, more), value=IGNORED),
        decoder_input_ids_BT=None if decoder is None else _widened(decoder, wider, pad_id),
    )


def _up(count: int, step: int, limit: int | None) -> int:
    whole = -(-count // step) * step
    return whole if limit is None else max(count, min(whole, limit))


def _widened(part_BT: Tensor, width: int, fill: int) -> Tensor:
    return nn.functional.pad(part_BT, (0, width - part_BT.shape[1]), value=fill)
