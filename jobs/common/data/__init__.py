"""Data that several studies use: labelled images, images with masks, batches and augmentation."""
