"""The embedded world's vision tower: CLIP's architecture, tiny, of random weights from a fixed seed."""

from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ftsafety.world.pictures import SIZE

SEED = 0


def build_tower(dtype: torch.dtype) -> tuple[Any, Any]:
    """The tower, which gives 16 features of 64 numbers a picture, and how pictures are put to it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        tower: Any = CLIPVisionModel(
            CLIPVisionConfig(
                image_size=SIZE,
                patch_size=8,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
            )
        )
    return tower.to(dtype).eval(), CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
