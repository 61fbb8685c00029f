"""Textual Inversion by the real worker on the stand-in base."""

import hashlib
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from trainer.base_model import BaseModel, load_tokenizer, tokenize
from trainer.loop import TrainingError
from trainer.textual_inversion import add_placeholder, placeholder_ids

from .conftest import INVERSION, TOKENIZER, work_here


def test_it_learns_one_vector_and_touches_nothing_else(make_run, standin_base):
    before = hashlib.sha256(standin_base.read_bytes()).digest()
    run_dir = make_run(INVERSION)
    assert work_here(run_dir)[-1]["event"] == "done"
    (vectors,) = load_file(run_dir.load_run().export_path).values()
    assert vectors.shape == (1, 768)
    initial = load_file(standin_base)["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"][
        load_tokenizer(str(TOKENIZER))("toy", add_special_tokens=False).input_ids
    ].float()
    assert 0 < (vectors - initial).abs().max() < 0.1
    assert hashlib.sha256(standin_base.read_bytes()).digest() == before


def test_a_learning_rate_of_zero_exports_the_initializer(make_run, standin_base):
    run_dir = make_run(replace(INVERSION, learning_rate=0.0, initializer="brown toy"))
    work_here(run_dir)
    (vectors,) = load_file(run_dir.load_run().export_path).values()
    table = load_file(standin_base)["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"].float()
    ids = load_tokenizer(str(TOKENIZER))("brown toy", add_special_tokens=False).input_ids
    assert torch.equal(vectors, table[ids].mean(0, keepdim=True))


def test_every_other_row_and_parameter_keeps_its_bytes(standin_base):
    text_encoder, tokenizer = BaseModel(standin_base).text_encoder(), load_tokenizer(str(TOKENIZER))
    before = {k: v.clone() for k, v in text_encoder.state_dict().items()}
    placeholder = add_placeholder(text_encoder, tokenizer, "toy")
    ids = placeholder_ids(tokenizer, ["a photo of mysks"], "mysks", text_encoder.config.vocab_size)
    optimizer = torch.optim.AdamW([p for p in text_encoder.parameters() if p.requires_grad], lr=0.1, weight_decay=0.01)
    for _ in range(5):
        text_encoder(ids).last_hidden_state.square().sum().backward()
        optimizer.step()
    after = {k.replace("token_embedding.table.", "token_embedding."): v for k, v in text_encoder.state_dict().items()}
    (vectors,) = (after.pop(k) for k in list(after) if k.endswith("token_embedding.vectors"))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert not torch.equal(vectors[0], placeholder.table.weight[tokenizer("toy").input_ids[1]])


def test_a_token_that_clip_knows_becomes_a_placeholder_too():
    tokenizer = load_tokenizer(str(TOKENIZER))
    ids = placeholder_ids(tokenizer, ["a photo of cat on a cathedral", "CAT, sitting"], "cat", 49408)
    assert (ids == 49408).sum(dim=1).tolist() == [1, 1]


def test_captions_are_read_as_clip_reads_them_around_the_token():
    tokenizer = load_tokenizer(str(TOKENIZER))
    caption = "a photo of mysks, by a lake (mysks again)"
    ids = placeholder_ids(tokenizer, [caption], "mysks", 49408)
    same = tokenize(tokenizer, [caption.replace("mysks", "dog")])
    assert torch.equal(torch.where(ids == 49408, tokenizer("dog").input_ids[1], ids), same)


def test_captions_whose_token_is_missing_or_cut_off_are_named():
    tokenizer = load_tokenizer(str(TOKENIZER))
    with pytest.raises(ValueError, match="'a toy' does not contain"):
        placeholder_ids(tokenizer, ["a toy"], "mysks", 49408)
    with pytest.raises(ValueError, match="beyond the 77 pieces"):
        placeholder_ids(tokenizer, ["toy " * 90 + "mysks"], "mysks", 49408)


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(make_run):
    settings = replace(INVERSION, steps=4, batch_size=1)
    whole, broken = make_run(settings, "whole"), make_run(settings, "broken")
    work_here(whole)
    work_here(broken, stop_after=2)
    assert len(broken.losses()) == 2
    assert work_here(broken)[-1]["event"] == "done"
    assert broken.losses() == whole.losses()
    one, two = (load_file(r.load_run().export_path) for r in (whole, broken))
    assert one.keys() == two.keys() == {"emb_params"}
    assert torch.equal(one["emb_params"], two["emb_params"])


def test_an_initializer_without_words_is_refused(make_run):
    with pytest.raises(TrainingError, match="no words"):
        work_here(make_run(replace(INVERSION, initializer=" ")))
