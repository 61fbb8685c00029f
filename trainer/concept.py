"""What training sees of the subject ("instance") or of its class ("class"), and under which text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor
from transformers import CLIPTextModel

from .events import Reporter, StopRequest
from .latents import LatentCache, encode_photos
from .photos import Dataset
from .plan import Sampling, StepPlan, plan_step, to_device
from .spill import Spill

EMPTY = 0
"""Index of the empty caption in every `Captions`."""


@dataclass(frozen=True)
class Captions:
    """All distinct captions of a run and their text states. Those that training cannot change are computed once."""

    texts: tuple[str, ...]
    """The empty one first."""
    ids: Tensor
    """(C, 77) int64, on the device."""
    changing: tuple[bool, ...]
    """Which captions' states depend on what is trained."""
    frozen: Tensor
    """(C, 77, 768) fp32, on the CPU: the states before training."""
    text_encoder: CLIPTextModel | None
    """None when nothing of it is trained."""

    def states(self, captions: Sequence[int]) -> Tensor:
        """(B, 77, 768): text states of the captions of a batch, each distinct one encoded once."""
        distinct = sorted(set(captions), key=lambda c: (self.changing[c], c))
        fresh = [c for c in distinct if self.changing[c]]
        known = [c for c in distinct if not self.changing[c]]
        device = self.ids.device
        parts = [to_device(self.frozen[known], device)] if known else []
        if fresh:
            parts.append(self.text_encoder(self.ids[to_device(torch.tensor(fresh), device)]).last_hidden_state)
        places = torch.tensor([distinct.index(c) for c in captions])
        return torch.cat([part.float() for part in parts])[to_device(places, device)]


def holding(ids: Tensor, rows: Sequence[int]) -> tuple[bool, ...]:
    """Which of the captions, token ids (C, 77), hold any of the rows."""
    return tuple(torch.isin(ids, torch.tensor(rows, device=ids.device)).any(dim=1).tolist())


@torch.no_grad()
def cache_captions(
    texts: Sequence[str], ids: Tensor, text_encoder: CLIPTextModel, changing: tuple[bool, ...], folder: Path, stop: StopRequest
) -> Captions:
    """`ids` (C, 77) on the text encoder's device; the states go to a file below `folder`."""
    spill = Spill(folder)
    for part in ids.split(16):
        stop.check()
        for states in text_encoder(part).last_hidden_state:
            spill.append(states)
    return Captions(tuple(texts), ids, changing, spill.stack(), text_encoder if any(changing) else None)


@dataclass(frozen=True)
class Batch:
    """What the U-Net gets, and what it shall predict. On the device, but for the captions."""

    noisy: Tensor
    """(B, 4, h, w) fp32: noisy latents."""
    timesteps: Tensor
    """(B,) int64."""
    noise: Tensor
    """(B, 4, h, w) fp32."""
    captions: list[int]
    """Indices into `Captions.texts`."""


@dataclass(frozen=True)
class Concept:
    latents: LatentCache
    captions: tuple[tuple[int, ...], ...]
    """Per photo the indices of its captions; each time it is seen under one of them."""
    sampling: Sampling

    def batch(self, plan: StepPlan, bucket: int, schedule: DDPMScheduler) -> Batch:
        """The planned batch (CPU) with each photo's own latents and its own caption."""
        captions = [
            self.captions[photo][int(wording * len(self.captions[photo]))] if kept else EMPTY
            for photo, kept, wording in zip(plan.photos.tolist(), plan.undropped, plan.wordings.tolist(), strict=True)
        ]
        on_device = plan.to(self.latents.device)
        clean = self.latents.sample(bucket, plan.photos, plan.views, on_device.posterior_noise)
        noisy = schedule.add_noise(clean, on_device.noise, on_device.timesteps)
        return Batch(noisy, on_device.timesteps, on_device.noise, captions)

    def step_batch(self, seed: int, step: int, batch_size: int, schedule: DDPMScheduler, rank: int = 0, of: int = 1) -> Batch:
        """Batch `step` of the run, or the share of process `rank` of `of`."""
        bucket, plan = plan_step(seed, step, batch_size, self.sampling)
        return self.batch(plan.part(rank, of), bucket, schedule)


def cache_concept(
    name: str,
    dataset: Dataset,
    texts: Sequence[str],
    vae: AutoencoderKL,
    folder: Path,
    reporter: Reporter,
    stop: StopRequest,
    *,
    wordings: Sequence[str] = (),
    caption_dropout: float = 0.0,
    noise_offset: float = 0.0,
) -> Concept:
    """Encode the dataset's photos, to files below `folder`. `texts` are the run's captions, those of the dataset among them.

    `wordings`, also among them, stand in place of the photos' own captions.
    """
    reporter.phase(f"encoding {name} photos", len(dataset.photos))
    latents = encode_photos(vae, dataset, folder, reporter, stop)
    index = {text: i for i, text in enumerate(texts)}
    sampling = Sampling(
        concept=name,
        buckets=tuple(tuple(p for p in photos for _ in range(dataset.photos[p].repeats)) for photos in latents.photos),
        latent_shapes=latents.shapes,
        views=dataset.views,
        caption_dropout=caption_dropout,
        noise_offset=noise_offset,
    )
    captions = tuple(tuple(index[text] for text in wordings or (photo.caption,)) for photo in dataset.photos)
    return Concept(latents, captions, sampling)


def distinct_captions(datasets: Sequence[Dataset]) -> list[str]:
    """The empty caption, then all others in order."""
    return ["", *sorted({photo.caption for dataset in datasets for photo in dataset.photos} - {""})]
