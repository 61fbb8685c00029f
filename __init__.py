"""Subject Trainer: teach Stable Diffusion v1.5 a subject of your own, inside ComfyUI."""

WEB_DIRECTORY = "./js"


async def comfy_entrypoint():
    from .nodes import SubjectTrainer  # here, so that tools may import this file without ComfyUI

    return SubjectTrainer()
