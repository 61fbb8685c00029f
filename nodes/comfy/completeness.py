"""Whether a model file has every tensor that ComfyUI loads from it, in whatever layout it is written. Plain data."""

from collections.abc import Iterable, Sequence

UNET, TEXT_ENCODER, VAE = "model.diffusion_model.", "cond_stage_model.transformer.text_model.", "first_stage_model."
"""Before the names of each part's tensors in a checkpoint, as ComfyUI saves it."""
LAYOUTS: dict[str, Sequence[str]] = {
    UNET: (UNET,),
    # The second is that of transformers before 4, which ComfyUI renames tensor by tensor (SD15.process_clip_state_dict).
    TEXT_ENCODER: (TEXT_ENCODER, "cond_stage_model.transformer."),
    VAE: (VAE,),
}
"""What ComfyUI takes in a checkpoint for the same prefix, the longest first."""
ALONE: dict[str, Sequence[str]] = {UNET: (UNET, ""), TEXT_ENCODER: ("text_model.",), VAE: (VAE, "")}
"""The same in a file of that part alone."""
CONVERTED = (
    "transformer.resblocks.0.ln_1.weight",  # OpenCLIP's text encoder
    "decoder.up_blocks.0.resnets.0.norm1.weight",  # diffusers' VAE
    "down_blocks.0.resnets.0.norm1.weight",  # diffusers' U-Net
)
"""Ends of names by which ComfyUI knows layouts that it converts as a whole."""


def missing_tensors(prefix: str, wanted: Iterable[str], in_file: Iterable[str], *, alone: bool) -> list[str]:
    """Return which tensors of a part a file lacks, sorted; none where it has another layout, which ComfyUI converts.

    `wanted` are names as ComfyUI saves them, of which those of the part begin with `prefix`; only weights and biases count,
    because everything else can be computed. `alone`: the file was loaded as a file of this part, not as a checkpoint.
    """
    names = list(in_file)
    if any(name.endswith(CONVERTED) and (alone or name.startswith(prefix)) for name in names):
        return []
    layouts = (ALONE if alone else LAYOUTS)[prefix]
    found = {prefix + _without_layout(name, layouts) for name in names if name.startswith(tuple(layouts))}
    needed = {name for name in wanted if name.startswith(prefix) and name.endswith((".weight", ".bias"))}
    if not needed & found and not (alone and prefix == TEXT_ENCODER):  # of that ComfyUI knows no other layout
        return []
    return sorted(needed - found)


def _without_layout(name: str, layouts: Sequence[str]) -> str:
    return name.removeprefix(next(layout for layout in layouts if name.startswith(layout)))
