"""One clip on several processes: every family equals itself in one process, however the work is shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from opensora_demo.catalog import MODELS
from opensora_demo.cli import main
from opensora_demo.codecs.tiling import Tiling, code_tiles
from opensora_demo.errors import RequestError
from opensora_demo.media import read_mp4
from opensora_demo.messages import render
from opensora_demo.nn.peers import Peers, Split, TokenShards
from opensora_demo.pipeline import given_latents, noise_of
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.runtime.ranks import Ranks, joined
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ["debug-1.0-dit", "debug-1.0-latte", "debug-1.0", "debug-1.1", "debug-1.2", "debug-1.3", "debug-2.0"]
EVERY_MODEL = [id_ for id_ in MODELS if id_.startswith("debug-")]
TOLERANCE = 1e-5
TILES = ("s", "t", "st")  # of space, of time


def requests_of(model_id: str) -> list[GenerationRequest]:
    """A clip; two in one run; one that begins with a given frame where the model takes one."""
    limits = MODELS[model_id].limits
    words = {"prompt": "a red star", "seed": 3, "steps": 2, "guidance": 4.0}
    found = [parse_request(words, model_id=model_id, limits=limits)]
    found.append(parse_request(words | {"guidance": [2.0, 5.0]}, model_id=model_id, limits=limits))
    if limits.reference:
        height_px, width_px = found[0].shape.height_px, found[0].shape.width_px
        picture = np.random.default_rng(0).integers(0, 255, (1, height_px, width_px, 3), np.uint8)
        found.append(parse_request(words, model_id=model_id, limits=limits, reference=picture))
    return found


@torch.inference_mode()
def outputs(bundle: ModelBundle, request: GenerationRequest) -> tuple[Tensor, Tensor]:
    """Latents and video, before they become bytes."""
    draw = noise_of(bundle, request)
    noise = draw()
    size = (noise.shape[2], noise.shape[3], noise.shape[4])
    x = noise.expand(len(request.columns), -1, -1, -1, -1)
    condition = bundle.family.condition(request, given_latents(bundle, request), size)
    for step in bundle.family.steps(x, condition, request, draw):
        x = step.x
    return x, bundle.codec.decode(x[:1], request.shape.frames)


def tiled(peers: Peers | None) -> list[Tensor]:
    """A clip in tiles of space, of time, and of both."""
    x = torch.randn(1, 3, 11, 10, 14, generator=torch.Generator().manual_seed(0))
    sizes: dict[str, Any] = {"tile_px": 4, "tile_latent": 4, "tile_frames": 4, "tile_latent_frames": 4}
    tilings = [Tiling(spatial="s" in kind, temporal="t" in kind, **sizes) for kind in TILES]
    run: dict[str, Any] = {"run": torch.sin, "decode": True, "causal": True, "peers": peers}
    return [torch.cat(list(code_tiles(x, tiling=tiling, **run)), dim=2) for tiling in tilings]


@dataclass
class Work:
    """Numbers that go into the blocks of a network, in this process."""

    count: int = 0

    def watch(self, network: nn.Module) -> None:
        for part in network.modules():
            if isinstance(part, nn.ModuleList):
                for block in part:
                    block.register_forward_pre_hook(self._seen)

    def _seen(self, _block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.count += arguments[0].numel()

    def taken(self) -> int:
        self.count, count = 0, self.count
        return count


def process(rank: int, size: int, port: int, folder: str, models: list[str]) -> None:
    """One of `size` processes writes down, for each model, layout and run, how far what it makes is from what it makes
    alone (over the largest value, as random weights leave latents far from 1), and its share of the work."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    apart: dict[str, float] = {}
    shares: dict[str, float] = {}
    with joined(os.environ) as ranks:
        assert ranks == Ranks(size, rank)
        assert ranks.agree(os.getpid) == ranks.agree(os.getpid)
        for kind, ours, theirs in zip(TILES, tiled(None), tiled(Peers(size, rank)), strict=True):
            apart[f"tiles {kind}"] = float((ours - theirs).abs().max())
        for model_id in models:
            bundle, asked, work = build_bundle(MODELS[model_id]), requests_of(model_id), Work()
            work.watch(bundle.family.network)
            expected = [(*outputs(bundle, request), work.taken()) for request in asked]
            for branch_ranks in (1, 2):
                ranks.layout(asked[0], branch_ranks).share(bundle)
                for k, request in enumerate(asked):
                    name = f"{model_id} {branch_ranks} {k}"
                    x, video = outputs(bundle, request)
                    shares[name] = work.taken() / expected[k][2]
                    for what, ours, theirs in zip(("x", "video"), expected[k][:2], (x, video), strict=True):
                        assert torch.isfinite(theirs).all()
                        apart[f"{name} {what}"] = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))
    Path(folder, f"{rank}.json").write_text(json.dumps([apart, shares]))


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("size", "models"),
    [
        pytest.param(2, EVERY_MODEL, id="2, every model"),
        pytest.param(4, NETWORKS, id="4, every network"),
    ],
)
def test_every_family_equals_itself_in_one_process(size: int, models: list[str], tmp_path: Path) -> None:
    start_processes(process, (size, free_port(), str(tmp_path), models), nprocs=size, start_method="spawn")
    for rank in range(size):
        apart, shares = json.loads((tmp_path / f"{rank}.json").read_text())
        assert {name.split()[0] for name in apart} == {"tiles", *models}
        assert {name: far for name, far in apart.items() if far > TOLERANCE} == {}
        assert [far for name, far in apart.items() if name.startswith("tiles")] == [0, 0, 0]
        # A picture's tokens are one frame's, so processes beyond its branches have nothing to do. Otherwise what is
        # padded is least where it divides.
        moving = {name: share for name, share in shares.items() if "pixart" not in name}
        assert {name: share for name, share in moving.items() if not 1 / size <= share <= 0.75} == {}
        halves = [share for name, share in shares.items() if name.endswith(" 2 1")]  # two clips, two branches each
        assert size == 4 or halves == pytest.approx([0.5] * len(models), abs=0.1)


def test_how_processes_share_a_run() -> None:
    def request(**more: Any) -> GenerationRequest:
        words = {"prompt": "a red star", "guidance": 4.0} | more
        return parse_request(words, model_id="debug-1.2", limits=MODELS["debug-1.2"].limits)

    four = Ranks(4, 0)
    assert [four.layout(request(guidance=scale)).branch_ranks for scale in (1, 4, [1, 4], [2, 4])] == [1, 2, 2, 4]
    assert Ranks(3, 0).layout(request()).branch_ranks == 1
    assert four.layout(request(), 1).branch_ranks == 1
    for wrong in (0, 3, 8):
        with pytest.raises(RequestError) as refused:
            four.layout(request(), wrong)
        assert refused.value.field == "branch-ranks"
        assert "must divide the number of processes that torchrun started (4)" in render(refused.value.message)


def test_a_process_by_itself_is_alone() -> None:
    for environ in ({}, {"WORLD_SIZE": "1"}):
        with joined(environ) as ranks:
            assert ranks is None


def test_an_axis_is_split_and_padded() -> None:
    x = torch.arange(7.0)
    parts = [Split.of(Peers(3, rank), 7).take(x, 0).tolist() for rank in range(3)]
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert [Split.of(Peers(3, rank), 1).take(x[:1], 0).tolist() for rank in range(3)] == [[0], [0], [0]]
    assert Split.of(Peers(2, 1), 3).take(torch.tensor([True] * 3), 0).tolist() == [True, False]
    shards, words, frames = TokenShards.joined(Peers(2, 0), 3, 5, torch.device("cpu"))
    assert (words.each, frames.each, shards.tokens.length) == (2, 3, 10)
    assert shards.order is not None
    assert shards.order.tolist() == [0, 1, 5, 2, 3, 4, 7, 8]


def torchrun(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "opensora_demo", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.thorough
def test_torchrun_makes_the_clip_that_one_process_makes(tmp_path: Path) -> None:
    words = ["a red ball", "--model", "debug-1.2", "--steps", "2", "--seed", "5", "--native-size"]
    alone, shared = tmp_path / "alone.mp4", tmp_path / "shared.mp4"
    assert main(["generate", *words, "--out", str(alone)]) == 0
    done = torchrun(2, "generate", *words, "--out", str(shared))
    assert done.returncode == 0, done.stderr
    (answer,) = done.stdout.splitlines()  # of the first process alone
    assert json.loads(answer)["out"] == str(shared)
    assert done.stderr.count("denoising 2/2") == 1
    (ours, _), (theirs, _) = read_mp4(alone), read_mp4(shared)
    assert np.abs(ours.astype(int) - theirs).mean() < 0.5  # mp4 makes more of a bit here and there


@pytest.mark.slow
@pytest.mark.thorough
def test_a_mistake_ends_all_processes_with_one_sentence(tmp_path: Path) -> None:
    done = torchrun(2, "generate", "a red ball", "--steps", "0", "--out", str(tmp_path / "a.mp4"))
    assert done.returncode != 0
    assert done.stderr.count("steps: must lie between") == 1


def test_processes_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a red ball", "--branch-ranks", "2", "--out", str(tmp_path / "a.mp4")]) == 2
    assert (
        "branch-ranks: must divide the number of processes that torchrun started (1), not 2" in capsys.readouterr().err
    )
