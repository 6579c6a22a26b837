"""The text code of a pretrained language model: the tokenizer that ``transformers`` finds beside it."""

from typing import Any

from tokenizers import Tokenizer

from neurolm.config import UserError
from neurolm.text.bpe import KNOWN_TEXT, NUM_IDS, gpt2_bpe, is_gpt2
from neurolm.text.code import TextCode


def own_code(name_or_path: str, gguf_file: str | None, model_type: str, num_rows: int) -> TextCode:
    """The code that a model of ``num_rows`` text rows was trained with; an answer ends with its end of text alone.

    GPT-2's code is `gpt2_bpe`, with the released code's end of an answer, also where its tokenizer was not saved.

    Raises:
        UserError: no tokenizer is there, it is not one of the ``tokenizers`` library, or it has no end of text.
    """
    found = _tokenizer(name_or_path, gguf_file)
    if found is None and model_type == "gpt2" and num_rows >= NUM_IDS:
        return gpt2_bpe()
    if found is None:
        raise UserError(
            f"{name_or_path}: no tokenizer that can write {KNOWN_TEXT!r} was found beside the {model_type} model; save "
            "it into the same folder with its save_pretrained"
        )
    if found.eos_token_id is None:
        raise UserError(f"{name_or_path}: its tokenizer has no end of text; set its eos_token and save it again")
    code = TextCode(
        tokenizer=Tokenizer.from_str(found.backend_tokenizer.to_str()),
        num_ids=max(num_rows, len(found)),
        end_of_text=found.eos_token_id,
        answer_end=(found.eos_token_id,),
    )
    return gpt2_bpe() if is_gpt2(code, len(found)) else code


def _tokenizer(name_or_path: str, gguf_file: str | None) -> Any:
    """A tokenizer of ``transformers`` that works, or None; without files, some families come as empty ones."""
    from transformers import AutoTokenizer

    options = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        found: Any = AutoTokenizer.from_pretrained(name_or_path, **options)
    except (OSError, ValueError):
        return None
    if not found.is_fast:
        raise UserError(f"{name_or_path}: its tokenizer has no tokenizer.json, which neurolm needs; convert it first")
    ids = found.encode(KNOWN_TEXT, add_special_tokens=False)
    return found if KNOWN_TEXT in found.decode(ids) else None
