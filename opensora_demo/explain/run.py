"""One run of a model, watched: a generator of its parts, in the order in which they are known.

As the pipeline's, it can be closed between two steps, and looks at `cancel` as often.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from threading import Event as Flag
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opensora_demo.errors import Cancelled, DeviceError
from opensora_demo.explain.attention import Map, Recorder, count_weights
from opensora_demo.explain.beginning import Beginning, begin, is_large, watching_blocks
from opensora_demo.explain.call import (
    SHOWN_TIME,
    CallRecorder,
    Channels,
    Halves,
    Masking,
    channels_of,
    halves_of,
    masking_of,
)
from opensora_demo.explain.causal import Causal, causal
from opensora_demo.explain.coding import Coding, code
from opensora_demo.explain.modulation import Clock, Modulation, even_times, modulations
from opensora_demo.explain.plane import Path, Pull, path_of, pull_of
from opensora_demo.explain.scaling import Scaled, scale
from opensora_demo.families.adapters.base import Adapter
from opensora_demo.families.base import ConditioningFrames, Family, Grid
from opensora_demo.memory import is_out_of_memory, let_go
from opensora_demo.messages import Message, message
from opensora_demo.nn.patch import patch_grid
from opensora_demo.nn.threads import use_all_threads
from opensora_demo.pipeline import noise_of
from opensora_demo.preview import latent_to_rgb
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.sampling.step import Step
from opensora_demo.text.prompts import clean_caption
from opensora_demo.text.t5 import T5TextEncoder

CURVE_POINTS = 41
LOOKS = 4  # steps at which attention is read
MOST_WEIGHTS = 1_000_000  # attention weights a figure may hold, all looks together
PADDING = "padding"
END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`done` of `total` parts of the work; what comes next in a few words."""

    done: int
    total: int
    text: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """How the latent (c, t, h, w) is cut: `grid` patches along t, h, w, each of `values` numbers, embedded in `width`
    channels. `modulations` are over `times`."""

    latent: tuple[int, int, int, int]
    grid: Grid
    patch: Grid
    values: int
    width: int
    times: tuple[float, ...]
    modulations: tuple[Modulation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attentions:
    """Weights at some steps: `looks` are (step, t, maps). `words` name the keys of the prompt, none where it comes as
    one vector. Heads are averaged where there were too many weights; no looks where even then there were. `focus` is
    the patch (frame, row, column) of the middle frame that differs most from what else its row holds: an object's."""

    grid: Grid
    focus: Grid
    words: tuple[str, ...]
    heads: int
    looks: tuple[tuple[int, float, tuple[Map, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The run: `times` of its steps, pictures (t', h', w', 3) of x before and of the x0 estimate at each, its path."""

    times: tuple[float, ...]
    noisy: tuple[Frames, ...]
    clean: tuple[Frames, ...]
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Guided:
    """Both branches at every step; no pulls where a model has one branch only. `pictures` are of the x0 that the null
    prompt and the prompt speak of, (t', h', w', 3), white at 1 and black at -1 and not clipped: their mix is the
    picture of the mix."""

    scale: float
    pulls: tuple[Pull, ...]
    pictures: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]


Part = (
    Progress | Tokens | Attentions | Flow | Guided | Coding | Halves | Channels | Beginning | Masking | Causal | Scaled
)


def words_of(encoder: T5TextEncoder, prompt: str) -> tuple[str, ...]:
    """What each token of the encoded prompt says, as it was typed; the end mark, and all padding as one."""
    text = clean_caption(prompt) if encoder.cfg.clean else prompt
    encoding = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pieces = [text[a:b].strip() or "·" for a, b in encoding["offset_mapping"]][: encoder.cfg.max_tokens - 1]
    padded = encoder.cfg.attend_padding and len(pieces) + 1 < encoder.cfg.max_tokens
    return (*pieces, END, *([PADDING] if padded else []))


def text_tokens(encoder: T5TextEncoder | None, words: tuple[str, ...]) -> int:
    """How many tokens the prompt has, all padding counted."""
    return encoder.cfg.max_tokens if encoder is not None and encoder.cfg.attend_padding else len(words)


def _looks(total: int, weights: int, heads: int) -> tuple[list[int], bool]:
    """Steps at which attention is read, and whether heads are averaged, so that the weights (of one step) fit."""
    if weights // heads > MOST_WEIGHTS:
        return [], True
    average = weights > MOST_WEIGHTS
    count = max(min(LOOKS, total, MOST_WEIGHTS // (weights // heads if average else weights)), 1)
    return sorted({round(i * (total - 1) / max(count - 1, 1)) for i in range(count)}), average


def _told(maps: list[Map], words: int, average: bool) -> tuple[Map, ...]:
    """Maps with the weights of padding added up in the last word, and heads averaged where that was asked for."""
    out = []
    for found in maps:
        weights = found.weights
        if found.kind == "text" and weights.shape[-1] > words:
            weights = torch.cat([weights[..., : words - 1], weights[..., words - 1 :].sum(-1, keepdim=True)], dim=-1)
        if average:
            weights = weights.mean(-3, keepdim=True)
        out.append(Map(found.layer, found.kind, weights))
    return tuple(out)


def focus_of(latent: Tensor, grid: Grid) -> Grid:
    """A clean latent (c, t, h, w) -> (frame, row, column), each from 0: the patch of the middle frame of `grid` whose
    place differs most from the median of its row. Sky and ground are alike along a row, an object is not."""
    t, h, w = grid
    frame = t // 2
    middle = latent[:, frame * latent.shape[1] // t]  # (c, h, w)
    apart = (middle - middle.median(dim=-1, keepdim=True).values).square().mean(0).sqrt()
    best = int(torch.nn.functional.adaptive_avg_pool2d(apart[None], (h, w)).argmax())
    return frame, best // w, best % w


def _rgb(latent: Tensor, matrix: Tensor) -> NDArray[np.float32]:
    """A latent (c, t, h, w) as a picture (t, h, w, 3) that is not clipped."""
    picture: NDArray[np.float32] = (torch.einsum("cthw,cr->thwr", latent, matrix[:-1]) + matrix[-1]).numpy()
    return picture


@torch.inference_mode()
def explain(bundle: ModelBundle, request: GenerationRequest, cancel: Flag | None = None) -> Iterator[Part]:
    """Run a request of one clip without given frames, of its scenes the first: Progress, and each part once. Raises
    Cancelled at the next step after `cancel` is set, DeviceError where memory runs out."""
    use_all_threads()
    try:
        watched = replace(request.scene(0), step_cache="off")  # every step is looked into
        with closing(_explain(bundle, watched, cancel)) as parts:  # type: ignore[type-var]
            yield from parts
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        let_go(error)
        raise DeviceError(message("device.out_of_memory_here")) from None


def _explain(bundle: ModelBundle, request: GenerationRequest, cancel: Flag | None) -> Iterator[Part]:
    total = request.steps + 8
    done = 0

    def progress(text: Message) -> Progress:
        if cancel is not None and cancel.is_set():
            raise Cancelled(message("run.was_stopped"))
        return Progress(done=min(done, total), total=total, text=text)

    yield progress(message("run.encoding"))
    adapter = bundle.family.adapter
    draw = noise_of(bundle, request)
    noise = draw()
    size: Grid = (noise.shape[2], noise.shape[3], noise.shape[4])
    grid = patch_grid(adapter.patch, size)
    condition = bundle.family.condition(request, ConditioningFrames(), size)
    words = () if bundle.t5 is None else words_of(bundle.t5, condition.prompt)
    heads = adapter.heads
    weights = count_weights(adapter.attention_sites(), heads, grid, len(words))
    at, average = _looks(request.steps, weights, heads)
    looks: list[tuple[int, float, tuple[Map, ...]]] = []
    taken: list[Step] = []
    clock = Clock(adapter, bundle.family.time_scale)
    called: tuple[CallRecorder, Step] | None = None
    added: dict[tuple[int, int], float] = {}
    yield progress(message("run.denoising_first"))

    with closing(bundle.family.steps(noise, condition, request, draw)) as steps:  # type: ignore[type-var]
        while True:
            index = len(taken)
            calls = CallRecorder(adapter)
            with (
                Recorder(adapter, grid) if index in at else nullcontext() as recorder,
                nullcontext() if called else calls,
                watching_blocks(adapter) if index == 0 and not is_large(adapter.network) else nullcontext() as blocks,
            ):
                step = clock.watch(lambda: next(steps, None)) if index == 0 else next(steps, None)
            if step is None:
                break
            taken.append(step)
            added = blocks or added
            if called is None and (step.t <= SHOWN_TIME or index + 1 == step.total):
                called = calls, step
            done += 1
            if recorder is not None:
                looks.append((index, step.t, _told(recorder.maps, len(words), average)))
            yield progress(message("run.denoising", step=len(taken), total=step.total))

    assert called is not None
    yield from _of_the_steps(bundle, request, taken, called)
    yield progress(message("run.modulation"))

    def first_step(family: Family[Any]) -> None:
        anew = family.condition(request, ConditioningFrames(), size)
        with closing(family.steps(noise, anew, request, draw)) as steps:  # type: ignore[type-var]
            next(steps)

    modulated = tuple(modulations(clock, even_times(CURVE_POINTS)))
    yield _tokens(adapter, noise.shape[1], size, grid, modulated)
    yield begin(bundle.family, first_step, added, modulated)
    yield Attentions(
        grid=grid,
        focus=focus_of(taken[-1].x[0].float().cpu(), grid),
        words=words,
        heads=1 if average else heads,
        looks=tuple(looks),
    )
    yield masking_of(called[0], heads, math.prod(grid), text_tokens(bundle.t5, words))
    done += 1
    yield progress(message("run.decoding"))
    bundle.prepare("decode")
    for part in _of_the_codec(bundle, request, taken[-1].x[:1].to(bundle.codec_dtype)):
        done += part is None or isinstance(part, Coding)
        yield part if part is not None else progress(message("run.coding"))


def _of_the_steps(
    bundle: ModelBundle, request: GenerationRequest, taken: list[Step], called: tuple[CallRecorder, Step]
) -> Iterator[Part]:
    """The way, and what was predicted on it."""
    sampler = bundle.spec.sampler
    matrix = bundle.preview_matrix.float().cpu()
    xs = [step.start[0].float().cpu() for step in taken] + [taken[-1].x[0].float().cpu()]
    clean = [step.x0[0].float().cpu() for step in taken]
    yield Flow(
        times=tuple(step.t for step in taken),
        noisy=tuple(latent_to_rgb(x, matrix) for x in xs[:-1]),
        clean=tuple(latent_to_rgb(x, matrix) for x in clean),
        path=path_of(xs, clean),
    )
    guided = sampler.guided_channels if isinstance(sampler, IddpmConfig) else None
    pulls = [pull for step in taken if (pull := pull_of(step, guided)) is not None]
    yield Guided(
        scale=request.guidance[0],
        pulls=tuple(pulls),
        pictures=tuple((_rgb(pull.null_x0, matrix), _rgb(pull.prompt_x0, matrix)) for pull in pulls),
    )
    yield halves_of(*called, request.guidance[0], matrix)
    yield channels_of(*called, sampler)


def _tokens(
    adapter: Adapter[Any, Any], channels: int, size: Grid, grid: Grid, modulated: tuple[Modulation, ...]
) -> Tokens:
    return Tokens(
        latent=(channels, *size),
        grid=grid,
        patch=adapter.patch,
        values=channels * math.prod(adapter.patch),
        width=adapter.width,
        times=tuple(even_times(CURVE_POINTS).tolist()),
        modulations=modulated,
    )


def _of_the_codec(bundle: ModelBundle, request: GenerationRequest, latent: Tensor) -> Iterator[Part | None]:
    """The clip of a latent (1, c, t', h', w'), and what the codec makes of it; None after each part of the work."""
    shape, codec = request.shape, bundle.codec
    video = codec.decode(latent, shape.frames).clamp(-1, 1)
    yield from code(codec, video, bundle.preview_matrix.float().cpu())
    yield causal(video, codec)
    _, end = codec.frame_spans(shape.frames, shape.height_px, shape.width_px)[0]
    yield scale(codec, latent[:, :, :1], end)
