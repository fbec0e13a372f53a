"""Parts of a batch are computed on threads of their own, and what comes out is what one thread computes."""

from __future__ import annotations

import threading
from contextlib import closing
from contextvars import ContextVar
from threading import Event as Flag
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from opensora_demo.catalog import NANO
from opensora_demo.errors import Cancelled
from opensora_demo.explain.run import explain
from opensora_demo.families.branches import evaluate
from opensora_demo.nn.threads import side_by_side, use_all_threads
from opensora_demo.pipeline import generate, run
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.runtime.cost.counter import Counter
from opensora_demo.sampling.guidance import SKIP

pytestmark = pytest.mark.usefixtures("two_threads")
WAIT_S = 30.0


def comparison(**more: Any) -> GenerationRequest:
    raw = {"prompt": "a red ball", "seed": 3, "steps": 2, "frames": 5, "guidance": [1, 2, 4, 7]} | more
    return parse_request(raw, model_id="nano", limits=NANO.limits)


def test_parts_run_at_once_alone_and_in_the_callers_context() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="")
    seen.set("here")
    together = threading.Barrier(2, timeout=WAIT_S)

    def part(k: int) -> tuple[int, int, str, bool]:
        together.wait()
        return k, torch.get_num_threads(), seen.get(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert side_by_side(part, [5, 6]) == [(5, 1, "here", True), (6, 1, "here", True)]
    assert [one[3] for one in side_by_side(part, [5, 6])] == [False, False]
    assert torch.get_num_threads() == 2


def test_who_counts_operations_misses_none() -> None:
    """torch's dispatch modes are a thread's."""
    a = torch.ones(8, 8)
    with Counter() as counter:
        side_by_side(lambda k: a @ a, range(4))
    assert counter.flops == 4 * 2 * 8**3


def test_what_a_part_raises_comes_when_all_have_ended() -> None:
    raised, ended = Flag(), Flag()

    def part(k: int) -> None:
        if k == 0:
            raised.set()
            raise ZeroDivisionError
        assert raised.wait(WAIT_S)
        ended.set()

    with pytest.raises(ZeroDivisionError):
        side_by_side(part, [0, 1])
    assert ended.is_set()
    assert torch.get_num_threads() == 2


def test_who_begins_meanwhile_has_all_threads_for_his_run() -> None:
    began, computed = Flag(), Flag()
    seen: list[int] = []

    def another() -> None:
        assert began.wait(WAIT_S)
        torch.ones(10**6).exp()  # his first operation
        computed.set()
        use_all_threads()
        seen.append(torch.get_num_threads())

    def part(k: int) -> None:
        began.set()
        assert computed.wait(WAIT_S)

    thread = threading.Thread(target=another)
    thread.start()
    side_by_side(part, [0, 1])
    thread.join(WAIT_S)
    assert seen == [2]


@pytest.mark.parametrize("made", [generate, explain])
def test_every_kind_of_run_takes_them(nano: ModelBundle, made: Any) -> None:
    """Where the thread began to compute with one."""
    torch.set_num_threads(1)
    request = parse_request({"prompt": "a red ball", "steps": 1, "frames": 1}, model_id="nano", limits=NANO.limits)
    with closing(made(nano, request)) as parts:
        for _ in zip(range(2), parts, strict=False):
            pass
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("rows", "branches", "threads", "batches"),
    [
        (4, 2, 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (4, 2, 1, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (5, 1, 2, [[0, 1, 2], [3, 4]]),
        (3, 1, 2, [[0, 1, 2]]),
        (4, 2, 4, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (4, 2, 5, [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_batches_of_twice_as_many_pairs_as_threads_are_split(
    rows: int, branches: int, threads: int, batches: list[list[int]]
) -> None:
    calls: list[list[int]] = []

    def call(of: list[int], what: list[int]) -> Tensor:
        calls.append([row + rows * branch for row, branch in zip(of, what, strict=True)])
        return torch.tensor(calls[-1])

    out = evaluate(call, torch.ones(rows, branches, dtype=torch.bool), threads=threads)
    assert sorted(calls) == batches
    assert [part.tolist() for part in out if part is not None] == [
        [row + rows * branch for row in range(rows)] for branch in range(branches)
    ]


def test_pairs_without_some_layers_stay_together() -> None:
    calls: list[tuple[list[int], list[int]]] = []

    def call(of: list[int], what: list[int]) -> Tensor:
        calls.append((of, what))
        return torch.zeros(len(of))

    wanted = torch.zeros(4, SKIP + 1, dtype=torch.bool)
    wanted[:, [0, SKIP]] = True
    evaluate(call, wanted, threads=2)
    assert sorted(calls) == sorted([([0, 1], [0, 0]), ([2, 3], [0, 0]), ([0, 1, 2, 3], [SKIP] * 4)])


def test_nano_splits_and_its_clips_stay_what_they_are(nano: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def note(_module: nn.Module, _arguments: Any) -> None:
        names.append(threading.current_thread().name)

    hook = nano.family.network.register_forward_pre_hook(note)
    try:
        split = run(nano, comparison()).clips
        assert len({name for name in names if name.startswith("part")}) == 2
        names.clear()
        monkeypatch.setattr(nano.family, "splits_batches", False)
        whole = run(nano, comparison()).clips
        assert set(names) == {threading.current_thread().name}
    finally:
        hook.remove()
    for one, other in zip(split, whole, strict=True):
        assert np.abs(one.frames.astype(int) - other.frames.astype(int)).max() <= 1


def test_a_comparison_that_is_stopped_ends_before_the_next_block(nano: ModelBundle) -> None:
    flag, blocks = Flag(), list[str]()

    def note(_block: nn.Module, *_: Any) -> None:
        blocks.append(threading.current_thread().name)
        if blocks[-1].startswith("part"):
            flag.set()

    layers = [block for layer in nano.family.adapter.layers() for block in layer]
    hooks = [block.register_forward_hook(note) for block in layers]
    try:
        with pytest.raises(Cancelled):
            list(generate(nano, comparison(), flag))
    finally:
        for hook in hooks:
            hook.remove()
    in_parts = [name for name in blocks if name.startswith("part")]
    assert 1 <= len(in_parts) <= 2 * len(set(in_parts))


def test_frames_of_one_clip_are_decoded_on_both_threads(nano: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def note(_module: nn.Module, _arguments: Any) -> None:
        names.append(threading.current_thread().name)

    def decoded() -> Tensor:
        names.clear()
        with torch.inference_mode():
            return nano.codec.decode(latents, 17)

    size = nano.codec.latent_size(17, 128, 128)
    latents = torch.randn(1, nano.codec.latent_channels, *size, generator=torch.Generator().manual_seed(0))
    vae = nano.codec.spatial_vae
    hook = vae.module.decoder.register_forward_pre_hook(note)  # type: ignore[union-attr, operator]
    try:
        split = decoded()
        assert len(set(names)) == 2
        monkeypatch.setattr(vae, "splits_batches", False)
        whole = decoded()
        assert set(names) == {threading.current_thread().name}
    finally:
        hook.remove()
    assert torch.allclose(split, whole, atol=1e-4)
