"""Tiny networks of transformers with random weights, in folders as the hub has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers

if TYPE_CHECKING:
    from pathlib import Path


def save_network(name: str, folder: Path) -> Path:
    """The files of a network that knows nothing, and takes milliseconds, in `folder`/`name`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, processor = _MAKERS[name]()
        for weight in net.parameters():
            if weight.ndim > 1:  # as it is initialised, all masks are about the same
                weight.data.normal_(0, 0.4)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    net.save_pretrained(folder / name)
    processor.save_pretrained(folder / name)
    if bars:
        transformers.utils.logging.enable_progress_bar()
    return folder / name


def _eomt() -> tuple[Any, Any]:
    config = transformers.EomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=64,
        patch_size=8,
        num_register_tokens=0,
        num_blocks=1,
        num_queries=12,
        num_upscale_blocks=1,
        num_labels=5,
    )
    size = {"shortest_edge": 64, "longest_edge": 64}
    processor = transformers.EomtImageProcessor(size=size, do_split_image=False, do_pad=True)
    return transformers.EomtForUniversalSegmentation(config), processor


def _mask2former() -> tuple[Any, Any]:
    swin = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        num_queries=10,
        num_labels=5,
    )
    processor = transformers.Mask2FormerImageProcessor(size={"height": 64, "width": 64})
    return transformers.Mask2FormerForUniversalSegmentation(config), processor


def _sam2() -> tuple[Any, Any]:
    hiera = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 16}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    config = transformers.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    processor = transformers.Sam2ImageProcessor(
        size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16}
    )
    return transformers.Sam2Model(config), processor


_MAKERS = {"eomt": _eomt, "mask2former": _mask2former, "sam2": _sam2}
