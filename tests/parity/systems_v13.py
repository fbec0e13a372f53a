"""Open-Sora 1.3: STDiT3 with windows and given frames, and its rectified flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from opensora_demo.families.stdit import STDiTConditioning, STDiTFamily
from opensora_demo.models.stdit3_v13 import STDiT3V13, STDiT3V13Config
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.sampling.guidance import FULL_STEPS, ClassifierFree, TextImage
from opensora_demo.sampling.rectified_flow import sample
from opensora_demo.sampling.schedule import shift_v13
from opensora_demo.sampling.step import Prediction
from opensora_demo.types import Rule

from .reference import Case
from .systems_v12 import masked_start, ratio_of, text_keys, times_of

RESCALE = 0.7  # the reference writes it into its code


def stdit3_v13(model: dict[str, Any]) -> STDiT3V13:
    kernel = model.get("kernel_size")
    if kernel is not None:
        assert kernel[2] == -1, "windows reach over all frames"
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
    scheduler, options = config["scheduler"], config.get("sample_kwargs", {})
    given = config.get("mask_index") or []
    assert len(x["z"]) == 1 or not given, "the reference repeats the null text for one prompt only"

    def option(name: str, otherwise: Any) -> Any:
        """A keyword of the call; None stands for the scheduler's own."""
        value = options.get(name)
        return otherwise if value is None else value

    both = scheduler.get("use_oscillation_guidance", False)
    text_osci = option("use_oscillation_guidance_for_text", both)
    image_osci = option("use_oscillation_guidance_for_image", both)
    scale = option("guidance_scale", scheduler["cfg_scale"])
    draws = case.draws()
    out: dict[str, list[Tensor]] = {}
    family = STDiTFamily(None, network, RectifiedFlowConfig(shift="1.3"))  # type: ignore[arg-type]
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
            z, frame_mask = masked_start(config, x, row, out)
        if given:
            latent, mask = x["z_cond"][row] * x["z_cond_mask"][row], x["z_cond_mask"][row]
            null = network.project_text(network.null_text(int(lengths.max())).expand(2, -1, -1), lengths)
        assert scheduler.get("force_num", FULL_STEPS) == FULL_STEPS
        guidance: ClassifierFree | TextImage
        rules: tuple[Rule, ...] = ("oscillating" if text_osci else "plain",)
        if given:
            guidance = TextImage(
                scales=(scale,),
                rules=rules,
                image_rules=("oscillating" if image_osci else "plain",),
                image_scale=option("image_cfg_scale", scheduler["cfg_scale"]),
                points=scheduler["num_sampling_steps"],
                latent_frames=z.shape[2] if scheduler["scale_image_weight"] else None,
                image_low=scheduler["initial_image_scale"],
            )
        else:
            guidance = ClassifierFree((scale,), rules, rescale=RESCALE if scheduler["use_flaw_fix"] else 0.0)
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
            found = {"z_in": x, "t": torch.tensor([1000 * t])} | ({} if x_mask is None else {"x_mask": x_mask})
            raw = family.outputs(x, 1000 * t, condition, wanted, x_mask)  # noqa: B023
            for name, value in found.items():
                out.setdefault(f"call_{index:02d}_{name}", []).append(value)
            out.setdefault(f"call_{index:02d}_model_out", []).append(torch.cat([r for r in raw if r is not None]))
            return family.velocity(x, t, index, condition, x_mask)  # noqa: B023

        def shift(height: float, width: float, frames: int) -> float:
            return shift_v13(height, width, frames if scheduler["scale_temporal"] else 1, scheduler["transform_scale"])

        ratio = ratio_of(x, row, shift)
        mine = [d[row : row + 1] for d in draws]
        renoise = (latent, mask) if options.get("use_sdedit") and latent is not None and mask is not None else None
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
