"""Open-Sora 1.2: the same numbers as the reference implementation, the same names as the published checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from opensora_demo.codecs.image_vae import ImageVaeConfig
from opensora_demo.codecs.temporal_vae import TemporalVAE, TemporalVaeConfig
from opensora_demo.codecs.video_vae import VideoVAE, VideoVaeConfig
from opensora_demo.families.stdit import Conditioning, STDiTFamily
from opensora_demo.models.stdit3 import STDiT3, STDiT3Config
from opensora_demo.nn.causal_conv import CausalConv3d
from opensora_demo.sampling.guidance import ClassifierFree
from opensora_demo.sampling.rectified_flow import sample
from opensora_demo.sampling.schedule import flow_times

from .reference import fill, load_case, manifest, relative_error, weight


def stdit3(model: dict[str, object]) -> STDiT3:
    return STDiT3(
        STDiT3Config(
            in_channels=model["in_channels"],
            width=model["hidden_size"],
            depth=model["depth"],  # type: ignore[arg-type]
            heads=model["num_heads"],
            text_channels=model["caption_channels"],
            max_tokens=model["model_max_length"],  # type: ignore[arg-type]
            base_px=model["input_sq_size"],
            learned_sigma=model["pred_sigma"],  # type: ignore[arg-type]
        )
    )


def test_stdit3_forward_with_and_without_given_frames() -> None:
    case, io = load_case("v12_stdit3_a")
    network = stdit3(case["config"]["model"])
    fill(network, case["networks"]["model"])
    text = network.project_text(io["in.y"][:, 0], io["in.mask"].sum(1))
    size = {"fps": io["in.fps"], "height_px": float(io["in.height"][0]), "width_px": float(io["in.width"][0])}
    masked = network(io["in.x"], io["in.t"], text, x_mask=io["in.x_mask"].bool(), **size)
    plain = network(io["in.x"], io["in.t"], text, **size)
    assert relative_error(masked, io["out.forward"]) < case["tolerance"]
    assert relative_error(plain, io["out.forward_no_x_mask"]) < case["tolerance"]


def test_rectified_flow_loop_with_timestep_transform_and_guidance() -> None:
    case, io = load_case("v12_rflow_a")
    network = stdit3(case["config"]["model"])
    fill(network, case["networks"]["model"])
    settings = case["config"]["scheduler"]
    guidance = ClassifierFree((settings["cfg_scale"],))
    frames = float(io["in.num_frames"][0]) // 17 * 5
    for row in range(io["in.z"].shape[0]):
        height, width = float(io["in.height"][0]), float(io["in.width"][0])
        ratio = (float(io["in.height"][row]) * float(io["in.width"][row]) / 512**2) ** 0.5 * frames**0.5
        length = int(io["in.mask"][row].sum())
        family = STDiTFamily(None, network)  # type: ignore[arg-type]
        condition = Conditioning(
            text=network.project_text(torch.stack([io["in.y"][row, 0, :length], network.null_text(length)])),
            fps=float(io["in.fps"][row]),
            unknown=(),
            cut_tokens=0,
        )

        def velocity(x: Tensor, t: float, index: int) -> Tensor:
            return family.velocity(x, t, condition, guidance.weights(index), height_px=height, width_px=width)  # noqa: B023

        steps = list(sample(velocity, io["in.z"][row : row + 1], flow_times(settings["num_sampling_steps"], ratio)))
        for i in range(1, len(steps)):
            before = steps[i - 1].x[0]
            assert relative_error(before, io[f"out.call_{i:02d}_z_in"][row]) < 5e-4
        assert relative_error(steps[-1].x[0], io["out.sample"][row]) < 5e-4


@pytest.mark.parametrize("frames", [1, 5, 16, 17, 20])
def test_temporal_vae_of_any_length(frames: int) -> None:
    case, io = load_case("v12_vae_temporal_a")
    model = case["config"]["model"]
    vae = TemporalVAE(
        TemporalVaeConfig(
            filters=model["filters"],
            res_blocks=model["num_res_blocks"],
            norm_groups=model["num_groups"],
            channel_multipliers=tuple(model["channel_multipliers"]),
        )
    )
    fill(vae, case["networks"]["model"])
    key = f"x_{frames:02d}"
    mean, _ = vae.encode(io[f"in.{key}"])
    assert relative_error(mean, io[f"out.{key}_mean"]) < case["tolerance"]
    assert relative_error(vae.decode(mean, frames), io[f"out.{key}_dec_of_mean"]) < case["tolerance"]


def test_causal_convolutions() -> None:
    case, io = load_case("v12_causalconv")
    seen = 0
    for name, c in case["config"]["model"].items():
        stride = c.get("strides") or ((c["stride"], 1, 1) if "stride" in c else (1, 1, 1))
        kernel = c["kernel_size"]
        conv = CausalConv3d(
            c["chan_in"],
            c["chan_out"],
            kernel if isinstance(kernel, int) else tuple(kernel),
            stride=tuple(stride),
            dilation=c.get("dilation", 1),
            bias=c.get("bias", True),
            pad_mode=c.get("pad_mode", "constant"),
        )
        network = case["networks"]["model"]
        names = {k.removeprefix(f"{name}."): k for k in network["names"] if k.startswith(f"{name}.")}
        conv.load_state_dict(
            {own: weight(network["seed"], network["gain"], k, network["names"][k]) for own, k in names.items()}
        )
        with torch.no_grad():
            assert relative_error(conv(io["in.x"]), io[f"out.{name}"]) < case["tolerance"], name
        seen += 1
    assert seen == 8


def test_two_stage_pipeline_in_chunks_of_17() -> None:
    case, io = load_case("v12_vae_pipeline_a")
    model = case["config"]["model"]
    image, temporal = model["autoencoder_kl"], model["vae_temporal"]
    vae = VideoVAE(
        VideoVaeConfig(
            image=ImageVaeConfig(
                block_channels=tuple(image["block_out_channels"]),
                layers_per_block=image["layers_per_block"],
                norm_groups=image["norm_num_groups"],
                micro_batch=model["micro_batch_size"],
            ),
            temporal=TemporalVaeConfig(
                filters=temporal["filters"],
                res_blocks=temporal["num_res_blocks"],
                norm_groups=temporal["num_groups"],
                channel_multipliers=tuple(temporal["channel_multipliers"]),
            ),
            chunk_frames=model["micro_frame_size"],
        )
    )
    fill(vae, case["networks"]["model"])
    vae.shift.copy_(torch.tensor(model["shift"]).view(1, -1, 1, 1, 1))
    vae.scale.copy_(torch.tensor(model["scale"]).view(1, -1, 1, 1, 1))
    for frames in (1, 17, 20):
        key = f"x_{frames:02d}"
        assert relative_error(vae.encode(io[f"in.{key}"]), io[f"out.{key}_encode_posterior_means"]) < case["tolerance"]
        assert relative_error(vae.decode(io[f"out.{key}_encode"], frames), io[f"out.{key}_decode"]) < case["tolerance"]
        assert vae.latent_size(frames, 64, 64)[0] == int(io[f"out.{key}_latent_size"][0])
    assert relative_error(vae.decode(io["in.z_34"], 34), io["out.z_34_decode"]) < case["tolerance"]


@pytest.mark.parametrize(
    ("name", "build"),
    [("v12_stdit3_xl2", lambda: STDiT3(STDiT3Config())), ("v12_vae_pipeline", lambda: VideoVAE(VideoVaeConfig()))],
)
def test_names_and_shapes_of_published_checkpoints(name: str, build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        ours = {k: list(v.shape) for k, v in build().state_dict().items()}
    assert ours == manifest(name)
