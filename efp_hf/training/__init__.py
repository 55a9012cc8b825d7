"""Training EFP: the trainer and the encoders it starts from."""

from ..extras import require

require("train", __name__)
