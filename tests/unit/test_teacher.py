"""What another model says in place of one clip's noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from opensora_demo.catalog.nano import CODEC, FILES, NANO, NANO_CLASS, NANO_DIT
from opensora_demo.frames import to_video
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.toy.captions import caption
from opensora_demo.toy.prompt_words import unknown_spans
from opensora_demo.toy.worlds import render, sample_scene
from opensora_demo.training.pool import load_codec, normalisation, raw_latents
from opensora_demo.training.recipes import RECIPES
from opensora_demo.training.teacher import Lesson, Teacher
from opensora_demo.training.train_network import Batch, DiTJob, LabelJob
from opensora_demo.weights.store import ASSETS
from tests.unit.test_training import tiny_job

COUNT = 3


@pytest.fixture(scope="module")
def clips() -> Batch:
    """Rendered clips of 8 FPS in nano's latents, with noise; the last prompt is dropped."""
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng, fps=8) for _ in range(COUNT)]
    codec = load_codec(CODEC, tuple(ASSETS / "nano" / name for name in FILES.codec))
    shift, scale = normalisation(codec)
    with torch.no_grad():
        x0 = (raw_latents(codec, to_video(np.stack([render(s, 17, 128)[0] for s in scenes]))) - shift) / scale
    return Batch(
        x0=x0,
        noise=torch.randn(x0.shape, generator=torch.Generator().manual_seed(4)),
        prompts=[caption(s, rng) for s in scenes],
        dropped=torch.arange(COUNT) == COUNT - 1,
        given=torch.zeros(COUNT, dtype=torch.bool),
        fps=torch.full((COUNT,), 8.0),
    )


def dit_job(folder: Path) -> DiTJob:
    job = tiny_job(NANO_DIT, DiTJob, folder, lesson=RECIPES["nano-dit"].lesson, bfloat16=False)
    assert isinstance(job, DiTJob)
    return job


@pytest.mark.parametrize("ratio", [0.5, pytest.param(3.0, marks=pytest.mark.thorough)])
def test_a_flow_says_what_noise_there_is_in_what_a_diffusion_made(ratio: float, clips: Batch, tmp_path: Path) -> None:
    """x = alpha x0 + sigma noise at a ratio sigma / alpha: the error, weighed as a velocity's, is what nano has."""
    job = dit_job(tmp_path)
    assert job.teacher is not None
    alpha = (1 + ratio**2) ** -0.5
    x = alpha * clips.x0 + ratio * alpha * clips.noise
    found = job.taught_noise(job.teacher, clips, x, torch.full((COUNT,), ratio))
    error = (found - clips.noise).square().mean((1, 2, 3, 4)) * (1 + ratio) ** 2
    assert float(error.max()) < 0.6


def test_a_teacher_guides_and_knows_what_is_dropped(clips: Batch) -> None:
    """The same velocities as nano's family makes of the two branches; of a dropped prompt the null one's alone."""
    bundle, t = build_bundle(NANO), torch.full((COUNT,), 0.7)
    x = 0.3 * clips.x0 + 0.7 * clips.noise
    said = Teacher(Lesson(spec=NANO, guidance=2.0)).velocity(x, t, clips.prompts, clips.dropped, clips.fps)
    plain = Teacher(Lesson(spec=NANO, guidance=1.0)).velocity(x, t, clips.prompts, clips.dropped, clips.fps)
    null = Teacher(Lesson(spec=NANO, guidance=0.0)).velocity(x, t, clips.prompts, clips.dropped, clips.fps)
    torch.testing.assert_close(said[:2], null[:2] + 2 * (plain - null)[:2], atol=1e-4, rtol=1e-4)
    assert torch.equal(said[2], null[2])
    with torch.no_grad():
        network, told = bundle.family.network, Teacher(Lesson(spec=NANO, guidance=1.0)).text(clips.prompts)
        alone = network(
            x[:1], 1000 * t[:1], network.project_text(told.y[:1], told.lengths[:1]), fps=clips.fps[:1],
            height_px=128, width_px=128,
        )  # fmt: skip
    torch.testing.assert_close(plain[:1], alone, atol=1e-4, rtol=1e-4)


def test_one_who_says_what_the_teacher_says_has_no_error(
    clips: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dit_job(tmp_path)
    teacher = job.teacher
    assert teacher is not None

    def right(x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        said = job.taught_noise(teacher, clips, x, job.ratios[timestep.long()])
        return torch.cat([said, -torch.ones_like(said)], dim=1)

    monkeypatch.setattr(job.model.dit, "forward", right)
    _, taught = job.loss_of(clips, torch.Generator().manual_seed(1))
    assert taught["error"] == pytest.approx(0.0, abs=1e-8)
    job.teacher = None  # the noise itself is another answer
    _, alone = job.loss_of(clips, torch.Generator().manual_seed(1))
    assert alone["error"] > 0.003


def test_of_a_class_a_teacher_reads_the_shape_alone(tmp_path: Path) -> None:
    job = tiny_job(NANO_CLASS, LabelJob, tmp_path)
    assert isinstance(job, LabelJob)
    batch = job.draw(np.random.default_rng(0), torch.Generator().manual_seed(0), short=False)
    assert job.taught_prompts(batch) == [f"a {scene.objects[0].shape}" for scene in batch.scenes]
    assert all(unknown_spans(NANO, prompt) == [] for prompt in job.taught_prompts(batch))
