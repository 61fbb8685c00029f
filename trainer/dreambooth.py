"""DreamBooth (Ruiz et al. 2022): the U-Net learns the subject under its instance prompts, and keeps what it knows of the
class by training on class images beside it (prior preservation)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from .base_model import BaseModel, encode_prompts, load_tokenizer, noise_schedule
from .checkpoint import save_tensors
from .config import Settings
from .events import Reporter, StopRequest
from .export import metadata
from .latents import LatentCache, encode_photos
from .loop import make_accelerator, run_steps
from .photos import Dataset
from .plan import StepPlan, plan_step
from .rundir import Run, RunDir


@dataclass(frozen=True)
class Concept:
    """What the U-Net sees of the subject ("instance") or of its class ("class"), cached."""

    name: str
    latents: LatentCache
    states: Tensor
    """(C, 77, 768) fp32: the text encoder's states of the distinct captions."""
    caption_of: Tensor
    """(N,) int64: which of them belongs to each photo."""

    def plan(self, settings: Settings, step: int) -> StepPlan:
        """On the device."""
        shape = self.latents.shape
        plan = plan_step(settings.seed, step, settings.batch_size, len(self.caption_of), shape, self.name)
        return plan.to(self.states.device)

    def noisy_batch(self, plan: StepPlan, schedule: DDPMScheduler) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noisy latents (B, 4, h, w), timesteps (B,), text states (B, 77, 768), the noise to predict (B, 4, h, w)."""
        clean = self.latents.sample(plan.indices, plan.posterior_noise)
        noisy = schedule.add_noise(clean, plan.noise, plan.timesteps)
        return noisy, plan.timesteps, self.states[self.caption_of[plan.indices]], plan.noise


def cache_concept(
    name: str,
    dataset: Dataset,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    reporter: Reporter,
    stop: StopRequest,
) -> Concept:
    stop.check()
    reporter.phase(f"encoding {name} captions")
    captions = sorted({photo.caption for photo in dataset.photos})
    states = encode_prompts(text_encoder, tokenizer, captions)
    caption_of = torch.tensor([captions.index(photo.caption) for photo in dataset.photos], device=states.device)
    reporter.phase(f"encoding {name} photos", len(dataset.photos))
    return Concept(name, encode_photos(vae, dataset, reporter, stop), states, caption_of)


def train(run: Run, run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> None:
    """Train the U-Net of the run's base and write a checkpoint file with its names, types and other weights."""
    settings = run.settings
    accelerator = make_accelerator(device, settings.precision)

    reporter.phase("loading")
    base = BaseModel(run_dir.base)
    tokenizer = load_tokenizer(run.tokenizer_path)
    encoders = base.text_encoder().to(accelerator.device), tokenizer, base.vae().to(accelerator.device)
    concepts = [cache_concept("instance", run.dataset, *encoders, reporter, stop)]
    loss_weights = [1.0]
    if run.class_dataset:
        concepts.append(cache_concept("class", run.class_dataset, *encoders, reporter, stop))
        loss_weights.append(settings.prior_loss_weight)
    del encoders  # their memory is wanted for training

    stop.check()
    unet = base.unet().requires_grad_(True).train()
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    unet = unet.to(accelerator.device)
    schedule = noise_schedule()

    def loss_of(step: int) -> Tensor:
        """Instance loss + prior_loss_weight x class loss, each a mean over its batch (Ruiz et al. 2022, equation 2)."""
        batches = [concept.noisy_batch(concept.plan(settings, step), schedule) for concept in concepts]
        noisy, timesteps, states, noise = (torch.cat(parts) for parts in zip(*batches, strict=True))
        predicted = unet(noisy, timesteps, states).sample
        squares = F.mse_loss(predicted.float(), noise, reduction="none").mean(dim=(1, 2, 3))  # (B,) or (2 B,)
        losses = (part.mean() for part in squares.split(settings.batch_size))
        return sum(weight * loss for weight, loss in zip(loss_weights, losses, strict=True))

    run_steps(
        params=dict(unet.named_parameters()),
        loss_of=loss_of,
        settings=settings,
        run_dir=run_dir,
        accelerator=accelerator,
        reporter=reporter,
        stop=stop,
    )

    reporter.phase("exporting")
    trained = unet.state_dict()
    exported = dict(base.weights)
    for name, ldm_name in base.unet_table.items():
        held = base.weights[ldm_name].dtype
        # bf16 and fp8 are too coarse for what fine-tuning changes.
        dtype = held if held in (torch.float16, torch.float32) else torch.float16
        exported[ldm_name] = trained[name].to("cpu", dtype)
    save_tensors(Path(run.export_path), exported, metadata(run))
