"""napari and Qt: the dock widget, and what napari finds in the manifest."""
