"""DreamBooth as a node."""

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..trainer.dataset.captions import check_class_word
from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.run.messages import UserError, message
from ..trainer.run.names import DREAMBOOTH, check_name
from ..trainer.run.settings import Settings
from .comfy import device, results
from .comfy.base_model import Base
from .comfy.embeddings import embedding_fingerprint, read_embedding
from .comfy.patches import with_prompt_options, with_sampling_patches
from .comfy.token_clip import clip_with_token, embedding_of
from .inputs import checked_inputs
from .page.language import text_for_running_page, translated_errors
from .page.live_runs import GraphNode
from .presets import OWN, preset_input
from .training import TrainingRequest, clip_skip_notes, rename_note, train
from .widgets import BASE_INPUTS, CATEGORY, Dataset, LossMap, setting_inputs, settings_from, validation


class DreamBoothTrain(io.ComfyNode):
    """Trains the model on the photos, in a process of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's sockets and widgets."""
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
                Dataset.Input(
                    "class_dataset",
                    optional=True,
                    tooltip="Photos of other members of the class, 50 to 200, from a second photo loader, in place of class "
                    "images that are made. Each step sees as many of them as of the subject's.",
                ),
                preset_input(),
                io.String.Input(
                    "embedding",
                    optional=True,
                    default="",
                    placeholder="none",
                    tooltip="An embedding of your token to train on from: wire path of Train a Textual Inversion to it, or write "
                    "the name of a file in models/embeddings. Your token then means it, and train says whether it learns on (all "
                    "but unet). Empty: that of the CLIP, where it comes from a node of this pack.",
                ),
                *setting_inputs(DREAMBOOTH),
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
        """Check the name before the graph is queued."""
        return validation("name", check_name, name)

    @classmethod
    def fingerprint_inputs(cls, embedding: str | None = None, **_) -> str:
        """Return what changes with the file that `embedding` names, and when a result is lost."""
        return f"{embedding_fingerprint(embedding)} {results.lost_results()}"

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(
        cls,
        model,
        clip,
        vae,
        dataset: PhotoDataset,
        name: str,
        **widgets,
    ) -> io.NodeOutput:
        """Train, or find what was trained, and return it loaded."""
        class_dataset, embedding = widgets.pop("class_dataset", None), widgets.pop("embedding", "")
        widgets.pop("preset", OWN)  # the page has filled the widgets with it
        settings = resolve_settings(dataset, class_dataset, widgets)
        if class_dataset:
            class_dataset = caption_class_images(dataset, class_dataset)
        base = Base(model, clip, vae)
        embedding = embedding.strip() or embedding_of(clip, dataset.token)
        start = read_embedding(embedding) if embedding else None
        run = results.make_run(check_name(name), settings, base, dataset, class_dataset, start)
        node, notes = GraphNode.of(cls.hidden), [*rename_note(check_name(name), run), *clip_skip_notes(run)]
        finished = train(TrainingRequest(run=run, base=base, node=node, embedding=start, notes=notes))
        file, learned = finished.exported.file, finished.exported.embedding
        if run.result_kind == "lora":
            lora = results.load_lora(file)
            trained = results.apply_lora(model, lora), clip, vae
        else:
            lora = ExecutionBlocker(text_for_running_page(message("There is no LoRA: set train to 'lora' in the training node.")))
            loaded_model, loaded_clip, _ = results.load_checkpoint(file)
            trained = with_sampling_patches(loaded_model, model), with_prompt_options(loaded_clip, clip), vae
        trained_model, trained_clip, trained_vae = trained
        if learned:
            trained_clip = clip_with_token(trained_clip, dataset.token, learned)
        return io.NodeOutput(trained_model, trained_clip, trained_vae, finished.loss, str(file), lora, ui=finished.ui)


def resolve_settings(dataset: PhotoDataset, class_dataset: PhotoDataset | None, widgets: dict) -> Settings:
    """Return the run's settings from the node's widgets. Raises UserError where they contradict each other."""
    if not dataset.token:
        raise UserError("The dataset has no token. Put Caption with Token between the photo loader and this node.")
    class_images = widgets.get("class_images", 0)
    if class_dataset and class_images:
        raise UserError("Class images come from class_dataset: set class_images to 0, or unwire class_dataset.")
    uncaptioned = class_dataset and not all(photo.caption for photo in class_dataset.photos)
    if class_images or uncaptioned:
        check_class_word(dataset.class_word)
    return settings_from(
        DREAMBOOTH,
        widgets,
        token=dataset.token,
        class_word=dataset.class_word,
        precision=device.resolve_precision(widgets.get("precision", "auto")),
        class_prompt=dataset.class_prompt if class_images else "",
    )


def caption_class_images(dataset: PhotoDataset, class_dataset: PhotoDataset) -> PhotoDataset:
    """Return the class images, those without a caption under the class prompt. Raises UserError when they do not go together."""
    if class_dataset.resolution != dataset.resolution:
        raise UserError(
            "The class images are prepared at {class_resolution} pixels, the subject's at {resolution}. Give both photo loaders "
            "the same resolution.",
            class_resolution=class_dataset.resolution,
            resolution=dataset.resolution,
        )
    if class_dataset.token:
        raise UserError("The class images carry the subject's token. Wire their photo loader to class_dataset directly.")
    return class_dataset.with_captions(
        [photo.captions if photo.caption else dataset.class_prompt for photo in class_dataset.photos]
    )
