"""The measurements of the small models: each is tried on clips whose answer is known, then all of them on the model."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from opensora_demo.catalog import ModelSpec, WeightFiles, find_model
from opensora_demo.catalog.nano import NANO, NANO_CLASS, NANO_DIT, NANO_MMDIT
from opensora_demo.catalog.sizes import square
from opensora_demo.errors import WeightsError
from opensora_demo.evaluation.adherence import clips_at, reader_table
from opensora_demo.evaluation.background import background_psnr, flicker
from opensora_demo.evaluation.card import PartTraining, card_text, limits_of, read_training, write_card, write_plots
from opensora_demo.evaluation.plots import read_log, smoothed, spaced
from opensora_demo.evaluation.studies import labels
from opensora_demo.evaluation.studies.base import Counts, Scores, Setup, clip_size
from opensora_demo.evaluation.studies.codec_fidelity import CodecFidelity, Fidelity
from opensora_demo.evaluation.studies.guidance_scales import Colours
from opensora_demo.evaluation.studies.labels import LabelAdherence
from opensora_demo.evaluation.studies.negative_prompts import negative_words, open_caption
from opensora_demo.evaluation.studies.photo import natural_picture
from opensora_demo.evaluation.studies.speed import STRAIGHT, knows_fps, rates_of, speeds_of, straight_speed
from opensora_demo.evaluation.studies.steps import (
    deterministic,
    name_of,
    run_with_latents,
    usual_samplers,
    with_sampler,
)
from opensora_demo.evaluation.study import (
    STUDIES,
    Study,
    fingerprint,
    measure_into,
    merged,
    plain,
    read_study,
    run_study,
    studies_of,
    write_study,
)
from opensora_demo.frames import to_frames
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.sampling.config import IddpmConfig, RectifiedFlowConfig
from opensora_demo.text.labels import Labels
from opensora_demo.toy.captions import BACKGROUND_PHRASES, COLOUR_WORDS
from opensora_demo.toy.reader import Detection, Reader, at_reading_size, find_objects, load_reader, read_clips
from opensora_demo.toy.worlds import SPEED_PX_S, Scene, render, sample_scene
from opensora_demo.weights.store import ASSETS

T = TypeVar("T")
SCENE = Scene(shape="ball", colour="red", motion="right", background="sea", seed=4)
FEW = Counts(
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
def measured(quick: ModelBundle, reader: Reader) -> Study:
    study = run_study(quick, reader, FEW)
    speed = present(study.fps)
    (rate,) = speed.rates
    assert rate.fps == 8
    return replace(study, fps=replace(speed, rates=(rate, replace(rate, fps=24))))  # the others would only take time


@pytest.fixture(scope="module")
def shipped() -> Study:
    """What the card of the model in assets was written from."""
    return read_study(ASSETS / "nano" / "study.json")


def present(part: T | None) -> T:
    assert part is not None
    return part


plots = pytest.mark.skipif(
    find_spec("matplotlib") is None and not os.environ.get("CI"), reason="matplotlib is not installed"
)


# --- the reader


@pytest.mark.slow
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


def test_colourfulness() -> None:
    grey, red = np.full((2, 4, 4, 3), 90, np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert asdict(Colours.of(grey)) == {"saturation": 0, "chroma": 0, "contrast": pytest.approx(0), "clipped": 0}
    assert asdict(Colours.of(red)) == {"saturation": 1, "chroma": 1, "contrast": pytest.approx(0), "clipped": 1}


@pytest.mark.parametrize("fps", [4, 24])
@pytest.mark.parametrize("speed", ["slow", "fast"])
@pytest.mark.slow
def test_speed_is_measured_within_a_tenth(reader: Reader, fps: int, speed: str) -> None:
    """The reader and the slope together; a single clip's speed varies by 6 % by design."""
    rng = np.random.default_rng(1)
    scenes = [
        replace(sample_scene(rng, held_out=None), motion=m, speed=speed, fps=fps, size="medium")
        for m in STRAIGHT
        for _ in range(2)
    ]
    found = speeds_of(reader, [render(s)[0] for s in scenes], scenes)
    assert np.mean(found) == pytest.approx(SPEED_PX_S[speed], rel=0.1)


def test_speed_against_the_asked_direction_is_negative_and_bad_frames_do_not_matter() -> None:
    x = 20 + 1.5 * np.arange(17)
    x[5], x[9] = 60, np.nan
    detection = Detection(
        shape="ball", colour="red", motion="right", confidence={}, area=np.full(17, 0.03),
        centre_px=np.stack([x, np.full(17, 30.0)], 1),
    )  # fmt: skip
    assert straight_speed(detection, "right", 8) == pytest.approx(12)
    assert straight_speed(detection, "left", 8) == pytest.approx(-12)
    assert straight_speed(detection, "up", 8) == pytest.approx(0)
    assert math.isnan(straight_speed(replace(detection, centre_px=np.full((17, 2), np.nan)), "up", 8))
    assert math.isnan(straight_speed(replace(detection, area=np.full(17, 0.9)), "up", 8))


def test_flicker_of_rendered_clips_is_zero_and_of_noise_is_not(reader: Reader) -> None:
    rng = np.random.default_rng(3)
    clips = [render(sample_scene(rng, held_out=None))[0] for _ in range(6)]
    clips.append(render(SCENE, 16, 128)[0])
    for clip, objects in zip(clips, find_objects(reader, clips), strict=True):
        assert flicker(clip, objects) == pytest.approx(0, abs=1e-3)
        noise = np.clip(clip + rng.normal(0, 8, clip.shape), 0, 255).astype(np.uint8)
        assert flicker(noise, objects) > 4
        assert background_psnr(clip, clip[:1], objects) > 60
        assert background_psnr(255 - clip, clip[:1], objects) < 25
    assert math.isnan(flicker(clips[0], np.ones((17, 64, 64), np.float32)))


def test_objects_are_found_where_they_are_drawn(reader: Reader) -> None:
    clip, alpha = render(SCENE)
    (found,) = find_objects(reader, [clip])
    drawn = alpha > 127
    assert found[drawn].mean() > 0.9
    assert found[~drawn].mean() < 0.03


def test_a_natural_picture_has_the_spectrum_of_photographs() -> None:
    picture = natural_picture(np.random.default_rng(0), 120, 160)
    assert picture.shape == (120, 160, 3)
    grey = picture.astype(float).mean(-1)
    amplitude = np.abs(np.fft.fft2(grey - grey.mean()))
    assert 4 < amplitude[4, 1:4].mean() / amplitude[32, 1:4].mean() < 16  # 1 / frequency: 8


# --- prompts


def test_open_captions_leave_out_one_thing() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(20)]
    for scene in (*scenes, replace(scenes[0], background="white", colour="white")):
        placed = open_caption(scene, rng, "colour")
        coloured = open_caption(scene, rng, "background")
        assert any(phrase in placed for phrase in BACKGROUND_PHRASES[scene.background])
        assert any(word in coloured for word in COLOUR_WORDS[scene.colour])
        assert not any(phrase in coloured for phrase in BACKGROUND_PHRASES[scene.background])
        if scene.background in ("black", "night", "checkerboard"):  # those whose phrases name no object's colour
            words = placed.replace(",", " ").split()
            assert not any(word in words for word in COLOUR_WORDS[scene.colour])
    on_white = open_caption(replace(SCENE, background="white"), rng, "colour")
    assert "white" in on_white
    assert "red" not in on_white.split()
    assert negative_words(SCENE, "colour", "orange") == {"word": "orange", "caption": "an orange ball"}
    assert negative_words(SCENE, "background", "sky")["caption"] == "a ball in the sky"


def test_more_scales_than_one_request_takes_share_the_noise(quick: ModelBundle) -> None:
    raw = {"prompt": "a red ball", "seed": 3}
    seven = clips_at(quick, raw, (1, 2, 3, 4, 5, 6, 7))
    assert list(seven) == [1, 2, 3, 4, 5, 6, 7]
    alone = clips_at(quick, raw, (3,))[3]
    assert np.abs(seven[3].astype(int) - alone).max() <= 1


# --- the model


def test_a_sampler_is_exchanged_without_touching_the_model(quick: ModelBundle) -> None:
    other = RectifiedFlowConfig(shift="1.3")
    changed = with_sampler(quick, other)
    assert changed.spec.sampler == changed.family.sampler == other  # type: ignore[attr-defined]
    assert quick.family.sampler == quick.spec.sampler == NANO.sampler  # type: ignore[attr-defined]
    assert changed.family.network is quick.family.network  # type: ignore[attr-defined]


def test_latents_are_those_the_clip_was_decoded_from(quick: ModelBundle) -> None:
    request = parse_request({"prompt": "a red ball", "seed": 3}, model_id="nano", limits=quick.spec.limits)
    clip, latents = run_with_latents(quick, request)
    with torch.inference_mode():
        decoded = torch.cat(list(quick.codec.decode_chunks(latents, 9)), 2)
    assert np.abs(to_frames(decoded[0]).astype(int) - clip).max() == 0


@pytest.mark.thorough
def test_everything_is_measured(measured: Study) -> None:
    names = {study.name for study in STUDIES}
    assert len(names) == len(STUDIES)
    assert names <= {field.name for field in fields(Study)}
    of_text = [study for study in STUDIES if study is not LabelAdherence]  # of models that know classes alone
    assert set(measured.seconds) == set(measured.dates) == {study.name for study in of_text}
    assert [type(part) for part in measured.parts] == of_text
    assert measured.settings.steps == 1
    assert [row.scale for row in present(measured.guidance).scales] == [1, 4]
    consistency, codec, photo = present(measured.consistency), present(measured.codec), present(measured.photo)
    assert consistency.rendered.mean == pytest.approx(0, abs=1e-3)
    assert (consistency.generated.mean or 0) > 0
    assert 20 < present(codec.two_objects.object) < present(codec.two_objects.mean) < 50
    assert present(measured.fps).rates[0].rendered_ratio == pytest.approx(1, abs=0.1)
    assert present(measured.fps).rates[0].unguided_ratio is not None
    assert present(measured.negative).colour.same_noise.without.still_there == 1  # by definition
    assert photo.finite == 1


@pytest.mark.thorough
def test_a_study_comes_back_from_its_file(measured: Study, tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    write_study(measured, file)
    assert read_study(file) == measured
    write_study(replace(measured, photo=None), file)
    assert read_study(file) == replace(measured, photo=None)
    assert "photo" not in json.loads(file.read_text())
    file.write_text(file.read_text().replace("all_right", "all_wrong"))
    with pytest.raises(ValidationError, match="all_right"):
        read_study(file)


def test_what_could_not_be_measured_is_none() -> None:
    assert plain({"a": math.nan, "b": (math.inf, 0.123456), "c": [np.float64(2), True, 3]}) == {
        "a": None,
        "b": [None, 0.1235],
        "c": [2.0, True, 3],
    }


@pytest.mark.thorough
def test_more_steps_come_nearer_the_fine_solution(measured: Study) -> None:
    own, euler = present(measured.steps).samplers
    assert present(own.rows[0].distance) > present(own.rows[1].distance) > 0
    assert euler.rows[0].distance == own.rows[0].distance  # a first step has no step before it
    assert [of.sampler for of in (own, euler)] == [name_of(s) for s in usual_samplers(NANO)]


def test_diffusion_that_draws_noise_has_no_solution_to_be_near() -> None:
    assert deterministic(RectifiedFlowConfig())
    assert deterministic(IddpmConfig(method="ddim"))
    assert not deterministic(IddpmConfig(method="ddim", eta=0.5))
    assert not deterministic(IddpmConfig())
    assert name_of(IddpmConfig(method="ddim", eta=0.5)) == "IDDPM, ddim, eta 0.5"


def test_what_a_model_has_not_is_skipped(quick: ModelBundle) -> None:
    limits = replace(quick.spec.limits, reference=False, fps=replace(quick.spec.limits.fps, low=8, high=8))
    other = replace(quick, spec=replace(quick.spec, limits=limits))
    assert {study.name for study in STUDIES} - {study.name for study in studies_of(other.spec)} == {
        "labels",
        "reference",
        "photo",
    }
    assert knows_fps(quick.spec)
    assert rates_of(quick.spec, (2, 4, 24, 60)) == [4, 24]
    assert not knows_fps(other.spec)
    assert rates_of(other.spec, (4, 24)) == [8]


@pytest.mark.thorough
def test_a_model_of_another_size_is_measured(quick: ModelBundle, reader: Reader) -> None:
    limits = replace(quick.spec.limits, sizes=square(192))
    large = replace(quick, spec=replace(quick.spec, limits=limits))
    study = run_study(large, reader, FEW, only=["consistency", "photo"])
    assert (study.settings.frames, study.settings.size_px) == (9, 192)
    assert {part.name for part in study.parts} == {"consistency", "photo"}
    assert present(study.consistency).generated.measured == 1
    with pytest.raises(ValueError, match="squares"):
        clip_size(replace(quick.spec, limits=replace(limits, sizes=(replace(limits.sizes[0], height_px=64),))))


NO_CODEC = CodecFidelity(
    clips=9,
    one_object=Fidelity(pooled=31.4159, mean=None, object=2),
    two_objects=Fidelity(pooled=1, mean=1, object=1),
)


def test_parts_are_merged_only_into_those_of_the_same_weights(shipped: Study) -> None:
    head = Study(
        model=shipped.model,
        weights=shipped.weights,
        device=shipped.device,
        settings=shipped.settings,
        dates={"codec": "2000-01-01"},
        seconds={"codec": 1.0},
        codec=NO_CODEC,
    )
    both = merged(shipped, head)
    assert both.codec == NO_CODEC
    assert both.fps == shipped.fps
    assert both.seconds["fps"] == shipped.seconds["fps"]
    assert both.dates["codec"] == "2000-01-01"
    assert merged(replace(shipped, weights="others"), head) == head


def test_a_stopped_study_goes_on(quick: ModelBundle, reader: Reader, tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    measure_into(file, quick, reader, FEW, ["codec"])
    study = measure_into(file, quick, reader, FEW, ["photo"])
    assert [part.name for part in study.parts] == ["photo", "codec"]
    assert study == read_study(file)


@pytest.mark.parametrize("model", [NANO, NANO_DIT, NANO_MMDIT], ids=lambda spec: spec.id)
def test_the_cards_are_what_their_studies_say(model: ModelSpec) -> None:
    """The committed card, word for word and number for number, from the committed numbers."""
    assert isinstance(model.weights, WeightFiles)
    folder = ASSETS / model.weights.folder
    study = read_study(folder / "study.json")
    assert study.weights == fingerprint(model)
    assert study.to_json() == json.loads((folder / "study.json").read_text())  # nothing is dropped in reading
    pictures = [file.name for file in folder.glob("*.png")]
    assert card_text(model, study, read_training(model, folder), pictures) == (folder / "README.md").read_text()


def test_a_share_of_the_counts() -> None:
    counts = Counts().times(0.01)
    assert (counts.prompts, counts.speed, counts.seeds, counts.fine_steps) == (2, 1, 4, 200)
    assert counts.scales == Counts().scales


# --- card and plots

TRAINING = {
    "network": PartTraining(
        parameters=18_700_000, bytes=18_700_000, files=("dit.safetensors",), step="777", seconds="7200",
        command="python -m x", data="rendered", license="Apache-2.0",
    ),
}  # fmt: skip


def test_the_card_holds_the_measured_numbers(shipped: Study) -> None:
    scores = Scores(shape=1, colour=1, motion=0.1234, background=1, all_right=0.7342)
    speed = present(shipped.fps)
    slow, fast = replace(speed.rates[0], ratio=None), replace(speed.rates[1], ratio=1.77)
    study = replace(
        shipped,
        adherence=replace(present(shipped.adherence), new_prompts=scores),
        codec=NO_CODEC,
        fps=replace(speed, rates=(slow, fast)),
    )
    text = card_text(NANO, study, TRAINING)
    assert NANO.title in text
    for number in ("73 %", "31.4", "1.77", "777", "2.0 h", "18.70 M", "width 256", "Apache-2.0"):
        assert number in text, number
    assert ".png" not in text
    assert "27 % of clips miss" in text
    assert "motion is right least often (12 %)" in text
    assert "Speed is 1.77 times" in text
    assert "None" not in text.replace("scale None", "")
    assert "nan" not in text.replace("nano", "")


def test_the_card_is_silent_about_what_was_not_measured(shipped: Study) -> None:
    only = replace(shipped, **{part.name: None for part in shipped.parts if part.name != "codec"})
    text = card_text(NANO, only, {})
    assert "## Codec" in text
    assert not {"## Guidance", "## Steps", "## A given first frame", "## Licence"} & set(text.splitlines())
    assert len(limits_of(NANO, only)) == 1


@pytest.mark.thorough
def test_chapters_that_share_a_heading_have_it_once(measured: Study) -> None:
    assert card_text(NANO, measured, {}).count("## Codec and flicker") == 1
    assert card_text(NANO, replace(measured, codec=None), {}).count("## Codec and flicker") == 1
    alone = card_text(NANO, replace(measured, reference=None), {})
    assert (
        alone.count("pictures of no toy world") == card_text(NANO, measured, {}).count("pictures of no toy world") == 1
    )


def test_training_is_read_from_the_files(tmp_path: Path, nano: ModelBundle) -> None:
    training = read_training(NANO, ASSETS / "nano")
    assert set(training) == {"network", "codec", "text"}
    family: Any = nano.family
    assert training["network"].parameters == sum(v.numel() for v in family.network.state_dict().values())
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
@pytest.mark.thorough
def test_plots_are_small_pictures(measured: Study, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"step": s, "loss": 1 / s, "psnr": s / 9}) for s in range(20, 2000, 20)))
    card = write_card(NANO, tmp_path, measured, TRAINING, {"VAE": log})
    for name in ("guidance", "fps", "steps", "training"):
        picture = (tmp_path / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 60_000
        assert f"({name}.png)" in card.read_text()
    speed = present(measured.fps)
    one_rate = replace(measured, fps=replace(speed, rates=speed.rates[:1]))
    assert [file.name for file in write_plots(one_rate, tmp_path / "other")] == ["guidance.png", "steps.png"]


@pytest.mark.slow
def test_labels_are_measured_and_clips_of_none(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes, two clips each at every scale, the same noises; then two of a prompt that names none."""
    seen: list[tuple[str, int, tuple[float, ...]]] = []

    def fewer(bundle: ModelBundle, raw: dict[str, Any], scales: tuple[float, ...]) -> Any:
        seen.append((raw["prompt"], raw["seed"], scales))
        return clips_at(bundle, {**raw, "steps": 2}, scales)

    monkeypatch.setattr(labels, "clips_at", fewer)
    bundle = build_bundle(find_model("nano-class"))
    two = replace(bundle, spec=replace(bundle.spec, labels=bundle.spec.labels[:2]))
    found = LabelAdherence.measure(Setup(bundle=two, reader=reader, counts=replace(FEW, adherence=1)))
    assert list(found.right) == list(found.of_none) == ["ball", "square"]
    assert all(len(shares) == len(labels.SCALES) for shares in found.right.values())
    assert [(prompt, seed) for prompt, seed, _ in seen] == [
        (prompt, seed) for prompt in ("ball", "square", labels.NO_CLASS) for seed in range(2)
    ]
    assert [scales for *_, scales in seen] == [labels.SCALES] * 4 + [(1.0,)] * 2
    assert Labels(dict(NANO_CLASS.labels)).read(labels.NO_CLASS)[0] == len(NANO_CLASS.labels)


def test_a_model_of_labels_is_measured_by_its_labels() -> None:
    names = {study.name for study in studies_of(NANO_CLASS)}
    assert names == {"reader", "labels", "codec"}
    assert "labels" not in {study.name for study in studies_of(find_model("nano"))}
    share = {name: (0.5, 0.6, 0.8, 0.7) for name, _ in NANO_CLASS.labels}
    found = LabelAdherence(
        clips=10,
        scales=(1.0, 2.0, 4.0, 7.0),
        right=share | {"star": (0.1, 0.2, 0.3, 0.4)},
        of_none=dict.fromkeys(share, 0.14),
    )
    assert found.mean_right(4) == pytest.approx((6 * 0.8 + 0.3) / 7)
    (limit,) = found.limits(NANO_CLASS, None)  # type: ignore[arg-type]
    assert "73 %" in limit
    assert "star is right least often (30 %)" in limit
    lines = found.chapter(NANO_CLASS, None, ())  # type: ignore[arg-type]
    assert "| star | 10 % | 20 % | 30 % | 40 % | 14 % |" in lines
