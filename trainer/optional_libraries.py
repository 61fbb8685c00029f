"""Libraries that diffusers, transformers and accelerate load whenever they find them, and that few runs use. Plain, no torch.

Loading them takes longer than diffusers itself, and one that is broken (after an update of torch, say) would end every run.
"""

import sys

HIDDEN = ("bitsandbytes", "flash_attn", "peft", "sageattention", "scipy", "torchaudio", "torchvision", "xformers")


def hide_optional_libraries() -> None:
    """Let those that are not loaded yet seem not installed: to be called before the libraries that look for them are loaded."""
    for name in HIDDEN:
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType] - None there is how Python says so


def show_library(name: str) -> None:
    """Let one of them be imported from now on."""
    if name in sys.modules and sys.modules[name] is None:
        del sys.modules[name]
