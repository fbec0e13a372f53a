"""A clip of several scenes: what a prompt in scenes means, how one goes on from the other, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from threading import Event as Flag
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from opensora_demo import cli
from opensora_demo.catalog import MODELS, NANO
from opensora_demo.catalog.spec import ModelSpec
from opensora_demo.errors import Cancelled, RequestError
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.families.stdit import STDiTConditioning
from opensora_demo.frames import to_frames, to_video
from opensora_demo.media import read_mp4, read_settings
from opensora_demo.messages import message
from opensora_demo.pipeline import generate, noise_of, run
from opensora_demo.request.events import DecodedFrames, Decoding, Encoded, Event, Finished, Started, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.video import Frames
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.runtime.cost.work import WorkCounter
from opensora_demo.sampling.mask_strategy import apply_strategy
from opensora_demo.service.forms import example_of_form
from opensora_demo.service.links import checked_settings, link_query
from opensora_demo.service.outputs import scene_marks
from opensora_demo.ui.values.stage import RunView, chip_value, chips

CPU = torch.device("cpu")
TWO = "|0|a red ball bouncing|1|a red ball spinning"


def ask(model: str = "nano", prompt: str = TWO, given: dict[str, Any] | None = None, **raw: Any) -> GenerationRequest:
    raw = {"prompt": prompt, "steps": 3, "seed": 3} | raw
    return parse_request(raw, model_id=model, limits=MODELS[model].limits, **given or {})


def film(count: int, spec: ModelSpec) -> Frames:
    """Each frame five levels brighter than the one before."""
    height, width = spec.limits.size_px
    return np.stack([np.full((height, width, 3), 5 * k, np.uint8) for k in range(count)])


# --- what is asked ------------------------------------------------------------------------------------------------


def test_a_prompt_names_its_scenes_and_where_each_begins() -> None:
    request = ask(prompt="|0| a red ball. |2|a blue star", frames=17, fps=8)
    assert request.scenes == 3
    assert [request.scene(k).prompt for k in range(3)] == ["a red ball.", "a red ball.", "a blue star"]
    assert request.scene_frames == ((0, 17), (17, 25), (25, 33))
    assert (request.total_frames, request.settings()["total_frames"]) == (33, 33)
    assert ask(prompt="a ball", scenes="4", video_frames=1).scene_frames[-1] == (49, 65)  # upstream's --loop
    assert ask(prompt="a ball").scenes == ask(prompt="|0|a ball").scenes == 1
    assert ask(prompt="|0| a ball").scene(0).prompt == "a ball"
    assert ask(prompt="a ball |1| a star").scene(0).prompt == "a ball |1| a star"  # as upstream: it begins with |0|


def test_what_is_given_belongs_to_the_scene_where_it_stands() -> None:
    v12 = MODELS["debug-1.2"]
    video, frame = film(40, v12), film(1, v12)
    both = ask("debug-1.2", given={"reference": frame, "last_frame": frame}, scenes=3)
    assert [(s.reference is not None, s.last_frame is not None) for s in map(both.scene, range(3))] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    for use, at in (("extend", 0), ("head", 0), ("tail", 2)):
        request = ask("debug-1.2", given={"video": video}, scenes=3, video_use=use)
        assert [request.scene(k).video is not None for k in range(3)] == [k == at for k in range(3)]
    assert ask("debug-1.2", given={"video": video}).scene_frames == ((0, 57), (57, 74))


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"prompt": "|0|a ball|one|a star"}, "prompt: scenes are written |0|first|1|second"),
        ({"prompt": "|0|a ball|1"}, "prompt: scene 1 has no words"),
        ({"prompt": "|0||1|a star"}, "prompt: scene 0 has no words"),
        ({"prompt": "|0|a ball|2|a star|1|a ring"}, "prompt: the numbers of the scenes must rise"),
        ({"prompt": "|0|a ball|8|a star"}, "prompt: must name at most 8 scenes, not 9"),
        ({"scenes": 1}, "scenes: must be at least 2, which the prompt names, not 1"),
        ({"scenes": 9}, "scenes: must lie between 1 and 8, not 9"),
        ({"frames": 9}, "frames: must be more than the 9 that a scene takes over from the one before, not 9"),
        ({"frames": 1}, "frames: must be more than the 9"),
        ({"rule": "apg"}, "rule: apg is for text alone; scenes go on"),
        ({"branch_step": 1}, "branch_step: is for a clip of one scene"),
        ({"stop_step": 1}, "stop_step: is for a clip of one scene"),
        ({"model": "nano-dit"}, "prompt: this model makes clips of one scene"),
        ({"model": "nano-dit", "prompt": "a ball", "scenes": 2}, "scenes: is not a setting of this model"),
        ({"model": "opensora-1.2", "frames": 102, "scenes": 8, "fps": 24, "total": 600}, "scenes: a clip must have at"),
    ],
)
def test_scenes_that_cannot_be_made_are_refused_with_the_field(
    raw: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if most := raw.pop("total", None):
        monkeypatch.setattr("opensora_demo.request.parse.MAX_TOTAL_FRAMES", most)
    with pytest.raises(RequestError) as refused:
        ask(**raw)
    assert str(refused.value).startswith(sentence)


def test_a_scene_cannot_begin_and_end_with_more_frames_than_it_has() -> None:
    video = film(40, MODELS["debug-1.1"])
    limits = replace(MODELS["debug-1.1"].limits, video_frames=(4, 6))
    raw = {"prompt": TWO, "video_use": "tail"}
    assert parse_request(raw, model_id="debug-1.1", limits=limits, video=video).video_frames == 4
    with pytest.raises(RequestError, match="video_frames: must be at most half of the 8 frames of a scene"):
        parse_request(raw | {"video_frames": 6}, model_id="debug-1.1", limits=limits, video=video)


def test_files_and_links_bring_scenes_back() -> None:
    named, looped = ask(fps=8), ask(prompt="a red ball", scenes=3, video_frames=5)
    assert "scenes" not in named.settings()  # the prompt says so
    assert looped.settings()["scenes"] == 3
    assert chip_value(message("label.chip.scenes"), "2") in chips(named.settings())
    assert chip_value(message("label.chip.length"), message("note.time.s", n="3.1")) in chips(named.settings())
    assert not any(chip["name"]["code"] == "label.chip.scenes" for chip in chips(ask(prompt="a ball").settings()))
    for request in (named, looped):
        found, ignored = checked_settings(request.settings())
        assert ignored == []
        assert parse_request(_without_model(found), model_id="nano", limits=NANO.limits) == request
    assert "scenes=3" in (query := link_query(looped.settings()))
    assert "video_frames=5" in query
    found, ignored = checked_settings({"prompt": TWO, "frames": "9"})  # the rest of a link is still of use
    assert (found["prompt"], "frames" in found, len(ignored)) == (TWO, False, 1)


def _without_model(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "model"}


# --- what is made -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundles() -> dict[str, ModelBundle]:
    return {model: build_bundle(MODELS[model], CPU) for model in ("debug-1.1", "debug-1.2", "debug-1.3")}


def upstream(bundle: ModelBundle, request: GenerationRequest, latent_frames: int) -> Frames:
    """Open-Sora's own loop (v1.1.0 scripts/inference-long.py, v1.2.0 scripts/inference.py, append_generated): the whole
    clip before is encoded, its last latent frames become the first ones by a mask strategy, and as many frames are
    dropped; 1.3 (scripts/inference_i2v.py) takes the latents themselves. Noise comes from one stream."""
    family, codec, draw = bundle.family, bundle.codec, noise_of(bundle, request)
    clips: list[Frames] = []
    latents: list[Tensor] = []
    for loop in range(request.scenes):
        z = draw()
        size = (z.shape[2], z.shape[3], z.shape[4])
        given = ConditioningFrames()
        if loop:
            reference = latents[-1][0]
            if not family.carries_latents:
                reference = codec.encode(to_video(clips[-1][None]))[0]
            strategy = f"{loop},0,-{latent_frames},0,{latent_frames},0.0"
            expected, mask = apply_strategy(z[0], [reference], strategy, loop)
            given = ConditioningFrames(first=reference[:, -latent_frames:])
        alone = request.scene(loop)
        condition = family.condition(alone, given, size)
        if loop:
            assert isinstance(condition, STDiTConditioning)
            assert condition.frame_mask is not None
            assert condition.latent is not None
            assert torch.equal(condition.frame_mask[0], mask)
            kept = mask == 0
            assert torch.equal(condition.latent[:, kept], expected[:, kept])
            assert condition.given_frames() == list(range(latent_frames))
        for step in family.steps(z, condition, alone, draw):
            latents.append(step.x)
        clips.append(to_frames(codec.decode(latents[-1], request.shape.frames)[0]))
    dropped = request.video_frames
    return np.concatenate([clips[0], *(clip[dropped:] for clip in clips[1:])])


# Frames kept and the latent frames they are: one each in 1.1, five for 17 in 1.2 and 1.3.
@pytest.mark.parametrize(
    ("model", "kept", "latent_frames"), [("debug-1.1", 4, 4), ("debug-1.2", 17, 5), ("debug-1.3", 17, 5)]
)
@torch.inference_mode()
@pytest.mark.slow
def test_scenes_are_upstreams_loop(model: str, kept: int, latent_frames: int, bundles: dict[str, ModelBundle]) -> None:
    scenes = 3 if model == "debug-1.1" else 2  # the codecs of the others take seconds
    request = ask(model, scenes=scenes, steps=2)
    assert request.video_frames == kept
    made = run(bundles[model], request).clips[0].frames
    assert len(made) == request.total_frames == scenes * request.shape.frames - (scenes - 1) * kept
    expected = upstream(bundles[model], request, latent_frames)
    assert np.abs(made.astype(int) - expected).max() <= 1  # chunks are encoded in other batches


@pytest.mark.slow
def test_clips_of_a_comparison_go_on_from_their_own_ends(bundles: dict[str, ModelBundle]) -> None:
    for model in ("debug-1.1", "debug-1.3"):  # encoded again, and carried over as latents
        bundle = bundles[model]
        for clip in run(bundle, ask(model, guidance=[1, 4], steps=2)).clips:
            alone = run(bundle, clip.request).clips[0].frames
            assert np.abs(alone.astype(int) - clip.frames).max() <= 2  # rounding of batched products


@pytest.fixture(scope="module")
def events(nano: ModelBundle) -> list[Event]:
    """Of a clip of two scenes."""
    return list(generate(nano, ask(steps=2)))


def test_events_name_the_scene(events: list[Event]) -> None:
    scene = [Encoded, StepPreview, StepPreview]
    assert [type(event) for event in events] == [Started, *scene, DecodedFrames, *scene, Decoding, Finished]
    steps = [event for event in events if isinstance(event, StepPreview)]
    assert [(step.scene, step.index, step.place) for step in steps] == [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)]
    assert [step.of_all for step in steps] == [4] * 4
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    view = RunView(1, "", ask(steps=2), NANO)
    for event in events[:6]:
        view.add(event)
    value = view.value(0)
    assert (value["text"]["code"], value["text"]["params"]["scene"], value["total"]) == ("run.of_scene", 2, 4)
    assert [step["index"] for step in value["steps"]] == [1, 2]
    assert [scene["start"] for scene in value["scenes"]] == [0, 2.125]


def test_the_first_scene_is_a_clip_and_the_next_begins_with_its_end(nano: ModelBundle, events: list[Event]) -> None:
    last = events[-1]
    assert isinstance(last, Finished)
    made = last.clips[0].frames
    assert np.array_equal(made[:17], run(nano, ask(steps=2).scene(0)).clips[0].frames)
    kept = nano.codec.encode(to_video(made[None, 8:17]))
    again = nano.codec.encode(to_video(made[None, 8:25]))[:, :, : kept.shape[2]]
    assert float((again - kept).abs().max()) < 1e-4  # the codec is causal
    first, second = scene_marks(last.clips[0])
    assert first is not None
    assert second is not None
    assert (first["motion"]["asked"], second["motion"]["asked"]) == ("bounce", "spin")


@pytest.mark.parametrize("steps", [2, 5])
def test_any_scene_can_be_stopped(steps: int, bundles: dict[str, ModelBundle]) -> None:
    flag = Flag()
    going = generate(bundles["debug-1.1"], ask("debug-1.1", steps=2), flag)
    told = (event for event in going if not isinstance(event, DecodedFrames))
    seen = [next(told) for _ in range(1 + steps)]  # Started, and then three of a scene
    last = seen[-1]
    assert isinstance(last, StepPreview)
    assert last.scene == (steps > 3)
    flag.set()
    with pytest.raises(Cancelled):
        next(going)


def test_a_scene_costs_a_run() -> None:
    counter = WorkCounter()
    spec = MODELS["opensora-1.3"]
    one = ask("opensora-1.3", prompt="a ball", frames=49)
    lone, three = (counter.calls(spec, request) for request in (one, replace(one, scenes=3, video_frames=17)))
    assert three[: len(lone)] == lone
    assert len(three) == 3 * len(lone)
    assert sum(three) > 3 * sum(lone)  # given frames have a branch of their own
    estimator = Estimator(counter=counter)
    nano_one, nano_three = (estimator.work(NANO, ask(prompt="a ball", scenes=n)) for n in (1, 3))
    for stage, part in nano_one.items():
        assert nano_three[stage].flops == 3 * part.flops
    _, request = example_of_form({"model": "nano", "prompt": TWO, "video_frames": 9})
    assert request.scenes == 2
    assert example_of_form({"model": "nano", "prompt": "a red ball"})[1].prompt == "a ball"


def test_the_command_line_makes_scenes(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes.mp4"
    assert cli.main(["generate", TWO, "--steps", "2", "--seed", "1", "--out", str(out)]) == 0
    assert "scene 2 of 2" in capsys.readouterr().err
    frames, fps = read_mp4(out)
    assert (len(frames), fps) == (25, 8)
    settings = read_settings(out)
    assert settings is not None
    assert (settings["prompt"], settings["total_frames"]) == (TWO, 25)
    assert cli.main(["generate", "|0|a ball|0|a star", "--out", str(out)]) == 2
    assert "prompt: the numbers of the scenes must rise" in capsys.readouterr().err
