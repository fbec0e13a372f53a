"""Clips rendered in the background, and a few minutes of training by the clock, in tiny form."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opensora_demo.catalog.nano import CODEC, FILES, NANO, NANO_DIT, NETWORK, TEXT
from opensora_demo.codecs.video_vae import VideoVAE
from opensora_demo.toy.captions import build_tokenizer
from opensora_demo.toy.rendering import (
    RenderConfig,
    Renderers,
    draw_scenes,
    read_shard,
    render_scenes,
    waiting,
    write_shard,
)
from opensora_demo.toy.worlds import render
from opensora_demo.training import sprint
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import LoopConfig, load_ema, train
from opensora_demo.training.pool import load_codec
from opensora_demo.training.recipes import RECIPES, Recipe, StageNumbers
from opensora_demo.training.train_network import NetworkJob, STDiT3Job, TextToVideo
from opensora_demo.weights.reading import read_state
from opensora_demo.weights.store import ASSETS

CFG = RenderConfig(frames=17, size_px=64, latent=(5, 8, 8), pairs=0.5, seed=3, clips=3)


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    scenes = draw_scenes(CFG, 4)
    shard = render_scenes(CFG, scenes)
    write_shard(tmp_path / "000004.npz", shard)
    back = read_shard(tmp_path / "000004.npz")
    assert back.scenes == scenes == draw_scenes(CFG, 4)
    assert draw_scenes(CFG, 5) != scenes
    assert np.array_equal(back.clips, shard.clips)
    assert np.array_equal(back.clips[1], render(scenes[1])[0])
    assert back.shares.shape == (3, 2, 5, 8, 8)
    assert [p.name for p in waiting(tmp_path)] == ["000004.npz"]


def test_rendering_needs_no_torch() -> None:
    code = "import sys, opensora_demo.toy.rendering; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_renderers_fill_a_folder_up_to_its_limit_and_stop(tmp_path: Path) -> None:
    with Renderers(CFG, tmp_path, 2, first=10, limit=3) as renderers:
        found = renderers.wait(3)
        assert all(read_shard(file).scenes == draw_scenes(CFG, int(file.stem)) for file in found)
        for file in found:
            file.unlink()
        again = renderers.wait(3)  # room was made
        assert not {f.name for f in again} & {f.name for f in found}
        processes = renderers._processes
    assert all(process.poll() is not None for process in processes)
    assert len(waiting(tmp_path)) <= 3 + 2
    assert not list(tmp_path.glob("*.part"))


def test_renderers_that_end_are_noticed(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="renders has ended"),
        Renderers(replace(CFG, latent=(5, 7, 8)), tmp_path, 1) as renderers,  # 64 px do not divide by 7
    ):
        renderers.wait()


def test_a_light_checkpoint_goes_on(tmp_path: Path) -> None:
    class Line:
        def __init__(self) -> None:
            self.model = torch.nn.Linear(32, 32)

        def loss(
            self, rng: np.random.Generator, generator: torch.Generator, step: int
        ) -> tuple[torch.Tensor, dict[str, float]]:
            x = torch.randn(64, 32, generator=generator)
            return (self.model(x) - x).square().mean(), {}

    cfg = LoopConfig(run_dir=tmp_path, steps=40, cooldown=1, lr=0.02, warmup=5, workers=1, log_every=5, light=True)
    train(Line, cfg)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert "optimiser" not in saved
    assert saved["ema"]["weight"].dtype == torch.float16
    train(Line, replace(cfg, steps=80))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 80
    assert rows[8]["loss"] < 1.5 * rows[7]["loss"]  # the first after it was taken up again
    assert rows[-1]["loss"] < rows[7]["loss"]
    model = Line().model
    assert load_ema(tmp_path, model)["step"] == 80
    assert model.weight.dtype == torch.float32


def test_what_a_sprint_keeps_is_small_enough(tmp_path: Path) -> None:
    """Of the real nano: a checkpoint, and everything in 8 bits."""
    from opensora_demo.training.loop import halved

    both = TextToVideo(NANO, sprint.asset(FILES, FILES.tokenizer))
    state = halved(both.state_dict())
    again = halved({name: value + 1 for name, value in both.state_dict().items()})
    torch.save({"model": state, "ema": again, "step": 1}, tmp_path / "checkpoint.pt")
    for name, part in both.parts().items():
        save_shards(part.state_dict(), [tmp_path / file for file in getattr(FILES, name)], {})
    save_shards(VideoVAE(CODEC).state_dict(), [tmp_path / file for file in FILES.codec], {})
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert 40_000_000 < size < sprint.MAX_FOLDER_BYTES - 200_000


TINY_CODEC = replace(
    CODEC,
    image=replace(CODEC.image, block_channels=(8, 8, 16), decoder_layers=1),
    temporal=replace(CODEC.temporal, filters=8, norm_groups=4, decoder_extra=()),
)
TINY = replace(
    NANO,
    network=replace(NETWORK, width=32, depth=1, heads=2, text_channels=32),
    text=replace(TEXT, width=32, layers=1, heads=2, head_width=16, hidden=32),
    codec=TINY_CODEC,
    weights=replace(FILES, network=("dit.safetensors",), codec=("vae.safetensors",)),
)
NUMBERS = StageNumbers(steps=0, cooldown=0, lr=3e-3, ema_decay=0.9, batch=4)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_sprint_trains_a_codec_and_a_network_and_goes_on(tmp_path: Path) -> None:
    plan = sprint.Sprint(
        recipe=Recipe(spec=TINY, job=STDiT3Job, dit=NUMBERS, vae=NUMBERS, pairs=0.5),
        folder=tmp_path / "kept",
        scratch=tmp_path / "scratch",
        device="cpu",
        minutes=0.1,
        numbers=NUMBERS,
        workers=1,
        batch=4,
        codec_batch=1,
        compiled=False,
        render_clips=4,
    )
    first = sprint.run(plan)
    assert first["step"] >= 1
    assert first["clips"] >= 4
    names = {file.name for file in (tmp_path / "kept" / "weights").iterdir()}
    assert names == {"dit.safetensors", "text.safetensors", "tokenizer.json", "vae.safetensors"}
    codec = load_codec(TINY_CODEC, (tmp_path / "kept" / "weights" / "vae.safetensors",))
    assert isinstance(codec, VideoVAE)
    assert codec.scale.std() > 0  # measured on latents, by channel
    written = (tmp_path / "kept" / "weights" / "vae.safetensors").stat().st_mtime_ns
    second = sprint.run(replace(plan, minutes=0.05))
    assert second["step"] > first["step"]
    assert (tmp_path / "kept" / "weights" / "vae.safetensors").stat().st_mtime_ns == written
    assert not (tmp_path / "kept" / "vae").exists()
    assert first["bytes"] < sprint.MAX_FOLDER_BYTES


def test_a_sprint_without_a_codec_to_train_says_so(tmp_path: Path) -> None:
    recipe = Recipe(spec=TINY, job=STDiT3Job, dit=NUMBERS)
    plan = sprint.Sprint(
        recipe=recipe, folder=tmp_path, scratch=tmp_path / "s", device="cpu", minutes=1, numbers=NUMBERS, workers=1
    )
    assert sprint.codec_weights(plan) == ()
    assert sprint.codec_weights(replace(plan, start=tmp_path / "old")) == (tmp_path / "old" / "vae.safetensors",)
    borrowed = replace(plan, recipe=RECIPES["nano-dit"])
    assert all(file.is_file() for file in sprint.codec_weights(borrowed))
    assert RECIPES["nano-dit"].spec is NANO_DIT
    with pytest.raises(ValueError, match="no codec to train"):
        sprint.train_codec(plan, Renderers(plan.render(), tmp_path, 0), 1.0)


def job_of(model: str, folder: Path, start: Path | None) -> NetworkJob:
    """What a sprint of a model's own recipe trains, with a pool of one latent."""
    plan = sprint.Sprint(
        recipe=RECIPES[model], folder=folder, scratch=folder / "scratch", device="cpu", minutes=1, numbers=NUMBERS,
        workers=1, batch=2, compiled=False, start=start,
    )  # fmt: skip
    build_tokenizer(str(folder / "tokenizer.json"))
    codec = load_codec(CODEC, tuple(ASSETS / "nano" / name for name in FILES.codec))
    pool = sprint.FreshPool(
        codec, "cpu", folder, latents=np.zeros((1, 16, 5, 8, 8), np.float16), masks=np.zeros((1, 2, 5, 8, 8), np.uint8)
    )
    return sprint.network_job(plan, codec, pool).job


def test_a_sprint_begins_as_its_recipe_says(tmp_path: Path) -> None:
    """With another model's blocks and its teacher; from earlier weights with these, and nobody else's."""
    theirs = read_state([ASSETS / "nano-dit" / "dit.safetensors"])["blocks.1.attn.qkv.weight"]
    job = job_of("nano-class", tmp_path, None)
    assert torch.equal(job.model.dit.state_dict()["blocks.1.attn.qkv.weight"], theirs.float())
    assert job.teacher is not None
    started = job_of("nano-class", tmp_path, ASSETS / "nano-class").model.dit.state_dict()
    own = read_state([ASSETS / "nano-class" / "dit.safetensors"])
    assert all(
        torch.equal(started[name], own[name].float())
        for name in ("blocks.1.attn.qkv.weight", "blocks.1.attn.proj.bias")
    )


def test_a_sprint_leaves_an_encoder_that_can_read(tmp_path: Path) -> None:
    job = job_of("nano", tmp_path, ASSETS / "nano")
    assert not any(p.requires_grad for p in job.model.text.parameters())
    theirs = read_state([ASSETS / "nano" / name for name in FILES.text])
    name = "model.shared.weight"
    assert torch.equal(job.model.text.state_dict()[name], theirs[name].float())
    assert all(p.requires_grad for p in job.model.dit.spatial_blocks.parameters())


def test_a_pool_takes_what_is_rendered_and_forgets_the_oldest(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = VideoVAE(replace(TINY_CODEC, image=replace(TINY_CODEC.image, upscale=1))).eval()
    pool = sprint.FreshPool(codec, "cpu", tmp_path, limit=5)
    shards = [render_scenes(CFG, draw_scenes(CFG, i)) for i in range(3)]
    for i, shard in enumerate(shards):
        write_shard(tmp_path / f"{i:06d}.npz", shard)
    assert pool.take() == 3
    assert (len(pool.scenes), pool.latents.shape, pool.masks.shape) == (3, (3, 16, 5, 8, 8), (3, 2, 5, 8, 8))
    oldest = pool.latents[1].copy()
    assert pool.take(5) == 6
    assert pool.take() == 0
    assert waiting(tmp_path) == []
    assert pool.scenes == [*shards[1].scenes[1:], *shards[2].scenes]
    assert not np.array_equal(pool.latents[0], oldest)
    assert np.array_equal(pool.masks[-1], shards[2].shares[-1])
