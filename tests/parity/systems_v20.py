"""Open-Sora 2.0: MMDiT, its schedule, given frames, denoising, and the whole call."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from opensora_demo.catalog.sizes import sizes_20
from opensora_demo.codecs.hunyuan import HunyuanConfig, HunyuanVAE
from opensora_demo.families.adapters.mmdit import MMDiTAdapter
from opensora_demo.families.mmdit import MMDiTConditioning, MMDiTFamily
from opensora_demo.models.mmdit import MMDiT, MMDiTConfig, pack, token_ids, unpack
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.sampling.frame_conditions import given_frames
from opensora_demo.sampling.guidance import ImageRule, TextImage, Unguided, oscillate
from opensora_demo.sampling.schedule import flow_times, shift_time, shift_v20

from .options import INERT, Options, UnknownOption
from .reference import Case
from .systems_codecs import WHOLE, dc_ae, hunyuan


def mmdit(model: Options) -> MMDiT:
    model.inert("cache_dir", *INERT)
    return MMDiT(
        MMDiTConfig(
            in_channels=model["in_channels"],
            patch=model["patch_size"],
            width=model["hidden_size"],
            heads=model["num_heads"],
            mlp_ratio=model["mlp_ratio"],
            depth=model["depth"],
            depth_single=model["depth_single_blocks"],
            axes=tuple(model["axes_dim"]),
            theta=model["theta"],
            text_channels=model["context_in_dim"],
            pooled_channels=model["vec_in_dim"],
            qkv_bias=model["qkv_bias"],
            guidance_embed=model["guidance_embed"],
            cond_embed=model["cond_embed"],
            fused_qkv=model["fused_qkv"],
            rotate_halves=model["use_liger_rope"],
        )
    )


def run_mmdit(case: Case) -> dict[str, Tensor]:
    network = mmdit(case.config["model"])
    case.fill(network)
    x = case.inputs
    ids = torch.cat([x["txt_ids"], x["img_ids"]], dim=1)[:, None]  # (b, 1, n, 3)
    out = network.forward_tokens(
        x["img"],
        x["timesteps"],
        x["txt"],
        x["y_vec"],
        network.rope_of(ids),
        cond=x.get("cond"),
        guidance=x.get("guidance"),
    )
    return {"forward": out}


def times_of(steps: int, tokens: int, frames: int, shift: bool = True, shift_alpha: float | None = None) -> Any:
    ratio = shift_v20(tokens, frames) if shift_alpha is None else shift_alpha
    return flow_times(steps, ratio if shift else 1.0)


def run_schedule(case: Case) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    patch = case.config.get("patch_size", 2)
    for i, g in enumerate(case.config["grid"]):
        g.only("base_shift", 1)
        g.only("max_shift", 3)
        out[f"{i:02d}"] = torch.tensor(
            times_of(
                g["num_steps"],
                g["image_seq_len"],
                g["num_frames"],
                g.get("shift", True),
                g.get("shift_alpha"),
            )
        )
    if "z" in case.inputs:
        z = case.inputs["z"]
        out["noise_pack"] = pack(z, patch)
        out["noise_unpack"] = unpack(out["noise_pack"], patch, (z.shape[2], z.shape[3], z.shape[4]))
    if "t" in case.inputs:
        (alpha,) = said(case, "time_shift", r"time_shift\(([\d.]+), t\)")
        out["time_shift"] = shift_time(case.inputs["t"], alpha)
    for name in case.expected:
        if name.startswith("osci_gs_"):
            scale, first, last = said(case, name, r"oscillating guidance ([\d.]+) for step (\d+)\.\.(\d+)")
            out[name] = torch.tensor([oscillate(scale, i) for i in range(int(first), int(last) + 1)])
    if "get_noise_shape" in case.expected:
        pattern = r"shape of get_noise for (\d+) clips of (\d+) latent frames, (\d+)x(\d+) pixels, (\d+) channels"
        clips, latents, height, width, channels = map(int, said(case, "get_noise_shape", pattern))
        codec = HunyuanConfig(latent_channels=channels)
        size = codec.latent_size((latents - 1) * codec.time_factor + 1, rounded(height), rounded(width))
        out["get_noise_shape"] = torch.tensor([clips, channels, *size])
    return out


def said(case: Case, output: str, pattern: str) -> tuple[float, ...]:
    """The numbers of an output's meaning, which must read so."""
    words = case.meaning[f"outputs.{output}"]
    if not (found := re.fullmatch(pattern, words)):
        raise UnknownOption(f"outputs.{output}: {words!r}")
    return tuple(float(number) for number in found.groups())


def rounded(side_px: int) -> int:
    """A side as the reference rounds it up, so that latents can be packed."""
    return -(-side_px // 16) * 16


def run_cond(case: Case) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    z = case.inputs["z"]
    for i, c in enumerate(case.config["cases"]):
        pairs = [
            given_frames(c["cond"], [case.inputs[r] for r in refs or []], tuple(z.shape[1:]), causal=c["causal"])
            for refs in c["refs"]
        ]
        out[f"{i:02d}_masks"] = torch.stack([mask for mask, _ in pairs])
        out[f"{i:02d}_masked_ref"] = torch.stack([latent for _, latent in pairs])
    return out


def conditioning(
    txt: Tensor,
    y_vec: Tensor,
    mask: Tensor,
    latent: Tensor,
    opt: Options,
    kind: str,
    steps: int,
    references: list[Tensor] | None = None,
) -> MMDiTConditioning:
    """The rows [prompt, negative, negative] of one clip; kind "distill" has the prompt only."""
    scale = opt.get("guidance", 4.0)
    guidance: Unguided | TextImage
    if kind == "distill":
        opt.inert("guidance_img", "text_osci", "image_osci", "scale_temporal_osci")  # one branch, told the scale
        guidance = Unguided((scale,))
    else:
        spread = opt.get("scale_temporal_osci", False)
        guidance = TextImage(
            scales=(scale,),
            rules=("oscillating" if opt.get("text_osci", False) else "plain",),
            image_rules=(ImageRule(oscillating=opt.get("image_osci", False), spread=spread and "i2v" in kind),),
            image_scale=opt["guidance_img"],
            points=steps + 1,
            latent_frames=mask.shape[1],
        )
    first = references[0] if references and kind in ("i2v_head", "i2v_loop") else None
    last = references[-1] if references and kind in ("i2v_tail", "i2v_loop") else None
    return MMDiTConditioning(
        guidance=guidance,
        text=txt,
        pooled=y_vec,
        mask=mask,
        latent=latent,
        back=(first, last),
        scales=(scale,),
    )


def run_denoise(case: Case) -> dict[str, Tensor]:
    config, x = case.config, case.inputs
    network = mmdit(config["model"])
    case.fill(network)
    config.only("patch_size", network.cfg.patch)
    schedule = config["schedule"]
    times = times_of(
        schedule["num_steps"],
        schedule["image_seq_len"],
        schedule["num_frames"],
        schedule.get("shift", True),
        schedule.get("shift_alpha"),
    )
    distill = config.only("method", "i2v", "distill") == "distill"
    n, size = x["z"].shape[0], tuple(x["z"].shape[1:])
    if distill:
        config.inert("cond_type", "n_refs", "is_causal_vae")
    kind = "distill" if distill else config.get("cond_type", "t2v")
    branches = 1 if distill else 3
    family = MMDiTFamily(None, None, MMDiTAdapter(network), RectifiedFlowConfig(shift="2.0"))  # type: ignore[arg-type]
    out: dict[str, list[Tensor]] = {}
    for row in range(n):
        mask, latent = torch.zeros(1, *size[1:]), torch.zeros(size)
        if not distill:
            references = [x[f"ref_{row}_{i}"] for i in range(config["n_refs"][row])]
            mask, latent = given_frames(kind, references, size, causal=config["is_causal_vae"])  # type: ignore[arg-type]
        rows = [row] if distill else [row, n + row, 2 * n + row]
        condition = conditioning(x["txt"][rows], x["y_vec"][rows], mask, latent, config, kind, schedule["num_steps"])
        z = x["z"][row : row + 1]
        steps = list(family.denoise(z, condition, times))
        before = [z, *(step.x for step in steps)]
        found: dict[str, Tensor] = {
            "masks": mask[None],
            "masked_ref": latent[None],
            "denoised": steps[-1].x,
            "denoised_packed": pack(steps[-1].x, network.cfg.patch),
        }
        if not distill:
            found["cond"] = pack(condition.cond([0, 1, 2]), network.cfg.patch)
        found["img_packed"] = pack(z, network.cfg.patch).expand(branches, -1, -1)
        grid = (size[1], size[2] // network.cfg.patch, size[3] // network.cfg.patch)
        found["img_ids"] = token_ids(grid, 0).float().expand(branches, -1, -1)
        for i, latent_before in enumerate(before[:-1]):
            found[f"call_{i:02d}_img"] = pack(latent_before, network.cfg.patch)
            found[f"call_{i:02d}_t"] = torch.tensor([times[i]])
            if f"call_{i:02d}_pred" in case.expected:
                wanted = torch.ones(1, branches, dtype=torch.bool)
                predictions = family.predictions(latent_before, times[i], condition, wanted)
                found[f"call_{i:02d}_pred"] = torch.cat(
                    [pack(p, network.cfg.patch) for p in predictions if p is not None]
                )
        for key, value in found.items():
            out.setdefault(key, []).append(value)
    # rows of a batch are ordered branch by branch: [prompt 0, prompt 1, ..., null 0, null 1, ...]
    joined = {key: torch.stack(parts, dim=1).flatten(0, 1) for key, parts in out.items()}
    return joined | {"timesteps": torch.tensor(times)}


def references_of(case: Case, row: int, kind: str, codec: Any, draws: list[Tensor], causal: bool) -> list[Tensor]:
    """Latents of one clip's references, each the part of it that its kind of condition takes."""
    names = (case.config.get("ref") or [""] * (row + 1))[row]
    if not names or kind == "t2v":
        return []
    clips = [case.inputs[name] for name in names.split(";")]
    if kind.startswith("v2v"):
        length = (64 if clips[0].shape[1] >= 64 and "easy" in kind else 32) + int(causal)
        clips = [clips[0][:, :length] if "head" in kind else clips[0][:, -length:]]
    elif kind == "i2v_head":
        clips = [clips[0][:, :1]]
    elif kind == "i2v_tail":
        clips = [clips[-1][:, -1:]]
    else:
        clips = [clips[0][:, :1], clips[-1][:, -1:]]
    latents = []
    for clip in clips:
        if isinstance(codec, HunyuanVAE):
            mean, log_variance = codec.moments(clip[None])
            latents.append(codec.scale_latents(mean + torch.exp(0.5 * log_variance) * draws.pop(0))[0])
        else:
            latents.append(codec.encode(clip[None])[0])
    return latents


def size_px(opt: Options, spatial_compression: int) -> tuple[int, int]:
    """Height and width, which a resolution and an aspect ratio override; each rounded up as the reference does."""
    resolution, aspect = opt.get("resolution"), opt.get("aspect_ratio")
    if resolution is None and aspect is None:
        return rounded(opt["height"]), rounded(opt["width"])
    opt.inert("height", "width")
    for size in sizes_20("256px", multiple=spatial_compression):
        if (size.resolution, size.aspect) == (resolution, aspect):
            return rounded(size.height_px), rounded(size.width_px)
    raise opt.unknown("resolution", f"no size for it with the aspect ratio {aspect!r}")


def run_api(case: Case) -> dict[str, Tensor]:
    config, x = case.config, case.inputs
    opt, n = config["opt"], config["n"]
    network = mmdit(config["mmdit"])
    case.fill(network, "mmdit")
    codec: Any = hunyuan(config["hunyuan"]) if "hunyuan" in config else dc_ae(config["dcae"])
    case.fill(codec, "vae")
    config.inert("seed", "sigma_min")  # noise is recorded; nothing reads sigma_min
    opt.inert("seed")
    config.only("patch_size", network.cfg.patch)
    config.only("channel", network.cfg.in_channels)
    distill = opt.only("method", "i2v", "distill") == "distill"
    kind = config.only("cond_type", "t2v") if distill else config.get("cond_type", "t2v")
    if "ref" not in config:
        kind = "t2v"  # the reference falls back to it
    steps, frames = opt.get("num_steps", 50), opt.get("num_frames", 1)
    causal, reduction = opt.get("is_causal_vae", False), opt.get("temporal_reduction", 1)

    compression = config.get("ae_spatial_compression", 16)
    if compression != codec.cfg.space_factor * network.cfg.patch:
        raise config.unknown("ae_spatial_compression", "it must be that of the codec and a patch")
    if reduction != codec.time_factor:
        raise opt.unknown("temporal_reduction", "it must be that of the codec")
    if config.get("compression", [reduction])[0] != reduction:
        raise config.unknown("compression", "it must be that of the codec")
    height, width = size_px(opt, compression)
    size = (codec.latent_channels, *codec.cfg.latent_size(frames, height, width))
    latents = (frames - 1) // reduction + 1 if causal else frames // reduction
    if frames > 1 and size[1] != latents:
        raise opt.unknown("num_frames", f"the codec has {size[1]} latent frames, the options {latents}")

    draws = case.draws()
    noise = draws.pop(0)
    assert tuple(noise.shape) == (n, *size), "the noise of another size"
    references = [references_of(case, row, kind, codec, draws, causal) for row in range(n)]
    assert not draws, "every draw must have been used"
    tokens = size[2] * size[3] // network.cfg.patch**2
    times = times_of(steps, tokens, size[1], opt.get("shift", True), opt.get("flow_shift"))
    family = MMDiTFamily(None, None, MMDiTAdapter(network), RectifiedFlowConfig(shift="2.0"), causal=causal)  # type: ignore[arg-type]
    clips = []
    for row in range(n):
        mask, latent = given_frames(kind, references[row], size, causal=causal)
        rows = [row] if distill else [row, n + row, 2 * n + row]
        back = references[row] if row == 0 else None  # the reference puts back the first clip's frames only (Q19)
        condition = conditioning(
            x["txt"][rows], x["y_vec"][rows], mask, latent, opt, "distill" if distill else kind, steps, back
        )
        *_, last = family.run(noise[row : row + 1], condition, times)
        clips.append(last.x)
    video = codec.decode(torch.cat(clips), WHOLE)[:, :, :frames]
    if not causal and "i2v" in kind:  # a lone frame fills the whole first (last) latent: its copies are cut off (Q19)
        head, tail = (
            codec.copies if kind in kinds else 0 for kinds in (("i2v_head", "i2v_loop"), ("i2v_tail", "i2v_loop"))
        )
        video = video[:, :, head : video.shape[2] - tail]
    return {"video": video, "opt_hw": torch.tensor([height, width])}


SYSTEMS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "mmdit": run_mmdit,
    "schedule": run_schedule,
    "cond": run_cond,
    "denoise": run_denoise,
    "v20_api": run_api,
}
FLUX = MMDiTConfig(guidance_embed=True, cond_embed=False, fused_qkv=True, rotate_halves=False)
MANIFESTS: dict[str, Callable[[], nn.Module]] = {
    "v20_mmdit_11b": lambda: MMDiT(MMDiTConfig()),
    "v20_mmdit_11b_dcae": lambda: MMDiT(MMDiTConfig(in_channels=128, patch=1)),
    "v20_flux1_dev": lambda: MMDiT(FLUX),
}
