"""The node that reads a folder of photos."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..trainer.dataset.crop import CROPS
from ..trainer.dataset.folder import MAX_JITTER, MAX_VARIANTS, fingerprint, read_folder
from ..trainer.dataset.folder_files import photo_names
from ..trainer.dataset.photos import MAX_RESOLUTION, MIN_RESOLUTION, RESOLUTION_STEP, check_framing
from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.dataset.wired import MAX_PREVIEWS, Wired
from ..trainer.run.messages import Message, UserError, message
from .comfy.folders import captions_of_pictures, photo_folder, photo_folders, pictures_name, write_masks, write_pictures
from .comfy.progress import NodeProgress
from .inputs import checked_inputs
from .page.checked_graph import WIRED, checked_inputs_of
from .page.language import in_all_languages, joined, translated_errors
from .queued import answer, check_text
from .widgets import CATEGORY, SEARCHED, Dataset

NO_FOLDER = "(no folder with photos yet)"
"""The default while there is none: ComfyUI makes a folder `3d` in its input that nobody wants to choose."""


class DatasetLoader(io.ComfyNode):
    """Reads a folder of photos, or pictures made in the graph, as a dataset."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's sockets and widgets."""
        return io.Schema(
            node_id="DatasetLoader",
            display_name="Load Photos of a Subject",
            category=CATEGORY,
            description="Reads a folder of photos of one subject, with their captions, and shows what training will see.",
            search_aliases=[*SEARCHED, "dataset", "training images", "photos", "upload", "folder"],
            is_input_list=True,  # a list of pictures is one dataset
            inputs=[*photo_inputs(), *augmentation_inputs()],
            outputs=[
                Dataset.Output("dataset", display_name="dataset", tooltip="The photos and captions."),
                io.Image.Output(
                    "images",
                    display_name="IMAGE",
                    is_output_list=True,
                    tooltip="The prepared photos exactly as training sees them, with every variant and mirror image: the "
                    f"first {MAX_PREVIEWS} of them.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def validate_inputs(cls, folder: Sequence[Any] = (None,), images: object = None) -> bool | str:
        """Check size and crop before the graph is queued, and the folder unless pictures are wired: they win."""
        framed = partial(check_framed, checked_inputs_of(cls.hidden.unique_id))
        chosen = [] if images is not None else [partial(check_text, "folder", chosen_folder, folder[0])]
        return answer(*chosen, framed)

    @classmethod
    def fingerprint_inputs(cls, folder: Sequence[Any], images: object = None, **_) -> str | float:
        """Return what changes with the files of the folder, or with the captions of wired pictures."""
        if images is not None:
            return captions_of_pictures()
        if not isinstance(folder[0], str):  # it comes by a link, and ComfyUI does not tell what it will be
            return float("nan")
        return fingerprint(chosen_folder(folder[0]))

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(
        cls, folder: list, images: list | None = None, captions: list | None = None, masks: list | None = None, **widgets: list
    ) -> io.NodeOutput:
        """Read and prepare the photos; each input comes as a list."""
        source = chosen_folder(folder[0]) if images is None else wired_pictures(images)
        wired = Wired(captions, write_masks(flat_masks(masks), photo_names(source)) if masks is not None else None)
        progress = NodeProgress(cls.hidden.unique_id)
        values = {name: value for name, (value, *_) in widgets.items()}
        dataset, previews = read_folder(source, on_photo=progress.bar, wired=wired, **values)
        prepared = [torch.from_numpy(np.asarray(view, dtype=np.float32) / 255.0)[None] for view in previews]  # (1, H, W, 3)
        lines = [verdict(dataset), *mask_notes(dataset), *dataset.warnings]
        panel = {
            "folder": pictures_name(source) if images else folder[0],
            "captions": {Path(photo.path).name: photo.caption for photo in dataset.photos} if captions else {},
            "masks": wired.masks.name if wired.masks else "",
        }
        told = {"text": (joined(lines),), "told": (in_all_languages(lines),), "panel": (panel,)}
        return io.NodeOutput(dataset, prepared, ui=told)


def check_framed(inputs: dict) -> None:
    """Raise UserError for a size and a crop, as a graph has them, that do not go together; ComfyUI checks each of them."""
    resolution, crop = inputs.get("resolution"), inputs.get("crop")
    if isinstance(resolution, int) and MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        check_framing(resolution, crop if crop in list(CROPS) else "center")


def chosen_folder(name: str) -> Path:
    """Return the folder of this name. Raises UserError when none is chosen, or it is not there."""
    if name in (NO_FOLDER, WIRED):
        raise UserError("No folder is chosen, and nothing is wired to images. Drop photos on this node, or press Add photos.")
    return photo_folder(name)


def wired_pictures(images: list) -> Path:
    """Return the folder that the pictures of all batches are written to. Raises UserError when there is none."""
    pictures = [picture for batch in images for picture in batch]
    if not pictures:
        raise UserError("No picture comes through images. Look at the node that is wired to it, or unwire it to use the folder.")
    return write_pictures(pictures)


def flat_masks(batches: list) -> list:
    """Return the masks of all batches, each (B, H, W), or (H, W) as some nodes give it."""
    return [mask for batch in batches for mask in (batch[None] if batch.ndim == 2 else batch)]


def photo_inputs() -> list[io.Input]:
    """Return the widgets that choose the photos, and how they are cropped."""
    counts = photo_folders()
    return [
        io.Combo.Input(
            "folder",
            options=[*([] if any(counts.values()) else [NO_FOLDER]), *counts],
            extra_dict={"counts": counts},  # of photos: the page shows them beside the names
            tooltip="A subfolder of ComfyUI's input or datasets folder with photos: jpg, png, webp, tiff and others. Drop files "
            "or a folder on the node to make one. A caption is read from <name>.txt beside the photo, each line an alternative, "
            "or from metadata.jsonl (file_name, text, repeats).",
        ),
        io.Int.Input(
            "resolution",
            default=512,
            min=MIN_RESOLUTION,
            max=MAX_RESOLUTION,
            step=RESOLUTION_STEP,
            tooltip="Side of the square that training sees, in pixels. SD v1.5 was made for 512.",
        ),
        io.Combo.Input(
            "crop",
            options=list(CROPS),
            default="center",
            tooltip="center, top: the shorter side fills the square and the rest is cut off; top keeps the upper edge (heads). "
            "pad: the whole photo on white. bucket: each photo keeps its shape, on a grid of 64 pixels.",
        ),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="Pictures made in the graph, used instead of the folder; class images, for example.",
        ),
        io.Mask.Input(
            "masks",
            optional=True,
            tooltip="A mask for each photo, white where the subject is: from background removal, SAM or a painter. Without it, "
            "<name>-masklabel.png beside a photo is its mask, or else its own alpha channel.",
        ),
        io.String.Input(
            "captions",
            optional=True,
            force_input=True,
            tooltip="A caption for each photo, in the order of their names or of the wired pictures, from a captioning node: a "
            "list, or one text with a line for each. Used where a photo has none beside it: what you save in the panel stays.",
        ),
    ]


def augmentation_inputs() -> list[io.Input]:
    """Return the widgets that make more of few photos."""
    return [
        io.Float.Input(
            "mask_weight",
            optional=True,
            default=0.1,
            min=0.0,
            max=1.0,
            step=0.05,
            round=1e-6,
            advanced=True,
            tooltip="How much the loss counts outside of the masks. 0: training does not look there, and anything may appear; 1: "
            "as without masks. Lower it where the background is learned with the subject. Without masks it changes nothing.",
        ),
        io.Boolean.Input(
            "flip",
            optional=True,
            default=False,
            advanced=True,
            tooltip="Also train on the mirror images. Not for subjects with letters on them, or whose left and right differ.",
        ),
        jitter_input(
            "view_jitter",
            "Also train on variants that are cropped and tilted a little, as if the camera had moved: by up to this share of the "
            "side. 0: none; 0.1 is mild.",
        ),
        jitter_input("color_jitter", "Also train on variants with other saturation and tint. 0: none; 0.1 is mild."),
        jitter_input("light_jitter", "Also train on variants with other brightness and contrast. 0: none; 0.1 is mild."),
        io.Int.Input(
            "variants",
            optional=True,
            default=4,
            min=1,
            max=MAX_VARIANTS,
            advanced=True,
            tooltip="Number of versions of each photo that the three jitters make, counting the photo itself.",
        ),
    ]


def jitter_input(name: str, tooltip: str) -> io.Input:
    """Return the widget of the strength of an augmentation."""
    bounds: dict[str, Any] = {"default": 0.0, "min": 0.0, "max": MAX_JITTER, "step": 0.05, "round": 1e-6}
    return io.Float.Input(name, optional=True, advanced=True, tooltip=tooltip, **bounds)


def mask_notes(dataset: PhotoDataset) -> list[Message]:
    """Return how many photos have a mask, and what that does."""
    masked, total = sum(bool(photo.mask) for photo in dataset.photos), len(dataset.photos)
    if not masked:
        return []
    if not dataset.masked:
        return [
            message(
                "{masked} of {total} photos have a mask, which mask_weight 1 leaves without effect.", masked=masked, total=total
            )
        ]
    return [
        message(
            "{masked} of {total} photos have a mask; outside of it the loss counts {weight:g} times.",
            masked=masked,
            total=total,
            weight=dataset.mask_weight,
        )
    ]


def verdict(dataset: PhotoDataset) -> Message:
    """Return how many photos and captions a dataset has."""
    count, captioned = len(dataset.photos), sum(bool(photo.caption) for photo in dataset.photos)
    return message(
        "{photos}, {captions}, ready",
        photos=message("1 photo") if count == 1 else message("{count} photos", count=count),
        captions=message("1 caption") if captioned == 1 else message("{count} captions", count=captioned),
    )
