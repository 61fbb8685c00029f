"""DreamBooth that goes on from a trained embedding: the word first, then the model around it."""

import pytest
import torch
from safetensors.torch import load_file

from trainer.models.sd15 import BaseModel, load_tokenizer
from trainer.models.token_embedding import tokenize_with, train_rows
from trainer.training.export import TOKEN_TABLE

from .published import published_loss
from .runs import DREAMBOOTH, TOKENIZER, losses_of, work_here

GIVEN = torch.randn(2, 768, generator=torch.Generator().manual_seed(3)) * 0.5
SHORT = DREAMBOOTH.replace(steps=2, batch_size=1, lr_scheduler="constant", lr_warmup_steps=0, learning_rate=1e-3)


@pytest.mark.parametrize("train", ["unet", "unet_and_token", "unet_and_text_encoder", "lora", "lora_and_text_encoder"])
def test_the_run_carries_the_model_and_the_word(make_run, small_base, class_dataset, train):
    settings = SHORT.replace(train=train, prior_loss_weight=1.0)
    run_dir = make_run(settings, embedding=GIVEN, class_dataset=class_dataset)
    work_here(run_dir)
    run, before = run_dir.load_run(), load_file(small_base)
    word = load_file(run.embedding_path)["emb_params"]
    assert word.shape == GIVEN.shape
    assert torch.equal(word, GIVEN) == (train == "unet")
    exported = load_file(run.export_path)
    if train.startswith("lora"):
        assert all(name.startswith("lora_") for name in exported)
        return
    assert exported.keys() == before.keys()
    table_changed = not torch.equal(exported[TOKEN_TABLE], before[TOKEN_TABLE])
    assert table_changed == (train == "unet_and_text_encoder")  # the word has its vectors beside the table
    assert any(not torch.equal(exported[k], before[k]) for k in before if k.startswith("model.diffusion_model."))


def test_the_loss_is_the_published_one_under_the_given_token(make_run, dataset, standin_base):
    """Under CLIP-L's depth, where the token changes the loss by more than rounding does."""
    run_dir = make_run(SHORT.replace(train="unet_and_token", steps=1, batch_size=2), embedding=GIVEN, base=standin_base)
    work_here(run_dir)
    base, tokenizer = BaseModel(standin_base), load_tokenizer(str(TOKENIZER))
    text_encoder, ids = base.text_encoder(), [49408, 49409]
    train_rows(text_encoder, ids, GIVEN)
    encode = lambda text: text_encoder(tokenize_with(tokenizer, [text], "mysks", ids)).last_hidden_state  # noqa: E731
    with torch.no_grad():
        loss = published_loss(base, base.unet(), dataset, "instance", 2, encode=encode)
        without = published_loss(base, base.unet(), dataset, "instance", 2)
    assert losses_of(run_dir) == pytest.approx([float(loss)], rel=1e-5)
    assert abs(float(without - loss)) > 1e-3 * float(loss)


def test_decay_does_not_shrink_the_word_beside_a_whole_text_encoder(make_run):
    settings = SHORT.replace(train="unet_and_text_encoder", learning_rate=0.0, text_learning_rate=1e-6, steps=1)
    words = []
    for decay in (0.0, 1.0):
        run_dir = make_run(settings.replace(weight_decay=decay), f"decay-{decay}", embedding=GIVEN)
        work_here(run_dir)
        words.append(load_file(run_dir.load_run().embedding_path)["emb_params"])
    assert torch.equal(*words)


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(make_run):
    settings = SHORT.replace(train="lora_and_text_encoder", steps=4)
    whole, broken = (make_run(settings, name, embedding=GIVEN) for name in ("whole", "broken"))
    work_here(whole)
    work_here(broken, stop_after=2)
    work_here(broken)
    for path in ("export_path", "embedding_path"):
        one, two = (load_file(getattr(run_dir.load_run(), path)) for run_dir in (whole, broken))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[k], two[k]) for k in one)
