"""What is trained: the token's rows, the whole text encoder, a LoRA; averages, optimizers, several processes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tools import standin
from trainer.models import key_mapping as keys
from trainer.models.sd15 import BaseModel, load_tokenizer
from trainer.training.export import TOKEN_TABLE, ResultFiles

from .runs import DREAMBOOTH, ROOT, TOKENIZER, losses_of, sentence, work, work_here

QUICK = DREAMBOOTH.replace(steps=2, batch_size=1, lr_warmup_steps=0, learning_rate=1e-3)


def exported(run_dir) -> dict[str, torch.Tensor]:
    return load_file(run_dir.load_run().export_path)


def metadata(run_dir) -> dict[str, str]:
    with safe_open(run_dir.load_run().export_path, "pt") as file:
        return file.metadata()


def text_part(tensors: dict) -> dict:
    return {k: v for k, v in tensors.items() if k.startswith(keys.TEXT_PREFIX)}


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_token_rows_alone_change_in_the_text_encoder(make_run, small_base, optimizer):
    run_dir = make_run(QUICK.replace(train="unet_and_token", optimizer=optimizer, weight_decay=0.5))
    work_here(run_dir)
    base, result = text_part(load_file(small_base)), text_part(exported(run_dir))
    assert result.keys() == base.keys()
    assert {k for k in base if not torch.equal(base[k], result[k])} == {TOKEN_TABLE}
    changed = (base[TOKEN_TABLE] != result[TOKEN_TABLE]).any(dim=1).nonzero().flatten().tolist()
    assert changed == sorted(load_tokenizer(str(TOKENIZER))("mysks", add_special_tokens=False).input_ids)
    assert metadata(run_dir)["subject_trainer.trained"] == "unet_and_token"


def test_decay_never_shrinks_the_tokens_rows(make_run, small_base):
    """After one step the rows are where they would be without any decay; the U-Net's weights are not."""
    results = []
    for decay in (0.0, 1.0):
        settings = QUICK.replace(steps=1, train="unet_and_token", weight_decay=decay, learning_rate=0.01)
        run_dir = make_run(settings, f"decay-{decay}")
        work_here(run_dir)
        results.append(exported(run_dir))
    without, decayed = results
    assert torch.equal(decayed[TOKEN_TABLE], without[TOKEN_TABLE])
    assert not torch.equal(decayed[TOKEN_TABLE], load_file(small_base)[TOKEN_TABLE])
    key = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    assert not torch.equal(decayed[key], without[key])


def test_the_whole_text_encoder_trains_at_its_own_rate(make_run, small_base):
    run_dir = make_run(QUICK.replace(steps=1, train="unet_and_text_encoder", learning_rate=0.0, text_learning_rate=1e-2))
    work_here(run_dir)
    base, result = load_file(small_base), exported(run_dir)
    assert result.keys() == base.keys()
    assert all(result[k].dtype == base[k].dtype and result[k].isfinite().all() for k in base)
    changed = {k for k in base if not torch.equal(base[k], result[k])}
    assert changed
    assert changed <= set(text_part(base))
    for part in (
        "layers.0.self_attn.q_proj.weight",
        f"layers.{standin.SMALL.text_layers - 1}.mlp.fc2.weight",
        "final_layer_norm.weight",
        "token_embedding",
    ):
        assert any(part in k for k in changed), part


def test_both_layouts_of_transformers_are_exported_under_the_same_names(small_base):
    base = BaseModel(small_base)
    weights = {name: torch.full_like(v, 0.5).float() for name, v in keys.text_weights(base.weights, []).items()}

    def exported_from(prefix: str) -> dict[str, torch.Tensor]:
        files = ResultFiles(base, {})
        for name, weight in weights.items():
            files.replace_base_tensor(keys.ldm_text_name(prefix + name), weight)
        return files.all_checkpoint_tensors()

    flat, nested = exported_from(""), exported_from("text_model.")
    assert flat.keys() == nested.keys() == base.weights.keys()
    assert all(torch.equal(flat[k], nested[k]) and (flat[k] == 0.5).all() for k in text_part(flat))


@pytest.mark.parametrize("layers", ["attention", "attention_and_feed_forward", "all"])
def test_a_lora_file_has_the_common_names_and_its_alpha(make_run, layers):
    run_dir = make_run(QUICK.replace(train="lora", lora_rank=4, lora_alpha=2.0, lora_layers=layers, min_snr_gamma=5.0))
    work_here(run_dir)
    result = exported(run_dir)
    stems = {k.split(".")[0] for k in result}
    assert all(stem.startswith("lora_unet_") for stem in stems)
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k" in stems
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0" in stems
    for layer in ("proj_in", "transformer_blocks_0_ff_net_0_proj", "transformer_blocks_0_ff_net_2", "proj_out"):
        assert (f"lora_unet_up_blocks_1_attentions_0_{layer}" in stems) == (layers != "attention"), layer
    assert ("lora_unet_down_blocks_0_resnets_0_conv1" in stems) == (layers == "all")
    for stem in stems:
        down, up, alpha = (result[f"{stem}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha"))
        assert down.shape[0] == up.shape[1] == 4
        assert float(alpha) == 2.0
        assert up.abs().max() > 0
    assert metadata(run_dir)["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_a_lora_of_the_text_encoder_is_in_the_same_file_and_learns_alike_with_checkpointing(make_run):
    settings = QUICK.replace(train="lora_and_text_encoder", lora_rank=2, lora_alpha=2.0, text_learning_rate=1e-2)
    results = []
    for checkpointing in (False, True):
        run_dir = make_run(settings.replace(gradient_checkpointing=checkpointing), f"checkpointing-{checkpointing}")
        work_here(run_dir)
        results.append(exported(run_dir))
    plain, checkpointed = results
    assert {name.split("_")[1] for name in plain} == {"unet", "te"}
    layer = f"lora_te_text_model_encoder_layers_{standin.SMALL.text_layers - 1}"
    for name in (f"{layer}_self_attn_q_proj", f"{layer}_mlp_fc2"):
        assert plain[f"{name}.lora_up.weight"].abs().max() > 1e-3  # two steps at the text encoder's own rate
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-3) for name in plain)


def test_beside_a_lora_the_token_begins_as_clip_reads_it_and_is_exported_as_an_embedding(make_run, small_base):
    alone, beside = (make_run(QUICK.replace(train=train), train) for train in ("lora", "lora_and_token"))
    work_here(alone)
    work_here(beside)
    assert losses_of(beside)[0] == losses_of(alone)[0]
    vectors = load_file(beside.load_run().embedding_path)["emb_params"]
    rows = load_file(small_base)[TOKEN_TABLE][load_tokenizer(str(TOKENIZER))("mysks", add_special_tokens=False).input_ids]
    assert vectors.shape == rows.shape
    assert 1e-4 < (vectors - rows.float()).abs().max() < 5e-3  # two steps of AdamW at 1e-3
    assert exported(beside).keys() == exported(alone).keys()


def test_the_start_of_a_lora_is_drawn_from_the_seed(make_run):
    settings = QUICK.replace(train="lora", learning_rate=2e-6)
    results = []
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        run_dir = make_run(settings.replace(seed=seed), name)
        torch.manual_seed(len(results))
        work_here(run_dir)
        results.append(exported(run_dir))
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"
    assert torch.equal(results[0][key], results[1][key])
    assert not torch.equal(results[0][key], results[2][key])


def test_the_average_is_between_the_base_and_the_last_weights_and_says_so(make_run, small_base):
    last, averaged = make_run(QUICK.replace(steps=6), "last"), make_run(QUICK.replace(steps=6, ema_decay=0.99), "averaged")
    work_here(last)
    work_here(averaged)
    assert losses_of(averaged) == losses_of(last)
    key = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    base, end, mean = (tensors[key].double() for tensors in (load_file(small_base), exported(last), exported(averaged)))
    share = float(((mean - base) * (end - base)).sum() / (end - base).square().sum())
    assert 0.3 < share < 0.99  # without a warm-up a decay of 0.99 would leave 0.03
    assert metadata(averaged)["subject_trainer.weights"] == "ema"
    assert metadata(last)["subject_trainer.weights"] == "last"
    assert json.loads(averaged.result_json.read_text())["exported"] == {"step": 6, "weights": "ema"}


@pytest.mark.parametrize(
    ("optimizer", "rate", "train"),
    [
        ("adamw", 1e-4, "unet_and_token"),  # two groups of parameters
        ("adamw_8bit", 1e-4, "lora"),
        ("adafactor", 1e-4, "lora"),
        ("prodigy", 1.0, "lora"),
    ],
)
def test_every_optimizer_resumes_exactly_with_everything_on(make_run, optimizer, rate, train):
    """Average, accumulation in the middle of an epoch, a schedule."""
    settings = QUICK.replace(
        steps=4,
        train=train,
        optimizer=optimizer,
        learning_rate=rate,
        lr_scheduler="cosine",
        ema_decay=0.9,
        gradient_accumulation_steps=2,
        checkpoint_every=2,
    )
    whole, broken = make_run(settings, f"whole-{optimizer}"), make_run(settings, f"broken-{optimizer}")
    work_here(whole)
    work_here(broken, stop_after=2)
    assert len(losses_of(broken)) == 2
    work_here(broken)
    one, two = exported(whole), exported(broken)
    assert losses_of(broken) == losses_of(whole)
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    "more",
    [
        # Each process has one photo, and often no caption with the token; in the second step neither has one.
        {"train": "unet_and_token", "caption_dropout": 0.5, "gradient_accumulation_steps": 2, "ema_decay": 0.9},
        pytest.param(
            {"train": "unet_and_text_encoder", "gradient_checkpointing": True, "weight_decay": 0.5}, marks=pytest.mark.nightly
        ),
    ],
    ids=["token", "text encoder"],
)
def test_two_processes_equal_one_with_twice_the_batch_and_resume_to_the_same_bytes(make_run, more):
    """A parameter without gradient, in one process or in both, is treated alike."""
    settings = QUICK.replace(**{"steps": 10, "batch_size": 2, "learning_rate": 1e-5, "prior_loss_weight": 0.0, **more})
    one, two, stopped = (
        make_run(settings.replace(devices=devices), name) for name, devices in (("one", 1), ("two", 2), ("stopped", 2))
    )
    work_here(one)
    assert work(two, devices=2)[-1]["event"] == "done", two.log.read_text()
    assert work(stopped, stop_at=1, devices=2)[-1]["event"] == "stopped"
    assert 0 < len(losses_of(stopped)) < 10
    assert work(stopped, devices=2)[-1]["event"] == "done"
    assert losses_of(stopped) == losses_of(two) == pytest.approx(losses_of(one), rel=1e-5)
    first, second, third = exported(one), exported(two), exported(stopped)
    assert all(torch.equal(second[k], third[k]) for k in second)
    apart = torch.cat([((first[k].float() - second[k].float()).abs() / (1 + first[k].float().abs())).flatten() for k in first])
    share = float((apart > 1e-6).float().mean())
    print(f"\nfurthest weight: {float(apart.max()):.1e}, share of those further apart than 1e-6: {share:.1e}")
    # Adam's first steps are as long for a gradient that is all rounding, whatever its sign then, as for any other.
    assert share < 1e-3
    assert apart.max() < 2 * settings.training.steps * settings.optimizer.learning_rate


def test_processes_that_cannot_share_a_batch_say_so(make_run):
    run_dir = make_run(QUICK.replace(batch_size=1))
    command = [sys.executable, str(ROOT / "trainer" / "__main__.py"), str(run_dir.path)]
    launched = os.environ | {"WORLD_SIZE": "2", "RANK": "0"}  # as a launcher does
    done = subprocess.run(command, env=launched, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1
    told = sentence(json.loads(done.stdout.splitlines()[-1]))
    assert told == "batch_size is 1; 2 devices cannot share it evenly. Use a multiple of 2."


def test_an_8bit_optimizer_needs_a_quarter_of_the_state(make_run):
    sizes = {}
    for optimizer in ("adamw", "adamw_8bit"):
        run_dir = make_run(QUICK.replace(optimizer=optimizer), optimizer)
        blocked = run_dir.path.parent / f"{optimizer}.safetensors"
        blocked.mkdir()  # the export fails, the state stays
        with pytest.raises(OSError, match=r"directory|denied"):
            work_here(run_dir)
        sizes[optimizer] = run_dir.state.stat().st_size
    assert sizes["adamw_8bit"] < 0.55 * sizes["adamw"]  # 4 + 2 of 4 + 8 bytes a weight


def test_small_steps_are_not_swallowed_in_bf16(make_run, small_base):
    """The forward pass is bf16, the weights are not: 2e-6 moves nearly every one of them, where bf16 would hold most still."""
    run_dir = make_run(QUICK.replace(steps=1, learning_rate=2e-6, precision="bf16"))
    assert work(run_dir)[-1]["event"] == "done", run_dir.log.read_text()
    base, result = load_file(small_base), exported(run_dir)
    names = [k for k in base if (k.startswith(keys.UNET_PREFIX) and k.endswith("conv.weight")) or ".to_q.weight" in k]
    moved = torch.cat([(base[k] != result[k]).flatten() for k in names]).float().mean()
    swallowed = torch.cat([(base[k].bfloat16() == result[k].bfloat16()).flatten() for k in names]).float().mean()
    print(f"\n{float(moved):.3f} of the weights moved; as bf16 {float(swallowed):.3f} would not have")
    assert moved > 0.95
    assert swallowed > 0.9
