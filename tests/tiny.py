"""Tiny models, tokenizers and records that tests share; all made on the spot from a seed."""

from __future__ import annotations

import json
import string
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"


@cache
def words(count: int = 320) -> tuple[str, ...]:
    """Distinct pronounceable lower-case words of four letters."""
    made = (a + b + c + d for a in CONSONANTS for b in VOWELS for c in CONSONANTS for d in VOWELS)
    return tuple(word for word, _ in zip(made, range(count), strict=False))


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose vocabulary is the bytes and the words of `words`, each with its space as one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0, "<|pad|>": 1}
    merges: list[tuple[str, str]] = []
    for piece in alphabet:
        vocabulary[piece] = len(vocabulary)
    for word in words():
        built = "Ġ"
        for letter in word:
            pair = (built, letter)
            built += letter
            if built not in vocabulary:
                vocabulary[built] = len(vocabulary)
                merges.append(pair)
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        model_max_length=128,
    )


def llama(layers: int = 2, width: int = 32, seed: int = 0) -> PreTrainedModel:
    """A random Llama with tied embeddings."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer()),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        )
    ).eval()


def gpt2(layers: int = 2, width: int = 32, seed: int = 0) -> PreTrainedModel:
    """A random GPT-2, whose linear layers are Conv1D."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer()),
            n_embd=width,
            n_layer=layers,
            n_head=4,
            n_positions=128,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    ).eval()


def qwen(layers: int = 2, width: int = 32, seed: int = 0) -> PreTrainedModel:
    """A random Qwen2, whose attention projections have biases."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer()),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()


FAMILIES = {"llama": llama, "gpt2": gpt2, "qwen": qwen}


def save(folder: Path, model: PreTrainedModel | None = None) -> Path:
    """A Hugging Face folder with a tiny model and its tokenizer."""
    (model or llama()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def gguf(file: Path, model: PreTrainedModel | None = None) -> Path:
    """A GGUF file of a tiny Llama and the tokenizer, as llama.cpp's own converter lays them out."""
    from gguf import GGUFWriter

    model = model or llama()
    config, weights = model.config, {name: value.float().numpy() for name, value in model.state_dict().items()}
    writer = GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    known = tokenizer()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(known.get_vocab(), key=known.get_vocab().get))
    writer.add_token_types([3, 3, *[1] * (len(known) - 2)])
    merges = json.loads(known.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    names = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            if ours in heads:  # llama.cpp keeps the two halves of a head interleaved
                count, (rows, width) = heads[ours], weight.shape
                weight = weight.reshape(count, 2, rows // count // 2, width).swapaxes(1, 2).reshape(rows, width)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def sentence(seed: int, length: int) -> str:
    """A repeatable sentence of `length` words."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(words()), (length,), generator=generator).tolist()
    return " ".join(words()[pick] for pick in picks)


assert set("".join(words())) <= set(string.ascii_lowercase)
