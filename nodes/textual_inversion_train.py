"""Textual Inversion as a node."""

from dataclasses import replace
from functools import partial

from comfy_api.latest import io

from ..trainer.dataset.captions import caption_with_token
from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.run.choice import Asked
from ..trainer.run.messages import Message, UserError, message
from ..trainer.run.names import TEXTUAL_INVERSION, check_token
from ..trainer.run.run_dir import Run
from .comfy.base_model import Base
from .comfy.clip_tokens import known_token_note
from .comfy.embeddings import embedding_fingerprint, is_embedding, read_embedding
from .comfy.new_run import taken_embedding
from .comfy.result_changes import lost_results
from .comfy.token_clip import clip_with_token, prompt_text
from .inputs import checked_inputs
from .page.language import translated_errors
from .queued import answer, check_text, training_checks
from .training import request_for, trained_or_loaded
from .widgets import (
    BASE_INPUTS,
    CATEGORY,
    SEARCHED,
    Dataset,
    LossMap,
    preset_input,
    setting_inputs,
)


class TextualInversionTrain(io.ComfyNode):
    """Trains an embedding of a new token, in a process of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's sockets and widgets."""
        return io.Schema(
            node_id="TextualInversionTrain",
            display_name="Train a Textual Inversion",
            category=CATEGORY,
            description="Leaves the model as it is and learns a new token for the subject: a file of a few kilobytes.",
            search_aliases=[*SEARCHED, "train embedding", "TI"],
            is_output_node=True,
            inputs=[
                *BASE_INPUTS,
                Dataset.Input("dataset", tooltip="The photos. Captions without the token get it."),
                preset_input(
                    TEXTUAL_INVERSION,
                    "Decides what you leave at auto or 0. auto: what trains well on your device with your photos; the node says "
                    "what that is. own settings: the plain defaults. What you set yourself holds beside it, and is named.",
                ),
                io.String.Input("token", default="mysks", tooltip="The new token; also the name of the embedding file."),
                *setting_inputs(TEXTUAL_INVERSION),
            ],
            outputs=[
                io.Clip.Output("trained_clip", display_name="CLIP", tooltip="A text encoder that understands the token."),
                io.String.Output("prompt", tooltip="What to write in a prompt; any CLIP of this ComfyUI understands it."),
                LossMap.Output("loss", display_name="LOSS_MAP", tooltip="The loss of every step, for Plot Loss Graph."),
                io.String.Output("path", tooltip="The exported embedding file; embedding of Train with DreamBooth takes it."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, token: str | None = None) -> bool | str:
        """Check the token, and the settings together, before the graph is queued."""
        check = partial(check_text, "token", check_token, token)
        return answer(check, *training_checks(TEXTUAL_INVERSION, cls))

    @classmethod
    def fingerprint_inputs(cls, initializer: str | None = None, **_) -> str:
        """Return what changes with the file that `initializer` names, and when a result is lost."""
        named = embedding_fingerprint(initializer if isinstance(initializer, str) and is_embedding(initializer) else None)
        return f"{named} {lost_results()}"

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(cls, model, clip, vae, dataset: PhotoDataset, preset: str, token: str, **widgets) -> io.NodeOutput:
        """Train, or find what was trained, and return it loaded."""
        token, initializer = check_token(token), " ".join(widgets.pop("initializer", "").split())
        start = read_embedding(initializer) if is_embedding(initializer) else None
        if start:
            widgets["vectors"] = len(start.vectors)
        dataset = caption_dataset(dataset, token, "" if start else initializer)
        if not (initializer or dataset.class_word):
            raise UserError(
                "The initializer is empty, and the dataset has no class. Write what the subject is, for example 'toy'."
            )
        base = Base(model, clip, vae)
        asked = Asked(
            method=TEXTUAL_INVERSION,
            preset=preset,
            widgets=widgets,
            known={"token": token, "class_word": dataset.class_word, "initializer": "" if start else initializer},
            dataset=dataset,
            unet_weights=base.unet_weights(),
            base_bytes=base.size(),
        )
        request = request_for(token, asked, base, cls.hidden, start)
        finished = trained_or_loaded(replace(request, notes=[*request.notes, *token_notes(request.run)]))
        file = finished.exported.file
        prompt = prompt_text(finished.run.settings, file)
        return io.NodeOutput(clip_with_token(clip, token, file), prompt, finished.loss, str(file), ui=finished.ui)


def caption_dataset(dataset: PhotoDataset, token: str, class_word: str) -> PhotoDataset:
    """Return the dataset with the token in its captions. Raises UserError when they have another token."""
    if not dataset.token:
        texts = [[caption_with_token(text, token, class_word) for text in photo.captions] for photo in dataset.photos]
        return dataset.with_captions(texts, token=token, class_word=class_word)
    if dataset.token != token:
        raise UserError(
            "The captions have the token {captions!r}, this node trains {token!r}. Give both nodes the same token.",
            captions=dataset.token,
            token=token,
        )
    return dataset


def token_notes(run: Run) -> list[Message]:
    """Return what the user should know of the token before it is trained."""
    taken, notes = taken_embedding(run), [known_token_note(run.settings.token)]
    if taken:
        notes.append(
            message(
                "An embedding {file} is there already and stays as it is; this one becomes {run}.safetensors.",
                file=taken,
                run=run.id,
            )
        )
    return [note for note in notes if note]
