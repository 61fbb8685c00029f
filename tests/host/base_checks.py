"""Ask ComfyUI's own classes what the pack makes of them, without a server: JSON {check: answer} on stdout.

python tests/host/base_checks.py COMFYUI CHECKPOINT
"""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
ANSWER = sys.stdout
PROMPTS = ["", "a photo of mysks plush toy", "a cat"]
STRAYS = {
    "none": [],
    "position_ids": ["cond_stage_model.transformer.text_model.embeddings.position_ids"],
    "one weight": ["cond_stage_model.transformer.text_model.final_layer_norm.weight"],
}


def model_samplings(family) -> dict[str, str]:
    """Return what each option of ComfyUI's nodes that choose a ModelSampling is taken for; "" is SD v1.5's own."""
    import comfy.supported_models
    from comfy_extras import nodes_model_advanced as nodes

    config = comfy.supported_models.SD15({"context_dim": 768, "model_channels": 320})

    def patched(node, **inputs) -> str:
        patches = {}
        model = SimpleNamespace(model=SimpleNamespace(model_config=config), add_object_patch=patches.__setitem__)
        model.clone, model.get_model_object = lambda: model, lambda name: None
        node.patch(model, **inputs)
        return str(family.other_prediction(patches["model_sampling"]) or "")

    found = {}
    for sampling in nodes.ModelSamplingDiscrete.INPUT_TYPES()["required"]["sampling"][0]:
        for zsnr in (False, True):
            found[f"discrete {sampling} {zsnr}"] = patched(nodes.ModelSamplingDiscrete(), sampling=sampling, zsnr=zsnr)
    for sampling in nodes.ModelSamplingContinuousEDM.INPUT_TYPES()["required"]["sampling"][0]:
        # 0.0292 and 14.6146 are SD v1.5's own ends.
        inputs = {"sampling": sampling, "sigma_max": 14.6146, "sigma_min": 0.0292}
        found[f"continuous {sampling}"] = patched(nodes.ModelSamplingContinuousEDM(), **inputs)
    found["flow"] = patched(nodes.ModelSamplingSD3(), shift=3.0)
    found["cascade"] = patched(nodes.ModelSamplingStableCascade(), shift=2.0)
    return found


def text_encoders(family) -> dict[str, str]:
    """Return what is said of each of ComfyUI's text encoders, made without weights; "" for SD v1.5's."""
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.text_encoders.sd2_clip
    import comfy.text_encoders.sd3_clip as sd3
    import torch

    kinds = {
        "sd1": comfy.sd1_clip.SD1ClipModel,
        "sdxl": comfy.sdxl_clip.SDXLClipModel,
        "refiner": comfy.sdxl_clip.SDXLRefinerClipModel,
        "sd2": comfy.text_encoders.sd2_clip.SD2ClipModel,
        "sd3": sd3.sd3_clip(clip_l=True, clip_g=True, t5=False),
        "sd3 clip_l": sd3.sd3_clip(clip_l=True, clip_g=False, t5=False),
        "sd3 t5": sd3.sd3_clip(clip_l=False, clip_g=False, t5=True, dtype_t5=torch.float16),
    }
    found = {}
    for name, kind in kinds.items():
        try:
            family.check_clip_l(SimpleNamespace(cond_stage_model=kind(device="meta", dtype=torch.float16)))
            found[name] = ""
        except ValueError as error:
            found[name] = str(error)
    return found


def complete_text_encoders(completeness, tensors: dict) -> dict[str, bool]:
    """Return whether the pack and ComfyUI agree on what a text encoder lacks, in every layout and with every stray name."""
    import comfy.supported_models
    import torch

    config = comfy.supported_models.SD15({"context_dim": 768, "model_channels": 320})
    prefix = completeness.TEXT_ENCODER
    wanted = [name for name in tensors if name.startswith(prefix)]
    agreed = {}
    for layout in ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."):
        for stray, names in STRAYS.items():
            for gone in (None, *wanted[:3]):
                written = {layout + name.removeprefix(prefix) for name in wanted if name != gone} | set(names)
                loaded = config.process_clip_state_dict({name: torch.zeros((), device="meta") for name in written})
                lacks = sorted(n for n in wanted if n.replace("cond_stage_model.", "clip_l.", 1) not in loaded)
                agreed[f"{layout} {stray} {gone}"] = completeness.missing_tensors(prefix, wanted, written, alone=False) == lacks
    return agreed


def text_states(checkpoint: str, tensors: dict) -> dict[str, float]:
    """Return by layer how far the worker's text embeddings are from those that ComfyUI's CLIP gives after CLIP Set Last Layer."""
    import comfy.sd
    import comfy.sd1_clip
    import torch

    from trainer.models.sd15 import BaseModel, encode_prompts, load_tokenizer

    target = SimpleNamespace(clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer, params={})
    weights = {
        n.removeprefix("cond_stage_model.transformer."): t for n, t in tensors.items() if n.startswith("cond_stage_model.")
    }
    clip = comfy.sd.CLIP(target, state_dict=[weights], parameters=1)
    base, tokenizer = BaseModel(Path(checkpoint)), load_tokenizer(str(Path(comfy.sd.__file__).parent / "sd1_tokenizer"))
    furthest = {}
    for layer in (None, -1, -2, -3, -4, -12):
        clip.clip_layer(layer)
        theirs = torch.cat([clip.encode_from_tokens(clip.tokenize(prompt)) for prompt in PROMPTS])
        ours = encode_prompts(base.text_encoder(layer or -1), tokenizer, PROMPTS)
        furthest[str(layer)] = float((ours - theirs.float()).abs().max())
    return furthest


def text_layers(base_model) -> dict[str, object]:
    """Return the layer that each value of a CLIP's layer_idx is taken for; for one that is not there, the sentence."""
    found: dict[str, object] = {}
    for index in (None, -1, -2, -12, -13, -24, 10, 11, 12):
        clip = SimpleNamespace(cond_stage_model=SimpleNamespace(clip_l=SimpleNamespace(num_layers=12)), layer_idx=index)
        try:
            found[str(index)] = base_model.text_layer(clip)
        except ValueError as error:
            found[str(index)] = str(error)
    return found


def patches(patches) -> dict[str, object]:
    """Return what is refused of what can be put on a model, and what a trained model has again of the given one."""
    import comfy.hooks
    import comfy.model_patcher
    import torch
    from comfy.patcher_extension import WrappersMP

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.diffusion_model, self.model_sampling = torch.nn.Linear(2, 2), torch.nn.Identity()

    def patcher():
        return comfy.model_patcher.ModelPatcher(Network(), torch.device("cpu"), torch.device("cpu"))

    def refused(change) -> str:
        given = patcher()
        change(given)
        try:
            patches.check_patches("U-Net", given)
        except ValueError as error:
            return str(error)
        return ""

    def weight_patch(model) -> None:
        model.add_patches({"diffusion_model.weight": ("diff", (torch.ones(2, 2),))})

    def act_in_sampling(model) -> None:
        model.set_model_output_block_patch(print)
        model.set_model_sampler_cfg_function(lambda args: args)
        model.add_object_patch("model_sampling", torch.nn.Identity())
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "mine", print)

    found: dict[str, object] = {
        "nothing": refused(lambda model: None),
        "weight patch": refused(weight_patch),
        "sampling": refused(act_in_sampling),
        "bypass": refused(lambda model: model.set_injections("bypass_lora", [None])),
        "forced hooks": refused(lambda model: setattr(model, "forced_hooks", comfy.hooks.HookGroup())),
        "hook patches": refused(lambda model: model.hook_patches.update({"ref": {}})),
        "weight wrapper": refused(lambda model: model.add_weight_wrapper("diffusion_model.weight", print)),
        "replaced layer": refused(lambda model: model.add_object_patch("diffusion_model.weight", 1)),
    }
    given, trained = patcher(), patcher()
    act_in_sampling(given)
    weight_patch(given)
    given.add_wrapper_with_key(WrappersMP.APPLY_MODEL, patches.COMPILED, print)
    given.set_additional_models("multigpu", [patcher()])
    given.set_additional_models("guide", [patcher()])
    kept = patches.with_sampling_patches(trained, given)
    found |= {
        "weights": kept.model is trained.model and not kept.patches,
        "blocks": kept.model_options["transformer_options"]["patches"]["output_block_patch"] == [print],
        "cfg": kept.model_options["sampler_cfg_function"] is given.model_options["sampler_cfg_function"],
        "objects": kept.object_patches == given.object_patches,
        "wrappers": kept.get_wrappers(WrappersMP.APPLY_MODEL, "mine") == [print],
        "compiled": kept.get_wrappers(WrappersMP.APPLY_MODEL, patches.COMPILED) == [],
        "models": sorted(name for name, models in kept.additional_models.items() if models) == ["guide"],
        "given": len(given.get_wrappers(WrappersMP.APPLY_MODEL, patches.COMPILED)) == 1,
        "trained": "sampler_cfg_function" not in trained.model_options,
    }
    kept.set_model_output_block_patch(print)
    found["apart"] = len(given.model_options["transformer_options"]["patches"]["output_block_patch"]) == 1
    return found


def main(comfyui: str, checkpoint: str) -> None:
    sys.path.insert(0, str(ROOT))
    from tests.pack import load  # before ComfyUI, which has `tests` of its own, and goes first because of `nodes`

    sys.path.insert(0, comfyui)
    import comfy.cli_args  # its parser must not see our arguments

    comfy.cli_args.args.cpu = True
    from safetensors.torch import load_file

    tensors = load_file(checkpoint)
    answers = {
        "model samplings": model_samplings(load("nodes.comfy.family")),
        "text encoders": text_encoders(load("nodes.comfy.family")),
        "complete": complete_text_encoders(load("nodes.comfy.completeness"), tensors),
        "patches": patches(load("nodes.comfy.patches")),
        "text layers": text_layers(load("nodes.comfy.base_model")),
        "text embeddings": text_states(checkpoint, tensors),
    }
    print(json.dumps(answers), file=ANSWER)


if __name__ == "__main__":
    arguments, sys.argv[1:] = sys.argv[1:], []
    sys.stdout = sys.stderr
    logging.disable(logging.INFO)
    main(*arguments)
