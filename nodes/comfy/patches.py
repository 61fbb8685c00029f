"""What other nodes have put on MODEL and CLIP before they come to a training node. One rule for whatever is trained:

trained through   CLIP skip: captions, class images and sample pictures are read from that layer (`Base.text_layer`)
baked in          patches of the weights, such as Load LoRA: the base is saved with them
kept              what acts while sampling, such as FreeU or IP-Adapter: training does not see it, the outputs have it again
refused           what changes the effect of weights as they are used, such as Load LoRA (Bypass): it is in no weight
"""

from typing import Any

import comfy.patcher_extension

from ...trainer.run.messages import Message, UserError, message

SAMPLING = ("model_options", "object_patches", "attachments", "additional_models", "callbacks", "wrappers", "force_cast_weights")
"""Attributes of a ModelPatcher that say how it samples. Its weights and their patches are in others."""
COMPILED = "torch.compile"
"""ComfyUI's key of the wrapper that holds a compiled model."""


def check_patches(part: Message | str, patcher) -> None:
    """Raise UserError for what is on a ModelPatcher, changes the effect of its weights, and cannot be saved with them."""
    found = _unsavable(patcher)
    if found:
        raise UserError(
            "The {part} comes with {found}: this changes what its weights do and is not in them, so it can be neither trained on "
            "nor saved. Use Load LoRA in place of Load LoRA (Bypass); put other such nodes behind the training node.",
            part=part,
            found=found,
        )


def _unsavable(patcher) -> list[Message]:
    with_weights = {name for name, child in patcher.model.named_children() if next(child.parameters(), None) is not None}
    replaced = [name for name in patcher.object_patches if name.split(".")[0] in with_weights]
    found = []
    if patcher.injections:
        found.append(message("injections ({names})", names=sorted(map(str, patcher.injections))))
    if patcher.hook_patches or patcher.forced_hooks is not None:
        found.append(message("hooks"))
    if patcher.weight_wrapper_patches:
        found.append(message("wrapped weights"))
    if replaced:
        found.append(message("replaced layers ({names})", names=sorted(replaced)))
    return found


def with_sampling_patches(trained, given) -> Any:
    """Return a clone of the trained MODEL that samples as the given one does: the same patches, the trained weights."""
    kept, donor = trained.clone(), given.clone()
    for name in SAMPLING:
        setattr(kept, name, getattr(donor, name))
    # Copies of the given model, compiled or for other devices: they have the weights of before.
    kept.remove_wrappers_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, COMPILED)
    kept.remove_additional_models("multigpu")
    return kept


def with_prompt_options(trained, given) -> Any:
    """Return a clone of the trained CLIP that reads prompts as the given one does: its tokenizer, options and CLIP skip."""
    kept = trained.clone()
    kept.tokenizer, kept.tokenizer_options = given.tokenizer, given.tokenizer_options.copy()
    kept.clip_layer(given.layer_idx)
    return kept


def with_text_layer(clip, layer: int) -> Any:
    """Return a clone of the CLIP that is read from a layer: -1 is the last, -2 the last but one."""
    clip = clip.clone()
    clip.clip_layer(layer)
    return clip
