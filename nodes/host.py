"""The bridge to ComfyUI: folders, base model, results, progress. (device.py: its device, embeddings.py: its embeddings.)"""

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.model_management
import comfy.model_sampling
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from blake3 import blake3
from PIL import Image
from safetensors import SafetensorError, safe_open
from server import PromptServer

from ..trainer.config import Settings
from ..trainer.photos import Dataset
from ..trainer.rundir import Run, RunDir, finished_runs, partial_file, read_json
from .embeddings import Embedding
from .language import in_running

log = logging.getLogger("subject_trainer")

SD15_SIGMA_MAX = 14.6146
"""Noise level at timestep 999 of SD v1.5's schedule (scaled-linear, 0.00085 to 0.012)."""


# --- folders ---------------------------------------------------------------------------------------------------------


def runs_root() -> Path:
    return Path(folder_paths.get_output_directory()) / "finetune"


def free_disk() -> int:
    """Bytes free where the output folder is."""
    folder = Path(folder_paths.get_output_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free


def check_writable(folder: Path) -> None:
    """ValueError when no file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"Nothing can be written to {folder} ({error.strerror}). Give ComfyUI the right to, or start it with another "
            "--output-directory."
        ) from None


def tokenizer_path() -> str:
    return str(Path(comfy.sd.__file__).parent / "sd1_tokenizer")


def pictures_folder(pictures: list) -> Path:
    """A folder with the pictures (H, W, 3) in [0, 1] of an IMAGE socket as png files, named after their contents."""
    raw = [(picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy() for picture in pictures]
    hasher = blake3()
    for pixels in raw:
        hasher.update(f"{pixels.shape}".encode() + pixels.tobytes())
    folder = runs_root() / "pictures" / hasher.hexdigest()[:16]
    for number, pixels in enumerate(raw):
        path = folder / f"{number:04}.png"
        if not path.is_file():
            with partial_file(path) as partial:
                Image.fromarray(pixels[..., :3]).save(partial, "PNG")
    return folder


def _photo_roots() -> Iterator[tuple[str, Path]]:
    """Prefix of the shown names, folder."""
    yield "", Path(folder_paths.get_input_directory())
    for path in folder_paths.get_folder_paths("datasets"):
        yield "datasets/", Path(path)


def photo_folders() -> dict[str, Path]:
    """The folders that the loader lists, by the name it shows: direct subfolders of input and of each datasets folder."""
    folders: dict[str, Path] = {}
    for prefix, root in _photo_roots():
        if root.is_dir():
            for path in sorted(p for p in root.iterdir() if p.is_dir() and _inside(root, p) and not p.name.startswith(".")):
                folders.setdefault(prefix + path.name, path)
    return folders


def photo_folder(name: str) -> Path:
    """The folder of a name that is listed, or that leads deeper below one of the roots.

    ValueError when it leads out of them or is not there.
    """
    paths = [(root, root / name.removeprefix(prefix)) for prefix, root in _photo_roots() if name.startswith(prefix)]
    inside = [path for root, path in paths if _inside(root, path)]
    for path in inside:
        if path.is_dir():
            return path
    if inside:
        raise ValueError(f"The folder {name!r} does not exist. Put the photos into a subfolder of ComfyUI's input and press R.")
    raise ValueError(
        f"The folder {name!r} is outside ComfyUI's input and datasets folders. Copy the photos into a subfolder of input."
    )


def is_child(root: Path, path: Path) -> bool:
    """Whether the path is a folder or file directly in the root, not a link that leads elsewhere."""
    return path.parent == root and _inside(root, path) and path.resolve().parent == root.resolve()


def _inside(root: Path, path: Path) -> bool:
    """Whether the path, symbolic links followed, is a true descendant of the root."""
    try:
        path, root = path.resolve(), root.resolve()
    except (OSError, ValueError):  # a link to itself, a zero byte
        return False
    return path != root and path.is_relative_to(root)


# --- base model ------------------------------------------------------------------------------------------------------


class Base:
    """What the MODEL, CLIP and VAE sockets brought. ValueError, naming what it is, unless it is an SD v1.5."""

    def __init__(self, model, clip, vae):
        check_sd15(model)
        if vae is not None and vae.first_stage_model is None:  # a file without one
            vae = None
        if clip is None or vae is None:
            missing = "text encoder" if clip is None else "VAE"
            raise ValueError(f"The checkpoint holds no {missing}. Use a complete SD v1.5 checkpoint, or load one beside it.")
        self.model, self.clip, self.vae = model, clip, vae
        if clip.layer_idx is not None:
            log.warning("Clip skip has no effect on training. Put CLIP Set Last Layer behind the training node.")

    def fingerprint(self) -> str:
        """blake3 of all weights as they would be saved: names, types, shapes, bytes.

        ValueError when some of them were not in the file that they were loaded from: ComfyUI leaves those as they happen to be.
        """
        comfy.model_management.load_models_gpu([self.model, self.clip.load_model()])
        weights = self.model.state_dict_for_saving(self.clip.state_dict_for_saving(), self.vae.get_sd())
        self._check_complete(weights)
        hasher = blake3(max_threads=blake3.AUTO)
        for name in sorted(weights):
            check_interrupted()
            tensor = weights[name].to("cpu").contiguous()
            hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            hasher.update(tensor.reshape(-1).view(torch.uint8).numpy())
        return hasher.hexdigest()

    def _check_complete(self, weights: Iterable[str]) -> None:
        for part, prefix, patcher in (
            ("U-Net", "model.diffusion_model.", self.model),
            ("text encoder", "cond_stage_model.transformer.text_model.", self.clip.patcher),
            ("VAE", "first_stage_model.", self.vae.patcher),
        ):
            loader = patcher.cached_patcher_init
            path = Path(str(loader[1][0])) if loader else Path()
            if path.suffix != ".safetensors" or not path.is_file():
                continue
            with safe_open(path, "pt") as file:
                there = {name for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118 - not a dict
            wanted = (name for name in weights if name.startswith(prefix) and name.endswith((".weight", ".bias")))
            missing = sorted(name for name in wanted if name not in there)
            if there and missing:  # other layouts have other names
                raise ValueError(
                    f"{path.name} is not complete: of its {part} {len(missing)} tensors are missing, for example {missing[0]}. "
                    "Download it again, or load another base."
                )

    def save(self, path: Path) -> None:
        """One checkpoint file in the original layout, patches applied."""
        with partial_file(path) as partial:
            comfy.sd.save_checkpoint(str(partial), self.model, self.clip, self.vae)

    def unet_weights(self) -> int:
        """How many weights the U-Net has."""
        return sum(p.numel() for p in self.model.model.diffusion_model.parameters())

    def size(self) -> int:
        """Bytes of all weights, about what `save` writes."""
        return sum(patcher.model_size() for patcher in (self.model, self.clip.patcher, self.vae.patcher))

    def checkpoint_name(self) -> str:
        """Name among ComfyUI's checkpoints of the file that the model was loaded from; "" where it is not known."""
        loader = self.model.cached_patcher_init
        path = Path(loader[1][0]) if loader and loader[0] is comfy.sd.load_checkpoint_guess_config else None
        for root in folder_paths.get_folder_paths("checkpoints") if path else ():
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        return ""


def check_sd15(model) -> None:
    """ValueError, naming the family, unless the model is an epsilon-predicting SD v1.5 for text to image."""
    families = (
        (comfy.supported_models.SDXL, "an SDXL model"),
        (comfy.supported_models.SDXLRefiner, "the SDXL refiner"),
        (comfy.supported_models.SD20, "an SD 2 model"),
        (comfy.supported_models.SD15, "SD v1.5"),
    )
    config = model.model.model_config
    found = next((name for kind, name in families if isinstance(config, kind)), f"a {type(config).__name__} model")
    if found == "SD v1.5":
        channels = config.unet_config.get("in_channels", 4)
        sampling = model.get_model_object("model_sampling")
        if channels != 4:
            found = "an SD v1.5 inpainting model" if channels == 9 else f"an SD v1.5 variant with {channels} input channels"
        elif isinstance(sampling, comfy.model_sampling.V_PREDICTION):
            found = "a v-prediction model"
        elif not isinstance(sampling, comfy.model_sampling.EPS) or abs(float(sampling.sigma_max) - SD15_SIGMA_MAX) > 0.01:
            found = "a model with another noise schedule than SD v1.5's"
    if found != "SD v1.5":
        raise ValueError(
            f"The base is {found}. These nodes train SD v1.5 models (text to image, epsilon prediction): "
            "load for example v1-5-pruned-emaonly.safetensors."
        )


# --- runs ------------------------------------------------------------------------------------------------------------


def make_run(
    name: str,
    settings: Settings,
    base: Base,
    dataset: Dataset,
    class_dataset: Dataset | None = None,
    embedding: Embedding | None = None,
) -> Run:
    """The run of these settings, weights, photos, and vectors to start from; its `export_path` is free or its own."""
    run = Run(
        name=name,
        settings=settings,
        dataset=dataset,
        class_dataset=class_dataset,
        base_fingerprint=base.fingerprint(),
        base_checkpoint=base.checkpoint_name(),
        embedding=embedding.fingerprint() if embedding else "",
        export_path="",
        tokenizer_path=tokenizer_path(),
    )
    if settings.method == "dreambooth":
        kind = "loras" if settings.train == "lora" else "checkpoints"
        path = Path(folder_paths.get_output_directory()) / kind / f"{run.id}.safetensors"
        # ComfyUI's prompts end an embedding's name at a blank.
        own = _embeddings_folder() / f"{'-'.join(run.id.split())}.safetensors" if embedding else ""
        return replace(run, export_path=str(path), embedding_path=str(own))
    stem = run.id if taken_embedding(run) else settings.token
    return replace(run, export_path=str(_embeddings_folder() / f"{stem}.safetensors"))


def _embeddings_folder() -> Path:
    return Path(folder_paths.get_folder_paths("embeddings")[0])


def taken_embedding(run: Run) -> str:
    """File name of an embedding that has the token's name and is not this run's; "" when there is none."""
    for name in folder_paths.get_filename_list("embeddings"):  # prompts find those of subfolders too
        if Path(name).stem.lower() == run.settings.token.lower():
            path = folder_paths.get_full_path("embeddings", name)
            if path and not _exported_by(Path(path), run.id):
                return name
    return ""


def _exported_by(path: Path, run_id: str) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("subject_trainer.run") == run_id
    except (OSError, SafetensorError):
        return False


@dataclass(frozen=True)
class Exported:
    """What a finished run has left, where ComfyUI's loaders find it."""

    file: Path
    """Checkpoint, LoRA or embedding."""
    embedding: Path | None
    """The file with the token's own vectors: `file` itself for an inversion."""


def exported(run_dir: RunDir) -> Exported | None:
    """None while the run is unfinished, or when a file of its result is no longer there."""

    def find(kind: str, name: str) -> Path | None:
        path = folder_paths.get_full_path(kind, Path(name).name)
        return Path(path) if path and _exported_by(Path(path), run_dir.path.name) else None

    try:
        result = read_json(run_dir.result_json)
        kind = {"embedding": "embeddings", "lora": "loras"}.get(result["trained"], "checkpoints")
        file = find(kind, result["file"])
        name = result.get("embedding", "")
        embedding = find("embeddings", name) if name else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not file or (name and not embedding):
        return None
    return Exported(file, file if kind == "embeddings" else embedding)


def output_picture(path: Path) -> dict:
    """How the page finds a picture below the output folder."""
    folder = path.parent.relative_to(folder_paths.get_output_directory())
    return {"filename": path.name, "subfolder": folder.as_posix(), "type": "output"}


def finished_run_ids() -> list[str]:
    """Names of the runs whose result can be loaded, newest first."""
    return [run_dir.path.name for run_dir in finished_runs(runs_root()) if exported(run_dir)]


def finished_run(run_id: str) -> tuple[Run, Exported]:
    """A finished run and what it has left. ValueError when it is not listed."""
    if run_id not in finished_run_ids():
        raise ValueError(
            f"There is no finished run {run_id!r}, or its exported file is gone. Press R to refresh the list, or train it."
        )
    run_dir = RunDir(runs_root() / run_id)
    return run_dir.load_run(), exported(run_dir)


def load_checkpoint(path: Path) -> tuple:
    """MODEL, CLIP, VAE of a checkpoint file, as ComfyUI's own loader gives them."""
    return comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=folder_paths.get_folder_paths("embeddings"))[:3]


def load_lora(path: Path) -> dict:
    """The tensors of a LoRA file: what ComfyUI's LORA_MODEL sockets carry."""
    return comfy.utils.load_torch_file(str(path), safe_load=True)


def apply_lora(model, lora: dict):
    """A clone of the model with the LoRA at strength 1, as ComfyUI's own loader applies it."""
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


def load_base(run: Run) -> tuple:
    """MODEL, CLIP, VAE that an inversion or a LoRA was trained on. ValueError when the checkpoint is unknown, gone or another."""
    remedy = "Load its base with Load Checkpoint, and use the exported file with ComfyUI's own nodes."
    path = folder_paths.get_full_path("checkpoints", run.base_checkpoint) if run.base_checkpoint else None
    if path is None:
        raise ValueError(f"The base of {run.id} ({run.base_checkpoint or 'not a checkpoint file'}) is not there. {remedy}")
    loaded = load_checkpoint(Path(path))
    if Base(*loaded).fingerprint() != run.base_fingerprint:
        raise ValueError(
            f"{run.base_checkpoint} is not what {run.id} was trained on: it was patched or replaced, or ComfyUI runs with "
            f"another precision now. {remedy}"
        )
    return loaded


# --- progress --------------------------------------------------------------------------------------------------------


def check_interrupted() -> None:
    """Raises ComfyUI's own exception (a BaseException) when the user cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class NodeProgress:
    """A node's progress bar and the text below it: what it was told of at first, then the newest line."""

    def __init__(self, node_id: str, notes: Sequence[str] = ()):
        self._node_id, self._notes = node_id, notes
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)

    def bar(self, value: int, total: int) -> None:
        """Raises like `check_interrupted`: ComfyUI looks for a cancel here too."""
        self._bar.update_absolute(value, max(total, 1))

    def text(self, text: str) -> None:
        server = PromptServer.instance
        server.send_progress_text(in_running("\n".join((*self._notes, text))), self._node_id, server.client_id)
