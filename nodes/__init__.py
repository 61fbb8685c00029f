"""The five nodes. This package may import ComfyUI, and of `trainer` only the plain-data modules."""

from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .dataset import CaptionWithToken, DatasetLoader
from .dreambooth import DreamBoothTrain
from .language import on_prompt
from .load_finetuned import LoadFinetuned
from .routes import add_routes
from .textual_inversion import TextualInversionTrain


class SubjectTrainer(ComfyExtension):
    async def on_load(self) -> None:
        add_routes()
        PromptServer.instance.add_on_prompt_handler(on_prompt)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [DatasetLoader, CaptionWithToken, DreamBoothTrain, TextualInversionTrain, LoadFinetuned]
