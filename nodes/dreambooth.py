"""DreamBooth as a node."""

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..trainer.config import MAX_BATCH, MAX_STEPS, Settings, check_name
from ..trainer.photos import Dataset as PhotoDataset
from . import device, host, live, runner
from .dreambooth_inputs import DEFAULTS, OWN, method_inputs
from .embeddings import embedding_fingerprint, read_embedding
from .language import errors_told, in_running
from .sockets import BASE_INPUTS, CATEGORY, Dataset, LossMap, advanced_training_inputs, seed_input, validation
from .token_clip import clip_with_token, embedding_of
from .training_inputs import common_settings


class DreamBoothTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamBoothTrain",
            display_name="Train with DreamBooth",
            category=CATEGORY,
            description="Fine-tunes the model on the photos. The same settings again load the finished run, or go on with it.",
            search_aliases=["fine-tune", "finetune", "train checkpoint"],
            is_output_node=True,
            inputs=[
                *BASE_INPUTS,
                Dataset.Input("dataset", tooltip="Photos whose captions have the token, from Caption with Token."),
                io.String.Input("name", default="my-subject", tooltip="Name of the run and of the exported file."),
                io.Int.Input(
                    "steps",
                    default=800,
                    min=1,
                    max=MAX_STEPS,
                    tooltip="Training steps. The study used 1600 for 15 photos.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=MAX_BATCH,
                    tooltip="Photos per step. The study used 8, on a 24 GB card.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=2e-6,
                    min=0.0,
                    max=1.0,
                    step=1e-7,
                    round=1e-9,
                    tooltip="How far a step goes. The study used 2e-6; too high a rate overfits and forgets the class.",
                ),
                seed_input(),
                *advanced_training_inputs(),
                *method_inputs(),
            ],
            outputs=[
                io.Model.Output("trained_model", display_name="MODEL", tooltip="The trained model."),
                io.Clip.Output(
                    "trained_clip",
                    display_name="CLIP",
                    tooltip="The text encoder that goes with it; with an embedding, it understands the token.",
                ),
                io.Vae.Output("trained_vae", display_name="VAE", tooltip="The VAE that goes with it."),
                LossMap.Output("loss", display_name="LOSS_MAP", tooltip="The loss of every step, for Plot Loss Graph."),
                io.String.Output("path", tooltip="The exported checkpoint or LoRA file."),
                io.LoraModel.Output("lora", display_name="LORA_MODEL", tooltip="The LoRA, when train is lora."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return validation(check_name, name)

    @classmethod
    def fingerprint_inputs(cls, embedding: str | None = None, **_) -> str:
        return embedding_fingerprint(embedding)

    @classmethod
    @errors_told
    def execute(
        cls,
        model,
        clip,
        vae,
        dataset: PhotoDataset,
        name: str,
        precision: str,
        class_dataset: PhotoDataset | None = None,
        preset: str = OWN,  # the page has filled the widgets with it
        embedding: str = "",
        **widgets,
    ) -> io.NodeOutput:
        settings = resolve(dataset, class_dataset, device.resolve_precision(precision), widgets)
        if class_dataset:
            class_dataset = class_images_for(dataset, class_dataset)
        base = host.Base(model, clip, vae)
        embedding = embedding.strip() or embedding_of(clip, dataset.token)
        start = read_embedding(embedding) if embedding else None
        run = host.make_run(check_name(name), settings, base, dataset, class_dataset, start)
        finished = runner.train(run, base, live.Place.of(cls.hidden), start)
        file, learned = finished.exported.file, finished.exported.embedding
        if settings.train == "lora":
            lora = host.load_lora(file)
            trained_model, trained_clip, trained_vae = host.apply_lora(model, lora), clip, vae
        else:
            lora = ExecutionBlocker(in_running("There is no LoRA: set train to 'lora' in the training node."))
            trained_model, trained_clip, trained_vae = host.load_checkpoint(file)
        if learned:
            trained_clip = clip_with_token(trained_clip, dataset.token, learned)
        return io.NodeOutput(trained_model, trained_clip, trained_vae, finished.loss, str(file), lora, ui=finished.ui)


def resolve(dataset: PhotoDataset, class_dataset: PhotoDataset | None, precision: str, widgets: dict) -> Settings:
    """The run's settings from the node's widgets. ValueError, in the artist's words, where they contradict each other."""
    if not dataset.token:
        raise ValueError("The dataset has no token. Put Caption with Token between the photo loader and this node.")
    known = DEFAULTS | common_settings(widgets)
    class_images = known.pop("class_images", 0)
    if class_dataset and class_images:
        raise ValueError("Class pictures come from class_dataset: set class_images to 0, or unwire class_dataset.")
    if not (class_dataset or class_images):
        known["prior_loss_weight"] = 0.0
    return Settings(
        method="dreambooth",
        token=dataset.token,
        class_word=dataset.class_word,
        precision=precision,
        class_images=class_images,
        class_prompt=dataset.class_prompt if class_images else "",
        **known,
    )


def class_images_for(dataset: PhotoDataset, class_dataset: PhotoDataset) -> PhotoDataset:
    """The class images, with the class prompt as caption where they have none. ValueError when they do not go together."""
    if class_dataset.resolution != dataset.resolution:
        raise ValueError(
            f"The class photos are prepared at {class_dataset.resolution} pixels, the subject's at {dataset.resolution}. "
            "Give both photo loaders the same resolution."
        )
    if class_dataset.token:
        raise ValueError("The class photos carry the subject's token. Wire their photo loader to class_dataset directly.")
    return class_dataset.with_captions([photo.caption or dataset.class_prompt for photo in class_dataset.photos])
