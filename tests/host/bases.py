"""Write small checkpoints of other model families, with ComfyUI's own U-Net: what the nodes must refuse.

python tests/host/bases.py COMFYUI FOLDER
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

SD1 = {"context_dim": 768, "num_heads": 8, "transformer_depth": [1, 0], "transformer_depth_output": [1, 1, 0, 0]}
SD2 = {**SD1, "context_dim": 1024, "num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True}
FAMILIES = {
    "inpainting": {**SD1, "in_channels": 9},
    "sd2": SD2,
    "sdxl": {
        "context_dim": 2048,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 1, 1],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    },
}
COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
}


def main(comfyui: str, folder: str) -> None:
    sys.path.insert(0, comfyui)
    import comfy.cli_args  # its parser must not see our arguments

    comfy.cli_args.args.cpu = True
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    for family, config in FAMILIES.items():
        model = UNetModel(**(COMMON | config), dtype=torch.float16, device="meta", operations=comfy.ops.disable_weight_init)
        weights = {f"model.diffusion_model.{k}": torch.zeros(v.shape, dtype=v.dtype) for k, v in model.state_dict().items()}
        save_file(weights, Path(folder) / f"{family}.safetensors")


if __name__ == "__main__":
    arguments, sys.argv[1:] = sys.argv[1:], []
    main(*arguments)
