"""From a folder of photos to a training set: a person looks at each mask, the most doubtful first."""
