"""Text of others made safe to look at: signs that have no shape, or turn what follows, become their codes."""

import re

#: Controls but tab and new line, soft hyphen, zero widths, marks of direction, separators of lines,
#: surrogates, signs that are none, tags.
SHAPELESS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """`⟨U+202E⟩` for the sign that turns the direction of writing."""
    return SHAPELESS.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
