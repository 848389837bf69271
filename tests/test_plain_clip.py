"""The CLIP that is built without open_clip: its weights and its numbers, and what waits until it is needed."""

from __future__ import annotations

import copy
import gzip
import json

import open_clip
import pytest
import torch

from clipseg_cli.config import BUNDLED_MODEL
from clipseg_cli.data.prompts import build_prompts, load_templates
from clipseg_cli.models.clip import architectures, text_classifier
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.text_classifier import embed_prompts, embed_words
from clipseg_cli.models.clip.vit import Clip, is_plain
from clipseg_cli.models.clip.whole_image import WholeReader
from clipseg_cli.models.weights.precision import hold_weights_in

CPU = torch.device("cpu")
PLAIN = [name for name in open_clip.list_models() if is_plain(architectures.architecture_config(name))]
PROMPTS = [
    [f"a photo of a {word}.", f"{word} on a very long and very sandy beach"] for word in ("cat", "sea lion")
]


def built_by_open_clip(config):
    with architectures.SkipInit():
        return open_clip.CLIP(**copy.deepcopy(dict(config))).eval()


def test_the_usual_ones_are_plain():
    assert {"ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-B-16-quickgelu"} <= set(
        PLAIN
    )
    assert is_plain(architectures.architecture_config(BUNDLED_MODEL))


@pytest.mark.parametrize("name", PLAIN)
def test_the_weights_have_open_clips_names_and_shapes(name):
    config = architectures.architecture_config(name)
    with torch.device("meta"):
        mine, theirs = architectures.build_model(config), built_by_open_clip(config)
    assert isinstance(mine, Clip)
    shapes = [{key: tensor.shape for key, tensor in net.state_dict().items()} for net in (mine, theirs)]
    assert shapes[0] == shapes[1]
    assert mine.visual.image_size == theirs.visual.image_size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_the_numbers_are_open_clips_to_the_last_bit(tiny_clip, dtype, quick_gelu):
    config = {**architectures.architecture_config(tiny_clip.name), "quick_gelu": quick_gelu}
    theirs, mine = built_by_open_clip(config), architectures.build_model(config)
    theirs.load_state_dict(tiny_clip.model.state_dict())
    # As ours: torch multiplies by frozen weights in another way, which may round otherwise.
    theirs.requires_grad_(requires_grad=False)
    mine.receive(tiny_clip.model.state_dict())
    mine.load_text()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = open_clip.tokenize(["a cat", "a rather long name of a thing"])
    for net in (mine, theirs):
        hold_weights_in(net, dtype)
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        assert torch.equal(mine.encode_image(image), theirs.encode_image(image))
        both = mine.encode_text(tokens).float(), theirs.encode_text(tokens).float()
    if dtype == torch.float32:
        assert torch.equal(*both)
    else:  # between the blocks ours keeps its tokens in float32, as autocast leaves them
        assert torch.nn.functional.cosine_similarity(*both).min() > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_whole_images_are_embedded_as_by_the_tower_itself(tiny_clip, monkeypatch, dtype):
    """To a rounding of what it is computed in, and without torch's own attention, which takes longer."""
    model = architectures.build_model(architectures.architecture_config(tiny_clip.name))
    model.receive(tiny_clip.model.state_dict())
    half = dtype == torch.bfloat16
    image = torch.randn(3, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(0))
    if half:
        hold_weights_in(model.visual, dtype)
    else:
        model.visual.to(dtype)
        image = image.to(dtype)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        expected = model.encode_image(image)
        monkeypatch.setattr(torch.nn.MultiheadAttention, "forward", lambda *_, **__: pytest.fail("slow"))
        found = WholeReader(model, model.visual.image_size[0])(image).whole
    if half:
        assert torch.nn.functional.cosine_similarity(found.float(), expected.float()).min() > 0.999
    else:
        rounding = 100 * torch.finfo(dtype).eps
        torch.testing.assert_close(found, expected, atol=rounding, rtol=rounding)


def test_the_text_tower_waits_until_words_are_read(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path))

    def load():
        return load_backbone(tiny_clip.name, str(tiny_clip.weights), CPU)

    def embed(backbone):
        own = {"fingerprint": backbone.fingerprint, "device": CPU}
        return embed_words(backbone.model, backbone.tokenizer, PROMPTS, **own)

    first = load()
    assert not first.model.has_text
    found = embed(first)
    assert first.model.has_text
    second = load()
    # With words in the cache, neither their weights nor the tokenizer's table are read.
    monkeypatch.setattr(gzip, "open", lambda *_: pytest.fail("reads the table"))
    assert torch.equal(embed(second), found)
    assert not second.model.has_text


def test_another_precision_is_another_entry_of_the_cache(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone = load_backbone(tiny_clip.name, str(tiny_clip.weights), CPU)
        hold_weights_in(backbone.model.visual, dtype)
        own = {"fingerprint": backbone.fingerprint, "device": CPU}
        found.append(embed_words(backbone.model, backbone.tokenizer, PROMPTS, **own))
        assert backbone.model.transformer.resblocks[0].mlp.c_fc.weight.dtype == dtype
    assert not torch.equal(*found)
    assert torch.nn.functional.cosine_similarity(*found).min() > 0.999
    assert len(list((tmp_path / "text").iterdir())) == 2


def test_a_thousand_words_in_eighty_sentences_are_read_without_padding(monkeypatch):
    """Tokens that go through the text tower: hardly more than the prompts have, a sixth of 77 positions for each."""
    names = [
        f"thing {i}" if i % 10 else f"thing {i} of a long name with many words in it" for i in range(1000)
    ]
    prompts = build_prompts(names, load_templates("imagenet"))
    lengths = torch.tensor([2 + len(prompt.split()) for word in prompts for prompt in word])
    tokens = (torch.arange(77) < lengths[:, None]).int()  # ids do not matter here
    model, seen = architectures.build_model(architectures.architecture_config(BUNDLED_MODEL)), []

    def count(_, batch):
        seen.append(len(batch) * int((batch != 0).sum(dim=1).max()))
        return torch.zeros(len(batch), 4)

    monkeypatch.setattr(text_classifier, "encode_text", count)
    found = embed_prompts(model, lambda _: tokens, prompts, device=CPU)
    assert found.shape == (1000, 80, 4)
    own = int(lengths.sum())
    assert own <= sum(seen) <= 1.02 * own
    assert sum(seen) < 77 * len(lengths) / 6


def test_names_and_configurations_are_those_of_open_clip_without_importing_it(monkeypatch):
    wanted = open_clip.list_models()
    configs = {name: open_clip.get_model_config(name) for name in wanted}
    monkeypatch.delitem(architectures.sys.modules, "open_clip")
    assert architectures.list_architectures()[1:] == [name for name in wanted if name != "tiny-vit"]
    for name in architectures.list_architectures()[1:]:
        assert json.dumps(architectures._library_config(name)) == json.dumps(configs[name])
