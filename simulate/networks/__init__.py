"""Real networks and images: from a checkpoint and a folder of images to features, logits and labels."""
