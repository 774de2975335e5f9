"""Generated protobuf code (see protos/generate.py); never edited by hand."""
