"""The rank of a LoRA file, whoever made it, by the names and shapes of its tensors."""

import pytest

from trainer.run.lora_names import rank_of

DOWN = [
    "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
    "base_model.model.mid_block.attentions.0.proj_in.lora_A.weight",
    "unet.mid_block.attentions.0.proj_in.lora_A.default.weight",
    "unet.mid_block.attn1.to_q.lora.down.weight",
    "unet.mid_block.attn1.processor.to_q_lora.down.weight",
    "text_encoder.text_model.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
    "lora_unet_mid_block_attentions_0_proj_in.lokr_w2_b",
]


@pytest.mark.parametrize("name", DOWN)
def test_the_rank_is_the_length_of_the_narrow_factor(name):
    up = name.replace("down", "up").replace("lora_A", "lora_B").replace("w2_b", "w2_a")
    assert rank_of({name: (8, 320), up: (320, 8), f"{name.split('.')[0]}.alpha": ()}) == 8
    assert rank_of({name: (8, 320, 1, 1), f"other.{name}": (8, 64)}) == 8


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"model.weight": (4, 4)},
        {"a.lokr_w1": (8, 8), "a.lokr_w2": (40, 40), "a.alpha": ()},
        {"a.lora_down.weight": (8, 320), "b.lora_down.weight": (4, 320)},  # kohya's conv_dim
        {"a.lora_down.weight": ()},
    ],
    ids=str,
)
def test_what_has_no_one_rank_names_none(shapes):
    assert rank_of(shapes) == 0
