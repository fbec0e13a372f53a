"""One training loop for all models: workers that share gradients, warm-up / constant / cool-down, EMA, resume.

Several single-thread workers with averaged gradients beat one process with several threads on small machines: they
slow down gently when something else uses the cores, where OpenMP collapses.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from opensora_demo.training.muon import Muon


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """`steps` ends the run; the last `cooldown` of them take the learning rate linearly to zero. `adam_ratio`: the
    learning rate of what is no matrix, over that of the matrices. `muon_only`: matrices whose name lacks it count as
    none.

    `budget_s` > 0 ends the run by the clock instead, and `cooldown_s` are its last seconds: of this process's CPU
    time, which a busy machine does not shorten, or with `clock` "wall" of time as it passes. The seconds of a run that
    is taken up again go on counting.

    `light` checkpoints hold the weights and their average in half precision and no state of the optimiser, which a
    warm-up builds up again: a quarter of the size.

    `drops`: (step, factor) pairs; from that step on the learning rate is multiplied by the factor.
    """

    run_dir: Path
    steps: int
    cooldown: int
    lr: float
    adam_ratio: float = 0.5
    drops: tuple[tuple[int, float], ...] = ()
    warmup: int = 50
    clip: float = 1.0
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    seed: int = 1
    workers: int = 2
    log_every: int = 20
    save_every_s: float = 120.0
    budget_s: float = 0.0
    cooldown_s: float = 0.0
    clock: Literal["cpu", "wall"] = "cpu"
    muon_only: str = ""
    light: bool = False


class Job(Protocol):
    """What is trained: a module and the loss of one fresh batch."""

    @property
    def model(self) -> nn.Module: ...

    def loss(
        self, rng: np.random.Generator, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, float]]: ...


def learning_rate(cfg: LoopConfig, step: int, used_s: float = 0.0, warm: int | None = None) -> float:
    """Warm-up, constant, then linear to zero over the cool-down (WSD; Hu et al., MiniCPM, 2024); `warm` counts the
    steps of warm-up where they do not begin with the first step."""
    dropped = math.prod(factor for start, factor in cfg.drops if step >= start)
    if cfg.budget_s:
        left = max(cfg.budget_s - used_s, 0.0) / max(cfg.cooldown_s, 1e-9)
    else:
        left = max(cfg.steps - step, 1) / max(cfg.cooldown, 1)
    return cfg.lr * dropped * min(1.0, ((step if warm is None else warm) + 1) / cfg.warmup) * min(1.0, left)


def finished(cfg: LoopConfig, step: int, used_s: float) -> bool:
    return used_s >= cfg.budget_s if cfg.budget_s else step >= cfg.steps


def average_gradients(params: list[nn.Parameter]) -> float:
    """Mean gradient over the workers, in place; answers its norm."""
    flat = torch.cat([p.grad.flatten() for p in params if p.grad is not None])
    if dist.is_initialized():
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        at = 0
        for p in params:
            if p.grad is not None:
                p.grad.copy_(flat[at : at + p.numel()].view_as(p))
                at += p.numel()
    return float(flat.norm())


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in half precision, where they are of floating point, on the CPU. Equal ones (tied weights) become one, so
    that a file holds them once."""
    made: dict[tuple[torch.Size, bytes], Tensor] = {}
    found = {}
    for name, x in state.items():
        x = x.detach().to("cpu", torch.float16 if x.is_floating_point() else x.dtype)
        found[name] = made.setdefault((x.shape, sha256(x.contiguous().numpy().tobytes()).digest()), x)
    return found


def read_overrides(path: Path, cfg: LoopConfig) -> LoopConfig:
    """`control.json` in the run's folder changes steps, cooldown, lr and the budget of a running job (say, to end it
    early)."""
    try:
        changes = json.loads((path / "control.json").read_text())
        names = ("steps", "cooldown", "lr", "budget_s", "cooldown_s")
        return replace(cfg, **{k: changes[k] for k in names if k in changes})
    except (OSError, ValueError):
        return cfg


def _work(rank: int, make_job: Callable[[], Job], cfg: LoopConfig, port: int) -> None:
    torch.set_num_threads(1)
    if cfg.workers > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", rank=rank, world_size=cfg.workers)
    torch.manual_seed(cfg.seed)  # the initial weights, equal on every worker
    job = make_job()
    params = [p for p in job.model.parameters() if p.requires_grad]
    optimiser = Muon(
        ((n, p) for n, p in job.model.named_parameters() if p.requires_grad),
        lr=cfg.lr,
        weight_decay=cfg.weight_decay,
        adam_lr_ratio=cfg.adam_ratio,
        only=cfg.muon_only,
    )
    ema = {k: v.detach().clone() for k, v in job.model.state_dict().items()}
    step, seconds, used_before = 0, 0.0, 0.0
    clock = time.process_time if cfg.clock == "cpu" else time.monotonic
    checkpoint = cfg.run_dir / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        job.model.load_state_dict(saved["model"])
        if "optimiser" in saved:
            optimiser.load_state_dict(saved["optimiser"])
        ema = {k: saved["ema"][k].to(v, copy=True) for k, v in ema.items()}
        step, seconds, used_before = saved["step"], saved["seconds"], saved.get("used_s", 0.0)
        del saved
    warm_from = step if cfg.light else 0
    rng = np.random.default_rng((cfg.seed, rank, step))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    started = last_save = last_log = time.monotonic()
    used_from = clock() - used_before
    totals: dict[str, list[float]] = {}
    base = cfg
    cfg = read_overrides(cfg.run_dir, base)
    done = finished(cfg, step, used_before)
    while not done:
        if step % cfg.log_every == 0:
            cfg = read_overrides(cfg.run_dir, base)
        job.model.train()
        loss, metrics = job.loss(rng, generator, step)
        loss.backward()
        norm = average_gradients(params)
        if norm > cfg.clip:
            for p in params:
                if p.grad is not None:
                    p.grad *= cfg.clip / norm
        optimiser.set_lr(learning_rate(cfg, step, clock() - used_from, step - warm_from))
        if math.isfinite(norm):
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if rank == 0:
            decay = min(cfg.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                for k, v in job.model.state_dict().items():
                    if v.is_floating_point():
                        ema[k].lerp_(v, 1 - decay)
        for k, value in {"loss": float(loss.detach()), "norm": norm, **metrics}.items():
            totals.setdefault(k, []).append(value)
        now = time.monotonic()
        if step % cfg.log_every == 0:
            if rank == 0:
                record = {
                    "step": step,
                    "s": round(seconds + now - started, 1),
                    "used_s": round(clock() - used_from, 1),
                    "s_per_step": (now - last_log) / cfg.log_every,
                    **{k: round(sum(v) / len(v), 5) for k, v in totals.items()},
                }
                with (cfg.run_dir / "log.jsonl").open("a") as f:
                    f.write(json.dumps(record) + "\n")
            totals, last_log = {}, now
        done = finished(cfg, step, clock() - used_from)
        if rank == 0 and (done or now - last_save > cfg.save_every_s):
            state: dict[str, Any] = {"model": job.model.state_dict(), "ema": ema}
            if cfg.light:
                state = {name: halved(of) for name, of in state.items()}
            else:
                state["optimiser"] = optimiser.state_dict()
            state |= {
                "step": step,
                "seconds": seconds + now - started,
                "used_s": clock() - used_from,
            }
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
            last_save = now
    if cfg.workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def train(make_job: Callable[[], Job], cfg: LoopConfig) -> None:
    """Run to the end; continues from `run_dir/checkpoint.pt` if there is one. `make_job` must be picklable."""
    cfg.run_dir.mkdir(parents=True, exist_ok=True)
    (cfg.run_dir / "config.json").write_text(json.dumps(asdict(cfg), default=str, indent=1))
    port = 20000 + os.getpid() % 20000
    if cfg.workers == 1:
        _work(0, make_job, cfg, port)
    else:
        start_processes(_work, (make_job, cfg, port), nprocs=cfg.workers, start_method="spawn")


def load_ema(run_dir: Path, module: nn.Module) -> dict[str, float]:
    """Put a run's averaged weights into `module`; answers its step and training seconds. A head that only training
    uses is left out."""
    saved = torch.load(run_dir / "checkpoint.pt", map_location="cpu", weights_only=True, mmap=True)
    module.load_state_dict({name: value for name, value in saved["ema"].items() if not name.startswith("projector.")})
    return {"step": saved["step"], "seconds": saved["seconds"]}
