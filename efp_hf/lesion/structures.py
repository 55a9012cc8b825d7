"""The dermoscopic structures of ISIC 2018, Task 2: their names, in the order in which a model has them, and files."""

LESION = "lesion"
STRUCTURES = ("globules", "milia_like_cyst", "negative_network", "pigment_network", "streaks")
LABELS = (LESION, *STRUCTURES)  # of a model for both
MASK_NAME = "{}_attribute_{}.png"  # of an image's id and a structure
