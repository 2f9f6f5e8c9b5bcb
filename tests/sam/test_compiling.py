"""Compiling an encoder on request."""

from __future__ import annotations

import numpy.testing as npt
import pytest

from napari_sam_med.errors import DeviceError
from napari_sam_med.sam import compiling
from napari_sam_med.sam.predictor import load_predictor
from tests.sam.micro_sam import build_micro_sam, predictor_over, random_image


def test_a_compiled_encoder_embeds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    translated = []

    def backend(graph, examples):
        translated.append(graph)
        return graph

    monkeypatch.setattr(compiling, "_BACKEND", backend)
    sam = build_micro_sam()
    image = random_image(128, 100)
    plain = predictor_over(sam).embed(image).features.image
    compiled = predictor_over(sam)
    names = set(sam.image_encoder.state_dict())
    compiling.compile_encoder_of(compiled)
    made = len(translated)
    assert made
    npt.assert_allclose(compiled.embed(image).features.image, plain, rtol=1e-4, atol=1e-5)
    assert len(translated) == made, "the first slice after loading does not wait for the compiler"
    assert set(sam.image_encoder.state_dict()) == names


def test_what_cannot_be_compiled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph, examples):
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(compiling, "_BACKEND", backend)
    with pytest.raises(DeviceError, match=r"no C\+\+ compiler was found.*g\+\+"):
        load_predictor("nano", device="cpu", compile_encoder=True)
