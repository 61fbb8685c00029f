"""The pack as ComfyUI sees it: its six nodes, and its routes for the page."""

from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .caption_with_token import CaptionWithToken
from .dataset_loader import DatasetLoader
from .dreambooth_train import DreamBoothTrain
from .evaluate_subject import EvaluateSubject
from .load_finetuned import LoadFinetuned
from .page.checked_graph import on_prompt
from .page.routes import add_routes
from .textual_inversion_train import TextualInversionTrain


class SubjectTrainer(ComfyExtension):
    """The pack as ComfyUI loads it."""

    async def on_load(self) -> None:
        """Add the routes, and have each queued graph pass by."""
        add_routes()
        PromptServer.instance.add_on_prompt_handler(on_prompt)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the six nodes."""
        return [DatasetLoader, CaptionWithToken, DreamBoothTrain, TextualInversionTrain, LoadFinetuned, EvaluateSubject]
