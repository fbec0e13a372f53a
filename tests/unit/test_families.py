"""Every family behind the pipeline, by its debug entry; and the sizes that the published entries promise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from threading import Event as Flag
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opensora_demo.catalog import MODELS, ModelSpec, RandomWeights, debug
from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.dc_ae import DcAeConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.vae_v13 import VaeV13Config
from opensora_demo.codecs.video_vae import VideoVaeConfig
from opensora_demo.errors import Cancelled, RequestError
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.families.build import adapter_for
from opensora_demo.families.mmdit import MMDiTFamily
from opensora_demo.families.stdit import STDiTFamily
from opensora_demo.frames import to_video
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.nn.attention import TextKeys
from opensora_demo.pipeline import generate, noise_of, run
from opensora_demo.request.events import DecodedFrames, Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames, VideoShape
from opensora_demo.runtime.bundle import ModelBundle, build_bundle, build_codec, build_network
from opensora_demo.runtime.cost.counter import bytes_of
from opensora_demo.runtime.cost.work import WorkCounter
from opensora_demo.sampling.guidance import ClassifierFree, TextImage, image_rules
from opensora_demo.text.t5 import T5Config, T5TextEncoder
from opensora_demo.weights.store import ASSETS
from tests.models import by_kind, sampled

DEBUG = [spec for spec in MODELS.values() if isinstance(spec.weights, RandomWeights)]
PUBLISHED = [spec for spec in MODELS.values() if not spec.hidden]
GIVEN = [spec for spec in DEBUG if spec.limits.reference]
STEPS = 3


@cache
def built(name: str) -> ModelBundle:
    return build_bundle(MODELS[name], torch.device("cpu"))


@pytest.fixture(params=by_kind(spec.id for spec in DEBUG))
def bundle(request: pytest.FixtureRequest) -> ModelBundle:
    return built(request.param)


@pytest.fixture(params=by_kind(spec.id for spec in GIVEN))
def given_bundle(request: pytest.FixtureRequest) -> ModelBundle:
    return built(request.param)


def picture(spec: ModelSpec, seed: int) -> Frames:
    height, width = spec.limits.size_px
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


def ask(spec: ModelSpec, *, frames: int | None = None, first: bool = False, last: bool = False, **raw: Any) -> Any:
    shortest = next((n for n in spec.limits.frames if n > 1), spec.limits.frames[0])
    raw = {"prompt": "a red ball on a meadow", "steps": STEPS, "seed": 3, "frames": frames or shortest, **raw}
    return parse_request(
        raw,
        model_id=spec.id,
        limits=spec.limits,
        reference=picture(spec, 1) if first else None,
        last_frame=picture(spec, 2) if last else None,
    )


class Recorder:
    """A bundle's codec that keeps the latents it is given and decodes them to black: most of a tiny run is decoding."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.latent_channels = codec.latent_channels
        self.copies = codec.copies
        self.latent_size = codec.latent_size
        self.frame_spans = codec.frame_spans
        self.encode = codec.encode
        self.parameters = codec.parameters  # type: ignore[attr-defined]
        self.given: list[Tensor] = []

    def decode_chunks(self, latents: Tensor, frames: int) -> Iterator[Tensor]:
        self.given.append(latents)
        yield latents.new_zeros(1, 3, frames, 32, 48)  # as large as a given video


def latents_of(bundle: ModelBundle, request: GenerationRequest) -> Tensor:
    """The latents (rows, c, t, h, w) that the pipeline hands to the codec."""
    recorder = Recorder(bundle.codec)
    run(replace(bundle, codec=recorder), request)  # type: ignore[arg-type]
    return torch.cat(recorder.given)


def alone(request: GenerationRequest) -> list[GenerationRequest]:
    """The single runs of a comparison."""
    return [request.column(i) for i in range(len(request.columns))]


def assert_same(ours: Tensor, expected: Tensor) -> None:
    """Up to the rounding of batched products, which many steps of a random network enlarge."""
    assert ours.shape == expected.shape
    assert torch.isfinite(expected).all()
    assert float((ours - expected).abs().max()) <= 1e-3 * float(expected.abs().max())


def assert_comparison(bundle: ModelBundle, request: GenerationRequest) -> Tensor:
    together = latents_of(bundle, request)
    for row, single in zip(together, alone(request), strict=True):
        assert_same(row[None], latents_of(bundle, single))
    return together


# --- every family -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_linear_layers_multiply_rows_in_one_product(bundle: ModelBundle, guidance: float) -> None:
    """Of sequences whose rows do not lie at even distances a linear layer makes a product each, with a copy of its
    weights: 25 times slower in bfloat16."""
    scattered: set[str] = set()
    names = {part: name for name, part in bundle.family.network.named_modules()}

    def look(part: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(part, torch.nn.Linear) and part in names and given[0].ndim > 2:
            try:
                given[0].view(-1, given[0].shape[-1])
            except RuntimeError:
                scattered.add(names[part])

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        latents_of(bundle, ask(bundle.spec, guidance=guidance, steps=2))
    finally:
        hook.remove()
    assert scattered == set()


def test_events_come_in_order_and_shapes_fit(bundle: ModelBundle) -> None:
    request = ask(bundle.spec)
    events = list(generate(bundle, request))
    told = [type(e) for e in events if not isinstance(e, DecodedFrames)]  # of clips in several parts
    assert told == [Started, Encoded, *[StepPreview] * STEPS, Decoding, Finished]
    steps = [e for e in events if isinstance(e, StepPreview)]
    assert [s.index for s in steps] == [*range(STEPS)]
    assert [s.t for s in steps] == sorted((s.t for s in steps), reverse=True)
    shape = request.shape
    latent = bundle.codec.latent_size(shape.frames, shape.height_px, shape.width_px)
    assert all(s.previews[0].shape == (*latent, 3) and s.previews[0].dtype == np.uint8 for s in steps)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.clips[0].frames.shape == (shape.frames, shape.height_px, shape.width_px, 3)


def test_same_seed_same_clip_and_another_seed_another(bundle: ModelBundle) -> None:
    a, b, c = (latents_of(bundle, ask(bundle.spec, seed=s)) for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


@pytest.mark.parametrize("bundle", sampled((spec.id for spec in DEBUG), "debug-1.2", "debug-2.0"), indirect=True)
@pytest.mark.slow
def test_a_comparison_gives_the_clips_of_single_runs(bundle: ModelBundle) -> None:
    """Also where the sampler draws noise at every step: the draws are the run's, not a row's."""
    for rule in bundle.spec.limits.rules:
        steps = 12 if rule == "oscillating" else STEPS  # it begins after ten
        rows = assert_comparison(bundle, ask(bundle.spec, guidance=[0, 1, 4], rule=rule, steps=steps))
        assert not torch.allclose(rows[1], rows[2])


@pytest.mark.parametrize("bundle", sampled((spec.id for spec in DEBUG), "debug-1.2", "debug-2.0"), indirect=True)
def test_columns_of_several_rules_are_the_clips_of_single_runs(bundle: ModelBundle) -> None:
    bent = [rule for rule in bundle.spec.limits.rules if rule not in ("plain", "oscillating")]
    for rules in (["plain", "oscillating", *bent[:3]], ["plain", *bent[3:]]):
        steps = 12 if "oscillating" in rules else STEPS
        rows = assert_comparison(bundle, ask(bundle.spec, guidance=4, rule=rules, steps=steps))
        assert len(rows) == len(rules)
        assert all(not torch.allclose(rows[0], other) for other in rows[1:])


# --- rules that ask other networks --------------------------------------------------------------------------------


def test_skip_layer_guidance_leaves_out_the_middle_and_nothing_else(bundle: ModelBundle) -> None:
    adapter = bundle.family.adapter
    middle = adapter.middle()
    assert {*middle} < {block for layer in adapter.layers() for block in layer} or len(adapter.layers()) == 1
    ran: list[Any] = []
    for block in middle:
        block.register_forward_hook(lambda module, args, out: ran.append((module, args[0], out)))
    steps = int(bundle.spec.limits.steps.low)
    request = ask(bundle.spec, guidance=4, rule="skip-layer", steps=steps, frames=bundle.spec.limits.frames[0])
    run(replace(bundle, codec=Recorder(bundle.codec)), request)  # type: ignore[arg-type]
    for block in middle:
        passed = [out is given or out[0] is given for module, given, out in ran if module is block]
        assert passed.count(True) == steps, "once in the branch that leaves it out"
        assert passed.count(False) >= steps
        assert "forward" not in block.__dict__
        block._forward_hooks.clear()


def weaker(monkeypatch: pytest.MonkeyPatch, model: str) -> ModelBundle:
    """A debug model with another of random weights to be led away from."""
    spec = MODELS[model]
    other = replace(spec, id="weaker", weights=RandomWeights(seed=5))
    monkeypatch.setitem(MODELS, "weaker", other)
    limits = replace(spec.limits, rules=(*spec.limits.rules, "autoguidance"))
    return build_bundle(replace(spec, weaker="weaker", limits=limits), torch.device("cpu"))


@pytest.mark.parametrize("model", ["debug-1.0-dit", "debug-1.1", "debug-1.2", "debug-2.0"])
def test_autoguidance_mixes_the_predictions_of_two_models(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = weaker(monkeypatch, model)
    spec = bundle.spec
    assert bundle.family.weaker is not None
    alone, other = build_bundle(MODELS[model], torch.device("cpu")), build_bundle(MODELS["weaker"], torch.device("cpu"))
    first = {"steps": int(spec.limits.steps.low), "guidance": [1, 2.5, 0], "frames": spec.limits.frames[0]}

    def guided(of: ModelBundle, **raw: Any) -> Tensor:
        """What the run goes by at its first step, (rows, c, t, h, w)."""
        request = ask(of.spec, **{**first, **raw})
        draw = noise_of(of, request)
        noise = draw()
        size = (noise.shape[2], noise.shape[3], noise.shape[4])
        with torch.inference_mode(), closing(of.family.steps(  # type: ignore[type-var]
            noise.expand(len(request.columns), -1, -1, -1, -1),
            of.family.condition(request, ConditioningFrames(), size), request, draw,
        )) as steps:  # fmt: skip
            return next(steps).prediction.guided[:, :3]  # of a diffusion only these are guided

    mixed, own = guided(bundle, rule="autoguidance"), guided(alone, guidance=1, rule="plain")
    worse = guided(other, guidance=1, rule="plain")
    for row, scale in enumerate((1, 2.5, 0)):
        assert_same(mixed[row : row + 1], worse + scale * (own - worse))
    assert_comparison(bundle, ask(spec, guidance=[1, 4], rule=["plain", "autoguidance"]))
    with pytest.raises(RequestError, match="autoguidance leaves the null prompt out"):
        ask(spec, rule="autoguidance", negative="blue")


def test_entries_with_a_weaker_model_and_autoguidance_are_the_same() -> None:
    for spec in MODELS.values():
        assert bool(spec.weaker) == ("autoguidance" in spec.limits.rules), spec.id
        if spec.weaker:
            other = MODELS[spec.weaker]
            assert other.network.in_channels == spec.network.in_channels  # type: ignore[attr-defined]
            assert other.codec.build().latent_channels == spec.codec.build().latent_channels
            assert (other.weaker, other.published, spec.published) == ("", None, None)


def test_a_weaker_model_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = weaker(monkeypatch, "debug-1.2").spec
    counter = WorkCounter()
    request = ask(spec, guidance=[1, 4], rule="autoguidance")
    assert counter.calls(spec, request) == (1, *[2] * (STEPS - 1))
    assert counter.weaker_calls(spec, request) == (1, *[1] * (STEPS - 1))
    plain = ask(spec, guidance=[1, 4], rule="plain")
    assert sum(counter.calls(spec, plain)) == sum(counter.calls(spec, request) + counter.weaker_calls(spec, request))
    work = {name: counter.of(spec, asked, torch.device("cpu"), 16, 10**9)["denoise"] for name, asked in
            (("plain", plain), ("auto", request))}  # fmt: skip
    assert work["plain"].flops == pytest.approx(work["auto"].flops)
    assert work["plain"].weights_bytes == 2 * bytes_of(spec.network.build())


@pytest.mark.parametrize("name", ["debug-1.2", "debug-1.3", "debug-2.0"])
def test_rules_that_bend_the_sum_are_for_text_alone(name: str) -> None:
    with pytest.raises(RequestError, match="apg is for text alone"):
        ask(MODELS[name], rule=["plain", "apg"], first=True)
    rules = ["interval", "plain", "skip-layer", "fdg"]
    rows = assert_comparison(built(name), ask(MODELS[name], guidance=4, rule=rules, first=True))
    assert all(not torch.allclose(rows[1], rows[other]) for other in (2, 3))


def test_a_negative_prompt_counts_where_the_scale_is_not_one(bundle: ModelBundle) -> None:
    """A negative prompt of another length than the prompt's."""
    plain = latents_of(bundle, ask(bundle.spec, guidance=[1, 4]))
    rows = assert_comparison(bundle, ask(bundle.spec, guidance=[1, 4], negative="a blue square"))
    assert_same(rows[:1], plain[:1])
    assert not torch.allclose(rows[1], plain[1])


def test_small_batches_do_not_change_the_clip(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask(bundle.spec, guidance=[1, 4])
    whole = latents_of(bundle, request)
    monkeypatch.setattr(bundle.family, "max_batch", 1)
    assert_same(latents_of(bundle, request), whole)


@pytest.mark.parametrize("count", [1, 2, 3, 2 + STEPS])
def test_closing_after_n_events_ends_the_run(bundle: ModelBundle, count: int) -> None:
    seen = 0
    with closing(generate(bundle, ask(bundle.spec))) as events:
        for _ in events:
            seen += 1
            if seen == count:
                break
    assert seen == count
    assert not torch.is_inference_mode_enabled()


def test_a_set_flag_stops_at_the_next_step(bundle: ModelBundle) -> None:
    flag, steps = Flag(), 0
    with pytest.raises(Cancelled):  # noqa: PT012 - the loop is the point
        for event in generate(bundle, ask(bundle.spec, steps=20), flag):
            if isinstance(event, StepPreview):
                steps += 1
                if steps == 2:
                    flag.set()
    assert steps == 2


def test_the_text_is_projected_once_a_run(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of a prompt serve every step (cross-attention only)."""
    if not isinstance(bundle.family, STDiTFamily):
        pytest.skip("this family has no text keys")
    projected: list[TextKeys] = []
    original = bundle.family.network.project_text

    def counted(*args: Any, **kwargs: Any) -> TextKeys:
        projected.append(original(*args, **kwargs))
        return projected[-1]

    monkeypatch.setattr(bundle.family.network, "project_text", counted)
    latents_of(bundle, ask(bundle.spec, guidance=[1, 4]))
    assert len(projected) == 1


# --- given frames -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_comparison_with_given_frames_gives_the_clips_of_single_runs(given_bundle: ModelBundle) -> None:
    spec = given_bundle.spec
    ends: tuple[dict[str, bool], ...] = ({"first": True}, {"last": True}, {"first": True, "last": True})
    for given in ends if spec.limits.last_frame else ends[:1]:
        rows = assert_comparison(given_bundle, ask(spec, frames=spec.limits.frames[-1], guidance=[1, 4], **given))
        assert not torch.allclose(rows[0], rows[1]), given


@pytest.mark.parametrize("name", ["debug-1.2", "debug-2.0", "debug-2.0-dcae"])
def test_given_frames_are_kept_exactly(name: str) -> None:
    """1.2 with edit 0 and 2.0. (1.1 sends a kept frame through the network at the last step, 1.3 is only told.)"""
    bundle = built(name)
    with torch.inference_mode():
        first, last = (bundle.codec.encode(to_video(picture(bundle.spec, seed)[None]))[0, :, 0] for seed in (1, 2))
    head = latents_of(bundle, ask(bundle.spec, first=True, guidance=[1, 4]))
    tail = latents_of(bundle, ask(bundle.spec, last=True, guidance=[1, 4]))
    loop = latents_of(bundle, ask(bundle.spec, first=True, last=True, guidance=[1, 4]))
    for row in range(2):
        assert torch.equal(head[row, :, 0], first)
        assert not torch.equal(head[row, :, -1], last)
        assert torch.equal(tail[row, :, -1], last)
        assert not torch.equal(tail[row, :, 0], first)
        assert torch.equal(loop[row, :, 0], first)
        assert torch.equal(loop[row, :, -1], last)


def test_the_copies_of_a_given_frame_are_cut_off() -> None:
    """A lone frame fills a group of four where the codec is not causal; one of them is shown, as in 2.0."""
    causal, grouped = built("debug-2.0"), built("debug-2.0-dcae")
    assert run(causal, ask(causal.spec, frames=17, first=True)).clips[0].frames.shape[0] == 17
    for ends, frames in (({}, 16), ({"first": True}, 13), ({"first": True, "last": True}, 10)):
        made = run(grouped, ask(grouped.spec, frames=16, **ends)).clips[0].frames
        assert made.shape[0] == frames
    assert run(grouped, ask(grouped.spec, frames=1, first=True)).clips[0].frames.shape[0] == 1


@pytest.mark.parametrize("name", ["debug-1.1", "debug-1.2"])
def test_an_edit_lets_given_frames_change(name: str) -> None:
    bundle = built(name)
    kept, edited = (latents_of(bundle, ask(bundle.spec, first=True, steps=6, edit=edit)) for edit in (0, 0.5))
    assert not torch.allclose(kept[:, :, 0], edited[:, :, 0])


def test_a_picture_from_a_given_frame_is_that_frame(given_bundle: ModelBundle) -> None:
    """A one-frame clip whose only frame is given: upstream puts it back after denoising (2.0 api_fn), a frame mask of 0
    keeps it (1.2). 1.1 changes it at the last step, 1.3 is only told: there the run must merely not fail."""
    spec = given_bundle.spec
    if 1 not in spec.limits.frames:
        pytest.skip("this model makes no pictures")
    request = ask(spec, frames=1, first=True)
    made = latents_of(given_bundle, request)
    assert made.shape[2] == 1
    if spec.id in ("debug-1.2", "debug-2.0", "debug-2.0-dcae"):
        with torch.inference_mode():
            expected = given_bundle.codec.encode(to_video(picture(spec, 1)[None]))
        assert torch.equal(made, expected)


def moving(spec: ModelSpec, count: int) -> Frames:
    """A video of so many frames, each of its own."""
    height, width = spec.limits.size_px
    return np.random.default_rng(5).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def with_video(spec: ModelSpec, count: int, use: str, **raw: Any) -> GenerationRequest:
    longest = spec.limits.frames[-1]
    raw = {"prompt": "a ball", "steps": STEPS, "seed": 3, "frames": longest, "video_use": use, **raw}
    return parse_request(raw, model_id=spec.id, limits=spec.limits, video=moving(spec, count))


VIDEO_MODELS = ["debug-1.1", "debug-1.2", "debug-2.0", "debug-2.0-dcae"]


@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_the_part_of_a_video_that_is_kept(name: str) -> None:
    """Its first frames, its last, or its end as the beginning; all frames at once, as one batch of rows."""
    bundle = built(name)
    longest, count = bundle.spec.limits.frames[-1], bundle.spec.limits.video_frames[0]
    video = moving(bundle.spec, longest)
    for use, part in (("head", video[:count]), ("extend", video[-count:])):
        made = latents_of(bundle, with_video(bundle.spec, longest, use, guidance=[1, 4]))
        with torch.inference_mode():
            given = bundle.codec.encode(to_video(part[None]))[0]
        n = given.shape[1]
        assert made.shape[2] > n
        for row in made:
            if name == "debug-1.1":  # sends a kept frame through the network at the last step
                assert not torch.equal(row[:, n:], row[:, :1].expand_as(row[:, n:]))
            else:
                torch.testing.assert_close(row[:, :n], given)
        assert not torch.allclose(made[0, :, n:], made[1, :, n:])
    if name != "debug-1.1":
        grouped = name == "debug-2.0-dcae"  # its latents stand for as many frames alone as at the end of a clip
        with torch.inference_mode():
            whole = bundle.codec.encode(to_video((video[-count:] if grouped else video)[None]))[0]
        made = latents_of(bundle, with_video(bundle.spec, longest, "tail"))[0]
        spans = len(bundle.codec.frame_spans(count, *bundle.spec.limits.size_px))
        torch.testing.assert_close(made[:, -spans:], whole[:, -spans:])
        assert not torch.equal(made[:, 0], whole[:, 0])


@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_a_clip_that_extends_a_video_is_the_video_and_the_new_frames(name: str) -> None:
    bundle = built(name)
    longest, count = bundle.spec.limits.frames[-1], bundle.spec.limits.video_frames[0]
    request = with_video(bundle.spec, 2 * longest, "extend")
    clip = run(bundle, request).clips[0]
    assert request.video is not None
    assert len(clip.frames) == request.total_frames == 3 * longest - count
    assert np.array_equal(clip.frames[: 2 * longest], request.video)
    assert len(clip.own_frames) == longest
    assert request.settings()["total_frames"] == len(clip.frames)
    for use in ("head", "tail"):
        request = with_video(bundle.spec, longest, use)
        assert len(run(bundle, request).clips[0].frames) == longest
        assert "total_frames" not in request.settings()


# --- guidance of 2.0 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["debug-2.0", "debug-2.0-dcae"])
@pytest.mark.parametrize("image_guidance", [1.0, 3.0])
def test_three_branches_without_given_frames_are_two(name: str, image_guidance: float) -> None:
    """Upstream evaluates three branches also for text to video, where the last two are the same network call."""
    spec = MODELS[name]
    bundle = built(name)
    family = bundle.family
    assert isinstance(family, MMDiTFamily)
    request = ask(spec, guidance=[2, 7.5], rule="oscillating", image_guidance=image_guidance, steps=12)
    draw = noise_of(bundle, request)
    noise = draw()
    size = (noise.shape[2], noise.shape[3], noise.shape[4])
    with torch.inference_mode():
        condition = family.condition(request, ConditioningFrames(), size)
        merged = condition.guidance
        assert isinstance(merged, ClassifierFree)
        assert merged.weights(0).shape == (2, 2)
        three_branches = TextImage(
            scales=merged.scales,
            rules=merged.rules,
            image_rules=image_rules(merged.rules),
            image_scale=image_guidance,
            points=request.steps + 1,
        )
        whole = replace(condition, guidance=three_branches)
        assert whole.guidance.weights(0).shape == (2, 3)
        x = noise.expand(2, -1, -1, -1, -1)
        times = condition.times
        *_, two = family.denoise(x, condition, times)
        *_, three = family.denoise(x, whole, times)
    assert torch.allclose(two.x, three.x, rtol=1e-4, atol=1e-4 * float(three.x.abs().max()))


# --- published entries --------------------------------------------------------------------------------------------


def sizes_of(spec: ModelSpec) -> list[tuple[int, int]]:
    return [(size.height_px, size.width_px) for size in spec.limits.sizes]


def on_meta(build: Any) -> Any:
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize("spec", PUBLISHED, ids=lambda spec: spec.id)
def test_sizes_and_lengths_of_a_published_entry_fit_its_parts(spec: ModelSpec) -> None:
    """Every size and length on offer has latents that the network takes, and a given frame has theirs."""
    codec = on_meta(lambda: build_codec(spec.codec))
    network = spec.network
    assert spec.limits.default_frames in spec.limits.frames
    for height, width in sizes_of(spec):
        for frames in spec.limits.frames:
            t, h, w = codec.latent_size(frames, height, width)
            where = f"{frames} frames of {height} x {width}: {(t, h, w)}"
            assert min(t, h, w) > 0, where
            assert codec.latent_size(1, height, width) == (1, h, w), where
            if isinstance(network, MMDiTConfig):  # the STDiTs pad to their patch, it does not
                assert h % network.patch == w % network.patch == 0, where
            if isinstance(spec.codec, DcAeConfig):
                assert frames == 1 or frames % spec.codec.time_factor == 0, where
            elif isinstance(spec.codec, HunyuanConfig):
                assert (frames - 1) % spec.codec.time_factor == 0, where
            fixed = getattr(network, "input_size", None)
            assert fixed is None or fixed == (t, h, w), where
            if hasattr(network, "latent_channels"):
                assert network.latent_channels == codec.latent_channels
            else:
                assert network.in_channels == codec.latent_channels


def shrunk(spec: ModelSpec) -> Any:
    """The published codec with few channels: its lengths and sizes are the published ones."""
    match spec.codec:
        case ImageVaeConfig() if spec.codec.pixel_unshuffle == 1:
            return debug.STDIT.codec
        case VideoVaeConfig() if spec.codec.image.pixel_unshuffle == 1:
            return debug.STDIT3.codec
        case VaeV13Config():
            return debug.STDIT3_V13.codec
        case HunyuanConfig():
            return replace(spec.codec, block_channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)
        case DcAeConfig():
            ones = (1,) * len(spec.codec.widths)
            widths = (32,) * len(spec.codec.widths)
            return replace(spec.codec, latent_channels=32, widths=widths, encoder_depths=ones, decoder_depths=ones)
        case config:
            return config


@pytest.mark.slow
@pytest.mark.parametrize("spec", sampled(PUBLISHED, "nano", "opensora-1.0-256", "opensora-2.0", "opensora-2.0-dcae"))
def test_a_codec_makes_the_frames_and_latents_it_announces(spec: ModelSpec) -> None:
    """On the meta device: decoding what `latent_size` says gives the clip, encoding one frame its given latent."""
    codec = on_meta(lambda: build_codec(shrunk(spec)))
    space = codec.latent_size(1, 1024, 1024)[1]
    side = 2 * 1024 // space
    for frames in spec.limits.frames:
        t, h, w = codec.latent_size(frames, side, side)
        z = torch.empty(1, codec.latent_channels, t, h, w, device="meta")
        made = sum(part.shape[2] for part in codec.decode_chunks(z, frames))
        assert made == frames
    picture = torch.empty(1, 3, 1, side, side, device="meta")
    assert codec.encode(picture).shape == (1, codec.latent_channels, *codec.latent_size(1, side, side))


@pytest.mark.parametrize("spec", PUBLISHED, ids=lambda spec: spec.id)
@pytest.mark.slow
def test_a_published_network_takes_its_latents(spec: ModelSpec) -> None:
    """A forward pass of the published network, shortened to one block, on the meta device: of the smallest size and of
    the largest."""
    shorter: dict[str, int] = {"depth": 1} | ({"depth_single": 1} if hasattr(spec.network, "depth_single") else {})
    network = on_meta(lambda: build_network(replace(spec.network, **shorter)))  # type: ignore[type-var]
    adapter = adapter_for(spec.network)(network)
    codec = on_meta(lambda: build_codec(spec.codec))
    for height, width in {min(sizes_of(spec), key=math.prod), max(sizes_of(spec), key=math.prod)}:
        shape = VideoShape(frames=spec.limits.default_frames, height_px=height, width_px=width)
        size = codec.latent_size(shape.frames, height, width)
        x = torch.empty(1, codec.latent_channels, *size, device="meta")
        out = adapter.call_without_data(x, shape, 0 if spec.text is None else spec.text.max_tokens)
        assert out.shape[2:] == x.shape[2:]
        assert out.shape[1] in (x.shape[1], 2 * x.shape[1])


def test_what_cleaning_takes_out_of_a_prompt_is_named() -> None:
    """1.x's captions were cleaned of Chinese; whoever writes some is told."""
    small = T5Config(vocabulary=600, width=8, layers=1, heads=1, head_width=8, hidden=8, clean=True)
    encoder = T5TextEncoder(small, ASSETS / "nano" / "tokenizer.json")
    assert encoder.tokenize(["a red ball 红色的球", "a red ball"])[2] == (("红色的球",), ())
