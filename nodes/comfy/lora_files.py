"""LoRAs that a run goes on from: files that ComfyUI lists, and what a LORA_MODEL socket carries."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ...trainer.run.files import partial_file
from ...trainer.run.lora_names import rank_of
from ...trainer.run.messages import UserError
from ...trainer.run.names import NO_LORA


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file."""

    path: Path

    def fingerprint(self) -> str:
        """Return sha256 of the file, as hex."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def rank(self) -> int:
        """Return its rank by the header of a safetensors file, or the tensors of another kind of file; 0 where it has none."""
        try:
            if self.path.suffix.lower() not in (".safetensors", ".sft"):
                return rank_of({name: tensor.shape for name, tensor in self._tensors().items()})
            with safe_open(self.path, "pt") as file:
                return rank_of({name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
        except Exception:  # of any kind: what is wrong with it is told where it is trained on
            return 0

    def save(self, path: Path) -> None:
        """Write the tensors as a safetensors file, whatever kind of file they are in."""
        _save(self._tensors(), path)

    def _tensors(self) -> Any:
        return comfy.utils.load_torch_file(str(self.path), safe_load=True)


@dataclass(frozen=True)
class WiredLora:
    """A LoRA that came through a LORA_MODEL socket: tensors by name."""

    tensors: dict

    def fingerprint(self) -> str:
        """Return sha256 of all names, types, shapes and values, as hex."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def rank(self) -> int:
        """Return its rank, 0 where its tensors name none."""
        return rank_of({name: tensor.shape for name, tensor in self.tensors.items()})

    def save(self, path: Path) -> None:
        """Write the tensors as a safetensors file."""
        _save(self.tensors, path)


Lora = LoraFile | WiredLora


def _save(tensors: Any, path: Path) -> None:
    with partial_file(path) as partial:
        # Copies: the file format knows no two tensors that share memory, and one node may give the same alpha to all layers.
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items() if torch.is_tensor(t)}, partial)


def lora_names() -> list[str]:
    """Return the files that can be chosen, after the choice of none."""
    return [NO_LORA, *folder_paths.get_filename_list("loras")]


def find_lora(name: str) -> LoraFile | None:
    """Return the LoRA file of a name in ComfyUI's list; None for the choice of none. Raises UserError when it is not there."""
    if name in ("", NO_LORA):
        return None
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise UserError("There is no LoRA {name!r}. Press R to refresh the list, or choose another.", name=name)
    return LoraFile(Path(path))


def lora_fingerprint(name: Any) -> str:
    """Return the fingerprint of the file that a widget names; "" for what is no name of a file."""
    found = _named(name)
    return found.fingerprint() if found else ""


def lora_rank(name: Any) -> int:
    """Return the rank of the file that a widget names; 0 for what is no name of a file, and where the file names none."""
    found = _named(name)
    return found.rank() if found else 0


def _named(name: Any) -> LoraFile | None:
    try:
        return find_lora(name) if isinstance(name, str) else None
    except UserError:
        return None
