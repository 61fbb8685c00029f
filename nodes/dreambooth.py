"""DreamBooth as a node."""

from comfy_api.latest import io

from ..trainer.config import MAX_BATCH, MAX_STEPS, Settings, check_name
from ..trainer.photos import Dataset as PhotoDataset
from . import host, runner
from .sockets import BASE_INPUTS, CATEGORY, Dataset, LossMap, advanced_training_inputs, seed_input, validation


class DreamBoothTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamBoothTrain",
            display_name="Train with DreamBooth",
            category=CATEGORY,
            description="Fine-tunes the U-Net on the photos. The same settings again load the finished run, or go on with it.",
            search_aliases=["fine-tune", "finetune", "train checkpoint"],
            is_output_node=True,
            inputs=[
                *BASE_INPUTS,
                Dataset.Input("dataset", tooltip="Photos whose captions have the token, from Caption with Token."),
                io.String.Input("name", default="my-subject", tooltip="Name of the run and of the exported checkpoint."),
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
                Dataset.Input(
                    "class_dataset",
                    optional=True,
                    tooltip="Photos of other members of the class, 50 to 200, from a second photo loader: training keeps the "
                    "model's idea of the class by them (prior preservation). Each step sees as many of them as of the subject's.",
                ),
                io.Float.Input(
                    "prior_loss_weight",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    advanced=True,
                    tooltip="How much the loss on the class photos counts. Without class photos it means nothing.",
                ),
            ],
            outputs=[
                io.Model.Output("trained_model", display_name="MODEL", tooltip="The model with the trained U-Net."),
                io.Clip.Output("trained_clip", display_name="CLIP", tooltip="The text encoder of the exported checkpoint."),
                io.Vae.Output("trained_vae", display_name="VAE", tooltip="The VAE of the exported checkpoint."),
                LossMap.Output("loss", display_name="LOSS_MAP", tooltip="The loss of every step, for Plot Loss Graph."),
                io.String.Output("path", tooltip="The exported checkpoint file."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return validation(check_name, name)

    @classmethod
    def execute(cls, model, clip, vae, dataset: PhotoDataset, name: str, precision: str, **options) -> io.NodeOutput:
        if not dataset.token:
            raise ValueError("The dataset has no token. Put Caption with Token between the photo loader and this node.")
        class_dataset, prior_loss_weight = options.pop("class_dataset", None), options.pop("prior_loss_weight", 1.0)
        if class_dataset:
            class_dataset = class_images_for(dataset, class_dataset)
        settings = Settings(
            method="dreambooth",
            token=dataset.token,
            class_word=dataset.class_word,
            precision=host.resolve_precision(precision),
            prior_loss_weight=prior_loss_weight if class_dataset else 0.0,
            **options,
        )
        base = host.Base(model, clip, vae)
        run = host.make_run(check_name(name), settings, base, dataset, class_dataset)
        finished = runner.train(run, base, cls.hidden.unique_id)
        return io.NodeOutput(*host.load_checkpoint(finished.file), finished.loss, str(finished.file), ui=finished.summary)


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
