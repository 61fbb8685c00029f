"""The node that gives every caption the subject's token."""

from functools import partial
from pathlib import Path

from comfy_api.latest import io

from ..trainer.dataset.captions import DEFAULT_TEMPLATE, caption_with_token, class_prompt, fill_template, plain
from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.run.messages import Message, message
from ..trainer.run.names import check_token
from .comfy.clip_tokens import clip_pieces, known_token_note, long_captions_note
from .inputs import checked_inputs
from .page.checked_graph import checked_inputs_of
from .page.language import in_all_languages, joined, translated_errors
from .queued import answer, check_text, check_wired
from .widgets import CATEGORY, SEARCHED, Dataset

MAX_CAPTIONS = 200
"""So many captions are shown with their pieces."""


class CaptionWithToken(io.ComfyNode):
    """Gives every caption of a dataset the token and the class."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's sockets and widgets."""
        return io.Schema(
            node_id="CaptionWithToken",
            display_name="Caption with Token",
            category=CATEGORY,
            description="Gives the subject its name: adds the token and the class to every caption that lacks them.",
            search_aliases=[*SEARCHED, "instance prompt", "class prompt", "trigger word", "caption"],
            inputs=[
                Dataset.Input("dataset", tooltip="The photos, from Load Photos of a Subject."),
                io.String.Input(
                    "token",
                    default="mysks",
                    tooltip="A rare word that will stand for your subject. You write it in prompts.",
                ),
                io.String.Input(
                    "class_word",
                    default="",
                    placeholder="plush toy",
                    tooltip="What the subject is, in plain words: 'plush toy', 'dog', 'backpack'. May be empty.",
                ),
                io.String.Input(
                    "template",
                    default=DEFAULT_TEMPLATE,
                    advanced=True,
                    tooltip="Caption of photos that have none. The instance prompt and the class prompt are made from it, too.",
                ),
            ],
            outputs=[
                Dataset.Output("captioned", display_name="dataset", tooltip="The photos with their new captions."),
                io.String.Output("instance_prompt", tooltip="The prompt for your subject."),
                io.String.Output("class_prompt", tooltip="The same prompt for any member of the class."),
                io.String.Output("subject", tooltip="What means your subject within a prompt: token and class."),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,
        )

    @classmethod
    def validate_inputs(cls, token: str | None = None) -> bool | str:
        """Check that photos come, the token and the template before the graph is queued."""
        template = checked_inputs_of(cls.hidden.unique_id).get("template")
        checks = partial(check_wired, cls), partial(check_text, "token", check_token, token)
        return answer(*checks, partial(check_template, template))

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(cls, dataset: PhotoDataset, token: str, class_word: str, template: str) -> io.NodeOutput:
        """Caption the photos, and show the captions and how CLIP splits them."""
        token, class_word = check_token(token), plain(class_word)
        of_class = class_prompt(template, class_word)
        texts = [[caption_with_token(text, token, class_word, template) for text in photo.captions] for photo in dataset.photos]
        captions = by_name(dataset, texts)
        notes = token_notes(token, captions)
        panel = {
            "notes": in_all_languages(notes),
            "captions": [{"name": n, "text": t, "pieces": clip_pieces(t)} for n, t in list(captions.items())[:MAX_CAPTIONS]],
            "total": len(captions),
            "token": token,
            "class_word": class_word,
        }
        lines = (joined(notes), *(f"{name}: {text}" for name, text in captions.items()))
        return io.NodeOutput(
            dataset.with_captions(texts, token=token, class_word=class_word, class_prompt=of_class),
            fill_template(template, token, class_word),
            of_class,
            f"{token} {class_word}".strip(),
            ui={"text": ("\n".join(lines),), "captions": (panel,)},
        )


def check_template(template: object) -> None:
    """Raise UserError for a template, as a graph has it, that has no place for the token."""
    if isinstance(template, str):
        fill_template(template, "token", "class")


def by_name(dataset: PhotoDataset, texts: list[list[str]]) -> dict[str, str]:
    """Return the captions by the names of their photos; alternatives of one photo are numbered."""
    captions = {}
    for photo, alternatives in zip(dataset.photos, texts, strict=True):
        name = Path(photo.path).name
        for number, text in enumerate(alternatives, 1):
            captions[f"{name} ({number}/{len(alternatives)})" if len(alternatives) > 1 else name] = text
    return captions


def token_notes(token: str, captions: dict[str, str]) -> list[Message]:
    """Return how CLIP reads the token, and what speaks against it and the captions, {photo: caption}."""
    pieces = message("CLIP reads {token!r} → {pieces}", token=token, pieces=" + ".join(clip_pieces(token)))
    return [note for note in (pieces, known_token_note(token), long_captions_note(captions)) if note]
