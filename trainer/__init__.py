"""The training engine: runs as its own process, knows nothing of ComfyUI.

recipes/    dreambooth, textual_inversion: a run from top to bottom, the loop in sight. Read these first.
training/   the step, the loss, optimizers, validation, sample images, saved state, export
data/       latents and text embeddings, computed once; which photos and noise a batch has; class images
models/     SD v1.5 from a checkpoint file, its names, the token's embedding
context.py  what every piece of a run needs to know of it; failures.py says why something failed
__main__.py starts the worker process; worker.py takes one run from its directory to its result; optional_libraries.py hides
            from them what few runs use
---------- below this line: plain data, no torch; the nodes import run/ and dataset/ alone
parts/      what is trained, a part a file: U-Net, LoRA, text encoder, rows or vectors of the token. Plain data until a part is
            made, which loads torch: run/ imports it for the choices of `train` and for the memory that a run takes
run/        settings, run directory, events, messages, what a run takes
dataset/    photos, captions, crop, prompt templates
"""
