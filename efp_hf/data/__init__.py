"""Images and masks: reading and checking files, pairs and folders, splits, augmentation."""
