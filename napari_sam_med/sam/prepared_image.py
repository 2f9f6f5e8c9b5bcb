"""What a decoder makes of an image before any prompt, kept for the image that was asked last."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from napari_sam_med.sam.architectures.base import Architecture
from napari_sam_med.sam.image_embedding import ImageEmbedding

__all__ = ["PreparedImage"]


class PreparedImage:
    """Features of one embedding as the decoder takes them; forgotten with the embedding.

    Answers are those of a decoder that begins anew, so nothing of this is seen but the time: click after
    click on one slice, a fifth of SAM's decoder depends on the slice alone.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[ImageEmbedding, Any] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, embedding: ImageEmbedding, network: Architecture, features: Callable[[], Any]) -> Any:
        """Prepared features, or the features themselves for a network that prepares nothing.

        Parameters
        ----------
        embedding : ImageEmbedding
        network : Architecture
            One that prepares features also says whether they are of its present weights.
        features : callable
            Makes the features of the embedding on the network's device.
        """
        prepare = getattr(network, "prepare", None)
        if prepare is None:
            return features()
        check: Any = network
        with self._lock:
            kept = self._kept.get(embedding)
        if kept is None or not check.is_current(kept):
            kept = prepare(features())
            with self._lock:
                self._kept.clear()
                self._kept[embedding] = kept
        return kept
