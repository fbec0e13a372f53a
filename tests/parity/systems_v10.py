"""Open-Sora 1.0 and 1.1: DiT, Latte, PixArt, STDiT, STDiT2, and their diffusion samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from opensora_demo.models.dit import DiT, DiTConfig
from opensora_demo.models.stdit import STDiT, STDiTConfig
from opensora_demo.models.stdit2 import STDiT2, STDiT2Config
from opensora_demo.nn.attention import TextKeys
from opensora_demo.sampling.config import IddpmConfig
from opensora_demo.sampling.iddpm import Diffusion, sample, space_timesteps
from opensora_demo.sampling.step import Prediction

from .options import INERT, Options
from .reference import Case


def dit(model: Options, *, alternate: bool = False) -> DiT:
    condition = model["condition"]
    if condition != "text" and not condition.startswith("label_"):
        raise model.unknown("condition", "known: 'text', 'label_<classes>'")
    model.inert(*INERT)
    return DiT(
        DiTConfig(
            input_size=tuple(model["input_size"]),
            in_channels=model["in_channels"],
            patch=tuple(model["patch_size"]),
            width=model["hidden_size"],
            depth=model["depth"],
            heads=model["num_heads"],
            mlp_ratio=model["mlp_ratio"],
            text_channels=model.get("caption_channels", 512),
            classes=int(condition.split("_")[-1]) if condition.startswith("label") else 0,
            learned_sigma=model["learn_sigma"],
            temporal_positions=not model["no_temporal_pos_emb"],
            alternate=alternate,
        )
    )


def stdit(model: Options, *, temporal: bool = True) -> STDiT:
    model.inert(*INERT)
    if not temporal:
        model.inert("time_scale")  # of the temporal positions, which the image network has none of
    return STDiT(
        STDiTConfig(
            input_size=tuple(model["input_size"]),
            in_channels=model["in_channels"],
            patch=tuple(model["patch_size"]),
            width=model["hidden_size"],
            depth=model["depth"],
            heads=model["num_heads"],
            mlp_ratio=model["mlp_ratio"],
            text_channels=model["caption_channels"],
            max_tokens=model["model_max_length"],
            learned_sigma=model["pred_sigma"],
            space_scale=model.get("space_scale", 1.0),
            time_scale=model.get("time_scale", 1.0),
            temporal=temporal,
            temporal_positions=not model.get("no_temporal_pos_emb", False),
        )
    )


def stdit2(model: Options) -> STDiT2:
    model.inert("input_size", *INERT)  # positions follow the clip
    return STDiT2(
        STDiT2Config(
            in_channels=model["in_channels"],
            patch=tuple(model["patch_size"]),
            width=model["hidden_size"],
            depth=model["depth"],
            heads=model["num_heads"],
            mlp_ratio=model["mlp_ratio"],
            text_channels=model["caption_channels"],
            max_tokens=model["model_max_length"],
            qk_norm=model["qk_norm"],
            learned_sigma=model["pred_sigma"],
            base_px=model["input_sq_size"],
        )
    )


def text_keys(network: STDiT | STDiT2, y: Tensor, mask: Tensor | None) -> TextKeys:
    """y (b, 1, n, c); a mask of half as many rows serves both halves (Q8)."""
    lengths = None if mask is None else mask.sum(1).repeat(len(y) // len(mask))
    return network.project_text(y[:, 0], lengths)


def guided(out: Tensor, scale: float, channels: int, guided_channels: int | None) -> Tensor:
    """A doubled batch's output (2 n, ...) as the reference's wrapper returns it (Q1): the guided channels of the noise
    are the same in both halves, the others stay each half's own."""
    cond, null = out.chunk(2)
    count = channels if guided_channels is None else guided_channels
    eps = null[:, :count] + scale * (cond[:, :count] - null[:, :count])
    return torch.cat([torch.cat([eps, half[:, count:]], dim=1) for half in (cond, null)])


def doubled(x: Tensor) -> Tensor:
    """The first half of the batch, twice."""
    half = x[: len(x) // 2]
    return torch.cat([half, half])


def run_dit(case: Case, *, alternate: bool = False) -> dict[str, Tensor]:
    config, x = case.config, case.inputs
    network = dit(config["model"], alternate=alternate)
    case.fill(network)
    scale = config.get("cfg_scale")  # named by cases without a guided call too

    def flat(y: Tensor) -> Tensor:
        return y if network.cfg.classes else y[:, 0, 0]

    out = {"forward": network(x["x"], x["t"], flat(x["y"]))}
    if "x_cfg" in x:
        raw = network(doubled(x["x_cfg"]), x["t_cfg"], flat(x["y_cfg"]))
        out["forward_with_cfg"] = guided(raw, scale, network.cfg.in_channels, 3)
    return out


def run_stdit(case: Case, *, temporal: bool = True) -> dict[str, Tensor]:
    config, x = case.config, case.inputs
    network = stdit(config["model"], temporal=temporal)
    case.fill(network)
    scale = config.get("cfg_scale")  # named by cases without a guided call too
    text = text_keys(network, x["y"], x.get("mask"))
    out = {"forward": network(x["x"], x["t"], text)}
    if "x_mask" in x:
        out["forward_no_x_mask"] = out["forward"]
        out["forward"] = network(x["x"], x["t"], text, x_mask=x["x_mask"].bool())
    if "x_cfg" in x:
        text = text_keys(network, x["y_cfg"], x.get("mask_cfg"))
        raw = network(doubled(x["x_cfg"]), x["t_cfg"], text)
        out["forward_with_cfg"] = guided(raw, scale, network.cfg.in_channels, 3)
    return out


def sizes(x: Options, times: int = 1) -> dict[str, Tensor]:
    names = {"fps": "fps", "frames": "num_frames", "height_px": "height", "width_px": "width", "aspect": "ar"}
    return {ours: x[theirs].repeat(times) for ours, theirs in names.items()}


def run_stdit2(case: Case) -> dict[str, Tensor]:
    network = stdit2(case.config["model"])
    case.fill(network)
    x = case.inputs
    text = text_keys(network, x["y"], x.get("mask"))
    out = {"forward_no_x_mask": network(x["x"], x["t"], text, **sizes(x))}
    if "x_mask" in x:
        out["forward"] = network(x["x"], x["t"], text, x_mask=x["x_mask"].bool(), **sizes(x))
    else:
        out["forward"] = out["forward_no_x_mask"]
    return out


def tables(process: Diffusion) -> dict[str, Tensor]:
    return {
        "timestep_map": torch.tensor(process.timestep_map),
        "betas_f64_as_f32": process.betas.float(),
        "alphas_cumprod": process.alphas_cumprod.float(),
        "posterior_variance": process.posterior_variance.float(),
        "posterior_log_variance_clipped": process.posterior_log_variance_clipped.float(),
        "posterior_mean_coef1": process.posterior_mean_coef1.float(),
        "posterior_mean_coef2": process.posterior_mean_coef2.float(),
    }


def run_spacing(case: Case) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for steps in case.config["num_sampling_steps"]:
        process = Diffusion.respaced(str(steps))
        out[f"map_{steps}"] = torch.tensor(process.timestep_map)
        out[f"betas_{steps}"] = process.betas.float()
    for sections in case.config["respacings"]:
        out[f"space_{sections}"] = torch.tensor(space_timesteps(sections))
    return out


def check_scheduler(scheduler: Options, *, learned_sigma: bool) -> None:
    """The options of which one value is known here; 1.0's and 1.1's published settings change none of them."""
    scheduler.only("noise_schedule", "linear")
    scheduler.only("diffusion_steps", 1000)
    scheduler.only("predict_xstart", False)
    scheduler.only("learn_sigma", learned_sigma)
    scheduler.only("sigma_small", False)
    scheduler.only("timestep_respacing", None)
    scheduler.inert("use_kl", "rescale_learned_sigmas", *INERT)  # of the loss


def run_iddpm(case: Case) -> dict[str, Tensor]:
    """Open-Sora 1.0's and 1.1's loops on the doubled batch, both halves kept (the demo needs the first alone)."""
    config, x = case.config, case.inputs
    scheduler = config["scheduler"]
    draws = case.draws()
    v11 = case.system == "iddpm_stdit2"
    network: Any
    if case.system == "iddpm_dit":
        network = dit(config["model"])
    else:
        network = stdit2(config["model"]) if v11 else stdit(config["model"])
    case.fill(network)
    check_scheduler(scheduler, learned_sigma=network.cfg.learned_sigma)
    z = x["z"] if v11 else draws.pop(0)
    config.only("z_size", list(z.shape[1:]))
    if case.system == "iddpm_dit":
        y = x["y"] if network.cfg.classes else x["y"][:, 0, 0]
        condition = torch.cat([y, network.null_condition().expand_as(y)])
    else:
        y = x["y"]
        null = network.null_text(y.shape[2]).expand_as(y)
        condition = text_keys(network, torch.cat([y, null]), x.get("mask"))
    extra = sizes(x, 2) if v11 else {}
    guided_channels = scheduler.get("cfg_channel") if v11 else 3

    def predict(x: Tensor, timestep: float, index: int, x_mask: Tensor | None) -> Prediction:
        given = {} if x_mask is None else {"x_mask": x_mask}
        out = network(doubled(x), torch.full((len(x),), timestep), condition, **extra, **given)
        return Prediction(guided=guided(out, scheduler["cfg_scale"], network.cfg.in_channels, guided_channels))

    method = config.only("method", "ddpm", "ddim")
    eta = config.get("eta", 0.0) if method == "ddim" else config.only("eta", 0.0)
    settings = IddpmConfig(float32_betas=v11, method=method, eta=eta)
    frame_mask = x["frame_mask"].repeat(2, 1) if "frame_mask" in x else None
    steps = list(
        sample(
            predict,
            torch.cat([z, z]),
            scheduler["num_sampling_steps"],
            settings,
            lambda: draws.pop(0),
            frame_mask=frame_mask,
        )
    )
    assert not draws, "every recorded draw must have been used"
    out = tables(Diffusion.respaced(str(scheduler["num_sampling_steps"]), float32_betas=v11))
    for step in steps:
        out[f"step_{step.index:02d}_sample"] = step.x
        out[f"step_{step.index:02d}_pred_xstart"] = step.x0
    return out | {"sample": steps[-1].x[: len(z)]}


def run_dpms(case: Case) -> dict[str, Tensor]:
    config = case.config
    scale = config["cfg_scale"]
    network = dit(config["model"])
    case.fill(network)
    (z,) = case.draws()
    config.only("z_size", list(z.shape[1:]))
    config.only("order", 2)
    config.only("skip_type", "time_uniform")
    config.only("method", "multistep")
    y = case.inputs["y"] if network.cfg.classes else case.inputs["y"][:, 0, 0]
    null = network.null_condition().expand_as(y)
    out: dict[str, Tensor] = {}

    def predict(x: Tensor, timestep: float, index: int, x_mask: Tensor | None) -> Prediction:
        pair = torch.cat([x, x])
        times = torch.full((len(pair),), timestep)
        out[f"call_{index:02d}_x"], out[f"call_{index:02d}_t"] = pair, times
        raw = network(pair, times, torch.cat([y, null]))[:, : network.cfg.in_channels]
        return Prediction(guided=guided(raw, scale, network.cfg.in_channels, None)[: len(x)])

    steps = list(sample(predict, z, config["steps"], IddpmConfig(method="dpm-solver++"), lambda: z))
    return out | {"sample": steps[-1].x}


SYSTEMS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "dit": run_dit,
    "latte": lambda case: run_dit(case, alternate=True),
    "stdit": run_stdit,
    "stdit1": run_stdit,
    "pixart": lambda case: run_stdit(case, temporal=False),
    "stdit2": run_stdit2,
    "spacing": run_spacing,
    "iddpm_stdit": run_iddpm,
    "iddpm_dit": run_iddpm,
    "iddpm_stdit2": run_iddpm,
    "dpms_dit": run_dpms,
}
LARGE = STDiTConfig(input_size=(16, 64, 64), space_scale=1.0)
MANIFESTS: dict[str, Callable[[], nn.Module]] = {
    "v10_dit_xl2_text_16x256x256": lambda: DiT(DiTConfig()),
    "v10_dit_xl2_label1000_1x256x256": lambda: DiT(DiTConfig(input_size=(1, 32, 32), classes=1000)),
    "v10_stdit_xl2_16x256x256": lambda: STDiT(STDiTConfig()),
    "v10_stdit_xl2_16x512x512": lambda: STDiT(LARGE),
    "v10_stdit_xl2_64x512x512": lambda: STDiT(replace(LARGE, input_size=(64, 64, 64), time_scale=2 / 3)),
    "v11_stdit2_xl2": lambda: STDiT2(STDiT2Config()),
}
