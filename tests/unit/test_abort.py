"""A run that is cancelled ends before the next block of whatever network computes, and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event as Flag
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from opensora_demo.catalog import NANO
from opensora_demo.errors import Cancelled
from opensora_demo.messages import plain
from opensora_demo.nn.abort import abortable, checking
from opensora_demo.pipeline import generate, run
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle

PARTS: dict[str, Callable[[ModelBundle], nn.Module]] = {
    "text": lambda bundle: bundle.t5,  # type: ignore[dict-item, return-value]
    "network": lambda bundle: bundle.family.network,
    "codec": lambda bundle: bundle.codec,
}


def blocks(module: nn.Module) -> list[nn.Module]:
    return [
        block for part in module.modules() if isinstance(part, nn.ModuleList) for block in part if block is not None
    ]


def ask(prompt: str) -> GenerationRequest:
    return parse_request({"prompt": prompt, "seed": 3, "steps": 2, "frames": 1}, model_id="nano", limits=NANO.limits)


@pytest.mark.parametrize("part", PARTS)
def test_a_cancelled_run_ends_before_the_next_block(nano: ModelBundle, part: str) -> None:
    flag, done = Flag(), list[str]()

    def note(block: nn.Module, *_: Any) -> None:
        flag.set()
        done.append(part)

    before = run(nano, ask(f"before {part}")).clips[0].frames
    hooks = [block.register_forward_hook(note) for block in blocks(PARTS[part](nano))]
    try:
        with pytest.raises(Cancelled):
            list(generate(nano, ask(part), flag))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(done) == 1
    assert np.array_equal(run(nano, ask(f"before {part}")).clips[0].frames, before)


def test_who_is_not_asked_computes_on() -> None:
    module = abortable(nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2)])))
    block, x = module[1][0], torch.zeros(1, 2)  # type: ignore[index]

    def stop() -> None:
        raise Cancelled(plain("stopped"))

    with checking(stop):
        assert module[0](x).shape == (1, 2)  # no block
        with pytest.raises(Cancelled):
            block(x)
        with checking(lambda: None):  # the innermost question
            assert block(x).shape == (1, 2)
    assert block(x).shape == (1, 2)
