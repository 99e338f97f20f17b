"""One small tokenizer for all of them."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK, MASK = range(5)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
TOKENIZER_SIZE = 300
"""Special tokens, the 256 bytes, and some merges"""

_PARAGRAPH = """
A ship left the harbour in the morning, and the people on the quay looked after her until she was
no more than a point on the sea. The captain said that the wind would turn before the night. Some
believed him; the others went below, where it was warm, and spoke of the houses that they had left,
of the children and of the price of corn. In the evening the wind had turned, as he had said.
"""


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of TOKENIZER_SIZE tokens: the same each time.

    Texts begin with BOS, but for sequence to sequence; where a model doesn't predict next tokens,
    they end with EOS.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_PARAGRAPH], trainer)
    begin = [] if kind == "seq2seq" else [SPECIAL[BOS]]
    end = [SPECIAL[EOS]] if kind in ("masked", "encoder", "seq2seq") else []
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*begin, "$A", *end], special_tokens=[(SPECIAL[BOS], BOS), (SPECIAL[EOS], EOS)]
    )
    return _with_names(tokenizer)


def _with_names(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    pad, bos, eos, unk, mask = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        mask_token=mask,
        cls_token=bos,
        sep_token=eos,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
    )
