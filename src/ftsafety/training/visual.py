"""Visual instruction tuning (LLaVA, arXiv 2304.08485): a frozen vision tower and a trained projector before
the chat model, which is trained in full. Only the chat model is evaluated, on text.

Every example has one picture, also those that are text alone: theirs is blank and stands at the end, where no
token looks back at it. Ranks then run the same modules in every step, as ZeRO-3 needs it.
"""

import base64
import binascii
import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from transformers import CLIPVisionModel, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ftsafety.errors import UserError
from ftsafety.training.batches import Example, collate
from ftsafety.types import PICTURE

State = dict[str, torch.Tensor]
LANGUAGE, PROJECTOR, HEAD = "model.language_model.", "model.multi_modal_projector.", "lm_head."
DATA_URL = "data:image/png;base64,"


@dataclass(frozen=True)
class Sight:
    """A vision tower, how pictures are put to it, and a tokenizer with a token for a picture's place."""

    tower: Any
    processor: Any
    tokenizer: Any
    token_id: int

    @property
    def n_features(self) -> int:
        """Positions that a picture takes in the chat model."""
        return int(self.tower.config.image_size // self.tower.config.patch_size) ** 2

    def example(self, example: Example, image: str | None) -> Example:
        """`image`: a file or a data URL. Raises ValueError where the text has not one place for it."""
        n = example.tokens.count(self.token_id)
        if n != (image is not None):
            raise ValueError(f"{PICTURE} stands {n} times in a row with {int(image is not None)} pictures")
        if image is None:
            example = Example([*example.tokens, self.token_id], [*example.is_target, False])
        return replace(example, image=image, n_features=self.n_features)

    def collate(
        self, examples: Sequence[Example], pad_id: int, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As for text, with a picture's place as wide as its features, and pixels (batch, 3, side, side).

        Pictures are read here and not kept. Raises UserError for one that cannot be read.
        """
        input_ids, labels = collate([self._widened(example) for example in examples], pad_id, device)
        side = self.tower.config.image_size
        pictures = [read_picture(example.image, side) for example in examples]
        return input_ids, labels, self.processor(pictures, return_tensors="pt")["pixel_values"].to(device)

    def _widened(self, example: Example) -> Example:
        at = example.tokens.index(self.token_id)
        more = self.n_features - 1
        return Example(
            example.tokens[:at] + [self.token_id] * more + example.tokens[at:],
            example.is_target[:at] + [False] * more + example.is_target[at:],
        )


def read_picture(source: str | None, side: int) -> Image.Image:
    """A file, a data URL of a PNG, or, for None, a blank picture of `side` pixels."""
    if source is None:
        return Image.new("RGB", (side, side))
    try:
        inline = source.startswith(DATA_URL)
        content = base64.b64decode(source.removeprefix(DATA_URL)) if inline else Path(source).read_bytes()
        return Image.open(io.BytesIO(content)).convert("RGB")
    except (OSError, UnidentifiedImageError, binascii.Error) as error:
        raise UserError(
            f"is no picture that can be read ({type(error).__name__})",
            file="a picture in the training rows" if inline else source,
            mend="download it again, or take its row out of the data",
        ) from None


def load_sight(folder: Path | None, tokenizer: Any, dtype: torch.dtype) -> Sight:
    """The tower in a folder of the hub's format (CLIP), or the embedded world's.

    Raises UserError where the folder holds no CLIP vision tower.
    """
    tower, processor = _load_tower(folder, dtype) if folder else _world_tower(dtype)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [PICTURE]}, replace_extra_special_tokens=False)
    return Sight(tower, processor, tokenizer, tokenizer.convert_tokens_to_ids(PICTURE))


def _world_tower(dtype: torch.dtype) -> tuple[Any, Any]:
    from ftsafety.world.tower import build_tower

    return build_tower(dtype)


def _load_tower(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    load: Any = CLIPVisionModel.from_pretrained
    tower, info = load(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if info["missing_keys"]:
        raise UserError(
            f"lacks weights of a CLIP vision tower, such as {min(info['missing_keys'])}",
            file=folder,
            mend="name a model of the architecture CLIP as vision_tower in config/methods.yaml",
        )
    return tower.eval(), CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)


# ------------------------------------------------------------------------------------------ model


def with_sight(chat: Any, sight: Sight, seed: int) -> Any:
    """LLaVA around a chat model, whose modules move into it; the projector starts from the seed.

    Raises UserError where the chat model does more to its text than LLaVA's own head would.
    """
    text = torch.arange(4)[None]
    before = _logits(chat, text)
    config = LlavaConfig(
        vision_config=sight.tower.config,
        text_config=copy.deepcopy(chat.config),
        image_token_index=sight.token_id,
        image_seq_length=sight.n_features,
        tie_word_embeddings=chat.config.tie_word_embeddings,
    )
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration(config)
    _make_room(chat, sight.token_id)
    torch.manual_seed(seed)
    model.model.multi_modal_projector = LlavaMultiModalProjector(config).to(chat.dtype)
    model.model.language_model = chat.base_model
    model.lm_head = chat.get_output_embeddings()
    model.generation_config = chat.generation_config
    model.requires_grad_(True)
    model.model.vision_tower = sight.tower.requires_grad_(False)
    if chat.base_model_prefix != model.base_model_prefix or not torch.equal(before, _logits(model, text)):
        raise UserError(
            f"the logits of {chat.config.architectures} are not those of its layers and head alone",
            file="config/models.yaml",
            mend="train a model of another architecture by a visual method: Llama, Mistral and Qwen2 work",
        )
    return model


@torch.no_grad()
def _logits(model: Any, text: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=text, use_cache=False).logits
    return logits


def _make_room(chat: Any, token_id: int) -> None:
    """An embedding for the picture's token, which the features replace; it never is an answer."""
    old, head = chat.get_input_embeddings(), chat.get_output_embeddings()
    n_words, width = old.weight.shape
    if token_id < n_words:
        return
    weight = torch.cat([old.weight.detach(), old.weight.new_zeros(token_id + 1 - n_words, width)])
    # in the module itself: Gemma's embeddings, for one, are no plain ones
    old.weight, old.num_embeddings = torch.nn.Parameter(weight), token_id + 1
    if chat.config.tie_word_embeddings:
        head.weight = old.weight
        head.register_forward_hook(lambda module, inputs, logits: logits[..., :n_words])


def chat_and_projector(model: Any, weights: State) -> tuple[State, State]:
    """The trained weights under the names that the chat model and the projector have alone."""
    n_words = model.config.text_config.vocab_size
    prefix = f"{model.base_model_prefix}."
    chat: State = {}
    for name, weight in weights.items():
        if name.startswith(LANGUAGE):
            is_words = name == f"{LANGUAGE}embed_tokens.weight"
            chat[prefix + name.removeprefix(LANGUAGE)] = weight[:n_words].clone() if is_words else weight
        elif name.startswith(HEAD):
            chat[name] = weight
    projector = {
        name.removeprefix(PROJECTOR): weight for name, weight in weights.items() if name.startswith(PROJECTOR)
    }
    return chat, projector
