"""A base file has every tensor that ComfyUI loads, in whatever mixture of layouts; or what it lacks is named."""

import random

import pytest

from tests.pack import load

completeness = load("nodes.comfy.completeness")
PARTS = {
    completeness.UNET: ["input_blocks.0.0.weight", "input_blocks.0.0.bias", "out.2.weight", "time_embed.0.bias"],
    completeness.TEXT_ENCODER: [
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        "encoder.layers.0.mlp.fc1.weight",
        "encoder.layers.11.self_attn.q_proj.bias",
        "final_layer_norm.weight",
    ],
    completeness.VAE: ["encoder.conv_in.weight", "decoder.conv_out.bias", "quant_conv.weight"],
}
WRITTEN = {  # before the names that ComfyUI loads from a checkpoint
    completeness.UNET: ["model.diffusion_model."],
    completeness.TEXT_ENCODER: ["cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."],
    completeness.VAE: ["first_stage_model."],
}
WRITTEN_ALONE = {
    completeness.UNET: ["model.diffusion_model.", ""],
    completeness.TEXT_ENCODER: ["text_model."],
    completeness.VAE: ["first_stage_model.", ""],
}
WANTED = [prefix + name for prefix, names in PARTS.items() for name in names]
STRAYS = {
    completeness.UNET: ["model_ema.decay", "model.diffusion_model.stranger.weight"],
    completeness.TEXT_ENCODER: [
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "cond_stage_model.transformer.embeddings.position_ids",
        "cond_stage_model.transformer.text_projection.weight",
        "cond_stage_model.logit_scale",
    ],
    completeness.VAE: ["first_stage_model.loss.logvar", "first_stage_model.decoder.stranger.bias"],
}


def missing(prefix: str, names: list[str], alone: bool = False) -> list[str]:
    return completeness.missing_tensors(prefix, WANTED, names, alone=alone)


@pytest.mark.parametrize("prefix", PARTS)
@pytest.mark.parametrize("seed", range(20))
def test_a_checkpoint_in_any_mixture_of_layouts(prefix, seed):
    """Each tensor under one of the names that ComfyUI takes it from, some strays beside them, one tensor gone at a time."""
    choose = random.Random(seed)
    names = {name: choose.choice(WRITTEN[prefix]) + name for name in PARTS[prefix]}
    strays = [stray for stray in STRAYS[prefix] if choose.random() < 0.5]
    assert missing(prefix, [*names.values(), *strays]) == []
    for gone in names:
        there = [written for name, written in names.items() if name != gone]
        assert missing(prefix, [*there, *strays]) == [prefix + gone]


@pytest.mark.parametrize("prefix", PARTS)
@pytest.mark.parametrize("stray", [True, False])
def test_the_old_layout_with_and_without_one_stray_name(prefix, stray):
    shortest = WRITTEN[prefix][-1]
    names = [shortest + name for name in PARTS[prefix]] + (STRAYS[prefix][:1] if stray else [])
    assert missing(prefix, names) == []
    assert missing(prefix, names[1:]) == [prefix + PARTS[prefix][0]]


@pytest.mark.parametrize("prefix", PARTS)
def test_a_file_of_one_part(prefix):
    for layout in WRITTEN_ALONE[prefix]:
        names = [layout + name for name in PARTS[prefix]]
        assert missing(prefix, names, alone=True) == []
        assert missing(prefix, names[1:], alone=True) == [prefix + PARTS[prefix][0]]
    # In a checkpoint, names without the prefix are not loaded.
    names = [prefix + PARTS[prefix][0], *PARTS[prefix][1:]]
    assert missing(prefix, names) == sorted(prefix + name for name in PARTS[prefix][1:])


@pytest.mark.parametrize(
    ("prefix", "name", "alone"),
    [
        (completeness.TEXT_ENCODER, "transformer.resblocks.0.ln_1.weight", True),
        (completeness.VAE, "decoder.up_blocks.0.resnets.0.norm1.weight", True),
        (completeness.VAE, "first_stage_model.decoder.up_blocks.0.resnets.0.norm1.weight", False),
        (completeness.UNET, "down_blocks.0.resnets.0.norm1.weight", True),
    ],
)
def test_a_layout_that_comfyui_converts_is_not_judged(prefix, name, alone):
    one = WRITTEN_ALONE[prefix][0] + PARTS[prefix][0]  # and has one name of ours by chance
    assert missing(prefix, [name, one], alone) == []


def test_what_can_be_computed_is_not_asked_for():
    wanted = [*WANTED, f"{completeness.TEXT_ENCODER}embeddings.position_ids"]
    assert completeness.missing_tensors(completeness.TEXT_ENCODER, wanted, WANTED, alone=False) == []
