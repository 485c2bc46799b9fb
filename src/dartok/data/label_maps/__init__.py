"""Pictures with label maps: the common data sets of segmentation, and folders like them."""

from dartok.data.label_maps.layouts import open_label_maps
from dartok.data.label_maps.pictures import IGNORE, LabelledPicture, MapSource

__all__ = ["IGNORE", "LabelledPicture", "MapSource", "open_label_maps"]
