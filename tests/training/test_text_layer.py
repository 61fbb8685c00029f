"""CLIP skip: prompts are read from an earlier layer of the text encoder, everywhere in a run."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tools import standin
from trainer.data.class_images import class_image_folder
from trainer.models import key_mapping as keys
from trainer.models.sd15 import BaseModel, encode_prompts, load_tokenizer, tokenize
from trainer.training.export import TOKEN_TABLE

from .runs import DREAMBOOTH, INVERSION, TOKENIZER, losses_of, work_here

QUICK = DREAMBOOTH.replace(steps=2, batch_size=1, lr_warmup_steps=0, learning_rate=1e-2, lr_scheduler="constant")
PROMPTS = ["", "a photo of mysks plush toy", "word " * 200]
DEPTH = 5


@pytest.fixture(scope="module")
def deeper_base(tmp_path_factory):
    """A stand-in whose text encoder has five layers, each with weights of its own."""
    path = tmp_path_factory.mktemp("base") / "deeper.safetensors"
    standin.build(path, size=replace(standin.SMALL, text_layers=DEPTH), taught=False)
    return path


@pytest.mark.parametrize("layer", [-1, -2, -3, -4, -DEPTH])
def test_the_states_are_those_of_the_hidden_layer_normalised(deeper_base, layer):
    base, tokenizer = BaseModel(deeper_base), load_tokenizer(str(TOKENIZER))
    whole = base.text_encoder()
    with torch.no_grad():
        hidden = whole(tokenize(tokenizer, PROMPTS), output_hidden_states=True).hidden_states
        assert len(hidden) == DEPTH + 1  # the embeddings first
        wanted = getattr(whole, "text_model", whole).final_layer_norm(hidden[layer])
    states = encode_prompts(base.text_encoder(layer), tokenizer, PROMPTS)
    assert torch.allclose(states, wanted, atol=1e-5)
    if layer != -1:
        assert not torch.allclose(states, encode_prompts(whole, tokenizer, PROMPTS), atol=1e-2)


@pytest.mark.parametrize("layer", [-standin.SMALL.text_layers - 1, -24, 0, 1])
def test_a_layer_that_is_not_there_is_refused(make_run, layer):
    with pytest.raises(ValueError, match=rf"has 2 layers, and CLIP Set Last Layer is {layer}\. Set it between -2 and -1"):
        work_here(make_run(QUICK.replace(text_layer=layer)))


@pytest.mark.parametrize(
    "optimizer", ["adamw", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("adamw_8bit", "adafactor"))]
)
def test_a_skipped_layer_is_exported_as_it_was(make_run, small_base, optimizer):
    """The decay must not reach it either; everything before it, and the last norm, learns."""
    settings = QUICK.replace(train="unet_and_text_encoder", optimizer=optimizer, weight_decay=0.5, ema_decay=0.5, text_layer=-2)
    run_dir = make_run(settings)
    work_here(run_dir, stop_after=1)
    work_here(run_dir)
    base, result = load_file(small_base), load_file(run_dir.load_run().export_path)
    assert result.keys() == base.keys()
    text = [name for name in base if name.startswith(keys.TEXT_PREFIX)]
    changed = {name for name in text if not torch.equal(base[name], result[name])}
    assert not {name for name in changed if "layers.1." in name}
    for part in ("layers.0.self_attn.q_proj.weight", "layers.0.mlp.fc2.weight", "final_layer_norm.weight", "token_embedding"):
        assert any(part in name for name in changed), part


def test_the_token_learns_through_an_earlier_layer(make_run, small_base):
    run_dir = make_run(QUICK.replace(train="unet_and_token", text_layer=-2))
    work_here(run_dir)
    base, result = load_file(small_base), load_file(run_dir.load_run().export_path)
    rows = (base[TOKEN_TABLE] != result[TOKEN_TABLE]).any(dim=1).nonzero().flatten().tolist()
    assert rows == sorted(load_tokenizer(str(TOKENIZER))("mysks", add_special_tokens=False).input_ids)
    assert {n for n in base if n.startswith(keys.TEXT_PREFIX) and not torch.equal(base[n], result[n])} == {TOKEN_TABLE}


@pytest.mark.parametrize(
    "settings",
    [*(QUICK.replace(train=train) for train in ("unet", "unet_and_token", "unet_and_text_encoder", "lora")), INVERSION],
    ids=lambda settings: f"{settings.method}-{settings.dreambooth.train}",
)
def test_every_kind_of_training_sees_the_prompts_through_that_layer(make_run, settings):
    """Even the first loss is another: frozen states and those that are computed in every step come from it."""
    first = []
    for layer in (-1, -2):
        run_dir = make_run(settings.replace(steps=1, lr_warmup_steps=0, text_layer=layer), f"layer{layer}")
        work_here(run_dir)
        first.append(losses_of(run_dir)[0])
    assert abs(first[0] - first[1]) > 1e-5


def test_class_images_of_another_layer_are_others(make_run, tmp_path):
    runs = [make_run(QUICK.replace(text_layer=layer), f"layer{layer}").load_run() for layer in (-1, -2, -3)]
    folders = {class_image_folder(tmp_path, run) for run in runs}
    assert len(folders) == 3
