"""What acts on a forward of the backbone: one context variable, so in this thread or task alone, the innermost alone.

A steering is made of parts, each in a slot of its own (a prefix, virtual tokens, changed arguments, adapters). Hooks
are registered on modules, which all threads share, so each asks here whether its part is the one that acts where it is
called; if not, it changes nothing. Gradient checkpointing recomputes with what acted in its forward (`again`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar, Token
from typing import Any, Protocol

from torch import nn

_Acting = Mapping[tuple[nn.Module, str], Any]
_ACTING: ContextVar[_Acting] = ContextVar("softprompt_acting", default={})  # noqa: B039 - replaced, never changed
"""(backbone, slot) -> part."""

PREFIX, TOKENS, ARGUMENTS, BLOCKS, HEAD = "prefix", "tokens", "arguments", "blocks", "head"
"""Slots: keys and values; virtual ids; arguments of the forward; what stands behind modules; what the LM head sees."""


class Handle(Protocol):
    """What registering a hook returns."""

    def remove(self) -> None:
        """Undo it."""


def alone(model: nn.Module) -> AbstractContextManager[None]:
    """A steering's block: what steers `model` outside of it does not act inside, and does again behind it."""
    return _Changed(lambda acting: {key: part for key, part in acting.items() if key[0] is not model})


def acting(model: nn.Module, slot: str, part: Any) -> AbstractContextManager[None]:
    """Inside the block `part` acts on `model`, instead of what stood in that slot."""
    return _Changed(lambda acting: {**acting, (model, slot): part})


@contextmanager
def hooked(model: nn.Module, slot: str, register: Callable[[Callable[[], bool]], list[Handle]]) -> Iterator[None]:
    """`acting` for hooks: `register` puts them on modules and is given what tells them whether they act where called.

    A hook that does not act has to return None. It may be called without keyword arguments where another thread
    removes it at that moment.
    """
    own = _Hooks(model, slot, register)
    with _There(own), acting(model, slot, own):
        yield


class _Changed(AbstractContextManager[None]):
    """Inside the block acts what `change` makes of that which acts where it begins.

    A class, as every step goes through several of them, which cost a fraction of what generators do.
    """

    def __init__(self, change: Callable[[_Acting], _Acting]) -> None:
        self._change = change

    def __enter__(self) -> None:
        self._token: Token[_Acting] = _ACTING.set(self._change(_ACTING.get()))

    def __exit__(self, *exception: object) -> None:
        _ACTING.reset(self._token)


class _Hooks:
    """A part that acts through hooks on modules; registered while one block at least is open."""

    def __init__(self, model: nn.Module, slot: str, register: Callable[[Callable[[], bool]], list[Handle]]) -> None:
        self._model, self._slot, self._register = model, slot, register
        self.registered = False

    def register(self) -> list[Handle]:
        """Put the hooks on their modules."""
        return self._register(self._acts)

    def _acts(self) -> bool:
        return part_of(self._model, self._slot) is self


class _There(AbstractContextManager[None]):
    """Hooks are registered inside the block; where they are already, nothing is done."""

    def __init__(self, hooks: _Hooks) -> None:
        self._hooks = hooks

    def __enter__(self) -> None:
        self._before = self._hooks.registered
        self._handles = [] if self._before else self._hooks.register()
        self._hooks.registered = True

    def __exit__(self, *exception: object) -> None:
        self._hooks.registered = self._before
        for handle in self._handles:
            handle.remove()


def part_of(model: nn.Module, slot: str) -> Any:
    """The part that acts on `model` here, or None."""
    return _ACTING.get().get((model, slot))


def parts_in(slot: str) -> list[Any]:
    """Those that act here on any backbone."""
    return [part for (_, own), part in _ACTING.get().items() if own == slot]


def exchange(model: nn.Module, slot: str, part: Any) -> None:
    """From here to the end of the innermost block `part` stands in the slot."""
    _ACTING.set({**_ACTING.get(), (model, slot): part})


def again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """`context_fn` for gradient checkpointing: the recomputation sees what acted in its forward.

    Needed because autograd may recompute on a thread of its own, which inherits no context variables, and behind the
    block: hooks inside a layer are then registered once more.
    """
    return nullcontext(), _recomputed(_ACTING.get())


@contextmanager
def _recomputed(acting: _Acting) -> Iterator[None]:
    with ExitStack() as stack:
        for (_, slot), part in acting.items():
            if slot == BLOCKS and isinstance(part, _Hooks):
                stack.enter_context(_There(part))
        stack.enter_context(_Changed(lambda _: acting))
        yield
