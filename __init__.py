"""Subject Trainer: teach Stable Diffusion v1.5 a subject of your own, inside ComfyUI."""

WEB_DIRECTORY = "./js"


async def comfy_entrypoint():
    """Return the pack's extension; ComfyUI calls this when it loads its custom nodes."""
    from .nodes.extension import SubjectTrainer  # here, so that tools can import this file without ComfyUI

    return SubjectTrainer()
