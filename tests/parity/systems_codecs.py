"""Autoencoders of all versions, causal convolutions, image transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from opensora_demo.codecs.dc_ae import DcAe, DcAeConfig
from opensora_demo.codecs.hunyuan import HunyuanConfig, HunyuanVAE
from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVAE, TemporalVaeConfig
from opensora_demo.codecs.tiling import Tiling
from opensora_demo.codecs.vae_v13 import VaeV13, VaeV13Config
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.media import crop_square, resize_to_fill
from opensora_demo.nn.causal_conv import CausalConv3d
from opensora_demo.pipeline import to_frames

from .reference import Case, weight

Model = dict[str, Any]
WHOLE = 10**6  # the reference's None: no chunks


def by_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in sorted(tensors.items()) if name.startswith(prefix)}


# --- 1.2 ----------------------------------------------------------------------------------------------------------


def temporal_config(model: Model) -> TemporalVaeConfig:
    assert model.get("embed_dim", 4) == model.get("latent_embed_dim", 4)
    assert model.get("activation_fn", "swish") == "swish"
    return TemporalVaeConfig(
        in_channels=model.get("in_out_channels", 4),
        latent_channels=model.get("latent_embed_dim", 4),
        filters=model["filters"],
        res_blocks=model["num_res_blocks"],
        norm_groups=model["num_groups"],
        channel_multipliers=tuple(model["channel_multipliers"]),
        temporal_downsample=tuple(model["temporal_downsample"]),
    )


def run_temporal(case: Case) -> dict[str, Tensor]:
    vae = TemporalVAE(temporal_config(case.config["model"]))
    case.fill(vae)
    out: dict[str, Tensor] = {}
    for key, x in by_prefix(case.inputs, "x_").items():
        mean, log_variance = vae.encode(x)
        out[f"{key}_mean"], out[f"{key}_std"] = mean, torch.exp(0.5 * log_variance)
        out[f"{key}_dec_of_mean"] = vae.decode(mean, x.shape[2])
        out[f"{key}_moments"] = torch.cat([mean, log_variance], dim=1)  # recorded before its clamp, which is idle here
        out[f"{key}_latent_size"] = torch.tensor([*mean.shape[2:]])
    for key, z in by_prefix(case.inputs, "z_").items():
        expected = case.expected[f"{key}_dec"]
        out[f"{key}_dec"] = vae.decode(z, expected.shape[2])
    return out


def run_pipeline(case: Case) -> dict[str, Tensor]:
    model = case.config["model"]
    image = model["autoencoder_kl"]
    vae = VideoVAE(
        VideoVaeConfig(
            image=ImageVaeConfig(
                latent_channels=image.get("latent_channels", 4),
                block_channels=tuple(image["block_out_channels"]),
                layers_per_block=image["layers_per_block"],
                norm_groups=image["norm_num_groups"],
                micro_batch=model["micro_batch_size"] or WHOLE,
            ),
            temporal=temporal_config(model["vae_temporal"]),
            chunk_frames=model["micro_frame_size"] or WHOLE,
        )
    )
    case.fill(vae)
    for name in ("shift", "scale"):
        if name not in (case.networks["model"].get("overrides") or {}):
            getattr(vae, name).copy_(torch.tensor(model[name]).view(1, -1, 1, 1, 1))
    out: dict[str, Tensor] = {}
    draws = case.draws()
    for key, x in by_prefix(case.inputs, "x_").items():
        frames = x.shape[2]
        out[f"{key}_encode_posterior_means"] = vae.encode(x)
        if f"{key}_encode" in case.expected:
            first = len(case.draws()) - len(draws)
            out[f"{key}_encode"] = replayed(vae, x, draws)
            out[f"{key}_n_randn_used"] = torch.tensor([first, len(case.draws()) - len(draws)])
        if f"{key}_encode" in case.expected:
            out[f"{key}_decode"] = vae.decode(case.expected[f"{key}_encode"], frames)
        # recorded for 64 x 64 px; the reference divides by 8 whatever its 2-D autoencoder does (Q14)
        out[f"{key}_latent_size"] = torch.tensor([vae.latent_size(frames, 64, 64)[0], 8, 8])
    for key, z in by_prefix(case.inputs, "z_").items():
        out[f"{key}_decode"] = vae.decode(z, case.expected[f"{key}_decode"].shape[2])
    return out


def replayed(vae: VideoVAE, x: Tensor, draws: list[Tensor]) -> Tensor:
    """`vae.encode` with the recorded normal draws in place of a generator's, in call order."""
    original = torch.randn

    def recorded(shape: Any, **_: Any) -> Tensor:
        draw = draws.pop(0)
        assert tuple(draw.shape) == tuple(shape)
        return draw

    torch.randn = recorded  # type: ignore[assignment]
    try:
        return vae.encode(x, torch.Generator())
    finally:
        torch.randn = original


def run_convolutions(case: Case) -> dict[str, Tensor]:
    """1.2's causal convolutions (zeros in front) and Hunyuan's (copies of the edge, on all sides of the picture)."""
    network = case.networks["model"]
    out: dict[str, Tensor] = {}
    for name, c in case.config["model"].items():
        kernel = c["kernel_size"]
        if case.system == "hy_causalconv":
            from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoCausalConv3d

            stride = c.get("stride", 1)
            conv: Any = HunyuanVideoCausalConv3d(
                c["chan_in"],
                c["chan_out"],
                kernel,
                stride if isinstance(stride, int) else tuple(stride),
                dilation=c.get("dilation", 1),
                bias=c.get("bias", True),
                pad_mode=c.get("pad_mode", "replicate"),
            )
        else:
            stride = c.get("strides") or ((c["stride"], 1, 1) if "stride" in c else (1, 1, 1))
            conv = CausalConv3d(
                c["chan_in"],
                c["chan_out"],
                kernel if isinstance(kernel, int) else tuple(kernel),
                stride=tuple(stride),
                dilation=c.get("dilation", 1),
                bias=c.get("bias", True),
                pad_mode=c.get("pad_mode", "constant"),
            )
        names = {k.removeprefix(f"{name}."): k for k in network["names"] if k.startswith(f"{name}.")}
        conv.load_state_dict(
            {own: weight(network["seed"], network["gain"], k, network["names"][k]) for own, k in names.items()}
        )
        out[name] = conv(case.inputs["x"])
    return out


# --- 1.3 ----------------------------------------------------------------------------------------------------------


def run_v13(case: Case) -> dict[str, Tensor]:
    model = case.config["model"]
    encoder, decoder = model["encoder"], model["decoder"]
    assert encoder["double_z"]
    for key in ("ch", "ch_mult", "num_res_blocks", "z_channels"):
        assert encoder[key] == decoder[key], key
    assert decoder.get("temporal_downsample", 4) == 4, "the reference counts latents of a chunk by 4"
    assert len(encoder["down_sampling_layer"]) == len(decoder["temporal_up_layers"]) == 2
    cfg = VaeV13Config(
        latent_channels=encoder["z_channels"],
        channels=encoder["ch"],
        multipliers=tuple(encoder["ch_mult"]),
        res_blocks=encoder["num_res_blocks"],
        down_in_time=tuple(encoder["down_sampling_layer"]),
        up_in_time=tuple(decoder["temporal_up_layers"]),
        chunk_frames=model["micro_frame_size"],
        overlap=model["temporal_overlap"],
        normalise=model["normalization"],
    )
    # without micro batches the reference codes the clip at once, but goes on counting latents by the chunk
    vae = VaeV13(cfg if model["micro_batch_size"] is not None else replace(cfg, chunk_frames=None))
    with torch.device("meta"):
        counting = VaeV13(cfg)
    case.fill(vae)
    out: dict[str, Tensor] = {}
    for key, x in by_prefix(case.inputs, "x_").items():
        z = vae.encode(x)
        out[f"{key}_z"] = z
        out[f"{key}_moments"] = torch.cat(vae.moments(x), dim=1)
        out[f"{key}_recon"] = vae.decode(z, x.shape[2])
        h, w = (-(-n // 8) for n in x.shape[3:])  # the reference divides by 8 whatever the network does
        out[f"{key}_latent_size"] = torch.tensor([counting.latent_size(x.shape[2], 8, 8)[0], h, w])
    for key, z in by_prefix(case.inputs, "z_").items():
        out[f"{key}_dec"] = vae.decode(z, case.expected[f"{key}_dec"].shape[2])
    return out


# --- 2.0 ----------------------------------------------------------------------------------------------------------


def hunyuan(model: Model) -> HunyuanVAE:
    assert model["act_fn"] == "silu"
    assert model["in_channels"] == model["out_channels"] == 3
    return HunyuanVAE(
        HunyuanConfig(
            latent_channels=model["latent_channels"],
            block_channels=tuple(model["block_out_channels"]),
            layers_per_block=model["layers_per_block"],
            norm_groups=model["norm_num_groups"],
            mid_attention=model["mid_block_add_attention"],
            time_factor=model["time_compression_ratio"],
            space_factor=model["spatial_compression_ratio"],
            latent_scale=model["scale_factor"],
            latent_shift=model["shift_factor"],
            tiling=Tiling(
                spatial=model["use_spatial_tiling"],
                temporal=model["use_temporal_tiling"],
                tile_px=model["sample_size"],
                tile_latent=model["sample_size"] // 2 ** (len(model["block_out_channels"]) - 1),
                tile_frames=model["sample_tsize"],
                tile_latent_frames=model["sample_tsize"] // model["time_compression_ratio"],
                overlap=model["tile_overlap_factor"],
            ),
        )
    )


def run_hunyuan(case: Case) -> dict[str, Tensor]:
    vae = hunyuan(case.config["model"])
    case.fill(vae)
    out: dict[str, Tensor] = {}
    clips = by_prefix(case.inputs, "x_")
    for key, x in clips.items():
        mean, log_variance = vae.moments(x)
        out[f"{key}_moments"] = torch.cat([mean, log_variance], dim=1)
        out[f"{key}_z_mode"] = vae.encode(x)
        frames = case.expected[f"{key}_recon_of_mode"].shape[2]
        out[f"{key}_recon_of_mode"] = vae.decode(out[f"{key}_z_mode"], frames)
        out[f"{key}_latent_size"] = torch.tensor(vae.latent_size(x.shape[2], x.shape[3], x.shape[4]))
    if draws := case.draws():
        mean, log_variance = vae.moments(clips[max(clips)])
        out["last_x_z_sampled"] = vae.scale_latents(mean + torch.exp(0.5 * log_variance) * draws[0])
    for key, z in by_prefix(case.inputs, "z_").items():
        out[f"{key}_dec"] = vae.decode(z, case.expected[f"{key}_dec"].shape[2])
    return out


def dc_ae(model: Model, attrs: Model | None = None) -> DcAe:
    """`attrs` are set after construction in the reference, where the latent tile sizes keep their values (Q20)."""
    encoder, decoder = model["encoder"], model["decoder"]
    kinds = {"ResBlock": None, "EViT_GLU": (), "EViTS5_GLU": (5,)}
    assert encoder["block_type"] == decoder["block_type"]
    assert encoder["width_list"] == decoder["width_list"]
    assert encoder["is_video"]
    assert decoder["is_video"]
    stages = len(encoder["width_list"])
    time = [*encoder["temporal_downsample"], *[False] * stages][: stages - 1]  # the last stage has no step down
    assert time == [*decoder["temporal_upsample"], *[False] * stages][: stages - 1]
    for key in ("downsample_shortcut", "out_shortcut"):
        assert encoder[key] == "averaging", key
    for key in ("in_shortcut", "upsample_shortcut"):
        assert decoder[key] == "duplicating", key
    assert encoder["downsample_match_channel"]
    assert decoder["upsample_match_channel"]
    assert encoder["downsample_block_type"] == "Conv"
    assert decoder["upsample_block_type"] == "InterpolateConv"
    assert encoder["norm"] == decoder["norm"] == decoder["out_norm"] == "rms3d"
    assert encoder["act"] == decoder["act"] == "silu"
    assert decoder["out_act"] == "relu"
    assert encoder["out_norm"] is None
    assert encoder["out_act"] is None
    assert not encoder["double_latent"]
    blocks = encoder["block_type"]
    blocks = [blocks] * stages if isinstance(blocks, str) else blocks
    settings = model | (attrs or {})
    vae = DcAe(
        DcAeConfig(
            latent_channels=model["latent_channels"],
            widths=tuple(encoder["width_list"]),
            encoder_depths=tuple(encoder["depth_list"]),
            decoder_depths=tuple(decoder["depth_list"]),
            attention=tuple(kinds[kind] for kind in blocks),
            time=(*time, False),
            scaling_factor=settings["scaling_factor"],
            tiling=Tiling(
                spatial=settings["use_spatial_tiling"],
                temporal=settings["use_temporal_tiling"],
                tile_px=settings["spatial_tile_size"],
                tile_latent=model["spatial_tile_size"] // model["spatial_compression_ratio"],
                tile_frames=settings["temporal_tile_size"],
                tile_latent_frames=model["temporal_tile_size"] // model["time_compression_ratio"],
                overlap=settings["tile_overlap_factor"],
            ),
        )
    )
    assert vae.cfg.time_factor == model["time_compression_ratio"]
    assert vae.cfg.space_factor == model["spatial_compression_ratio"]
    return vae


def run_dcae(case: Case) -> dict[str, Tensor]:
    vae = dc_ae(case.config["model"], case.config.get("attrs"))
    case.fill(vae)
    out: dict[str, Tensor] = {}
    for key, x in by_prefix(case.inputs, "x_").items():
        z = vae.encode(x)
        out[f"{key}_z"] = z
        out[f"{key}_recon"] = vae.decode(z, case.expected[f"{key}_recon"].shape[2])
        out[f"{key}_latent_size"] = torch.tensor(vae.latent_size(x.shape[2], x.shape[3], x.shape[4]))
    for key, z in by_prefix(case.inputs, "z_").items():
        out[f"{key}_dec"] = vae.decode(z, case.expected[f"{key}_dec"].shape[2])
    return out


# --- pictures -----------------------------------------------------------------------------------------------------


def resize_video(frames: Tensor, height: int, width: int) -> Tensor:
    """Frames (t, 3, h, w) scaled to cover and cropped, bilinear without smoothing: how upstream reads a reference
    video. The demo takes pictures only, so this lives here."""
    h, w = frames.shape[2:]
    size = (height, round(w * height / h)) if height / h > width / w else (round(h * width / w), width)
    scaled = nn.functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return scaled[:, :, top : top + height, left : left + width]


def run_transforms(case: Case) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, value in case.inputs.items():
        if name.startswith("img_"):
            picture = Image.fromarray(value.numpy().astype(np.uint8))
            for h, w in case.config["sizes"]:
                out[f"{name}_to_{h}x{w}_u8"] = torch.from_numpy(np.array(resize_to_fill(picture, h, w)))
            for key in case.expected:
                if key.startswith(f"{name}_centercrop_"):
                    out[key] = torch.from_numpy(np.array(crop_square(picture, int(key.rsplit("_", 1)[1]))))
        elif name.startswith("vid_"):
            for h, w in case.config["sizes"]:
                out[f"{name}_to_{h}x{w}"] = 2 * resize_video(value.float() / 255, h, w) - 1
    if "to_uint8_src" in case.inputs:
        out["to_uint8"] = torch.from_numpy(to_frames(case.inputs["to_uint8_src"]))
    return out


SYSTEMS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "vae_temporal": run_temporal,
    "vae_pipeline": run_pipeline,
    "causalconv": run_convolutions,
    "hy_causalconv": run_convolutions,
    "vae_v13": run_v13,
    "hunyuan": run_hunyuan,
    "dcae": run_dcae,
    "image_transforms": run_transforms,
}
MANIFESTS: dict[str, Callable[[], nn.Module]] = {
    "v12_vae_temporal_sd": lambda: TemporalVAE(TemporalVaeConfig()),
    "v12_vae_pipeline": lambda: VideoVAE(VideoVaeConfig()),
    "v13_vae": lambda: VaeV13(VaeV13Config()),
    "v20_hunyuan_vae": lambda: HunyuanVAE(HunyuanConfig()),
    "v20_dcae_f32t4c128": lambda: DcAe(DcAeConfig()),
}
