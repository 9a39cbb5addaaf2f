"""The offline creator: contrast, diagnosis, experience, authoring, verification."""
