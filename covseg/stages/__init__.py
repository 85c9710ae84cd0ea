"""The stages, in walking order: read, preprocess, segment, input_filter, postprocess, severity, encode."""
