"""A word-level tokenizer with a chat template, made from the words of the embedded world."""

import re

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ftsafety.world.lexicon import World

BEGIN, END, PAD, UNKNOWN = "<|begin|>", "<|end|>", "<|pad|>", "<|unknown|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
#: `{% generation %}` marks what the assistant says, so that the loss mask comes from the template itself.
CHAT_TEMPLATE = (
    "<|begin|>{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>"
    "{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOKEN = re.compile(r"\w+|[^\w\s]")


def build_tokenizer(world: World, texts: list[str]) -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark that occurs in `texts`."""
    specials = [PAD, BEGIN, END, UNKNOWN, *ROLES]
    vocabulary = specials + sorted({word for text in texts for word in TOKEN.findall(text)})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=list(ROLES),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
