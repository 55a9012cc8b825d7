"""What a mask and its image tell of the lesion."""
