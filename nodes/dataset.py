"""From a folder of photos to captioned training data."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..trainer import captions, photos
from ..trainer.config import check_token
from . import host
from .sockets import CATEGORY, Dataset, validation


class DatasetLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DatasetLoader",
            display_name="Load Photos of a Subject",
            category=CATEGORY,
            description="Reads a folder of photos of one subject, with their captions, and shows what training will see.",
            search_aliases=["dataset", "dreambooth", "training images", "folder"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=list(host.photo_folders()),
                    tooltip="A subfolder of ComfyUI's input or datasets folder with jpg, png, webp or bmp photos. "
                    "A caption is read from <name>.txt beside the photo, or from metadata.jsonl (file_name, text).",
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
                    "(heads). pad: the whole photo on white.",
                ),
            ],
            outputs=[
                Dataset.Output("dataset", display_name="DATASET", tooltip="The photos and captions."),
                io.Image.Output(
                    "images",
                    display_name="IMAGE",
                    is_output_list=True,
                    tooltip="The prepared photos, exactly as training will see them.",
                ),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        return validation(host.photo_folder, folder)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None, resolution: int, crop: str) -> str | float:
        if folder is None:  # it comes by a link, and ComfyUI does not tell what it will be
            return float("nan")
        return photos.fingerprint(host.photo_folder(folder))

    @classmethod
    def execute(cls, folder: str, resolution: int, crop: str) -> io.NodeOutput:
        dataset, squares = photos.read_folder(host.photo_folder(folder), resolution, crop)
        images = [torch.from_numpy(np.asarray(s, dtype=np.float32) / 255.0)[None] for s in squares]  # (1, H, W, 3)
        captioned = sum(bool(photo.caption) for photo in dataset.photos)
        verdict = f"{len(images)} photos, {captioned} captions, ready"
        return io.NodeOutput(dataset, images, ui=ui.PreviewText("\n".join((verdict, *dataset.warnings))))


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
    def execute(cls, dataset: photos.Dataset, token: str, class_word: str, template: str) -> io.NodeOutput:
        token, class_word = check_token(token), " ".join(class_word.split())
        texts = [captions.caption_with_token(p.caption, token, class_word, template) for p in dataset.photos]
        lines = [f"{Path(photo.path).name}: {text}" for photo, text in zip(dataset.photos, texts, strict=True)]
        pieces = f"CLIP reads {token} → {' + '.join(clip_pieces(token))}"
        class_prompt = captions.class_prompt(template, class_word)
        return io.NodeOutput(
            dataset.with_captions(texts, token=token, class_word=class_word, class_prompt=class_prompt),
            captions.fill_template(template, token, class_word),
            class_prompt,
            ui=ui.PreviewText("\n".join((pieces, *lines))),
        )


@cache
def _clip_tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(host.tokenizer_path())


def clip_pieces(word: str) -> list[str]:
    """How CLIP splits a word: "mysks" -> ["my", "sks"]."""
    return [piece.removesuffix("</w>") for piece in _clip_tokenizer().tokenize(word)]
