"""What a MODEL and a CLIP are, told by what they do: only an SD v1.5 for text to image that predicts noise is trained."""

from typing import Any

import comfy.clip_model
import comfy.model_sampling
import comfy.supported_models
import torch

from ...trainer.run.messages import Message, UserError, message

LATENT_FACTOR = 0.18215
"""What SD v1.5 multiplies the VAE's latents by."""
TEXT_ENCODERS = {"clip_l": "CLIP-L", "clip_g": "CLIP-G", "clip_h": "OpenCLIP-H", "t5xxl": "T5-XXL"}
"""How people call some of the text encoders that a CLIP of ComfyUI can hold, by ComfyUI's names."""
VAE_SHAPES = {
    "encoder.conv_in.weight": (128, 3, 3, 3),
    "encoder.conv_out.weight": (8, 512, 3, 3),
    "quant_conv.weight": (8, 8, 1, 1),
    "decoder.conv_in.weight": (512, 4, 3, 3),
}
"""Some tensors by which VAEs of other families, and small ones that only draw previews, are told from SD v1.5's."""
CONVERSIONS = ("calculate_input", "calculate_denoised", "noise_scaling", "inverse_noise_scaling")
"""The methods of ComfyUI's model samplings that say what the model gets, and what it predicts."""


def check_sd15(model) -> None:
    """Raise UserError, naming the family, unless the model is an epsilon-predicting SD v1.5 for text to image."""
    family = _other_family(model)
    if family and {"model_sampling", "latent_format"} & set(model.object_patches):
        raise UserError(
            "The base is {family}, by a node between the checkpoint and this one. Train without that node, and put it behind the "
            "training node.",
            family=family,
        )
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
    if getattr(model.get_model_object("latent_format"), "scale_factor", None) != LATENT_FACTOR:
        return message("a model with other latents than SD v1.5's")
    return other_prediction(model.get_model_object("model_sampling"))


def other_prediction(sampling) -> Message | None:
    """Return what a model of this ModelSampling predicts, or that it is under another schedule; None for SD v1.5's own noise.

    What it computes is looked at, not its class: nearly all of ComfyUI's kinds derive from that of noise.
    """
    predicts_noise, own_schedule = _predicts_noise(sampling), _has_sd15_schedule(sampling)
    if predicts_noise and own_schedule:
        return None
    name = next((kind.__name__ for kind in type(sampling).__mro__ if vars(kind).keys() & set(CONVERSIONS)), "")
    if name in ("V_PREDICTION", "V_PREDICTION_DDPM"):
        return message("a v-prediction model")
    if predicts_noise and name == "EPS":
        return message("a model with another noise schedule than SD v1.5's")
    return message("a model that predicts something else than noise ({name})", name=name)  # LCM: all but the same, at few steps


def _predicts_noise(sampling) -> bool:
    """Return whether a ModelSampling gives and takes what that of epsilon prediction does, over the whole schedule."""
    sigma = sd15_sigmas()[[0, 250, 500, 750, 999]]
    output, latents = torch.linspace(-1, 2, 20).view(5, 4, 1, 1), torch.linspace(3, -2, 20).view(5, 4, 1, 1)
    wide = sigma.view(5, 1, 1, 1)
    computed = {  # fresh copies: some of them compute in place
        "calculate_input": ((sigma, latents.clone()), latents / (wide**2 + 1) ** 0.5),
        "calculate_denoised": ((sigma, output.clone(), latents.clone()), latents - output * wide),
        "noise_scaling": ((sigma, output.clone(), latents.clone()), latents + output * wide),
        "inverse_noise_scaling": ((sigma, latents.clone()), latents),
    }
    try:
        given = {name: getattr(sampling, name)(*values) for name, (values, _) in computed.items()}
        return all(torch.allclose(given[name].float(), wanted, rtol=1e-4, atol=1e-4) for name, (_, wanted) in computed.items())
    except (AttributeError, RuntimeError, TypeError, IndexError):  # of another kind altogether
        return False


def _has_sd15_schedule(sampling) -> bool:
    """Return whether the noise levels of all timesteps are SD v1.5's, each at its own timestep."""
    wanted = sd15_sigmas()
    try:
        sigmas, timesteps = sampling.sigmas.float().cpu(), sampling.timestep(sampling.sigmas).float().cpu()
    except (AttributeError, RuntimeError, TypeError):
        return False
    if sigmas.shape != wanted.shape or timesteps.shape != wanted.shape:
        return False
    return torch.allclose(sigmas, wanted, rtol=1e-3) and torch.equal(timesteps, torch.arange(1000.0))


def sd15_sigmas() -> torch.Tensor:
    """Return (1000,) fp32: the noise levels of SD v1.5's schedule (scaled-linear, 0.00085 to 0.012), 0.0292 to 14.6146."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, dim=0)
    return ((1 - kept) / kept).sqrt().float()


def check_vae(vae) -> None:
    """Raise UserError unless the VAE has the tensors of SD v1.5's; SDXL's has the same, and is told by its latents."""
    shapes = {name: tuple(tensor.shape) for name, tensor in vae.first_stage_model.state_dict().items()}
    if any("_orig_mod." in name for name in shapes):
        raise UserError("The VAE was compiled by another node, which holds for all of ComfyUI. Restart ComfyUI, and train first.")
    if any(shapes.get(name) != shape for name, shape in VAE_SHAPES.items()):
        raise UserError(
            "The VAE is not SD v1.5's ({kind}). Wire the VAE of an SD v1.5 checkpoint, or one made for it.",
            kind=type(vae.first_stage_model).__name__,
        )


def check_clip_l(clip) -> None:
    """Raise UserError, naming what is there, unless the CLIP is SD v1.5's: CLIP-L alone, read from its last layer."""
    names: list[str] = [name for name, _ in clip.cond_stage_model.named_children()]
    encoder: Any = getattr(clip.cond_stage_model, "clip_l", None)
    # The CLIP-L of later models has the same weights, and is read without the last norm.
    is_sd15 = names == ["clip_l"] and encoder.layer_norm_hidden_state and encoder.options_default[0] == "last"
    if is_sd15 and isinstance(encoder.transformer, comfy.clip_model.CLIPTextModel):
        return
    raise UserError(
        "The text encoder is {found}, set up for {kind}. SD v1.5 has CLIP-L alone: wire the CLIP of an SD v1.5 checkpoint, or "
        "Load CLIP with CLIP-L and the type stable_diffusion.",
        found=" + ".join(TEXT_ENCODERS.get(name, name) for name in names),
        kind=type(clip.cond_stage_model).__name__,
    )
