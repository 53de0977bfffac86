"""Fine-tuning of trained backbones for detection and segmentation: networks, training, predictions and scores."""
