"""napari-sam's own methods: runs in its environment, see `rivals`.

They belong to its widget, which is made without a viewer here; `set_image` and `predict_sam` are as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.rival_serving import Answer, Job, serve, timed


def load(setting: Answer) -> Mapping[str, Job]:
    """Load the model and name the jobs."""
    import torch
    from napari.layers import Image, Labels
    from napari_sam._widget import SamWidget
    from qtpy.QtWidgets import QApplication, QCheckBox, QVBoxLayout
    from segment_anything import SamPredictor, build_sam_vit_b

    torch.set_num_threads(setting["threads"])
    application = QApplication([])
    volume = np.load(setting["volume"])
    model = build_sam_vit_b(setting["weights"]).to(setting["device"])

    class Widget(SamWidget):
        """The widget without a viewer, its layers and their controls: what the two methods look at."""

        def __init__(self, n_slices: int) -> None:
            super(SamWidget, self).__init__()
            self.setLayout(QVBoxLayout())
            self.sam_predictor = SamPredictor(model)
            self.image_layer = Image(volume[:n_slices])
            self.label_layer = Labels(np.zeros((n_slices, *volume.shape[1:]), dtype=np.int32))
            self.sam_logits = [None] * n_slices
            self.check_prev_mask = QCheckBox()
            self.application = application

    widget: list[Widget] = []

    def embed(n_slices: int) -> Answer:
        """`set_image`: every slice, kept in memory."""
        widget[:] = [Widget(n_slices)]
        _, facts = timed(widget[0].set_image)
        return facts | {"slices": len(widget[0].sam_features)}

    def click(index: int, x: float, y: float) -> Answer:
        """`predict_sam` with one point on an embedded slice: one mask."""
        points, labels = [np.array([index, y, x])], [1]
        mask, facts = timed(lambda: widget[0].predict_sam(points, labels, None, index))
        return facts | {"pixels": int(np.count_nonzero(mask))}

    return {"embed": embed, "click": click}


if __name__ == "__main__":
    serve("napari-sam", load)
