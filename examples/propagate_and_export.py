"""Several organs through the whole volume: prompts from a file, propagation, labels and a report.

Run it with ``python examples/propagate_and_export.py [FOLDER]``; it uses the bundled sample and model.
"""

import sys
from pathlib import Path

from napari_sam_med import load_predictor, read_labels, read_volume, write_labels
from napari_sam_med.evaluation.metrics import dice
from napari_sam_med.sample_data import sample_labels, sample_prompts, sample_volume
from napari_sam_med.segmentation.from_prompts import segment_from_prompts
from napari_sam_med.segmentation.prompts_file import read_prompts

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()
volume = read_volume(sample_volume())
objects = [entry for entry in read_prompts(sample_prompts(), volume) if entry.name in ("spleen", "aorta")]

result = segment_from_prompts(
    volume,
    objects,
    load_predictor("nano"),
    on_progress=lambda progress: print(f"\r{progress.done}/{progress.total} slices", end=""),
)
print()

# what SimpleITK, 3D Slicer and ITK-SNAP read, with the organ names inside
for name in ("organs.nii.gz", "organs.seg.nrrd"):
    print(write_labels(folder / name, result.labels, source=volume))

truth = read_labels(sample_labels(), reference=volume)
for entry in objects:
    agreement = dice(result.labels.data == entry.label, truth.data == entry.label)
    print(f"{entry.name}: {result.labels.volume_ml(entry.label):.0f} ml, Dice {agreement:.2f}")
