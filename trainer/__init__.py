"""The training engine: runs as its own process, knows nothing of ComfyUI.

`config`, `photos`, `captions`, `rundir` are plain data and may be imported by the nodes; everything else loads diffusers.
"""
