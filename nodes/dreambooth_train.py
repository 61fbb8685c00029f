"""DreamBooth as a node."""

from functools import partial

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..trainer.dataset.captions import check_class_word
from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.run.choice import Asked, given_lora
from ..trainer.run.messages import UserError, message
from ..trainer.run.names import DREAMBOOTH, NO_LORA, check_name
from .comfy.base_model import Base
from .comfy.embeddings import embedding_fingerprint, read_embedding
from .comfy.exported_files import step_paths
from .comfy.loading import apply_lora, load_checkpoint, load_lora
from .comfy.lora_files import WiredLora, find_lora, lora_fingerprint, lora_names
from .comfy.patches import with_prompt_options, with_sampling_patches
from .comfy.result_changes import lost_results
from .comfy.token_clip import clip_with_token, embedding_of
from .inputs import checked_inputs
from .page.checked_graph import checked_inputs_of, source_inputs
from .page.language import text_for_running_page, translated_errors
from .queued import answer, check_embedding, check_text, loader_of, training_checks
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
            search_aliases=[*SEARCHED, "train checkpoint", "train lora"],
            is_output_node=True,
            inputs=[
                *BASE_INPUTS,
                Dataset.Input("dataset", tooltip="Photos whose captions have the token, from Caption with Token."),
                preset_input(
                    DREAMBOOTH,
                    "Decides what you leave at auto or 0, and class_images at -1. auto: what trains well on your device with "
                    "your photos; the node says what that is. The others: the study's run, the paper's, what suits a card, and "
                    "own settings, the plain defaults. What you set yourself holds beside any of them, and is named.",
                ),
                io.String.Input("name", default="my-subject", tooltip="Name of the run and of the exported file."),
                Dataset.Input(
                    "class_dataset",
                    optional=True,
                    tooltip="Photos of other members of the class, 50 to 200, from a second photo loader, in place of class "
                    "images that are made. Each step sees as many of them as of the subject's.",
                ),
                io.String.Input(
                    "embedding",
                    optional=True,
                    advanced=True,
                    default="",
                    placeholder="none",
                    tooltip="An embedding of your token to train on from: wire path of Train a Textual Inversion to it, or write "
                    "the name of a file in models/embeddings. Your token then means it, and train says whether it learns on (all "
                    "but unet). Empty: that of the CLIP, where it comes from a node of this pack.",
                ),
                io.Combo.Input(
                    "start_lora",
                    options=lora_names(),
                    default=NO_LORA,
                    optional=True,
                    advanced=True,
                    tooltip="A LoRA to train on from, whoever made it, where train is lora or begins with it. lora_kind "
                    "and lora_layers must be those that it was made with; lora_rank 0 takes its rank.",
                ),
                io.LoraModel.Input(
                    "lora",
                    optional=True,
                    tooltip="A LoRA from another node to train on from, in place of start_lora: LORA_MODEL of another training.",
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
                io.LoraModel.Output("lora", display_name="LORA_MODEL", tooltip="The LoRA, when train is lora or begins with it."),
                io.String.Output(
                    "paths",
                    is_output_list=True,
                    tooltip="The files of the steps that save_every has kept, and last that of the result, as a list: Load "
                    "Trained Subject loads each, and Evaluate a Subject compares them.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """Check the name, and the settings together, before the graph is queued."""
        inputs = checked_inputs_of(cls.hidden.unique_id)
        checks = partial(check_text, "name", check_name, name), partial(check_captioned, inputs)
        there = partial(check_embedding, cls.hidden.unique_id, "embedding", inputs.get("embedding"))
        return answer(*checks, *training_checks(DREAMBOOTH, cls), partial(check_class_photos, inputs), there)

    @classmethod
    def fingerprint_inputs(cls, embedding: str | None = None, start_lora: str | None = None, **_) -> str:
        """Return what changes with the files that `embedding` and `start_lora` name, and when a result is lost."""
        return f"{embedding_fingerprint(embedding)} {lora_fingerprint(start_lora)} {lost_results()}"

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(
        cls,
        model,
        clip,
        vae,
        dataset: PhotoDataset,
        preset: str,
        name: str,
        **widgets,
    ) -> io.NodeOutput:
        """Train, or find what was trained, and return it loaded."""
        class_dataset, embedding = widgets.pop("class_dataset", None), widgets.pop("embedding", "")
        name_of_lora = given_lora(widgets)
        start_lora, wired = find_lora(widgets.pop("start_lora", NO_LORA)), widgets.pop("lora", None)
        lora_before = WiredLora(wired) if wired else start_lora
        check_dataset(dataset, class_dataset)
        if class_dataset:
            class_dataset = caption_class_images(dataset, class_dataset)
        base = Base(model, clip, vae)
        embedding = embedding.strip() or embedding_of(clip, dataset.token)
        start = read_embedding(embedding) if embedding else None
        asked = Asked(
            method=DREAMBOOTH,
            preset=preset,
            widgets=widgets,
            known={"token": dataset.token, "class_word": dataset.class_word},
            dataset=dataset,
            class_dataset=class_dataset,
            embedding=embedding,
            start_lora=name_of_lora,
            start_rank=lora_before.rank() if lora_before else 0,
            unet_weights=base.unet_weights(),
            base_bytes=base.size(),
        )
        finished = trained_or_loaded(request_for(check_name(name), asked, base, cls.hidden, start, lora_before))
        file, learned = finished.exported.file, finished.exported.embedding
        if finished.run.result_kind == "lora":
            lora = load_lora(file)
            trained = (*apply_lora(model, clip, lora), vae)
        else:
            lora = ExecutionBlocker(text_for_running_page(message("There is no LoRA: set train to 'lora' in the training node.")))
            loaded_model, loaded_clip, _ = load_checkpoint(file)
            trained = with_sampling_patches(loaded_model, model), with_prompt_options(loaded_clip, clip), vae
        trained_model, trained_clip, trained_vae = trained
        if learned:
            trained_clip = clip_with_token(trained_clip, dataset.token, learned)
        paths = step_paths(finished.run, finished.exported)
        return io.NodeOutput(trained_model, trained_clip, trained_vae, finished.loss, str(file), lora, paths, ui=finished.ui)


def check_captioned(inputs: dict) -> None:
    """Raise UserError for a dataset that comes straight from the photo loader, in the graph that is being checked."""
    if source_inputs(inputs, "dataset", "DatasetLoader") is not None:
        raise no_token()


def no_token() -> UserError:
    """Return what is said of a dataset without a token."""
    return UserError("The dataset has no token. Put Caption with Token between the photo loader and this node.")


def check_dataset(dataset: PhotoDataset, class_dataset: PhotoDataset | None) -> None:
    """Raise UserError for photos without a token, or class images that need the class and have none."""
    if not dataset.token:
        raise no_token()
    if class_dataset and not all(photo.caption for photo in class_dataset.photos):
        check_class_word(dataset.class_word)


def check_class_photos(inputs: dict) -> None:
    """Raise UserError for class images that do not go with the photos, as far as the graph that is being checked says it."""
    ours, theirs = ((loader_of(inputs, name) or {}).get("resolution") for name in ("dataset", "class_dataset"))
    if not (isinstance(ours, int) and isinstance(theirs, int)):
        ours = theirs = 0
    check_together(ours, theirs, source_inputs(inputs, "class_dataset", "CaptionWithToken") is not None)


def check_together(resolution: int, class_resolution: int, class_has_token: bool) -> None:
    """Raise UserError for class images of another size than the photos, and for those with the subject's token."""
    if class_resolution != resolution:
        raise UserError(
            "The class images are prepared at {class_resolution} pixels, the subject's at {resolution}. Give both photo loaders "
            "the same resolution.",
            class_resolution=class_resolution,
            resolution=resolution,
        )
    if class_has_token:
        raise UserError("The class images carry the subject's token. Wire their photo loader to class_dataset directly.")


def caption_class_images(dataset: PhotoDataset, class_dataset: PhotoDataset) -> PhotoDataset:
    """Return the class images, those without a caption under the class prompt. Raises UserError when they do not go together."""
    check_together(dataset.resolution, class_dataset.resolution, bool(class_dataset.token))
    return class_dataset.with_captions(
        [photo.captions if photo.caption else dataset.class_prompt for photo in class_dataset.photos]
    )
