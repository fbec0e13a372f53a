"""The training code: the optimiser, the schedule, resuming, and the reader that measures the result."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from opensora_demo.catalog.nano import CODEC, NETWORK, TEXT
from opensora_demo.codecs.video_vae import VideoVAE
from opensora_demo.training import pool
from opensora_demo.training.adherence import format_table, held_out_prompts, reader_table, score
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import LoopConfig, learning_rate, load_ema, train
from opensora_demo.training.muon import Muon, orthogonalise
from opensora_demo.training.reader import ATTRIBUTES, halves, load_reader, read_clips
from opensora_demo.training.train_dit import Started, TextToVideo, draw_times, read_words
from opensora_demo.training.train_dit import grow as grow_dit
from opensora_demo.training.train_vae import VaeJob
from opensora_demo.training.train_vae import grow as grow_vae
from opensora_demo.training.worlds import Scene, path, render, sample_scene


class LineJob:
    """A matrix and a vector that have to find y = A x + b."""

    def __init__(self) -> None:
        self.model = nn.Linear(24, 24)
        generator = torch.Generator().manual_seed(9)
        self.a = torch.randn(24, 24, generator=generator) / 5

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(64, 24, generator=generator)
        return (self.model(x) - x @ self.a - 0.5).square().mean(), {"step_seen": float(step)}


def config(folder: Path, **changes: object) -> LoopConfig:
    base = LoopConfig(run_dir=folder, steps=60, cooldown=20, lr=0.02, warmup=5, workers=1, log_every=10, ema_decay=0.9)
    return replace(base, **changes)  # type: ignore[arg-type]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((32, 96), (96, 32), (40, 40)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.max() < 1.35
        assert values.median() > 0.6


def test_muon_takes_matrices_and_leaves_the_rest_to_adamw() -> None:
    net = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32))
    groups = Muon(net.named_parameters(), lr=0.01).param_groups
    assert [len(g["params"]) for g in groups] == [1, 3]


def test_learning_rate_rises_holds_drops_and_falls() -> None:
    cfg = config(Path("."), steps=100, cooldown=20, warmup=10, lr=1.0, drops=((50, 0.5),))
    assert learning_rate(cfg, 0) == pytest.approx(0.1)
    assert learning_rate(cfg, 30) == 1.0
    assert learning_rate(cfg, 60) == 0.5
    assert learning_rate(cfg, 90) == pytest.approx(0.25)
    assert learning_rate(cfg, 99) == pytest.approx(0.025)


def test_training_lowers_the_loss_and_the_average_is_good(tmp_path: Path) -> None:
    train(LineJob, config(tmp_path, steps=200, cooldown=80))
    curve = losses(tmp_path)
    assert curve[-1] < 0.02 * curve[0]
    job = LineJob()
    load_ema(tmp_path, job.model)
    assert float(job.loss(np.random.default_rng(0), torch.Generator().manual_seed(1), 0)[0].detach()) < 0.05


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    train(LineJob, config(tmp_path, steps=30))
    train(LineJob, config(tmp_path, steps=60))
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [10, 20, 30, 40, 50, 60]
    curve = losses(tmp_path)
    assert curve[3] < curve[0]
    assert load_ema(tmp_path, LineJob().model)["step"] == 60
    train(LineJob, config(tmp_path, steps=60))  # a finished run is left alone
    assert load_ema(tmp_path, LineJob().model)["step"] == 60


@pytest.mark.slow
def test_two_workers_agree(tmp_path: Path) -> None:
    train(partial(LineJob), config(tmp_path, workers=2))
    curve = losses(tmp_path)
    assert curve[-1] < 0.5 * curve[0]


def test_the_reader_reads_rendered_clips() -> None:
    own = reader_table(load_reader(), 512)
    for name in ATTRIBUTES:
        assert own[name] >= 0.985, own


def test_the_reader_reads_two_objects() -> None:
    own = reader_table(load_reader(), 256, pairs=1.0)
    for name in (*ATTRIBUTES, "arrangement"):
        assert own[name] >= 0.97, own


def test_halves_share_the_frame() -> None:
    parts = halves(torch.tensor([0, 1, 2]), 8)
    assert torch.equal(parts.sum(1), torch.ones(3, 8, 8))
    assert parts[0, 1].sum() == 0
    assert parts[1, 0, 5, 1] == parts[1, 1, 5, 6] == 1
    assert parts[2, 0, 1, 5] == parts[2, 1, 6, 5] == 1


def test_the_reader_finds_the_object() -> None:
    reader = load_reader()
    scene = Scene(shape="star", colour="yellow", motion="circle", background="night", seed=8)
    (reading,) = read_clips(reader, [render(scene)[0]])
    (seen,) = reading.objects
    assert np.abs(seen.centre_px - path(scene).centre_px).max() < 1.5
    assert reading.matches(scene) == dict.fromkeys((*ATTRIBUTES, "arrangement"), 1.0)
    with pytest.raises(ValueError, match="reader reads 17 frames"):
        read_clips(reader, [render(scene)[0][:5]])


def test_scores_count_what_is_right() -> None:
    reader = load_reader()
    scene = Scene(shape="ball", colour="red", motion="left", background="black", seed=2)
    clip = render(scene)[0]
    wrong = replace(scene, colour="blue", motion="up")
    table = score(reader, [(scene, clip), (wrong, clip)])
    assert table == {"shape": 1.0, "colour": 0.5, "motion": 0.5, "background": 1.0, "all four": 0.5}
    assert "| 4 | 100 % | 50 % |" in format_table({"4": table})


def test_scores_of_two_objects_count_each() -> None:
    reader = load_reader()
    ball = Scene(shape="ball", colour="red", motion="up", background="black", seed=2, room="left")
    star = Scene(shape="star", colour="blue", motion="still", background="black", seed=3, room="right")
    scene = replace(ball, companion=star)
    clip = render(scene)[0]
    assert score(reader, [(scene, clip)])["everything"] == 1.0
    table = score(reader, [(replace(scene, companion=replace(star, colour="green")), clip)])
    assert (table["colour"], table["shape"], table["everything"]) == (0.5, 1.0, 0.0)
    above = replace(ball, room="top", companion=replace(star, room="bottom"))
    table = score(reader, [(above, clip)])
    assert (table["arrangement"], table["everything"]) == (0.0, 0.0)


def test_a_grown_vae_starts_as_the_one_it_grew_from() -> None:
    image, temporal = CODEC.image, CODEC.temporal
    small = VideoVAE(
        replace(CODEC, image=replace(image, decoder_layers=0), temporal=replace(temporal, decoder_extra=()))
    ).eval()
    large = VideoVAE(CODEC).eval()
    grow_vae(large, small.state_dict())
    z = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(large.decode(z, 5), small.decode(z, 5), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="no place for"):
        grow_vae(small, large.state_dict())


def test_training_the_decoder_leaves_the_latents_alone() -> None:
    job = VaeJob(CODEC, 0, 0, decoder_only=True, batch=1)
    loss, _ = job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), 0)
    loss.backward()
    trained = {name for name, p in job.model.named_parameters() if p.grad is not None}
    assert trained
    assert all("decoder" in name or "post_quant" in name for name in trained)


def test_embeddings_go_with_their_words(tmp_path: Path) -> None:
    """A tokenizer with more words: those that both know keep their features, new ones start from a look-alike."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "red": 3, "ball": 4}
    files = []
    for name, words in (("old", vocabulary), ("new", vocabulary | {"ball": 5, "sphere": 4})):
        files.append(tmp_path / f"{name}.json")
        model = {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}
        split = {"type": "WhitespaceSplit"}
        files[-1].write_text(json.dumps({"version": "1.0", "added_tokens": [], "pre_tokenizer": split, "model": model}))
    old, new = files
    assert read_words(new)["sphere"] == 4
    torch.manual_seed(1)
    tiny = replace(NETWORK, width=32, depth=1, heads=2, text_channels=32)
    text = replace(TEXT, vocabulary=8, width=32, heads=2, head_width=16, hidden=32)
    before = TextToVideo(replace(tiny, max_tokens=8), replace(text, max_tokens=8), old)
    save_shards(before.dit.state_dict(), [tmp_path / "dit.safetensors"], {})
    save_shards(before.text.state_dict(), [tmp_path / "text.safetensors"], {})
    start = Started(network=(tmp_path / "dit.safetensors",), text=(tmp_path / "text.safetensors",), tokenizer=old)
    after = TextToVideo(replace(tiny, max_tokens=16), replace(text, max_tokens=16, vocabulary=12), new)
    grow_dit(after, start, new)
    assert after.null.shape == (16, 32)
    torch.testing.assert_close(after.null[:8], before.dit.y_embedder.y_embedding, atol=1e-3, rtol=1e-2)
    was, now = before.text(["red ball"]).y, after.text(["red ball"]).y
    torch.testing.assert_close(now, was, atol=5e-3, rtol=1e-2)
    torch.testing.assert_close(after.text(["red sphere"]).y, now)


def test_evaluation_prompts_are_the_same_every_time() -> None:
    assert held_out_prompts(20, 8) == held_out_prompts(20, 8)
    alone = [scene for scene, _ in held_out_prompts(20, 8)]
    assert alone == [scene for scene, _ in held_out_prompts(20, 8, chinese=1.0)]
    assert all(scene.companion for scene, _ in held_out_prompts(5, 8, pairs=1.0))
    assert len({p for _, p in held_out_prompts(64, 8)}) == 64


def test_times_cover_the_noisy_end() -> None:
    t = draw_times(20_000, torch.Generator().manual_seed(0), 0.3)
    assert float(t.min()) > 0
    assert float(t.max()) <= 1
    assert 0.2 < float((t > 0.8).float().mean()) < 0.3
    assert float((t > 0.95).float().mean()) > 0.03


def test_a_pool_knows_which_vae_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SHARD", 2)
    torch.manual_seed(0)
    weights = tmp_path / "vae.pt"
    torch.save(VideoVAE(CODEC).state_dict(), weights)
    pool.build_pool(CODEC, weights, tmp_path / "pool", shards=1, seed=1, workers=0)
    latents, scenes = pool.load_pool(tmp_path / "pool")
    assert latents.shape == (2, 16, 5, 8, 8)
    assert latents.dtype == np.float16
    assert len(scenes) == 2
    assert scenes[0] == sample_scene(np.random.default_rng((1, 0)))
    pool.build_pool(CODEC, weights, tmp_path / "pool", shards=1, seed=1, workers=0)  # goes on
    with pytest.raises(ValueError, match="another VAE or drawn from another seed"):
        pool.build_pool(CODEC, weights, tmp_path / "pool", shards=1, seed=2, workers=0)
    torch.save(VideoVAE(CODEC).state_dict(), weights)
    with pytest.raises(ValueError, match="another VAE"):
        pool.build_pool(CODEC, weights, tmp_path / "pool", shards=1, seed=1, workers=0)
