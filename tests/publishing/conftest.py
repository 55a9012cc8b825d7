import shutil
from pathlib import Path

import pytest

from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.publishing.folders import write_model_folder

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-segmentation
model-index:
- name: mine
  results:
  - task:
      type: image-segmentation
    dataset:
      name: drawings
      type: drawings
      split: test
    metrics:
    - type: jaccard
      value: 0.5
      name: Jaccard (J)
---

# mine

`mine` is at [the Hub](https://huggingface.co/mine), and was runs/mine.

```bash
efp predict photo.jpg --checkpoint mine
efp score --checkpoint runs/mine --data mine-too
```

```python
load_checkpoint("mine")
```

<!-- images of the data -->
![The worst masks over the best ones](masks.png)
<!-- /images of the data -->
"""


@pytest.fixture(scope="session")
def mine(tiny_checkpoint, tmp_path_factory) -> Path:
    """A checkpoint of a user, with card and fingerprint."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "README.md").write_text(CARD)
    (folder / "training_images.csv").write_text(f"hash,split\n{'0' * 64},train\n")
    (folder / "masks.png").write_bytes(b"\x89PNG photos of patients")
    (folder / "trainer_state.json").write_text("{}")  # of the training; it is nobody else's business
    return folder


@pytest.fixture
def model_folder(mine, tmp_path) -> Path:
    """What would be uploaded as me/mine."""
    write_model_folder(mine, *load_checkpoint(mine), tmp_path / "model", "me/mine")
    return tmp_path / "model"
