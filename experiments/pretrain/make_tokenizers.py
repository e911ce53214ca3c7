"""Trains the tokenizers of the two shipped backbones on the pretraining text: `python make_tokenizers.py`.

They are written beside this script, into `tiny_llama/` and `tiny_bert/`.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from ftlab.data.sources.python_docs import PythonDocs

HERE = Path(__file__).parent
# Large enough for whole words of this text, small enough that two thirds of the parameters are not embeddings.
VOCABULARY = 3072
LLAMA_CONTEXT = 512
BERT_CONTEXT = 256
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def training_texts() -> list[str]:
    """The passages that the backbones train on; validation and the held-out packages are not among them."""
    return [str(row["text"]) for row in PythonDocs(part="pretraining").rows("train")]


def byte_level_bpe(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that no text is unknown; runs of spaces are tokens, because indentation is common here."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=LLAMA_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def wordpiece(texts: list[str]) -> BertTokenizer:
    """Uncased WordPiece with BERT's five special tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = sorted({letter for text in texts for letter in tokenizer.normalizer.normalize_str(text) if not letter.isspace()})
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        # The trainer would number the continuing letters in the order of a hash table, another one in every process.
        special_tokens=[*SPECIAL, *alphabet, *(f"##{letter}" for letter in alphabet)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=True, model_max_length=BERT_CONTEXT)


def main() -> None:
    """Writes both tokenizers and prints how well they compress the training text."""
    texts = training_texts()
    characters = sum(map(len, texts))
    for name, tokenizer in (("tiny_llama", byte_level_bpe(texts)), ("tiny_bert", wordpiece(texts))):
        tokenizer.save_pretrained(HERE / name)
        tokens = sum(map(len, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]))
        print(f"{name}: {len(tokenizer)} entries, {tokens} training tokens, {characters / tokens:.2f} characters a token")


if __name__ == "__main__":
    main()
