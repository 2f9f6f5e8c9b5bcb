"""micro-sam's own functions, with what its annotator gives them: runs in its environment, see `rivals`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rival_serving import Answer, Job, serve, timed


class MicroSam:
    """A model, a volume, and the embeddings that were made last."""

    def __init__(self, setting: Answer) -> None:
        import torch
        from micro_sam import util

        torch.set_num_threads(setting["threads"])
        self._util = util
        self._volume = np.load(setting["volume"])
        self._masks = np.load(setting["masks"])
        self._predictor = util.get_sam_model(
            "vit_b", device=setting["device"], checkpoint_path=setting["weights"]
        )
        self._embeddings: dict[str, Any] = {}

    def embed(self, n_slices: int, store: str) -> Answer:
        """`precompute_image_embeddings` into a zarr folder that is not there yet."""
        _, facts = timed(lambda: self._precomputed(n_slices, store))
        self._embeddings = self._precomputed(n_slices, store)  # from the folder, into memory
        features = Path(store).with_suffix(".npy")
        np.save(features, self._embeddings["features"][0])
        size = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
        return facts | {"bytes": size, "features": str(features)}

    def carry(self, n_slices: int, keys: list[int], stop: float) -> Answer:
        """`segment_mask_in_volume` from key masks; the embeddings of `embed`, over and over, are at hand."""
        order = np.arange(n_slices) % len(self._embeddings["features"])
        embeddings = self._embeddings | {"features": self._embeddings["features"][order]}
        result, facts = timed(lambda: self._carried(embeddings, n_slices, keys, stop))
        return facts | _extent(result)

    def embed_and_carry(self, n_slices: int, keys: list[int], stop: float, store: str) -> Answer:
        """Both, from a zarr folder that is not there yet."""
        result, facts = timed(lambda: self._carried(self._precomputed(n_slices, store), n_slices, keys, stop))
        return facts | _extent(result)

    def click(self, index: int, x: float, y: float) -> Answer:
        """`segment_from_points` with one point on an embedded slice: three masks, of which it takes one."""
        from micro_sam.prompt_based_segmentation import segment_from_points

        point, label = np.array([[y, x]]), np.array([1])
        mask, facts = timed(
            lambda: segment_from_points(self._predictor, point, label, self._embeddings, index)
        )
        return facts | {"pixels": int(np.count_nonzero(mask))}

    def _precomputed(self, n_slices: int, store: str) -> dict[str, Any]:
        found: dict[str, Any] = self._util.precompute_image_embeddings(
            self._predictor, self._volume[:n_slices], save_path=store, verbose=False
        )
        return found

    def _carried(self, embeddings: dict[str, Any], n_slices: int, keys: list[int], stop: float) -> Any:
        from micro_sam.multi_dimensional_segmentation import segment_mask_in_volume

        segmentation = np.zeros((n_slices, *self._volume.shape[1:]), dtype=np.uint32)
        segmentation[keys] = self._masks[: len(keys)]
        return segment_mask_in_volume(
            segmentation,
            self._predictor,
            embeddings,
            np.array(keys),
            stop_lower=False,
            stop_upper=False,
            iou_threshold=stop,
            projection="single_point",  # this and the next are the annotator's own
            box_extension=0.05,
        )


def _extent(result: Any) -> Answer:
    segmentation, (first, last) = result
    filled = int((segmentation != 0).any(axis=(1, 2)).sum())
    return {"first": int(first), "last": int(last), "filled": filled}


def load(setting: Answer) -> Mapping[str, Job]:
    """Load the model and name the jobs."""
    micro_sam = MicroSam(setting)
    return {
        "embed": micro_sam.embed,
        "carry": micro_sam.carry,
        "embed_and_carry": micro_sam.embed_and_carry,
        "click": micro_sam.click,
    }


if __name__ == "__main__":
    serve("micro_sam", load)
