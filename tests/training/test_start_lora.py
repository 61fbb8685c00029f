"""Going on from a LoRA file, whoever made it: by the names of kohya's scripts, A1111, diffusers, peft and ComfyUI."""

import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.models.lora_file import go_on_from, is_text, text_stems, unet_stems
from trainer.models.sd15 import BaseModel, encode_prompts, load_tokenizer
from trainer.parts.adapters import KINDS, TEXT_PREFIX, TEXT_TARGETS, UNET_PREFIX, adapter_tensors, add_adapters
from trainer.parts.lora import add_lora
from trainer.parts.text_encoder import PREFIX
from trainer.parts.text_lora import TextLoRA
from trainer.run.messages import UserError

from .published import published_loss
from .runs import DREAMBOOTH, TOKENIZER, losses_of, sentence, work

SETTINGS = DREAMBOOTH.replace(train="lora", lora_rank=4, lora_alpha=2.0, lora_layers="all")
ALONE, BOTH = SETTINGS, SETTINGS.replace(train="lora_and_text_encoder")


def renamed(tensors: dict, names: dict[str, str]) -> dict:
    """`names`: what each layer is called, by kohya's name; and in the names of factors, what stands for what."""
    layers = {old: new for old, new in names.items() if old.startswith("lora_unet_")}
    found = {}
    for name, tensor in tensors.items():
        layer, factor = name.split(".", 1)
        for old, new in names.items():
            factor = factor if old in layers else factor.replace(old, new)
        found[f"{layers.get(layer, layer)}.{factor}".replace("._lora.", "_lora.")] = tensor
    return found


PEFT = {"lora_down": "lora_A", "lora_up": "lora_B"}
PROGRAMS: dict[str, tuple[Callable[[str, str], str], dict[str, str]]] = {
    "kohya": (lambda layer, ldm: f"lora_unet_{layer.replace('.', '_')}", {}),
    "A1111": (lambda layer, ldm: f"lora_unet_{ldm.replace('.', '_')}", {}),
    "diffusers": (lambda layer, ldm: f"unet.{layer}", PEFT),
    "diffusers' first": (
        lambda layer, ldm: "unet." + re.sub(r"\.0$", "", layer.replace(".to_", ".processor.to_")),
        {"lora_down": "_lora.down", "lora_up": "_lora.up"},
    ),
    "diffusers' first, of the U-Net alone": (
        lambda layer, ldm: re.sub(r"\.0$", "", layer.replace(".to_", ".processor.to_")),
        {"lora_down": "_lora.down", "lora_up": "_lora.up"},
    ),
    "LyCORIS": (lambda layer, ldm: f"lycoris_{layer.replace('.', '_')}", {}),
    "peft": (lambda layer, ldm: f"base_model.model.{layer}", PEFT),
    "ComfyUI": (lambda layer, ldm: f"diffusion_model.{ldm}", {}),
}
"""What a layer is called, from diffusers' name and LDM's, and what the factors are."""


def ldm_names(base: BaseModel) -> dict[str, str]:
    table = {name.removesuffix(".weight"): ldm for name, ldm in base.unet_table.items()}
    return {name: ldm.removeprefix("model.diffusion_model.").removesuffix(".weight") for name, ldm in table.items()}


def learned(params: dict) -> None:
    with torch.no_grad():
        for number, p in enumerate(params.values()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(number)) * 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_by_any_programs_names_is_the_same_lora(small_base, tmp_path, kind):
    """At another alpha of the run too, and from matrices in place of 1 x 1 convolutions."""
    base, settings = BaseModel(small_base), SETTINGS.replace(lora_kind=kind, lora_rank=16)
    unet, given = base.unet(), (torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 768))
    params = add_lora(unet, settings)
    learned(params)
    tensors, names = adapter_tensors(params, UNET_PREFIX, settings), ldm_names(base)
    again = base.unet()
    taken = add_lora(again, settings.replace(lora_alpha=16.0))
    with torch.no_grad():
        wanted = unet(*given).sample
        for program, (name, factors) in PROGRAMS.items():
            if kind == "lokr" and factors:  # nobody else has another name for these
                continue
            layers = {f"lora_unet_{layer.replace('.', '_')}": name(layer, ldm) for layer, ldm in names.items()}
            found = renamed(tensors, {**layers, **factors})
            found = {n: t.flatten(1) if t.ndim == 4 and t.shape[2:] == (1, 1) else t for n, t in found.items()}
            save_file(found, tmp_path / "other.safetensors")
            for p in taken.values():
                p.zero_()
            go_on_from(
                tmp_path / "other.safetensors",
                taken,
                lambda layer: unet_stems(layer, base.unet_table),
                settings.replace(lora_alpha=16.0),
                lambda name: True,
            )
            assert torch.allclose(again(*given).sample, wanted, atol=2e-2 * float(wanted.std())), program


def test_that_of_the_text_encoder_too(small_base, tmp_path):
    results = []
    for _ in range(2):
        text_encoder = BaseModel(small_base).text_encoder()
        results.append(add_adapters(text_encoder, TEXT_TARGETS["all"], BOTH, torch.float32))
    learned(results[0])
    tensors = adapter_tensors(results[0], TEXT_PREFIX, BOTH) | {"lora_unet_any.alpha": torch.tensor(2.0)}
    for change in (
        lambda name: name,
        lambda name: name.replace("lora_te_", "lora_te1_"),
        lambda name: re.sub(r"layers_(\d+)_(self_attn|mlp)_", r"layers.\1.\2.", name).replace(
            "lora_te_text_model_encoder_", "text_encoder.text_model.encoder."
        ),
    ):
        save_file({change(name): tensor for name, tensor in tensors.items()}, tmp_path / "te.safetensors")
        with torch.no_grad():
            for p in results[1].values():
                p.zero_()
        go_on_from(tmp_path / "te.safetensors", results[1], text_stems, BOTH, is_text)
        assert all(torch.allclose(p, results[0][name], atol=1e-3) for name, p in results[1].items())


KOHYA = ("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D")
"""The modules all of whose linear and convolutional layers kohya's scripts adapt with conv_dim; without, those of the first."""


@pytest.mark.parametrize(("layers", "modules"), [("attention_and_feed_forward", KOHYA[:1]), ("all", KOHYA)])
def test_the_layers_are_those_of_kohyas_scripts(small_base, layers, modules):
    base = BaseModel(small_base)
    wanted = {
        f"{name}.{below}"
        for name, module in base.unet().named_modules()
        for below, layer in module.named_modules()
        if type(module).__name__ in modules and type(layer) in (torch.nn.Linear, torch.nn.Conv2d)
    }
    params = add_lora(base.unet(), SETTINGS.replace(lora_layers=layers))
    assert {name.partition(".lora_")[0] for name in params} == wanted


def test_layers_behind_a_clip_skip_are_left_out(small_base, tmp_path):
    """A file has all of the text encoder, a run with a CLIP skip the layers up to it."""
    base = BaseModel(small_base)
    whole = add_adapters(base.text_encoder(), TEXT_TARGETS["all"], BOTH, torch.float32)
    learned(whole)
    file = tmp_path / "whole.safetensors"
    save_file(adapter_tensors(whole, TEXT_PREFIX, BOTH), file)
    used = base.text_encoder(-2)
    part = TextLoRA(
        SimpleNamespace(settings=BOTH, run=SimpleNamespace(lora="given"), lora_file=file, device=torch.device("cpu")),
        used,
        None,
    )
    assert 0 < len(part.params) < len(whole)
    assert all(torch.allclose(p, whole[name.removeprefix(PREFIX)], atol=1e-3) for name, p in part.params.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora_rank": 8}, r"lora_down\.weight is 4 x \d+.*, this run's is 8 x"),
        ({"lora_layers": "attention"}, r"it has \d+ tensors more, for example lora_unet_"),
        ({"lora_kind": "lokr"}, r"it lacks \d+ of \d+ tensors"),
        ({"norms": True}, r"changes norms and biases too, in 2 tensors such as diffusion_model\.out\.0\.diff: .* Load LoRA"),
        ({"train": "lora"}, r"it has 1 tensor more, for example lora_te_text_model_encoder_layers_0_mlp_fc1\.alpha"),
    ],
    ids=str,
)
def test_another_lora_is_refused_with_what_differs(small_base, tmp_path, change, said):
    base = BaseModel(small_base)
    tensors = adapter_tensors(add_lora(base.unet(), SETTINGS), UNET_PREFIX, SETTINGS)
    if "train" in change:
        tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"] = torch.tensor(2.0)
    if change.pop("norms", False):
        tensors |= {f"diffusion_model.out.0.{kind}": torch.ones(64) for kind in ("diff", "diff_b")}
    save_file(tensors, tmp_path / "given.safetensors")
    settings = SETTINGS.replace(**change)
    params = add_lora(base.unet(), settings)
    with pytest.raises(UserError, match=said):
        go_on_from(
            tmp_path / "given.safetensors", params, lambda name: unet_stems(name, base.unet_table), settings, lambda name: True
        )


def test_a_run_begins_with_what_the_file_has(make_run):
    """At a learning rate of 0 it is exported again; where the run trains no text encoder, a file with one is refused."""
    first = make_run(BOTH.replace(steps=1, lr_warmup_steps=0, lr_scheduler="constant", learning_rate=1e-2), "first")
    assert work(first)[-1]["event"] == "done"
    given = load_file(first.load_run().export_path)
    again = make_run(BOTH.replace(steps=1, lr_warmup_steps=0, learning_rate=0.0), "again", lora=given)
    assert work(again)[-1]["event"] == "done"
    exported = load_file(again.load_run().export_path)
    assert exported.keys() == given.keys()
    assert all(torch.allclose(exported[name].float(), given[name].float(), atol=1e-4) for name in given)
    assert again.load_run().key != make_run(again.load_run().settings, "without").load_run().key
    refused = work(make_run(ALONE, "alone", lora=given))
    assert "tensors more, for example lora_te_text_model" in sentence(refused[-1])


def test_a_teacher_is_the_base_without_the_lora_that_the_run_goes_on_from(make_run, small_base, dataset):
    """Its text side too: the file changes the text embeddings alone here, and the distance to the base is theirs."""
    prompt = "a photo of a plush toy"
    settings = BOTH.replace(
        steps=1, batch_size=2, lr_warmup_steps=0, prior="teacher", class_prompt=prompt, prior_loss_weight=100.0
    )
    base = BaseModel(small_base)
    unet, text_encoder, tokenizer = base.unet(), base.text_encoder(), load_tokenizer(str(TOKENIZER))
    of_base = encode_prompts(text_encoder, tokenizer, [prompt])
    params = add_adapters(text_encoder, TEXT_TARGETS["all"], settings, torch.float32)
    learned(params)
    nothing = adapter_tensors(add_lora(base.unet(), settings), UNET_PREFIX, settings)
    run_dir = make_run(settings, lora=nothing | adapter_tensors(params, TEXT_PREFIX, settings))
    assert work(run_dir)[-1]["event"] == "done"

    def encode(caption: str) -> torch.Tensor:
        return encode_prompts(text_encoder, tokenizer, [caption])

    with torch.no_grad():
        instance = published_loss(base, unet, dataset, "instance", 2, encode=encode)
        kept = published_loss(
            *(base, unet, dataset, "instance", 2),
            encode=lambda _: encode(prompt),
            teacher=lambda noisy, timestep, _: unet(noisy, timestep, of_base),
        )
    assert 100 * float(kept) > 0.02 * float(instance)
    assert losses_of(run_dir)[0] == pytest.approx(float(instance + 100 * kept), rel=2e-3)
