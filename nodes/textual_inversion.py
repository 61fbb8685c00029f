"""Textual Inversion as a node."""

from comfy_api.latest import io

from ..trainer.captions import caption_with_token
from ..trainer.config import MAX_BATCH, MAX_STEPS, Settings, check_token
from ..trainer.photos import Dataset as PhotoDataset
from . import host, runner
from .sockets import BASE_INPUTS, CATEGORY, Dataset, LossMap, advanced_training_inputs, seed_input, validation
from .token_clip import clip_with_token, prompt_text


class TextualInversionTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TextualInversionTrain",
            display_name="Train a Textual Inversion",
            category=CATEGORY,
            description="Leaves the model as it is and learns a new word for the subject: a file of a few kilobytes.",
            search_aliases=["embedding", "train embedding", "TI"],
            is_output_node=True,
            inputs=[
                *BASE_INPUTS,
                Dataset.Input("dataset", tooltip="The photos. Captions without the token get it."),
                io.String.Input("token", default="mysks", tooltip="The new word; also the name of the embedding file."),
                io.String.Input(
                    "initializer",
                    default="",
                    placeholder="toy",
                    tooltip="One or more words near the subject's meaning, from which training starts, for example 'toy'.",
                ),
                io.Int.Input("steps", default=2000, min=1, max=MAX_STEPS, tooltip="Training steps."),
                io.Int.Input("batch_size", default=1, min=1, max=MAX_BATCH, tooltip="Photos per step."),
                io.Float.Input(
                    "learning_rate",
                    default=5e-3,
                    min=0.0,
                    max=1.0,
                    step=1e-4,
                    round=1e-9,
                    tooltip="How far a step goes. An embedding takes far higher rates than a U-Net.",
                ),
                seed_input(),
                *advanced_training_inputs(),
            ],
            outputs=[
                io.Clip.Output("trained_clip", display_name="CLIP", tooltip="A text encoder that understands the token."),
                io.String.Output("prompt", tooltip="What to write in a prompt; any CLIP of this ComfyUI understands it."),
                LossMap.Output("loss", display_name="LOSS_MAP", tooltip="The loss of every step, for Plot Loss Graph."),
                io.String.Output("path", tooltip="The exported embedding file."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, token: str | None = None) -> bool | str:
        return validation(check_token, token)

    @classmethod
    def execute(
        cls, model, clip, vae, dataset: PhotoDataset, token: str, initializer: str, precision: str, **widgets
    ) -> io.NodeOutput:
        token, initializer = check_token(token), " ".join(initializer.split())
        if not initializer:
            raise ValueError("The initializer is empty. Write what the subject is, for example 'toy'.")
        if not dataset.token:
            texts = [caption_with_token(photo.caption, token, initializer) for photo in dataset.photos]
            dataset = dataset.with_captions(texts, token=token, class_word=initializer)
        elif dataset.token != token:
            raise ValueError(
                f"The captions have the token {dataset.token!r}, this node trains {token!r}. Give both nodes the same token."
            )
        settings = Settings(
            method="textual_inversion",
            token=token,
            class_word=dataset.class_word,
            initializer=initializer,
            weight_decay=0.0,
            precision=host.resolve_precision(precision),
            **widgets,
        )
        base = host.Base(model, clip, vae)
        run = host.make_run(token, settings, base, dataset)
        finished = runner.train(run, base, cls.hidden.unique_id)
        return io.NodeOutput(
            clip_with_token(clip, token, finished.file),
            prompt_text(run.settings, finished.file),
            finished.loss,
            str(finished.file),
            ui=finished.ui,
        )
