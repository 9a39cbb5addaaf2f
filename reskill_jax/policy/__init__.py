"""The policy: decoder, ragged cache, masked sampling, tokenizers, weights."""
