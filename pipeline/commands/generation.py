"""`hushtune generate` and `hushtune synthesize`: text from a release, which is verified first, or from a base model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.common import answer, quiet, watched
from pipeline.commands.govern import check_release, release_folder
from pipeline.errors import InputError, UsageError
from pipeline.folders import check_parent, write_lines

if TYPE_CHECKING:
    from pipeline.guard import Guard
    from pipeline.models import Base, Decoding

_BATCH = 16


def generate(arguments: argparse.Namespace) -> int:
    """Continue a prompt, or each prompt of a file."""
    quiet()
    from pipeline import models

    if arguments.prompts is not None and (arguments.prompt or arguments.stream):
        raise UsageError("--prompts takes its prompts from a file: leave --prompt and --stream out.")
    if arguments.output is not None and arguments.prompts is None:
        raise UsageError("--output takes what --prompts asks for: give --prompts as well.")
    if arguments.stream and (arguments.guard or arguments.json):
        raise UsageError("--stream prints text as it comes: leave --guard and --json out.")
    if arguments.output is not None:
        check_parent(arguments.output)
    model, tokenizer, guard = _load(arguments)
    decoding = _decoding(arguments)
    if arguments.prompts is not None:
        return _many(arguments, model, tokenizer, guard)
    prompt = models.chat(tokenizer, [{"role": "user", "content": arguments.prompt}]) if arguments.chat else arguments.prompt
    if arguments.stream:
        print("" if arguments.chat else prompt, end="", flush=True)
        for piece in models.stream(model, tokenizer, prompt, decoding):
            print(piece, end="", flush=True)
        print()
        return 0
    text = models.generate(model, tokenizer, prompt, decoding)
    text = guard.check([text])[0] if guard else text
    content = {"model": arguments.model, "prompt": arguments.prompt, "text": text} | _hits(guard)
    answer(arguments, content, ("" if arguments.chat else arguments.prompt) + text + _words(guard))
    return 0


def synthesize(arguments: argparse.Namespace) -> int:
    """Write a synthetic corpus with a release, and how close it comes to the private records."""
    quiet()
    from pipeline import models, synthesis

    if arguments.count < 1:
        raise UsageError(f"--count {arguments.count} asks for no record: give at least 1.")
    check_parent(arguments.output)
    model, tokenizer, guard = _load(arguments)
    decoding = _decoding(arguments)
    prompts = _prompts(arguments.prompts, tokenizer) if arguments.prompts else [""]
    seed = decoding.seed

    def write(count: int) -> Iterator[list[str]]:
        for start in range(0, count, _BATCH):
            asked = [prompts[at % len(prompts)] for at in range(start, min(start + _BATCH, count))]
            fresh = decoding if seed is None else decoding.model_copy(update={"seed": seed + start})
            made = models.generate_all(model, tokenizer, asked, fresh)
            yield [text.strip() for text in made]

    with watched("synthesize", "records") as line:
        made = synthesis.synthesize(
            write,
            tokenizer,
            arguments.count,
            arguments.output,
            guard=guard,
            planted=_planted(arguments.model, arguments.home),
            progress=line,
        )
    answer(arguments, made.model_dump(mode="json"), _synthetic(made))
    return 0


def adapted(
    ref: str, home: Path, *, keys: Sequence[Path] = (), unverified: bool = False, of: str | None = None
) -> tuple[Base, Path]:
    """The base model and the adapter folder of a release, which is verified first, or of a bare adapter's folder.

    Args:
        ref: release name, NAME/VERSION, or folder.
        home: folder of all state.
        keys: public keys to trust instead of the home's.
        unverified: take what does not verify, and adapters that are no release.
        of: the base model, where the folder has no policy that names it.

    Raises:
        UsageError: there is no such release, it lies outside of the home and no key is given, or no base model is named.
        IntegrityError: it does not verify.
    """
    from pipeline import models, policy

    folder = release_folder(ref, home)
    if folder is None:
        folder = Path(ref)
        if not (folder / "adapter_config.json").is_file():
            raise UsageError(f"There is no release {ref} in {home / 'releases'}: see `hushtune releases`.")
        if not unverified:
            raise UsageError(f"{folder} is no release, so nothing vouches for it: give --unverified to use it all the same.")
    elif not unverified:
        check_release(folder, home, keys)
    if of is None and not (folder / "policy.json").is_file():
        raise UsageError(f"{folder} does not say which base model it belongs to: name it by --base-model.")
    return models.resolve(of or policy.load(folder / "policy.json").model, home), folder


def _load(arguments: argparse.Namespace) -> tuple[Any, Any, Guard | None]:
    """The model, its tokenizer, and the guard that was asked for: by a release's own policy, or the default one."""
    from pipeline import models, policy
    from pipeline.guard import Guard

    ref, home = arguments.model, arguments.home
    if release_folder(ref, home) is None and not (Path(ref) / "adapter_config.json").is_file():
        model, tokenizer = models.load(models.resolve(ref, home))
        rules = policy.load("default")
    else:
        base, folder = adapted(ref, home, keys=arguments.key or (), unverified=arguments.unverified, of=arguments.base_model)
        model, tokenizer = models.with_adapter(base, folder)
        rules = policy.load(folder / "policy.json" if (folder / "policy.json").is_file() else "default")
    return model, tokenizer, Guard(rules.scrub) if arguments.guard else None


def _decoding(arguments: argparse.Namespace) -> Decoding:
    from pydantic import ValidationError

    from pipeline.models import Decoding

    names = ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "beams", "seed")
    try:
        return Decoding(
            method=arguments.decoding,
            stop=tuple(arguments.stop or ()),
            **{name: value for name in names if (value := getattr(arguments, name)) is not None},
        )
    except ValidationError as error:
        where = error.errors()[0]
        flag = "--" + str(where["loc"][0]).replace("_", "-")
        raise UsageError(f"{flag} {where['input']} is out of range: {where['msg'].lower()}.") from None


def _many(arguments: argparse.Namespace, model: Any, tokenizer: Any, guard: Guard | None) -> int:
    from pipeline import models

    prompts, decoding = _prompts(arguments.prompts, tokenizer), _decoding(arguments)
    seed = decoding.seed

    def lines() -> Iterator[str]:
        with watched("generate", "prompts") as line:
            for start in range(0, len(prompts), _BATCH):
                fresh = decoding if seed is None else decoding.model_copy(update={"seed": seed + start})
                part = prompts[start : start + _BATCH]
                texts = models.generate_all(model, tokenizer, part, fresh)
                texts = guard.check(texts) if guard else texts
                for prompt, text in zip(part, texts, strict=True):
                    yield json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False) + "\n"
                line(start + len(part), len(prompts))

    if arguments.output is not None:
        count = write_lines(arguments.output, lines())
        content = {"model": arguments.model, "prompts": count, "output": str(arguments.output)} | _hits(guard)
        answer(arguments, content, f"{arguments.output}: {count:,} texts." + _words(guard))
        return 0
    written = list(lines())
    if arguments.json:
        content = {"model": arguments.model, "texts": [json.loads(one) for one in written]} | _hits(guard)
        answer(arguments, content, "")
    else:
        sys.stdout.writelines(written)
        print(_words(guard).strip(), file=sys.stderr)
    return 0


def _prompts(path: Path, tokenizer: Any) -> list[str]:
    """The prompts of a file: each line its own, or in a .jsonl file {"prompt": …} or {"messages": [{"role", "content"}]}."""
    from pipeline import models

    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}): give a UTF-8 text file of prompts.") from None
    if not lines:
        raise InputError(f"{path} holds no prompt: write one on each line.")
    if path.suffix != ".jsonl":
        return lines
    made = []
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
            made.append(content["prompt"] if "prompt" in content else models.chat(tokenizer, content["messages"]))
        except (ValueError, KeyError, TypeError):
            raise InputError(f'{path}, line {number}, holds no {{"prompt": …}} and no {{"messages": […]}}.') from None
    return made


def _planted(ref: str, home: Path) -> Path | None:
    """The folder of the run's private records, where it is still here."""
    from pipeline import _manifest

    folder = release_folder(ref, home)
    if folder is None:
        return None
    planted = home / "runs" / _manifest.read(folder).run / "planted"
    return planted if (planted / "train.jsonl").is_file() and (planted / "held_out.jsonl").is_file() else None


def _hits(guard: Guard | None) -> dict[str, Any]:
    return {} if guard is None else {"guard": guard.found.model_dump(mode="json")}


def _words(guard: Guard | None) -> str:
    if guard is None:
        return ""
    found = guard.found
    hits = ", ".join(f"{count} {entity}" for entity, count in found.hits.items()) or "nothing"
    return f"\n(guard: {hits} replaced in {found.texts_with_hits} of {found.texts} texts)"


def _synthetic(made: Any) -> str:
    lines = [f"{made.output}: {made.texts:,} records, {made.tokens:,} tokens."]
    if made.guarded is not None:
        hits = ", ".join(f"{count:,} {entity}" for entity, count in made.guarded.hits.items()) or "nothing"
        lines.append(f"Guard: {hits} replaced in {made.guarded.texts_with_hits:,} of {made.guarded.texts:,} records.")
    if made.overlap is None:
        lines.append("Overlap with the training records: not measured (no run with its records is here).")
    else:
        lines.append(
            f"Equal to a training record: {made.overlap.equal:,}; sharing 13 words in a row with one: {made.overlap.sharing:,}."
        )
    if made.distance is not None:
        lines.append(
            f"Token distribution: {made.distance.synthetic:.3f} from held-out records (two halves of those: "
            f"{made.distance.floor:.3f})."
        )
    lines.append(made.note)
    return "\n".join(lines)
