"""Pictures and prompts as vectors, by the encoders that ComfyUI's loaders give."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...trainer.dataset.masks import decode_mask
from ...trainer.dataset.photos import Dataset, read_photo
from ...trainer.dataset.wired import as_image, wired_pixels
from ...trainer.run.messages import UserError
from .progress import NodeProgress


def dataset_pictures(dataset: Dataset) -> list[Image.Image]:
    """Return each photo as training sees it without augmentation. Raises UserError for one that cannot be read any more."""
    plain = dataset.without_augmentation()
    pictures = []
    for photo in plain.photos:
        path = Path(photo.path)
        try:
            pictures.append(plain.view(read_photo(path).image, photo, 0))
        except UserError as error:
            raise UserError("{name} cannot be read: {reason}", name=path.name, reason=error.message) from None
    return pictures


def subject_pictures(dataset: Dataset, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the photos' pictures with grey around the subject, where they have a mask that counts.

    Raises UserError for a mask that cannot be read any more.
    """
    plain, alone = dataset.without_augmentation(), []
    for photo, picture in zip(plain.photos, pictures, strict=True):
        mask = None
        if photo.mask:
            try:
                mask = decode_mask(Path(photo.mask).read_bytes(), (photo.width, photo.height), photo.mask == photo.path)
            except (OSError, UserError) as error:
                reason = error.message if isinstance(error, UserError) else str(error)
                raise UserError("{name} cannot be read: {reason}", name=Path(photo.mask).name, reason=reason) from None
        grey = Image.new("RGB", picture.size, "grey")
        alone.append(Image.composite(picture.convert("RGB"), grey, plain.mask_view(mask, photo, 0)) if mask else picture)
    return alone


def wired_images(name: str, batches: Sequence[Tensor]) -> list[Image.Image]:
    """Return the pictures of all batches that come through the input `name`. Raises UserError for what is no picture."""
    pictures = [picture for batch in batches for picture in batch]
    return [as_image(wired_pixels(p.float().cpu().numpy(), number, name)) for number, p in enumerate(pictures, 1)]


def encoder_name(clip_vision: Any) -> str:
    """Return what kind of encoder a CLIP_VISION is, and a hash of its norms and biases, which are small and no other's."""
    weights, digest = clip_vision.get_sd(), hashlib.sha256()
    for name in sorted(name for name, tensor in weights.items() if tensor.ndim == 1):
        digest.update(name.encode() + weights[name].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return f"{clip_vision.model_type} {digest.hexdigest()[:12]}"


class PictureEncoder:
    """Turns pictures into vectors with a CLIP_VISION, and moves a node's progress bar."""

    def __init__(self, clip_vision: Any, progress: NodeProgress, total: int):
        self._clip_vision, self._progress, self._done, self._total = clip_vision, progress, 0, total

    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return (N, D) fp32, on the CPU. Each picture is cropped to its middle square, as the encoder was trained.

        Raises UserError for an encoder that gives no vector for a whole picture, or none of numbers.
        """
        vectors = []
        for picture in pictures:
            self._progress.bar(self._done, self._total)
            pixels = torch.from_numpy(np.asarray(_on_white(picture), dtype=np.float32) / 255.0)[None]
            vectors.append(self._clip_vision.encode_image(pixels)["image_embeds"].float().cpu())
            self._done += 1
        found = torch.cat(vectors)
        if found.ndim != 2 or not found.isfinite().all():
            raise UserError("The CLIP_VISION gives no vector of a whole picture. Load one of CLIP's or DINOv2's image encoders.")
        return found


def prompt_vector(clip: Any, prompt: str, width: int) -> Tensor:
    """Return the vector of a prompt (1, width) fp32, in the space of a CLIP_VISION's pictures of that width.

    The text tower is that of the CLIP. Raises UserError where it lacks CLIP's text projection, as those of SD v1.5 checkpoints
    do, or belongs to another CLIP.
    """
    _, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled="unprojected")
    weights = clip.cond_stage_model.state_dict()
    (projection,) = [w for name, w in weights.items() if name.endswith("text_projection.weight")][:1] or [None]
    if projection is None or projection.shape != (width, pooled.shape[-1]) or not _has_projection(clip):
        raise UserError(
            "The CLIP cannot be compared with the CLIP_VISION: it has no text projection, or is of another CLIP. Load the whole "
            "CLIP that the image encoder belongs to with Load CLIP, or leave clip unwired."
        )
    return pooled.float().cpu() @ projection.float().cpu().T


def _has_projection(clip: Any) -> bool:
    """Return whether the file of a CLIP has a text projection: where it has none, ComfyUI's holds whatever was in the memory."""
    again = getattr(clip.patcher, "cached_patcher_init", None)  # how ComfyUI loads it again: a function, its arguments
    files = again[1][0] if again else []
    names: list[str] = []
    for file in [files] if isinstance(files, str) else files:
        with suppress(OSError, SafetensorError), safe_open(file, "pt") as opened:
            names += opened.keys()
    return any("text_projection" in name for name in names)


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
