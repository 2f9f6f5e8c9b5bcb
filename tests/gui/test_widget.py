"""The widget as a whole: opening, foreign layers, planes, settings, the manifest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Labels
from napari.settings import get_settings
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QInputDialog, QLabel, QPushButton

import napari_sam_med
from napari_sam_med.gui import contributions
from napari_sam_med.gui import widget as widget_module
from napari_sam_med.gui.keybindings import SHORTCUTS
from napari_sam_med.gui.layer_bridge import BOXES_NAME, POINTS_NAME, PREVIEW_NAME
from napari_sam_med.gui.settings import Settings
from napari_sam_med.sam import model_registry
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.organs import Organ
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.slice_view import SliceView
from tests.gui.desk import LEFT, Desk
from tests.gui.fake_model import FakePredictor
from tests.gui.test_prompting import LIVER, VIEW, box_the_organ
from tests.shared_data import OPEN, needs_open

_CAPTIONS_OF_THE_MODEL = {"Model", "Device", "Compute on"}


def test_opening_the_widget_imports_no_torch() -> None:
    code = (
        "import sys, napari_sam_med.gui.widget, napari_sam_med.gui.contributions; "
        "sys.exit(bool({'torch', 'torchvision', 'segment_anything'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_opened_from_the_plugins_menu_and_closed_again(make_napari_viewer, predictor, qtbot) -> None:
    """napari gives plugins a proxy of the viewer, and no closeEvent when their dock goes (statement 42)."""
    viewer = make_napari_viewer(show=True)
    dock, widget = viewer.window.add_plugin_dock_widget("napari-sam-med", "SAM Med")
    actions = widget.actions_
    viewer.open_sample("napari-sam-med", "abdomen_phantom_with_labels")
    qtbot.waitUntil(lambda: actions.session.volume is not None and actions.model.model is not None)
    combo = widget.volume_panel.labels
    names = [combo.itemText(i) for i in range(combo.count())]
    combo.activated.emit(names.index("abdomen phantom labels"))
    qtbot.waitUntil(lambda: actions.session.voxel_count(LIVER) > 0)
    assert actions.bridge.labels_layer.data is actions.session.labels.data
    workers = actions.workers
    viewer.window.remove_dock_widget(dock)
    assert workers.running == []
    viewer.dims.set_point(0, 0.0)
    viewer.layers.clear()


def test_layers_share_one_transform_and_boxes_are_ready_to_be_drawn(desk: Desk) -> None:
    names = [layer.name for layer in desk.viewer.layers]
    assert POINTS_NAME in names
    assert BOXES_NAME in names
    for layer in desk.viewer.layers:
        assert np.allclose(layer.scale, (4.0, 1.5, 1.0))
        if layer.name != PREVIEW_NAME:  # one slice alone, which lies where the user looks
            assert np.allclose(layer.translate, desk.bridge.image_layer.translate)
        assert layer.axis_labels == ("S", "P", "L")
    assert desk.bridge.tool == "box"


def test_another_plugins_layer_keeps_its_transform_and_labels_copy_all_of_it(
    make_desk: Callable[[], Desk], predictor: FakePredictor, volume
) -> None:
    desk = make_desk()
    foreign = desk.viewer.add_image(
        np.asarray(volume.data),
        name="foreign",
        scale=(4, 1.5, 1),
        translate=(10, 20, 30),
        rotate=[[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        affine=np.diag([1, 1, 2, 1]),
    )
    desk.wait(lambda: desk.session.volume is not None)
    labels = desk.bridge.labels_layer
    for name in ("scale", "translate", "rotate", "shear"):
        assert np.allclose(getattr(labels, name), getattr(foreign, name)), name
    assert np.allclose(labels.affine.affine_matrix, foreign.affine.affine_matrix)
    point = (4, 8, 11)
    assert np.allclose(desk.bridge.frame.world(point), foreign.data_to_world(point))
    assert np.allclose(foreign.affine.affine_matrix, np.diag([1, 1, 2, 1]))


def test_a_flat_picture_works_too(make_desk: Callable[[], Desk], predictor: FakePredictor) -> None:
    desk = make_desk()
    picture = np.linspace(0, 0.2, 2000, dtype=np.float32).reshape(40, 50)
    picture[10:20, 15:30] = 1.0
    desk.viewer.add_image(picture, name="flat")
    desk.wait(lambda: desk.session.volume is not None and desk.actions.model.model is not None)
    desk.settle()
    assert desk.bridge.current_view() == SliceView("axial", 0)
    desk.viewer.reset_view()
    desk.bridge.set_tool("point")
    desk.click((0, 15, 20))
    mask = desk.wait_for_proposal()
    assert mask.sum() == 150


def test_the_users_labels_layer_is_gone_on_with_in_place(desk: Desk) -> None:
    data = np.zeros(desk.session.volume.shape, dtype=np.uint8)
    data[4, 0:3, 0:3] = LIVER
    own = desk.viewer.add_labels(data, name="from yesterday", **desk.bridge.frame.layer_arguments)
    combo = desk.widget.volume_panel.labels
    names = [combo.itemText(i) for i in range(combo.count())]
    combo.activated.emit(names.index("from yesterday"))
    desk.wait(lambda: desk.bridge.labels_layer is own)
    assert desk.session.voxel_count(LIVER) == 9
    desk.session.select_organ(LIVER)
    box_the_organ(desk)
    desk.key(Qt.Key.Key_Return)
    assert (data == LIVER).sum() == 9 + 48
    desk.undo()
    assert (data == LIVER).sum() == 9


def test_labels_from_a_file_are_gone_on_with(desk: Desk, tmp_path: Path) -> None:
    labels = LabelVolume.like(desk.session.volume)
    labels.data[2, 3:6, 3:6] = 40
    labels.organs = labels.organs.with_organ(Organ(40, "cyst", (1.0, 0.0, 0.0)))
    path = napari_sam_med.write_labels(tmp_path / "labels.nii.gz", labels)
    desk.actions.open_labels(path)
    desk.wait(lambda: desk.session.voxel_count(40) == 9)
    assert desk.session.organs.name_of(40) == "cyst"
    assert len(desk.bridge.layers_of_type(Labels)) == 1
    tree = desk.widget.organ_panel.tree
    desk.wait(lambda: tree.findItems("cyst", Qt.MatchFlag.MatchExactly))
    assert tree.findItems("cyst", Qt.MatchFlag.MatchExactly)[0].text(1) == "0.1"


def test_labels_that_do_not_fit_are_refused_in_words(desk: Desk) -> None:
    other = desk.viewer.add_labels(np.zeros((3, 4, 5), dtype=np.uint8), name="other")
    desk.widget.volume_panel.labels.chosen.emit(other)
    desk.wait(lambda: any("have shape (3, 4, 5)" in text for text in desk.said))
    assert desk.bridge.labels_layer is not other


def test_planes(desk: Desk) -> None:
    for plane, order, orientation in (
        ("coronal", (1, 0, 2), ("up", "right")),
        ("sagittal", (2, 0, 1), ("up", "right")),
        ("axial", (0, 1, 2), ("down", "right")),
    ):
        desk.widget.volume_panel.planes[plane].click()
        assert desk.viewer.dims.order == order
        assert tuple(str(o) for o in desk.viewer.scene.camera.orientation2d) == orientation
        assert desk.bridge.current_view().plane == plane
        assert desk.widget.volume_panel.planes[plane].isChecked()


def test_3d_shows_the_patient_from_the_front_and_leads_back(desk: Desk) -> None:
    box_the_organ(desk)
    desk.key(Qt.Key.Key_Return)
    desk.widget.volume_panel.planes["3d"].click()
    desk.wait(lambda: desk.bridge.current_view() is None)
    assert desk.widget.volume_panel.planes["3d"].isChecked()
    camera = desk.viewer.scene.camera
    assert np.allclose(camera.view_direction, (0, 1, 0), atol=1e-6)
    assert np.allclose(camera.up_direction, (1, 0, 0), atol=1e-6)
    assert not desk.bridge.image_layer.visible
    desk.widget.volume_panel.planes["axial"].click()
    assert not desk.native.updatesEnabled(), "organs are not drawn without the scan"
    desk.wait(desk.native.updatesEnabled)
    assert desk.bridge.image_layer.visible
    desk.wait(lambda: desk.bridge.tool == "box")


def test_the_slice_index_survives_a_layer_without_spacing(desk: Desk) -> None:
    desk.look_at(VIEW)
    desk.viewer.add_image(np.zeros((100, 5, 5)), name="unscaled")
    desk.settle()
    assert desk.bridge.current_view() == VIEW


def test_an_oblique_scan_says_so(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    turn = np.deg2rad(17)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:2, :2] = 2 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    nib.save(
        nib.Nifti1Image(np.arange(24 * 20 * 6, dtype=np.int16).reshape(24, 20, 6), affine), tmp_path / "o.nii"
    )
    desk = make_desk()
    desk.actions.open_scan(tmp_path / "o.nii")
    desk.wait(lambda: desk.session.volume is not None)
    desk.settle()
    assert "oblique 17°" in desk.widget.volume_panel.facts.text()


def test_a_file_with_several_volumes_is_asked_about(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path, monkeypatch
) -> None:
    """Statement 28."""
    data = np.zeros((8, 9, 5, 3), dtype=np.int16)
    data[..., 1] = np.arange(5)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "4d.nii")
    asked = []
    monkeypatch.setattr(QInputDialog, "getInt", lambda *args: asked.append(args[2]) or (2, True))
    desk = make_desk()
    desk.actions.open_scan(tmp_path / "4d.nii")
    desk.wait(lambda: desk.session.volume is not None)
    assert "3 volumes" in asked[0]
    assert desk.session.volume.data.max() == 4


def test_a_file_that_is_no_scan_is_an_error_in_words(
    make_desk: Callable[[], Desk], predictor: FakePredictor, tmp_path: Path
) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing of the kind")
    desk = make_desk()
    desk.actions.open_scan(tmp_path / "bad.nii.gz")
    desk.wait(lambda: any("bad.nii.gz" in text for text in desk.said))
    assert desk.session.volume is None


def test_choices_are_remembered(desk: Desk) -> None:
    panel = desk.widget.model_panel
    panel.devices.setCurrentIndex(panel.devices.findData("cpu"))
    panel.devices.activated.emit(panel.devices.currentIndex())
    window = desk.widget.volume_panel.window_panel
    window.presets.setCurrentIndex(window.presets.findData("liver"))
    window.presets.activated.emit(window.presets.currentIndex())
    assert Settings.load() == replace(Settings(), device="cpu", window="liver")


def test_damaged_settings_mean_the_defaults(user_folders: Path) -> None:
    (user_folders / "settings").mkdir()
    (user_folders / "settings" / "settings.json").write_text('{"model": 3, "window": "bone", "x": 1}')
    assert Settings.load() == Settings(window="bone")
    (user_folders / "settings" / "settings.json").write_text("{")
    assert Settings.load() == Settings()


def test_a_model_that_is_not_here_offers_its_download(desk: Desk, monkeypatch) -> None:
    panel = desk.widget.model_panel
    entries = [panel.models.itemText(i) for i in range(panel.models.count())]
    assert "SAM ViT-B  ↓" in entries
    assert entries[-1] == "Checkpoint file…"
    panel.choose("mobile_sam")
    assert panel.download.isVisibleTo(panel)
    assert "MobileSAM" in panel.download.text()
    here = []

    def fetch(name, progress, cancelled):
        here.append(name)
        return Path("mobile_sam.pth")

    monkeypatch.setattr("napari_sam_med.sam.checkpoints.fetch", fetch)
    for module in (
        model_registry,
        sys.modules["napari_sam_med.gui.model_panel"],
        sys.modules["napari_sam_med.gui.live_model"],
    ):
        monkeypatch.setattr(module, "is_available", lambda name: name == "nano" or name in here)
    panel.download.click()
    desk.wait(lambda: desk.actions.model.model is not None)
    assert here == ["mobile_sam"]
    assert not panel.download.isVisibleTo(panel)


def test_medsam_says_boxes_only(desk: Desk) -> None:
    desk.widget.model_panel.choose("medsam")
    assert "boxes only" in desk.widget.model_panel.about.text()
    assert not desk.widget.prompt_panel.tools["plus"].isEnabled()


def test_organs_are_locked_and_hidden_by_a_click(desk: Desk) -> None:
    tree = desk.widget.organ_panel.tree
    item = tree.findItems("liver", Qt.MatchFlag.MatchExactly)[0]
    tree.itemClicked.emit(item, 3)
    assert desk.session.organs[LIVER].locked
    tree.itemClicked.emit(item, 2)
    assert not desk.session.organs[LIVER].visible
    tree.itemClicked.emit(item, 0)
    assert desk.session.active_class_id == LIVER
    assert desk.bridge.labels_layer.selected_label == LIVER


def test_every_shortcut_is_listed(desk: Desk) -> None:
    texts = {label.text() for label in desk.widget.findChildren(QLabel)}
    assert {shortcut.label for shortcut in SHORTCUTS} <= texts
    assert "Not for clinical use" in texts


def test_closing_the_dock_stops_everything(desk: Desk, predictor: FakePredictor) -> None:
    """Closing a docked widget sends it no closeEvent."""
    workers = desk.actions.workers
    desk.actions.model.model.store.kept.clear()
    desk.viewer.window.remove_dock_widget(desk.widget)
    desk.widget.stop()
    assert workers.running == []
    desk.viewer.dims.set_point(0, 8.0)
    desk.settle()


def test_nothing_is_cut_off_in_a_narrow_dock(desk: Desk) -> None:
    desk.settle()
    scroll = desk.widget._scroll
    assert desk.widget._content.width() <= scroll.viewport().width()
    assert desk.widget.minimumWidth() <= 345


@pytest.mark.parametrize("points", [9, 13])
def test_captions_and_buttons_are_whole_in_any_font(desk: Desk, points: int) -> None:
    get_settings().appearance.font_size = points
    desk.settle()
    panel = desk.widget.model_panel
    desk.widget._scroll.ensureWidgetVisible(panel)
    QTest.mouseClick(panel.fold, LEFT)
    desk.settle()
    captions = [label for label in panel.findChildren(QLabel) if label.text() in _CAPTIONS_OF_THE_MODEL]
    assert len(captions) == len(_CAPTIONS_OF_THE_MODEL)
    for caption in captions:
        words = caption.fontMetrics().horizontalAdvance(caption.text())
        assert caption.contentsRect().width() >= words
    assert len({caption.width() for caption in captions}) == 1
    for button in desk.widget.volume_panel.findChildren(QPushButton):
        assert button.width() >= button.minimumSizeHint().width()
    assert desk.widget._content.width() <= desk.widget._scroll.viewport().width()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_first_mask_needs_no_scrolling_on_a_low_screen(
    make_desk: Callable[[], Desk],
    predictor: FakePredictor,
    volume,
    monkeypatch: pytest.MonkeyPatch,
    theme: str,
) -> None:
    monkeypatch.setattr(widget_module, "_LOW_SCREEN", 10_000)
    desk = make_desk()
    desk.viewer.theme = theme
    desk.viewer.window.resize(1280, 720)
    desk.open(volume)
    made = desk.widget
    needed = [made.volume_panel.images, *made.volume_panel.planes.values(), made.model_panel.fold]
    needed += [made.organ_panel.tree, *made.prompt_panel.tools.values(), made.prompt_panel.accept]
    needed += [made.prompt_panel.clear, made.prompt_panel.undo]
    for part in needed:
        assert part.isVisible()
        assert part.visibleRegion().boundingRect() == part.rect(), part.toolTip()
    assert made.model_panel.fold.text() == made.model_panel.models.currentText()
    window = made.volume_panel.window_panel
    assert not window.isVisible()
    QTest.mouseClick(made.volume_panel.fold, LEFT)
    assert window.isVisible()
    assert made.volume_panel.labels.isVisible()
    QTest.mouseClick(made.volume_panel.fold, LEFT)
    assert not window.isVisible()


def test_the_manifest_names_what_there_is() -> None:
    manifest = PluginManifest.from_file(Path(napari_sam_med.__file__).parent / "napari.yaml")
    manifest.validate_imports()
    kinds = manifest.contributions
    assert [widget.display_name for widget in kinds.widgets] == ["SAM Med", "Experiments"]
    assert kinds.readers
    assert kinds.writers
    assert {sample.key for sample in kinds.sample_data} == {"abdomen_phantom", "abdomen_phantom_with_labels"}


def test_reader_tells_scans_from_labels(tmp_path: Path, volume) -> None:
    labels = LabelVolume.like(volume)
    labels.data[2, 3:6, 3:6] = LIVER
    path = napari_sam_med.write_labels(tmp_path / "x.nii.gz", labels)
    [(data, options, kind)] = contributions.get_reader(str(path))(str(path))
    assert kind == "labels"
    assert np.array_equal(data, labels.data)
    assert contributions.get_reader("picture.png") is None
    [(_, options, kind)] = contributions.abdomen_phantom()
    assert kind == "image"
    assert options["contrast_limits"] == (-160.0, 240.0)


def test_writer_keeps_the_grid_of_the_scan(tmp_path: Path) -> None:
    """Statement 26, through napari's own Save."""
    image, (data, options, _) = contributions.abdomen_phantom_with_labels()
    path = tmp_path / "saved.nii.gz"
    assert contributions.write_labels_layer(str(path), data, options) == [str(path)]
    scan = image[1]["metadata"]["sam_med"]
    again = read_labels(path, reference=scan)
    assert np.array_equal(again.data, data)
    assert np.array_equal(nib.load(path).affine, scan.affine)


def test_writer_takes_any_labels_layer(tmp_path: Path) -> None:
    layer = Labels(np.eye(6, dtype=np.int64)[None].repeat(3, 0) * 5, scale=(3, 1, 1))
    data, options, _ = layer.as_layer_data_tuple()
    contributions.write_labels_layer(str(tmp_path / "any.nrrd"), data, options)
    again = read_labels(tmp_path / "any.nrrd")
    assert np.array_equal(again.data, layer.data)
    assert again.grid.spacing_zyx == pytest.approx((3, 1, 1))


@needs_open
def test_a_real_scan_in_every_plane(make_desk: Callable[[], Desk], predictor: FakePredictor) -> None:
    """Prompt by a click where the truth says spleen; what comes back lies there in the file's own array."""
    folder = OPEN / "ct_abdomen_ts"
    scan = read_volume(folder / "image.nii.gz")
    truth = read_labels(folder / "label_btcv13.nii.gz", reference=scan).data == LIVER
    desk = make_desk()
    desk.actions.open_scan(folder / "image.nii.gz")
    desk.wait(lambda: desk.session.volume is not None and desk.actions.model.model is not None)
    centre = tuple(int(v) for v in np.argwhere(truth)[truth.sum() // 2])
    for plane in ("axial", "coronal", "sagittal"):
        desk.widget.volume_panel.planes[plane].click()
        desk.look_at(SliceView.containing(plane, centre))
        desk.bridge.set_tool("point")
        desk.click(centre)
        [prompts] = [p for v, p in desk.session.active_object.key_slices.items() if v.plane == plane]
        view = SliceView.containing(plane, centre)
        assert np.allclose(prompts.points_xy[0], view.pixel_xy(centre, scan.shape), atol=0.6)
