"""The faster attention is Meta's attention."""

from __future__ import annotations

import numpy.testing as npt
import pytest
import torch
from segment_anything.modeling.image_encoder import Attention

from napari_sam_med.sam.architectures import vit_attention
from napari_sam_med.sam.architectures.vit_attention import use_fast_attention
from tests.sam.micro_sam import build_micro_sam


def test_encoder_is_unchanged() -> None:
    encoder = build_micro_sam().image_encoder
    squares = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    names = set(encoder.state_dict())
    with torch.inference_mode():
        wanted = encoder(squares)
        use_fast_attention(encoder)
        found = encoder(squares)
    assert encoder.blocks[0].attn.forward.__func__ is not Attention.forward
    assert set(encoder.state_dict()) == names
    npt.assert_array_equal(found, wanted)


@pytest.mark.parametrize("strip", [2**20, 200, 1], ids=["at once", "some rows", "row by row"])
@pytest.mark.parametrize("way", ["_in_strips", "_folded"])
@pytest.mark.parametrize("size", [(14, 14), (9, 5)], ids=str)
def test_attention_is_exact_in_double_precision(
    size: tuple[int, int], way: str, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = Attention(48, num_heads=3, use_rel_pos=True, input_size=size).double()
    generator = torch.Generator().manual_seed(0)
    holder = torch.nn.Module()
    holder.blocks = torch.nn.ModuleList([torch.nn.Module()])
    holder.blocks[0].attn = attention
    x = torch.randn(2, *size, 48, dtype=torch.float64, generator=generator)
    monkeypatch.setattr(vit_attention, "_SCORES_AT_ONCE", strip)
    monkeypatch.setattr(vit_attention, "_in_strips", getattr(vit_attention, way))
    with torch.no_grad():
        for table in (attention.rel_pos_h, attention.rel_pos_w):
            table.copy_(torch.randn(table.shape, generator=generator))
        wanted = attention(x)
        use_fast_attention(holder)
        npt.assert_allclose(attention(x), wanted, rtol=1e-10, atol=1e-12)
