"""Base models and their LoRA adapters: find, pull, load, adapt, generate.

base = resolve("nano", home)
model, tokenizer = load(base)
print(generate(model, tokenizer, "Dear"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "adapters": ("adapt", "export", "save_adapter", "with_adapter"),
    "base": ("BUNDLED", "Adaptation", "Base", "device", "load", "load_tokenizer", "resolve"),
    "generation": ("Decoding", "chat", "continue_all", "generate", "generate_all", "stream"),
}


def __getattr__(name: str) -> Any:
    """Import on first use: the ladder and its folders serve commands that must not wait for torch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
