"""One organ on one slice: from a file to labels on its own grid.

Run it with ``python examples/quickstart.py [LABELS]``; it uses the bundled sample and the bundled model.
"""

import sys

from napari_sam_med import LabelVolume, Prompts, SliceView, load_predictor, read_volume, to_rgb, write_labels
from napari_sam_med.sample_data import sample_volume

volume = read_volume(sample_volume())
view = SliceView("axial", 26)
predictor = load_predictor("nano")
embedding = predictor.embed(to_rgb(volume, view), volume.pixel_spacing(view))
prediction = predictor.predict(embedding, Prompts.from_box((26, 39, 95, 116)))
labels = LabelVolume.like(volume)
labels.assign(view, prediction.best_mask, class_id=6)
written = write_labels(sys.argv[1] if len(sys.argv) > 1 else "abdomen_liver.nii.gz", labels, source=volume)

print(f"{volume}\n{labels}\n{written}: {labels.volume_ml(6):.1f} ml on one slice")
