"""Base models and their LoRA adapters: find, pull, load, adapt, generate.

base = resolve("nano", home)
model, tokenizer = load(base)
print(generate(model, tokenizer, "Dear"))
"""

from pipeline.models.adapters import adapt, export, save_adapter, with_adapter
from pipeline.models.base import BUNDLED, Adaptation, Base, device, load, load_tokenizer, resolve
from pipeline.models.generation import Decoding, chat, continue_all, generate, generate_all, stream

__all__ = [
    "BUNDLED",
    "Adaptation",
    "Base",
    "Decoding",
    "adapt",
    "chat",
    "continue_all",
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
