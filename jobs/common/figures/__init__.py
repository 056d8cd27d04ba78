"""What figures of several studies share."""
