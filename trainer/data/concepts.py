"""What training sees of the subject ("instance") or of its class ("class"), and under which text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor

from ..context import Context
from ..dataset.photos import Dataset
from ..run.events import ENCODING_CLASS, ENCODING_HELD_OUT, ENCODING_INSTANCE, Reporter
from ..run.settings import LossSettings
from ..run.stop_request import StopRequest
from .batches import BatchPlan, BatchSource, plan_batch
from .caption_cache import EMPTY
from .latent_cache import LatentCache, encode_photos
from .latent_store import LatentStore
from .vae_check import looks_like_sdxl

INSTANCE, CLASS, HELD_OUT = "instance", "class", "held-out"
PHASES = {INSTANCE: ENCODING_INSTANCE, CLASS: ENCODING_CLASS, HELD_OUT: ENCODING_HELD_OUT}
NO_NOISE_OPTIONS = LossSettings()


@dataclass(frozen=True)
class Batch:
    """What the U-Net gets, and what it shall predict. On the device, but for the captions."""

    noisy: Tensor
    """(B, 4, h, w) fp32: noisy latents."""
    timesteps: Tensor
    """(B,) int64."""
    target: Tensor
    """(B, 4, h, w) fp32: what the U-Net shall predict, the noise or what its teacher predicts."""
    captions: list[int]
    """Indices into `Captions.texts`."""
    mask_weights: Tensor | None = None
    """(B, 1, h, w) fp32: how much each latent counts in the loss; None: all alike."""
    outside: "Outside | None" = None
    """What else the U-Net shall predict outside of the masks; None: nothing."""


@dataclass(frozen=True)
class Outside:
    """What the U-Net shall predict outside of the masks, whatever the noise was. On the device."""

    target: Tensor
    """(B, 4, h, w) fp32."""
    weights: Tensor
    """(B, 1, h, w) fp32: how much each latent counts; 0 within a mask."""


@dataclass(frozen=True)
class Concept:
    """The latents and captions of a set of photos, and how batches are drawn from it."""

    latents: LatentCache
    captions: tuple[tuple[int, ...], ...]
    """Per photo the indices of its captions; each time it is seen under one of them."""
    source: BatchSource

    def batch(self, plan: BatchPlan, bucket: int, schedule: DDPMScheduler) -> Batch:
        """Return the planned batch with each photo's own latents and its own caption."""
        captions = [
            self.captions[photo][int(choice * len(self.captions[photo]))] if kept else EMPTY
            for photo, kept, choice in zip(plan.photos.tolist(), plan.keep_caption, plan.caption_choice.tolist(), strict=True)
        ]
        on_device = plan.to(self.latents.device)
        clean = self.latents.sample(bucket, plan.photos, plan.views, on_device.posterior_noise)
        # diffusers asks for IntTensor, which is int32, and takes any integers.
        noisy = schedule.add_noise(clean, on_device.noise, on_device.timesteps)  # pyright: ignore[reportArgumentType]
        mask_weights = self.latents.loss_weights(bucket, plan.photos, plan.views)
        return Batch(noisy, on_device.timesteps, on_device.noise, captions, mask_weights)

    def training_batch(
        self, seed: int, index: int, batch_size: int, schedule: DDPMScheduler, rank: int = 0, world_size: int = 1
    ) -> Batch:
        """Return batch `index` (0, 1, ...) of the run, or the part of it that process `rank` of `world_size` has."""
        bucket, plan = plan_batch(seed, index, batch_size, self.source)
        return self.batch(plan.shard(rank, world_size), bucket, schedule)


@dataclass(frozen=True)
class ConceptEncoder:
    """Encodes photos into concepts."""

    vae: AutoencoderKL
    texts: Sequence[str]
    """The run's captions, those of the datasets among them."""
    folder: Path
    """Where the files of the run's latents go."""
    store: LatentStore
    reporter: Reporter
    stop: StopRequest

    def encode(
        self, name: str, dataset: Dataset, noise_options: LossSettings = NO_NOISE_OPTIONS, prompts: Sequence[str] = ()
    ) -> Concept:
        """Encode a dataset's photos. `prompts`, among the texts too, stand in place of the photos' own captions."""
        self.reporter.phase(PHASES[name], len(dataset.photos))
        latents = encode_photos(self.vae, dataset, self.folder, self.store, self.reporter, self.stop)
        if name == INSTANCE and looks_like_sdxl(dataset, latents):
            self.reporter.warning(
                "The VAE is SDXL's by what it makes of your photos: an SD v1.5 model cannot read its latents. Wire the VAE of "
                "the checkpoint, or load one for SD v1.5."
            )
        index = {text: i for i, text in enumerate(self.texts)}
        source = BatchSource(
            concept=name,
            buckets=tuple(tuple(p for p in photos for _ in range(dataset.photos[p].repeats)) for photos in latents.photos),
            latent_shapes=latents.shapes,
            views=dataset.views,
            caption_dropout=noise_options.caption_dropout,
            noise_offset=noise_options.noise_offset,
        )
        captions = tuple(tuple(index[text] for text in prompts or photo.captions) for photo in dataset.photos)
        return Concept(latents, captions, source)

    def encode_all(
        self, datasets: Mapping[str, Dataset], noise_options: LossSettings, prompts: Sequence[str] = ()
    ) -> dict[str, Concept]:
        """Encode each dataset by its name; noise offset and caption dropout are the instance's alone."""
        return {
            name: self.encode(name, dataset, noise_options if name == INSTANCE else NO_NOISE_OPTIONS, prompts)
            for name, dataset in datasets.items()
        }


def encode_concepts(
    context: Context, vae: AutoencoderKL, texts: Sequence[str], datasets: Mapping[str, Dataset], prompts: Sequence[str] = ()
) -> dict[str, Concept]:
    """Encode the run's datasets by their names, with files in the run's directory; see `ConceptEncoder`."""
    folder = context.run_dir.path
    encoder = ConceptEncoder(vae, texts, folder, LatentStore(folder.parent, vae), context.reporter, context.stop)
    return encoder.encode_all(datasets, context.settings.loss, prompts)
