"""One run of a model, watched: a generator of its parts, in the order in which they are known.

As the pipeline's, it can be closed between two steps, and looks at `cancel` as often.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opensora_demo.bundle import ModelBundle, Network
from opensora_demo.errors import Cancelled, DeviceError
from opensora_demo.explain.attention import Grid, Map, Recorder, count_weights, token_grid
from opensora_demo.explain.coding import Coding, code
from opensora_demo.explain.modulation import Clock, Modulation, even_times, modulations
from opensora_demo.explain.plane import Path, Pull, path_of, pull_of
from opensora_demo.families.base import Given
from opensora_demo.families.dit import DiTFamily
from opensora_demo.families.mmdit import MMDiTFamily
from opensora_demo.families.stdit import STDiTFamily
from opensora_demo.pipeline import noise_of
from opensora_demo.preview import latent_to_rgb
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.sampling.step import Step
from opensora_demo.text.cache import EmbeddingCache
from opensora_demo.text.prompts import clean_caption
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.types import Frames, GenerationRequest

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
    text: str


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
    one vector. Heads are averaged where there were too many weights; no looks where even then there were."""

    grid: Grid
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


Part = Progress | Tokens | Attentions | Flow | Guided | Coding


def network_of(bundle: ModelBundle) -> Network:
    family = bundle.family
    assert isinstance(family, DiTFamily | STDiTFamily | MMDiTFamily)
    return family.network


def words_of(encoder: T5TextEncoder, prompt: str) -> tuple[str, ...]:
    """What each token of the encoded prompt says, as it was typed; the end mark, and all padding as one."""
    text = clean_caption(prompt) if encoder.cfg.clean else prompt
    encoding = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pieces = [text[a:b].strip() or "·" for a, b in encoding["offset_mapping"]][: encoder.cfg.max_tokens - 1]
    padded = encoder.cfg.attend_padding and len(pieces) + 1 < encoder.cfg.max_tokens
    return (*pieces, END, *([PADDING] if padded else []))


def _condition(bundle: ModelBundle, request: GenerationRequest, size: Grid) -> tuple[Any, tuple[str, ...]]:
    """The family's conditions, and the words its network attends to."""
    encoder = getattr(bundle.family, "text", None)
    if isinstance(encoder, EmbeddingCache) and isinstance(encoder.encoder, T5TextEncoder):
        condition = bundle.family.condition(request, Given(), size)
        return condition, words_of(encoder.encoder, encoder.asked[0])
    if not isinstance(encoder, T5TextEncoder):
        return bundle.family.condition(request, Given(), size), ()
    prompts: list[str] = []  # a family may add words of its own: scores, FPS
    hook = encoder.register_forward_pre_hook(lambda _module, args: prompts.extend(args[0]))
    try:
        condition = bundle.family.condition(request, Given(), size)
    finally:
        hook.remove()
    return condition, words_of(encoder, prompts[0])


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


def _rgb(latent: Tensor, matrix: Tensor) -> NDArray[np.float32]:
    """A latent (c, t, h, w) as a picture (t, h, w, 3) that is not clipped."""
    picture: NDArray[np.float32] = (torch.einsum("cthw,cr->thwr", latent, matrix[:-1]) + matrix[-1]).numpy()
    return picture


@torch.inference_mode()
def explain(bundle: ModelBundle, request: GenerationRequest, cancel: Flag | None = None) -> Iterator[Part]:
    """Run a request of one clip without given frames: Progress, and each part once. Raises Cancelled at the next step
    after `cancel` is set, DeviceError where memory runs out."""
    try:
        with closing(_explain(bundle, request, cancel)) as parts:  # type: ignore[type-var]
            yield from parts
    except (torch.OutOfMemoryError, MemoryError):
        raise DeviceError("the device ran out of memory; try a smaller model") from None


def _explain(bundle: ModelBundle, request: GenerationRequest, cancel: Flag | None) -> Iterator[Part]:
    total = request.steps + 8
    done = 0

    def progress(text: str) -> Progress:
        if cancel is not None and cancel.is_set():
            raise Cancelled("the run was stopped")
        return Progress(done=min(done, total), total=total, text=text)

    yield progress("Reading the prompt")
    network, sampler = network_of(bundle), bundle.spec.sampler
    draw = noise_of(bundle, request)
    noise = draw()
    size: Grid = (noise.shape[2], noise.shape[3], noise.shape[4])
    grid = token_grid(network, size)
    condition, words = _condition(bundle, request, size)
    heads = network.cfg.heads
    at, average = _looks(request.steps, count_weights(network, grid, len(words)), heads)
    looks: list[tuple[int, float, tuple[Map, ...]]] = []
    taken: list[Step] = []
    clock = Clock(network, 999.0 if isinstance(sampler, IddpmConfig) else 1000.0)
    yield progress("Denoising")

    with closing(bundle.family.steps(noise, condition, request, draw)) as steps:  # type: ignore[type-var]
        while True:
            index = len(taken)
            with Recorder(network, grid) if index in at else nullcontext() as recorder:
                step = clock.watch(lambda: next(steps, None)) if index == 0 else next(steps, None)
            if step is None:
                break
            taken.append(step)
            done += 1
            if recorder is not None:
                looks.append((index, step.t, _told(recorder.maps, len(words), average)))
            yield progress(f"Denoising {len(taken)} of {step.total}")

    matrix = bundle.preview_matrix.float().cpu()
    xs: list[Tensor] = [step.start[0].float().cpu() for step in taken] + [taken[-1].x[0].float().cpu()]
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
    yield progress("Reading the modulation")
    times = even_times(CURVE_POINTS)
    patch = network.cfg.patch
    patches: Grid = (1, patch, patch) if isinstance(patch, int) else patch
    channels = noise.shape[1]
    yield Tokens(
        latent=(channels, *size),
        grid=grid,
        patch=patches,
        values=channels * patches[0] * patches[1] * patches[2],
        width=network.cfg.width,
        times=tuple(times.tolist()),
        modulations=tuple(modulations(clock, times)),
    )
    yield Attentions(grid=grid, words=words, heads=1 if average else heads, looks=tuple(looks))
    done += 1
    yield progress("Decoding")
    bundle.use("decode")
    latent = taken[-1].x[:1].to(bundle.codec_dtype)
    video = torch.cat(list(bundle.codec.decode_chunks(latent, request.shape.frames)), dim=2).clamp(-1, 1)
    for part in code(bundle.codec, video, matrix):
        done += 1
        yield part if part is not None else progress("Coding the clip once more")
