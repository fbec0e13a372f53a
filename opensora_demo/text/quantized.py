"""T5 in fewer bits, where memory is short: 8 through torchao (a scale for each row), 4 through bitsandbytes (NF4).

T5 XXL takes 9.5 GB in bfloat16, 4.9 in 8 bits and 2.7 in 4. Neither package is needed otherwise.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opensora_demo.errors import WeightsError
from opensora_demo.import_lock import IMPORT_LOCK
from opensora_demo.messages import message

Bits = Literal[4, 8, 16]
_PACKAGES = {8: "torchao", 4: "bitsandbytes"}
_SCALES = {8: 0.0, 4: 0.13}  # bits besides, for each number: bitsandbytes keeps a byte for 64 of them


def check_bits(bits: Bits) -> None:
    """Raises WeightsError where the package that makes a T5 so small is missing."""
    if bits in _PACKAGES and importlib.util.find_spec(_PACKAGES[bits]) is None:
        raise WeightsError(message("weights.t5_package", bits=bits, package=_PACKAGES[bits]))


def quantized_bytes(encoder: nn.Module, bits: Bits, width: int = 2) -> int:
    """Of an encoder's weights once its matrices have so few bits, and everything else `width` bytes a number."""
    of_linears = sum(m.weight.numel() for m in encoder.modules() if isinstance(m, nn.Linear))
    others = sum(p.numel() for p in encoder.parameters()) - of_linears
    return round(of_linears * (bits + _SCALES.get(bits, 0.0)) / 8) + others * width


class Quantizer:
    """Called before the encoder is used: the first time it makes the encoder's matrices smaller, on the device, one
    after another, and moves everything else there. The encoder then stays on the device."""

    def __init__(self, encoder: nn.Module, bits: Bits, device: torch.device, dtype: torch.dtype | None) -> None:
        """`dtype` is what numbers become that are not quantized (None: they stay as they are)."""
        self.encoder, self.bits, self.device, self.dtype = encoder, bits, device, dtype
        self._left = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
        self._moved = False

    def __call__(self) -> None:
        """Should memory run out half-way, the next call goes on from there."""
        if not self._moved:
            self._move_others()
        while self._left:
            with IMPORT_LOCK:
                package = importlib.import_module("torchao.quantization" if self.bits == 8 else "bitsandbytes")
            linear = self.encoder.get_submodule(self._left[-1])
            assert isinstance(linear, nn.Linear)
            made = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
            made.weight = nn.Parameter(linear.weight.to(self.device, self.dtype), requires_grad=False)
            if self.bits == 8:
                package.quantize_(made, package.Int8WeightOnlyConfig())
            self.encoder.set_submodule(self._left[-1], made if self.bits == 8 else _Nf4(package, made))
            self._left.pop()

    def _move_others(self) -> None:
        done: dict[int, nn.Parameter] = {}  # shared ones stay shared
        for module in self.encoder.modules():
            for name, value in module.named_parameters(recurse=False):
                if not isinstance(module, nn.Linear):
                    if (key := value.data_ptr()) not in done:
                        done[key] = nn.Parameter(value.to(self.device, self.dtype), requires_grad=False)
                    setattr(module, name, done[key])
        self._moved = True


class _Nf4(nn.Module):
    """A linear layer in 4 bits. transformers looks at T5's `wo.weight` and turns what goes in into its type; that must
    not be the type in which the bits are kept."""

    weight = None

    def __init__(self, bitsandbytes: Any, linear: nn.Linear) -> None:
        super().__init__()
        made = bitsandbytes.nn.Linear4bit(
            linear.in_features, linear.out_features, bias=False, compute_dtype=linear.weight.dtype, device="meta",
            quant_type="nf4",
        )  # fmt: skip
        device = linear.weight.device
        made.weight = bitsandbytes.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", module=made)
        self.linear = made.to(device)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)
