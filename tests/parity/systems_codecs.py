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
from opensora_demo.frames import to_frames
from opensora_demo.media import resize_to_fill
from opensora_demo.nn.causal_conv import CausalConv3d

from .options import INERT, Options
from .reference import Case, weight

WHOLE = 10**6  # the reference's None: no chunks, or all frames there are


# --- 1.2 ----------------------------------------------------------------------------------------------------------


def temporal_config(model: Options) -> TemporalVaeConfig:
    model.only("embed_dim", model.get("latent_embed_dim", 4))
    model.only("activation_fn", "swish")
    model.inert(*INERT)
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
    for key, x in case.named("x_").items():
        mean, log_variance = vae.encode(x)
        out[f"{key}_mean"], out[f"{key}_std"] = mean, torch.exp(0.5 * log_variance)
        out[f"{key}_dec_of_mean"] = vae.decode(mean, x.shape[2])
        out[f"{key}_moments"] = torch.cat([mean, log_variance], dim=1)  # recorded before its clamp, which is idle here
        if (size := f"{key}_latent_size") in case.expected:
            out[size] = torch.tensor(vae.cfg.latent_size(*case.asked_size(size, x)))
    for key, z in case.named("z_").items():
        out[f"{key}_dec"] = vae.decode(z, case.asked_frames(key))
    return out


def image_config(image: Options, micro_batch: int | None) -> ImageVaeConfig:
    channels = image["block_out_channels"]
    image.only("in_channels", 3)
    image.only("out_channels", 3)
    image.only("down_block_types", ["DownEncoderBlock2D"] * len(channels))
    image.only("up_block_types", ["UpDecoderBlock2D"] * len(channels))
    image.only("act_fn", "silu")
    image.inert("sample_size", "scaling_factor", "force_upcast", *INERT)  # 0.18215 stands in the reference's code (Q13)
    return ImageVaeConfig(
        latent_channels=image.get("latent_channels", 4),
        block_channels=tuple(channels),
        layers_per_block=image["layers_per_block"],
        norm_groups=image["norm_num_groups"],
        mid_attention=image.get("mid_block_add_attention", True),
        micro_batch=micro_batch or WHOLE,
    )


def run_pipeline(case: Case) -> dict[str, Tensor]:
    model = case.config["model"]
    model.inert("cal_loss", "freeze_vae_2d", *INERT)
    cfg = VideoVaeConfig(
        image=image_config(model["autoencoder_kl"], model["micro_batch_size"]),
        temporal=temporal_config(model["vae_temporal"]),
        chunk_frames=model["micro_frame_size"] or WHOLE,
    )
    # the reference counts 8 pixels to a latent whatever its 2-D autoencoder does (Q14)
    counting = replace(cfg, image=replace(cfg.image, block_channels=cfg.image.block_channels[:1] * 4))
    vae = VideoVAE(cfg)
    case.fill(vae)
    for name in ("shift", "scale"):
        value = torch.tensor(model[name]).view(1, -1, 1, 1, 1)
        if name not in (case.network().get("overrides") or {}):
            getattr(vae, name).copy_(value)
    out: dict[str, Tensor] = {}
    draws = case.draws()
    for key, x in case.named("x_").items():
        frames = x.shape[2]
        out[f"{key}_encode_posterior_means"] = vae.encode(x)
        if f"{key}_encode" in case.expected:
            first = len(case.draws()) - len(draws)
            out[f"{key}_encode"] = replayed(vae, x, draws)
            out[f"{key}_n_randn_used"] = torch.tensor([first, len(case.draws()) - len(draws)])
            out[f"{key}_decode"] = vae.decode(case.expected[f"{key}_encode"], frames)
        if (size := f"{key}_latent_size") in case.expected:
            out[size] = torch.tensor(counting.latent_size(*case.asked_size(size, x)))
    assert not draws, "every recorded draw must have been used"
    for key, z in case.named("z_").items():
        out[f"{key}_decode"] = vae.decode(z, case.asked_frames(key))
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


def stride_of(conv: Options, default: str) -> tuple[int, int, int]:
    """`strides`, or `stride`: a triple, or one number for time, or (Hunyuan's, `default` "all") for all axes."""
    stride = conv.get("stride", 1)
    if (strides := conv.get("strides")) is not None:
        stride = strides
    if not isinstance(stride, int):
        t, h, w = stride
        return t, h, w
    return (stride, stride, stride) if default == "all" else (stride, 1, 1)


def run_convolutions(case: Case) -> dict[str, Tensor]:
    """1.2's causal convolutions (zeros in front) and Hunyuan's (copies of the edge, on all sides of the picture)."""
    network = case.network()
    out: dict[str, Tensor] = {}
    own: set[str] = set()
    for name, c in case.config["model"].items():
        kernel = c["kernel_size"]
        kernel = kernel if isinstance(kernel, int) else tuple(kernel)
        if case.system == "hy_causalconv":
            from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoCausalConv3d

            conv: Any = HunyuanVideoCausalConv3d(
                c["chan_in"],
                c["chan_out"],
                kernel,
                stride_of(c, "all"),
                dilation=c.get("dilation", 1),
                bias=c.get("bias", True),
                pad_mode=c.get("pad_mode", "replicate"),
            )
        else:
            if kernel == 1:
                c.only("padding", "same", 0, "valid")  # the same for one place; a larger kernel would be padded twice
            conv = CausalConv3d(
                c["chan_in"],
                c["chan_out"],
                kernel,
                stride=stride_of(c, "time"),
                dilation=c.get("dilation", 1),
                bias=c.get("bias", True),
                pad_mode=c.get("pad_mode", "constant"),
            )
        names = {k.removeprefix(f"{name}."): k for k in network["names"] if k.startswith(f"{name}.")}
        own |= set(names.values())
        conv.load_state_dict(
            {own: weight(network["seed"], network["gain"], k, network["names"][k]) for own, k in names.items()}
        )
        out[name] = conv(case.inputs["x"])
    assert own == set(network["names"]), "weights of no convolution"
    return out


# --- 1.3 ----------------------------------------------------------------------------------------------------------


def run_v13(case: Case) -> dict[str, Tensor]:
    model = case.config["model"]
    encoder, decoder = model["encoder"], model["decoder"]
    encoder.only("double_z", True)
    for side in (encoder, decoder):
        side.only("in_channels", 3)
        side.only("out_ch", 3)
        side.only("resamp_with_conv", True)
        side.inert("micro_batch_size_2d", *INERT)
    model.only("use_tiled_conv3d", False)
    model.inert("micro_batch_size_2d", "tile_size", "tiled_dim", "num_tiles", *INERT)
    for key in ("ch", "ch_mult", "num_res_blocks", "z_channels"):
        decoder.only(key, encoder[key])
    chunk = model["micro_frame_size"]
    cfg = VaeV13Config(
        latent_channels=encoder["z_channels"],
        channels=encoder["ch"],
        multipliers=tuple(encoder["ch_mult"]),
        res_blocks=encoder["num_res_blocks"],
        down_in_time=tuple(encoder["down_sampling_layer"]),
        up_in_time=tuple(decoder["temporal_up_layers"]),
        chunk_frames=chunk,
        overlap=model["temporal_overlap"],
        normalise=model.only("normalization", None, "video", "video_5frames"),
        chunk_latents=None if chunk is None else (chunk - 1) // 4 + 1,
        cut_frames=decoder.get("temporal_downsample", 4) - 1,
    )
    # the reference counts 4 frames and 8 pixels to a latent whatever the network does
    counting = replace(cfg, multipliers=cfg.multipliers[:1] * 4, down_in_time=(1, 2))
    # without micro batches it codes the clip at once, but goes on counting latents by the chunk
    vae = VaeV13(cfg if model["micro_batch_size"] is not None else replace(cfg, chunk_frames=None))
    case.fill(vae)
    out: dict[str, Tensor] = {}
    for key, x in case.named("x_").items():
        z = vae.encode(x)
        out[f"{key}_z"] = z
        out[f"{key}_moments"] = torch.cat(vae.moments(x), dim=1)
        out[f"{key}_recon"] = vae.decode(z, WHOLE)
        if (size := f"{key}_latent_size") in case.expected:
            out[size] = torch.tensor(counting.latent_size(*case.asked_size(size, x)))
    for key, z in case.named("z_").items():
        out[f"{key}_dec"] = vae.decode(z, WHOLE)
    return out


# --- 2.0 ----------------------------------------------------------------------------------------------------------


def hunyuan(model: Options) -> HunyuanVAE:
    model.only("act_fn", "silu")
    model.only("in_channels", 3)
    model.only("out_channels", 3)
    model.inert("use_slicing", *INERT)  # one clip after another: the same numbers
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
    clips = case.named("x_")
    for key, x in clips.items():
        mean, log_variance = vae.moments(x)
        out[f"{key}_moments"] = torch.cat([mean, log_variance], dim=1)
        out[f"{key}_z_mode"] = vae.encode(x)
        out[f"{key}_recon_of_mode"] = vae.decode(out[f"{key}_z_mode"], WHOLE)
        if (size := f"{key}_latent_size") in case.expected:
            out[size] = torch.tensor(vae.cfg.latent_size(*case.asked_size(size, x)))
    if draws := case.draws():
        (draw,) = draws
        mean, log_variance = vae.moments(clips[max(clips)])
        out["last_x_z_sampled"] = vae.scale_latents(mean + torch.exp(0.5 * log_variance) * draw)
    for key, z in case.named("z_").items():
        out[f"{key}_dec"] = vae.decode(z, WHOLE)
    return out


def dc_ae(model: Options, attrs: Options | None = None) -> DcAe:
    """`attrs` are set after construction in the reference, where the latent tile sizes keep their values (Q20)."""
    encoder, decoder = model["encoder"], model["decoder"]
    kinds = {"ResBlock": None, "EViT_GLU": (), "EViTS5_GLU": (5,)}
    decoder.only("block_type", encoder["block_type"])
    decoder.only("width_list", encoder["width_list"])
    stages = len(encoder["width_list"])

    def steps(flags: list[bool]) -> list[bool]:
        """Between which stages time changes; the last stage has no step."""
        return [*flags, *[False] * stages][: stages - 1]

    time = steps(encoder["temporal_downsample"])
    if time != steps(decoder["temporal_upsample"]):
        raise decoder.unknown("temporal_upsample", "it must double what the encoder halves")
    for side, known in (
        (
            encoder,
            {
                "downsample_shortcut": "averaging",
                "out_shortcut": "averaging",
                "downsample_match_channel": True,
                "downsample_block_type": "Conv",
                "out_norm": None,
                "out_act": None,
                "double_latent": False,
            },
        ),
        (
            decoder,
            {
                "in_shortcut": "duplicating",
                "upsample_shortcut": "duplicating",
                "upsample_match_channel": True,
                "upsample_block_type": "InterpolateConv",
                "out_norm": "rms3d",
                "out_act": "relu",
            },
        ),
    ):
        for name, value in (known | {"is_video": True, "norm": "rms3d", "act": "silu"}).items():
            side.only(name, value)
        side.inert(*INERT)
    model.only("in_channels", 3)
    model.inert(*INERT)
    blocks = encoder["block_type"]
    blocks = [blocks] * stages if isinstance(blocks, str) else blocks
    for block in blocks:
        if block not in kinds:
            raise encoder.unknown("block_type", f"known: {', '.join(kinds)}")
    attrs = attrs or Options({})

    def setting(name: str) -> Any:
        own = model[name]
        return attrs.get(name, own)

    vae = DcAe(
        DcAeConfig(
            latent_channels=model["latent_channels"],
            widths=tuple(encoder["width_list"]),
            encoder_depths=tuple(encoder["depth_list"]),
            decoder_depths=tuple(decoder["depth_list"]),
            attention=tuple(kinds[kind] for kind in blocks),
            time=(*time, False),
            scaling_factor=setting("scaling_factor"),
            tiling=Tiling(
                spatial=setting("use_spatial_tiling"),
                temporal=setting("use_temporal_tiling"),
                tile_px=setting("spatial_tile_size"),
                tile_latent=model["spatial_tile_size"] // model["spatial_compression_ratio"],
                tile_frames=setting("temporal_tile_size"),
                tile_latent_frames=model["temporal_tile_size"] // model["time_compression_ratio"],
                overlap=setting("tile_overlap_factor"),
            ),
        )
    )
    model.only("time_compression_ratio", vae.cfg.time_factor)
    model.only("spatial_compression_ratio", vae.cfg.space_factor)
    return vae


def run_dcae(case: Case) -> dict[str, Tensor]:
    vae = dc_ae(case.config["model"], case.config.get("attrs"))
    case.fill(vae)
    out: dict[str, Tensor] = {}
    for key, x in case.named("x_").items():
        z = vae.encode(x)
        out[f"{key}_z"] = z
        out[f"{key}_recon"] = vae.decode(z, WHOLE)
        if (size := f"{key}_latent_size") in case.expected:
            out[size] = torch.tensor(vae.cfg.latent_size(*case.asked_size(size, x)))
    for key, z in case.named("z_").items():
        out[f"{key}_dec"] = vae.decode(z, WHOLE)
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


def centre_crop(picture: Image.Image, side: int) -> Image.Image:
    """The square in the middle, after halving while that leaves enough: how upstream prepares training pictures."""
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = side / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def run_transforms(case: Case) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    sizes = case.config["sizes"]
    for name, value in case.named("img_").items():
        picture = Image.fromarray(value.numpy().astype(np.uint8))
        for h, w in sizes:
            out[f"{name}_to_{h}x{w}_u8"] = torch.from_numpy(np.array(resize_to_fill(picture, h, w)))
        for key in [key for key in case.expected if key.startswith(f"{name}_centercrop_")]:
            out[key] = torch.from_numpy(np.array(centre_crop(picture, int(key.rpartition("_")[2]))))
    for name, value in case.named("vid_").items():
        for h, w in sizes:
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
