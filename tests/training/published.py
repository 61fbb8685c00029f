"""The published loss, from nothing but parts: each photo's own latents under its own caption, one sample at a time."""

from collections.abc import Callable, Sequence

import torch
from PIL import ImageOps
from torch import Tensor

from trainer.data.batches import BatchSource, plan_batch
from trainer.data.latent_cache import to_tensor
from trainer.dataset.crop import prepare
from trainer.dataset.decode import decode_photo
from trainer.dataset.photos import Dataset, Photo
from trainer.models.sd15 import LATENT_FACTOR, BaseModel, encode_prompts, load_tokenizer

from .runs import TOKENIZER

ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)


def published_loss(
    base: BaseModel,
    unet,
    dataset: Dataset,
    concept: str,
    batch_size: int,
    gamma: float = 0.0,
    batch: int = 0,
    encode: Callable[[str], Tensor] | None = None,
    wordings: Sequence[str] = (),
    teacher: Callable | None = None,
    counts: Callable[[Photo], Tensor] | None = None,
    **sampling,
) -> Tensor:
    """Mean of || noise - prediction ||^2 over one batch of the run with seed 0, differentiable in the U-Net's weights.

    With gamma each sample counts min(SNR, gamma) / SNR. The dataset may be flipped; an odd view is the mirror image. `encode`
    gives the text embeddings (1, 77, 768) of a caption, else the base's text encoder does; `wordings` stand in place of captions.
    With a `teacher`, what it predicts stands in place of the noise. `counts` says how much each latent of a photo counts.
    """
    photos = (tuple(range(len(dataset.photos))),)
    drawn = BatchSource(concept=concept, buckets=photos, latent_shapes=((4, 8, 8),), views=2 if dataset.flip else 1, **sampling)
    _, plan = plan_batch(0, batch, batch_size, drawn)
    tokenizer, text_encoder, vae = load_tokenizer(str(TOKENIZER)), base.text_encoder(), base.vae()
    losses = []
    for i in range(batch_size):
        photo, t, noise = dataset.photos[int(plan.photos[i])], plan.timesteps[i], plan.noise[i]
        with open(photo.path, "rb") as file:
            picture = prepare(decode_photo(file.read()), 64, "center")
        pixels = to_tensor(ImageOps.mirror(picture) if plan.views[i] % 2 else picture)
        caption = wordings[int(plan.caption_choice[i] * len(wordings))] if wordings else photo.caption
        caption = caption if plan.keep_caption[i] else ""
        states = encode(caption) if encode else encode_prompts(text_encoder, tokenizer, [caption])
        with torch.no_grad():
            found = vae.encode(pixels[None]).latent_dist
        clean = (found.mean + found.std * plan.posterior_noise[i]) * LATENT_FACTOR
        noisy = ALPHAS[t] ** 0.5 * clean + (1 - ALPHAS[t]) ** 0.5 * noise
        snr = float(ALPHAS[t] / (1 - ALPHAS[t]))
        weight = min(snr, gamma) / snr if gamma else 1.0
        target = teacher(noisy, t, states).sample if teacher else noise
        squares = (unet(noisy, t, states).sample - target) ** 2
        losses.append(weight * (squares * counts(photo) if counts else squares).mean())
    return torch.stack(losses).mean()
