"""The training engine: runs as its own process, knows nothing of ComfyUI.

`config`, `photos`, `framing`, `captions`, `needs`, `rundir` are plain data and may be imported by the nodes; everything
else loads diffusers.
"""
