"""The base model that comes in through the MODEL, CLIP and VAE sockets."""

from collections.abc import Iterable
from pathlib import Path

import comfy.model_management
import comfy.sd
import folder_paths
import torch
from blake3 import blake3
from safetensors import safe_open

from ...trainer.run.files import partial_file
from ...trainer.run.messages import UserError, message
from ...trainer.run.settings import check_text_layer
from .completeness import TEXT_ENCODER, UNET, VAE, missing_tensors
from .family import check_clip_l, check_sd15, check_vae
from .patches import check_patches
from .progress import check_interrupted


class Base:
    """A complete SD v1.5 as MODEL, CLIP and VAE. Raises UserError, naming what it is, for anything else."""

    def __init__(self, model, clip, vae):
        check_sd15(model)
        if vae is not None and vae.first_stage_model is None:  # a file without one
            vae = None
        if clip is None or vae is None:
            raise UserError(
                "The checkpoint holds no {part}. Use a complete SD v1.5 checkpoint, or load one beside it.",
                part=message("text encoder") if clip is None else "VAE",
            )
        check_clip_l(clip)
        check_vae(vae)
        for part, patcher in (("U-Net", model), (message("text encoder"), clip.patcher), ("VAE", vae.patcher)):
            check_patches(part, patcher)
        self.model, self.clip, self.vae = model, clip, vae
        self.text_layer = text_layer(clip)

    def fingerprint(self) -> str:
        """Return blake3, as hex, of all weights as they would be saved: names, types, shapes, bytes.

        Raises UserError when the file lacked some of them: ComfyUI leaves those at whatever they are initialised with.
        """
        comfy.model_management.load_models_gpu([self.model, self.clip.load_model()])
        weights = self.model.state_dict_for_saving(self.clip.state_dict_for_saving(), self.vae.get_sd())
        self._check_complete(weights)
        hasher = blake3(max_threads=blake3.AUTO)
        for name in sorted(weights):
            check_interrupted()
            tensor = weights[name].to("cpu").contiguous()
            hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            hasher.update(tensor.reshape(-1).view(torch.uint8).numpy())
        return hasher.hexdigest()

    def _check_complete(self, names: Iterable[str]) -> None:
        """Raise UserError unless the files that U-Net, text encoder and VAE were loaded from have the tensors of these names."""
        names = list(names)
        for part, prefix, patcher in (
            ("U-Net", UNET, self.model),
            (message("text encoder"), TEXT_ENCODER, self.clip.patcher),
            ("VAE", VAE, self.vae.patcher),
        ):
            path, alone = _loaded_from(patcher)
            if path.suffix != ".safetensors" or not path.is_file():
                continue
            with safe_open(path, "pt") as file:
                missing = missing_tensors(prefix, names, file.keys(), alone=alone)
            if missing:
                raise UserError(
                    "{file} is not complete: of its {part} {count} tensors are missing, for example {example}. Download it "
                    "again, or load another base.",
                    file=path.name,
                    part=part,
                    count=len(missing),
                    example=missing[0],
                )

    def save(self, path: Path) -> None:
        """Write one checkpoint file in the original (LDM) layout, patches applied."""
        with partial_file(path) as partial:
            comfy.sd.save_checkpoint(str(partial), self.model, self.clip, self.vae)

    def unet_weights(self) -> int:
        """Return how many weights the U-Net has."""
        return sum(p.numel() for p in self.model.model.diffusion_model.parameters())

    def size(self) -> int:
        """Return the bytes of all weights, about what `save` writes."""
        return sum(patcher.model_size() for patcher in (self.model, self.clip.patcher, self.vae.patcher))

    def checkpoint_name(self) -> str:
        """Return the name among ComfyUI's checkpoints of the file that the model was loaded from, or "" where it is not known."""
        loader = self.model.cached_patcher_init
        if not loader or loader[0] is not comfy.sd.load_checkpoint_guess_config:
            return ""
        path = Path(loader[1][0])
        for root in folder_paths.get_folder_paths("checkpoints"):
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        return ""


def _loaded_from(patcher) -> tuple[Path, bool]:
    """Return the file that ComfyUI loaded a ModelPatcher from, and whether as a file of this part alone; Path() where unknown."""
    loader = patcher.cached_patcher_init
    if not loader or not loader[1]:
        return Path(), False
    given = loader[1][0]
    paths = given if isinstance(given, list | tuple) else [given]  # Load CLIP has a list
    of_one_part = not getattr(loader[0], "__name__", "").startswith("load_checkpoint")
    return (Path(str(paths[0])) if len(paths) == 1 else Path()), of_one_part


def text_layer(clip) -> int:
    """Return the layer that prompts are read from, counted from the end: -1 is the last. Raises UserError where there is none."""
    depth = clip.cond_stage_model.clip_l.num_layers
    layer = -1 if clip.layer_idx is None else clip.layer_idx
    layer = layer - depth if layer >= 0 else layer  # counted from the first by some packs, which ComfyUI's encoder takes too
    check_text_layer(layer, depth)
    return layer
