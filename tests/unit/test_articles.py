"""The map from the articles' names to ours: every place it names exists, and no printed name is missing."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.unit.test_imports import ROOT

PLACE = re.compile(r"`([\w/]+\.py):([\w.]+)`")
FILES = ("articles.md", "articles.zh.md")
PRINTED = re.findall(
    r"\S+",
    """
torch.cat chunk unconditional_guidance_scale pred_uncond expand_mask_4d kvcache VideoAutoencoderKL from_pretrained
subfolder micro_batch_size local_files_only VAE_Temporal_SD VAE_Temporal in_out_channels latent_embed_dim embed_dim
filters num_res_blocks channel_multipliers temporal_downsample num_groups activation_fn time_downsample_factor
patch_size out_channels Encoder Decoder quant_conv post_quant_conv get_latent_size time_padding pad_at_dim
sample_posterior encode decode DiagonalGaussianDistribution sample mode CausalConv3d pad_mode strides dilation
time_causal_padding cast_tuple is_odd PatchEmbed3D in_chans norm_layer flatten padding temporal_padding
temporal_padding_origin padding_flag set_padding_one_frame set_padding_more_frame LayerNorm DiTBlock modulate
adaLN_modulation get_layernorm Attention Mlp enable_layernorm_kernel enable_flash_attn approx_gelu DiT input_size
in_channels hidden_size depth num_heads mlp_ratio class_dropout_prob uncond_prob learn_sigma condition
no_temporal_pos_emb caption_channels model_max_length token_num dtype enable_sequence_parallelism
get_spatial_pos_embed get_temporal_pos_embed get_2d_sincos_pos_embed get_1d_sincos_pos_embed unpatchify
TimestepEmbedder LabelEmbedder num_classes CaptionEmbedder FinalLayer forward auto_grad_checkpoint initialize_weights
_basic_init MODELS.register_module scaling_factor mul_(0.18215)
""",
)


@cache
def names_in(file: str) -> frozenset[str]:
    """Top-level names of a module, and Class.name of fields, methods and what methods set on self."""
    found: set[str] = set()

    def add(node: ast.AST, prefix: str) -> None:
        match node:
            case ast.FunctionDef():
                found.add(prefix + node.name)
            case ast.Assign():
                found.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(prefix + name)
            case ast.ClassDef():
                found.add(prefix + node.name)
                for part in node.body:
                    add(part, f"{node.name}.")
                for part in ast.walk(node):
                    match part:
                        case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                            found.add(f"{node.name}.{name}")

    for node in ast.parse((ROOT / "opensora_demo" / file).read_text("utf-8")).body:
        add(node, "")
    return frozenset(found)


@pytest.mark.parametrize("name", FILES)
def test_every_place_of_the_map_exists(name: str) -> None:
    places = PLACE.findall((ROOT / "docs" / name).read_text("utf-8"))
    assert len(places) > 80
    for file, path in places:
        assert (ROOT / "opensora_demo" / file).is_file(), file
        assert path in names_in(file), f"{file}:{path}"


def test_a_name_that_is_not_there_would_be_noticed() -> None:
    assert "DiT.initialise" in names_in("models/dit.py")
    assert not {"DiT.initialize_weights", "initialise", "DiTConfig.nothing"} & names_in("models/dit.py")


@pytest.mark.parametrize("name", FILES)
def test_no_printed_name_is_missing(name: str) -> None:
    rows = [line.split("|")[1] for line in (ROOT / "docs" / name).read_text("utf-8").splitlines() if line[:2] == "| "]
    printed = " ".join(re.findall(r"`([^`]+)`", " ".join(rows)))
    text = printed + " " + (ROOT / "docs" / name).read_text("utf-8").split("## ")[0]
    missing = [word for word in PRINTED if not re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", text)]
    assert [word for word in missing if word != "chunk" or ".chunk(" not in text] == []


def test_both_languages_map_alike() -> None:
    english, chinese = (PLACE.findall((ROOT / "docs" / name).read_text("utf-8")) for name in FILES)
    assert english == chinese
