"""What is shown of a model is what it does: attention, modulation, coding, the way and the pull."""

from __future__ import annotations

from threading import Event as Flag
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from opensora_demo.catalog import MODELS, find_model
from opensora_demo.errors import Cancelled
from opensora_demo.explain.attention import Map, Recorder, count_weights
from opensora_demo.explain.beginning import Beginning
from opensora_demo.explain.call import Channels, Halves, Masking
from opensora_demo.explain.causal import Causal
from opensora_demo.explain.coding import Coding
from opensora_demo.explain.modulation import Clock, modulations
from opensora_demo.explain.plane import path_of, pull_of
from opensora_demo.explain.run import Attentions, Flow, Guided, Part, Progress, Tokens, explain, words_of
from opensora_demo.explain.scaling import Scaled
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.nn.attention import CrossAttention, SelfAttention
from opensora_demo.nn.patch import patch_grid
from opensora_demo.pipeline import noise_of, run
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.sampling.step import Step
from tests.models import by_kind, sampled
from tests.unit.hooks import added_hooks

DEBUG = sorted(name for name in MODELS if name.startswith("debug"))
CPU = torch.device("cpu")
OF_ARTICLES = (Halves, Channels, Beginning, Masking, Causal, Scaled)


def request_for(bundle: ModelBundle, **changes: Any) -> GenerationRequest:
    raw = {"prompt": "a red ball bouncing over a meadow", "seed": 7, "steps": 3} | changes
    return parse_request(raw, model_id=bundle.spec.id, limits=bundle.spec.limits)


def first_step(bundle: ModelBundle, request: GenerationRequest) -> Step:
    draw = noise_of(bundle, request)
    noise = draw()
    condition = bundle.family.condition(request, ConditioningFrames(), (noise.shape[2], noise.shape[3], noise.shape[4]))
    return next(bundle.family.steps(noise, condition, request, draw))


def recorded(bundle: ModelBundle) -> tuple[Step, list[Map]]:
    request = request_for(bundle)
    shape = request.shape
    grid = patch_grid(
        bundle.family.adapter.patch, bundle.codec.latent_size(shape.frames, shape.height_px, shape.width_px)
    )
    with torch.inference_mode(), Recorder(bundle.family.adapter, grid) as recorder:
        step = first_step(bundle, request)
    return step, recorder.maps


@pytest.fixture(scope="module", params=by_kind(DEBUG))
def debug(request: pytest.FixtureRequest) -> ModelBundle:
    return build_bundle(find_model(request.param), CPU)


def test_watching_changes_nothing_and_leaves_no_hook(debug: ModelBundle) -> None:
    with torch.inference_mode():
        alone = first_step(debug, request_for(debug))
    step, maps = recorded(debug)
    assert torch.equal(step.x, alone.x)
    assert maps
    assert not added_hooks(debug.family.network)


def test_weights_are_shares(debug: ModelBundle) -> None:
    _, maps = recorded(debug)
    joint = debug.spec.text_mode == "token concatenation"
    for layer in {m.layer for m in maps}:
        own = [m for m in maps if m.layer == layer]
        for m in own:
            if not joint:
                assert torch.allclose(m.weights.sum(-1), torch.ones(()), atol=1e-5)
        if joint:
            whole = sum((m.weights.sum(-1) for m in own), torch.zeros(()))
            assert torch.allclose(whole, torch.ones(()), atol=1e-5)
    assert ("text" in {m.kind for m in maps}) == (debug.spec.text_mode not in ("pooled vector", "class label"))


def test_the_number_of_weights_is_known_before(debug: ModelBundle) -> None:
    _, maps = recorded(debug)
    shape = request_for(debug).shape
    adapter = debug.family.adapter
    grid = patch_grid(adapter.patch, debug.codec.latent_size(shape.frames, shape.height_px, shape.width_px))
    words = next((m.weights.shape[-1] for m in maps if m.kind == "text"), 0)
    assert count_weights(adapter.attention_sites(), adapter.heads, grid, words) == sum(m.weights.numel() for m in maps)


@pytest.mark.parametrize("model", ["debug-1.0", "debug-1.0-latte", "debug-1.1", "debug-1.2", "debug-1.3"])
def test_recorded_attention_gives_the_modules_own_output(model: str) -> None:
    bundle = build_bundle(find_model(model), CPU)
    calls: dict[nn.Module, tuple[tuple[Any, ...], Tensor]] = {}
    kept = (SelfAttention, CrossAttention)
    modules = [m for m in bundle.family.network.modules() if isinstance(m, kept)]
    hooks = [m.register_forward_hook(lambda m, a, out: calls.setdefault(m, (a, out)) and None) for m in modules]
    _, maps = recorded(bundle)
    for hook in hooks:
        hook.remove()
    # In the order in which the network called them, as the maps are.
    for (module, (args, out)), found in zip(calls.items(), maps, strict=True):
        if isinstance(module, CrossAttention):
            values, weights = args[2][:1], found.weights[None]
        elif found.kind == "all":
            continue  # windows, put together over the clip
        else:
            weights = found.weights
            values = rearrange(module.qkv(args[0]), "b n (three h d) -> three b h n d", three=3, h=module.heads)[2]
            values = values[: len(weights)]
        again = module.proj(rearrange(weights @ values, "b h n d -> b n (h d)"))
        assert torch.allclose(again, out[: len(again)], atol=1e-5)


@pytest.mark.parametrize("model", ["debug-2.0", "debug-2.0-dcae"])
def test_recorded_joint_attention_gives_the_blocks_own_output(model: str) -> None:
    bundle = build_bundle(find_model(model), CPU)
    double, single = bundle.family.network.double_blocks[0], bundle.family.network.single_blocks[0]  # type: ignore[index]
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, args, out=None: seen.setdefault(name, args[0] if out is None else out) and None

    def after(module: nn.Module, name: str) -> Any:
        return module.register_forward_hook(lambda m, a, out: seen.setdefault(name, out[:1].clone()) is None or None)

    def before(module: nn.Module, name: str) -> Any:
        return module.register_forward_pre_hook(lambda m, a: seen.setdefault(name, a[0][:1].clone()) is None or None)

    hooks = [
        after(double.txt_attn.v_proj, "text"),
        after(double.img_attn.v_proj, "video"),
        before(double.img_attn.proj, "double"),
        after(single.v_mlp, "values"),
        before(single.linear2, "single"),
    ]
    _, maps = recorded(bundle)
    for hook in hooks:
        hook.remove()
    width, heads = single.width, single.heads
    pairs = [
        (torch.cat([seen["text"], seen["video"]], dim=1), seen["double"]),
        (seen["values"][..., :width], seen["single"][:, seen["text"].shape[1] :, :width]),
    ]
    for layer, (values, out) in enumerate(pairs):
        video, text = (next(m for m in maps if m.layer == layer and m.kind == kind) for kind in ("all", "text"))
        weights = torch.cat([text.weights, video.weights], dim=-1)
        again = weights @ rearrange(values[0], "n (h d) -> h n d", h=heads)
        assert torch.allclose(rearrange(again, "h n d -> n (h d)"), out[0], atol=1e-5)


def test_windows_stay_apart() -> None:
    bundle = build_bundle(find_model("debug-1.3"), CPU)
    _, maps = recorded(bundle)
    weights = next(m.weights for m in maps if m.kind == "all")  # grid (t, 2, 3), windows of (2, 2)
    t = weights.shape[-1] // 6
    window = torch.tensor([0, 0, 1]).expand(t, 2, 3).flatten()
    apart = window[:, None] != window
    assert weights[:, apart].abs().max() == 0
    assert (weights[:, ~apart] > 0).all()


def test_modulation_is_the_modules_own(nano: ModelBundle) -> None:
    network = nano.family.network
    clock = Clock(nano.family.adapter, 1000.0)
    seen: list[Tensor] = []
    with torch.inference_mode():
        clock.watch(lambda: first_step(nano, request_for(nano)))
        hook = network.t_block.register_forward_hook(lambda m, a, out: seen.append(out[:1]) or None)  # type: ignore
        try:
            step_times = [step.t for step in steps_of(nano)]
        finally:
            hook.remove()
        found = modulations(clock, torch.tensor(step_times))
    assert len(found) == 2 * len(network.spatial_blocks) * 2
    block = network.temporal_blocks[1]
    own = next(m for m in found if (m.layer, m.block, m.part) == (1, "time", "mlp"))
    for i, shared in enumerate(seen):
        table = block.scale_shift_table + shared.view(6, -1)  # type: ignore[operator]
        for at, values in zip((3, 4, 5), (own.shift, own.scale, own.gate), strict=True):
            assert float(values[i, 0]) == pytest.approx(float(table[at].square().mean().sqrt()), rel=1e-4)
    assert own.gate[0, 1] == 0
    assert own.gate[-1, 1] > 0


def steps_of(bundle: ModelBundle, **changes: Any) -> list[Step]:
    request = request_for(bundle, **changes)
    draw = noise_of(bundle, request)
    noise = draw()
    condition = bundle.family.condition(request, ConditioningFrames(), (noise.shape[2], noise.shape[3], noise.shape[4]))
    return list(bundle.family.steps(noise, condition, request, draw))


def test_a_straight_way_and_a_bent_one() -> None:
    noise, clip = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 4)
    line = [noise + k * (clip - noise) for k in (0.0, 0.3, 1.0)]
    path = path_of(line, [clip, clip])
    assert torch.allclose(path.points, torch.tensor([[0.0, 0], [0.3, 0], [1, 0]]), atol=1e-6)
    assert torch.allclose(path.estimates, torch.tensor([[1.0, 0], [1, 0]]), atol=1e-6)
    assert path.length == pytest.approx(1)
    # Off the line by a quarter of its length, at right angles.
    start, end, aside = torch.zeros(3), torch.tensor([2.0, 0, 0]), torch.tensor([1.0, 0.5, 0])
    path = path_of([start, aside, end], [end, end])
    assert torch.allclose(path.points, torch.tensor([[0, 0], [0.5, 0.25], [1, 0]]), atol=1e-6)
    assert path.captured == pytest.approx(1)
    assert path.length == pytest.approx(1.25**0.5)


def test_a_pull_mixes_as_the_run_does(nano: ModelBundle) -> None:
    with torch.inference_mode():
        step = steps_of(nano, guidance=3)[1]
        pull = pull_of(step)
    assert pull is not None
    assert torch.allclose(pull.null_x0 + 3 * (pull.prompt_x0 - pull.null_x0), step.x0[0], atol=1e-4)
    assert np.hypot(*pull.prompt) == pytest.approx(pull.prompt_norm, rel=1e-4)
    assert pull.prompt[0] / pull.prompt_norm == pytest.approx(pull.cosine, rel=1e-4)
    guided = step.prediction.guided[0].square().mean().sqrt()
    mixed = (pull.null_norm + 3 * (pull.prompt[0] - pull.null_norm), 3 * pull.prompt[1])
    assert np.hypot(*mixed) == pytest.approx(float(guided), rel=1e-3)
    with torch.inference_mode():
        assert pull_of(steps_of(nano, guidance=1)[1]) is None


@pytest.mark.parametrize(
    ("model", "frames", "spans"),
    [
        ("debug-1.0", 3, [(0, 1), (1, 2), (2, 3)]),
        ("debug-1.2", 17, [(0, 1), (1, 5), (5, 9), (9, 13), (13, 17)]),
        (
            "debug-1.2",
            34,
            [(0, 1), (1, 5), (5, 9), (9, 13), (13, 17), (17, 18), (18, 22), (22, 26), (26, 30), (30, 34)],
        ),
        ("debug-2.0", 9, [(0, 1), (1, 5), (5, 9)]),
        ("debug-2.0-dcae", 8, [(0, 4), (4, 8)]),
        ("debug-1.3", 17, [(0, 1), (1, 5), (5, 9), (9, 13), (13, 17)]),
        (
            "debug-1.3",
            33,
            [(0, 1), (1, 5), (5, 9), (9, 13), (13, 17), (16, 17), (17, 21), (21, 25), (25, 29), (29, 33)],
        ),
        ("debug-1.2", 1, [(0, 1)]),
    ],
)
def test_frames_of_a_latent(model: str, frames: int, spans: list[tuple[int, int]]) -> None:
    codec = build_bundle(find_model(model), CPU).codec
    assert list(codec.frame_spans(frames, 32, 48)) == spans
    assert len(spans) == codec.latent_size(frames, 32, 48)[0]


@pytest.mark.slow
def test_nano_explained(nano: ModelBundle) -> None:
    request = request_for(nano, steps=4, frames=9)
    parts: dict[type, Part] = {}
    shares = []
    for part in explain(nano, request):
        if isinstance(part, Progress):
            shares.append(part.done / part.total)
        else:
            assert type(part) not in parts
            parts[type(part)] = part
    assert shares == sorted(shares)
    assert shares[-1] <= 1
    assert set(parts) == {Tokens, Attentions, Flow, Guided, Coding, *OF_ARTICLES}

    coding, flow, attention = parts[Coding], parts[Flow], parts[Attentions]
    assert isinstance(coding, Coding)
    assert isinstance(flow, Flow)
    assert isinstance(attention, Attentions)
    clip = run(nano, request).clips[0].frames  # watching changes nothing
    assert np.abs(coding.stages[0].picture.astype(int) - clip.astype(int)).max() <= 1
    assert [stage.name for stage in coding.stages] == ["clip", "2-D latents", "latents", "decoded"]
    assert coding.stages[2].size == (16, 3, 8, 8)
    assert coding.psnr > 25
    assert coding.causal
    for change in coding.changes:
        for (_, end), moved in zip(coding.spans, change.latents, strict=True):
            assert (moved < 1e-5) == (end <= change.frame)
        # Every row below the clip follows the negative, from the changed frame on and not before.
        assert list(change.pictures) == ["2-D latents", "latents", "decoded"]
        for stage in coding.stages[1:]:
            spans = coding.spans if stage.name == "latents" else [(i, i + 1) for i in range(len(stage.picture))]
            apart = np.abs(change.pictures[stage.name].astype(int) - stage.picture).mean((1, 2, 3))
            for (first, end), moved in zip(spans, apart, strict=True):
                assert moved < 1 if end <= change.frame else moved > 5, (stage.name, first)
    assert torch.allclose(flow.path.points[[0, -1]], torch.tensor([[0.0, 0], [1, 0]]), atol=1e-5)
    assert flow.path.length > 1
    assert len(flow.times) == len(flow.noisy) == len(flow.clean) == 4
    assert attention.words == ("a", "red", "ball", "bouncing", "over", "a", "meadow", "end")
    assert [step for step, _, _ in attention.looks] == [0, 1, 2, 3]
    # The patch that is picked at first lies on the object: red, before a green and blue world.
    frame, row, column = attention.focus
    t, h, _ = attention.grid
    picture = clip[coding.spans[frame][1] - 1].astype(int)
    side = picture.shape[0] // h
    patch = picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
    redness = (patch[..., 0] - patch[..., 1:].max(-1)).max()
    assert frame == t // 2
    assert redness > 60


@pytest.mark.parametrize("debug", sampled(DEBUG, "debug-1.2", "debug-2.0"), indirect=True)
def test_every_family_is_explained(debug: ModelBundle) -> None:
    parts = [part for part in explain(debug, request_for(debug)) if not isinstance(part, Progress)]
    kinds = [type(part) for part in parts]
    assert [kind for kind in kinds if kind not in OF_ARTICLES] == [Flow, Guided, Tokens, Attentions, Coding]
    assert [kind for kind in kinds if kind in OF_ARTICLES] == list(OF_ARTICLES)
    attention = parts[kinds.index(Attentions)]
    assert isinstance(attention, Attentions)
    for _, _, maps in attention.looks:
        for m in maps:
            if m.kind == "text":
                assert m.weights.shape[-1] == len(attention.words)


def test_words_as_they_were_typed(nano: ModelBundle) -> None:
    encoder = nano.family.text  # type: ignore[attr-defined]
    assert words_of(encoder, "红色的球 ${x}") == ("红", "色", "的", "球", "$", "{", "x", "}", "end")
    padded = build_bundle(find_model("debug-2.0"), CPU).family.text  # type: ignore[attr-defined]
    assert words_of(padded, "a ball") == ("a", "ball", "end", "padding")
    assert len(words_of(encoder, "ball " * 200)) == encoder.cfg.max_tokens


def test_it_can_be_stopped_and_closed(nano: ModelBundle) -> None:
    flag = Flag()
    parts = explain(nano, request_for(nano), flag)
    next(parts)
    next(parts)
    flag.set()
    with pytest.raises(Cancelled):
        list(parts)
    parts = explain(nano, request_for(nano))
    for _ in range(3):
        next(parts)
    parts.close()  # type: ignore[attr-defined]
    assert not added_hooks(nano.family.network)
