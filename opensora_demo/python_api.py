"""The front door from Python: plain functions over `pipeline.generate`. `opensora_demo/__init__.py` exports them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from opensora_demo.catalog import DEFAULT_MODEL, find_model
from opensora_demo.errors import RequestError
from opensora_demo.media import MIN_FILE_PX, write_mp4
from opensora_demo.messages import message
from opensora_demo.pipeline import generate as run
from opensora_demo.request.events import Clip, Event, Finished
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.service.forms import read_request
from opensora_demo.service.options import read_weight_options
from opensora_demo.weights.options import WeightOptions

Watch = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A finished clip. `frames` is uint8 (t, h, w, 3); `settings` are those that make it again."""

    frames: Frames
    fps: int
    settings: dict[str, Any]

    def save(self, file: str | Path, *, min_px: int = MIN_FILE_PX) -> None:
        """Write an mp4 (H.264, yuv420p) with the settings in its comment, enlarged by a whole number to at least
        `min_px` a side; 1 keeps the model's own size."""
        write_mp4(Path(file), self.frames, self.fps, self.settings, min_px=min_px)


def load(
    model_id: str = DEFAULT_MODEL,
    *,
    device: str | torch.device | None = None,
    options: WeightOptions | None = None,
) -> ModelBundle:
    """A model of `MODELS`, ready to run; by default on a GPU where there is one.

    `options` say where weights are and how they are held; without them the environment does (OPENSORA_*), as for the
    command line. Raises RequestError for an unknown name or a bad variable, and WeightsError where files are missing
    or not the model's.
    """
    if options is None:
        options = read_weight_options(argparse.Namespace(), os.environ)
    return build_bundle(find_model(model_id), None if device is None else torch.device(device), options)


def generate(model: ModelBundle, prompt: str, *, on_event: Watch | None = None, **settings: Any) -> Video:
    """One clip. `settings` are those of the command line and the API (`request.settings`): seed, guidance, steps, fps,
    frames, negative, ...; reference and last_frame are picture files, where the model takes them.

    `on_event` is given every event of the run (`request.events`) as it happens; what it raises ends the run. Raises
    RequestError for a wrong setting.
    """
    request = _request(model, settings | {"prompt": prompt})
    if len(request.columns) > 1:
        raise RequestError("guidance", message("request.one_clip", clips=len(request.columns)))
    (clip,) = _clips(model, request, on_event)
    return _video(clip)


def compare(
    model: ModelBundle,
    prompt: str,
    *,
    guidance: Sequence[float] = (1, 2, 4, 7),
    on_event: Watch | None = None,
    **settings: Any,
) -> tuple[Video, ...]:
    """A clip for each guidance scale (and each rule, where `rule` names several), all from one noise; the scales of the
    first rule come first. Otherwise as `generate`."""
    request = _request(model, settings | {"prompt": prompt, "guidance": list(guidance)})
    return tuple(_video(clip) for clip in _clips(model, request, on_event))


def _request(model: ModelBundle, settings: Mapping[str, Any]) -> GenerationRequest:
    _, request = read_request({**settings, "model": model.spec.id})
    return replace(request, loras=model.loras)


def _clips(model: ModelBundle, request: GenerationRequest, on_event: Watch | None) -> tuple[Clip, ...]:
    with closing(run(model, request)) as events:  # type: ignore[type-var]  # a generator, typed as what it yields
        for event in events:
            if on_event is not None:
                on_event(event)
            if isinstance(event, Finished):
                return event.clips
    raise RuntimeError("the pipeline ended without a result")


def _video(clip: Clip) -> Video:
    return Video(frames=clip.frames, fps=clip.request.fps, settings=clip.request.settings())
