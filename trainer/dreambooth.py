"""DreamBooth (Ruiz et al. 2022): the U-Net learns the subject under its instance prompts."""

from pathlib import Path

import torch
from torch.nn import functional as F

from .base_model import BaseModel, encode_prompts, load_tokenizer, noise_schedule
from .checkpoint import save_tensors
from .events import Reporter, StopRequest
from .export import metadata
from .latents import encode_photos
from .loop import make_accelerator, run_steps
from .plan import StepPlan
from .rundir import Run, RunDir


def train(run: Run, run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> None:
    """Train the U-Net of the run's base and write a checkpoint file with its names, types and other weights."""
    settings, photos = run.settings, run.dataset.photos
    accelerator = make_accelerator(device, settings.precision)

    reporter.phase("loading")
    base = BaseModel(run_dir.base)
    tokenizer = load_tokenizer(run.tokenizer_path)

    reporter.phase("encoding captions")
    stop.check()
    captions = sorted({photo.caption for photo in photos})
    states = encode_prompts(base.text_encoder().to(accelerator.device), tokenizer, captions)  # (C, 77, 768)
    caption_of = torch.tensor([captions.index(photo.caption) for photo in photos], device=accelerator.device)  # (N,)

    reporter.phase("encoding photos", len(photos))
    latents = encode_photos(base.vae().to(accelerator.device), run.dataset, reporter, stop)

    stop.check()
    unet = base.unet().requires_grad_(True).train()
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    unet = unet.to(accelerator.device)
    schedule = noise_schedule()

    def loss_of(plan: StepPlan) -> torch.Tensor:
        clean = latents.sample(plan.indices, plan.posterior_noise)
        noisy = schedule.add_noise(clean, plan.noise, plan.timesteps)
        predicted = unet(noisy, plan.timesteps, states[caption_of[plan.indices]]).sample
        return F.mse_loss(predicted.float(), plan.noise)

    run_steps(
        params=dict(unet.named_parameters()),
        loss_of=loss_of,
        settings=settings,
        photos=len(photos),
        latent_shape=tuple(latents.mean.shape[1:]),
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
