"""A toy-sized nano, trained from nothing: the whole road from rendered clips to measured adherence."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opensora_demo.catalog.nano import CODEC, FILES, NANO, NETWORK, TEXT
from opensora_demo.frames import to_video
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.toy.captions import build_tokenizer, caption
from opensora_demo.toy.reader import load_reader, read_clips
from opensora_demo.toy.worlds import Scene, render, sample_scene
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import LoopConfig, load_ema, train
from opensora_demo.training.pool import load_codec, normalisation, raw_latents
from opensora_demo.training.train_network import STDiT3Job, TextToVideo
from opensora_demo.weights.store import ASSETS

FRAMES = 9
TOY = replace(
    NANO,
    network=replace(NETWORK, width=64, depth=2, heads=2, text_channels=64),
    text=replace(TEXT, width=64, layers=1, heads=2, hidden=128),
)
PARTS = {"network": "dit.safetensors", "text": "text.safetensors"}


def scenes(count: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [replace(sample_scene(rng, fps=8), motion="still", size="large") for _ in range(count)]


def adherence(folder: Path, both: TextToVideo) -> dict[str, float]:
    """Share of held-out prompts whose colour and background the reader finds in the clip."""
    for name, part in both.parts().items():
        save_shards(part.state_dict(), [folder / PARTS[name]], {})
    files = replace(
        FILES,
        folder=str(folder),
        network=(PARTS["network"],),
        text=(PARTS["text"],),
        codec=tuple(str(ASSETS / "nano" / name) for name in FILES.codec),
        preview=str(ASSETS / "nano" / FILES.preview),
    )
    bundle = build_bundle(replace(TOY, weights=files))
    rng, shown = np.random.default_rng(2), scenes(16, seed=1)
    clips = []
    for seed, scene in enumerate(shown):
        raw = {"prompt": caption(scene, rng), "seed": seed, "guidance": 3, "steps": 6, "frames": FRAMES}
        clips.append(run(bundle, parse_request(raw, model_id=TOY.id, limits=TOY.limits)).clips[0].frames)
    right = [r.matches(s) for r, s in zip(read_clips(load_reader(), clips), shown, strict=True)]
    return {name: float(np.mean([r[name] for r in right])) for name in ("colour", "background")}


@pytest.mark.slow
@pytest.mark.thorough
def test_a_toy_model_learns_to_follow_prompts(tmp_path: Path) -> None:
    build_tokenizer(str(tmp_path / "tokenizer.json"))
    codec = load_codec(CODEC, tuple(ASSETS / "nano" / name for name in FILES.codec))
    pool, shown = tmp_path / "pool", scenes(96, seed=0)
    pool.mkdir()
    clips = [to_video(render(s, FRAMES, 128)[0][None]) for s in shown]
    latents = torch.cat([raw_latents(codec, torch.cat(clips[at : at + 16])) for at in range(0, len(clips), 16)])
    np.save(pool / "0000.npy", latents.half().numpy())
    (pool / "0000.json").write_text(json.dumps([asdict(s) for s in shown]))

    def job() -> STDiT3Job:
        return STDiT3Job(TOY, tmp_path / "tokenizer.json", pool, *normalisation(codec), batch=24, short_share=0.0)

    before = adherence(tmp_path, job().model)
    config = LoopConfig(run_dir=tmp_path / "run", steps=160, cooldown=80, lr=1e-2, ema_decay=0.97, workers=1)
    train(job, config)
    curve = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert curve[-1] < 0.6 * curve[0]
    after = TextToVideo(TOY, tmp_path / "tokenizer.json")
    load_ema(tmp_path / "run", after)
    reached = adherence(tmp_path, after)
    assert before["background"] < 0.4
    assert reached["background"] > before["background"] + 0.4
    assert reached["colour"] > before["colour"]
