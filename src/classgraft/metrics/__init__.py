"""What is measured: tensors in, numbers out."""
