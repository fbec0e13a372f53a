"""Whole runs on a device that is not there: `python -m tests.unit.pretend_gpu MODEL ...`

`MODEL!` forgets to move the VAE, and must fail.

Tensors on it have shapes and types but no numbers (torch's fake tensors on its device for private backends), and an
operation on tensors of two devices raises. What torch does for such a device in C++ alone (moving, indexing, reading
a number) is answered here, after the same check.
"""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from opensora_demo import pipeline
from opensora_demo.catalog import MODELS
from opensora_demo.request.events import DecodedFrames, Stage, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime import bundle as bundles
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.runtime.placement import Offloader
from opensora_demo.sampling import iddpm

NAME = "gpu"


def there(value: Tensor | torch.device) -> bool:
    return (value.device if isinstance(value, Tensor) else value).type == NAME


def like(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device=device)


class Pretend(TorchFunctionMode):
    """Numbers that are read are made up; everything else is done, or done on the CPU where torch cannot."""

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.to:
            return self.moved(func, args, kwargs)
        if func is torch.tensor and there(torch.device(kwargs.get("device") or "cpu")):
            device = kwargs.pop("device")
            return like(func(*args, **kwargs), device)
        if func is Tensor.__setitem__:
            return None
        if func in (Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.item):
            return {Tensor.__bool__: True, Tensor.__float__: 0.5}.get(func, 1)
        if func is Tensor.tolist:
            return np.ones(tuple(args[0].shape)).tolist()
        if func is Tensor.cpu:
            return like(args[0], "cpu")
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if "not linked with support" not in str(error):
                raise
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.ndim and not there(tensor) for tensor in tensors):
            raise RuntimeError(f"tensors of two devices: {func}")
        device = next(tensor.device for tensor in tensors if there(tensor))
        if func is Tensor.nonzero:
            return torch.zeros(2, args[0].ndim, dtype=torch.long, device=device)

        def on(where: torch.device | str) -> Any:
            return lambda value: like(value, where) if isinstance(value, Tensor) else value

        return tree_map(on(device), func(*tree_map(on("cpu"), args), **tree_map(on("cpu"), kwargs)))

    @staticmethod
    def moved(func: Any, args: Any, kwargs: Any) -> Tensor:
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        for value in args[1:]:
            if isinstance(value, Tensor):
                device, dtype = value.device, value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif value is not None and not isinstance(value, bool):
                device = torch.device(value)
        if device is None or torch.device(device).type == args[0].device.type:
            return func(*args, **kwargs)
        return like(args[0], device, dtype)


def run_there(model: str, device: torch.device) -> None:
    """A run from a prompt, and one from a picture where the model takes one."""
    spec = MODELS[model.removesuffix("!")]
    bundle = build_bundle(spec, torch.device("cpu"))
    family: Any = bundle.family
    encoders = [e for e in (getattr(family, n, None) for n in ("text", "pooled")) if isinstance(e, nn.Module)]
    parts: Any = {"text": encoders, "denoise": [family.network], "decode": [bundle.codec]}
    with FakeTensorMode(allow_non_fake_inputs=True), Pretend():
        offloader = Offloader(parts, device, "together", torch.bfloat16)

        def prepare(stage: Stage) -> None:
            if stage != "decode" or not model.endswith("!"):
                offloader.prepare(stage)

        family.prepare = prepare
        prepare("text")
        bundle = replace(bundle, device=device, prepare=prepare, preview_matrix=bundle.preview_matrix.to(device))
        asked = parse_request(
            {"prompt": "a ball", "steps": (steps := int(spec.limits.steps.low)), "seed": 3},
            model_id=spec.id,
            limits=spec.limits,
        )
        picture = np.zeros((1, asked.shape.height_px, asked.shape.width_px, 3), np.uint8)
        for request in (asked, replace(asked, reference=picture))[: 1 + spec.limits.reference]:
            made = pipeline.generate.__wrapped__(bundle, request)  # type: ignore[attr-defined]
            events = [event for event in made if not isinstance(event, DecodedFrames)]  # some codecs have parts
            assert len(events) == 2 + steps + 1 + 1
            for event in events:
                if isinstance(event, StepPreview):
                    assert event.previews[0].ndim == 4


def pictures(video: Tensor, *_: Any) -> np.ndarray[Any, Any]:
    return np.zeros((*video.shape[1:], 3), np.uint8)


def main() -> None:
    torch.utils.rename_privateuse1_backend(NAME)
    backend = types.ModuleType(NAME)
    for name, value in {"is_available": True, "is_initialized": True, "_is_in_bad_fork": False}.items():
        setattr(backend, name, lambda value=value: value)
    backend.current_device, backend.device_count = (lambda: 0), (lambda: 1)  # type: ignore[attr-defined]
    torch._register_device_module(NAME, backend)
    positive = types.SimpleNamespace(**vars(math) | {"sqrt": lambda x: abs(x) ** 0.5, "log": lambda x: -1.0})
    failed: dict[str, str] = {}
    with (
        mock.patch.object(pipeline, "to_frames", pictures),
        mock.patch.object(bundles, "latent_to_rgb", pictures),
        mock.patch.object(iddpm, "math", positive),  # of made-up numbers
    ):
        for model in sys.argv[1:]:
            try:
                run_there(model, torch.device(NAME, 0))
            except Exception as error:
                failed[model] = f"{type(error).__name__}: {error}"
    print(json.dumps(failed))


if __name__ == "__main__":
    main()
