"""What is written at the end: the files of the result, and what each says of itself."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..models.key_mapping import TEXT_PREFIX
from ..models.sd15 import BaseModel
from ..parts.part import Part
from ..run.events import Saved
from ..run.messages import message
from ..run.run_dir import EMBEDDING_KEY, Run, at_step
from .master_weights import MasterWeights
from .tensor_file import LateTensor, write_tensors
from .trainer import ExportInfo, Trainer

TOKEN_TABLE = f"{TEXT_PREFIX}embeddings.token_embedding.weight"


class ResultFiles:
    """The tensors of the result's files, which the trained parts put in."""

    def __init__(self, base: BaseModel, trained: MasterWeights):
        self._base = base.weights
        self.trained = trained
        """What was trained, fp32, by the names that the parts gave their parameters."""
        self.checkpoint: dict[str, Tensor | LateTensor] = {}
        """What replaces the base's tensors, by LDM names, where it is and as the type that it is."""
        self.dtypes: dict[str, torch.dtype] = {}
        """As which types the file holds them: each is converted when it is written, so that they never lie in memory twice."""
        self.lora: dict[str, Tensor] = {}
        self.embedding: Tensor | None = None
        """(V, 768)."""

    def replace_base_tensor(self, name: str, tensor: Tensor | LateTensor) -> None:
        """Put a trained tensor in place of the base's of this LDM name; see _file_dtype for its type."""
        self.checkpoint[name], self.dtypes[name] = tensor, _file_dtype(self._base[name])

    def replace_token_rows(self, rows: Sequence[int], vectors: Tensor) -> None:
        """Put vectors (V, 768) in place of these rows of the base's embedding table (49408, 768)."""
        table = self._base[TOKEN_TABLE]
        replaced = table.to(_file_dtype(table), copy=True)
        for row, vector in zip(rows, vectors, strict=True):
            replaced[row] = vector.to("cpu", replaced.dtype)
        self.checkpoint[TOKEN_TABLE] = replaced

    def all_checkpoint_tensors(self) -> dict[str, Tensor | LateTensor]:
        """Return the base's tensors, names and order with the trained ones in their place, not yet as `dtypes`."""
        return {**self._base, **self.checkpoint}


def _file_dtype(tensor: Tensor) -> torch.dtype:
    """Return the base's own type; fp16 where that is bf16 or fp8, too coarse for what fine-tuning changes."""
    return tensor.dtype if tensor.dtype in (torch.float16, torch.float32) else torch.float16


def export_result(trainer: Trainer, base: BaseModel, parts: Sequence[Part], info: ExportInfo) -> None:
    """Write the files of the result where the run wants them, one process for all."""
    run = trainer.context.run
    if trainer.context.is_main:
        with trainer.saved_on_failure():
            _save(Path(run.export_path), Path(run.embedding_path), _result_files(trainer, base, parts), run, info)


def export_step(trainer: Trainer, base: BaseModel, parts: Sequence[Part]) -> None:
    """Write the files of the weights as they are now beside those of the result, named after the step.

    That they cannot be written is a warning.
    """
    context, run = trainer.context, trainer.context.run
    if not context.is_main:
        return
    with (
        context.only_warned(message("The weights of step {step} could not be exported", step=trainer.step)),
        trainer.weights_to_export(),
    ):
        info, path = trainer.export_info(), Path(run.export_path)
        if run.result_kind == "embedding":  # the result is named after the token; intermediate files after the run
            path = path.with_name(f"{run.id}.safetensors")
        path, embedding_path = at_step(path, info.step), at_step(run.embedding_path or path, info.step)
        _save(path, embedding_path, _result_files(trainer, base, parts), run, info)
        context.reporter.emit(Saved(path.name))


def _result_files(trainer: Trainer, base: BaseModel, parts: Sequence[Part]) -> ResultFiles:
    files = ResultFiles(base, trainer.weights)
    for part in parts:
        part.export(files)
    return files


def _save(path: Path, embedding_path: Path, files: ResultFiles, run: Run, info: ExportInfo) -> None:
    """Write the checkpoint or the LoRA to `path`, and the token's vectors beside it; an inversion's vectors alone to `path`."""
    if files.embedding is not None:
        to = path if run.result_kind == "embedding" else embedding_path
        write_tensors(to, {EMBEDDING_KEY: files.embedding.float().cpu()}, metadata(run, info, "textual-inversion"))
    if files.lora:
        write_tensors(path, files.lora, metadata(run, info, "lora"))
    elif files.checkpoint:
        write_tensors(path, files.all_checkpoint_tensors(), metadata(run, info, "dreambooth"), files.dtypes)


def metadata(run: Run, info: ExportInfo, kind: str) -> dict[str, str]:
    """Return safetensors metadata: the modelspec fields that file browsers show, and where the weights come from.

    `kind`: "dreambooth" (a whole checkpoint), "lora" or "textual-inversion".
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
        "subject_trainer.trained": "embedding" if kind == "textual-inversion" else settings.dreambooth.train,
        "subject_trainer.steps": str(info.step),
        "subject_trainer.weights": info.to_json()["weights"],
        "subject_trainer.learning_rate": str(settings.optimizer.learning_rate),
        "subject_trainer.batch_size": str(settings.training.batch_size),
        "subject_trainer.seed": str(settings.training.seed),
    }
