"""Open-Sora 1.3: STDiT3 with windows and given frames, and its rectified flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from opensora_demo.families.adapters.stdit3_v13 import STDiT3V13Adapter
from opensora_demo.families.stdit import STDiTConditioning, STDiTFamily
from opensora_demo.models.stdit3_v13 import STDiT3V13, STDiT3V13Config
from opensora_demo.request.limits import Rule
from opensora_demo.sampling.bends import RESCALE
from opensora_demo.sampling.guidance import FULL_STEPS, ClassifierFree, ImageRule, TextImage
from opensora_demo.sampling.rectified_flow import sample
from opensora_demo.sampling.schedule import shift_v13
from opensora_demo.sampling.step import Prediction

from .options import INERT, Options
from .reference import Case
from .systems_v12 import flow_of, masked_start, ratio_of, scale_of, text_keys, times_of


def stdit3_v13(model: Options) -> STDiT3V13:
    kernel = model.get("kernel_size")
    if kernel is not None and kernel[2] != -1:
        raise model.unknown("kernel_size", "windows reach over all frames: the last is -1")
    model.inert("input_size", *INERT)  # positions follow the clip
    return STDiT3V13(
        STDiT3V13Config(
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
            window=None if kernel is None else (kernel[0], kernel[1]),
            spatial_rope=model.get("use_spatial_rope", False),
            temporal=not model.get("skip_temporal", False),
        )
    )


def run_stdit3(case: Case) -> dict[str, Tensor]:
    model = case.config["model"]
    network = stdit3_v13(model)
    case.fill(network)
    x = case.inputs
    text = text_keys(network, model, x["y"], x.get("mask"))
    size = {"fps": x["fps"], "height_px": float(x["height"][0]), "width_px": float(x["width"][0])}
    out = {"forward": network(x["x"], x["t"], text, **size)}
    if "x_mask" in x:
        out["forward_no_x_mask"] = out["forward"]
        out["forward"] = network(x["x"], x["t"], text, x_mask=x["x_mask"].bool(), **size)
    if "cond" in x:
        out["forward_i2v"] = network(
            x["x"],
            x["t"],
            text,
            cond=x["cond"],
            cond_mask=x["cond_mask"],
            given=case.config["mask_index"],
            null=text_keys(network, model, x["y_null"], x.get("mask")),
            **size,
        )
    return out


def run_rflow(case: Case) -> dict[str, Tensor]:
    config, x = case.config, case.inputs
    network = stdit3_v13(config["model"])
    case.fill(network)
    scheduler, options = config["scheduler"], config.get("sample_kwargs", Options({}))
    flow = flow_of(scheduler, "1.3")
    config["model"].only("skip_y_embedder", False)
    x.inert("ar")  # told to the network, which does not look at it
    if not config.get("mask_strategy"):
        config.inert("mask_strategy", "loop_i", "align", "n_refs")
    given = config.get("mask_index") or []
    assert len(x["z"]) == 1 or not given, "the reference repeats the null text for one prompt only"

    def option(name: str, otherwise: Any) -> Any:
        """A keyword of the call; None stands for the scheduler's own."""
        value = options.get(name)
        return otherwise if value is None else value

    both = scheduler.get("use_oscillation_guidance", False)
    text_osci = option("use_oscillation_guidance_for_text", both)
    image_osci = option("use_oscillation_guidance_for_image", both)
    scale, image_scale = scale_of(config, scheduler), option("image_cfg_scale", scheduler["cfg_scale"])
    flaw_fix, sdedit = scheduler.get("use_flaw_fix", False), options.get("use_sdedit", False)  # without and with frames
    spread, image_low = scheduler.get("scale_image_weight", False), scheduler.get("initial_image_scale", 1.0)
    full_steps = scheduler.get("force_num", FULL_STEPS)
    transform_scale, scale_temporal = scheduler.get("transform_scale", 1.0), scheduler.get("scale_temporal", True)
    options.inert("progress")
    draws = case.draws()
    out: dict[str, list[Tensor]] = {}
    family = STDiTFamily(None, STDiT3V13Adapter(network), flow)  # type: ignore[arg-type]
    used = 0
    for row in range(len(x["z"])):
        z = x["z"][row : row + 1]
        length = int(x["mask"][row].sum()) if "mask" in x else x["y"].shape[2]
        if "neg_y" in x:
            lengths = torch.tensor([length, int(x["neg_mask"][row].sum()) if "neg_mask" in x else x["neg_y"].shape[2]])
            text = network.project_text(torch.stack([x["y"][row, 0], x["neg_y"][row, 0]]), lengths)
        else:
            lengths = torch.tensor([length, length])
            text = network.project_text(torch.stack([x["y"][row, 0, :length], network.null_text(length)]))
        latent = mask = null = frame_mask = None
        if config.get("mask_strategy"):
            z, frame_mask = masked_start(case, row, out)
        if given:
            latent, mask = x["z_cond"][row] * x["z_cond_mask"][row], x["z_cond_mask"][row]
            null = network.project_text(network.null_text(int(lengths.max())).expand(2, -1, -1), lengths)
        guidance: ClassifierFree | TextImage
        if given:
            guidance = TextImage(
                scales=(scale,),
                rules=("oscillating" if text_osci else "plain",),
                image_rules=(ImageRule(oscillating=image_osci, spread=spread),),
                image_scale=image_scale,
                points=scheduler["num_sampling_steps"],
                latent_frames=z.shape[2],
                image_low=image_low,
                full_steps=full_steps,
            )
        else:
            rule: Rule = "oscillating" if text_osci else "rescale" if flaw_fix else "plain"
            guidance = ClassifierFree((scale,), (rule,), rescale=RESCALE if flaw_fix else 0.0, full_steps=full_steps)
        condition = STDiTConditioning(
            guidance=guidance,
            text=text,
            fps=float(x["fps"][row]),
            height_px=float(x["height"][0]),
            width_px=float(x["width"][0]),
            latent=latent,
            mask=mask,
            null=null,
        )

        def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
            wanted = torch.ones(1, 3 if given else 2, dtype=torch.bool)
            found = {"z_in": x, "t": torch.tensor([flow.timesteps * t])} | (
                {} if x_mask is None else {"x_mask": x_mask}
            )
            raw = family.outputs(x, flow.timesteps * t, condition, wanted, x_mask)  # noqa: B023
            for name, value in found.items():
                out.setdefault(f"call_{index:02d}_{name}", []).append(value)
            out.setdefault(f"call_{index:02d}_model_out", []).append(torch.cat([r for r in raw if r is not None]))
            return family.velocity(x, t, index, condition, x_mask)  # noqa: B023

        def shift(height: float, width: float, frames: int) -> float:
            return shift_v13(height, width, frames if scale_temporal else 1, transform_scale)

        ratio = ratio_of(x, row, shift)
        mine = [d[row : row + 1] for d in draws]
        renoise = (latent, mask) if sdedit and latent is not None and mask is not None else None
        steps = list(
            sample(
                velocity,
                z,
                times_of(scheduler, ratio),
                frame_mask=frame_mask,
                given=renoise,
                draw=lambda: mine.pop(0),  # noqa: B023
            )
        )
        used = len(draws) - len(mine)
        out.setdefault("sample", []).append(steps[-1].x)
    assert used == len(draws), "every recorded draw must have been used"
    joined = {}
    for key, parts in out.items():
        stacked = torch.stack(parts, dim=1) if key.endswith("model_out") else torch.cat(parts)
        joined[key] = stacked.flatten(0, 1) if key.endswith("model_out") else stacked  # branch by branch
    return joined


SYSTEMS: dict[str, Callable[[Case], dict[str, Tensor]]] = {"stdit3_v13": run_stdit3, "rflow_v13": run_rflow}
MANIFESTS: dict[str, Callable[[], nn.Module]] = {"v13_stdit3_xl2": lambda: STDiT3V13(STDiT3V13Config())}
