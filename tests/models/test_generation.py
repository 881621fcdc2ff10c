"""Generation: each decoding against its definition, and every way in giving the same text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy import stats

from pipeline import models
from pipeline.errors import ModelError, UsageError
from pipeline.models import Decoding, generation
from tests import tiny


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    model = tiny.llama()
    for parameter in model.parameters():  # a random model is nearly indifferent between tokens; this one has opinions
        parameter.data *= 4
    return models.load(models.resolve(str(tiny.save(tmp_path_factory.mktemp("models") / "tiny", model)), Path("nowhere")))


def prompts(count: int) -> list[str]:
    return [" " + tiny.sentence(seed, 1 + seed % 7) for seed in range(count)]


def argmax_loop(model, tokenizer, prompt: str, count: int) -> list[int]:
    ids = [0, *tokenizer(prompt)["input_ids"]]
    start = len(ids)
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 0:
            break
    return ids[start:]


def test_greedy_is_a_hand_written_argmax_loop(loaded) -> None:
    model, tokenizer = loaded
    for prompt in prompts(10):
        expected = tokenizer.decode(argmax_loop(model, tokenizer, prompt, 12), skip_special_tokens=True)
        assert models.generate(model, tokenizer, prompt, Decoding(max_new_tokens=12)) == expected


def test_many_at_once_say_what_each_says_alone(loaded) -> None:
    model, tokenizer = loaded
    alone = [models.generate(model, tokenizer, prompt, Decoding(max_new_tokens=8)) for prompt in prompts(20)]
    assert models.generate_all(model, tokenizer, prompts(20), Decoding(max_new_tokens=8), batch=6) == alone
    assert len(set(alone)) > 10


def log_likelihood(model, tokenizer, prompt: str, text: list[int]) -> float:
    ids = [0, *tokenizer(prompt)["input_ids"]]
    logits = model(input_ids=torch.tensor([ids + text])).logits[0].log_softmax(-1)
    return sum(float(logits[len(ids) + at - 1, token]) for at, token in enumerate(text))


def test_beams_find_text_at_least_as_likely_as_greedy_on_fifty_prompts(loaded) -> None:
    """By the mean log-likelihood of a token, which is beam search's score; batched and left-padded prompts among them."""
    model, tokenizer = loaded
    better, found = 0, {}
    for method in ("greedy", "beam"):
        decoding = Decoding(method=method, max_new_tokens=6, beams=3)
        found[method] = [
            row.tolist()
            for start in range(0, 50, 10)
            for row in generation._continued(
                model, tokenizer, generation._padded(model, tokenizer, prompts(50)[start : start + 10], decoding), decoding
            )
        ]
    for prompt, greedy, beam in zip(prompts(50), found["greedy"], found["beam"], strict=True):
        one, other = ([*text[: text.index(0)], 0] if 0 in text else text for text in (greedy, beam))
        scores = [log_likelihood(model, tokenizer, prompt, text) / len(text) for text in (one, other)]
        assert scores[1] >= scores[0] - 1e-4
        better += scores[1] > scores[0] + 1e-4
    assert better > 5  # beams are worth their time


def test_plain_beam_search_would_lose_a_greedy_text(loaded) -> None:
    """The control of the test above: without the comparison some prompt comes out less likely than greedy."""
    model, tokenizer = loaded
    worse = 0
    for prompt in prompts(50):
        inputs = generation._padded(model, tokenizer, [prompt], Decoding(max_new_tokens=6))
        start = inputs["input_ids"].shape[1]
        texts = [
            model.generate(**inputs, **Decoding(method=method, max_new_tokens=6, beams=3).options(), pad_token_id=1)[:, start:]
            for method in ("greedy", "beam")
        ]
        greedy, beam = (float(generation._scores(model, tokenizer, inputs, text)) for text in texts)
        worse += beam < greedy - 1e-4
    assert worse > 0


@pytest.mark.parametrize(
    ("options", "keep"), [({"top_p": 1.0, "temperature": 0.7}, None), ({"top_k": 3, "top_p": 1.0, "temperature": 1.0}, 3)]
)
def test_sampling_follows_the_softmax(loaded, options, keep) -> None:
    """Chi-square of the first token over 4,000 draws against the tempered (and cut) softmax."""
    model, tokenizer = loaded
    prompt, draws = prompts(1)[0], 4_000
    logits = model(input_ids=torch.tensor([[0, *tokenizer(prompt)["input_ids"]]])).logits[0, -1] / options["temperature"]
    if keep:
        logits = torch.where(logits >= logits.topk(keep).values[-1], logits, float("-inf"))
    expected = logits.softmax(-1).double().numpy()
    inputs = generation._padded(model, tokenizer, [prompt] * draws, Decoding(max_new_tokens=1))
    torch.manual_seed(0)
    decoding = Decoding(method="sample", max_new_tokens=1, **options)
    drawn = model.generate(**inputs, **decoding.options(), pad_token_id=1)[:, -1].bincount(minlength=len(expected)).numpy()
    likely = expected * draws >= 5
    observed = [*drawn[likely], drawn[~likely].sum()]
    wanted = [*(expected[likely] * draws), expected[~likely].sum() * draws]
    if wanted[-1] < 1e-9:
        assert observed.pop() == 0
        wanted.pop()
    assert stats.chisquare(observed, wanted, sum_check=False).pvalue > 1e-3
    flat = [draws / len(wanted)] * len(wanted)
    assert stats.chisquare(observed, flat, sum_check=False).pvalue < 1e-6  # the control: not just any distribution fits


def test_sampling_follows_its_seed_and_leaves_the_global_generator_alone(loaded) -> None:
    model, tokenizer = loaded
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (
        models.generate(model, tokenizer, "", Decoding(method="sample", seed=seed, max_new_tokens=12)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", ["greedy", "sample"])
@pytest.mark.parametrize("stop", [(), ("a", "zz"), (" ",)])
def test_a_stream_joins_to_the_whole_text(loaded, method: str, stop: tuple[str, ...]) -> None:
    model, tokenizer = loaded
    for seed, prompt in enumerate(prompts(6)):
        decoding = Decoding(method=method, max_new_tokens=16, seed=seed, stop=stop)
        pieces = list(models.stream(model, tokenizer, prompt, decoding))
        whole = models.generate(model, tokenizer, prompt, decoding)
        assert "".join(pieces) == whole
        assert not any(one in whole for one in stop)


def test_a_stream_comes_piece_by_piece(loaded) -> None:
    assert len(list(models.stream(*loaded, prompts(3)[2], Decoding(max_new_tokens=30)))) > 3


def test_a_failure_inside_a_stream_reaches_the_reader(loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = loaded
    monkeypatch.setattr(model, "generate", lambda **_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        list(models.stream(model, tokenizer, "x"))


@pytest.mark.parametrize(
    ("pieces", "stop", "expected"),
    [
        (["ab", "cd"], (), "abcd"),
        (["ab", "cEN", "Dx", "y"], ("END",), "abc"),
        (["aE", "N", "x"], ("END",), "aENx"),
        (["aE", "N"], ("END",), "aEN"),
        (["xEND"], ("END", "x"), ""),
        (["a\n", "\n", "b"], ("\n\n",), "a"),
    ],
)
def test_text_is_held_back_only_while_it_may_be_a_stop(pieces, stop, expected) -> None:
    assert "".join(generation._before(iter(pieces), stop)) == expected == generation._until("".join(pieces), stop)


def test_a_stop_ends_the_text_before_it(loaded) -> None:
    model, tokenizer = loaded
    whole = models.generate(model, tokenizer, prompts(3)[2], Decoding(max_new_tokens=20))
    stop = whole[len(whole) // 2 :][:3]
    assert len(whole) > 10
    assert (
        models.generate(model, tokenizer, prompts(3)[2], Decoding(max_new_tokens=20, stop=(stop,)))
        == whole[: whole.index(stop)]
    )


def test_repetition_is_penalised(loaded) -> None:
    model, tokenizer = loaded
    plain, varied = (
        models.generate(model, tokenizer, "", Decoding(max_new_tokens=60, repetition_penalty=penalty)) for penalty in (1.0, 5.0)
    )
    assert len(set(tokenizer(varied)["input_ids"])) > len(set(tokenizer(plain)["input_ids"]))


def test_what_cannot_be_is_refused_with_the_mend(loaded) -> None:
    model, tokenizer = loaded
    with pytest.raises(UsageError, match="Beam search has no text before it ends"):
        next(models.stream(model, tokenizer, "x", Decoding(method="beam")))
    with pytest.raises(UsageError, match="do not fit the model's context of 128"):
        models.generate(model, tokenizer, tiny.sentence(0, 100), Decoding(max_new_tokens=64))
    with pytest.raises(ModelError, match="no chat template"):
        models.chat(tokenizer, [{"role": "user", "content": "hello"}])


def test_a_chat_is_put_into_the_models_template(loaded) -> None:
    _, tokenizer = loaded
    template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer.chat_template = template
    try:
        prompt = models.chat(tokenizer, [{"role": "user", "content": "hello"}])
    finally:
        tokenizer.chat_template = None
    assert prompt == "<|endoftext|>[user]hello[assistant]"
    ids = generation._padded(loaded[0], tokenizer, [prompt], Decoding())["input_ids"][0].tolist()
    assert ids.count(0) == 1  # the beginning is not written twice
