"""Small tokenizers of the kinds that there are, each trained on a few lines."""

import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.support.tiny_models import TOKENIZER_TEXT

MARKS = ["<s>", "</s>", "<unk>"]


def byte_level(prefix_space=False, roberta=False, normalizer=None):
    """Like GPT-2's, or RoBERTa's, which puts <s> and </s> around and trims white space off spans;
    prefix_space: a space is put before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, pre_tokenizers.ByteLevel.alphabet())
    if normalizer:
        tokenizer.normalizer = normalizer
    if roberta:
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", 1), ("<s>", 0), trim_offsets=True, add_prefix_space=prefix_space
        )
    return fast(tokenizer)


def sentencepiece(by_normalizer=False):
    """Like Llama's, with <s> before a text and bytes for unknown characters; the sign ▁ is put in
    by the normaliser, as in Llama 2, or by the pre-tokeniser."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if by_normalizer:
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(steps)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    _train(tokenizer, [], [f"<0x{byte:02X}>" for byte in range(256)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return fast(tokenizer)


def fast(tokenizer, **settings):
    """As transformers has it."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", **settings
    )


def _train(tokenizer, alphabet, more=()):
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*MARKS, *more],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TOKENIZER_TEXT.splitlines(), trainer)
