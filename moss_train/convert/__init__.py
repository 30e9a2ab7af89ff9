"""Between run folders and folders in the Hugging Face layout; both directions keep every bit of the weights."""
