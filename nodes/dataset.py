"""From a folder of photos to captioned training data."""

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io

from ..trainer import captions, photos
from ..trainer.config import check_token
from ..trainer.messages import ENGLISH
from . import host
from .clip_words import clip_pieces, known_word, too_long
from .language import errors_told, in_all
from .sockets import CATEGORY, Dataset, validation

WIRED = "(pictures wired to images)"
SHOWN = 200
"""So many captions are shown with their pieces."""


class DatasetLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def strength(name: str, tooltip: str) -> io.Input:
            return io.Float.Input(
                name, optional=True, default=0.0, min=0.0, max=0.5, step=0.05, round=1e-6, advanced=True, tooltip=tooltip
            )

        return io.Schema(
            node_id="DatasetLoader",
            display_name="Load Photos of a Subject",
            category=CATEGORY,
            description="Reads a folder of photos of one subject, with their captions, and shows what training will see.",
            search_aliases=["dataset", "dreambooth", "training images", "folder"],
            is_input_list=True,  # a list of pictures is one dataset
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[*host.photo_folders(), WIRED],
                    tooltip="A subfolder of ComfyUI's input or datasets folder with jpg, png, webp or bmp photos. "
                    "A caption is read from <name>.txt beside the photo, or from metadata.jsonl (file_name, text, repeats).",
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=2048,
                    step=8,
                    tooltip="Side of the square that training sees, in pixels. SD v1.5 was made for 512.",
                ),
                io.Combo.Input(
                    "crop",
                    options=list(photos.CROPS),
                    default="center",
                    tooltip="center, top: the shorter side fills the square, the rest is cut; top keeps the upper edge "
                    "(heads). pad: the whole photo on white. bucket: each photo keeps its shape, on a grid of 64 pixels.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip=f"Pictures made in the graph, used in place of a folder when folder is '{WIRED}': class pictures, "
                    "for example.",
                ),
                io.Boolean.Input(
                    "flip",
                    optional=True,
                    default=False,
                    advanced=True,
                    tooltip="Train on the mirror images too. Not for subjects with letters on them, or with a left and a right.",
                ),
                strength(
                    "view_jitter",
                    "Also train on variants cropped and tilted a little, as if the camera had moved: up to this share of the "
                    "side. 0.1 is mild.",
                ),
                strength("color_jitter", "Also train on variants with other saturation and tint. 0.1 is mild."),
                strength("light_jitter", "Also train on variants with other brightness and contrast. 0.1 is mild."),
                io.Int.Input(
                    "variants",
                    optional=True,
                    default=4,
                    min=1,
                    max=photos.MAX_VARIANTS,
                    advanced=True,
                    tooltip="How many versions of each photo the three jitters make, the photo itself counted.",
                ),
            ],
            outputs=[
                Dataset.Output("dataset", display_name="DATASET", tooltip="The photos and captions."),
                io.Image.Output(
                    "images",
                    display_name="IMAGE",
                    is_output_list=True,
                    tooltip="The prepared photos, exactly as training will see them, every variant and mirror image too: the "
                    f"first {photos.SHOWN} of them.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def validate_inputs(cls, folder: list | str | None = None) -> bool | str:
        (folder,) = folder if isinstance(folder, list) else (folder,)
        return True if folder == WIRED else validation(host.photo_folder, folder)

    @classmethod
    def fingerprint_inputs(cls, folder: list, **_) -> str | float:
        if folder[0] is None:  # it comes by a link, and ComfyUI does not tell what it will be
            return float("nan")
        return "" if folder[0] == WIRED else photos.fingerprint(host.photo_folder(folder[0]))

    @classmethod
    @errors_told
    def execute(cls, folder: list, images: list | None = None, **widgets) -> io.NodeOutput:
        pictures = [picture for batch in images or [] for picture in batch]
        if (folder[0] == WIRED) != bool(pictures):
            raise ValueError(f"Choose the folder '{WIRED}' and wire pictures to images, or neither of the two.")
        source = host.pictures_folder(pictures) if pictures else host.photo_folder(folder[0])
        progress = host.NodeProgress(cls.hidden.unique_id)
        dataset, views = photos.read_folder(
            source, on_photo=progress.bar, **{name: values[0] for name, values in widgets.items()}
        )
        shown = [torch.from_numpy(np.asarray(view, dtype=np.float32) / 255.0)[None] for view in views]  # (1, H, W, 3)
        captioned = sum(bool(photo.caption) for photo in dataset.photos)
        photo_count = "1 photo" if len(dataset.photos) == 1 else f"{len(dataset.photos)} photos"
        caption_count = "1 caption" if captioned == 1 else f"{captioned} captions"
        verdict = f"{photo_count}, {caption_count}, ready"
        text = "\n".join((verdict, *dataset.warnings))
        return io.NodeOutput(dataset, shown, ui={"text": (text,), "told": (in_all(text),)})


class CaptionWithToken(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CaptionWithToken",
            display_name="Caption with Token",
            category=CATEGORY,
            description="Gives the subject its name: every caption gets the token and the class where it lacks them.",
            search_aliases=["instance prompt", "class prompt", "trigger word", "caption"],
            inputs=[
                Dataset.Input("dataset", tooltip="The photos, from the loader."),
                io.String.Input(
                    "token",
                    default="mysks",
                    tooltip="A rare word that shall mean your subject. You will write it in prompts.",
                ),
                io.String.Input(
                    "class_word",
                    default="",
                    placeholder="plush toy",
                    tooltip="What the subject is, in plain words: 'plush toy', 'dog', 'backpack'. May be empty.",
                ),
                io.String.Input(
                    "template",
                    default=captions.DEFAULT_TEMPLATE,
                    advanced=True,
                    tooltip="Caption of a photo that has none; also the instance prompt and the class prompt.",
                ),
            ],
            outputs=[
                Dataset.Output("captioned", display_name="DATASET", tooltip="The photos with their new captions."),
                io.String.Output("instance_prompt", tooltip="The prompt that means your subject."),
                io.String.Output("class_prompt", tooltip="The same prompt for any member of the class."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def validate_inputs(cls, token: str | None = None) -> bool | str:
        return validation(check_token, token)

    @classmethod
    @errors_told
    def execute(cls, dataset: photos.Dataset, token: str, class_word: str, template: str) -> io.NodeOutput:
        token, class_word = check_token(token), " ".join(class_word.split())
        texts = [captions.caption_with_token(p.caption, token, class_word, template) for p in dataset.photos]
        by_photo = {Path(photo.path).name: text for photo, text in zip(dataset.photos, texts, strict=True)}
        lines = [f"{name}: {text}" for name, text in by_photo.items()]
        pieces = f"CLIP reads {token!r} → {' + '.join(clip_pieces(token))}"
        notes = "\n".join(note for note in (pieces, known_word(token), too_long(by_photo)) if note)
        shown = {
            "notes": {ENGLISH: notes, **in_all(notes)},
            "captions": [{"name": n, "text": t, "pieces": clip_pieces(t)} for n, t in list(by_photo.items())[:SHOWN]],
            "total": len(by_photo),
            "token": token,
            "class_word": class_word,
        }
        class_prompt = captions.class_prompt(template, class_word)
        return io.NodeOutput(
            dataset.with_captions(texts, token=token, class_word=class_word, class_prompt=class_prompt),
            captions.fill_template(template, token, class_word),
            class_prompt,
            ui={"text": ("\n".join((notes, *lines)),), "captions": (shown,)},
        )
