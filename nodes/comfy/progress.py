"""Progress of a node in ComfyUI, and the user's wish to cancel it."""

from contextlib import suppress
from pathlib import Path

import comfy.model_management
import comfy.utils
from PIL import Image
from server import PromptServer


def check_interrupted() -> None:
    """Raise ComfyUI's own exception, a BaseException, when the user cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class NodeProgress:
    """The progress bar of a node, its preview picture, and the text below it."""

    def __init__(self, node_id: str):
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)

    def bar(self, done: int, total: int) -> None:
        """Show whoever queued the graph that `done` of `total` units of work are done. Raises as `check_interrupted`."""
        if running_client() is None:
            check_interrupted()  # as ComfyUI does where a bar moves
        else:
            self._bar.update_absolute(done, max(total, 1))

    def picture(self, path: Path) -> None:
        """Show the picture as the node's preview, as samplers do, to whoever queued the graph. Raises as `bar`."""
        if running_client() is None:
            check_interrupted()
            return
        with suppress(OSError), Image.open(path) as image:
            self._bar.update_absolute(self._bar.current, preview=("JPEG", image.convert("RGB"), None))

    def text(self, text: str) -> None:
        """Show the text to whoever queued the graph, in place of the one before."""
        client = running_client()
        if client is not None:
            PromptServer.instance.send_progress_text(text, self._node_id, client)


def running_client() -> str | None:
    """Return the id of the client whose graph is running; None for one that gave none, to whom nothing can be sent.

    What ComfyUI is asked to send to None goes to everybody.
    """
    client = PromptServer.instance.client_id
    return client if isinstance(client, str) else None
