"""From a checkpoint to repositories of the Hub: the folders that are uploaded, their checks, the upload."""
