"""Decoding a long clip: in parts that are let go of one by one, told while the rest is decoded, the same to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opensora_demo.catalog import MODELS
from opensora_demo.catalog.debug import MMDIT, MMDIT_DCAE, STDIT, STDIT3, STDIT3_V13
from opensora_demo.catalog.nano import CODEC, NANO_MMDIT
from opensora_demo.catalog.published import V20_DCAE
from opensora_demo.cluster.packing import name_of, pack, unpack
from opensora_demo.codecs.base import Codec, CodecConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig
from opensora_demo.codecs.tiling import Tiling
from opensora_demo.frames import to_frames
from opensora_demo.pipeline import generate, run
from opensora_demo.request.events import DecodedFrames, Decoding, Event, Finished, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.runtime.cost.counter import Counter
from tests.models import sampled

CPU = torch.device("cpu")
HUNYUAN = replace(
    MMDIT.codec,
    tiling=Tiling(spatial=True, tile_px=32, tile_latent=4, tile_frames=16, tile_latent_frames=4),
    whole_frames=17,
)
DC_AE = replace(
    MMDIT_DCAE.codec,
    tiling=Tiling(spatial=True, temporal=True, tile_px=16, tile_latent=4, tile_frames=16, tile_latent_frames=4),
)
# Each codec, and the longest clip that it decodes in one part.
CODECS: dict[str, tuple[CodecConfig, int]] = {
    "1.0, 1.1": (STDIT.codec, 4),
    "1.2": (STDIT3.codec, 17),
    "nano": (CODEC, 17),
    "1.3": (STDIT3_V13.codec, 17),
    "2.0": (HUNYUAN, 17),
    "DC-AE": (DC_AE, 16),
}


def built(config: CodecConfig) -> Codec:
    torch.manual_seed(0)
    return config.build().eval()


def latents_of(codec: Codec, frames: int, height_px: int = 32, width_px: int = 32) -> Tensor:
    size = codec.latent_size(frames, height_px, width_px)
    return torch.randn((1, codec.latent_channels, *size), generator=torch.Generator().manual_seed(1))


def peak_bytes(codec: Codec, frames: int) -> int:
    """The most bytes that the tensors of a decode hold at once, their pictures let go of as the pipeline does."""
    latents = latents_of(codec, frames)
    made = 0
    with Counter() as counter:
        for part in codec.decode_chunks(latents, frames):
            made += len(to_frames(part[0]))
            del part
    assert made == frames
    return counter.peak_bytes


@pytest.mark.parametrize("name", sampled(CODECS, "1.0, 1.1", "nano", "2.0"))
@torch.inference_mode()
@pytest.mark.slow
def test_a_clip_eight_times_as_long_takes_no_more_memory(name: str) -> None:
    config, frames = CODECS[name]
    codec = built(config)
    long = 8 * (frames - 1) + 1 if name in ("1.3", "2.0") else 8 * frames
    assert peak_bytes(codec, long) <= 1.1 * peak_bytes(codec, frames)


def test_nor_does_the_pipeline() -> None:
    """From the last step to the end of the run. What is kept, three bytes a pixel, is the clip itself, and no tensor.
    (The codec has no attention: a counter leaves its results without numbers.)"""
    image = replace(STDIT3.codec.image, mid_attention=False)
    bundle = build_bundle(replace(STDIT3, codec=replace(STDIT3.codec, image=image)), CPU)
    peaks = []
    for frames in (17, 136):
        request = ask("debug-1.2", steps=1)
        request = replace(request, shape=replace(request.shape, frames=frames))
        events = generate(bundle, request)
        assert any(isinstance(event, StepPreview) for event in events)
        with Counter() as counter:
            *_, last = events
        assert isinstance(last, Finished)
        assert len(last.clips[0].frames) == frames
        peaks.append(counter.peak_bytes)
    assert peaks[1] <= 1.1 * peaks[0]


@torch.inference_mode()
def test_a_clip_that_open_sora_2_makes_is_decoded_whole_and_a_longer_one_in_tiles() -> None:
    published = HunyuanConfig()
    plenty = 10**15
    assert not published.too_large((33, 16, 16), 2, plenty)  # 129 frames
    assert published.too_large((34, 16, 16), 2, plenty)
    whole, tiled = (built(replace(HUNYUAN, tiling=replace(HUNYUAN.tiling, temporal=on))) for on in (False, True))
    short, long = latents_of(whole, 17), latents_of(whole, 33)
    assert len(list(whole.decode_chunks(short, 17))) == 1
    assert torch.equal(whole.decode(long, 33), tiled.decode(long, 33))


@pytest.mark.parametrize("spec", [NANO_MMDIT, MMDIT_DCAE, V20_DCAE], ids=lambda spec: spec.id)
def test_every_dc_ae_tiles_clips_longer_than_its_own(spec: Any) -> None:
    tiling = spec.codec.tiling
    assert tiling.temporal
    assert tiling.tile_frames >= (32 if spec is V20_DCAE else spec.limits.frames[-1])


@pytest.mark.parametrize("name", ["1.0, 1.1", "1.2", "nano", "1.3"])
@torch.inference_mode()
def test_parts_are_what_one_decode_of_them_all_gives(name: str) -> None:
    """Where time is no axis of the arithmetic, or the model's own chunks end: by hand, chunk after chunk."""
    config, frames = CODECS[name]
    codec = built(config)
    if name == "1.3":
        codec = built(replace(STDIT3_V13.codec, overlap=False))
    long = 4 * frames
    latents = latents_of(codec, long)
    together = codec.decode(latents, long)
    each = latents.split(codec.latent_size(frames, 32, 32)[0], dim=2)
    assert len(each) == 4
    assert torch.equal(torch.cat([codec.decode(part, frames) for part in each], dim=2), together)


# --- told while the rest is decoded --------------------------------------------------------------------------------


def ask(model: str, given: dict[str, Any] | None = None, **raw: Any) -> GenerationRequest:
    raw = {"prompt": "a red ball", "steps": 2, "seed": 3} | raw
    return parse_request(raw, model_id=model, limits=MODELS[model].limits, **given or {})


@pytest.fixture(scope="module")
def v12() -> ModelBundle:
    return build_bundle(MODELS["debug-1.2"], CPU)


def parts_of(events: list[Event]) -> list[DecodedFrames]:
    return [event for event in events if isinstance(event, DecodedFrames)]


def assert_told(events: list[Event], column: int = 0) -> Frames:
    """Parts in order from the first frame on, before the clip, whose beginning they are; that clip."""
    parts = [event for event in parts_of(events) if event.column == column]
    clip = next(event.clip for event in events if isinstance(event, Decoding) and event.column == column)
    ends = [0, *(part.end for part in parts)]
    assert [part.first for part in parts] == ends[:-1]
    assert {part.total for part in parts} <= {len(clip.frames)}
    assert ends[-1] < len(clip.frames)
    for part in parts:
        assert part.frames.dtype == np.uint8
        assert np.array_equal(part.frames, clip.frames[part.first : part.end])
    kinds = [(type(event), getattr(event, "column", None)) for event in events]
    if parts:
        assert max(i for i, kind in enumerate(kinds) if kind == (DecodedFrames, column)) < kinds.index(
            (Decoding, column)
        )
    return clip.frames


def test_the_first_frames_are_told_before_the_last_are_decoded(
    v12: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    decode_chunks = v12.codec.decode_chunks

    def watched(latents: Tensor, frames: int) -> Iterator[Tensor]:
        for part in decode_chunks(latents, frames):
            decoded.append("decoded")
            yield part

    monkeypatch.setattr(v12.codec, "decode_chunks", watched)
    seen: list[tuple[type, int]] = []
    with closing(generate(v12, ask("debug-1.2", frames=34))) as events:  # type: ignore[type-var]
        for event in events:
            seen.append((type(event), len(decoded)))
    assert [pair for pair in seen if pair[0] is DecodedFrames] == [(DecodedFrames, 1)]
    assert seen[-2:] == [(Decoding, 2), (Finished, 2)]


@pytest.mark.parametrize(
    ("raw", "firsts"),
    [
        ({"frames": 17}, []),
        ({"frames": 34}, [0]),
        ({"frames": 34, "scenes": 2, "video_frames": 17}, [0, 17]),
        ({"frames": 34, "guidance": [1, 4]}, [0, 0]),
    ],
    ids=["one part", "two parts", "scenes", "comparison"],
)
def test_parts_of_a_clip(v12: ModelBundle, raw: dict[str, Any], firsts: list[int]) -> None:
    request = ask("debug-1.2", **raw)
    events = list(generate(v12, request))
    assert [part.first for part in parts_of(events)] == firsts
    for column in range(len(request.columns)):
        assert len(assert_told(events, column)) == request.total_frames


def test_a_clip_that_goes_on_from_a_video_begins_with_it(v12: ModelBundle) -> None:
    height, width = MODELS["debug-1.2"].limits.size_px
    video = np.stack([np.full((height, width, 3), 5 * k, np.uint8) for k in range(40)])
    request = ask("debug-1.2", given={"video": video}, frames=34, video_use="extend")
    events = list(generate(v12, request))
    frames = assert_told(events)
    assert np.array_equal(frames[:40], video)
    assert len(frames) == request.total_frames == 57
    assert [part.first for part in parts_of(events)] == [0]


def test_frames_are_in_memory_once(v12: ModelBundle) -> None:
    events = list(generate(v12, ask("debug-1.2", frames=34)))
    last = events[-1]
    assert isinstance(last, Finished)
    (part,) = parts_of(events)
    assert np.shares_memory(part.frames, last.clips[0].frames)


def test_a_given_frame_that_stands_for_a_group_is_counted_once() -> None:
    spec = MODELS["debug-2.0-dcae"]
    tiling = Tiling(temporal=True, tile_frames=8, tile_latent_frames=2)
    codec = replace(spec.codec, tiling=tiling)  # type: ignore[type-var]
    bundle = build_bundle(replace(spec, codec=codec), CPU)
    height, width = spec.limits.size_px
    frame = np.zeros((1, height, width, 3), np.uint8)
    events = list(generate(bundle, ask("debug-2.0-dcae", given={"reference": frame}, frames=16)))
    assert len(assert_told(events)) == 13  # three copies of the first are left out
    part = parts_of(events)[0]
    assert (part.first, part.end, part.total) == (0, 3, 13)


def test_parts_travel_as_they_are_and_are_told_once(v12: ModelBundle) -> None:
    (part,) = parts_of(list(generate(v12, ask("debug-1.2", frames=34))))
    data = pack(part)
    assert len(data) < part.frames.nbytes + 1000  # not the clip that they are a part of
    again = unpack(data)
    assert np.array_equal(again.frames, part.frames)
    assert name_of(again) == name_of(part) != name_of(replace(part, first=17)) != name_of(replace(part, column=1))


def test_a_run_stops_between_two_parts(v12: ModelBundle) -> None:
    with closing(generate(v12, ask("debug-1.2", frames=34))) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, DecodedFrames):
                break
    assert not torch.is_inference_mode_enabled()
    assert len(run(v12, ask("debug-1.2", frames=17)).clips[0].frames) == 17
