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
    def execute(cls, model, clip, vae, dataset: PhotoDataset, name: str, precision: str, **widgets) -> io.NodeOutput:
        if not dataset.token:
            raise ValueError("The dataset has no token. Put Caption with Token between the photo loader and this node.")
        settings = Settings(
            method="dreambooth",
            token=dataset.token,
            class_word=dataset.class_word,
            precision=host.resolve_precision(precision),
            **widgets,
        )
        base = host.Base(model, clip, vae)
        run = host.make_run(check_name(name), settings, dataset, base)
        finished = runner.train(run, base, cls.hidden.unique_id)
        return io.NodeOutput(*host.load_checkpoint(finished.file), finished.loss, str(finished.file), ui=finished.summary)
