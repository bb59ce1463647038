"""What is audited and how a modality is made absent: specs, paths into batches, maskers."""
