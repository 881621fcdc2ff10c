"""Base models and their LoRA adapters: find, pull, load, adapt, generate.

base = resolve("nano", home)
model, tokenizer = load(base)
print(generate(model, tokenizer, "Dear"))
"""

from pipeline.models.adapters import adapt, export, save_adapter, with_adapter
from pipeline.models.base import BUNDLED, Base, device, load, load_tokenizer, resolve
from pipeline.models.generation import Decoding, chat, generate, generate_all, stream

__all__ = [
    "BUNDLED",
    "Base",
    "Decoding",
    "adapt",
    "chat",
    "device",
    "export",
    "generate",
    "generate_all",
    "load",
    "load_tokenizer",
    "resolve",
    "save_adapter",
    "stream",
    "with_adapter",
]
