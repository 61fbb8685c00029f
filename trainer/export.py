"""What is written at the end: the tensors of a checkpoint file, and what every exported file says of itself."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .base_model import BaseModel
from .checkpoint import save_tensors
from .keys import TEXT_PREFIX
from .rundir import EMBEDDING_KEY, Run

TOKEN_TABLE = f"{TEXT_PREFIX}embeddings.token_embedding.weight"


def checkpoint_tensors(
    base: BaseModel, unet: Mapping[str, Tensor], text_params: Mapping[str, Tensor], token_rows: Mapping[int, Tensor]
) -> dict[str, Tensor]:
    """The base's tensors, names and order with the trained ones in their place.

    `unet` by diffusers' names. `text_params`: the text encoder's parameters by transformers' names behind "text_encoder.".
    `token_rows`: row of the token table -> (768,).
    """
    tensors = dict(base.weights)
    for name, ldm_name in base.unet_table.items():
        tensors[ldm_name] = unet[name].to("cpu", _file_type(base.weights[ldm_name]))
    for name, param in text_params.items():
        ldm_name = TEXT_PREFIX + name.removeprefix("text_encoder.").removeprefix("text_model.")
        tensors[ldm_name] = param.detach().to("cpu", _file_type(base.weights[ldm_name]))
    if token_rows:
        table = tensors[TOKEN_TABLE]
        tensors[TOKEN_TABLE] = table.to(_file_type(table), copy=True)
        for row, vector in token_rows.items():
            tensors[TOKEN_TABLE][row] = vector.detach().to("cpu", _file_type(table))
    return tensors


def _file_type(held: Tensor) -> torch.dtype:
    """The base's own type; fp16 where that is bf16 or fp8, too coarse for what fine-tuning changes."""
    return held.dtype if held.dtype in (torch.float16, torch.float32) else torch.float16


def save_embedding(path: Path, vectors: Tensor, run: Run, exported: dict) -> None:
    """Write the token's vectors (V, 768) as the one fp32 tensor of a file."""
    save_tensors(path, {EMBEDDING_KEY: vectors.detach().float().cpu()}, metadata(run, exported, "textual-inversion"))


def metadata(run: Run, exported: dict, kind: str) -> dict[str, str]:
    """Safetensors metadata: the modelspec fields that file browsers show, and where the weights come from.

    `exported`: after which step, and whether the weights are the last ones or their average. `kind`: "dreambooth" (a whole
    checkpoint), "lora" or "textual-inversion".
    """
    settings = run.settings
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1" + ("" if kind == "dreambooth" else f"/{kind}"),
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": run.id,
        "modelspec.trigger_phrase": settings.trigger(settings.token),
        "modelspec.resolution": f"{run.dataset.resolution}x{run.dataset.resolution}",
        "modelspec.prediction_type": "epsilon",
        "subject_trainer.method": kind,
        "subject_trainer.run": run.id,
        "subject_trainer.base": run.base_fingerprint,
        "subject_trainer.token": settings.token,
        "subject_trainer.class_word": settings.class_word,
        "subject_trainer.trained": "embedding" if kind == "textual-inversion" else settings.train,
        "subject_trainer.steps": str(exported["step"]),
        "subject_trainer.weights": exported["weights"],
        "subject_trainer.learning_rate": str(settings.learning_rate),
        "subject_trainer.batch_size": str(settings.batch_size),
        "subject_trainer.seed": str(settings.seed),
    }
