"""Opening a model: weights as data, code as code; which parts belong to which modality; leaving it as it came."""
