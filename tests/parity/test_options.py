"""No option of a recorded case is passed over: an unknown one fails and is named, a known one is heeded."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opensora_demo.codecs.vae_v13 import VaeV13, VaeV13Config
from opensora_demo.families.adapters.mmdit import MMDiTAdapter
from opensora_demo.families.mmdit import MMDiTFamily
from opensora_demo.sampling.config import RectifiedFlowConfig
from opensora_demo.sampling.frame_conditions import given_frames

from .options import Options, UnknownOption
from .reference import FOLDER, Case, load_case, relative_error
from .systems import SYSTEMS, run
from .systems_v20 import conditioning, mmdit, times_of

SURPRISE = "surprise"


def raw(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name / "case.json").read_text())


def smallest() -> dict[str, str]:
    """The case with the smallest file of each system."""
    found: dict[str, str] = {}
    for file in sorted(FOLDER.glob("*/io.safetensors"), key=lambda file: -file.stat().st_size):
        found[raw(file.parent.name)["system"]] = file.parent.name
    return found


CASES = smallest()


def changed(name: str, **values: Any) -> Case:
    """A case with some options of other values: `scheduler__cfg_scale=3` for config.scheduler.cfg_scale."""
    if not (FOLDER / name).is_dir():
        pytest.skip("this folder has no such case")
    case, config = load_case(FOLDER / name), raw(name)["config"]
    for path, value in values.items():
        *folders, last = path.split("__")
        at = config
        for folder in folders:
            at = at.setdefault(folder, {})
        at[last] = value
    return replace(case, config=Options(config, "config."))


def surprised(config: Any, path: str, keep: tuple[str, ...]) -> list[str]:
    """Put an unknown option into every dictionary but those in `keep`; their paths."""
    found = []
    if isinstance(config, dict):
        inner = list(config.items())
        if path not in keep:
            config[SURPRISE] = 1
            found.append(f"{path}.{SURPRISE}")
        for name, value in inner:
            found += surprised(value, f"{path}.{name}", keep)
    elif isinstance(config, list):
        for i, value in enumerate(config):
            found += surprised(value, f"{path}[{i}]", keep)
    return found


def test_every_system_has_a_case() -> None:
    if Path(__file__).resolve().parent.parent / "reference" == FOLDER:
        assert set(CASES) == set(SYSTEMS) - {"iddpm_dit"}


@pytest.mark.parametrize("system", CASES)
def test_an_unknown_option_fails_and_is_named(system: str) -> None:
    """Wherever it stands: at the top, in the scheduler, in a network, in one entry of a list."""
    config = raw(CASES[system])["config"]
    keep = ("config.model",) if "causalconv" in system else ()  # its names are the convolutions'
    paths = surprised(config, "config", keep)
    assert len(paths) > 1 or not any(isinstance(value, dict) for value in config.values())
    case = replace(load_case(FOLDER / CASES[system]), config=Options(config, "config."))
    with pytest.raises(UnknownOption) as error:
        run(case)
    assert [path for path in paths if path not in str(error.value)] == []


@pytest.mark.parametrize("system", CASES)
def test_an_unknown_input_fails_and_is_named(system: str) -> None:
    case = load_case(FOLDER / CASES[system])
    inputs = {name: case.inputs[name] for name in case.inputs} | {SURPRISE: torch.zeros(1)}
    with pytest.raises(UnknownOption, match=f"inputs.{SURPRISE}$"):
        run(replace(case, inputs=Options(inputs, "inputs.")))


def test_an_unknown_network_key_or_system_fails_and_is_named(tmp_path: Path) -> None:
    name = next(name for name in CASES.values() if raw(name)["networks"])
    case = load_case(FOLDER / name)
    role = next(iter(case.networks))
    with pytest.raises(UnknownOption, match=f"networks.{SURPRISE}"):
        run(replace(case, networks=case.networks | {SURPRISE: case.networks[role]}))
    with pytest.raises(UnknownOption, match=SURPRISE):
        run(replace(case, system=SURPRISE))
    (tmp_path / "io.safetensors").write_bytes((FOLDER / name / "io.safetensors").read_bytes())
    for place, said in (((), SURPRISE), (("networks", role), f"networks.{role}.{SURPRISE}")):
        edited = at = raw(name)
        for key in place:
            at = at[key]
        at[SURPRISE] = 1
        (tmp_path / "case.json").write_text(json.dumps(edited))
        with pytest.raises(UnknownOption, match=said):
            load_case(tmp_path)


REFUSED = {
    "noise schedule": ("v10_ddim_a", {"scheduler__noise_schedule": "squaredcos_cap_v2"}, "noise_schedule"),
    "prediction of x0": ("v10_ddim_a", {"scheduler__predict_xstart": True}, "predict_xstart"),
    "eta without ddim": ("v10_iddpm_a", {"eta": 0.5}, "eta"),
    "sampler": ("v10_ddim_a", {"method": "euler"}, "method"),
    "order": ("v10_dpms_a", {"order": 3}, "order"),
    "window over some frames": ("v13_stdit3_a", {"model__kernel_size": [2, 2, 2]}, "kernel_size"),
    "normalisation": ("v13_vae_a", {"model__normalization": "image"}, "normalization"),
    "activation": ("v20_hunyuan_a", {"model__act_fn": "relu"}, "act_fn"),
    "block": (
        "v20_dcae_a", {"model__encoder__block_type": "Plain", "model__decoder__block_type": "Plain"}, "block_type",
    ),
    "same padding twice": ("v12_causalconv", {"model__k3__padding": "same"}, "padding"),
    "other reduction": ("v20_api_t2v", {"opt__temporal_reduction": 8}, "temporal_reduction"),
    "other codec": ("v20_api_t2v", {"ae_spatial_compression": 32}, "ae_spatial_compression"),
    "no such size": ("v20_api_t2v", {"opt__resolution": "9px", "opt__aspect_ratio": "16:9"}, "resolution"),
    "method": ("v20_api_t2v", {"opt__method": "i2v_inference_scaling"}, "method"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_value_that_no_runner_knows_fails_and_is_named(what: str) -> None:
    name, values, said = REFUSED[what]
    with pytest.raises(UnknownOption, match=said):
        run(changed(name, **values))


HEEDED: dict[str, tuple[str, dict[str, Any], str]] = {
    "1.0 scale": ("v10_stdit_a", {"cfg_scale": 2.0}, "forward_with_cfg"),
    "1.0 DiT scale": ("v10_dit_a", {"cfg_scale": 2.0}, "forward_with_cfg"),
    "1.0 time scale": ("v10_stdit_a", {"model__time_scale": 0.5}, "forward"),
    "1.0 steps' scale": ("v10_ddim_a", {"scheduler__cfg_scale": 2.0}, "sample"),
    "1.0 eta": ("v10_ddim_a", {"eta": 0.0}, "sample"),
    "1.0 DPM scale": ("v10_dpms_a", {"cfg_scale": 2.0}, "sample"),
    "1.1 guided channels": ("v11_iddpm_mask_a", {"scheduler__cfg_channel": 3}, "sample"),
    "1.1 base size": ("v11_stdit2_a", {"model__input_sq_size": 64}, "forward"),
    "1.2 scheduler's scale": ("v12_rflow_a", {"scheduler__cfg_scale": 3.0}, "sample"),
    "1.2 call's scale": ("v12_rflow_a", {"sample_kwargs__guidance_scale": 3.0}, "sample"),
    "1.2 steps": ("v12_rflow_a", {"scheduler__num_sampling_steps": 3}, "sample"),
    "1.2 even times": ("v12_rflow_a", {"scheduler__use_timestep_transform": False}, "sample"),
    "1.2 whole times": (
        "v12_rflow_a", {"scheduler__num_sampling_steps": 7, "scheduler__use_discrete_timesteps": True}, "sample",
    ),
    "1.2 timesteps": ("v12_rflow_a", {"scheduler__num_timesteps": 500}, "sample"),
    "1.2 strategy": ("v12_rflow_mask_a", {"mask_strategy": ["0,0,0,-1,1", "0"]}, "sample"),
    "1.2 loop": ("v12_rflow_mask_a", {"loop_i": 1}, "sample"),
    "1.3 call's scale": ("v13_rflow_t2v", {"sample_kwargs__guidance_scale": 3.0}, "sample"),
    "1.3 full steps": ("v13_rflow_t2v", {"scheduler__force_num": 4}, "sample"),
    "1.3 steady": ("v13_rflow_t2v", {"scheduler__use_oscillation_guidance": False}, "sample"),
    "1.3 unmended": ("v13_rflow_t2v", {"scheduler__use_flaw_fix": False}, "sample"),
    "1.3 transform scale": ("v13_rflow_t2v", {"scheduler__transform_scale": 2.0}, "sample"),
    "1.3 length left out": ("v13_rflow_t2v", {"scheduler__scale_temporal": False}, "sample"),
    "1.3 timesteps": ("v13_rflow_t2v", {"scheduler__num_timesteps": 500}, "sample"),
    "1.3 image scale": ("v13_rflow_i2v", {"sample_kwargs__image_cfg_scale": 2.0}, "sample"),
    "1.3 low image scale": ("v13_rflow_i2v", {"scheduler__initial_image_scale": 3.0}, "sample"),
    "1.3 image scale not spread": ("v13_rflow_i2v", {"scheduler__scale_image_weight": False}, "sample"),
    "1.3 steady text": ("v13_rflow_i2v", {"sample_kwargs__use_oscillation_guidance_for_text": False}, "sample"),
    "1.3 normalisation": ("v13_vae_a", {"model__normalization": None}, "x_09_z"),
    "2.0 latent scale": ("v20_hunyuan_a", {"model__scale_factor": 0.5}, "x_05_z_mode"),
    "2.0 latent shift": ("v20_hunyuan_a", {"model__shift_factor": 0.1}, "x_05_z_mode"),
    "2.0 overlap": ("v20_hunyuan_tiling", {"model__tile_overlap_factor": 0.5}, "z_a_dec"),
    "2.0 DC-AE's scale": ("v20_dcae_a", {"model__scaling_factor": 0.5}, "x_a_z"),
    "2.0 theta": ("v20_mmdit_a", {"model__theta": 100}, "forward"),
    "2.0 told scale": ("v20_denoise_distill", {"guidance": 2.0}, "denoised"),
    "2.0 shift of a schedule": ("v20_denoise_distill", {"schedule__shift": False}, "timesteps"),
    "2.0 call's steps": ("v20_api_t2v", {"opt__num_steps": 2}, "video"),
    "2.0 flow shift": ("v20_api_t2v", {"opt__flow_shift": 5.0}, "video"),
    "2.0 scale": ("v20_api_i2v_head", {"opt__guidance": 2.0}, "video"),
    "2.0 image scale": ("v20_api_i2v_head", {"opt__guidance_img": 3.0}, "video"),
    "2.0 not spread": ("v20_api_i2v_head", {"opt__scale_temporal_osci": False}, "video"),
    "2.0 condition": ("v20_api_i2v_head", {"cond_type": "i2v_tail"}, "video"),
}  # fmt: skip


@pytest.mark.parametrize("what", HEEDED)
def test_another_value_of_an_option_is_heeded(what: str) -> None:
    name, values, output = HEEDED[what]
    case = changed(name, **values)
    ours, recorded = run(case)[output], case.expected[output]
    assert torch.isfinite(ours).all()
    assert relative_error(ours, recorded) > 1e-3


@pytest.mark.parametrize("name", ["v12_rflow_a", "v13_rflow_t2v", "v13_rflow_i2v"])
@pytest.mark.parametrize("where", ["guidance_scale", "sample_kwargs__guidance_scale"])
def test_a_guidance_scale_of_the_call_overrides_the_schedulers(name: str, where: str) -> None:
    """In 1.3 an image scale that the call does not name stays the scheduler's."""
    image = {"sample_kwargs__image_cfg_scale": 2.0} if name == "v13_rflow_i2v" else {}
    called = run(changed(name, **{where: 3.0}, **image))["sample"]
    own = run(changed(name, scheduler__cfg_scale=3.0, **image))["sample"]
    assert torch.equal(called, own)


SWITCHES = list(product((False, True), repeat=3))


def test_the_switches_of_guidance_of_13_need_nothing_of_each_other() -> None:
    """Text and image scale oscillate, and the image scale is spread, or not: eight different clips."""
    clips = [
        run(
            changed(
                "v13_rflow_i2v",
                scheduler__force_num=4,
                scheduler__scale_image_weight=spread,
                sample_kwargs__use_oscillation_guidance_for_text=text,
                sample_kwargs__use_oscillation_guidance_for_image=image,
            )
        )["sample"]
        for text, image, spread in SWITCHES
    ]
    for i, a in enumerate(clips):
        for b in clips[i + 1 :]:
            assert relative_error(a, b) > 1e-3


def denoised_again(case: Case, *, text: bool, image: bool, spread: bool) -> Tensor:
    """The loop of Open-Sora v2.0 opensora/utils/sampling.py (I2VDenoiser.denoise) written down once more, its scales
    and its update, around the same network; one clip."""
    config, x = case.config, case.inputs
    network = mmdit(config["model"])
    case.fill(network)
    z, size = x["z"], tuple(x["z"].shape[1:])
    steps, frames = config["schedule"]["num_steps"], size[1]
    mask, latent = given_frames(config["cond_type"], [x["ref_0_0"]], size)  # type: ignore[arg-type]
    condition = conditioning(x["txt"], x["y_vec"], mask, latent, config, config["cond_type"], steps)
    family = MMDiTFamily(None, None, MMDiTAdapter(network), RectifiedFlowConfig(shift="2.0"))  # type: ignore[arg-type]
    times = times_of(steps, config["schedule"]["image_seq_len"], config["schedule"]["num_frames"])
    for i in range(steps):
        rests = i >= 10 and i % 2 == 1
        text_scale = 1.0 if text and rests else config["guidance"]
        image_scale = torch.tensor(1.0 if image and rests else config["guidance_img"])
        if spread and image_scale > 1:
            upper = torch.linspace(float(image_scale), 1.0, steps + 1)[i]
            image_scale = torch.linspace(1.0, float(upper), frames).view(1, 1, frames, 1, 1)
        c, u, u2 = family.predictions(z, times[i], condition, torch.ones(1, 3, dtype=torch.bool))
        assert c is not None
        assert u is not None
        assert u2 is not None
        z = z + (times[i + 1] - times[i]) * (u2 + image_scale * (u - u2) + text_scale * (c - u))
    return z


@pytest.mark.parametrize(("text", "image", "spread"), SWITCHES)
def test_the_switches_of_guidance_of_20_need_nothing_of_each_other(text: bool, image: bool, spread: bool) -> None:
    case = changed("v20_denoise_i2v_a", text_osci=text, image_osci=image, scale_temporal_osci=spread)
    ours = run(case)["denoised"]
    with torch.no_grad():
        assert relative_error(ours, denoised_again(case, text=text, image=image, spread=spread)) < 1e-5
    same = relative_error(ours, case.expected["denoised"]) < 1e-3
    assert same == (text and image and spread)


def test_without_given_frames_nothing_is_spread() -> None:
    """2.0's call spreads the image scale for pictures that are given, not for text or videos."""
    clips = [run(changed("v20_api_t2v", opt__scale_temporal_osci=spread))["video"] for spread in (False, True)]
    assert torch.equal(*clips)


# --- sizes --------------------------------------------------------------------------------------------------------

ASKED = {
    "1.2 in time": ("v12_vae_temporal_a", "x_17_latent_size", "get_latent_size([frames,9,31])", [5, 9, 31]),
    "1.2 in time, longer": ("v12_vae_temporal_a", "x_17_latent_size", "get_latent_size([50,6,6])", [13, 6, 6]),
    "1.2": ("v12_vae_pipeline_a", "x_20_latent_size", "get_latent_size([frames,240,426])", [6, 30, 53]),
    "1.2, longer": ("v12_vae_pipeline_a", "x_20_latent_size", "get_latent_size([51,72,40])", [15, 9, 5]),
    "1.3": ("v13_vae_a", "x_09_latent_size", "get_latent_size([frames,240,424])", [4, 30, 53]),
    "1.3, longer": ("v13_vae_a", "x_09_latent_size", "get_latent_size([17,61,8])", [8, 8, 1]),
    "2.0": ("v20_hunyuan_a", "x_09_latent_size", "get_latent_size([33,192,336])", [9, 24, 42]),
    "DC-AE": ("v20_dcae_a", "x_a_latent_size", "get_latent_size([32,192,336])", [16, 48, 84]),
}


@pytest.mark.parametrize("what", ASKED)
def test_the_latent_size_of_any_picture_is_the_codecs(what: str) -> None:
    name, output, said, size = ASKED[what]
    case = changed(name)
    case.meaning[f"outputs.{output}"] = said
    assert run(case)[output].tolist() == size
    case = changed(name)
    case.meaning[f"outputs.{output}"] = "a size"
    with pytest.raises(UnknownOption, match=output):
        run(case)


def test_the_noise_of_20_has_the_size_that_is_asked_for() -> None:
    case = changed("v20_schedule")
    said = "shape of get_noise for 3 clips of 5 latent frames, 100x72 pixels, 8 channels"
    case.meaning["outputs.get_noise_shape"] = said
    assert run(case)["get_noise_shape"].tolist() == [3, 8, 5, 14, 10]
    case = changed("v20_schedule")
    case.meaning["outputs.time_shift"] = "time_shift(5, t)"
    t = case.inputs["t"]
    torch.testing.assert_close(run(case)["time_shift"], 5 * t / (1 + 4 * t))


def test_frames_to_decode_into_are_those_that_are_asked_for() -> None:
    case = changed("v12_vae_temporal_a")
    case.meaning["inputs.z_17"] = "latent to decode into 18 frames"
    assert run(case)["z_17_dec"].shape[2] == 18
    case = changed("v12_vae_temporal_a")
    case.meaning["inputs.z_17"] = "latent to decode"
    with pytest.raises(UnknownOption, match="z_17"):
        run(case)


def test_a_call_of_20_has_the_size_of_its_resolution_and_aspect_ratio() -> None:
    """They override height and width, and the noise must be of that size."""
    case = changed("v20_api_t2v", opt__resolution="256px", opt__aspect_ratio="16:9")
    with pytest.raises(AssertionError, match="noise of another size"):
        run(case)
    noise = torch.randn(1, 4, 1, 24, 42, generator=torch.Generator().manual_seed(0))
    inputs = {name: case.inputs[name] for name in case.inputs} | {"randn_000": noise}
    case = changed(
        "v20_api_t2v", opt__resolution="256px", opt__aspect_ratio="16:9", opt__num_frames=1, opt__num_steps=1
    )
    out = run(replace(case, inputs=Options(inputs, "inputs.")))
    assert out["opt_hw"].tolist() == [192, 336]
    assert out["video"].shape == (1, 3, 1, 192, 336)


# --- the 1.3 VAE by another factor in time ------------------------------------------------------------------------

FACTORS: dict[str, tuple[list[int], list[int], int | None, tuple[int, int, int]]] = {
    # levels down and up in time, frames of a chunk; latents of 9 frames, those told, frames that come back
    "4": ([0, 1], [1, 2], 5, (4, 4, 9)),
    "2": ([1], [2], 5, (6, 4, 7)),
    "2, whole": ([1], [2], None, (5, 3, 9)),
    "8": ([0, 1, 2], [1, 2, 3], 9, (2, 3, 9)),
    "8, whole": ([0, 1, 2], [1, 2, 3], None, (2, 3, 9)),
}


@pytest.mark.parametrize("factor", FACTORS)
def test_the_13_vae_runs_with_another_factor_in_time(factor: str) -> None:
    """As the reference has it: it decodes and tells sizes as if a latent stood for 4 frames, whatever the network does,
    so that at factor 2 chunks of three latents are decoded by twos."""
    down, up, chunk, (latents, told, back) = FACTORS[factor]
    levels = [1] * (max(down) + 2)
    case = changed(
        "v13_vae_a",
        model__encoder__down_sampling_layer=down,
        model__decoder__temporal_up_layers=up,
        model__decoder__temporal_downsample=2 ** len(down),
        model__encoder__ch_mult=levels,
        model__decoder__ch_mult=levels,
        model__micro_frame_size=chunk,
    )
    with torch.device("meta"):
        network = VaeV13(
            VaeV13Config(
                channels=64, multipliers=tuple(levels), res_blocks=0, down_in_time=tuple(down), up_in_time=tuple(up)
            )
        )
    names = {name: list(value.shape) for name, value in network.state_dict().items()}
    out = run(replace(case, networks={"model": case.networks["model"] | {"names": names}}))
    assert out["x_09_z"].shape[2] == latents
    assert out["x_09_latent_size"].tolist() == [told, 1, 1]
    assert out["x_09_recon"].shape[2] == back
    assert out["x_01_recon"].shape == case.expected["x_01_recon"].shape
