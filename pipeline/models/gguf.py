"""GGUF files, as llama.cpp uses them, turned into Hugging Face folders: once, since reading one is slow."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from pipeline.errors import ModelError
from pipeline.folders import digest_file, private_folder, sync, write_text


def converted(file: Path, models: Path) -> Path:
    """The Hugging Face folder of a GGUF file, below `models`; made at the first call, found again by the file's digest.

    Raises:
        ModelError: the file cannot be read as a causal language model.
    """
    folder = models / f"{file.stem}-{digest_file(file)[:12]}"
    if not (folder / "config.json").is_file():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        private_folder(models)
        try:
            convert(file, partial)
            publish(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def convert(file: Path, folder: Path, licence: str = "not stated") -> None:
    """Write the model and tokenizer of a GGUF file as a Hugging Face folder in bfloat16, quantised weights multiplied out.

    Raises:
        ModelError: the file cannot be read as a causal language model, or the package that reads it is missing.
    """
    if find_spec("gguf") is None:
        raise ModelError("Reading a GGUF file needs the package gguf: install it with `pip install gguf`.")
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    hf_logging.disable_progress_bar()
    try:
        read = cast(Any, AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **where))
        tokenizer = cast(Any, AutoTokenizer.from_pretrained(str(file.parent), **where))
    except Exception as error:  # the reader raises whatever it meets: KeyError, ValueError, struct.error, …
        raise ModelError(
            f"The file {file.name} cannot be read as a language model ({type(error).__name__}): give a GGUF file of a Llama or "
            "Qwen2 model, or a folder saved by save_pretrained."
        ) from error
    known = {key: value for key, value in read.config.to_dict().items() if key not in ("quantization_config", "_name_or_path")}
    plain = cast(Any, AutoModelForCausalLM.from_config(type(read.config)(**known)))
    plain.load_state_dict(read.state_dict())
    plain.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_text(folder / "README.md", f"---\nlicense: {licence}\n---\n\nConverted from `{file.name}`.\n", mode=0o644)


def publish(partial: Path, folder: Path) -> None:
    """Put a whole model folder in its place, durably; one that another process put there first is as good."""
    for path in partial.rglob("*"):
        sync(path)
    try:
        os.replace(partial, folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise
    sync(folder.parent)
