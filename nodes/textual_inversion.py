"""Textual Inversion as a node."""

from comfy_api.latest import io

from ..trainer.captions import caption_with_token
from ..trainer.config import MAX_BATCH, MAX_STEPS, MAX_VECTORS, TEMPLATE_SETS, Settings, check_token
from ..trainer.photos import Dataset as PhotoDataset
from . import device, host, live, runner
from .clip_words import known_word
from .embeddings import embedding_fingerprint, is_embedding, read_embedding
from .language import errors_told
from .sockets import BASE_INPUTS, CATEGORY, Dataset, LossMap, advanced_training_inputs, seed_input, validation
from .token_clip import clip_with_token, prompt_text
from .training_inputs import choice, common_inputs, common_settings, number


class TextualInversionTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        common = common_inputs()
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
                    tooltip="Where training starts: one or more words near the subject's meaning ('brown toy'), or an embedding, "
                    "as 'embedding:name', with as many vectors as it has. Empty: the mean of the class word.",
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
                number(
                    io.Int,
                    "vectors",
                    Settings.vectors,
                    1,
                    MAX_VECTORS,
                    1,
                    "How many embedding vectors the word stands for. More hold more of the subject, and take as many of the 75 "
                    "places that a prompt has; 1 to 8 are usual.",
                    advanced=False,
                ),
                choice(
                    "template_set",
                    TEMPLATE_SETS,
                    Settings.template_set,
                    "What training reads beside the photos. captions: their own, with the word put in. object or style: the "
                    "prompts that were published with the method ('a photo of a mysks', 'a painting in the style of mysks').",
                    advanced=False,
                ),
                common["hold_out"],
                common["early_stopping"],
                common["sample_prompts"],
                common["sample_every"],
                common["validate_every"],
                number(
                    io.Int,
                    "save_every",
                    Settings.save_every,
                    0,
                    MAX_STEPS,
                    100,
                    "Above 0, the embedding is kept every so many steps too, as embedding:<run>-step-000500, so that you can go "
                    "back to one that was freer.",
                ),
                number(
                    io.Float,
                    "norm_limit",
                    Settings.norm_limit,
                    0.0,
                    1000.0,
                    0.1,
                    "Above 0, no vector grows longer than so many times a usual word's, so that yours does not outshout the rest "
                    "of the prompt. 1 to 3 is strict; 0: no limit.",
                ),
                common["gradient_accumulation_steps"],
                common["optimizer"],
                common["max_grad_norm"],
                common["min_snr_gamma"],
                common["noise_offset"],
                common["ema_decay"],
                common["devices"],
                common["keep_state"],
                common["export_on_cancel"],
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
        return validation(check_token, token)

    @classmethod
    def fingerprint_inputs(cls, initializer: str | None = None, **_) -> str:
        return embedding_fingerprint(initializer if is_embedding(initializer or "") else None)

    @classmethod
    @errors_told
    def execute(
        cls, model, clip, vae, dataset: PhotoDataset, token: str, initializer: str, precision: str, **widgets
    ) -> io.NodeOutput:
        token, initializer = check_token(token), " ".join(initializer.split())
        start = read_embedding(initializer) if is_embedding(initializer) else None
        if start:
            widgets["vectors"] = len(start.vectors)
        if not dataset.token:
            class_word = "" if start else initializer
            texts = [caption_with_token(photo.caption, token, class_word) for photo in dataset.photos]
            dataset = dataset.with_captions(texts, token=token, class_word=class_word)
        elif dataset.token != token:
            raise ValueError(
                f"The captions have the token {dataset.token!r}, this node trains {token!r}. Give both nodes the same token."
            )
        if not (initializer or dataset.class_word):
            raise ValueError(
                "The initializer is empty, and the dataset has no class. Write what the subject is, for example 'toy'."
            )
        settings = Settings(
            method="textual_inversion",
            token=token,
            class_word=dataset.class_word,
            initializer="" if start else initializer,
            weight_decay=0.0,
            precision=device.resolve_precision(precision),
            **common_settings(widgets),
        )
        base = host.Base(model, clip, vae)
        run = host.make_run(token, settings, base, dataset, embedding=start)
        finished = runner.train(run, base, live.Place.of(cls.hidden), start, notes(run))
        file = finished.exported.file
        return io.NodeOutput(
            clip_with_token(clip, token, file), prompt_text(settings, file), finished.loss, str(file), ui=finished.ui
        )


def notes(run) -> list[str]:
    """What the artist should know of the token before it is trained."""
    taken = host.taken_embedding(run)
    found = [known_word(run.settings.token)]
    if taken:
        found.append(f"An embedding {taken} is there already and stays as it is; this one becomes {run.id}.safetensors.")
    return [note for note in found if note]
