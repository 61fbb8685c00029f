"""Textual Inversion as a node."""

from comfy_api.latest import io

from ..trainer.dataset.captions import caption_with_token
from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.run.messages import Message, UserError, message
from ..trainer.run.names import TEXTUAL_INVERSION, check_token
from ..trainer.run.run_dir import Run
from .comfy import device, results
from .comfy.base_model import Base
from .comfy.clip_tokens import known_token_note
from .comfy.embeddings import embedding_fingerprint, is_embedding, read_embedding
from .comfy.token_clip import clip_with_token, prompt_text
from .inputs import checked_inputs
from .page.language import translated_errors
from .page.live_runs import GraphNode
from .training import TrainingRequest, clip_skip_notes, train
from .widgets import BASE_INPUTS, CATEGORY, Dataset, LossMap, setting_inputs, settings_from, validation


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
            search_aliases=["embedding", "train embedding", "TI"],
            is_output_node=True,
            inputs=[
                *BASE_INPUTS,
                Dataset.Input("dataset", tooltip="The photos. Captions without the token get it."),
                io.String.Input("token", default="mysks", tooltip="The new token; also the name of the embedding file."),
                *setting_inputs(TEXTUAL_INVERSION),
            ],
            outputs=[
                io.Clip.Output("trained_clip", display_name="CLIP", tooltip="A text encoder that understands the token."),
                io.String.Output("prompt", tooltip="What to write in a prompt; any CLIP of this ComfyUI understands it."),
                LossMap.Output("loss", display_name="LOSS_MAP", tooltip="The loss of every step, for Plot Loss Graph."),
                io.String.Output("path", tooltip="The exported embedding file; embedding of Train with DreamBooth takes it."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, token: str | None = None) -> bool | str:
        """Check the token before the graph is queued."""
        return validation("token", check_token, token)

    @classmethod
    def fingerprint_inputs(cls, initializer: str | None = None, **_) -> str:
        """Return what changes with the file that `initializer` names, and when a result is lost."""
        named = embedding_fingerprint(initializer if isinstance(initializer, str) and is_embedding(initializer) else None)
        return f"{named} {results.lost_results()}"

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(cls, model, clip, vae, dataset: PhotoDataset, token: str, **widgets) -> io.NodeOutput:
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
        settings = settings_from(
            TEXTUAL_INVERSION,
            widgets,
            token=token,
            class_word=dataset.class_word,
            initializer="" if start else initializer,
            precision=device.resolve_precision(widgets.get("precision", "auto")),
        )
        base = Base(model, clip, vae)
        run = results.make_run(token, settings, base, dataset, embedding=start)
        node, notes = GraphNode.of(cls.hidden), [*clip_skip_notes(run), *token_notes(run)]
        finished = train(TrainingRequest(run=run, base=base, node=node, embedding=start, notes=notes))
        file = finished.exported.file
        return io.NodeOutput(
            clip_with_token(clip, token, file), prompt_text(settings, file), finished.loss, str(file), ui=finished.ui
        )


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
    taken, notes = results.taken_embedding(run), [known_token_note(run.settings.token)]
    if taken:
        notes.append(
            message(
                "An embedding {file} is there already and stays as it is; this one becomes {run}.safetensors.",
                file=taken,
                run=run.id,
            )
        )
    return [note for note in notes if note]
