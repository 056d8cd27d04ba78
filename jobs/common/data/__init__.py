"""Data that several studies use: labelled images and sounds, images with masks, batches and augmentation."""
