"""Open-Sora 1.2: STDiT3, its rectified flow with and without given frames, mask strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opensora_demo.families.adapters.stdit3 import STDiT3Adapter
from opensora_demo.families.stdit import STDiTConditioning, STDiTFamily
from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.nn.attention import TextKeys
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.sampling.guidance import ClassifierFree
from opensora_demo.sampling.mask_strategy import apply_strategy
from opensora_demo.sampling.rectified_flow import noised, sample
from opensora_demo.sampling.schedule import flow_times, shift_time, shift_v12
from opensora_demo.sampling.step import Prediction

from .options import INERT, Options
from .reference import Case


def stdit3(model: Options) -> STDiT3:
    model.inert("input_size", *INERT)  # positions follow the clip
    return STDiT3(
        STDiT3Config(
            in_channels=model["in_channels"],
            patch=tuple(model["patch_size"]),
            width=model["hidden_size"],
            depth=model["depth"],
            heads=model["num_heads"],
            mlp_ratio=model["mlp_ratio"],
            text_channels=model["caption_channels"],
            max_tokens=model["model_max_length"],
            base_px=model["input_sq_size"],
            qk_norm=model["qk_norm"],
            learned_sigma=model["pred_sigma"],
        )
    )


def text_keys(network: Any, model: Options, y: Tensor, mask: Tensor | None) -> TextKeys:
    """y (b, 1, n, c) and a prefix mask (b, n); with `skip_y_embedder` projected tokens (1, sum, d) and lengths (b)."""
    if model.get("skip_y_embedder"):
        assert mask is not None
        lengths = (mask if mask.ndim == 1 else mask.sum(1)).long()
        packed = y.reshape(-1, y.shape[-1])
        if len(packed) == int(lengths.sum()):
            y = nn.utils.rnn.pad_sequence(list(packed.split(lengths.tolist())), batch_first=True)
        else:
            y = y.reshape(len(lengths), -1, y.shape[-1])
        return network.project_text(y, lengths, projected=True)
    lengths = None if mask is None else mask.sum(1).repeat(len(y) // len(mask))
    return network.project_text(y[:, 0], lengths)


def run_stdit3(case: Case) -> dict[str, Tensor]:
    model = case.config["model"]
    network = stdit3(model)
    case.fill(network)
    x = case.inputs
    text = text_keys(network, model, x["y"], x.get("mask"))
    size = {"fps": x["fps"], "height_px": float(x["height"][0]), "width_px": float(x["width"][0])}
    out = {"forward_no_x_mask": network(x["x"], x["t"], text, **size)}
    out["forward"] = (
        network(x["x"], x["t"], text, x_mask=x["x_mask"].bool(), **size) if "x_mask" in x else out["forward_no_x_mask"]
    )
    return out


def grouped(case: Case, row: int) -> list[Tensor]:
    """References ref_<row>_<number> of one batch item, as many as `n_refs` says, in order."""
    found = [case.inputs[f"ref_{row}_{i}"] for i in range(case.config["n_refs"][row])]
    assert len(found) == len(case.named(f"ref_{row}_")), "references that n_refs does not count"
    return found


def scale_of(config: Options, scheduler: Options) -> float:
    """The guidance scale: the call's, or the scheduler's where the call names none."""
    own = scheduler["cfg_scale"]
    called = config.get("sample_kwargs", Options({})).get("guidance_scale")
    said = config.get("guidance_scale", called)
    return own if said is None else said


def flow_of(scheduler: Options, shift: Literal["1.2", "1.3"]) -> RectifiedFlowConfig:
    scheduler.inert("sample_method", "loc", "scale", "uniform_over_threshold", *INERT)  # of training
    return RectifiedFlowConfig(shift=shift, timesteps=scheduler.get("num_timesteps", 1000))


def times_of(scheduler: Options, ratio: float) -> tuple[float, ...]:
    """Rounded as the reference rounds them, in float32: whether a frame whose mask is 1 is active at the first step
    depends on the last bit of a time near 1000."""
    steps, timesteps = scheduler["num_sampling_steps"], scheduler.get("num_timesteps", 1000)
    times = [timesteps * t for t in flow_times(steps)[:-1]]
    if scheduler.get("use_discrete_timesteps"):
        times = [round(t) for t in times]
    t = torch.tensor(times, dtype=torch.float32)
    if scheduler.get("use_timestep_transform", False):
        r = torch.tensor(ratio, dtype=torch.float32)
        t = shift_time(t / timesteps, r) * timesteps  # type: ignore[type-var]
    return (*(float(x) / timesteps for x in t), 0.0)


def ratio_of(x: Options, row: int, shift: Callable[[float, float, int], float]) -> float:
    """The time shift of one item; whether it is an image is asked of the first for all, as in the reference."""
    frames = 1 if int(x["num_frames"][0]) == 1 else int(x["num_frames"][row])
    return shift(float(x["height"][row]), float(x["width"][row]), frames)


def masked_start(case: Case, row: int, out: dict[str, list[Tensor]]) -> tuple[Tensor, Tensor]:
    """The start of one item with its references written in, and its frame mask; both are recorded outputs."""
    config = case.config
    strategy, loop, align = config["mask_strategy"][row] or "", config.get("loop_i", 0), config.get("align")
    z, mask = apply_strategy(case.inputs["z"][row], grouped(case, row), strategy, loop, align)
    out.setdefault("z_after_mask_strategy", []).append(z[None])
    out.setdefault("frame_mask", []).append(mask[None])
    return z[None], mask[None]


def run_rflow(case: Case) -> dict[str, Tensor]:
    config, x = case.config, case.inputs
    network = stdit3(config["model"])
    case.fill(network)
    scheduler = config["scheduler"]
    flow = flow_of(scheduler, "1.2")
    scheduler.inert("transform_scale")  # 1.2 samples without it
    config["model"].only("skip_y_embedder", False)
    config.get("sample_kwargs", Options({})).inert("progress")
    x.inert("ar")  # told to the network, which does not look at it
    if not config.get("mask_strategy"):
        config.inert("mask_strategy", "loop_i", "align", "n_refs")
    scale = scale_of(config, scheduler)
    draws = case.draws()
    family = STDiTFamily(None, STDiT3Adapter(network), flow)  # type: ignore[arg-type]
    out: dict[str, list[Tensor]] = {}
    used = 0
    for row in range(len(x["z"])):
        ratio = ratio_of(x, row, shift_v12)
        length = int(x["mask"][row].sum()) if "mask" in x else x["y"].shape[2]
        condition = STDiTConditioning(
            guidance=ClassifierFree((scale,)),
            text=network.project_text(torch.stack([x["y"][row, 0, :length], network.null_text(length)])),
            fps=float(x["fps"][row]),
            height_px=float(x["height"][0]),  # the reference reads the first item's
            width_px=float(x["width"][0]),
        )
        z, mask, mine = x["z"][row : row + 1], None, [d[row : row + 1] for d in draws]
        if config.get("mask_strategy"):
            z, mask = masked_start(case, row, out)

        def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
            key, both = f"call_{index:02d}", torch.ones(1, 2, dtype=torch.bool)
            raw = family.outputs(x, flow.timesteps * t, condition, both, x_mask)  # noqa: B023
            found = {"z_in": x, "t": torch.tensor([flow.timesteps * t])}
            if x_mask is not None:
                found["x_mask"] = x_mask
            for name, value in found.items():
                out.setdefault(f"{key}_{name}", []).append(value)
            for branch in raw:
                out.setdefault(f"{key}_model_out", []).append(branch)  # type: ignore[arg-type]
            return family.velocity(x, t, index, condition, x_mask)  # noqa: B023

        times = times_of(scheduler, ratio)
        steps = list(sample(velocity, z, times, frame_mask=mask, draw=lambda: mine.pop(0)))  # noqa: B023
        used = len(draws) - len(mine)
        out.setdefault("sample", []).append(steps[-1].x)
    assert used == len(draws), "every recorded draw must have been used"
    joined = {}
    for key, parts in out.items():
        if key.endswith("model_out"):
            parts = parts[::2] + parts[1::2]  # prompt rows, then null rows
        joined[key] = torch.cat(parts)
    return joined


def run_transform(case: Case) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for i, g in enumerate(case.config["grid"]):
        g.only("base_resolution", 512**2)
        g.only("base_num_frames", 1)
        timesteps = g.get("num_timesteps", 1000)
        ratio = torch.tensor(shift_v12(g["height"], g["width"], g["num_frames"]) * g.get("scale", 1.0))
        out[f"transformed_{i:02d}"] = timesteps * shift_time(torch.tensor(g["t"]) / timesteps, ratio)  # type: ignore[type-var]
    x = case.inputs
    t = (x["ts"] / 1000).view(-1, 1, 1, 1, 1)
    xt = noised(x["x0"], x["noise"], t)
    out["add_noise"] = xt

    def loss(xt: Tensor) -> Tensor:
        """Squared error of data - noise by frame (b, t), for the stand-in network 0.3 x + t."""
        return (0.3 * xt + t - (x["x0"] - x["noise"])).square().mean(dim=(1, 3, 4))

    out["train_loss"] = loss(xt).mean(1)
    if "loss_mask" in x:
        counts = x["loss_mask"].float()
        mixed = torch.where(
            x["loss_mask"].bool()[:, None, :, None, None], xt, x["x0"]
        )  # frames that do not count are clean
        out["train_loss_masked"] = (loss(mixed) * counts).sum(1) / counts.sum(1)
    return out


def run_strategy(case: Case) -> dict[str, Tensor]:
    x = case.inputs
    out: dict[str, Tensor] = {}
    for i, c in enumerate(case.config["cases"]):
        pairs = [
            apply_strategy(x["z"][row], grouped(case, row), strategy, c["loop_i"], c.get("align"))
            for row, strategy in enumerate(c["mask_strategy"])
        ]
        out[f"{i:02d}_z"] = torch.stack([z for z, _ in pairs])
        out[f"{i:02d}_mask"] = torch.stack([mask for _, mask in pairs])
    return out


SYSTEMS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "stdit3": run_stdit3,
    "rflow": run_rflow,
    "ttransform": run_transform,
    "maskstrat": run_strategy,
}
MANIFESTS: dict[str, Callable[[], nn.Module]] = {
    "v12_stdit3_xl2": lambda: STDiT3(STDiT3Config()),
    "v12_stdit3_3b2": lambda: STDiT3(replace(STDiT3Config(), width=1872, heads=26)),
}
