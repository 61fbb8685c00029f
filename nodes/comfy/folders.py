"""ComfyUI's folders: where photos are read from, and where runs and exported files are written."""

import os
import shutil
import tempfile
from pathlib import Path

import comfy.sd
import folder_paths
import torch
from blake3 import blake3

from ...trainer.dataset.masks import mask_path, wired_mask
from ...trainer.dataset.photo_roots import chosen_folders, find_folder, leads_into
from ...trainer.dataset.upload import make_folder
from ...trainer.dataset.wired import as_image, check_one_for_each, wired_pixels
from ...trainer.run.files import partial_file
from ...trainer.run.messages import UserError

MASKS = "masks"
PICTURES = "pictures/"
"""Begins the names of folders of wired pictures, which are not listed."""


def runs_root() -> Path:
    """Return the folder that holds a folder for each run."""
    return Path(folder_paths.get_output_directory()) / "finetune"


def embeddings_folder() -> Path:
    """Return the folder that embeddings are exported to."""
    return Path(folder_paths.get_folder_paths("embeddings")[0])


def tokenizer_path() -> str:
    """Return the folder of CLIP-L's tokenizer files that comes with ComfyUI."""
    return str(Path(comfy.sd.__file__).parent / "sd1_tokenizer")


def free_disk() -> int:
    """Return how many bytes are free where the output folder is."""
    folder = Path(folder_paths.get_output_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free


def check_writable(folder: Path) -> None:
    """Raise UserError when no file can be written to the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            "Nothing can be written to {folder} ({reason}). Give ComfyUI the right to write there, or start it with another "
            "--output-directory.",
            folder=str(folder),
            reason=error.strerror or str(error),
        ) from None


def write_pictures(pictures: list[torch.Tensor]) -> Path:
    """Write the pictures of an IMAGE socket, each (H, W, 1, 3 or 4) in [0, 1], as png files and return their folder.

    The folder is named after what the pictures show, so that the same ones are written once. Raises UserError for what is no
    picture.
    """
    pixels = [wired_pixels(picture.float().cpu().numpy(), number) for number, picture in enumerate(pictures, 1)]
    hasher = blake3()
    for picture in pixels:
        hasher.update(f"{picture.shape}".encode() + picture.tobytes())
    folder = runs_root() / "pictures" / hasher.hexdigest()[:16]
    for number, picture in enumerate(pixels):
        path = folder / f"{number:04}.png"
        if not path.is_file():
            with partial_file(path) as partial:
                as_image(picture).save(partial, "PNG")
    return folder


def write_masks(masks: list[torch.Tensor], names: list[str]) -> Path:
    """Write the masks of a MASK socket, each (H, W) in [0, 1], for the photos of these names; return their folder.

    It is named after what is in it, and `mask_path` finds them there. Raises UserError when there are more or fewer than photos,
    and for what is no mask.
    """
    check_one_for_each("masks", len(masks), len(names))
    pictures = [wired_mask(mask.float().cpu().numpy(), number) for number, mask in enumerate(masks, 1)]
    hasher = blake3()
    for picture, name in zip(pictures, names, strict=True):
        hasher.update(f"{name}\n{picture.size}".encode() + picture.tobytes())
    folder = runs_root() / MASKS / hasher.hexdigest()[:16]
    for picture, name in zip(pictures, names, strict=True):
        path = mask_path(Path(name), None, folder)
        if not path.is_file():
            with partial_file(path) as partial:
                picture.save(partial, "PNG")
    return folder


def masks_folder(name: str) -> Path | None:
    """Return a folder of wired masks by its name; None for "". Raises UserError when there is none."""
    root = runs_root() / MASKS
    folder = root / name
    if name and not (is_child(root, folder) and folder.is_dir()):
        raise UserError("There are no masks {name!r}.", name=name)
    return folder if name else None


def pictures_name(folder: Path) -> str:
    """Return the name under which `photo_folder` finds a folder of wired pictures."""
    return f"{PICTURES}{folder.name}"


def captions_of_pictures() -> str:
    """Return what changes when a caption of wired pictures is written."""
    files = sorted((runs_root() / "pictures").glob("*/*.txt"))
    return repr([(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files])


def photo_folders() -> dict[str, int]:
    """Return the folders that the loader lists, by their names there, with their counts of photos; see `chosen_folders`."""
    return {name: count for name, (_, count) in chosen_folders(_photo_roots()).items()}


def make_upload_folder(wish: str) -> str:
    """Make a new subfolder of ComfyUI's input, for photos that are uploaded, and return its name."""
    return make_folder(_input_folder(), wish)


def uploads_into(name: str) -> str:
    """Return the path below ComfyUI's input of a folder that photos are added to.

    Raises UserError for a folder that lies elsewhere: ComfyUI takes files for its input alone.
    """
    path, root = photo_folder(name), _input_folder()
    if not leads_into(root, path):
        raise UserError(
            "The folder {folder!r} is not below ComfyUI's input, and nothing can be uploaded elsewhere. Drop the photos into a "
            "new folder, or copy them on the server.",
            folder=name,
        )
    return path.relative_to(root).as_posix()


def photo_folder(name: str) -> Path:
    """Return the folder of a name that the loader lists, of one that leads deeper below them, or of pictures that were wired.

    Raises UserError when it leads out of them or does not exist.
    """
    return find_folder([*_photo_roots(), (PICTURES, runs_root() / "pictures")], name)


def is_child(root: Path, path: Path) -> bool:
    """Return whether the path is a folder or file that is directly in the root, and no link that leads elsewhere."""
    # os.path.exists, because Path's raises for a name that is too long for a file.
    is_there = path.parent == root and os.path.exists(path)
    return is_there and leads_into(root, path) and path.resolve().parent == root.resolve()


def output_picture(path: Path) -> dict[str, str]:
    """Return how the page asks ComfyUI for a picture below the output folder."""
    folder = path.parent.relative_to(folder_paths.get_output_directory())
    return {"filename": path.name, "subfolder": folder.as_posix(), "type": "output"}


def _input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def _photo_roots() -> list[tuple[str, Path]]:
    """Return each folder whose subfolders are listed, after the prefix of their names."""
    datasets = folder_paths.get_folder_paths("datasets")
    return [("", _input_folder()), *(("datasets/", Path(path)) for path in datasets)]
