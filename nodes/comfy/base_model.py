"""The base model that comes in through the MODEL, CLIP and VAE sockets."""

import logging
from collections.abc import Iterable
from pathlib import Path

import comfy.model_management
import comfy.model_sampling
import comfy.sd
import comfy.supported_models
import folder_paths
import torch
from blake3 import blake3
from safetensors import safe_open

from ...trainer.run.files import partial_file
from ...trainer.run.messages import Message, UserError, message
from .progress import check_interrupted

log = logging.getLogger("subject_trainer")

SD15_SIGMA_MAX = 14.6146
"""Noise level at timestep 999 of SD v1.5's schedule (scaled-linear, 0.00085 to 0.012)."""


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
        self.model, self.clip, self.vae = model, clip, vae
        if clip.layer_idx is not None:
            log.warning("Clip skip has no effect on training. Put CLIP Set Last Layer behind the training node.")

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
        for part, prefix, patcher in (
            ("U-Net", "model.diffusion_model.", self.model),
            (message("text encoder"), "cond_stage_model.transformer.text_model.", self.clip.patcher),
            ("VAE", "first_stage_model.", self.vae.patcher),
        ):
            loader = patcher.cached_patcher_init
            path = Path(str(loader[1][0])) if loader else Path()
            if path.suffix != ".safetensors" or not path.is_file():
                continue
            with safe_open(path, "pt") as file:
                present = {name for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118 - not a dict
            wanted = (name for name in names if name.startswith(prefix) and name.endswith((".weight", ".bias")))
            missing = sorted(name for name in wanted if name not in present)
            if present and missing:  # a file of another layout has none of these names
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


def check_sd15(model) -> None:
    """Raise UserError, naming the family, unless the model is an epsilon-predicting SD v1.5 for text to image."""
    family = _other_family(model)
    if family:
        raise UserError(
            "The base is {family}. These nodes train SD v1.5 models (text to image, epsilon prediction): load for example "
            "v1-5-pruned-emaonly.safetensors.",
            family=family,
        )


def _other_family(model) -> Message | None:
    """Return what the model is; None for an epsilon-predicting SD v1.5 for text to image."""
    config = model.model.model_config
    for kind, name in (
        (comfy.supported_models.SDXL, message("an SDXL model")),
        (comfy.supported_models.SDXLRefiner, message("the SDXL refiner")),
        (comfy.supported_models.SD20, message("an SD 2 model")),
    ):
        if isinstance(config, kind):
            return name
    if not isinstance(config, comfy.supported_models.SD15):
        return message("a {family} model", family=type(config).__name__)
    channels = config.unet_config.get("in_channels", 4)
    if channels == 9:
        return message("an SD v1.5 inpainting model")
    if channels != 4:
        return message("an SD v1.5 variant with {channels} input channels", channels=channels)
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, comfy.model_sampling.V_PREDICTION):
        return message("a v-prediction model")
    # EPS is always mixed into a schedule, which has sigma_max.
    if not isinstance(sampling, comfy.model_sampling.EPS) or abs(float(sampling.sigma_max) - SD15_SIGMA_MAX) > 0.01:  # pyright: ignore[reportAttributeAccessIssue]
        return message("a model with another noise schedule than SD v1.5's")
    return None
