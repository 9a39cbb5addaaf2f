"""From evidence to a proposed bundle: reservoir, contrast, diagnosis, authoring, verification."""
