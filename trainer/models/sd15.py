"""The base model: one checkpoint file in the original layout -> diffusers' U-Net and VAE, transformers' text encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..run.messages import Message, UserError, message
from ..run.settings import check_text_layer
from . import key_mapping

CONTEXT_LENGTH = 77
TRAIN_TIMESTEPS = 1000
"""Of the noise schedule."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""The torch types of the settings' precisions."""
LATENT_FACTOR = 0.18215
"""What SD v1.5 multiplies the VAE's latents by (Rombach et al. 2022, appendix G)."""
Model = TypeVar("Model", bound=nn.Module)


def _fill(model: Model, weights: Mapping[str, Tensor], part: Message) -> Model:
    """Give an empty model its weights as fp32. Raises UserError when a tensor is missing, surplus or of the wrong shape."""
    expected = {k: v.shape for k, v in model.state_dict().items()}
    wrong = sorted(expected.keys() ^ weights.keys()) or sorted(k for k in expected if expected[k] != weights[k].shape)
    if wrong:
        raise UserError(
            "The base model's {part} is not SD v1.5's: {count} tensors differ, for example {first}.",
            part=part,
            count=len(wrong),
            first=wrong[0],
        )
    model.load_state_dict({k: v.float() for k, v in weights.items()}, assign=True)
    return model.requires_grad_(False).eval()


class BaseModel:
    """A base checkpoint, opened. Each part is built when asked for, in fp32 on the CPU, frozen."""

    def __init__(self, path: Path | str):
        self._path = path
        self.weights = load_file(path)  # mapped, not read, until a part is built

    def let_go(self) -> None:
        """Give back the memory that holds what was read of the file, unless a part still uses it; it can be read again."""
        self.weights = load_file(self._path)

    def unet(self) -> UNet2DConditionModel:
        """Return the U-Net; SD v1.5's, or a smaller one of the same architecture."""
        shapes = {k: tuple(v.shape) for k, v in self.weights.items() if k.startswith(key_mapping.UNET_PREFIX)}
        config = key_mapping.unet_config(shapes)
        self.unet_table = key_mapping.unet_table(shapes, config)
        with init_empty_weights():
            unet = UNet2DConditionModel(**config)
        return _fill(unet, {k: self.weights[ldm] for k, ldm in self.unet_table.items()}, message("U-Net"))

    def vae(self) -> AutoencoderKL:
        """Return the VAE; SD v1.5's, or one of the same architecture and other widths."""
        config = key_mapping.vae_config(
            {k: tuple(v.shape) for k, v in self.weights.items() if k.startswith(key_mapping.VAE_PREFIX)}
        )
        with init_empty_weights():
            vae = AutoencoderKL(**config)
        return _fill(vae, key_mapping.vae_weights(self.weights, config), message("VAE"))

    def text_encoder(self, layer: int = -1) -> CLIPTextModel:
        """Return CLIP-L's text encoder up to a layer of the file's: -1 is the last, -2 the last but one.

        What lies behind that layer is left out. So the last state, which is normalised, is that layer's, normalised, as ComfyUI
        gives it after CLIP Set Last Layer; and what is skipped is neither computed nor trained, and exported as it is. Raises
        UserError for a layer that the file does not have.
        """
        depth = key_mapping.text_layers(self.weights)
        check_text_layer(layer, depth)
        used = depth + 1 + layer
        config = CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=used,
            num_attention_heads=12,
            max_position_embeddings=CONTEXT_LENGTH,
            hidden_act="quick_gelu",
            eos_token_id=49407,
        )
        with init_empty_weights():
            text_encoder = CLIPTextModel(config)
        weights = {name: tensor for name, tensor in self.weights.items() if key_mapping.text_layer(name) < used}
        return _fill(text_encoder, key_mapping.text_weights(weights, text_encoder.state_dict()), message("text encoder"))


def move(model: Model, device: torch.device | str) -> Model:
    """Move the model to the device, in place, and return it. The `to` of diffusers' models has no type that can be checked."""
    return model.to(device)


def freeze_as(model: nn.Module, dtype: torch.dtype) -> None:
    """Freeze the model as `dtype`."""
    cast_frozen(model.requires_grad_(False), dtype)


def cast_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Make the weights that are not trained `dtype`; the trained ones become it once their fp32 values are kept elsewhere."""
    for p in model.parameters():
        if not p.requires_grad:
            p.data = p.data.to(dtype)  # diffusers' own to() would warn


def load_tokenizer(path: str) -> CLIPTokenizer:
    """Return CLIP-L's tokenizer; the length is set here because the files that come with ComfyUI say 8192."""
    return CLIPTokenizer.from_pretrained(path, model_max_length=CONTEXT_LENGTH)


def noise_schedule() -> DDPMScheduler:
    """Return SD v1.5's schedule: scaled-linear from 0.00085 to 0.012 over 1000 timesteps, epsilon prediction."""
    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,  # of no account in training; samplers that are made from this schedule want it
        prediction_type="epsilon",
    )


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Return token ids (P, 77), cut and padded as SD v1.5 expects."""
    return tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def encode_prompts(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Return the states of the text encoder's last layer, (P, 77, 768) fp32, on its device."""
    ids = tokenize(tokenizer, prompts).to(text_encoder.device)
    return torch.cat([text_encoder(i).last_hidden_state for i in ids.split(16)])
