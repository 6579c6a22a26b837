"""A tiny Llama with grouped queries, a tied head and a tokenizer of its own, as a folder of transformers."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<end>"
NUM_TOKENS = 300
LINES = ["Question: Is this EEG segment of high workload? Answer: Yes", "Question: Is it not? Answer: No"]


def write_llama(folder: Path, *, with_tokenizer: bool = True, end: str | None = END) -> Path:
    """300 byte-pair ids, two layers of width 16, four query heads on two key heads."""
    torch.manual_seed(5)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=NUM_TOKENS,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            initializer_range=0.2,
        )
    )
    model.save_pretrained(folder)
    if with_tokenizer:
        write_tokenizer(folder, end=end)
    return folder


def write_tokenizer(folder: Path, *, end: str | None = END) -> None:
    """A byte-pair tokenizer of 300 ids; ``end``, its id 0, is what it calls its end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
