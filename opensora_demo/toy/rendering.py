"""Clips rendered in the background, by as many processes as there are cores.

python -m opensora_demo.toy.rendering FOLDER --first 0 --every 4 --limit 16 ...

Each process renders shard after shard into a folder until it is stopped; where `limit` shards wait there for whoever
takes them, it waits too. Without torch a process is ready in a second, and takes little memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from einops import reduce
from numpy.typing import NDArray

from opensora_demo.toy.worlds import Scene, render_objects, sample_scene, scene_from

WAIT_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderConfig:
    """What is rendered: clips of `frames` frames and `size_px` x `size_px`, `clips` a shard, a share `pairs` of two
    objects, at one frame rate or (None) many; `latent` (t', h', w') are the cells in which objects are marked."""

    frames: int
    size_px: int
    latent: tuple[int, int, int]
    pairs: float
    seed: int
    fps: int | None = None
    clips: int = 256


@dataclass(frozen=True, slots=True)
class Shard:
    """clips (n, t, h, w, 3) uint8, shares (n, 2, t', h', w') uint8 and the scenes they show."""

    clips: NDArray[np.uint8]
    shares: NDArray[np.uint8]
    scenes: list[Scene]


def object_share(alpha: NDArray[np.uint8], size: tuple[int, int, int]) -> NDArray[np.uint8]:
    """How much of each latent cell an object covers: alpha (n, t, h, w) in 0..255 -> (2, t', h', w') in 0..255, the
    mean over the pixels and frames of a cell; zeros where there is no second object.

    The first latent frame stands for as many frames as the others lack, as causal codecs pad a clip in front.
    """
    frames, height, width = size
    time_factor = -(-alpha.shape[1] // frames)
    front = np.repeat(alpha[:, :1], frames * time_factor - alpha.shape[1], axis=1)
    whole = np.concatenate([front, alpha], axis=1).astype(np.float32)
    cells = reduce(whole, "n (t a) (h i) (w j) -> n t h w", "mean", t=frames, h=height, w=width)
    covered = np.zeros((2, *size), np.uint8)
    covered[: len(cells)] = cells + 0.5
    return covered


def draw_scenes(cfg: RenderConfig, index: int) -> list[Scene]:
    """The scenes of a shard, each shard's from its own seed."""
    rng = np.random.default_rng((cfg.seed, index))
    return [sample_scene(rng, pairs=cfg.pairs, fps=cfg.fps) for _ in range(cfg.clips)]


def render_scenes(cfg: RenderConfig, scenes: list[Scene]) -> Shard:
    clips, alphas = zip(*(render_objects(s, cfg.frames, cfg.size_px) for s in scenes), strict=True)
    return Shard(np.stack(clips), np.stack([object_share(alpha, cfg.latent) for alpha in alphas]), scenes)


def waiting(folder: Path) -> list[Path]:
    """Shards that are complete, in the order in which they were drawn."""
    return sorted(folder.glob("*.npz"))


def write_shard(file: Path, shard: Shard) -> None:
    part = file.with_suffix(".part")
    with part.open("wb") as handle:
        np.savez(
            handle,
            clips=shard.clips,
            shares=shard.shares,
            scenes=np.array(json.dumps([asdict(s) for s in shard.scenes])),
        )
    part.replace(file)


def read_shard(file: Path) -> Shard:
    with np.load(file) as found:
        scenes = [scene_from(fields) for fields in json.loads(str(found["scenes"]))]
        return Shard(found["clips"], found["shares"], scenes)


class Renderers:
    """While entered, `workers` processes fill `folder` with shards, from `first` on, at most `limit` at a time and
    one more from each. Leaving stops them; what is complete stays."""

    def __init__(self, cfg: RenderConfig, folder: Path, workers: int, *, first: int = 0, limit: int = 16) -> None:
        self.cfg, self.folder, self.workers, self.first, self.limit = cfg, folder, workers, first, limit
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Renderers:
        self.folder.mkdir(parents=True, exist_ok=True)
        for worker in range(self.workers):
            arguments = ["--config", json.dumps(asdict(self.cfg)), "--first", str(self.first + worker)]
            arguments += ["--every", str(self.workers), "--limit", str(self.limit), "--parent", str(os.getpid())]
            begin = f"import sys; sys.path[:] = {sys.path!r}; from opensora_demo.toy.rendering import main; main()"
            self._processes.append(subprocess.Popen([sys.executable, "-c", begin, str(self.folder), *arguments]))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()
        for part in self.folder.glob("*.part"):
            part.unlink()

    def wait(self, count: int = 1) -> list[Path]:
        """The shards that are complete, once there are `count`. Raises RuntimeError where a process has ended."""
        while len(found := waiting(self.folder)) < count:
            if any(process.poll() is not None for process in self._processes):
                raise RuntimeError("a process that renders has ended; its reason is above")
            time.sleep(WAIT_S)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=json.loads, required=True, help="fields of RenderConfig, as JSON")
    parser.add_argument("--first", type=int, default=0, help="index of the first shard")
    parser.add_argument("--every", type=int, default=1, help="distance to the next")
    parser.add_argument("--limit", type=int, default=16, help="how many shards may wait in the folder")
    parser.add_argument("--parent", type=int, default=0, help="process to end with")
    args = parser.parse_args()
    cfg = RenderConfig(**(args.config | {"latent": tuple(args.config["latent"])}))
    index = args.first
    while not args.parent or os.getppid() == args.parent:
        if len(waiting(args.folder)) >= args.limit:
            time.sleep(WAIT_S)
            continue
        write_shard(args.folder / f"{index:06d}.npz", render_scenes(cfg, draw_scenes(cfg, index)))
        index += args.every


if __name__ == "__main__":
    main()
