"""Transfer: trained backbones fine-tuned on detection and segmentation."""
