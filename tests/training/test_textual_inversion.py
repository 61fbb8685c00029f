"""Textual Inversion on the stand-in base: what it learns, from where, and what it leaves alone."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trainer.dataset.captions import split_at_word
from trainer.dataset.prompt_templates import SETS
from trainer.models.sd15 import BaseModel, load_tokenizer, tokenize
from trainer.models.token_embedding import initial_vectors, tokenize_with
from trainer.recipes import textual_inversion
from trainer.training.export import TOKEN_TABLE

from .published import published_loss
from .runs import INVERSION, TOKENIZER, losses_of, work_here

SHORT = INVERSION.replace(steps=2, batch_size=1, lr_scheduler="constant", lr_warmup_steps=0)


def learned(run_dir) -> torch.Tensor:
    tensors = load_file(run_dir.load_run().export_path)
    assert tensors.keys() == {"emb_params"}
    return tensors["emb_params"]


@pytest.fixture(scope="module")
def table(small_base) -> torch.Tensor:
    return load_file(small_base)[TOKEN_TABLE].float()


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(TOKENIZER))


@pytest.fixture
def step_seen():
    """What torch's optimizers are about to do in each step: (parameter, gradient, weight decay)."""
    seen = []

    def look(optimizer, *_) -> None:
        seen.append([(p, p.grad.clone(), group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]])

    handle = register_optimizer_step_pre_hook(look)
    yield seen
    handle.remove()


# The eight vectors are enough numbers for 8-bit AdamW to keep its moments in 8 bits.
@pytest.mark.parametrize(
    ("optimizer", "rate"), [("adamw", 0.1), ("prodigy", 1.0), pytest.param("adamw_8bit", 0.1, marks=pytest.mark.nightly)]
)
def test_only_the_new_rows_change_with_any_optimizer(make_run, small_base, table, monkeypatch, step_seen, optimizer, rate):
    kept = {}

    class KeepingBase(BaseModel):
        """Remembers the models that the recipe has built and used."""

        def unet(self):
            return kept.setdefault("unet", super().unet())

        def vae(self):
            return kept.setdefault("vae", super().vae())

        def text_encoder(self, layer=-1):
            return kept.setdefault("text_encoder", super().text_encoder(layer))

    monkeypatch.setattr(textual_inversion, "BaseModel", KeepingBase)
    settings = SHORT.replace(steps=50, vectors=8, optimizer=optimizer, learning_rate=rate, weight_decay=0.01)
    run_dir = make_run(settings)
    work_here(run_dir)

    fresh = BaseModel(small_base)
    for part in ("unet", "vae", "text_encoder"):
        before = getattr(fresh, part)().state_dict()
        after = {k.replace("token_embedding.table.", "token_embedding."): v for k, v in kept[part].state_dict().items()}
        vectors = [after.pop(k) for k in list(after) if k.endswith("token_embedding.vectors")]
        assert len(vectors) == (part == "text_encoder")
        assert after.keys() == before.keys()
        assert all(torch.equal(after[k], before[k]) for k in before), part
        # The frozen model costs the optimizer nothing, and keeps no gradient of any weight.
        assert not any(p.requires_grad or p.grad is not None for k, p in kept[part].named_parameters() if "vectors" not in k)
    ((param, _, decay),) = step_seen[-1]
    assert (param.shape, decay) == ((8, 768), 0.0)
    assert torch.equal(learned(run_dir), vectors_of(kept["text_encoder"]))
    assert (learned(run_dir) - table[load_tokenizer(str(TOKENIZER))("toy").input_ids[1]]).abs().amax(dim=1).min() > 0


def vectors_of(text_encoder) -> torch.Tensor:
    (vectors,) = (p.detach() for name, p in text_encoder.named_parameters() if name.endswith("token_embedding.vectors"))
    return vectors


def test_weight_decay_does_not_shrink_the_word(make_run):
    one, two = make_run(SHORT, "none"), make_run(SHORT.replace(weight_decay=0.9), "much")
    work_here(one)
    work_here(two)
    assert torch.equal(learned(one), learned(two))


@pytest.mark.parametrize(("vectors", "template_set"), [(1, "captions"), (4, "captions"), (4, "object"), (2, "style")])
def test_the_gradient_is_that_of_the_published_loss(make_run, dataset, small_base, step_seen, vectors, template_set):
    """As published: the words added to the tokenizer, the table made longer, the gradient of its last rows."""
    settings = SHORT.replace(steps=1, batch_size=2, max_grad_norm=0.0, vectors=vectors, template_set=template_set)
    run_dir = make_run(settings)
    work_here(run_dir)
    (((_, ours, _),),) = step_seen

    base, tokenizer = BaseModel(small_base), load_tokenizer(str(TOKENIZER))
    text_encoder = base.text_encoder()
    words = [f"<{i}>" for i in range(vectors)]
    assert tokenizer.add_tokens(words) == vectors
    text_encoder.resize_token_embeddings(len(tokenizer))
    weight = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        weight[-vectors:] = weight[tokenizer("toy").input_ids[1]]
    weight.requires_grad_(True)

    def encode(caption: str) -> torch.Tensor:
        ids = tokenize(tokenizer, [" ".join(words).join(split_at_word(caption, "mysks"))])
        return text_encoder(ids).last_hidden_state

    wordings = [template.format("mysks") for template in SETS.get(template_set, ())]
    loss = published_loss(base, base.unet(), dataset, "instance", 2, encode=encode, wordings=wordings)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert losses_of(run_dir) == pytest.approx([loss.item()], rel=1e-5)
    assert (ours - gradient[-vectors:]).norm() / gradient[-vectors:].norm() < 1e-5
    assert ours.norm(dim=1).min() > 0


def test_vectors_start_from_words_or_the_class(table, tokenizer):
    brown, toy = (table[tokenizer(word).input_ids[1]] for word in ("brown", "toy"))
    start = lambda words, class_word, count: initial_vectors(table, tokenizer, words, class_word, count)  # noqa: E731
    assert torch.equal(start("toy", "bear", 1), toy[None])
    assert torch.equal(start("brown toy", "", 1), ((brown + toy) / 2)[None])
    assert torch.equal(start("brown toy", "", 2), torch.stack([brown, toy]))
    assert torch.equal(start("brown toy", "", 4), torch.stack([brown, brown, toy, toy]))
    assert torch.equal(start("", "brown toy", 2), ((brown + toy) / 2).repeat(2, 1))
    with pytest.raises(ValueError, match="no words"):
        start("", "", 1)


def test_training_goes_on_from_a_given_embedding(make_run):
    given = torch.randn(3, 768, generator=torch.Generator().manual_seed(0))
    run_dir = make_run(SHORT.replace(learning_rate=0.0, vectors=3), embedding=given)
    work_here(run_dir)
    assert torch.equal(learned(run_dir), given)


def test_no_vector_outgrows_the_limit(make_run, table):
    median = float(table.norm(dim=1).median())
    settings = SHORT.replace(learning_rate=1.0)
    free, held = make_run(settings, "free"), make_run(settings.replace(norm_limit=1.1), "held")
    work_here(free)
    work_here(held)
    assert float(learned(free).norm()) > 1.2 * median
    assert float(learned(held).norm()) == pytest.approx(1.1 * median, rel=1e-4)


def test_the_embedding_so_far_is_kept_at_an_interval(make_run):
    run_dir, short = make_run(SHORT.replace(steps=4, save_every=2), "long"), make_run(SHORT, "short")
    work_here(run_dir)
    work_here(short)
    kept = run_dir.path.parent / f"{run_dir.load_run().id}-step-000002.safetensors"
    assert torch.equal(load_file(kept)["emb_params"], learned(short))
    assert len(list(run_dir.path.parent.glob("*-step-*"))) == 1  # the last step is the result itself


def test_held_out_photos_are_measured_and_samples_drawn(make_run):
    prompts = ("mysks in the snow", "a toy")
    run_dir = make_run(
        SHORT.replace(hold_out=1, validate_every=1, early_stopping="export_best", sample_prompts=prompts, sample_every=2)
    )
    work_here(run_dir)
    measured = run_dir.measurements()
    assert [m["step"] for m in measured] == [0, 1, 2]
    assert all(m.keys() == {"step", "held_out", "trained"} for m in measured)
    read = {path.name: path.read_bytes() for path in run_dir.samples.glob("step-*.png")}
    assert read["step-000000-0.png"] != read["step-000002-0.png"]
    assert read["step-000000-1.png"] == read["step-000002-1.png"]  # without the token nothing has changed
    assert run_dir.grid.is_file()


def test_a_token_that_clip_knows_becomes_a_placeholder_too(tokenizer):
    ids = tokenize_with(tokenizer, ["a photo of cat on a cathedral", "CAT, sitting"], "cat", [49408])
    assert (ids == 49408).sum(dim=1).tolist() == [1, 1]


def test_captions_are_read_as_clip_reads_them_around_the_token(tokenizer):
    caption = "a photo of mysks, by a lake (mysks again)"
    ids = tokenize_with(tokenizer, [caption, "a lake"], "mysks", [49408])
    same = tokenize(tokenizer, [caption.replace("mysks", "dog"), "a lake"])
    assert torch.equal(torch.where(ids == 49408, tokenizer("dog").input_ids[1], ids), same)


def test_captions_whose_token_is_missing_or_cut_off_are_named(make_run, dataset, tokenizer):
    with pytest.raises(ValueError, match="beyond the 77 pieces"):
        tokenize_with(tokenizer, ["toy " * 73 + "mysks"], "mysks", [49408, 49409, 49410])
    with pytest.raises(ValueError, match="'a toy' does not contain"):
        work_here(make_run(SHORT, dataset=dataset.with_captions(["a toy"] * len(dataset.photos))))


def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(make_run):
    settings = INVERSION.replace(steps=4, batch_size=1, vectors=2, template_set="object", ema_decay=0.9)
    whole, broken = make_run(settings, "whole"), make_run(settings, "broken")
    work_here(whole)
    work_here(broken, stop_after=2)
    assert len(losses_of(broken)) == 2
    assert work_here(broken)[-1]["event"] == "done"
    assert losses_of(broken) == losses_of(whole)
    assert torch.equal(learned(whole), learned(broken))


@pytest.mark.parametrize("vectors", [1, 4])
def test_diffusers_reads_the_file_to_the_same_vectors(make_run, small_base, tokenizer, vectors):
    run_dir = make_run(SHORT.replace(vectors=vectors, initializer="brown toy"))
    work_here(run_dir)
    text_encoder = BaseModel(small_base).text_encoder()
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(str(TOKENIZER)),
        unet=BaseModel(small_base).unet(),
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_textual_inversion(run_dir.load_run().export_path, token="mysks")
    prompt = pipeline.maybe_convert_prompt("a photo of mysks", pipeline.tokenizer)
    ids = torch.tensor(pipeline.tokenizer(prompt).input_ids[4:-1])
    assert torch.equal(text_encoder.get_input_embeddings().weight[ids], learned(run_dir))
