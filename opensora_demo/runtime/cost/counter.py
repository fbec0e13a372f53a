"""FLOPs and bytes of what runs within a block, on tensors that have shapes and no data.

FLOPs are torch's count (two for a multiplication and an addition), memory is the most bytes that tensors hold at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_flop

_ATTENTION = torch.ops.aten.scaled_dot_product_attention


class Counter(TorchDispatchMode):
    """FLOPs of what runs within, and the most bytes that tensors made there hold at once. (torch's FlopCounterMode
    follows modules besides, and takes three times as long.)"""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        self.peak_bytes = self._now = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket is _ATTENTION:  # fused on every device: the table of scores is never held
            q, k, v = args[:3]
            self.flops += sdpa_flop(q, k, v)
            return self._made(q.new_empty(*q.shape[:-1], v.shape[-1]))
        count = flop_registry.get(func._overloadpacket)
        if count is None and func._can_decompose():
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        for given in (*args, *kwargs.values()):
            for leaf in given if isinstance(given, tuple | list) else (given,):
                if isinstance(leaf, Tensor):  # not made here, nor are its views
                    self._held.setdefault(leaf.untyped_storage()._cdata, 0)
        out = func(*args, **kwargs)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        return self._made(out)

    def _made(self, out: Any) -> Any:
        for leaf in out if isinstance(out, tuple | list) else (out,):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if (key := storage._cdata) not in self._held:
                    self._held[key] = storage.nbytes()
                    self._now += self._held[key]
                    self.peak_bytes = max(self.peak_bytes, self._now)
                    weakref.finalize(storage, self._freed, key)
        return out

    @contextmanager
    def counting_once(self, *modules: nn.Module) -> Iterator[None]:
        """Later calls, of these modules and of others built alike, with inputs of shapes seen before (blocks, tiles,
        chunks) are counted as the first."""
        seen: dict[Any, tuple[Any, float, int]] = {}
        own = [vars(module).get("forward") for module in modules]
        for module in modules:
            module.forward = self._counted(module.forward, _built_like(module), seen)
        try:
            yield
        finally:
            for module, forward in zip(modules, own, strict=True):
                del module.forward
                if forward is not None:
                    module.forward = forward

    def _counted(self, run: Callable[..., Any], like: Any, seen: dict[Any, tuple[Any, float, int]]) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            key = like, _shapes((args, kwargs))
            if key in seen:
                out, flops, extra = seen[key]
                self.flops += flops
                self.peak_bytes = max(self.peak_bytes, self._now + extra)
                return tree_map_only(_Outline, _Outline.empty, out)
            flops, held, peak = self.flops, self._now, self.peak_bytes
            self.peak_bytes = held
            out = run(*args, **kwargs)
            seen[key] = tree_map_only(Tensor, _Outline.of, out), self.flops - flops, self.peak_bytes - held
            self.peak_bytes = max(peak, self.peak_bytes)
            return out

        return forward

    def _freed(self, key: int) -> None:
        self._now -= self._held.pop(key, 0)


@dataclass(frozen=True)
class _Outline:
    """A tensor less its data."""

    shape: torch.Size
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> _Outline:
        return cls(x.shape, x.dtype)

    def empty(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


def _shapes(values: Any) -> tuple[Any, ...]:
    """Equal for equal structures of tensors of equal shapes; whatever else is among them counts by its text."""
    leaves, structure = tree_flatten(values)
    return structure, *(_Outline.of(x) if isinstance(x, Tensor) else repr(x) for x in leaves)


def _built_like(module: nn.Module) -> tuple[Any, ...]:
    """Equal for modules of equal classes, numbers, weights and parts, as the blocks of a network are. Where a block
    stands (`layer_idx`) makes no difference to what it takes."""
    parts = (
        (name, type(part), tuple((k, v) for k, v in vars(part).items() if k != "layer_idx" and _is_number(v)))
        for name, part in module.named_modules()
    )
    return *parts, *((name, _Outline.of(p)) for name, p in module.named_parameters())


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | tuple | torch.dtype)


def bytes_of(module: nn.Module) -> int:
    """Of its weights and buffers, shared ones once."""
    return sum(t.nbytes for t in {id(t): t for t in (*module.parameters(), *module.buffers())}.values())
