"""The measurements of the small models: each is tried on clips whose answer is known, then all of them on the model."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from opensora_demo.bundle import ModelBundle
from opensora_demo.catalog import NANO
from opensora_demo.catalog.sizes import square
from opensora_demo.errors import WeightsError
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig
from opensora_demo.store import ASSETS
from opensora_demo.training import study
from opensora_demo.training.adherence import clips_at, reader_table
from opensora_demo.training.captions import BACKGROUND_PHRASES, COLOUR_WORDS
from opensora_demo.training.card import card_text, limits_of, read_training, write_card
from opensora_demo.training.plots import contact_sheet, read_log, smoothed, spaced, write_picture, write_plots
from opensora_demo.training.reader import Reader, Sight, at_reading_size, find_objects, load_reader, read_clips
from opensora_demo.training.worlds import SPEED_PX_S, Scene, render, sample_scene
from opensora_demo.types import parse_request

SCENE = Scene(shape="ball", colour="red", motion="right", background="sea", seed=4)
FEW = study.Counts(
    adherence=2, unseen=1, prompts=2, pairs=1, chinese=1, diverse=1, seeds=2, scales=(1, 4), negative=1, speed=1,
    rates=(8,), references=1, flicker=1, codec=2, step_prompts=1, steps=(1, 2), fine_steps=4, photos=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader()


@pytest.fixture(scope="module")
def quick(nano: ModelBundle) -> ModelBundle:
    """The model with one step and nine frames as its defaults: as good as any for seeing that numbers arrive."""
    limits = replace(nano.spec.limits, steps=replace(nano.spec.limits.steps, default=1), default_frames=9)
    return replace(nano, spec=replace(nano.spec, limits=limits))


@pytest.fixture(scope="module")
def measured(quick: ModelBundle, reader: Reader) -> dict[str, Any]:
    table = study.run_study(quick, reader, FEW)
    assert list(table["fps"]["rates"]) == ["8"]
    table["fps"]["rates"]["24"] = table["fps"]["rates"]["8"]  # the others would only take time
    return table


plots = pytest.mark.skipif(
    find_spec("matplotlib") is None and not os.environ.get("CI"), reason="matplotlib is not installed"
)


# --- the reader


def test_larger_clips_are_averaged_down_and_read(reader: Reader) -> None:
    large = render(SCENE, 16, 128)[0]
    small = at_reading_size(large)
    assert small.shape == (16, 64, 64, 3)
    assert small[3, 5, 7, 1] == int(large[3, 10:12, 14:16, 1].mean() + 0.5)
    mixed = read_clips(reader, [large, render(SCENE)[0], render(replace(SCENE, colour="blue"), 16, 128)[0]])
    assert [r.objects[0].colour for r in mixed] == ["red", "red", "blue"]
    assert all(r.objects[0].motion == "right" for r in mixed)
    assert [len(r.objects[0].area) for r in mixed] == [16, 17, 16]
    assert reader_table(reader, 24, fps=8, frames=16, size_px=128)["all four"] >= 0.9


@pytest.mark.parametrize("shape", [(17, 100, 100, 3), (17, 64, 128, 3), (7, 64, 64, 3), (17, 32, 32, 3)])
def test_other_sizes_are_refused(reader: Reader, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        read_clips(reader, [np.zeros(shape, np.uint8)])


# --- numbers of clips


def test_psnr() -> None:
    a = np.full((2, 3), 100, np.uint8)
    assert study.psnr(a, a) == math.inf
    assert study.psnr(a, a + 10) == pytest.approx(10 * math.log10(255**2 / 100))
    assert study.psnr(a + 10, a) == study.psnr(a, a + 10)  # no wrapping around of bytes


def test_diversity_of_equal_clips_is_zero() -> None:
    clip = render(SCENE)[0]
    assert study.diversity([clip, clip, clip]) == 0
    assert study.diversity([np.zeros_like(clip), np.full_like(clip, 255)]) == 1


def test_colourfulness() -> None:
    grey, red = np.full((2, 4, 4, 3), 90, np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert study.colourfulness(grey) == {"saturation": 0, "chroma": 0, "contrast": pytest.approx(0), "clipped": 0}
    assert study.colourfulness(red) == {"saturation": 1, "chroma": 1, "contrast": pytest.approx(0), "clipped": 1}


@pytest.mark.parametrize("fps", [4, 24])
@pytest.mark.parametrize("speed", ["slow", "fast"])
def test_speed_is_measured_within_a_tenth(reader: Reader, fps: int, speed: str) -> None:
    """The reader and the slope together; a single clip's speed varies by 6 % by design."""
    rng = np.random.default_rng(1)
    scenes = [
        replace(sample_scene(rng, held_out=None), motion=m, speed=speed, fps=fps, size="medium")
        for m in study.STRAIGHT
        for _ in range(2)
    ]
    found = study.speeds_of(reader, [render(s)[0] for s in scenes], scenes)
    assert np.mean(found) == pytest.approx(SPEED_PX_S[speed], rel=0.1)


def test_speed_against_the_asked_direction_is_negative_and_bad_frames_do_not_matter() -> None:
    x = 20 + 1.5 * np.arange(17)
    x[5], x[9] = 60, np.nan
    sight = Sight(
        shape="ball", colour="red", motion="right", confidence={}, area=np.full(17, 0.03),
        centre_px=np.stack([x, np.full(17, 30.0)], 1),
    )  # fmt: skip
    assert study.straight_speed(sight, "right", 8) == pytest.approx(12)
    assert study.straight_speed(sight, "left", 8) == pytest.approx(-12)
    assert study.straight_speed(sight, "up", 8) == pytest.approx(0)
    assert math.isnan(study.straight_speed(replace(sight, centre_px=np.full((17, 2), np.nan)), "up", 8))
    assert math.isnan(study.straight_speed(replace(sight, area=np.full(17, 0.9)), "up", 8))


def test_flicker_of_rendered_clips_is_zero_and_of_noise_is_not(reader: Reader) -> None:
    rng = np.random.default_rng(3)
    clips = [render(sample_scene(rng, held_out=None))[0] for _ in range(6)]
    clips.append(render(SCENE, 16, 128)[0])
    for clip, objects in zip(clips, find_objects(reader, clips), strict=True):
        assert study.flicker(clip, objects) == pytest.approx(0, abs=1e-3)
        noise = np.clip(clip + rng.normal(0, 8, clip.shape), 0, 255).astype(np.uint8)
        assert study.flicker(noise, objects) > 4
        assert study.background_psnr(clip, clip[:1], objects) > 60
        assert study.background_psnr(255 - clip, clip[:1], objects) < 25
    assert math.isnan(study.flicker(clips[0], np.ones((17, 64, 64), np.float32)))


def test_objects_are_found_where_they_are_drawn(reader: Reader) -> None:
    clip, alpha = render(SCENE)
    (found,) = find_objects(reader, [clip])
    drawn = alpha > 127
    assert found[drawn].mean() > 0.9
    assert found[~drawn].mean() < 0.03


def test_a_natural_picture_has_the_spectrum_of_photographs() -> None:
    picture = study.natural_picture(np.random.default_rng(0), 120, 160)
    assert picture.shape == (120, 160, 3)
    grey = picture.astype(float).mean(-1)
    amplitude = np.abs(np.fft.fft2(grey - grey.mean()))
    assert 4 < amplitude[4, 1:4].mean() / amplitude[32, 1:4].mean() < 16  # 1 / frequency: 8


# --- prompts


def test_open_captions_leave_out_one_thing() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(20)]
    for scene in (*scenes, replace(scenes[0], background="white", colour="white")):
        placed = study.open_caption(scene, rng, "colour")
        coloured = study.open_caption(scene, rng, "background")
        assert any(phrase in placed for phrase in BACKGROUND_PHRASES[scene.background])
        assert any(word in coloured for word in COLOUR_WORDS[scene.colour])
        assert not any(phrase in coloured for phrase in BACKGROUND_PHRASES[scene.background])
        if scene.background in ("black", "night", "checkerboard"):  # those whose phrases name no object's colour
            words = placed.replace(",", " ").split()
            assert not any(word in words for word in COLOUR_WORDS[scene.colour])
    on_white = study.open_caption(replace(SCENE, background="white"), rng, "colour")
    assert "white" in on_white
    assert "red" not in on_white.split()
    assert study.negative_words(SCENE, "colour", "orange") == {"word": "orange", "caption": "an orange ball"}
    assert study.negative_words(SCENE, "background", "sky")["caption"] == "a ball in the sky"


def test_more_scales_than_one_request_takes_share_the_noise(quick: ModelBundle) -> None:
    raw = {"prompt": "a red ball", "seed": 3}
    seven = clips_at(quick, raw, (1, 2, 3, 4, 5, 6, 7))
    assert list(seven) == [1, 2, 3, 4, 5, 6, 7]
    alone = clips_at(quick, raw, (3,))[3]
    assert np.abs(seven[3].astype(int) - alone).max() <= 1


# --- the model


def test_a_sampler_is_exchanged_without_touching_the_model(quick: ModelBundle) -> None:
    other = RectifiedFlowConfig(shift="1.3")
    changed = study.with_sampler(quick, other)
    assert changed.spec.sampler == changed.family.sampler == other  # type: ignore[attr-defined]
    assert quick.family.sampler == quick.spec.sampler == NANO.sampler  # type: ignore[attr-defined]
    assert changed.family.network is quick.family.network  # type: ignore[attr-defined]


def test_latents_are_those_the_clip_was_decoded_from(quick: ModelBundle) -> None:
    request = parse_request({"prompt": "a red ball", "seed": 3}, model_id="nano", limits=quick.spec.limits)
    clip, latents = study.run_with_latents(quick, request)
    with torch.inference_mode():
        decoded = torch.cat(list(quick.codec.decode_chunks(latents, 9)), 2)
    assert np.abs(study.to_frames(decoded[0]).astype(int) - clip).max() == 0


def test_everything_is_measured_and_is_json(measured: dict[str, Any]) -> None:
    assert json.loads(json.dumps(measured)) == measured
    parts = {
        "reader", "codec", "consistency", "adherence", "other captions", "negative", "fps", "steps", "guidance",
        "reference", "photo",
    }  # fmt: skip
    assert set(measured["seconds"]) == set(measured["dates"]) == parts
    assert parts <= set(measured)
    assert measured["settings"]["steps"] == 1
    assert list(measured["guidance"]["scales"]) == ["1", "4"]
    assert measured["consistency"]["rendered"]["mean"] == pytest.approx(0, abs=1e-3)
    assert measured["consistency"]["generated"]["mean"] > 0
    assert 20 < measured["codec"]["two objects"]["object"] < measured["codec"]["two objects"]["mean"] < 50
    assert measured["fps"]["rates"]["8"]["rendered ratio"] == pytest.approx(1, abs=0.1)
    assert measured["negative"]["colour"]["same noise"]["without"]["still there"] == 1  # by definition
    assert measured["photo"]["finite"] == 1


def test_more_steps_come_nearer_the_fine_solution(measured: dict[str, Any]) -> None:
    own, euler = measured["steps"]["samplers"].values()
    assert own["1"]["distance"] > own["2"]["distance"] > 0
    assert euler["1"]["distance"] == own["1"]["distance"]  # a first step has no step before it
    assert list(measured["steps"]["samplers"]) == [study.name_of(s) for s in study.usual_samplers(NANO)]


def test_diffusion_that_draws_noise_has_no_solution_to_be_near() -> None:
    assert study.deterministic(RectifiedFlowConfig())
    assert study.deterministic(IddpmConfig(method="ddim"))
    assert not study.deterministic(IddpmConfig(method="ddim", eta=0.5))
    assert not study.deterministic(IddpmConfig())
    assert study.name_of(IddpmConfig(method="ddim", eta=0.5)) == "IDDPM, ddim, eta 0.5"


def test_what_a_model_has_not_is_skipped(quick: ModelBundle, reader: Reader) -> None:
    limits = replace(quick.spec.limits, reference=False, fps=replace(quick.spec.limits.fps, low=8, high=8))
    other = replace(quick, spec=replace(quick.spec, limits=limits))
    assert not {"reference", "photo"} & set(study.studies_of(other, reader, FEW))
    assert study.told_fps(quick.spec)
    assert study.rates_of(quick.spec, (2, 4, 24, 60)) == [4, 24]
    assert not study.told_fps(other.spec)
    assert study.rates_of(other.spec, (4, 24)) == [8]


def test_a_model_of_another_size_is_measured(quick: ModelBundle, reader: Reader) -> None:
    limits = replace(quick.spec.limits, sizes=square(128))
    large = replace(quick, spec=replace(quick.spec, limits=limits))
    table = study.run_study(large, reader, FEW, only=["consistency", "photo"])
    assert (table["settings"]["frames"], table["settings"]["size_px"]) == (9, 128)
    assert table["consistency"]["generated"]["measured"] == 1
    with pytest.raises(ValueError, match="squares"):
        study.clip_size(replace(quick.spec, limits=replace(limits, sizes=(replace(limits.sizes[0], height_px=64),))))


def test_parts_are_merged_only_into_those_of_the_same_weights(measured: dict[str, Any]) -> None:
    part = {key: measured[key] for key in ("model", "weights", "settings")}
    new = part | {"codec": {"clips": 9}, "dates": {"codec": "2000-01-01"}, "seconds": {"codec": 1.0}}
    both = study.merged(measured, new)
    assert both["codec"] == {"clips": 9}
    assert both["seconds"]["fps"] == measured["seconds"]["fps"]
    assert study.merged(measured | {"weights": "others"}, new) == new


def test_a_share_of_the_counts() -> None:
    counts = study.Counts().times(0.01)
    assert (counts.prompts, counts.speed, counts.seeds, counts.fine_steps) == (2, 1, 4, 200)
    assert counts.scales == study.Counts().scales


# --- card and plots

TRAINING = {
    "network": {"parameters": 18_700_000, "bytes": 18_700_000, "files": ["dit.safetensors"], "step": "777",
                "seconds": "7200", "command": "python -m x", "data": "rendered", "license": "Apache-2.0"},
}  # fmt: skip


def test_the_card_holds_the_measured_numbers(measured: dict[str, Any]) -> None:
    told = json.loads(json.dumps(measured))
    right = {"all four": 0.7342, "motion": 0.1234, "shape": 1, "colour": 1, "background": 1}
    told["adherence"]["prompts that are new"] = right
    told["codec"]["one object"]["pooled"] = 31.4159
    told["fps"]["rates"]["24"]["ratio"], told["fps"]["rates"]["8"]["ratio"] = 1.77, None
    text = card_text(NANO, told, TRAINING)
    assert NANO.title in text
    for number in ("73 %", "31.4", "1.77", "777", "2.0 h", "18.70 M", "width 256", "Apache-2.0"):
        assert number in text, number
    assert ".png" not in text
    assert "27 % of clips miss" in text
    assert "motion is right least often (12 %)" in text
    assert "None" not in text.replace("scale None", "")
    assert "nan" not in text.replace("nano", "")


def test_the_card_is_silent_about_what_was_not_measured(measured: dict[str, Any]) -> None:
    kept = {key: measured[key] for key in ("model", "weights", "device", "settings", "dates", "seconds", "codec")}
    text = card_text(NANO, kept, {})
    assert "## Codec" in text
    assert not {"## Guidance", "## Steps", "## A given first frame", "## Licence"} & set(text.splitlines())
    assert len(limits_of(NANO, kept)) == 1


def test_training_is_read_from_the_files(tmp_path: Path, nano: ModelBundle) -> None:
    folder = ASSETS / "nano"
    found = read_training(NANO, folder)
    assert set(found) == {"network", "codec", "text"}
    family: Any = nano.family
    assert found["network"]["parameters"] == sum(v.numel() for v in family.network.state_dict().values())
    with pytest.raises(WeightsError):
        read_training(NANO, tmp_path)


def test_a_resumed_log_counts_once(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"step": s, "loss": x}) for s, x in ((20, 3), (40, 2), (20, 1), (60, 0))))
    assert {step: record["loss"] for step, record in read_log(log).items()} == {20: 1, 40: 2, 60: 0}
    dip = [2.0] * 9
    dip[4] = 0.1  # the first record of a resumed run holds fewer steps than it is divided by
    assert smoothed(dip, 3) == pytest.approx([2.0] * 9)
    assert smoothed([2.0] * 9, 3) == pytest.approx([2.0] * 9)


def test_labels_move_apart_and_stay_in_order() -> None:
    assert spaced([1, 5, 9], 1) == [1, 5, 9]
    placed = spaced([5, 5.1, 0, 4.9], 1)
    assert placed == pytest.approx([5, 6, 0, 4])


@plots
def test_plots_are_small_pictures(measured: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"step": s, "loss": 1 / s, "psnr": s / 9}) for s in range(20, 2000, 20)))
    card = write_card(NANO, tmp_path, measured, TRAINING, {"VAE": log})
    for name in ("guidance", "fps", "steps", "training"):
        picture = (tmp_path / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 60_000
        assert f"({name}.png)" in card.read_text()
    one_rate = measured | {"fps": measured["fps"] | {"rates": {"8": measured["fps"]["rates"]["8"]}}}
    assert "fps.png" not in [file.name for file in write_plots(one_rate, tmp_path / "other")]


def test_a_contact_sheet_has_a_row_for_each_clip() -> None:
    sheet = contact_sheet([render(SCENE)[0], render(SCENE, 16, 128)[0]], ["one", "two"])
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] == 1
    assert sheet.shape[1] > 2 * 128
    assert sheet.shape[2] > 5 * 128


@plots
def test_a_picture_is_written(tmp_path: Path) -> None:
    write_picture(render(SCENE)[0][:1], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
