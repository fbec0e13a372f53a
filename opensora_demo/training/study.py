"""What a small model can do, in numbers: guidance, negative prompts, FPS, references, flicker, the codec, step counts.

python -m opensora_demo.training.study nano                         all of it, into study.json beside the weights
python -m opensora_demo.training.study nano --only fps --share 0.1  one part with a tenth of the clips

Every measurement takes a loaded model and answers a plain dict. What a model has not (a reference image, an FPS that
it is told) is left out. Clips are read at 64 x 64, positions are in 64ths of the side, and `None` is a number that
could not be measured. Clips are made of scenes that training never drew, one in ten of them of a combination of shape,
colour and motion never trained on.
"""

from __future__ import annotations

import argparse
import base64
import copy
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opensora_demo.bundle import ModelBundle, build_bundle, fit_threads
from opensora_demo.catalog import ModelSpec, RandomWeights, WeightFiles, find_model
from opensora_demo.errors import NumericsError
from opensora_demo.families.base import Draw, Family, Given
from opensora_demo.media import jpeg_strip, read_reference
from opensora_demo.models.dit import DiTConfig
from opensora_demo.models.stdit import STDiTConfig
from opensora_demo.pipeline import run, to_frames, to_video
from opensora_demo.sampling.config import RectifiedFlowConfig, SamplerConfig
from opensora_demo.sampling.step import Step
from opensora_demo.store import ASSETS, locate
from opensora_demo.training.adherence import (
    EVAL_SEED,
    Trial,
    adherence_table,
    clips_at,
    held_out_prompts,
    reader_table,
    run_trials,
    score,
)
from opensora_demo.training.captions import BACKGROUND_PHRASES, COLOUR_WORDS, SHAPE_WORDS, caption
from opensora_demo.training.reader import Reader, Sight, at_reading_size, find_objects, load_reader, read_clips
from opensora_demo.training.worlds import SIZE_PX, SPEED_PX_S, Scene, is_held_out, path, render, sample_scene
from opensora_demo.types import Frames, GenerationRequest, parse_request

Table = dict[str, Any]
STRAIGHT = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}  # motion -> axis (x, y) and sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many clips each measurement makes.

    adherence: at the default scale; unseen: likewise, all of combinations kept out of training; pairs and chinese: of
    two objects, and in Chinese. prompts: for each guidance scale.
    diverse, seeds: prompts made again from other noises, and how many clips of each that gives.
    negative: prompts for each open attribute, six clips each. speed: clips for each motion, speed and FPS.
    references: two clips each. codec: rendered clips. step_prompts: for each sampler and number of steps.
    """

    adherence: int = 512
    unseen: int = 256
    pairs: int = 128
    chinese: int = 128
    prompts: int = 96
    diverse: int = 16
    seeds: int = 4
    scales: tuple[float, ...] = (1, 1.5, 2, 3, 4, 5.5, 7, 10)
    negative: int = 48
    speed: int = 4
    rates: tuple[int, ...] = (4, 8, 12, 16, 24)
    references: int = 48
    flicker: int = 48
    codec: int = 128
    step_prompts: int = 48
    steps: tuple[int, ...] = (6, 8, 12, 16, 24, 30)
    fine_steps: int = 200
    photos: int = 8

    def times(self, share: float) -> Counts:
        """The same scales, rates and steps with a share of the clips, two at least (one for each direction)."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("seeds", "fine_steps")}
        fewer: dict[str, Any] = {
            name: max(1 if name == "speed" else 2, round(share * value))
            for name, value in numbers.items()
            if isinstance(value, int)
        }
        return replace(self, **fewer)


# --- numbers of clips ------------------------------------------------------------------------------------------------


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Peak signal to noise ratio of values in 0..255, dB; infinite where they are equal."""
    return psnr_of(float(np.mean((a.astype(np.float64) - b) ** 2)))


def psnr_of(error: float) -> float:
    """The PSNR of a mean squared error of values in 0..255."""
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def diversity(clips: Sequence[Frames]) -> float:
    """Mean RMS distance between two of the clips (t, h, w, 3), in 0..1 of the range."""
    values = [clip.astype(np.float32) / 255 for clip in clips]
    return float(np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in combinations(values, 2)]))


def track_distance(a: Sight, b: Sight) -> float:
    """RMS distance of two objects' centres over the frames in which both are seen, px; NaN where there is none."""
    apart = np.sum((a.centre_px - b.centre_px) ** 2, 1)
    return float(np.sqrt(np.nanmean(apart))) if np.isfinite(apart).any() else math.nan


def colourfulness(clip: Frames) -> dict[str, float]:
    """Of a clip's pixels, all in 0..1. saturation: mean of HSV's S, which dark noise raises too; chroma: mean distance
    of the largest from the smallest channel, which it does not; contrast: standard deviation of the brightness;
    clipped: share of values at either end of the range."""
    values = clip.astype(np.float32) / 255
    high, low = values.max(-1), values.min(-1)
    brightness = values @ np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601
    return {
        "saturation": float(np.mean((high - low) / np.maximum(high, 1e-6))),
        "chroma": float(np.mean(high - low)),
        "contrast": float(brightness.std()),
        "clipped": float(np.mean((clip == 0) | (clip == 255))),
    }


def straight_speed(sight: Sight, motion: str, fps: float) -> float:
    """Speed along a straight motion, px a second, negative the other way; NaN where fewer than three frames show the
    whole object.

    The middle one of all slopes between two frames (Theil, 1950; Sen, 1968), so that a bad frame changes nothing. A
    mask cut off by the frame's edge has its centre too far inside: frames in which more than the tip of a star, a
    triangle or a diamond may be cut off are left out.
    """
    axis, sign = STRAIGHT[motion]
    at = sight.centre_px[:, axis]
    if not np.isfinite(at).any():
        return math.nan
    radius = SIZE_PX * math.sqrt(float(sight.area.max()) / math.pi)
    margin = 1.2 * radius + 1
    inside = np.flatnonzero(np.abs(np.nan_to_num(at, nan=-SIZE_PX) - SIZE_PX / 2) < SIZE_PX / 2 - margin)
    runs = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
    frames = max(runs, key=len)  # what is taken for the object once it has left is another run
    if len(frames) < 3:
        return math.nan
    i, j = np.triu_indices(len(frames), 1)
    slopes = (at[frames[j]] - at[frames[i]]) / (frames[j] - frames[i])
    return sign * float(np.median(slopes)) * fps


REACH_PX = 10  # shadows reach 7 px beyond an object, masks are of half the resolution


def flicker(clip: Frames, objects: NDArray[np.float32], reach_px: int = REACH_PX) -> float:
    """Mean absolute change from one frame to the next, 0..255, where no object is near in either; NaN without such
    pixels. `objects` (t, 64, 64) in 0..1, `reach_px` in 64ths of the side; the clip (t, h, h, 3) has its own size."""
    near = _near_objects(clip, objects, reach_px)
    still = ~(near[1:] | near[:-1])
    change = np.abs(np.diff(clip.astype(np.int16), axis=0)).mean(-1)
    return float(change[still].mean()) if still.any() else math.nan


def _near_objects(clip: Frames, objects: NDArray[np.float32], reach_px: int) -> NDArray[np.bool_]:
    """Which pixels (t, h, h) of a clip are within reach of what may be an object."""
    near = F.max_pool2d(torch.from_numpy(objects)[None], 2 * reach_px + 1, 1, reach_px)[0].numpy() > 0.25
    factor = clip.shape[1] // near.shape[1]
    return near.repeat(factor, 1).repeat(factor, 2)


def background_psnr(clip: Frames, given: Frames, objects: NDArray[np.float32], reach_px: int = REACH_PX) -> float:
    """PSNR, dB, of all frames but the first against the given first frame (1, h, h, 3), where no object is near in
    either; NaN without such pixels. `objects` as for `flicker`."""
    near = _near_objects(clip, objects, reach_px)
    still = ~(near[1:] | near[:1])
    return psnr(clip[1:][still], np.broadcast_to(given, clip[1:].shape)[still]) if still.any() else math.nan


def natural_picture(rng: np.random.Generator, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """A picture (h, w, 3) of no toy world: a random texture whose amplitude falls as 1 / frequency, as in photographs
    (Field, 1987), mostly grey, lit from one side."""
    frequency = np.hypot(np.fft.fftfreq(height_px)[:, None] * height_px, np.fft.fftfreq(width_px)[None] * width_px)
    spectrum = 1 / np.maximum(frequency, 1)[..., None]
    noise = np.fft.fft2(rng.standard_normal((height_px, width_px, 4)), axes=(0, 1))
    layers = np.fft.ifft2(noise * spectrum, axes=(0, 1)).real
    layers /= layers.std((0, 1))
    y, x = np.mgrid[-1 : 1 : height_px * 1j, -1 : 1 : width_px * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    light = np.cos(angle) * x + np.sin(angle) * y
    tint = rng.uniform(-30, 30, 3)
    values = 128 + tint + 34 * layers[..., :1] + 14 * layers[..., 1:] + 26 * light[..., None]
    return np.clip(values, 0, 255).astype(np.uint8)


# --- helpers ---------------------------------------------------------------------------------------------------------


def told_fps(spec: ModelSpec) -> bool:
    """Does the network learn the frame rate? 1.0 has no place for it."""
    return spec.limits.fps.low < spec.limits.fps.high and not isinstance(spec.network, DiTConfig | STDiTConfig)


def rates_of(spec: ModelSpec, rates: Sequence[int]) -> list[int]:
    """Those of the rates that the model accepts; its own where it is not told the rate."""
    span = spec.limits.fps
    return [r for r in rates if span.low <= r <= span.high] if told_fps(spec) else [int(span.default)]


def clip_size(spec: ModelSpec) -> tuple[int, int]:
    """(frames, side in px) of the clips to measure: the model's defaults. Raises ValueError where they are no squares,
    which is all that the renderer draws."""
    height_px, width_px = spec.limits.size_px
    if height_px != width_px:
        raise ValueError(f"{spec.id} makes clips of {height_px} x {width_px}; only squares can be measured")
    return spec.limits.default_frames, height_px


def draw(spec: ModelSpec, scene: Scene) -> tuple[Frames, NDArray[np.uint8]]:
    """A scene rendered as the model's clips are: frames (t, h, h, 3) and alpha (t, h, h), both uint8."""
    frames, size_px = clip_size(spec)
    return render(scene, frames, size_px)


def with_sampler(bundle: ModelBundle, sampler: SamplerConfig) -> ModelBundle:
    """The same loaded weights, sampled otherwise."""
    family: Any = copy.copy(bundle.family)
    family.sampler = sampler
    return replace(bundle, spec=replace(bundle.spec, sampler=sampler), family=family)


class _Recorder:
    """A family that keeps the latents (rows, c, t, h, w) of its last step."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.latents: Tensor | None = None

    def condition(self, request: GenerationRequest, given: Given, size: tuple[int, int, int]) -> Any:
        return self.family.condition(request, given, size)

    def steps(self, noise: Tensor, condition: Any, request: GenerationRequest, draw: Draw) -> Iterator[Step]:
        for step in self.family.steps(noise, condition, request, draw):
            self.latents = step.x
            yield step


def run_with_latents(bundle: ModelBundle, request: GenerationRequest) -> tuple[Frames, Tensor]:
    """The clip of a request of one scale, and the latents (1, c, t, h, w) it was decoded from."""
    recorder = _Recorder(bundle.family)
    clip = run(replace(bundle, family=recorder), request).clips[0].frames
    assert recorder.latents is not None
    return clip, recorder.latents


@torch.inference_mode()
def round_trip(bundle: ModelBundle, clip: Frames) -> Frames:
    """A clip (t, h, w, 3) encoded and decoded."""
    latents = bundle.codec.encode(to_video(clip).to(bundle.device))
    return np.concatenate([to_frames(part[0]) for part in bundle.codec.decode_chunks(latents, len(clip))])


def _mean(values: Sequence[float]) -> float:
    """Of the finite ones; NaN of none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan


def plain(value: Any) -> Any:
    """For JSON: four significant digits after the point, lists for tuples, None for what is not finite."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 4) if math.isfinite(value) else None
    return value


def _scale(bundle: ModelBundle) -> float:
    return float(bundle.spec.limits.guidance.default)


def _made(bundle: ModelBundle, raw: dict[str, Any], reference: Frames | None = None) -> Frames:
    """The clip of a request at the default guidance."""
    scale = _scale(bundle)
    return clips_at(bundle, raw, (scale,), reference)[scale]


# --- measurements ----------------------------------------------------------------------------------------------------


def adherence_study(bundle: ModelBundle, reader: Reader, prompts: int, unseen: int) -> Table:
    """How often clips show what prompts say at the default scale: prompts that training never saw, and others whose
    combination of shape, colour and motion was kept out of training."""
    scale = _scale(bundle)
    table: Table = {"prompts": prompts, "unseen prompts": unseen}
    for name, count, only in (("prompts that are new", prompts, False), ("combinations that are new", unseen, True)):
        trials = run_trials(bundle, count, (scale,), unseen=only, seed=EVAL_SEED + 8 * only)
        table[name] = score(reader, [(t.scene, t.clips[scale]) for t in trials])
    return plain(table)


def guidance_study(
    bundle: ModelBundle,
    reader: Reader,
    scales: Sequence[float],
    prompts: int,
    *,
    diverse: int = 16,
    seeds: int = 4,
    steps: int | None = None,
) -> Table:
    """Adherence, diversity and colour at each scale the model accepts; all scales of a prompt share their noise.

    diversity: mean RMS distance between clips of one prompt from `seeds` noises, over the first `diverse` prompts;
    track: the same of the objects' centres in px. "rendered" is what the renderer gives: the colours of the same
    scenes, and the distances between scenes that the same words describe. `unseen`: prompts of combinations
    kept out of training.
    """
    span = bundle.spec.limits.guidance
    scales = [float(s) for s in scales if span.low <= s <= span.high]
    trials = list(run_trials(bundle, prompts, scales, steps=steps))
    rows = adherence_table(reader, trials)
    groups: dict[float, list[list[Frames]]] = {s: [] for s in scales}
    drawn: list[list[Frames]] = []
    for trial in trials[:diverse]:
        raw = {"prompt": trial.prompt, "steps": steps, "fps": trial.scene.fps}
        more = [clips_at(bundle, raw | {"seed": prompts + k}, scales) for k in range(1, seeds)]
        for s in scales:
            groups[s].append([trial.clips[s], *(clips[s] for clips in more)])
        drawn.append([draw(bundle.spec, replace(trial.scene, seed=trial.scene.seed + k))[0] for k in range(seeds)])

    def spread(clips_of_prompts: list[list[Frames]]) -> dict[str, float]:
        tracks: list[float] = []
        for clips in clips_of_prompts:
            sights = [reading.objects[0] for reading in read_clips(reader, clips)]
            tracks += [track_distance(a, b) for a, b in combinations(sights, 2)]
        pixels = [diversity([at_reading_size(c) for c in clips]) for clips in clips_of_prompts]
        return {"diversity": _mean(pixels), "track": _mean(tracks)}

    def colours(clips: list[Frames]) -> dict[str, float]:
        each = [colourfulness(at_reading_size(c)) for c in clips]
        return {name: _mean([c[name] for c in each]) for name in each[0]}

    for s in scales:
        rows[f"{s:g}"] |= spread(groups[s]) | colours([t.clips[s] for t in trials])
    rendered = spread(drawn) | colours([draw(bundle.spec, t.scene)[0] for t in trials])
    table: Table = {
        "prompts": prompts,
        "unseen": sum(is_held_out(t.scene) for t in trials),
        "diverse": min(diverse, prompts),
        "seeds": seeds,
    }
    return plain(table | {"scales": rows, "rendered": rendered})


def other_captions_study(bundle: ModelBundle, reader: Reader, pairs: int, chinese: int) -> Table:
    """Adherence at the default scale for scenes of two objects, and for captions in Chinese."""
    scale = (_scale(bundle),)

    def measured(trials: Iterator[Trial]) -> dict[str, float]:
        return next(iter(adherence_table(reader, list(trials)).values()))

    return plain(
        {
            "two objects": {"prompts": pairs} | measured(run_trials(bundle, pairs, scale, pairs=1.0)),
            "Chinese": {"prompts": chinese} | measured(run_trials(bundle, chinese, scale, chinese=1.0)),
        }
    )


OPEN = ("colour", "background")


def _without(text: str, phrases: Sequence[str]) -> str:
    """The text without these phrases, as words between single spaces."""
    words = f" {text.replace(',', ' ')} "
    for phrase in sorted(phrases, key=len, reverse=True):
        words = words.replace(f" {phrase} ", " ")
    return " ".join(words.split())


def open_caption(scene: Scene, rng: np.random.Generator, attribute: str) -> str:
    """A caption that leaves out `attribute` (one of OPEN) and says the other; the motion may be left out too."""
    while True:
        text = caption(scene, rng, omit=0.5)
        bare = " ".join(text.replace(",", " ").split())
        rest = _without(text, BACKGROUND_PHRASES[scene.background])  # a white background is no white object
        placed, coloured = rest != bare, _without(rest, COLOUR_WORDS[scene.colour]) != rest
        if (placed, coloured) == (attribute == "colour", attribute == "background"):
            return text


def negative_words(scene: Scene, attribute: str, value: str) -> dict[str, str]:
    """Two ways to forbid a value: a bare phrase, and a caption as the model was trained on."""
    shape = SHAPE_WORDS[scene.shape][0]
    if attribute == "colour":
        word = COLOUR_WORDS[value][0]
        return {"word": word, "caption": f"{'an' if word[0] in 'aeiou' else 'a'} {word} {shape}"}
    phrase = BACKGROUND_PHRASES[value][0]
    return {"word": phrase, "caption": f"a {shape} {phrase}"}


def negative_study(
    bundle: ModelBundle, reader: Reader, count: int, *, seed: int = EVAL_SEED + 2, steps: int | None = None
) -> Table:
    """Prompts that leave colour or background open, and a negative prompt that names what came out.

    For each attribute and way of saying it, how often the named value is there: with the noise that brought it, where
    it was always there without the negative prompt, and with another noise, which is the fair comparison ("without" is
    then the share of clips that show the value anyway). `shape`: share that still show the prompt's shape.
    """
    table: Table = {"prompts": count}
    for attribute in OPEN:
        rng = np.random.default_rng((seed, OPEN.index(attribute)))
        scenes, shown, clips = [], [], []
        for index in range(count):
            scene = sample_scene(rng, held_out=None, fps=int(bundle.spec.limits.fps.default))
            raw = {"prompt": open_caption(scene, rng, attribute), "steps": steps, "fps": scene.fps}
            seeds = {"same noise": index, "other noise": count + index}
            first = _made(bundle, raw | {"seed": index})
            (reading,) = read_clips(reader, [first])
            value = reading.background if attribute == "background" else reading.objects[0].colour
            made = {("same noise", "without"): first}
            made["other noise", "without"] = _made(bundle, raw | {"seed": seeds["other noise"]})
            for way, words in negative_words(scene, attribute, value).items():
                for noise, number in seeds.items():
                    made[noise, way] = _made(bundle, raw | {"seed": number, "negative": words})
            scenes.append(scene)
            shown.append(value)
            clips.append(made)
        found: Table = {}
        for noise in ("same noise", "other noise"):
            found[noise] = {}
            for way in ("without", "word", "caption"):
                readings = read_clips(reader, [made[noise, way] for made in clips])
                values = [r.background if attribute == "background" else r.objects[0].colour for r in readings]
                found[noise][way] = {
                    "still there": _mean([a == b for a, b in zip(values, shown, strict=True)]),
                    "shape": _mean([r.objects[0].shape == s.shape for r, s in zip(readings, scenes, strict=True)]),
                }
        table[attribute] = found
    return plain(table)


def speeds_of(reader: Reader, clips: Sequence[Frames], scenes: Sequence[Scene]) -> list[float]:
    """Measured speed of each clip along its scene's motion, px a second; NaN where it cannot be told or the reader
    sees two objects."""
    readings = read_clips(reader, clips)
    return [
        straight_speed(r.objects[0], s.motion, s.fps) if len(r.objects) == 1 else math.nan
        for r, s in zip(readings, scenes, strict=True)
    ]


def fps_study(
    bundle: ModelBundle,
    reader: Reader,
    count: int,
    rates: Sequence[int],
    *,
    seed: int = EVAL_SEED + 3,
    steps: int | None = None,
) -> Table:
    """Speed in px a second of straight motions, `count` for each of four directions, at each speed word and FPS, beside
    the speed that training gave the word. A model that is not told the FPS is measured at its own.

    mean, median and standard deviation are over the clips that move the way they were asked to, `right way` of the
    `measured`, so that a wrong direction does not pass for a wrong speed; "mean of all" has the others too, with their
    sign. "rendered" is the same from the renderer's clips: how far its ratio is from 1 is the measurement's own error.
    """
    rates = rates_of(bundle.spec, rates)
    rng = np.random.default_rng(seed)
    bases = [
        replace(sample_scene(rng, held_out=None), motion=motion, size=str(rng.choice(("small", "medium"))))
        for motion in STRAIGHT
        for _ in range(count)
    ]
    table: Table = {"clips": len(bases), "told": told_fps(bundle.spec), "nominal": SPEED_PX_S, "rates": {}}
    for fps in rates:
        row: Table = {}
        for speed, nominal in SPEED_PX_S.items():
            scenes = [replace(s, speed=speed, fps=fps) for s in bases]
            clips, drawn = [], []
            for index, scene in enumerate(scenes):
                prompt = caption(scene, np.random.default_rng((seed, index)))
                clips.append(_made(bundle, {"prompt": prompt, "fps": fps, "seed": index, "steps": steps}))
                drawn.append(draw(bundle.spec, scene)[0])
            row[speed] = _speed_row(speeds_of(reader, clips, scenes), nominal)
            row[speed]["rendered"] = _speed_row(speeds_of(reader, drawn, scenes), nominal)
        row["ratio"] = _mean([row[s]["ratio"] for s in SPEED_PX_S])
        row["ratio of medians"] = _mean([row[s]["median"] / v for s, v in SPEED_PX_S.items()])
        row["rendered ratio"] = _mean([row[s]["rendered"]["ratio"] for s in SPEED_PX_S])
        table["rates"][str(fps)] = row
    return plain(table)


def _speed_row(speeds: list[float], nominal: float) -> Table:
    finite = [v for v in speeds if math.isfinite(v)]
    forward = [v for v in finite if v > 0]
    return {
        "mean": _mean(forward),
        "median": _median(forward),
        "std": float(np.std(forward)) if forward else math.nan,
        "ratio": _mean(forward) / nominal,
        "mean of all": _mean(finite),
        "right way": len(forward),
        "measured": len(finite),
    }


def _other_motion(scene: Scene, frames: int) -> Scene:
    """The same first frame with a straight motion, towards where there is most room, that is not the scene's own."""
    x, y = path(scene, frames).centre_px[0]
    room = {"left": x, "right": SIZE_PX - x, "up": y, "down": SIZE_PX - y}
    room.pop(scene.motion, None)
    return replace(scene, motion=max(room, key=lambda name: float(room[name])))


def reference_study(
    bundle: ModelBundle, reader: Reader, count: int, *, seed: int = EVAL_SEED + 4, steps: int | None = None
) -> Table:
    """The first frame of a rendered scene is given, with the scene's caption and with one of another motion.

    psnr: of the clip's first frame against the given one, mean over clips, dB; codec psnr: of the given frame through
    the codec alone, which the first equals where a model keeps the given latent and the codec is causal. background
    psnr: of the later frames against the given one, where no object is near in either.
    """
    frames, _ = clip_size(bundle.spec)
    trips: list[float] = []
    pictures: list[Frames] = []
    kept: dict[str, list[float]] = {"own motion": [], "another motion": []}
    shown: dict[str, list[tuple[Scene, Frames]]] = {name: [] for name in kept}
    for index, (scene, prompt) in enumerate(held_out_prompts(count, int(bundle.spec.limits.fps.default), seed)):
        given = draw(bundle.spec, scene)[0][:1]
        pictures.append(given)
        if 1 in bundle.spec.limits.frames:
            trips.append(psnr(round_trip(bundle, given), given))
        other = _other_motion(scene, frames)
        asked = {
            "own motion": (scene, prompt),
            "another motion": (other, caption(other, np.random.default_rng((seed, index)))),
        }
        for name, (wanted, words) in asked.items():
            clip = _made(bundle, {"prompt": words, "fps": scene.fps, "seed": index, "steps": steps}, given)
            kept[name].append(psnr(clip[:1], given))
            shown[name].append((wanted, clip))
    rows: Table = {}
    for name in kept:
        clips = [clip for _, clip in shown[name]]
        masks = find_objects(reader, clips)
        later = [background_psnr(c, g, m) for c, g, m in zip(clips, pictures, masks, strict=True)]
        numbers = {"psnr": _mean(kept[name]), "background psnr": _mean(later)}
        rows[name] = numbers | score(reader, shown[name])
    return plain({"prompts": count, "codec psnr": _mean(trips)} | rows)


def consistency_study(
    bundle: ModelBundle, reader: Reader, count: int, *, seed: int = EVAL_SEED + 5, steps: int | None = None
) -> Table:
    """Flicker of the background, 0..255, of generated clips, of rendered ones through the codec, and of rendered ones
    (0, unless the reader loses an object): mean and median over the clips that show any background."""
    clips: dict[str, list[Frames]] = {"generated": [], "codec": [], "rendered": []}
    for index, (scene, prompt) in enumerate(held_out_prompts(count, int(bundle.spec.limits.fps.default), seed)):
        drawn = draw(bundle.spec, scene)[0]
        clips["generated"].append(_made(bundle, {"prompt": prompt, "fps": scene.fps, "seed": index, "steps": steps}))
        clips["codec"].append(round_trip(bundle, drawn))
        clips["rendered"].append(drawn)
    table: Table = {"prompts": count}
    for name, some in clips.items():
        found = [flicker(clip, mask) for clip, mask in zip(some, find_objects(reader, some), strict=True)]
        measured = sum(math.isfinite(v) for v in found)
        table[name] = {"mean": _mean(found), "median": _median(found), "measured": measured}
    return plain(table)


def codec_study(bundle: ModelBundle, count: int, *, seed: int = EVAL_SEED + 6) -> Table:
    """PSNR of rendered clips through the codec, dB: pooled over all pixels of all clips, mean over clips, pooled over
    the pixels that are object for the most part."""
    table: Table = {"clips": count}
    for name, pairs in (("one object", 0.0), ("two objects", 1.0)):
        rng = np.random.default_rng((seed, int(pairs)))
        errors, of_objects, each = [], [], []
        for _ in range(count):
            clip, alpha = draw(bundle.spec, sample_scene(rng, held_out=None, pairs=pairs))
            error = ((round_trip(bundle, clip).astype(np.float64) - clip) ** 2).mean(-1)  # (t, h, w)
            errors.append(error.mean())
            of_objects.append(error[alpha > 127])
            each.append(psnr_of(float(error.mean())))
        pooled, inside = np.mean(errors), np.mean(np.concatenate(of_objects))
        table[name] = {
            "pooled": psnr_of(float(pooled)),
            "mean": _mean(each),
            "object": psnr_of(float(inside)),
        }
    return plain(table)


def deterministic(sampler: SamplerConfig) -> bool:
    """Does the noise a run starts from fix its end? Diffusion that draws fresh noise has no solution to converge to."""
    if isinstance(sampler, RectifiedFlowConfig):
        return True
    return sampler.method == "dpm-solver++" or (sampler.method == "ddim" and sampler.eta == 0)


def name_of(sampler: SamplerConfig) -> str:
    """Its kind, its order or method, and whatever else differs from the kind's defaults."""
    own, usual = asdict(sampler), asdict(type(sampler)())
    kind, main = ("rectified flow", "order") if isinstance(sampler, RectifiedFlowConfig) else ("IDDPM", "method")
    first = f"order {own.pop(main)}" if main == "order" else str(own.pop(main))
    rest = (f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in own.items() if v != usual[k])
    return ", ".join((kind, first, *rest))


def usual_samplers(spec: ModelSpec) -> tuple[SamplerConfig, ...]:
    """The model's own sampler, then the others of its kind that its weights can be sampled with."""
    own = spec.sampler
    if isinstance(own, RectifiedFlowConfig):
        return own, replace(own, order=1 if own.order == 2 else 2)
    others = [replace(own, method=m) for m in ("ddpm", "ddim", "dpm-solver++") if m != own.method]
    return own, *others


def steps_study(
    bundle: ModelBundle,
    reader: Reader,
    prompts: int,
    steps: Sequence[int],
    *,
    fine_steps: int = 200,
    samplers: Sequence[SamplerConfig] = (),
) -> Table:
    """Adherence by number of steps, and how far the latents are from where many steps lead.

    `samplers` defaults to the model's own; all start from the same noise. distance: RMS over latents (of about unit
    variance) from the end of `fine_steps` steps of the first sampler whose end its noise fixes, mean over prompts; None
    for samplers that draw fresh noise. Step counts may exceed what visitors may ask for.
    """
    samplers = samplers or (bundle.spec.sampler,)
    limits = replace(bundle.spec.limits, steps=replace(bundle.spec.limits.steps, low=1, high=1000))
    scenes = held_out_prompts(prompts, int(limits.fps.default))

    def made(sampler: SamplerConfig, count: int) -> tuple[list[Frames], list[Tensor]]:
        sampled = with_sampler(bundle, sampler)
        pairs = [
            run_with_latents(
                sampled,
                parse_request(
                    {"prompt": prompt, "fps": scene.fps, "seed": index, "steps": count},
                    model_id=bundle.spec.id,
                    limits=limits,
                ),
            )
            for index, (scene, prompt) in enumerate(scenes)
        ]
        return [clip for clip, _ in pairs], [latents for _, latents in pairs]

    def adherence(clips: list[Frames]) -> dict[str, float]:
        return score(reader, [(scene, clip) for (scene, _), clip in zip(scenes, clips, strict=True)])

    table: Table = {"prompts": prompts, "fine": None, "samplers": {}}
    solution: list[Tensor] = []
    if (exact := next((s for s in samplers if deterministic(s)), None)) is not None:
        clips, solution = made(exact, fine_steps)
        table["fine"] = {"sampler": name_of(exact), "steps": fine_steps} | adherence(clips)
    for sampler in samplers:
        rows: Table = {}
        for count in steps:
            clips, latents = made(sampler, count)
            apart = [float((a - b).square().mean().sqrt()) for a, b in zip(latents, solution, strict=False)]
            rows[str(count)] = adherence(clips) | {"distance": _mean(apart) if deterministic(sampler) else None}
        table["samplers"][name_of(sampler)] = rows
    return plain(table)


def photo_study(
    bundle: ModelBundle, count: int, *, seed: int = EVAL_SEED + 7, steps: int | None = None, side_px: int = 240
) -> Table:
    """A picture of no toy world is given, as a JPEG of another format than the clip's: PSNR of the first frame against
    what the model was given, of all frames (`clip psnr`), and of the given frame through the codec alone; and the share
    of runs that ended with finite values."""
    _, size_px = clip_size(bundle.spec)
    rng = np.random.default_rng(seed)
    kept: list[float] = []
    whole: list[float] = []
    trips: list[float] = []
    for index, (scene, prompt) in enumerate(held_out_prompts(count, int(bundle.spec.limits.fps.default), seed)):
        picture = natural_picture(rng, side_px, side_px * 4 // 3)
        jpeg = base64.b64decode(jpeg_strip(picture[None], side_px, quality=92).split(",", 1)[1])
        given = read_reference(io.BytesIO(jpeg), size_px, size_px)
        if 1 in bundle.spec.limits.frames:
            trips.append(psnr(round_trip(bundle, given), given))
        try:
            clip = _made(bundle, {"prompt": prompt, "fps": scene.fps, "seed": index, "steps": steps}, given)
        except NumericsError:
            continue
        kept.append(psnr(clip[:1], given))
        whole.append(psnr(clip, np.broadcast_to(given, clip.shape)))
    numbers = {"psnr": _mean(kept), "clip psnr": _mean(whole), "codec psnr": _mean(trips)}
    return plain({"pictures": count, "finite": len(kept) / count} | numbers)


def reader_study(bundle: ModelBundle, reader: Reader, count: int) -> Table:
    """How often the reader is right about rendered clips of the model's own length, size and default FPS: what no
    model can be measured to exceed."""
    frames, size_px = clip_size(bundle.spec)
    fps = int(bundle.spec.limits.fps.default)
    measured = {
        name: reader_table(reader, count, pairs=pairs, fps=fps, frames=frames, size_px=size_px)
        for name, pairs in (("one object", 0.0), ("two objects", 1.0))
    }
    return plain({"clips": count} | measured)


# --- all of it -------------------------------------------------------------------------------------------------------


def studies_of(
    bundle: ModelBundle, reader: Reader, counts: Counts, samplers: Sequence[SamplerConfig] = ()
) -> dict[str, Callable[[], Table]]:
    """What can be measured of a model, cheap things first. `samplers` for the steps: `usual_samplers` without."""
    found: dict[str, Callable[[], Table]] = {
        "reader": lambda: reader_study(bundle, reader, 4 * counts.codec),
        "codec": lambda: codec_study(bundle, counts.codec),
        "consistency": lambda: consistency_study(bundle, reader, counts.flicker),
        "adherence": lambda: adherence_study(bundle, reader, counts.adherence, counts.unseen),
        "other captions": lambda: other_captions_study(bundle, reader, counts.pairs, counts.chinese),
        "negative": lambda: negative_study(bundle, reader, counts.negative),
        "fps": lambda: fps_study(bundle, reader, counts.speed, counts.rates),
        "steps": lambda: steps_study(
            bundle, reader, counts.step_prompts, counts.steps, fine_steps=counts.fine_steps, samplers=samplers
        ),
        "guidance": lambda: guidance_study(
            bundle, reader, counts.scales, counts.prompts, diverse=counts.diverse, seeds=counts.seeds
        ),
    }
    samplers = samplers or usual_samplers(bundle.spec)
    if bundle.spec.limits.reference:
        found["reference"] = lambda: reference_study(bundle, reader, counts.references)
        found["photo"] = lambda: photo_study(bundle, counts.photos)
    return found


def fingerprint(spec: ModelSpec) -> str:
    """Twelve hexadecimal digits that change with any of the model's files."""
    if isinstance(spec.weights, RandomWeights):
        return f"random {spec.weights.seed}"
    digest = hashlib.sha256()
    for file in dict.fromkeys(file for files in locate(spec).values() for file in files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def run_study(
    bundle: ModelBundle,
    reader: Reader,
    counts: Counts,
    *,
    only: Sequence[str] = (),
    samplers: Sequence[SamplerConfig] = (),
) -> Table:
    """Every measurement the model allows (or those named in `only`): settings, which weights, results with their
    counts, and the date and seconds of each."""
    spec = bundle.spec
    frames, size_px = clip_size(spec)
    result: Table = {
        "model": spec.id,
        "weights": fingerprint(spec),
        "device": str(bundle.device),
        "settings": {
            "frames": frames,
            "size_px": size_px,
            "fps": spec.limits.fps.default,
            "guidance": spec.limits.guidance.default,
            "steps": spec.limits.steps.default,
            "sampler": name_of(spec.sampler),
        },
        "dates": {},
        "seconds": {},
    }
    for name, study in studies_of(bundle, reader, counts, samplers).items():
        if only and name not in only:
            continue
        clock = time.perf_counter()
        result[name] = study()
        result["dates"][name] = datetime.now(UTC).date().isoformat()
        result["seconds"][name] = round(time.perf_counter() - clock, 1)
    return plain(result)


def merged(old: Table, new: Table) -> Table:
    """New parts over old ones of the same weights and settings; old ones of others are dropped."""
    if any(old.get(key) != new[key] for key in ("model", "weights", "settings")):
        return new
    return old | new | {key: old[key] | new[key] for key in ("dates", "seconds")}


def measure_into(file: Path, bundle: ModelBundle, reader: Reader, counts: Counts, names: Sequence[str] = ()) -> Table:
    """The named parts (all without names) into a study.json, one by one, so that a run may be stopped; answers what
    the file holds in the end."""
    result: Table = {}
    for name in names or studies_of(bundle, reader, counts):
        result = run_study(bundle, reader, counts, only=[name])
        print(name, json.dumps(result[name]), flush=True)
        if file.exists():
            result = merged(json.loads(file.read_text()), result)
        file.write_text(json.dumps(result, indent=1) + "\n")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m opensora_demo.training.study", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("model")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual number of clips")
    parser.add_argument("--only", default="", help="comma-separated parts, as they are called in study.json")
    parser.add_argument("--out", type=Path, help="folder for study.json; the model's own without it")
    args = parser.parse_args()
    spec = find_model(args.model)
    if args.out is not None:
        file = args.out / "study.json"
    elif not isinstance(spec.weights, WeightFiles):
        parser.error(f"{spec.id} has no folder; name one with --out")
    else:
        file = ASSETS / spec.weights.folder / "study.json"
    fit_threads()
    file.parent.mkdir(parents=True, exist_ok=True)
    bundle, reader, counts = build_bundle(spec), load_reader(), Counts().times(args.share)
    known = studies_of(bundle, reader, counts)
    names = [name.strip() for name in args.only.split(",") if name.strip()] or list(known)
    if wrong := [name for name in names if name not in known]:
        parser.error(f"{spec.id} has no {', '.join(wrong)}; there are {', '.join(known)}")
    measure_into(file, bundle, reader, counts, names)


if __name__ == "__main__":
    main()
