"""The training code: the optimiser, the schedule, resuming, and the reader that measures the result."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from opensora_demo.catalog import ModelSpec
from opensora_demo.catalog.nano import (
    CODEC,
    NANO,
    NANO_CLASS,
    NANO_CONCAT,
    NANO_DIT,
    NANO_MMDIT,
    NANO_REPLACED,
    NETWORK,
    TEXT,
)
from opensora_demo.codecs.dc_ae import DcAe, DcAeConfig
from opensora_demo.codecs.scaling import latent_std
from opensora_demo.codecs.video_vae import VideoVAE
from opensora_demo.evaluation.adherence import format_table, held_out_prompts, reader_table, score
from opensora_demo.families.adapters.dit import DiTAdapter
from opensora_demo.families.base import ConditioningFrames
from opensora_demo.families.dit import DiTFamily
from opensora_demo.models.dit import DiT
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import build_codec
from opensora_demo.text.labels import LabelEncoder
from opensora_demo.toy import captions_zh
from opensora_demo.toy.captions import SHAPE_WORDS, build_tokenizer
from opensora_demo.toy.reader import ATTRIBUTES, halves, load_reader, read_clips
from opensora_demo.toy.worlds import SHAPES, Scene, path, render, sample_scene
from opensora_demo.training import __main__ as command
from opensora_demo.training import pool
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import LoopConfig, learning_rate, load_ema, train
from opensora_demo.training.muon import Muon, orthogonalise
from opensora_demo.training.precision import half_precision
from opensora_demo.training.recipes import RECIPES
from opensora_demo.training.train_network import (
    Batch,
    DiTJob,
    LabelJob,
    MMDiTJob,
    NetworkJob,
    Objective,
    Started,
    STDiT3Job,
    TextToVideo,
    draw_times,
    read_words,
)
from opensora_demo.training.train_network import grow as grow_network
from opensora_demo.training.train_vae import DcAeJob, VaeJob, crop_clips, draw_clips
from opensora_demo.training.train_vae import grow as grow_vae
from opensora_demo.weights.reading import read_state
from opensora_demo.weights.store import ASSETS


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
    cfg = config(Path(), steps=100, cooldown=20, warmup=10, lr=1.0, drops=((50, 0.5),))
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


class BrokenJob(LineJob):
    """One batch in four has no finite gradient."""

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        loss, metrics = super().loss(rng, generator, step)
        return (loss * float("nan") if step % 4 == 1 else loss), metrics


def test_a_step_without_a_finite_gradient_is_left_out(tmp_path: Path) -> None:
    train(BrokenJob, config(tmp_path, steps=200, cooldown=80))
    job = LineJob()
    load_ema(tmp_path, job.model)
    assert float(job.loss(np.random.default_rng(0), torch.Generator().manual_seed(1), 0)[0].detach()) < 0.05


@pytest.mark.slow
@pytest.mark.thorough
def test_two_workers_agree(tmp_path: Path) -> None:
    train(partial(LineJob), config(tmp_path, workers=2))
    curve = losses(tmp_path)
    assert curve[-1] < 0.5 * curve[0]


@pytest.mark.slow
@pytest.mark.thorough
def test_the_reader_reads_rendered_clips() -> None:
    own = reader_table(load_reader(), 64)
    for name in ATTRIBUTES:
        assert own[name] >= 0.98, own


@pytest.mark.slow
@pytest.mark.thorough
def test_the_reader_reads_two_objects() -> None:
    own = reader_table(load_reader(), 32, pairs=1.0)
    for name in (*ATTRIBUTES, "arrangement"):
        assert own[name] >= 0.96, own


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
    assert all(any(part in name for part in ("decoder", "post_quant", "refine")) for name in trained)


def test_a_pool_of_a_larger_decoder_is_the_same_pool(tmp_path: Path) -> None:
    """Latents do not depend on what decodes them."""
    files = (tmp_path / "small.safetensors",), (tmp_path / "large.safetensors",)
    small = VideoVAE(CODEC)
    large = VideoVAE(replace(CODEC, image=replace(CODEC.image, decoder_layers=3)))
    grow_vae(large, small.state_dict())
    for (file,), codec in zip(files, (small, large), strict=True):
        save_file({k: v.contiguous() for k, v in codec.state_dict().items()}, file)
    assert pool.fingerprint(files[0]) == pool.fingerprint(files[1])
    with torch.no_grad():
        next(large.temporal_vae.encoder.parameters()).add_(1)
    save_file({k: v.contiguous() for k, v in large.state_dict().items()}, files[1][0])
    assert pool.fingerprint(files[0]) != pool.fingerprint(files[1])


def test_a_decoder_learns_from_a_pool_of_the_latents_that_stay(tmp_path: Path) -> None:
    """Only the frames that are compared are drawn."""
    scenes = [sample_scene(np.random.default_rng(i), pairs=1.0) for i in range(2)]
    (tmp_path / "0000.json").write_text(json.dumps([asdict(s) for s in scenes]))
    np.save(tmp_path / "0000.npy", np.random.default_rng(0).normal(size=(2, 16, 5, 8, 8)).astype(np.float16))
    config = replace(CODEC, image=replace(CODEC.image, upscale=2, refine=8))
    job = VaeJob(config, 0, 0, decoder_only=True, batch=1, decoded_frames=2, pool=tmp_path)
    loss, metrics = job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), 0)
    loss.backward()
    assert 0 < metrics["psnr"] < 30
    trained = {name for name, p in job.model.named_parameters() if p.grad is not None}
    assert any(".refine." in name for name in trained)
    assert not any("encoder" in name or ".quant_conv" in name for name in trained)


def test_training_a_larger_decoder_makes_pictures_of_its_size() -> None:
    config = replace(CODEC, image=replace(CODEC.image, upscale=2, refine=8))
    job = VaeJob(config, 0, 0, decoder_only=True, batch=1, decoded_frames=1)
    video, mask = job.clips(np.random.default_rng(0), 1)
    assert video.shape == (1, 3, 17, 128, 128)
    assert mask.shape == (1, 1, 17, 128, 128)
    loss, _ = job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), 0)
    loss.backward()
    trained = {name for name, p in job.model.named_parameters() if p.grad is not None}
    assert any(".refine." in name for name in trained)
    assert not any("encoder" in name or ".quant_conv" in name for name in trained)


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
    spec = replace(NANO, network=replace(tiny, max_tokens=8), text=replace(text, max_tokens=8))
    before = TextToVideo(spec, old)
    parts = before.parts()
    for name, part in parts.items():
        save_shards(part.state_dict(), [tmp_path / name], {})
    start = Started(parts={name: (tmp_path / name,) for name in parts}, tokenizer=old)
    grown = replace(spec, network=replace(tiny, max_tokens=16), text=replace(text, max_tokens=16, vocabulary=12))
    after = TextToVideo(grown, new)
    with torch.no_grad():
        grow_network(after, start, new)
    assert after.null.shape == (16, 32)
    torch.testing.assert_close(after.null[:8], before.null, atol=1e-3, rtol=1e-2)
    was, now = before.text(["red ball"]).y, after.text(["red ball"]).y
    torch.testing.assert_close(now, was, atol=5e-3, rtol=1e-2)
    torch.testing.assert_close(after.text(["red sphere"]).y, now)


def tiny_job(spec: ModelSpec, kind: type[NetworkJob], folder: Path, **changes: object) -> NetworkJob:
    """A job over six random latents, with the small network of `spec`."""
    build_tokenizer(str(folder / "tokenizer.json"), ("fps", "8"))
    codec = build_codec(spec.codec)
    size = codec.latent_size(spec.limits.default_frames, *spec.limits.size_px)  # type: ignore[operator]
    lone = isinstance(spec.codec, DcAeConfig)
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, fps=8) for _ in range(6)]
    (folder / "0000.json").write_text(json.dumps([asdict(s) for s in scenes]))
    latents = rng.normal(size=(6, codec.latent_channels, size[0] + lone, *size[1:]))  # type: ignore[operator]
    np.save(folder / "0000.npy", latents.astype(np.float16))
    torch.manual_seed(0)
    zero, one = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    return kind(spec, folder / "tokenizer.json", folder, zero, one, batch=3, lone=lone, **changes)  # type: ignore[arg-type]


KINDS = (
    (NANO, STDiT3Job),
    pytest.param(NANO_CONCAT, STDiT3Job, marks=pytest.mark.thorough),
    pytest.param(NANO_REPLACED, STDiT3Job, marks=pytest.mark.thorough),
    (NANO_DIT, DiTJob),
    pytest.param(NANO_CLASS, LabelJob, marks=pytest.mark.thorough),
    (NANO_MMDIT, MMDiTJob),
)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "kind"), KINDS, ids=lambda x: getattr(x, "id", ""))
def test_every_part_of_a_network_learns(spec: ModelSpec, kind: type[NetworkJob], tmp_path: Path) -> None:
    job = tiny_job(spec, kind, tmp_path, reference_share=0.5, caption_dropout=0.3)
    for p in job.model.parameters():  # zeros at the ends would stop gradients
        p.data += 0.02 * torch.randn_like(p)
    generator = torch.Generator().manual_seed(0)
    for seed in range(3):
        loss, _ = job.loss(np.random.default_rng(seed), generator, 0)
        loss.backward()
    grads = {name: p.grad for name, p in job.model.named_parameters() if name != "dit.rope.freqs"}
    still = [name for name, grad in grads.items() if grad is None or not grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize(("spec", "kind"), [(NANO, STDiT3Job), (NANO_DIT, DiTJob)], ids=lambda x: getattr(x, "id", ""))
def test_checkpointing_gives_the_same_gradients_for_less_memory(
    spec: ModelSpec, kind: type[NetworkJob], tmp_path: Path
) -> None:
    grads, held = [], []
    spec = replace(spec, network=replace(spec.network, depth=2, width=64))  # type: ignore[type-var]
    for checkpointing in (False, True):
        job = tiny_job(spec, kind, tmp_path, objective=Objective(rooms=0.1), checkpointing=checkpointing)
        for p in job.model.parameters():
            p.data += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        kept: dict[int, int] = {}  # bytes of each tensor that autograd keeps for the way back

        def keep(x: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss, _ = job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), 0)
        held.append(sum(kept.values()))
        loss.backward()
        grads.append({name: p.grad for name, p in job.model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)
    assert held[1] < 0.85 * held[0]


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "kind"), KINDS, ids=lambda x: getattr(x, "id", ""))
def test_a_network_that_is_to_be_trained_starts_at_zero(
    spec: ModelSpec, kind: type[NetworkJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs initialise the network they build: its output is exactly zero before the first step."""
    job = tiny_job(spec, kind, tmp_path)
    said: list[Tensor] = []
    job.model.dit.register_forward_hook(lambda module, args, output: said.append(output))
    job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), 0)
    assert len(said) == 1
    assert bool((said[0] == 0).all())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_are_dropped_in_their_share(share: float, tmp_path: Path) -> None:
    job = tiny_job(NANO_CLASS, LabelJob, tmp_path, caption_dropout=share)
    assert isinstance(job, LabelJob)
    job.batch = 1000
    batch = job.draw(np.random.default_rng(0), torch.Generator().manual_seed(0), short=False)
    none = job.condition(batch) == len(NANO_CLASS.labels)
    assert torch.equal(none, batch.dropped)
    assert float(none.float().mean()) == pytest.approx(share, abs=0.05 if 0 < share < 1 else 0)


@pytest.mark.parametrize(("spec", "kind"), KINDS, ids=lambda x: getattr(x, "id", ""))
def test_a_network_that_is_right_has_no_loss(
    spec: ModelSpec, kind: type[NetworkJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job asks for what its sampler takes: a network that says exactly that is at zero."""
    job = tiny_job(spec, kind, tmp_path, reference_share=0.5, bfloat16=False)
    seen: list[Batch] = []
    draw = job.draw
    monkeypatch.setattr(job, "draw", lambda *args, **named: seen.append(draw(*args, **named)) or seen[-1])

    def right(x: Tensor, *args: object, **named: object) -> Tensor:
        batch = seen[-1]
        x0 = batch.x0.clone()
        if issubclass(kind, DiTJob):  # the noise, and the smallest variance
            return torch.cat([batch.noise, -torch.ones_like(batch.noise)], dim=1)
        if kind is MMDiTJob:
            assert batch.lone is not None
            x0[batch.given, :, 0] = batch.lone[batch.given, :, 0]
            return batch.noise - x0
        return x0 - batch.noise

    monkeypatch.setattr(job.model.dit, "forward", right)
    loss, _ = job.loss_of(
        job.draw(np.random.default_rng(1), torch.Generator().manual_seed(1), False), torch.Generator()
    )
    assert float(loss) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.thorough
def test_training_a_dc_ae_lowers_its_loss() -> None:
    config = replace(NANO_MMDIT.codec, widths=(16, 32, 64), latent_channels=16)  # type: ignore[type-var]
    job = DcAeJob(config, frames=16, size_px=128, batch=1, still_share=0.2, whole_share=0.2, given_share=0.5)  # type: ignore[arg-type]
    optimiser = Muon(job.model.named_parameters(), lr=2e-3)
    curve = []
    for step in range(12):
        loss, _ = job.loss(np.random.default_rng(step), torch.Generator().manual_seed(step), step)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        curve.append(float(loss.detach()))
    assert min(curve[-3:]) < 0.7 * curve[0]


def test_crops_are_squares_of_their_clips_mostly_near_the_object() -> None:
    video = torch.arange(32 * 32).view(1, 1, 1, 32, 32).expand(40, 3, 4, 32, 32).float()
    mask = torch.zeros(40, 1, 4, 32, 32)
    mask[:, :, 1, 4:8, 24:28] = 1
    crops, shapes = crop_clips(np.random.default_rng(1), video, mask, 16)
    assert crops.shape == (40, 3, 4, 16, 16)
    assert shapes.shape == (40, 1, 4, 16, 16)
    for crop in crops[:, 0, 0]:
        torch.testing.assert_close(crop - crop[0, 0], video[0, 0, 0, :16, :16])  # one square, not moved in time
    assert (shapes.amax((1, 2, 3, 4)) > 0).float().mean() > 0.6  # a place drawn blindly sees it in one of four
    none, _ = crop_clips(np.random.default_rng(1), video, torch.zeros_like(mask), 16)
    assert none.shape == crops.shape


def test_lone_frames_come_first_where_a_codec_is_not_causal() -> None:
    torch.manual_seed(0)
    codec = DcAe(NANO_MMDIT.codec).eval()  # type: ignore[arg-type]
    video = torch.rand(1, 3, 8, 64, 64) * 2 - 1
    latents = pool.raw_latents(codec, video)
    assert latents.shape[2] == 1 + 2
    with torch.inference_mode(), half_precision("cpu"):
        torch.testing.assert_close(latents[:, :, :1], codec.encoder(video[:, :, 3:4]).float())


def test_the_factor_of_the_shipped_dc_ae_is_the_spread_of_its_latents() -> None:
    """The literal of the catalog, against what the weights say of a few of the clips that the export measures on."""
    codec = pool.load_codec(NANO_MMDIT.codec, (ASSETS / "nano-mmdit" / "dc-ae.safetensors",))
    assert isinstance(codec, DcAe)
    video, _ = draw_clips(np.random.default_rng(7), 4, 16, size_px=128)
    latents = pool.raw_latents(codec, video)[:, :, 1:]
    assert codec.cfg.scaling_factor == pytest.approx(latent_std(latents), rel=0.1)
    shift, scale = pool.normalisation(codec, latents.numpy())
    assert (float(shift), float(scale)) == (0.0, pytest.approx(codec.cfg.scaling_factor))
    codec.cfg = replace(codec.cfg, scaling_factor=0.18215)
    with pytest.raises(ValueError, match="looks like a multiplier"):
        pool.normalisation(codec, latents.numpy())


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
    assert 0.33 < float((t > 0.8).float().mean()) < 0.43
    assert float((t > 0.95).float().mean()) > 0.1


def test_a_pool_knows_which_vae_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SHARD", 2)
    torch.manual_seed(0)
    weights = (tmp_path / "vae.safetensors",)
    save_file(VideoVAE(CODEC).state_dict(), weights[0])
    cfg = pool.PoolConfig(codec=CODEC, frames=17, size_px=128, seed=1, pairs=0.0)
    pool.build_pool(cfg, weights, tmp_path / "pool", shards=1, workers=0)
    latents, scenes = pool.load_pool(tmp_path / "pool")
    assert latents.shape == (2, 16, 5, 8, 8)
    assert latents.dtype == np.float16
    assert len(scenes) == 2
    assert scenes[0] == sample_scene(np.random.default_rng((1, 0)))
    pool.build_pool(cfg, weights, tmp_path / "pool", shards=1, workers=0)  # goes on
    with pytest.raises(ValueError, match="another VAE or drawn from another seed"):
        pool.build_pool(replace(cfg, fps=8), weights, tmp_path / "pool", shards=1, workers=0)
    save_file(VideoVAE(CODEC).state_dict(), weights[0])
    with pytest.raises(ValueError, match="another VAE"):
        pool.build_pool(cfg, weights, tmp_path / "pool", shards=1, workers=0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_its_model(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.spec.id == name
    ends = [stage for stage in recipe.stages if stage in ("export", "preview", "measure")]
    assert ends == (["export", "preview", "measure"] if recipe.own_codec else ["export", "measure"])
    assert {"dit", "pool"} <= set(recipe.stages)
    assert (recipe.vae is not None) == recipe.own_codec


def test_runs_are_kept_in_the_same_cache_as_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Begun(Exception):
        pass

    def begin(*_: object) -> None:
        raise Begun

    monkeypatch.setattr(command, "build_tokenizer", begin)
    monkeypatch.setattr("sys.argv", ["training", "nano", "--out", str(tmp_path / "out")])
    for name, folder in (("OPENSORA_CACHE", tmp_path / "a"), ("XDG_CACHE_HOME", tmp_path / "b")):
        monkeypatch.delenv("OPENSORA_CACHE", raising=False)
        monkeypatch.setenv(name, str(folder))
        with pytest.raises(Begun):
            command.main()
    assert (tmp_path / "a" / "nano").is_dir()
    assert (tmp_path / "b" / "opensora-demo" / "nano").is_dir()


def test_labels_are_the_shapes_of_clips(tmp_path: Path) -> None:
    job = tiny_job(NANO_CLASS, LabelJob, tmp_path, caption_dropout=0.0)
    assert isinstance(job, LabelJob)
    batch = job.draw(np.random.default_rng(0), torch.Generator().manual_seed(0), short=False)
    labels = job.condition(batch)
    assert [NANO_CLASS.labels[i][0] for i in labels.tolist()] == [s.shape for s in batch.scenes]
    dropped = replace(batch, dropped=torch.tensor([True, False, True]))
    assert job.condition(dropped).tolist() == [7, labels[1], 7]


def test_a_prompt_names_a_class() -> None:
    encoder = LabelEncoder(dict(NANO_CLASS.labels))
    found = encoder(
        ["a red Star in the sky", "two cubes", "nothing of the kind", "", "一個紅色的三角形", "the ‘ring’s’"]
    )
    assert found.pooled.tolist() == [3, 1, 7, 7, 2, 5]
    assert found.unknown == (
        ("red", "in", "sky"), ("two",), ("nothing", "of", "kind"), (), ("紅色的",), ()
    )  # fmt: skip
    network = DiT(replace(NANO_CLASS.network, width=32, depth=1, heads=2))  # type: ignore[type-var]
    family = DiTFamily(encoder, DiTAdapter(network), NANO_CLASS.sampler)  # type: ignore[arg-type]
    raw = {"prompt": "a ring", "seed": 1}
    request = parse_request(raw, model_id=NANO_CLASS.id, limits=NANO_CLASS.limits)
    condition = family.condition(request, ConditioningFrames(), (5, 8, 8))
    assert condition.y.tolist() == [5, 7]


def test_every_shape_has_a_label_that_its_captions_use() -> None:
    assert [name for name, _ in NANO_CLASS.labels] == list(SHAPES)
    traditional = ["圓球", "球體", "方塊", "愛心", "圓環", "環", "鑽石", "寶石"]
    for name, words in NANO_CLASS.labels:
        assert set(words) <= {*SHAPE_WORDS[name], *captions_zh.SHAPES[name], *traditional}


def test_siblings_differ_in_their_conditioning_alone() -> None:
    specs = [RECIPES[name].spec for name in ("nano-cross", "nano-concat", "nano-replaced")]
    networks = [replace(spec.network, conditioning="cross-attention") for spec in specs]  # type: ignore[type-var]
    assert networks[0] == networks[1] == networks[2]
    assert len({spec.network.conditioning for spec in specs}) == 3  # type: ignore[union-attr]
    assert [spec.text_mode for spec in specs] == ["cross-attention", "token concatenation", "cross-attention"]
    assert len({repr(replace(RECIPES[spec.id], spec=NANO)) for spec in specs}) == 1


def test_a_command_repeats_what_was_typed() -> None:
    parser = command.command_line()

    def said(*typed: str) -> str:
        args = parser.parse_args([*typed, "--workers", "2"])
        return command.command_of(args, command.dit_numbers(RECIPES[args.model], args))

    start = "python -m opensora_demo.training nano --seed 1 --workers 2"
    assert said("nano") == f"{start} --steps 9600 --cooldown 3200"
    assert said("nano", "--steps", "10", "--lr", "0.002") == f"{start} --steps 10 --cooldown 3200 --lr 0.002"
    assert said("nano", "--cpu-minutes", "7.5", "--start", "x") == f"{start} --cpu-minutes 7.5 --start FOLDER"
    numbers = command.dit_numbers(RECIPES["nano"], parser.parse_args(["nano", "--cpu-minutes", "2", "--batch", "8"]))
    assert (numbers.budget_s, numbers.batch, numbers.lr) == (120, 8, RECIPES["nano"].dit.lr)


@pytest.mark.parametrize(
    "spec", [NANO_CONCAT, pytest.param(NANO_CLASS, marks=pytest.mark.thorough)], ids=lambda spec: spec.id
)
def test_training_begins_with_another_models_trunk(spec: ModelSpec, tmp_path: Path) -> None:
    """All but the way that the condition comes in, of the blocks that are named and in their order."""
    recipe = RECIPES[spec.id]
    trunk = recipe.begins_with
    assert trunk is not None
    job = tiny_job(spec, recipe.job, tmp_path)
    network, before = job.model.dit, {name: p.clone() for name, p in job.model.dit.state_dict().items()}
    taken = trunk.put_into(network)
    theirs, ours = read_state(list(trunk.files)), network.state_dict()
    last = len(trunk.blocks) - 1
    kind = "spatial_blocks" if spec is NANO_CONCAT else "blocks"
    name = "attn.qkv.weight"
    assert torch.equal(ours[f"{kind}.{last}.{name}"], theirs[f"{kind}.{trunk.blocks[-1]}.{name}"])
    assert torch.equal(ours["t_embedder.mlp.0.weight"], theirs["t_embedder.mlp.0.weight"])
    left = sorted(name for name in ours if name not in taken)
    assert all(name.startswith("y_embedder.") for name in left)
    assert all(torch.equal(ours[name], before[name]) for name in left)


@pytest.mark.parametrize("model", ["nano-class", "nano-cross", "nano-dit"])
def test_training_goes_on_from_what_is_in_assets(model: str, tmp_path: Path) -> None:
    """Whether the model has a tokenizer, reads with another's or reads nothing."""
    recipe, folder = RECIPES[model], ASSETS / model
    own = {"nano-class": "", "nano-cross": "", "nano-dit": "tokenizer.json"}
    assert recipe.own_tokenizer == own[model]
    build_tokenizer(str(tmp_path / "tokenizer.json"))
    started = recipe.started(folder, ("network", "clip"), tmp_path / "tokenizer.json")
    assert started.tokenizer == (folder if own[model] else tmp_path) / "tokenizer.json"
    both = TextToVideo(recipe.spec, tmp_path / "tokenizer.json")
    with torch.no_grad():
        grow_network(both, started, tmp_path / "tokenizer.json")
    theirs, ours = read_state(list(started.parts["network"])), both.dit.state_dict()
    name = "blocks.0.attn.qkv.weight" if "blocks.0.attn.qkv.weight" in theirs else "spatial_blocks.0.attn.qkv.weight"
    assert torch.equal(ours[name], theirs[name].float())
