"""Training EFP: the trainer and the encoders it starts from."""
