"""A tokenizer of bytes: five special tokens, then one token for each byte; it needs no training and no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""Ids 0 to 4; the 256 bytes follow."""


def byte_tokenizer(pairs: bool, segments: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte of UTF-8.

    Args:
        pairs: Enclose a text as encoders do: `<s>` a `</s>`, and a pair as `<s>` a `</s>` b `</s>`; else only `<s>` a.
        segments: Give `token_type_ids`, 1 for the second text of a pair.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *symbols])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    if pairs:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1" if segments else "<s> $A </s> $B </s>", special_tokens=marks
        )
    else:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=marks)
    names = ["input_ids", "token_type_ids", "attention_mask"] if segments else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>", cls_token="<s>", sep_token="</s>", model_input_names=names,
    )  # fmt: skip
