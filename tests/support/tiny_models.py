"""Tiny randomly initialised models of each family, with a real byte-level BPE tokenizer."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TOKENIZER_TEXT = """
The senate met to ratify the treaty with Spain, and the house agreed to the report on the public
lands of the west. The river rose in the spring and the farmers of the valley moved to the hills
with their cattle. A nation that forgets its debts will soon be asked to pay them twice. The ships
left the harbour in the morning, and the people of the town stood on the walls to see them go.
What is the price of peace? The answer was not in the report; it was in the hands of the people.
"""

# d_model and n_layers are filled in; everything else is as small as the family allows.
FAMILIES = {
    "llama": ("LlamaConfig", "AutoModelForCausalLM"),
    "mistral": ("MistralConfig", "AutoModelForCausalLM"),
    "qwen2": ("Qwen2Config", "AutoModelForCausalLM"),
    "qwen3": ("Qwen3Config", "AutoModelForCausalLM"),
    "gemma2": ("Gemma2Config", "AutoModelForCausalLM"),
    "gemma3": ("Gemma3TextConfig", "AutoModelForCausalLM"),
    "phi": ("PhiConfig", "AutoModelForCausalLM"),
    "gpt2": ("GPT2Config", "AutoModelForCausalLM"),
    "gpt_neox": ("GPTNeoXConfig", "AutoModelForCausalLM"),
    "opt": ("OPTConfig", "AutoModelForCausalLM"),
    "bert": ("BertConfig", "AutoModel"),
}


def save_tiny_model(folder, family="llama", seed=0, d_model=16, n_layers=4):
    """Write a model (safetensors) and its tokenizer into `folder`, ready for load_model."""
    folder = Path(folder)
    tokenizer = tiny_tokenizer(with_marks=family == "bert")
    tiny_module(family, seed, d_model, n_layers, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_module(family="llama", seed=0, d_model=16, n_layers=4, n_vocabulary=512):
    """The bare transformers model; its weights depend on `seed` alone."""
    config_class, auto_class = FAMILIES[family]
    config = getattr(transformers, config_class)(
        vocab_size=n_vocabulary, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        **_sizes(family, d_model, n_layers),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = getattr(transformers, auto_class).from_config(config)
        for name, weight in module.named_parameters():
            if "norm" not in name.lower() and "ln_" not in name:
                torch.nn.init.normal_(weight, std=0.3)  # strong enough for mistakes to show
    return module.eval()


def _sizes(family, d_model, n_layers):
    if family == "gpt2":
        return {"n_embd": d_model, "n_layer": n_layers, "n_head": 2, "n_positions": 256}
    sizes = {
        "hidden_size": d_model,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    }
    if family == "opt":
        return {**sizes, "ffn_dim": 2 * d_model, "word_embed_proj_dim": d_model}
    sizes["intermediate_size"] = 2 * d_model
    if family in ("gemma2", "gemma3"):  # a window shorter than the texts, so that it matters
        sizes |= {"sliding_window": 8, "layer_types": _alternating(n_layers)}
    if family not in ("bert", "gpt_neox", "phi"):
        sizes |= {"num_key_value_heads": 1, "head_dim": d_model // 2}
    return sizes


def _alternating(n_layers):
    kinds = ("sliding_attention", "full_attention")
    return [kinds[layer % 2] for layer in range(n_layers)]


def tiny_tokenizer(with_marks=False):
    """Byte-level BPE trained on a little text; `with_marks` adds [CLS] and [SEP] as BERT does."""
    special = ["<|endoftext|>", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TOKENIZER_TEXT.splitlines(),
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if with_marks:
        marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=marks
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[0]
    )


TEXTS = [
    "The senate met to ratify the treaty with Spain, and the house agreed to the report.",
    "a",
    "The river rose in the spring 🎉 and the farmers of the valley moved.",
    "What is the price of peace?",
]


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
